"""Every public method of the SDK against a real service with real sandboxes."""

import re
import signal
from pathlib import Path

import pytest

from headrace import (
    AsyncSandbox,
    ContextNotFoundError,
    ExecutionFinished,
    ExecutionStarted,
    FileChange,
    FileChanged,
    FileType,
    FinishReason,
    InputRequested,
    InvalidRequestError,
    Limits,
    OutputWritten,
    PathNotFoundError,
    ProcessExited,
    PtySize,
    SandboxNotFoundError,
    UnauthenticatedError,
    WatchStarted,
)
from headrace.model.events import CodeError, OutputDropped
from headrace.model.results import Result
from tests.integration.client.conftest import Service
from tests.support.face_async import pause, together

# --- sandboxes --------------------------------------------------------------------------------


async def test_a_sandbox_is_made_as_it_was_asked_for(service: Service) -> None:
    async with await AsyncSandbox.create(
        timeout=600,
        env={"GREETING": "hello"},
        metadata={"job": "made"},
        limits=Limits(memory=256 << 20, processes=50),
        **service,
    ) as sandbox:
        info = await sandbox.info()
        outcome = await sandbox.run_code("import os; os.environ['GREETING']")

        assert info.id == sandbox.id
        assert info.state == "running"
        assert info.metadata == {"job": "made"}
        assert info.limits.memory == 256 << 20
        assert info.limits.processes == 50
        assert info.limits.open_files == 1024
        assert info.ends_at == pytest.approx(info.created_at + 600, abs=5)
        assert "seccomp" in info.isolation.enforced
        assert outcome.text == "'hello'"


async def test_leaving_the_block_kills_a_sandbox_that_was_made_there(service: Service) -> None:
    async with await AsyncSandbox.create(**service) as sandbox:
        pass

    with pytest.raises(SandboxNotFoundError):
        await sandbox.info()
    assert await sandbox.kill() is False


async def test_leaving_the_block_leaves_a_sandbox_that_was_found(
    sandbox: AsyncSandbox, service: Service
) -> None:
    async with await AsyncSandbox.connect(sandbox.id, **service) as found:
        await found.run_code("x = 1")

    assert (await sandbox.run_code("x")).text == "1"


async def test_an_exception_in_the_block_is_not_hidden(service: Service) -> None:
    async def fail() -> None:
        async with await AsyncSandbox.create(**service) as sandbox:
            await sandbox.kill()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()


async def test_sandboxes_are_listed_by_their_metadata(service: Service) -> None:
    async with await AsyncSandbox.create(metadata={"job": "list me"}, **service) as sandbox:
        listing = AsyncSandbox.list(metadata={"job": "list me"}, **service)

        assert [info.id async for info in listing] == [sandbox.id]


async def test_a_sandbox_ends_when_its_time_is_over(sandbox: AsyncSandbox) -> None:
    before = await sandbox.info()
    after = await sandbox.set_timeout(7200)

    assert before.ends_at is not None
    assert after.ends_at == pytest.approx(before.ends_at + 3600, abs=10)


async def test_a_paused_sandbox_goes_on_after_resume(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("x = 1")

    assert (await sandbox.pause()).state == "paused"
    assert (await sandbox.resume()).state == "running"
    assert (await sandbox.run_code("x + 1")).text == "2"


async def test_a_sandbox_says_what_it_uses(sandbox: AsyncSandbox) -> None:
    metrics = await sandbox.metrics()

    assert metrics.timestamp > 1e9
    assert metrics.processes is None or metrics.processes > 0


async def test_a_port_has_a_url(sandbox: AsyncSandbox) -> None:
    assert "8080" in sandbox.port_url(8080)
    assert sandbox.id in sandbox.port_url(8080)
    with pytest.raises(InvalidRequestError, match="a port is 1 to 65535, got 0"):
        sandbox.port_url(0)


async def test_a_wrong_key_is_refused(service: Service) -> None:
    with pytest.raises(UnauthenticatedError):
        await AsyncSandbox.create(url=service["url"], api_key="f" * 40)


# --- code -------------------------------------------------------------------------------------


async def test_the_outcome_has_everything_that_the_code_did(sandbox: AsyncSandbox) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); display('shown'); [1, 2]"
    outcome = await sandbox.run_code(code)

    assert outcome.is_ok
    assert (outcome.stdout, outcome.stderr, outcome.text) == ("out\n", "err\n", "[1, 2]")
    assert [result.is_main for result in outcome.results] == [False, True]
    assert outcome.execution_count == 1
    assert outcome.id.startswith(sandbox.id)
    assert outcome.duration > 0


