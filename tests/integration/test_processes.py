"""Commands run beside the kernels: live output, input, signals, terminals, reconnecting."""

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import HeadraceError, InvalidRequestError, NotFoundError
from headrace.model.events import FinishReason, OutputWritten, ProcessStarted, Stream
from headrace.model.specs import ProcessRequest, PtySize
from tests.support.modes import Mode
from tests.support.running import run_process


async def test_a_command_gives_output_and_status(sandbox: Sandbox) -> None:
    outcome = await run_process(sandbox, "bash", "-c", "echo out; echo err >&2; exit 7")
    assert (outcome.stdout, outcome.stderr, outcome.exited.exit_code) == ("out\n", "err\n", 7)
    assert outcome.exited.reason is FinishReason.ERROR


async def test_environment_directory_and_user_are_as_asked(sandbox: Sandbox) -> None:
    request = ProcessRequest(
        ("sh", "-c", "pwd; echo $GIVEN; id -un"), env={"GIVEN": "x"}, cwd="/tmp"
    )
    process = await sandbox.start_process(request)
    events = [event async for event in process.events()]
    text = "".join(e.text for e in events if isinstance(e, OutputWritten))
    assert text == "/tmp\nx\nuser\n"
    assert isinstance(events[0], ProcessStarted)


async def test_root_exists_in_root_mode_only(sandbox: Sandbox, mode: Mode) -> None:
    if mode is Mode.ROOT:
        assert (await run_process(sandbox, "id", "-u", user="root")).stdout == "0\n"
        return
    with pytest.raises(HeadraceError, match="root mode"):
        await run_process(sandbox, "id", "-u", user="root")


@pytest.mark.parametrize("argv", [("no-such-command",), ("/etc/passwd",), ("/tmp",)])
async def test_a_command_that_cannot_run_is_named(sandbox: Sandbox, argv: tuple[str, ...]) -> None:
    with pytest.raises(HeadraceError, match=argv[0]):
        await sandbox.start_process(ProcessRequest(argv))


async def test_a_missing_directory_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidRequestError, match="/missing") as caught:
        await sandbox.start_process(ProcessRequest(("true",), cwd="/missing"))
    assert caught.value.details == {"reason": "no_directory", "path": "/missing"}


async def test_input_reaches_a_command_and_ends(sandbox: Sandbox) -> None:
    process = await sandbox.start_process(ProcessRequest(("cat",), has_stdin=True))
    await process.write_stdin(b"one\n")
    await process.write_stdin(b"x" * 1_000_000)
    await process.close_stdin()
    events = [event async for event in process.events()]
    data = b"".join(e.data for e in events if isinstance(e, OutputWritten))
    assert data == b"one\n" + b"x" * 1_000_000


async def test_without_input_a_command_reads_nothing(sandbox: Sandbox) -> None:
    assert (await run_process(sandbox, "cat")).exited.exit_code == 0


async def test_a_signal_ends_a_command_and_its_children(sandbox: Sandbox) -> None:
    process = await sandbox.start_process(ProcessRequest(("sh", "-c", "sleep 60 & sleep 60")))
    await process.signal(15)
    exited = await process.wait()
    assert (exited.signal, exited.exit_code) == (15, None)


async def test_a_time_limit_kills_a_command(sandbox: Sandbox) -> None:
    outcome = await run_process(sandbox, "sleep", "60", timeout=0.3)
    assert outcome.exited.reason is FinishReason.TIMEOUT
    assert outcome.exited.limit_value == 0.3


async def test_a_background_child_does_not_hold_the_end_back(sandbox: Sandbox) -> None:
    with anyio.fail_after(10):
        outcome = await run_process(sandbox, "sh", "-c", "sleep 60 & echo started")
    assert outcome.stdout == "started\n"


async def test_a_process_is_found_again_by_its_pid_with_its_log(sandbox: Sandbox) -> None:
    started = await sandbox.start_process(
        ProcessRequest(("sh", "-c", "echo early; cat"), has_stdin=True)
    )
    found = sandbox.process(started.pid)
    assert found.id == started.id
    assert started.id in [process.id for process in sandbox.processes]
    await found.write_stdin(b"late\n")
    await found.close_stdin()
    events = [event async for event in found.events()]
    assert "".join(e.text for e in events if isinstance(e, OutputWritten)) == "early\nlate\n"


async def test_an_unknown_pid_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(NotFoundError, match="99999"):
        sandbox.process(99999)


async def test_a_terminal_is_a_terminal(sandbox: Sandbox) -> None:
    request = ProcessRequest(("bash", "--norc", "-i"), pty=PtySize(100, 30))
    process = await sandbox.start_process(request)
    text = ""

    async def until(word: str) -> None:
        nonlocal text
        with anyio.fail_after(15):
            async for event in process.events(after=seen[0]):
                seen[0] = event.seq
                if isinstance(event, OutputWritten):
                    assert event.stream is Stream.PTY
                    text += event.text
                if word in text:
                    return

    seen = [0]
    await process.write_stdin(b"stty size; tty\n")
    await until("30 100")
    await process.resize(PtySize(120, 40))
    await process.write_stdin(b"stty size\n")
    await until("40 120")
    await process.write_stdin(b"exit 5\n")
    assert (await process.wait()).exit_code == 5
    assert "/dev/pts/" in text


async def test_large_output_of_a_command_is_complete(sandbox: Sandbox) -> None:
    process = await sandbox.start_process(ProcessRequest(("head", "-c", "20000000", "/dev/zero")))
    size = 0
    async for event in process.events():
        size += len(event.data) if isinstance(event, OutputWritten) else 0
    assert size == 20_000_000


async def test_many_commands_at_once(sandbox: Sandbox) -> None:
    texts: list[str] = []

    async def one(number: int) -> None:
        texts.append((await run_process(sandbox, "echo", str(number))).stdout)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(one, number)
    assert sorted(map(int, texts)) == list(range(40))


async def test_standard_input_that_was_not_asked_for_is_refused(sandbox: Sandbox) -> None:
    process = await sandbox.start_process(ProcessRequest(("sleep", "5")))
    with pytest.raises((InvalidRequestError, HeadraceError), match=r"stdin|input"):
        await process.write_stdin(b"x")
    await process.signal(9)
    await process.wait()
