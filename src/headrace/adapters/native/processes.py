"""Processes: started, followed, written to, signalled."""

import signal
import time
from typing import Any

from headrace.adapters.base import note
from headrace.adapters.native import failures, sandboxes
from headrace.adapters.native.answers import HeaderList
from headrace.adapters.native.codec import describe_end
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON, NDJSON, SSE
from headrace.adapters.native.outcome import Outcome
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.runs import Run
from headrace.adapters.native.schemas import ReadEvents, Resize, SendSignal, StartProcess
from headrace.adapters.native.shapes import (
    ProcessEventPage,
    ProcessEventShape,
    ProcessList,
    ProcessOutcome,
    ProcessShape,
)
from headrace.adapters.native.streams import answer_events, read_position
from headrace.engine.event_log import EventLog
from headrace.engine.processes import Process
from headrace.model.errors import (
    ExecutionNotFoundError,
    InvalidRequestError,
    OutputTooLargeError,
    PathNotFoundError,
    ProcessNotFoundError,
)
from headrace.model.events import Stream
from headrace.model.ids import sandbox_of
from headrace.model.records import PROCESS_CODEC

_NAMES = {number.name: int(number) for number in signal.Signals}


async def start(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes/{sandbox_id}/processes``."""
    sandbox = sandboxes.find(exchange)
    body = await exchange.read_body(StartProcess)
    asked_at = time.time()
    process = await sandbox.start_process(body.to_request())
    note(exchange.scope, process_id=process.id)
    headers: HeaderList = (
        (b"location", f"{exchange.origin}/v1/processes/{process.id}".encode()),
        (b"headrace-process-id", process.id.encode()),
    )
    if body.background:
        await exchange.answer(describe(process), 202, *headers)
        return
    run = Run(process.log, make_outcome(process, exchange.settings.max_outcome), asked_at)
    is_complete = await run.answer(exchange, headers)
    if not is_complete and body.on_disconnect == "kill" and process.is_running:
        await process.signal(signal.SIGKILL)


def make_outcome(process: Process, maximum: int) -> Outcome:
    """Give what collects the events of a process."""
    is_terminal = process.request.pty is not None
    streams = (Stream.PTY,) if is_terminal else (Stream.STDOUT, Stream.STDERR)
    return Outcome(process.id, maximum, streams, is_process=True)


def describe(process: Process) -> ProcessShape:
    """Give a process as clients see it."""
    log, request = process.log, process.request
    shape: ProcessShape = {
        "id": process.id,
        "sandbox_id": sandbox_of(process.id) or "",
        "pid": process.pid,
        "argv": list(request.argv),
        "cwd": request.cwd,
        "user": request.user,
        "tag": request.tag,
        "has_pty": request.pty is not None,
        "state": "finished" if log.is_finished else "running",
        "last_seq": log.last_seq,
    }
    if log.terminal is not None:
        shape["exited"] = describe_end(log.terminal)  # type: ignore[typeddict-item, arg-type]  # its
    return shape


def signal_number(given: int | str) -> int:
    """Give the number of a signal; raises InvalidRequestError for names that nobody knows."""
    number = _NAMES.get(given) if isinstance(given, str) else given
    if number is None:
        raise InvalidRequestError(f"unknown signal {given!r}; expected a name such as SIGTERM")
    return number


async def list_all(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes/{sandbox_id}/processes``."""
    running = sandboxes.find(exchange).processes
    answer: ProcessList = {"processes": [describe(each) for each in running]}
    await exchange.answer(answer)


async def show(exchange: Exchange) -> None:
    """Answer ``GET /v1/processes/{process_id}``."""
    await exchange.answer(describe(_find(exchange)))


async def follow(exchange: Exchange) -> None:
    """Answer ``GET /v1/processes/{process_id}/events``."""
    query = exchange.read_query(ReadEvents)
    await answer_events(exchange, _find_log(exchange), read_position(exchange, query.after))


async def write_stdin(exchange: Exchange) -> None:
    """Answer ``POST /v1/processes/{process_id}/stdin``."""
    process = _find(exchange)
    async for chunk in exchange.read_bytes():
        await process.write_stdin(chunk)
    await exchange.answer_nothing()


async def close_stdin(exchange: Exchange) -> None:
    """Answer ``POST /v1/processes/{process_id}/stdin/close``."""
    await _find(exchange).close_stdin()
    await exchange.answer_nothing()


async def send_signal(exchange: Exchange) -> None:
    """Answer ``POST /v1/processes/{process_id}/signal``."""
    process = _find(exchange)
    body = await exchange.read_body(SendSignal)
    await process.signal(signal_number(body.signal))
    await exchange.answer_nothing()


async def resize(exchange: Exchange) -> None:
    """Answer ``POST /v1/processes/{process_id}/resize``."""
    process = _find(exchange)
    body = await exchange.read_body(Resize)
    await process.resize(body.to_size())
    await exchange.answer_nothing()


async def kill(exchange: Exchange) -> None:
    """Answer ``DELETE /v1/processes/{process_id}``."""
    await _find(exchange).signal(signal.SIGKILL)
    await exchange.answer_nothing()


def _find(exchange: Exchange) -> Process:
    process_id = exchange.path["process_id"]
    process = exchange.tenant.find_owner(process_id).process(process_id)
    note(exchange.scope, process_id=process_id)
    return process


def _find_log(exchange: Exchange) -> EventLog[Any]:
    process_id = exchange.path["process_id"]
    try:
        log = exchange.tenant.find_log(process_id)
    except ExecutionNotFoundError:
        log = None
    if log is None or log.codec is not PROCESS_CODEC:
        raise ProcessNotFoundError(f"there is no log of {process_id!r}", id=process_id)
    note(exchange.scope, process_id=process_id)
    return log


_ALL = "/v1/sandboxes/{sandbox_id}/processes"
_ONE = "/v1/processes/{process_id}"
_NAMED = ("Location", "Headrace-Process-Id", "Server-Timing")
_IN_PROCESS = (*failures.BY_AGENT, ProcessNotFoundError)
_DONE = {204: Reply("It was done.")}

ROUTES = (
    Route(
        "POST",
        _ALL,
        "startProcess",
        "Run a command",
        start,
        {
            200: Reply(
                "Its events as they come, or the outcome.",
                {SSE: ProcessEventShape, JSON: ProcessOutcome, NDJSON: ProcessEventShape},
                headers=_NAMED,
            ),
            202: Reply("The process, which runs on.", {JSON: ProcessShape}, headers=_NAMED),
        },
        failures=(*failures.BY_AGENT, PathNotFoundError, OutputTooLargeError),
        body=StartProcess,
    ),
    Route(
        "GET",
        _ALL,
        "listProcesses",
        "List the processes that run",
        list_all,
        {200: Reply("The processes.", {JSON: ProcessList})},
        failures=failures.IN_SANDBOX,
    ),
    Route(
        "GET",
        _ONE,
        "getProcess",
        "Show a process",
        show,
        {200: Reply("The process.", {JSON: ProcessShape})},
        failures=_IN_PROCESS,
    ),
    Route(
        "GET",
        f"{_ONE}/events",
        "followProcess",
        "Follow the events of a process",
        follow,
        {
            200: Reply(
                "The events behind that number; as JSON those that are there now.",
                {SSE: ProcessEventShape, JSON: ProcessEventPage, NDJSON: ProcessEventShape},
            ),
            204: Reply("It has ended and there is nothing behind that number."),
        },
        failures=(ProcessNotFoundError,),
        query=ReadEvents,
        request_headers=("Last-Event-ID",),
    ),
    Route(
        "POST",
        f"{_ONE}/stdin",
        "writeStdin",
        "Write to the standard input or the terminal of a process",
        write_stdin,
        _DONE,
        failures=_IN_PROCESS,
        raw_body=True,
    ),
    Route(
        "POST",
        f"{_ONE}/stdin/close",
        "closeStdin",
        "End the standard input of a process",
        close_stdin,
        _DONE,
        failures=_IN_PROCESS,
    ),
    Route(
        "POST",
        f"{_ONE}/signal",
        "signalProcess",
        "Send a signal to a process and those that it started",
        send_signal,
        _DONE,
        failures=_IN_PROCESS,
        body=SendSignal,
    ),
    Route(
        "POST",
        f"{_ONE}/resize",
        "resizeTerminal",
        "Give the terminal of a process another size",
        resize,
        _DONE,
        failures=_IN_PROCESS,
        body=Resize,
    ),
    Route(
        "DELETE",
        _ONE,
        "killProcess",
        "Send SIGKILL to a process and those that it started",
        kill,
        _DONE,
        failures=_IN_PROCESS,
    ),
)