async def test_an_exception_in_the_code_is_data(sandbox: AsyncSandbox) -> None:
    outcome = await sandbox.run_code("{}['wheat']")

    assert outcome.reason is FinishReason.ERROR
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.value) == ("KeyError", "'wheat'")
    assert "Traceback" in outcome.error.traceback


async def test_a_time_limit_is_data(sandbox: AsyncSandbox) -> None:
    outcome = await sandbox.run_code("while True: pass", timeout=0.3)

    assert outcome.reason is FinishReason.TIMEOUT
    assert outcome.limit_value == pytest.approx(0.3)


async def test_the_death_of_the_kernel_is_data(sandbox: AsyncSandbox) -> None:
    outcome = await sandbox.run_code("import os; os._exit(3)")

    assert outcome.reason is FinishReason.KERNEL_DIED
    assert (outcome.exit_code, outcome.state_lost) == (3, True)


async def test_environment_and_directory_hold_for_one_execution(sandbox: AsyncSandbox) -> None:
    code = "import os; print(os.environ.get('A'), os.getcwd())"

    assert (await sandbox.run_code(code, env={"A": "b"}, cwd="/tmp")).stdout == "b /tmp\n"
    assert (await sandbox.run_code(code)).stdout == "None /home/user\n"


async def test_callbacks_are_told_what_happens(sandbox: AsyncSandbox) -> None:
    told: list[OutputWritten | Result | CodeError] = []
    outcome = await sandbox.run_code(
        "import sys; print('1'); print('2', file=sys.stderr); display(3); 1 / 0",
        on_stdout=told.append,
        on_stderr=told.append,
        on_result=told.append,
        on_error=told.append,
    )

    assert [type(each).__name__ for each in told] == [
        "OutputWritten",
        "OutputWritten",
        "Result",
        "CodeError",
    ]
    assert told[-1] == outcome.error


async def test_the_code_can_ask_for_input(sandbox: AsyncSandbox) -> None:
    async def answer(event: InputRequested) -> str:
        return f"{event.prompt} Ann"

    outcome = await sandbox.run_code("name = input('who?'); name", on_input=answer)
    ended = await sandbox.run_code("input()", on_input=lambda event: None)

    assert outcome.text == "'who? Ann'"
    assert ended.error is not None
    assert ended.error.name == "EOFError"


async def test_a_stream_gives_events_while_they_happen(sandbox: AsyncSandbox) -> None:
    code = "import os, time; print(1)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint(2)"
    async with sandbox.run_code_stream(code) as stream:
        events = []
        async for event in stream:
            events.append(event)
            if isinstance(event, OutputWritten) and event.text == "1\n":
                await sandbox.files.write("go", "")

    assert isinstance(events[0], ExecutionStarted)
    assert stream.execution_id == events[0].execution_id
    assert [event.text for event in events if isinstance(event, OutputWritten)] == ["1\n", "2\n"]
    assert isinstance(events[-1], ExecutionFinished)


async def test_a_stream_can_be_interrupted_and_answered(sandbox: AsyncSandbox) -> None:
    seen = []
    async with sandbox.run_code_stream(
        "input('?')\nwhile True: pass", accepts_input=True
    ) as stream:
        async for event in stream:
            seen.append(type(event).__name__)
            if isinstance(event, InputRequested):
                await stream.send_input("x")
                await pause(0.2)
                await stream.interrupt()

    assert seen == ["ExecutionStarted", "InputRequested", "CodeRaised", "ExecutionFinished"]


