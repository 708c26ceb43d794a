# Made from the async face by scripts/generate-sync; change that one.
"""Every public method of the SDK against a real service with real sandboxes."""

import re
import signal
from pathlib import Path

import pytest

from headrace import (
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
    Sandbox,
    SandboxNotFoundError,
    UnauthenticatedError,
    WatchStarted,
)
from headrace.model.events import CodeError, OutputDropped
from headrace.model.results import Result
from tests.integration.client.conftest import Service
from tests.support.face_sync import pause, together

# --- sandboxes --------------------------------------------------------------------------------


def test_a_sandbox_is_made_as_it_was_asked_for(service: Service) -> None:
    with Sandbox.create(
        timeout=600,
        env={"GREETING": "hello"},
        metadata={"job": "made"},
        limits=Limits(memory=256 << 20, processes=50),
        **service,
    ) as sandbox:
        info = sandbox.info()
        outcome = sandbox.run_code("import os; os.environ['GREETING']")

        assert info.id == sandbox.id
        assert info.state == "running"
        assert info.metadata == {"job": "made"}
        assert info.limits.memory == 256 << 20
        assert info.limits.processes == 50
        assert info.limits.open_files == 1024
        assert info.ends_at == pytest.approx(info.created_at + 600, abs=5)
        assert "seccomp" in info.isolation.enforced
        assert outcome.text == "'hello'"


def test_leaving_the_block_kills_a_sandbox_that_was_made_there(service: Service) -> None:
    with Sandbox.create(**service) as sandbox:
        pass

    with pytest.raises(SandboxNotFoundError):
        sandbox.info()
    assert sandbox.kill() is False


def test_leaving_the_block_leaves_a_sandbox_that_was_found(
    sandbox: Sandbox, service: Service
) -> None:
    with Sandbox.connect(sandbox.id, **service) as found:
        found.run_code("x = 1")

    assert (sandbox.run_code("x")).text == "1"


def test_an_exception_in_the_block_is_not_hidden(service: Service) -> None:
    def fail() -> None:
        with Sandbox.create(**service) as sandbox:
            sandbox.kill()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fail()


def test_sandboxes_are_listed_by_their_metadata(service: Service) -> None:
    with Sandbox.create(metadata={"job": "list me"}, **service) as sandbox:
        listing = Sandbox.list(metadata={"job": "list me"}, **service)

        assert [info.id for info in listing] == [sandbox.id]


def test_a_sandbox_ends_when_its_time_is_over(sandbox: Sandbox) -> None:
    before = sandbox.info()
    after = sandbox.set_timeout(7200)

    assert before.ends_at is not None
    assert after.ends_at == pytest.approx(before.ends_at + 3600, abs=10)


def test_a_paused_sandbox_goes_on_after_resume(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1")

    assert (sandbox.pause()).state == "paused"
    assert (sandbox.resume()).state == "running"
    assert (sandbox.run_code("x + 1")).text == "2"


def test_a_sandbox_says_what_it_uses(sandbox: Sandbox) -> None:
    metrics = sandbox.metrics()

    assert metrics.timestamp > 1e9
    assert metrics.processes is None or metrics.processes > 0


def test_a_port_has_a_url(sandbox: Sandbox) -> None:
    assert "8080" in sandbox.port_url(8080)
    assert sandbox.id in sandbox.port_url(8080)
    with pytest.raises(InvalidRequestError, match="a port is 1 to 65535, got 0"):
        sandbox.port_url(0)


def test_a_wrong_key_is_refused(service: Service) -> None:
    with pytest.raises(UnauthenticatedError):
        Sandbox.create(url=service["url"], api_key="f" * 40)


# --- code -------------------------------------------------------------------------------------


def test_the_outcome_has_everything_that_the_code_did(sandbox: Sandbox) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); display('shown'); [1, 2]"
    outcome = sandbox.run_code(code)

    assert outcome.is_ok
    assert (outcome.stdout, outcome.stderr, outcome.text) == ("out\n", "err\n", "[1, 2]")
    assert [result.is_main for result in outcome.results] == [False, True]
    assert outcome.execution_count == 1
    assert outcome.id.startswith(sandbox.id)
    assert outcome.duration > 0


def test_an_exception_in_the_code_is_data(sandbox: Sandbox) -> None:
    outcome = sandbox.run_code("{}['wheat']")

    assert outcome.reason is FinishReason.ERROR
    assert outcome.error is not None
    assert (outcome.error.name, outcome.error.value) == ("KeyError", "'wheat'")
    assert "Traceback" in outcome.error.traceback


