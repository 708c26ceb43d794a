"""Standard output and error of real kernels: live, whole, in order; and the fence by itself."""

import os
import socket
from collections.abc import Iterator

import pytest

from headrace_guest.capture import Fence, OutputBuffer, OutputStream
from headrace_guest.protocol import KernelError, KernelResult
from tests.support.kernel_process import KernelProcess, Outcome, shared_fork_server


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


def _numbers(outcome: Outcome) -> list[int]:
    """Give the numbers that code printed, displayed or raised, in the order of their arrival."""
    numbers: list[int] = []
    for item in outcome.items:
        if item.data:
            numbers += map(int, item.data.split())
        elif isinstance(item.message, KernelResult):
            numbers.append(int(str(item.message.bundle["text/plain"])))
        elif isinstance(item.message, KernelError):
            numbers.append(int(item.message.value))
    return numbers


_MIXED = """
import random, sys, os
from IPython.display import display
draw = random.Random(7)
for number in range({count}):
    which = draw.randrange(5)
    if which == 0: print(number)
    elif which == 1: print(number, file=sys.stderr)
    elif which == 2: display({{"text/plain": str(number)}}, raw=True)
    elif which == 3: os.write(2, b"%d\\n" % number)
    else: sys.stdout.write(f"{{number}}\\n")
raise ValueError({count})
"""


# --- order ----------------------------------------------------------------------------------


# The fence gives up after a tenth of a second, which a loaded machine may take to give the reader
# its turn. What is tested here is the order while it does not.
_PATIENCE = (
    "import headrace_guest.capture as c; c._PATIENT = c._BRIEF = c._YIELDS + [0.001] * 20_000"
)


def test_ten_thousand_mixed_items_arrive_in_order(kernel: KernelProcess) -> None:
    kernel.run(_PATIENCE)
    outcome = kernel.run(_MIXED.format(count=10_000))
    assert _numbers(outcome) == list(range(10_001))


def test_without_the_fence_they_would_not(kernel: KernelProcess) -> None:
    kernel.run("import headrace_guest.capture as c; c.Fence._wait = lambda *_: None")
    numbers = _numbers(kernel.run(_MIXED.format(count=3000)))
    assert sorted(numbers) == list(range(3001))
    assert numbers != sorted(numbers)


@pytest.mark.parametrize(
    "child",
    [
        "subprocess.run(f'echo {n}; echo {n + 1}', shell=True)",
        "os.system(f'echo {n} {n + 1} >&2')",
        "os.waitpid(os.posix_spawn('/bin/echo', ['echo', f'{n} {n + 1}'], {}), 0)",
        "os.popen(f'echo {n} {n + 1} >&2').close()",
        "get_ipython().system(f'echo {n} {n + 1} >&2')",
        "p = multiprocessing.Process(target=print, args=(n, n + 1)); p.start(); p.join()",
    ],
)
def test_children_keep_the_order_too(kernel: KernelProcess, child: str) -> None:
    code = (
        "import subprocess, multiprocessing, os, sys\n"
        "for n in range(0, 80, 4):\n"
        f"    {child}\n"
        "    print(n + 2, file=sys.stderr)\n"
        "    display({'text/plain': str(n + 3)}, raw=True)\n"
    )
    kernel.run(_PATIENCE)
    assert _numbers(kernel.run(code)) == list(range(80))


def test_lines_of_c_code_are_in_order_with_prints(kernel: KernelProcess) -> None:
    code = (
        "import ctypes\nc = ctypes.CDLL(None)\n"
        "for n in range(0, 100, 2):\n    print(n)\n    a = c.printf(b'%d\\n', n + 1)"
    )
    assert _numbers(kernel.run(code)) == list(range(100))


def test_everything_has_arrived_before_the_end(kernel: KernelProcess) -> None:
    code = (
        "import ctypes, sys\nprint('a', end='')\nctypes.CDLL(None).printf(b'b')\n"
        "print('c', end='', file=sys.stderr)"
    )
    for _ in range(50):
        outcome = kernel.run(code)
        assert (sorted(outcome.stdout), outcome.stderr) == (["a", "b"], "c")
        assert outcome.items[-1].message == outcome.done