async def test_code_in_the_background_is_found_again(
    sandbox: AsyncSandbox, service: Service
) -> None:
    started = await sandbox.start_code("import time; print(1); time.sleep(0.3); print(2)")
    async with await AsyncSandbox.connect(sandbox.id, **service) as again:
        found = again.execution(started.id)
        outcome = await found.wait()
        info = await found.info()

        assert outcome.stdout == "1\n2\n"
        assert info.state == "finished"
        assert info.ending is not None
        assert info.ending.reason is FinishReason.OK
        assert started.id in [each.id for each in await again.executions()]


async def test_code_in_the_background_can_be_interrupted(sandbox: AsyncSandbox) -> None:
    started = await sandbox.start_code("while True: pass")
    await pause(0.2)
    await started.interrupt()

    assert (await started.wait()).reason is FinishReason.INTERRUPTED


async def test_several_readers_see_the_same(sandbox: AsyncSandbox) -> None:
    started = await sandbox.start_code("for i in range(300): print(i)")

    outcomes = await together(*[started.wait] * 5)

    assert len({outcome.stdout for outcome in outcomes}) == 1
    assert outcomes[0].stdout == "".join(f"{i}\n" for i in range(300))


async def test_output_that_is_no_text_is_kept_as_bytes(sandbox: AsyncSandbox) -> None:
    told: list[bytes] = []
    outcome = await sandbox.run_code(
        r"import os; os.write(1, b'\xff\x00z')", on_stdout=lambda event: told.append(event.data)
    )

    assert b"".join(told) == b"\xff\x00z"
    assert outcome.stdout == "\ufffd\x00z"


async def test_dropped_output_is_named(service: Service) -> None:
    async with await AsyncSandbox.create(limits=Limits(output=2048), **service) as sandbox:
        outcome = await sandbox.run_code("print('x' * 10_000)")

        assert outcome.reason is FinishReason.OUTPUT_LIMIT
        assert all(isinstance(each, OutputDropped) for each in outcome.dropped)
        assert len(outcome.stdout) <= 2048


# --- contexts ---------------------------------------------------------------------------------


async def test_contexts_do_not_share_variables(sandbox: AsyncSandbox) -> None:
    context = await sandbox.contexts.create(cwd="/tmp", env={"A": "b"})
    await sandbox.run_code("x = 1", context=context)

    assert (await sandbox.run_code("x", context=context.id)).text == "1"
    assert (await sandbox.run_code("x")).error is not None
    assert (await sandbox.run_code("import os; os.getcwd()", context=context)).text == "'/tmp'"
    assert context in await sandbox.contexts.list()
    assert (await sandbox.contexts.get(context)).id == context.id


async def test_a_context_is_restarted_and_removed(sandbox: AsyncSandbox) -> None:
    context = await sandbox.contexts.create()
    await sandbox.run_code("x = 1", context=context)
    restarted = await sandbox.contexts.restart(context)

    assert restarted.id == context.id
    assert (await sandbox.run_code("x", context=context)).error is not None
    assert await sandbox.contexts.interrupt(context) is False
    await sandbox.contexts.remove(context)
    with pytest.raises(ContextNotFoundError):
        await sandbox.contexts.get(context)


# --- commands ---------------------------------------------------------------------------------


async def test_a_command_is_run_to_its_end(sandbox: AsyncSandbox) -> None:
    told: list[str] = []
    result = await sandbox.commands.run(
        "echo out; echo err >&2; echo $A; exit 3",
        env={"A": "b"},
        on_stdout=lambda event: told.append(event.text),
    )

    assert (result.stdout, result.stderr, result.exit_code) == ("out\nb\n", "err\n", 3)
    assert "".join(told) == "out\nb\n"
    assert not result.is_ok


