"""How the events of executions are shown, with a sandbox that plays given events."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from headrace.cli.results import ResultsFolder
from headrace.cli.session import Session, SignalGate, Streams
from headrace.cli.sources import Source
from headrace.cli.terminal import ByteSink, Cursor, LineSource
from headrace.model.errors import SandboxFailedError, WrongStateError
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ContextId, ExecutionId
from headrace.model.results import Result
from headrace.model.specs import ContextSpec, ExecutionRequest, Language


def out(data: bytes) -> OutputWritten:
    return OutputWritten(seq=1, timestamp=0.0, stream=Stream.STDOUT, data=data)


def err(data: bytes) -> OutputWritten:
    return OutputWritten(seq=1, timestamp=0.0, stream=Stream.STDERR, data=data)


def shown(**bundle: str) -> ResultDisplayed:
    names = {"text": "text/plain", "png": "image/png", "html": "text/html"}
    return ResultDisplayed(
        seq=1, timestamp=0.0, result=Result({names[key]: bundle[key] for key in bundle})
    )


def raised(name: str, traceback: str) -> CodeRaised:
    return CodeRaised(seq=1, timestamp=0.0, error=CodeError(name, "", traceback))


def end(reason: FinishReason = FinishReason.OK, exit_code: int | None = None) -> ExecutionFinished:
    return ExecutionFinished(seq=1, timestamp=0.0, reason=reason, duration=0.1, exit_code=exit_code)


@dataclass
class FakeExecution:
    """Plays events; after an `InputRequested` it waits for the answer."""

    script: Sequence[ExecutionEvent]
    inputs: list[str | None] = field(default_factory=list)
    answered: anyio.Event = field(default_factory=anyio.Event)
    waits_for_input: bool = True
    interrupted: anyio.Event | None = None

    async def events(self, after: int = 0) -> AsyncIterator[ExecutionEvent]:
        for event in self.script:
            if isinstance(event, ExecutionFinished) and self.interrupted is not None:
                await self.interrupted.wait()
            yield event
            if isinstance(event, InputRequested) and self.waits_for_input:
                await self.answered.wait()
                self.answered = anyio.Event()

    async def interrupt(self) -> None:
        assert self.interrupted is not None
        self.interrupted.set()

    async def send_input(self, text: str | None) -> None:
        self.inputs.append(text)
        self.answered.set()
        if not self.waits_for_input:
            raise WrongStateError("the execution is over")


@dataclass
class FakeContext:
    """A context with nothing but an id."""

    id: ContextId


@dataclass
class FakeSandbox:
    """Gives one execution after the other and remembers what was asked."""

    executions: list[FakeExecution]
    requests: list[ExecutionRequest] = field(default_factory=list)

    async def default_context(self, language: Language) -> FakeContext:
        return FakeContext(ContextId(f"default-{language}"))

    async def create_context(self, spec: ContextSpec) -> FakeContext:
        return FakeContext(ContextId(f"new-{spec.language}"))

    async def execute(self, request: ExecutionRequest) -> FakeExecution:
        self.requests.append(request)
        return self.executions[len(self.requests) - 1]


@dataclass
class Outcome:
    """What a session did."""

    status: int
    stdout: bytes
    stderr: bytes
    sandbox: FakeSandbox


def python(name: str = "a.py") -> Source:
    return Source(name, Language.PYTHON, f"# {name}")


async def run(
    tmp_path: Path,
    *executions: FakeExecution,
    sources: Sequence[Source] | None = None,
    stdin: bytes | None = None,
    folder: ResultsFolder | None = None,
) -> Outcome:
    """Run a session whose streams are files."""
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("out", "err", "in")]
    os.pwrite(fds[2], stdin or b"", 0)
    sandbox = FakeSandbox(list(executions))
    streams = Streams(
        ByteSink(fds[0], Cursor()),
        ByteSink(fds[1], Cursor()),
        None if stdin is None else LineSource(fds[2]),
    )
    try:
        session = Session(sandbox, streams, folder, timeout=7.0)
        status = await session.run(sources or [python()] * len(executions))
        return Outcome(status, os.pread(fds[0], 10**6, 0), os.pread(fds[1], 10**6, 0), sandbox)
    finally:
        for fd in fds:
            os.close(fd)


async def test_output_goes_to_its_own_stream_byte_for_byte(tmp_path: Path) -> None:
    started = ExecutionStarted(1, 0.0, ExecutionId("e"), ContextId("c"), execution_count=1)
    script: list[ExecutionEvent] = [started, out(b"a\xff"), err(b"oops"), out(b"b"), end()]

    outcome = await run(tmp_path, FakeExecution(script))

    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"a\xffb", b"oops")


async def test_a_result_is_shown_as_text_on_a_line_of_its_own(tmp_path: Path) -> None:
    outcome = await run(tmp_path, FakeExecution([out(b"half"), shown(text="42"), end()]))

    assert outcome.stdout == b"half\n42\n"


async def test_a_picture_without_a_directory_gives_one_hint(tmp_path: Path) -> None:
    picture = shown(text="<Figure>", png="aGk=")

    outcome = await run(tmp_path, FakeExecution([picture, picture, end()]))

    assert outcome.stdout == b"<Figure>\n<Figure>\n"
    assert outcome.stderr.count(b"--results DIR") == 1


async def test_a_table_gives_no_hint(tmp_path: Path) -> None:
    outcome = await run(tmp_path, FakeExecution([shown(text="a b", html="<table>"), end()]))

    assert outcome.stderr == b""


async def test_a_picture_is_saved_and_its_file_named(tmp_path: Path) -> None:
    place = tmp_path / "results"

    with ResultsFolder(str(place)) as folder:
        outcome = await run(
            tmp_path, FakeExecution([shown(text="<Figure>", png="aGk="), end()]), folder=folder
        )

    assert outcome.stdout == b"<Figure>\n"
    assert outcome.stderr == f"headrace: saved {place}/result-001.png\n".encode()
    assert (place / "result-001.png").read_bytes() == b"hi"


async def test_a_result_that_cannot_be_saved_does_not_stop_the_program(tmp_path: Path) -> None:
    place = tmp_path / "results"
    with ResultsFolder(str(place)) as folder:
        place.rmdir()
        outcome = await run(
            tmp_path, FakeExecution([shown(html="x"), out(b"on\n"), end()]), folder=folder
        )

    assert outcome.status == 0
    assert outcome.stdout.endswith(b"on\n")
    assert b"a result was not saved" in outcome.stderr


async def test_a_form_that_was_too_large_is_named(tmp_path: Path) -> None:
    large = ResultDisplayed(
        seq=1, timestamp=0.0, result=Result({"text/plain": "p"}, omitted={"image/png": 99})
    )

    outcome = await run(tmp_path, FakeExecution([large, end()]))

    assert b"image/png of a result was left out: it has 99 bytes" in outcome.stderr


async def test_a_form_for_programs_that_was_too_large_is_named_only_where_it_would_be_saved(
    tmp_path: Path,
) -> None:
    mime = "application/vnd.headrace.data+json"
    large = ResultDisplayed(
        seq=1, timestamp=0.0, result=Result({"text/plain": "p"}, omitted={mime: 99})
    )

    outcome = await run(tmp_path, FakeExecution([large, end()]))
    with ResultsFolder(str(tmp_path / "saved")) as folder:
        saving = await run(tmp_path, FakeExecution([large, end()]), folder=folder)

    assert b"left out" not in outcome.stderr
    assert f"{mime} of a result was left out".encode() in saving.stderr


async def test_a_traceback_goes_to_stderr_and_the_status_is_1(tmp_path: Path) -> None:
    script: list[ExecutionEvent] = [
        raised("ValueError", "Traceback\nValueError: x"),
        end(FinishReason.ERROR),
    ]

    outcome = await run(tmp_path, FakeExecution(script))

    assert (outcome.status, outcome.stderr) == (1, b"Traceback\nValueError: x\n")


async def test_sys_exit_shows_no_traceback(tmp_path: Path) -> None:
    script: list[ExecutionEvent] = [
        raised("SystemExit", "Traceback ..."),
        end(FinishReason.ERROR, exit_code=3),
    ]

    outcome = await run(tmp_path, FakeExecution(script))

    assert (outcome.status, outcome.stderr) == (3, b"")


async def test_the_reason_of_any_other_end_is_named_on_stderr(tmp_path: Path) -> None:
    script: list[ExecutionEvent] = [err(b"half"), end(FinishReason.KERNEL_DIED, exit_code=3)]

    outcome = await run(tmp_path, FakeExecution(script))

    assert outcome.status == 3
    assert outcome.stderr.startswith(b"half\nheadrace: kernel_died: ")


async def test_lost_output_is_said(tmp_path: Path) -> None:
    lost = OutputDropped(
        seq=1, timestamp=0.0, stream=Stream.STDOUT, dropped=17, reason="the output limit"
    )

    outcome = await run(tmp_path, FakeExecution([lost, end()]))

    assert outcome.stderr == b"headrace: 17 bytes of stdout are missing: the output limit\n"


async def test_events_without_an_end_are_a_failure_of_ours(tmp_path: Path) -> None:
    with pytest.RaisesGroup(SandboxFailedError, flatten_subgroups=True):
        await run(tmp_path, FakeExecution([out(b"x")]))


async def test_each_file_runs_in_a_context_of_its_own_with_the_time_limit(tmp_path: Path) -> None:
    sources = [python("a.py"), python("b.py"), Source("c.sh", Language.BASH, "true")]

    outcome = await run(tmp_path, *[FakeExecution([end()]) for _ in sources], sources=sources)

    requests = outcome.sandbox.requests
    assert [request.context_id for request in requests] == [
        "default-python",
        "new-python",
        "default-bash",
    ]
    assert [request.code for request in requests] == ["# a.py", "# b.py", "true"]
    assert {request.timeout for request in requests} == {7.0}


async def test_the_first_failing_file_is_the_last_and_gives_the_status(tmp_path: Path) -> None:
    outcome = await run(
        tmp_path,
        FakeExecution([end()]),
        FakeExecution([end(FinishReason.TIMEOUT)]),
        FakeExecution([out(b"never"), end()]),
        sources=[python("a.py"), python("b.py"), python("c.py")],
    )

    assert (outcome.status, outcome.stdout) == (124, b"")
    assert outcome.stderr == b"headrace: b.py: timeout\n"


def asks(prompt: str, *, is_password: bool = False) -> InputRequested:
    return InputRequested(seq=1, timestamp=0.0, prompt=prompt, is_password=is_password)


async def test_input_is_asked_for_with_the_prompt_and_answered_by_lines(tmp_path: Path) -> None:
    execution = FakeExecution([asks("name? "), asks("age? "), asks("more? "), end()])

    outcome = await run(tmp_path, execution, stdin=b"Ann\n42\n")

    assert outcome.stdout == b"name? age? more? "
    assert execution.inputs == ["Ann", "42", None]
    assert outcome.sandbox.requests[0].accepts_input


async def test_the_prompt_of_a_password_goes_to_stderr(tmp_path: Path) -> None:
    execution = FakeExecution([asks("Password: ", is_password=True), end()])

    outcome = await run(tmp_path, execution, stdin=b"secret\n")

    assert (outcome.stdout, outcome.stderr) == (b"", b"Password: \n")
    assert execution.inputs == ["secret"]


async def test_without_standard_input_programs_may_not_ask(tmp_path: Path) -> None:
    outcome = await run(tmp_path, FakeExecution([end()]))

    assert not outcome.sandbox.requests[0].accepts_input


async def test_an_answer_that_comes_too_late_is_dropped(tmp_path: Path) -> None:
    execution = FakeExecution([asks("? "), out(b"x"), end()], waits_for_input=False)

    outcome = await run(tmp_path, execution, stdin=b"late\n")

    assert outcome.status == 0


async def test_an_end_is_not_held_up_by_input_that_nobody_types(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    execution = FakeExecution([asks("? "), end(FinishReason.TIMEOUT)], waits_for_input=False)
    streams = Streams(ByteSink(null, Cursor()), ByteSink(null, Cursor()), LineSource(read_end))
    try:
        with anyio.fail_after(5):
            session = Session(FakeSandbox([execution]), streams, None, None)
            assert await session.run([python()]) == 124
    finally:
        for fd in (read_end, write_end, null):
            os.close(fd)


# --- signals ----------------------------------------------------------------------------------


@dataclass
class Gated:
    """A session of one execution under a signal gate."""

    gate: SignalGate
    status: int | None


async def run_with_signals(execution: FakeExecution, *numbers: signal.Signals) -> Gated:
    null = os.open(os.devnull, os.O_RDWR)
    sink = ByteSink(null, Cursor())
    gate = SignalGate()
    session = Session(FakeSandbox([execution]), Streams(sink, sink, None), None, None)
    status = None
    try:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                await tasks.start(gate.watch)
                tasks.start_soon(send, numbers)
                with gate.guard(session):
                    status = await session.run([python()])
                tasks.cancel_scope.cancel()
    finally:
        os.close(null)
    return Gated(gate, status)


async def send(numbers: Sequence[signal.Signals]) -> None:
    for number in numbers:
        await anyio.wait_all_tasks_blocked()
        os.kill(os.getpid(), number)


async def test_the_first_ctrl_c_interrupts_the_execution() -> None:
    execution = FakeExecution([end(FinishReason.INTERRUPTED)], interrupted=anyio.Event())

    outcome = await run_with_signals(execution, signal.SIGINT)

    assert (outcome.status, outcome.gate.stopped_by) == (130, None)


@dataclass
class Stubborn(FakeExecution):
    """Does not mind being interrupted."""

    async def interrupt(self) -> None:
        await anyio.sleep_forever()


async def test_the_second_ctrl_c_ends_everything() -> None:
    execution = Stubborn([end()], interrupted=anyio.Event())

    outcome = await run_with_signals(execution, signal.SIGINT, signal.SIGINT)

    assert (outcome.status, outcome.gate.stopped_by) == (None, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_other_signals_end_everything_at_once(number: signal.Signals) -> None:
    execution = Stubborn([end()], interrupted=anyio.Event())

    outcome = await run_with_signals(execution, number)

    assert outcome.gate.stopped_by is number


async def test_a_signal_before_there_is_a_session_ends_the_start() -> None:
    gate = SignalGate()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(gate.watch)
            tasks.start_soon(send, [signal.SIGINT])
            with gate.scope:
                await anyio.sleep_forever()
            tasks.cancel_scope.cancel()

    assert gate.stopped_by is signal.SIGINT


async def test_a_signal_that_our_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        execution = FakeExecution([end()], interrupted=anyio.Event())
        outcome = await run_with_signals(execution, signal.SIGHUP, signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert (outcome.status, outcome.gate.stopped_by) == (0, None)
