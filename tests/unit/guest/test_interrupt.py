"""Which code an interrupt reaches: state by state in this process, and in real kernels."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from headrace_guest.interrupt import Interrupts
from tests.support.kernel_process import KernelProcess, Outcome, shared_fork_server


class _Input:
    """Stands for the event socket: whether the host has written something."""

    def __init__(self) -> None:
        self.has_come = False

    def __call__(self) -> bool:
        return self.has_come


@pytest.fixture
def host() -> _Input:
    return _Input()


@pytest.fixture
def interrupts(host: _Input) -> Iterator[Interrupts]:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    made = Interrupts(host)
    made.install()
    yield made
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, handler)


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _nothing() -> None:
    pass


def test_an_interrupt_ends_open_code(interrupts: Interrupts) -> None:
    assert isinstance(interrupts.run(_interrupt), KeyboardInterrupt)
    assert interrupts.was_interrupted


def test_code_that_ends_by_itself_was_not_interrupted(interrupts: Interrupts) -> None:
    assert interrupts.run(_nothing) is None
    assert not interrupts.was_interrupted


def test_an_interrupt_without_input_is_ignored(interrupts: Interrupts) -> None:
    _interrupt()
    interrupts.wait(_interrupt)
    assert interrupts.run(_nothing) is None


def test_an_interrupt_with_input_waiting_is_for_that_input(
    interrupts: Interrupts, host: _Input
) -> None:
    host.has_come = True
    interrupts.wait(_interrupt)
    host.has_come = False
    assert isinstance(interrupts.run(_nothing), KeyboardInterrupt)


def test_an_interrupt_before_the_kernel_waits_for_input_that_has_come_is_kept(
    interrupts: Interrupts, host: _Input
) -> None:
    host.has_come = True
    _interrupt()
    interrupts.wait(_nothing)
    assert isinstance(interrupts.run(_nothing), KeyboardInterrupt)


def test_an_interrupt_after_input_was_read_is_kept(interrupts: Interrupts) -> None:
    interrupts.wait(_nothing)
    _interrupt()
    assert isinstance(interrupts.run(_nothing), KeyboardInterrupt)


def test_a_kept_interrupt_that_came_with_no_code_is_dropped(
    interrupts: Interrupts, host: _Input
) -> None:
    host.has_come = True
    interrupts.wait(_interrupt)
    host.has_come = False
    interrupts.wait(_nothing)
    assert interrupts.run(_nothing) is None


def test_a_kept_interrupt_can_be_forgotten(interrupts: Interrupts) -> None:
    interrupts.wait(_nothing)
    _interrupt()
    interrupts.forget()
    assert interrupts.run(_nothing) is None


def test_an_interrupt_while_held_comes_afterwards(interrupts: Interrupts) -> None:
    seen: list[str] = []

    def code() -> None:
        with interrupts.held():
            _interrupt()
            seen.append("inside")
        seen.append("after")

    assert isinstance(interrupts.run(code), KeyboardInterrupt)
    assert seen == ["inside"]


def test_a_repetition_shortly_after_is_ignored_until_the_next_execution(
    interrupts: Interrupts,
) -> None:
    def code() -> None:
        try:
            _interrupt()
        except KeyboardInterrupt:
            _interrupt()

    assert interrupts.run(code) is None
    interrupts.expect()
    assert isinstance(interrupts.run(_interrupt), KeyboardInterrupt)


def test_other_exceptions_come_back_too(interrupts: Interrupts) -> None:
    def code() -> None:
        raise SystemExit(3)

    assert isinstance(interrupts.run(code), SystemExit)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
def test_a_handler_of_user_code_is_replaced(
    interrupts: Interrupts, handler: Callable[..., object]
) -> None:
    interrupts.run(lambda: signal.signal(signal.SIGINT, handler))
    assert isinstance(interrupts.run(_interrupt), KeyboardInterrupt)


def test_other_signals_wait_while_our_own_code_runs(interrupts: Interrupts) -> None:
    seen: list[int] = []
    interrupts.run(lambda: signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number)))
    signal.raise_signal(signal.SIGUSR1)
    assert seen == []
    interrupts.wait(_nothing)
    assert seen == [signal.SIGUSR1]


def test_an_exception_of_another_handler_comes_out_of_the_wait(interrupts: Interrupts) -> None:
    def alarm(*_: object) -> None:
        raise TimeoutError("too late")

    interrupts.run(lambda: signal.signal(signal.SIGUSR1, alarm))
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(TimeoutError, match="too late"):
        interrupts.wait(_nothing)
    assert interrupts.run(_nothing) is None


def test_a_forked_child_takes_sigint_like_any_program(interrupts: Interrupts) -> None:
    interrupts.become_ordinary()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- in a kernel --------------------------------------------------------------------------------


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


@pytest.mark.parametrize(
    "code",
    [
        "BEGIN\nwhile True: pass",
        "BEGIN\nimport time; time.sleep(60)",
        "BEGIN\nimport ctypes; ctypes.CDLL(None).sleep(60); 1",
        "BEGIN\nimport subprocess; subprocess.run(['sleep', '60'])",
        "BEGIN\n!sleep 60",
        "BEGIN\nimport asyncio; await asyncio.sleep(60)",
        "BEGIN\nimport asyncio; asyncio.run(asyncio.sleep(60))",
        "BEGIN\nimport threading; threading.Event().wait(60)",
        "BEGIN\ninput()",
        "import signal; signal.signal(2, signal.default_int_handler)\nBEGIN\nsignal.pause()",
        "async def f():\n    BEGIN\n    while True: pass\nawait f()",
    ],
)
def test_an_interrupt_ends_the_code_and_not_the_kernel(kernel: KernelProcess, code: str) -> None:
    kernel.start(code.replace("BEGIN", "print('begun')"), accepts_input=True)
    kernel.wait_for_stdout("begun")
    outcome = kernel.finish_interrupted()
    assert (outcome.status, outcome.error.name) == ("interrupted", "KeyboardInterrupt")
    assert "headrace" not in outcome.error.traceback
    assert kernel.run("1").text == "1"


@pytest.mark.parametrize("code", ["print('x' * 10**7)", "display('x' * 4_000_000)"])
def test_code_that_waits_for_the_host_to_read_can_be_interrupted(
    kernel: KernelProcess, code: str
) -> None:
    kernel.start(f"import sys; sys.stderr.write('begun');\n{code}\n'not reached'")
    kernel.pump(lambda: "begun" in Outcome(kernel.items).stderr)
    kernel.wait_for_state("S")
    kernel.interrupt()
    outcome = kernel.finish()
    assert outcome.status == "interrupted"
    assert not any(result.is_main for result in outcome.results)
    assert kernel.run("1").text == "1"


def test_an_interrupt_ends_a_shell_cell(kernel: KernelProcess) -> None:
    kernel.start("%%bash\necho begun\nsleep 60")
    kernel.wait_for_stdout("begun")
    assert kernel.finish_interrupted().error.name == "CalledProcessError"


def test_the_traceback_of_an_interrupted_await_shows_where_it_waited(
    kernel: KernelProcess,
) -> None:
    kernel.start("import asyncio\nprint('begun')\nawait asyncio.sleep(60)")
    kernel.wait_for_stdout("begun")
    kernel.wait_for_state("S")
    kernel.interrupt()
    assert "----> 3 await asyncio.sleep(60)" in kernel.finish().error.traceback


def test_code_that_catches_the_interrupt_ends_well(kernel: KernelProcess) -> None:
    kernel.start(
        "import time\ntry:\n    print('begun'); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught')"
    )
    kernel.wait_for_stdout("begun")
    outcome = kernel.finish_interrupted()
    assert (outcome.status, outcome.stdout) == ("ok", "begun\ncaught\n")


def test_an_interrupt_while_nothing_runs_is_ignored(kernel: KernelProcess) -> None:
    for _ in range(20):
        kernel.interrupt()
        kernel.wait_for_state("S")
        assert kernel.run("'unharmed'").text == "'unharmed'"


def test_an_interrupt_right_after_the_code_was_sent_reaches_it(kernel: KernelProcess) -> None:
    for _ in range(50):
        kernel.start("import time; time.sleep(60)")
        assert kernel.finish_interrupted().status == "interrupted"


def test_an_interrupt_at_the_very_end_never_reaches_the_next_code(kernel: KernelProcess) -> None:
    for number in range(150):
        kernel.start("1")
        time.sleep(number % 30 * 0.00001)
        kernel.interrupt()
        assert kernel.finish().status in ("ok", "interrupted")
        kernel.wait_for_state("S")
        assert kernel.run("'unharmed'").text == "'unharmed'"


def test_the_host_can_say_that_an_interrupt_was_for_earlier_code(kernel: KernelProcess) -> None:
    kernel.stop()
    kernel.interrupt()
    kernel.start("'unharmed'", discard_interrupt=True)
    kernel.resume()
    assert kernel.finish().text == "'unharmed'"


def test_a_repeated_interrupt_does_not_hit_the_cleaning_up(kernel: KernelProcess) -> None:
    kernel.start(
        "import time\ntry:\n    print('begun'); time.sleep(60)\n"
        "finally:\n    print('cleaning'); time.sleep(0.1); print('clean')"
    )
    kernel.wait_for_stdout("begun")
    kernel.wait_for_state("S")
    kernel.interrupt()
    kernel.wait_for_stdout("cleaning")
    kernel.interrupt()
    outcome = kernel.finish()
    assert (outcome.status, outcome.stdout) == ("interrupted", "begun\ncleaning\nclean\n")


def test_a_handler_of_user_code_is_gone_in_the_next_execution(kernel: KernelProcess) -> None:
    kernel.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    kernel.start("import time; time.sleep(60)")
    assert kernel.finish_interrupted().status == "interrupted"


def test_a_blocked_signal_is_open_again_in_the_next_execution(kernel: KernelProcess) -> None:
    kernel.run("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})")
    kernel.start("import time; time.sleep(60)")
    assert kernel.finish_interrupted().status == "interrupted"


def test_an_alarm_between_executions_does_no_harm(kernel: KernelProcess) -> None:
    outcome = kernel.run(
        "import signal\ndef alarm(*_): raise TimeoutError('too late')\n"
        "signal.signal(signal.SIGALRM, alarm)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)"
    )
    assert outcome.status == "ok"
    kernel.pump(lambda: any(b"too late" in item.data for item in kernel.items))
    assert kernel.run("'unharmed'").text == "'unharmed'"


def test_an_alarm_works_as_a_time_limit(kernel: KernelProcess) -> None:
    outcome = kernel.run(
        "import signal, time\ndef alarm(*_): raise TimeoutError('in time')\n"
        "signal.signal(signal.SIGALRM, alarm)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "time.sleep(60)"
    )
    assert outcome.error.value == "in time"


def test_a_description_that_hangs_can_be_interrupted(kernel: KernelProcess) -> None:
    kernel.start(
        "import time\nclass E(Exception):\n"
        "    def __str__(self):\n        print('begun'); time.sleep(60)\nraise E"
    )
    kernel.wait_for_stdout("begun")
    outcome = kernel.finish_interrupted()
    assert (outcome.error.name, outcome.status) == ("E", "error")