async def test_words_are_not_seen_by_a_shell(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run(["echo", "$HOME", ";", "a b"], cwd="/tmp")

    assert result.is_ok
    assert result.stdout == "$HOME ; a b\n"


async def test_a_command_reads_what_it_is_given(sandbox: AsyncSandbox) -> None:
    text = "".join(f"{number}\n" for number in range(50_000))
    result = await sandbox.commands.run("sort -rn | head -n 1", stdin=text)

    assert result.stdout == "49999\n"
    assert (await sandbox.commands.run("wc -c", stdin=b"")).stdout == "0\n"
    assert (await sandbox.commands.run("wc -c")).stdout == "0\n"
    assert (await sandbox.commands.run("true", stdin=text)).is_ok


async def test_a_command_has_a_time_limit(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("sleep 60", timeout=0.2)

    assert result.reason is FinishReason.TIMEOUT


async def test_a_command_in_the_background_is_written_to_and_waited_for(
    sandbox: AsyncSandbox,
) -> None:
    handle = await sandbox.commands.run("cat", background=True, stdin=True, tag="mine")
    await handle.write_stdin("one\n")
    await handle.write_stdin(b"two\n")
    running = await sandbox.commands.list()
    await handle.close_stdin()
    result = await handle.wait()

    assert [(each.id, each.tag) for each in running] == [(handle.id, "mine")]
    assert (result.stdout, result.exit_code) == ("one\ntwo\n", 0)
    assert handle.pid is not None


async def test_a_command_in_the_background_is_iterated_over_and_killed(
    sandbox: AsyncSandbox,
) -> None:
    handle = await sandbox.commands.run("while true; do echo x; sleep 0.05; done", background=True)
    events = []
    async for event in handle:
        events.append(event)
        if len(events) == 3:
            await handle.kill()

    assert isinstance(events[-1], ProcessExited)
    assert events[-1].signal == signal.SIGKILL
    assert await handle.kill() is False


async def test_a_command_is_found_again_and_signalled(sandbox: AsyncSandbox) -> None:
    code = "trap 'echo caught; exit 5' USR1; echo ready; while true; do sleep 0.05; done"
    handle = await sandbox.commands.run(code, background=True)
    found = await sandbox.commands.connect(handle.id)
    async for event in found:
        if isinstance(event, OutputWritten) and "ready" in event.text:
            await found.signal(signal.SIGUSR1)
    result = await found.wait()

    assert (result.stdout, result.exit_code) == ("ready\ncaught\n", 5)
    assert (await found.info()).state == "finished"


async def test_callbacks_are_not_for_the_background(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidRequestError, match="wait"):
        await sandbox.commands.run("true", background=True, stdin="x")  # type: ignore[call-overload]  # that is the test


# --- terminals --------------------------------------------------------------------------------


async def test_a_terminal_shows_what_is_typed(sandbox: AsyncSandbox) -> None:
    async with await sandbox.pty.create(PtySize(100, 30)) as terminal:
        await terminal.write("stty size; tty\n")
        await terminal.write(b"exit 4\n")
        shown = b"".join([data async for data in terminal])

        assert b"30 100" in shown
        assert b"/dev/pts/" in shown
        assert terminal.exited is not None
        assert terminal.exited.exit_code == 4


async def test_a_terminal_is_resized_and_killed(sandbox: AsyncSandbox) -> None:
    command = "trap 'stty size' WINCH; echo ready; while true; do sleep 0.05; done"
    shown = b""
    async with await sandbox.pty.create(command=["bash", "-c", command]) as terminal:
        async for data in terminal:
            shown += data
            if shown == b"ready\r\n":
                await terminal.resize(PtySize(90, 20))
            if b"20 90" in shown:
                break
        found = await sandbox.pty.connect(terminal.id)

    async for data in found:
        assert data is not None
    assert found.exited is not None
    assert found.exited.signal == signal.SIGKILL
    assert await found.kill() is False


# --- files ------------------------------------------------------------------------------------


async def test_files_are_written_and_read(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    files = sandbox.files
    assert await files.write("deep/er/a.txt", "Grüße\n", mode=0o600) == 8
    await files.write("deep/er/a.txt", b"more", append=True)
    info = await files.stat("deep/er/a.txt")

    assert await files.read("deep/er/a.txt") == "Grüße\nmore".encode()
    assert await files.read_text("/home/user/deep/er/a.txt") == "Grüße\nmore"
    assert (info.type, info.size, info.mode, info.owner) == (FileType.FILE, 12, 0o600, "user")
    assert await files.read("deep/er/a.txt", user="user")


async def test_large_files_are_copied_with_progress(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    (tmp_path / "local").write_bytes(content)
    sent: list[int] = []
    received: list[int] = []

    await sandbox.files.write(
        "big", tmp_path / "local", progress=lambda done, total: sent.append(done)
    )
    size = await sandbox.files.download(
        "big", tmp_path / "back", progress=lambda done, total: received.append(done)
    )

    assert (tmp_path / "back").read_bytes() == content
    assert size == sent[-1] == received[-1] == len(content)
    assert len(received) > 3


async def test_a_file_is_read_in_pieces(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f", b"x" * 300_000)
    async with sandbox.files.open("f") as reader:
        pieces = [piece async for piece in reader]

    assert reader.size == 300_000
    assert b"".join(pieces) == b"x" * 300_000


async def test_directories_are_made_listed_moved_and_removed(sandbox: AsyncSandbox) -> None:
    files = sandbox.files
    await files.make_dir("/workspace/a/b")
    await files.write("/workspace/a/f", "")
    moved = await files.move("/workspace/a/f", "/workspace/a/g")
    await files.set_mode("/workspace/a/g", 0o640)
    listed = {info.path: info.mode for info in await files.list("/workspace", depth=2)}

    assert moved.path == "/workspace/a/g"
    assert listed.keys() == {"/workspace/a", "/workspace/a/b", "/workspace/a/g"}
    assert listed["/workspace/a/g"] == 0o640
    await files.remove("/workspace/a", recursive=True)
    await files.remove("/workspace/a", missing_ok=True)
    assert await files.exists("/workspace/a") is False
    assert await files.exists("/workspace") is True
    with pytest.raises(PathNotFoundError):
        await files.read("/workspace/a/g")


async def test_an_empty_file_is_read(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    await sandbox.files.write("empty", b"")

    assert await sandbox.files.read("empty") == b""
    assert await sandbox.files.download("empty", tmp_path / "empty") == 0
    assert (tmp_path / "empty").read_bytes() == b""


async def test_paths_with_odd_characters_are_left_as_they_are(sandbox: AsyncSandbox) -> None:
    name = "a b&c=d?#%41+é\n.txt"
    await sandbox.files.write(name, "x")

    assert name in [info.name for info in await sandbox.files.list()]
    assert await sandbox.files.read_text(name) == "x"


async def test_a_watch_tells_of_changes(sandbox: AsyncSandbox) -> None:
    seen = []
    async with sandbox.files.watch("/workspace") as changes:
        async for event in changes:
            if isinstance(event, WatchStarted):
                await sandbox.files.write("/workspace/new", "x")
            if isinstance(event, FileChanged):
                seen.append((event.path, event.change))
                if event.path == "new":
                    break

    assert re.fullmatch("new", seen[-1][0])
    assert seen[-1][1] in (FileChange.CREATED, FileChange.WRITTEN, FileChange.RENAMED)


async def test_many_things_at_once(sandbox: AsyncSandbox) -> None:
    async def work() -> str:
        result = await sandbox.commands.run("echo $((6 * 7))")
        return result.stdout

    assert await together(*[work] * 20) == ["42\n"] * 20