def test_a_time_limit_is_data(sandbox: Sandbox) -> None:
    outcome = sandbox.run_code("while True: pass", timeout=0.3)

    assert outcome.reason is FinishReason.TIMEOUT
    assert outcome.limit_value == pytest.approx(0.3)


def test_the_death_of_the_kernel_is_data(sandbox: Sandbox) -> None:
    outcome = sandbox.run_code("import os; os._exit(3)")

    assert outcome.reason is FinishReason.KERNEL_DIED
    assert (outcome.exit_code, outcome.state_lost) == (3, True)


def test_environment_and_directory_hold_for_one_execution(sandbox: Sandbox) -> None:
    code = "import os; print(os.environ.get('A'), os.getcwd())"

    assert (sandbox.run_code(code, env={"A": "b"}, cwd="/tmp")).stdout == "b /tmp\n"
    assert (sandbox.run_code(code)).stdout == "None /home/user\n"


def test_callbacks_are_told_what_happens(sandbox: Sandbox) -> None:
    told: list[OutputWritten | Result | CodeError] = []
    outcome = sandbox.run_code(
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


def test_the_code_can_ask_for_input(sandbox: Sandbox) -> None:
    def answer(event: InputRequested) -> str:
        return f"{event.prompt} Ann"

    outcome = sandbox.run_code("name = input('who?'); name", on_input=answer)
    ended = sandbox.run_code("input()", on_input=lambda event: None)

    assert outcome.text == "'who? Ann'"
    assert ended.error is not None
    assert ended.error.name == "EOFError"


def test_a_stream_gives_events_while_they_happen(sandbox: Sandbox) -> None:
    code = "import os, time; print(1)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint(2)"
    with sandbox.run_code_stream(code) as stream:
        events = []
        for event in stream:
            events.append(event)
            if isinstance(event, OutputWritten) and event.text == "1\n":
                sandbox.files.write("go", "")

    assert isinstance(events[0], ExecutionStarted)
    assert stream.execution_id == events[0].execution_id
    assert [event.text for event in events if isinstance(event, OutputWritten)] == ["1\n", "2\n"]
    assert isinstance(events[-1], ExecutionFinished)


def test_a_stream_can_be_interrupted_and_answered(sandbox: Sandbox) -> None:
    seen = []
    with sandbox.run_code_stream("input('?')\nwhile True: pass", accepts_input=True) as stream:
        for event in stream:
            seen.append(type(event).__name__)
            if isinstance(event, InputRequested):
                stream.send_input("x")
                pause(0.2)
                stream.interrupt()

    assert seen == ["ExecutionStarted", "InputRequested", "CodeRaised", "ExecutionFinished"]


def test_code_in_the_background_is_found_again(sandbox: Sandbox, service: Service) -> None:
    started = sandbox.start_code("import time; print(1); time.sleep(0.3); print(2)")
    with Sandbox.connect(sandbox.id, **service) as again:
        found = again.execution(started.id)
        outcome = found.wait()
        info = found.info()

        assert outcome.stdout == "1\n2\n"
        assert info.state == "finished"
        assert info.ending is not None
        assert info.ending.reason is FinishReason.OK
        assert started.id in [each.id for each in again.executions()]


def test_code_in_the_background_can_be_interrupted(sandbox: Sandbox) -> None:
    started = sandbox.start_code("while True: pass")
    pause(0.2)
    started.interrupt()

    assert (started.wait()).reason is FinishReason.INTERRUPTED


def test_several_readers_see_the_same(sandbox: Sandbox) -> None:
    started = sandbox.start_code("for i in range(300): print(i)")

    outcomes = together(*[started.wait] * 5)

    assert len({outcome.stdout for outcome in outcomes}) == 1
    assert outcomes[0].stdout == "".join(f"{i}\n" for i in range(300))


def test_output_that_is_no_text_is_kept_as_bytes(sandbox: Sandbox) -> None:
    told: list[bytes] = []
    outcome = sandbox.run_code(
        r"import os; os.write(1, b'\xff\x00z')", on_stdout=lambda event: told.append(event.data)
    )

    assert b"".join(told) == b"\xff\x00z"
    assert outcome.stdout == "\ufffd\x00z"


def test_dropped_output_is_named(service: Service) -> None:
    with Sandbox.create(limits=Limits(output=2048), **service) as sandbox:
        outcome = sandbox.run_code("print('x' * 10_000)")

        assert outcome.reason is FinishReason.OUTPUT_LIMIT
        assert all(isinstance(each, OutputDropped) for each in outcome.dropped)
        assert len(outcome.stdout) <= 2048


# --- contexts ---------------------------------------------------------------------------------


def test_contexts_do_not_share_variables(sandbox: Sandbox) -> None:
    context = sandbox.contexts.create(cwd="/tmp", env={"A": "b"})
    sandbox.run_code("x = 1", context=context)

    assert (sandbox.run_code("x", context=context.id)).text == "1"
    assert (sandbox.run_code("x")).error is not None
    assert (sandbox.run_code("import os; os.getcwd()", context=context)).text == "'/tmp'"
    assert context in sandbox.contexts.list()
    assert (sandbox.contexts.get(context)).id == context.id


def test_a_context_is_restarted_and_removed(sandbox: Sandbox) -> None:
    context = sandbox.contexts.create()
    sandbox.run_code("x = 1", context=context)
    restarted = sandbox.contexts.restart(context)

    assert restarted.id == context.id
    assert (sandbox.run_code("x", context=context)).error is not None
    assert sandbox.contexts.interrupt(context) is False
    sandbox.contexts.remove(context)
    with pytest.raises(ContextNotFoundError):
        sandbox.contexts.get(context)


# --- commands ---------------------------------------------------------------------------------


def test_a_command_is_run_to_its_end(sandbox: Sandbox) -> None:
    told: list[str] = []
    result = sandbox.commands.run(
        "echo out; echo err >&2; echo $A; exit 3",
        env={"A": "b"},
        on_stdout=lambda event: told.append(event.text),
    )

    assert (result.stdout, result.stderr, result.exit_code) == ("out\nb\n", "err\n", 3)
    assert "".join(told) == "out\nb\n"
    assert not result.is_ok


def test_words_are_not_seen_by_a_shell(sandbox: Sandbox) -> None:
    result = sandbox.commands.run(["echo", "$HOME", ";", "a b"], cwd="/tmp")

    assert result.is_ok
    assert result.stdout == "$HOME ; a b\n"


def test_a_command_reads_what_it_is_given(sandbox: Sandbox) -> None:
    text = "".join(f"{number}\n" for number in range(50_000))
    result = sandbox.commands.run("sort -rn | head -n 1", stdin=text)

    assert result.stdout == "49999\n"
    assert (sandbox.commands.run("wc -c", stdin=b"")).stdout == "0\n"
    assert (sandbox.commands.run("wc -c")).stdout == "0\n"
    assert (sandbox.commands.run("true", stdin=text)).is_ok


def test_a_command_has_a_time_limit(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("sleep 60", timeout=0.2)

    assert result.reason is FinishReason.TIMEOUT


def test_a_command_in_the_background_is_written_to_and_waited_for(
    sandbox: Sandbox,
) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True, tag="mine")
    handle.write_stdin("one\n")
    handle.write_stdin(b"two\n")
    running = sandbox.commands.list()
    handle.close_stdin()
    result = handle.wait()

    assert [(each.id, each.tag) for each in running] == [(handle.id, "mine")]
    assert (result.stdout, result.exit_code) == ("one\ntwo\n", 0)
    assert handle.pid is not None


def test_a_command_in_the_background_is_iterated_over_and_killed(
    sandbox: Sandbox,
) -> None:
    handle = sandbox.commands.run("while true; do echo x; sleep 0.05; done", background=True)
    events = []
    for event in handle:
        events.append(event)
        if len(events) == 3:
            handle.kill()

    assert isinstance(events[-1], ProcessExited)
    assert events[-1].signal == signal.SIGKILL
    assert handle.kill() is False


def test_a_command_is_found_again_and_signalled(sandbox: Sandbox) -> None:
    code = "trap 'echo caught; exit 5' USR1; echo ready; while true; do sleep 0.05; done"
    handle = sandbox.commands.run(code, background=True)
    found = sandbox.commands.connect(handle.id)
    for event in found:
        if isinstance(event, OutputWritten) and "ready" in event.text:
            found.signal(signal.SIGUSR1)
    result = found.wait()

    assert (result.stdout, result.exit_code) == ("ready\ncaught\n", 5)
    assert (found.info()).state == "finished"


def test_callbacks_are_not_for_the_background(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidRequestError, match="wait"):
        sandbox.commands.run("true", background=True, stdin="x")  # type: ignore[call-overload]  # that is the test


# --- terminals --------------------------------------------------------------------------------


def test_a_terminal_shows_what_is_typed(sandbox: Sandbox) -> None:
    with sandbox.pty.create(PtySize(100, 30)) as terminal:
        terminal.write("stty size; tty\n")
        terminal.write(b"exit 4\n")
        shown = b"".join(list(terminal))

        assert b"30 100" in shown
        assert b"/dev/pts/" in shown
        assert terminal.exited is not None
        assert terminal.exited.exit_code == 4


def test_a_terminal_is_resized_and_killed(sandbox: Sandbox) -> None:
    command = "trap 'stty size' WINCH; echo ready; while true; do sleep 0.05; done"
    shown = b""
    with sandbox.pty.create(command=["bash", "-c", command]) as terminal:
        for data in terminal:
            shown += data
            if shown == b"ready\r\n":
                terminal.resize(PtySize(90, 20))
            if b"20 90" in shown:
                break
        found = sandbox.pty.connect(terminal.id)

    for data in found:
        assert data is not None
    assert found.exited is not None
    assert found.exited.signal == signal.SIGKILL
    assert found.kill() is False


# --- files ------------------------------------------------------------------------------------


def test_files_are_written_and_read(sandbox: Sandbox, tmp_path: Path) -> None:
    files = sandbox.files
    assert files.write("deep/er/a.txt", "Grüße\n", mode=0o600) == 8
    files.write("deep/er/a.txt", b"more", append=True)
    info = files.stat("deep/er/a.txt")

    assert files.read("deep/er/a.txt") == "Grüße\nmore".encode()
    assert files.read_text("/home/user/deep/er/a.txt") == "Grüße\nmore"
    assert (info.type, info.size, info.mode, info.owner) == (FileType.FILE, 12, 0o600, "user")
    assert files.read("deep/er/a.txt", user="user")


def test_large_files_are_copied_with_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    (tmp_path / "local").write_bytes(content)
    sent: list[int] = []
    received: list[int] = []

    sandbox.files.write("big", tmp_path / "local", progress=lambda done, total: sent.append(done))
    size = sandbox.files.download(
        "big", tmp_path / "back", progress=lambda done, total: received.append(done)
    )

    assert (tmp_path / "back").read_bytes() == content
    assert size == sent[-1] == received[-1] == len(content)
    assert len(received) > 3


def test_a_file_is_read_in_pieces(sandbox: Sandbox) -> None:
    sandbox.files.write("f", b"x" * 300_000)
    with sandbox.files.open("f") as reader:
        pieces = list(reader)

    assert reader.size == 300_000
    assert b"".join(pieces) == b"x" * 300_000


def test_directories_are_made_listed_moved_and_removed(sandbox: Sandbox) -> None:
    files = sandbox.files
    files.make_dir("/workspace/a/b")
    files.write("/workspace/a/f", "")
    moved = files.move("/workspace/a/f", "/workspace/a/g")
    files.set_mode("/workspace/a/g", 0o640)
    listed = {info.path: info.mode for info in files.list("/workspace", depth=2)}

    assert moved.path == "/workspace/a/g"
    assert listed.keys() == {"/workspace/a", "/workspace/a/b", "/workspace/a/g"}
    assert listed["/workspace/a/g"] == 0o640
    files.remove("/workspace/a", recursive=True)
    files.remove("/workspace/a", missing_ok=True)
    assert files.exists("/workspace/a") is False
    assert files.exists("/workspace") is True
    with pytest.raises(PathNotFoundError):
        files.read("/workspace/a/g")


def test_an_empty_file_is_read(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.files.write("empty", b"")

    assert sandbox.files.read("empty") == b""
    assert sandbox.files.download("empty", tmp_path / "empty") == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_paths_with_odd_characters_are_left_as_they_are(sandbox: Sandbox) -> None:
    name = "a b&c=d?#%41+é\n.txt"
    sandbox.files.write(name, "x")

    assert name in [info.name for info in sandbox.files.list()]
    assert sandbox.files.read_text(name) == "x"


def test_a_watch_tells_of_changes(sandbox: Sandbox) -> None:
    seen = []
    with sandbox.files.watch("/workspace") as changes:
        for event in changes:
            if isinstance(event, WatchStarted):
                sandbox.files.write("/workspace/new", "x")
            if isinstance(event, FileChanged):
                seen.append((event.path, event.change))
                if event.path == "new":
                    break

    assert re.fullmatch("new", seen[-1][0])
    assert seen[-1][1] in (FileChange.CREATED, FileChange.WRITTEN, FileChange.RENAMED)


def test_many_things_at_once(sandbox: Sandbox) -> None:
    def work() -> str:
        result = sandbox.commands.run("echo $((6 * 7))")
        return result.stdout

    assert together(*[work] * 20) == ["42\n"] * 20