# --- live and whole -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "print('now', end='')",
        "print('no', 'w', sep='', end='')",
        "import sys; sys.stdout.write('now')",
        "import sys; sys.stdout.buffer.write(b'now')",
        "import os; os.write(1, b'now')",
        "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer); print('now', end='')",
        "print('now', end='', file=__import__('sys').__stdout__)",
        "import ctypes; ctypes.CDLL(None).puts(b'now')",
    ],
)
def test_output_without_flush_appears_at_once(kernel: KernelProcess, code: str) -> None:
    kernel.start(f"{code}\ninput()", accepts_input=True)
    kernel.wait_for_stdout("now")
    kernel.wait_for_input()
    kernel.send({"type": "input", "execution": "e1", "text": ""})
    assert kernel.finish().status == "ok"


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("print('a', 1, None, sep='-', end='!')", "a-1-None!"),
        ("print()", "\n"),
        ("print('a', 'b', sep=None, end=None)", "a b\n"),
        ("print('two\\nlines', 3)", "two\nlines 3\n"),
        ("print('x' * 100_000)", "x" * 100_000 + "\n"),
        ("print('\\x1b[31mred\\x1b[0m\\r50%\\r')", "\x1b[31mred\x1b[0m\r50%\r\n"),
        ("print('\\udce4')", "\udce4\n"),
        ("import sys; sys.stdout.writelines(['a', 'b'])", "ab"),
        ("import sys, array; sys.stdout.buffer.write(array.array('i', [65]))", "A\0\0\0"),
    ],
)
def test_what_is_printed_is_what_arrives(kernel: KernelProcess, code: str, written: str) -> None:
    assert kernel.run(f"{code};").stdout == written


def test_each_print_is_one_write(kernel: KernelProcess) -> None:
    kernel.run(
        "import os, sys\nfrom headrace_guest import capture as c\nwrites = []\nreal = c._write"
    )
    code = (
        "def spy(fd, data): writes.append(bytes(data)); return real(fd, data)\n"
        "c._write = spy\n"
        "print('a', 1, end='')\nprint('b\\nc', file=sys.stderr)\nprint()\n"
        "c._write = real\n"
        "writes"
    )
    assert kernel.run(code).text == r"[b'a 1', b'b\nc\n', b'\n']"


@pytest.mark.parametrize(
    "code",
    ["print(1, sep=2)", "print(1, end=3)", "print(1, file=4)", "print(1, wrong=5)"],
)
def test_a_wrong_print_is_refused_as_usual(kernel: KernelProcess, code: str) -> None:
    assert kernel.run(code).error.name in ("TypeError", "AttributeError")


def test_print_to_files_and_redirection_works(kernel: KernelProcess) -> None:
    code = (
        "import io, contextlib, sys\n"
        "text = io.StringIO()\n"
        "with contextlib.redirect_stdout(text): print('a', 1)\n"
        "print('b', file=text)\n"
        "sys.stdout = None\nprint('nowhere')\n"
        "text.getvalue()"
    )
    outcome = kernel.run(code)
    assert (outcome.text, outcome.stdout) == ("'a 1\\nb\\n'", "")


def test_print_can_be_sent_to_other_processes(kernel: KernelProcess) -> None:
    assert kernel.run("import pickle; pickle.loads(pickle.dumps(print)) is print").text == "True"


def test_logging_and_warnings_go_to_stderr(kernel: KernelProcess) -> None:
    code = "import logging, warnings\nlogging.warning('logged')\nwarnings.warn('warned')"
    outcome = kernel.run(code)
    assert "WARNING:root:logged\n" in outcome.stderr
    assert "UserWarning: warned\n" in outcome.stderr


