"""Processes and terminals over RPC.

Losing a stream does not stop its process: that is what disconnecting and background commands are.
A signal, the deadline of the call that started it, and the end of the sandbox do.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from headrace.adapters.base import note
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.codec.processes import (
    KEEPALIVE,
    ProcessEncoder,
    describe_process,
    encode_start,
)
from headrace.adapters.e2b.envd.rpc import ClientStream, Method, Outgoing, ServerStream, Unary
from headrace.adapters.e2b.errors import NotSupportedError
from headrace.adapters.e2b.following import Form
from headrace.adapters.e2b.schemas.processes import (
    ListRequest,
    ProcessInput,
    ProcessSelector,
    Pty,
    Selected,
    SendInputRequest,
    SendSignalRequest,
    StartRequest,
    StreamInputRequest,
    UpdateRequest,
)
from headrace.adapters.e2b.users import expand_path
from headrace.engine.processes import MAX_STDIN, Process
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    DeadlineError,
    InvalidRequestError,
    PathNotFoundError,
    ProcessNotFoundError,
    WrongStateError,
)
from headrace.model.specs import MAX_TIMEOUT, ProcessRequest, PtySize

SIGNALS: Mapping[str | int, int] = {"SIGNAL_SIGKILL": 9, "SIGNAL_SIGTERM": 15, 9: 9, 15: 15}
"""The signals that can be sent, by the names and numbers of the protocol's enum."""

_OVERTIME = 30.0
"""How many seconds after its deadline a process's stream may end: more than it takes to kill it
and to bring its last output home. The end says by itself that the deadline has come."""


# --- streams --------------------------------------------------------------------------------


async def start(outgoing: Outgoing, message: StartRequest) -> None:
    """Start a process and follow it; the time of the call is that of the process."""
    call = outgoing.call
    request = make_request(message, call.user, call.sandbox, outgoing.time_left)
    process = await _start(call.sandbox, request)
    note(call.exchange.scope, process_id=process.id)
    await outgoing.follow(process.log, _make_form(), has_end=True, overtime=_OVERTIME)


async def connect(outgoing: Outgoing, message: Selected) -> None:
    """Follow a process from now on; of one that ended lately there is the end alone."""
    call = outgoing.call
    process = call.sandbox.process(message.process.key)
    note(call.exchange.scope, process_id=process.id)
    log = process.log
    after = log.last_seq - 1 if log.is_finished else log.last_seq
    await outgoing.write(encode_start(process.pid))
    await outgoing.follow(log, _make_form(), after, has_end=True)


def make_request(
    message: StartRequest, user: str, sandbox: Sandbox, timeout: float | None
) -> ProcessRequest:
    """Give what the engine is asked for; raises InvalidRequestError.

    ``timeout`` is what is left of the call's time; raises DeadlineError if that is nothing.
    """
    if timeout == 0:
        raise DeadlineError("the time of this call was over before the process was started")
    config = message.process
    if config is None or not config.cmd:
        raise InvalidRequestError("process.cmd must name a command")
    told = {
        "E2B_SANDBOX": "true",
        "E2B_SANDBOX_ID": sandbox.id,
        "E2B_TEMPLATE_ID": sandbox.spec.template,
    }
    unless_set = {name: text for name, text in told.items() if name not in sandbox.spec.env}
    return ProcessRequest(
        argv=(config.cmd, *config.args),
        env={**unless_set, **(config.envs or {})},
        cwd=expand_path(config.cwd or "", user),
        user=user,
        timeout=None if timeout is None else min(timeout, MAX_TIMEOUT),
        has_stdin=message.stdin is not False,
        pty=None if message.pty is None else read_size(message.pty) or PtySize(),
        tag=message.tag or None,
    )


def read_size(pty: Pty) -> PtySize | None:
    """Give a terminal's size, None if there is none; raises InvalidRequestError."""
    if pty.size is None:
        return None
    usual = PtySize()
    return PtySize(cols=pty.size.cols or usual.cols, rows=pty.size.rows or usual.rows)


