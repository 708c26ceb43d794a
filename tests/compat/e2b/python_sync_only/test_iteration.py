"""What only the sync face can do."""

from collections.abc import Iterator

from e2b_code_interpreter import Sandbox
from face_sync import Started, open_terminal


# covers: handle.wait, commands.connect
def test_the_output_of_a_command_can_be_iterated(sandbox: Sandbox) -> None:
    command = sandbox.commands.run("echo one; sleep 0.3; echo two >&2", background=True)
    other = sandbox.commands.connect(command.pid)
    seen: list[str] = []

    pieces = list(command)
    other.wait(on_stderr=seen.append)

    assert pieces == [("one\n", None, None), (None, "two\n", None)]
    assert seen == ["two\n"]


# covers: commands.stream_input
def test_input_is_streamed(sandbox: Sandbox) -> None:
    command = sandbox.commands.run("cat", background=True, stdin=True)

    def lines() -> Iterator[str]:
        for number in range(50):
            yield f"{number}\n"

    sandbox.commands.stream_input(command.pid, lines())
    sandbox.commands.close_stdin(command.pid)
    result = command.wait()

    assert result.stdout == "".join(f"{number}\n" for number in range(50))


# covers: pty.stream_input
def test_input_of_a_terminal_is_streamed(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox)

    sandbox.pty.stream_input(terminal.pid, [b'echo "<$((6*7))>"\n'])

    terminal.until(b"<42>")


# covers: watch.get_new_events
def test_events_are_told_once(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")
    watch = sandbox.files.watch_dir("d")

    sandbox.files.write("d/f", "x")
    names: set[str] = set()
    for _ in range(100):
        names |= {event.name for event in watch.get_new_events()}
        if "f" in names:
            break
        sandbox.commands.run("sleep 0.05")
    sandbox.commands.run("sleep 0.3")
    watch.get_new_events()
    rest = watch.get_new_events()
    watch.stop()

    assert names == {"f"}
    assert rest == []


def test_an_iterable_is_uploaded(sandbox: Sandbox) -> None:
    sandbox.files.write("streamed", (b"%d\n" % number for number in range(100)))

    assert sandbox.files.read("streamed") == "".join(f"{n}\n" for n in range(100))


def test_threads_may_share_a_sandbox(sandbox: Sandbox) -> None:
    begun = [
        Started(lambda number=number: sandbox.commands.run(f"echo {number}"))
        for number in range(20)
    ]

    assert [one.result().stdout for one in begun] == [f"{number}\n" for number in range(20)]