def test_the_streams_look_like_standard_streams(kernel: KernelProcess) -> None:
    code = (
        "import sys, io\n"
        "[(s.fileno(), s.name, s.encoding, s.isatty(), s.writable(), isinstance(s, io.TextIOBase),"
        " s.closed) for s in (sys.stdout, sys.stderr)]"
    )
    assert kernel.run(code).text == (
        "[(1, '<stdout>', 'utf-8', False, True, True, False),\n"
        " (2, '<stderr>', 'utf-8', False, True, True, False)]"
    )


def test_commands_write_live_to_both_streams(kernel: KernelProcess) -> None:
    kernel.start("!echo now; echo err >&2; read line < /dev/zero")
    kernel.wait_for_stdout("now")
    kernel.pump(lambda: "err" in Outcome(kernel.items).stderr)
    assert kernel.finish_interrupted().status == "interrupted"


def test_a_flood_arrives_whole(kernel: KernelProcess) -> None:
    outcome = kernel.run("for i in range(100_000): print(i)")
    assert outcome.stdout == "".join(f"{i}\n" for i in range(100_000))


def test_threads_do_not_tear_lines_apart(kernel: KernelProcess) -> None:
    code = (
        "import threading\n"
        "def say(c):\n    for _ in range(500): print(c * 50)\n"
        "ts = [threading.Thread(target=say, args=(c,)) for c in 'abcd']\n"
        "for t in ts: t.start()\n"
        "for t in ts: t.join()"
    )
    lines = kernel.run(code).stdout.split("\n")
    assert sorted(lines) == [""] + [c * 50 for c in "abcd" for _ in range(500)]


# --- the fence by itself --------------------------------------------------------------------


@pytest.fixture
def channels() -> Iterator[tuple[list[int], Fence]]:
    """Give [stdout reader, stdout, stderr reader, stderr, host, kernel] and a fence over them."""
    host, guest = socket.socketpair()
    fds = [*os.pipe(), *os.pipe(), host.detach(), guest.detach()]
    yield fds, Fence(fds[1], fds[3], fds[5])
    for fd in fds:
        os.close(fd)


def test_the_fence_lets_pass_when_nothing_waits(channels: tuple[list[int], Fence]) -> None:
    _fds, fence = channels
    fence.before_stdout()
    fence.before_stderr()
    fence.before_event()
    fence.before_child()
    assert not fence.has_sent


def test_the_fence_does_not_wait_for_ever(channels: tuple[list[int], Fence]) -> None:
    fds, fence = channels
    for fd in (fds[1], fds[3], fds[5]):
        os.write(fd, b"never read")
    fence.has_sent = True
    fence.before_stdout()
    fence.before_child()
    assert fence.has_sent


def test_an_event_that_was_read_is_not_looked_for_again(
    channels: tuple[list[int], Fence],
) -> None:
    fds, fence = channels
    os.write(fds[5], b"event")
    fence.has_sent = True
    os.read(fds[4], 10)
    fence.before_stdout()
    assert not fence.has_sent


def test_a_closed_channel_holds_nobody_up() -> None:
    fence = Fence(1_000_000, 1_000_001, 1_000_002)
    fence.has_sent = True
    fence.before_child()
    assert not fence.has_sent


def test_a_full_non_blocking_pipe_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    taken: list[bytes] = []
    buffer = OutputBuffer(writer, "<test>", lambda: taken.append(os.read(reader, 65536)))
    os.write(writer, b"x" * 65536)
    assert buffer.write(b"y" * 65536) == 65536
    assert taken == [b"x" * 65536]
    os.close(reader)
    os.close(writer)


def test_a_stream_survives_being_closed_and_detached() -> None:
    reader, writer = os.pipe()
    stream = OutputStream(OutputBuffer(writer, "<test>", lambda: None), "strict")
    stream.close()
    assert stream.detach() is stream.buffer
    stream.write("still here")
    assert os.read(reader, 100) == b"still here"
    os.close(reader)
    os.close(writer)