async def _start(sandbox: Sandbox, request: ProcessRequest) -> Process:
    """Start a process; what cannot be found is the fault of the request in this dialect."""
    try:
        return await sandbox.start_process(request)
    except InvalidRequestError as error:
        if error.details.get("reason") != "no_directory":
            raise
        is_there = await sandbox.files.exists(request.cwd, user=request.user)
        what = "is not a directory" if is_there else "does not exist"
        raise InvalidRequestError(f"cwd '{request.cwd}' {what}") from error
    except PathNotFoundError as error:
        raise InvalidRequestError(f"error starting process: {error.message}") from error


def _make_form() -> Form:
    return Form(ProcessEncoder().encode, lambda: KEEPALIVE)


# --- unary calls ----------------------------------------------------------------------------


async def list_running(call: Call, _message: ListRequest) -> Mapping[str, Any]:
    """Give the processes that run."""
    described = [describe_process(each.request, each.pid) for each in call.sandbox.processes]
    return {"processes": described}


async def send_input(call: Call, message: SendInputRequest) -> Mapping[str, Any]:
    """Write to the standard input or the terminal."""
    await _write(_find_running(call, message.process), message.input)
    return {}


async def stream_input(
    call: Call, messages: AsyncIterator[StreamInputRequest]
) -> Mapping[str, Any]:
    """Write what comes, as it comes."""
    process: Process | None = None
    async for message in messages:
        if message.start is not None:
            if process is not None:
                raise InvalidRequestError("the stream has begun already")
            process = _find_running(call, message.start.process)
        elif message.data is not None:
            if process is None:
                raise InvalidRequestError("the stream must begin with its start")
            await _write(process, message.data.input)
    return {}


async def close_stdin(call: Call, message: Selected) -> Mapping[str, Any]:
    """End the standard input."""
    process = _find_running(call, message.process)
    if process.request.pty is not None:
        raise WrongStateError("the input of a terminal cannot be closed; send 0x04 instead")
    await process.close_stdin()
    return {}


async def send_signal(call: Call, message: SendSignalRequest) -> Mapping[str, Any]:
    """Send a signal to the process and those that it started."""
    process = _find_running(call, message.process)
    number = None if message.signal is None else SIGNALS.get(message.signal)
    if number is None:
        raise NotSupportedError(f"the signal {message.signal!r:.40} cannot be sent")
    await process.signal(number)
    return {}


async def update(call: Call, message: UpdateRequest) -> Mapping[str, Any]:
    """Give a terminal another size."""
    process = _find_running(call, message.process)
    size = None if message.pty is None else read_size(message.pty)
    if size is not None:
        await process.resize(size)
    return {}


async def _write(process: Process, given: ProcessInput) -> None:
    is_terminal = process.request.pty is not None
    if (given.pty is not None) is not is_terminal:
        fitting, wrong = ("pty", "stdin") if is_terminal else ("stdin", "pty")
        raise WrongStateError(f"the process {process.pid} takes {fitting}, not {wrong}")
    data = given.stdin if given.pty is None else given.pty
    for start in range(0, len(data or b""), MAX_STDIN):
        await process.write_stdin((data or b"")[start : start + MAX_STDIN])


def _find_running(call: Call, selector: ProcessSelector) -> Process:
    process = call.sandbox.process(selector.key)
    if not process.is_running:
        raise ProcessNotFoundError(f"the process {selector.key!r} has ended")
    note(call.exchange.scope, process_id=process.id)
    return process


_SERVICE = "/process.Process/"

METHODS: Mapping[str, Method] = {
    f"{_SERVICE}Start": ServerStream(StartRequest, start),
    f"{_SERVICE}Connect": ServerStream(Selected, connect),
    f"{_SERVICE}List": Unary(ListRequest, list_running),
    f"{_SERVICE}SendInput": Unary(SendInputRequest, send_input),
    f"{_SERVICE}StreamInput": ClientStream(StreamInputRequest, stream_input),
    f"{_SERVICE}CloseStdin": Unary(Selected, close_stdin),
    f"{_SERVICE}SendSignal": Unary(SendSignalRequest, send_signal),
    f"{_SERVICE}Update": Unary(UpdateRequest, update),
}
