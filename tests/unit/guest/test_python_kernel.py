"""The kernel as the host sees it: what comes back for code, whatever the code does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel_process import KernelProcess, shared_fork_server


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


# --- results --------------------------------------------------------------------------------


def test_the_last_expression_is_the_main_result(kernel: KernelProcess) -> None:
    outcome = kernel.run("1 + 1")
    assert outcome.text == "2"
    assert outcome.status == "ok"
    assert outcome.done.exit_code is None


def test_state_stays_between_executions(kernel: KernelProcess) -> None:
    kernel.run("x = 41")
    assert kernel.run("x + 1").text == "42"


def test_none_and_a_trailing_semicolon_give_no_result(kernel: KernelProcess) -> None:
    assert kernel.run("None").results == []
    assert kernel.run("1 + 1;").results == []
    assert kernel.run("1 + 1;  # comment").results == []


def test_a_semicolon_inside_a_string_hides_nothing(kernel: KernelProcess) -> None:
    assert kernel.run("';'").text == "';'"


def test_empty_code_is_an_execution_too(kernel: KernelProcess) -> None:
    for code in ("", "\n \n", "# only a comment"):
        outcome = kernel.run(code)
        assert (outcome.status, outcome.items[:-1]) == ("ok", [])


def test_input_and_output_history_count_from_one(kernel: KernelProcess) -> None:
    kernel.run("'first'")
    outcome = kernel.run("In[1], Out[1], len(In), _, get_ipython().execution_count")
    assert outcome.text == "(\"'first'\", 'first', 3, 'first', 3)"


def test_steps_taken_ahead_show_nothing_and_change_nothing(kernel: KernelProcess) -> None:
    kernel.send({"type": "warm"})
    outcome = kernel.run("sorted(n for n in globals() if not n.startswith('_')), In, Out")
    names = "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']"
    assert str(outcome.text).startswith(f"({names},")
    assert len(outcome.items) == 2
    assert kernel.run("len(In), get_ipython().execution_count").text == "(3, 3)"


def test_steps_are_not_taken_ahead_once_code_has_run(kernel: KernelProcess) -> None:
    kernel.run("kept = 1")
    kernel.send({"type": "warm"})
    assert kernel.run("kept").text == "1"


def test_the_warm_up_left_nothing_to_see(kernel: KernelProcess) -> None:
    names = "sorted(n for n in globals() if not n.startswith('_'))"
    assert kernel.run(names).text == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']"
    code = (
        "import sys, linecache, matplotlib.pyplot as plt\n"
        "hasattr(sys, 'last_value'), plt.get_fignums(), "
        "len([name for name in linecache.cache if 'ipython-input' in name])"
    )
    assert kernel.run(code).text == "(False, [], 2)"


def test_top_level_await_works(kernel: KernelProcess) -> None:
    assert kernel.run("import asyncio\nawait asyncio.sleep(0, 'slept')").text == "'slept'"


def test_asyncio_run_works_in_a_cell_and_await_still_after_it(kernel: KernelProcess) -> None:
    kernel.run("import asyncio\nasync def f(): return 7")
    assert kernel.run("asyncio.run(f())").text == "7"
    assert kernel.run("await f()").text == "7"
    assert kernel.run("asyncio.run(f())").text == "7"


def test_indented_code_runs_as_if_dedented(kernel: KernelProcess) -> None:
    outcome = kernel.run("\n    x = 1\n    if x:\n        print('in')\n    x\n")
    assert (outcome.stdout, outcome.text) == ("in\n", "1")


def test_magics_work(kernel: KernelProcess) -> None:
    assert "CPU times" in kernel.run("%time 1 + 1").stdout
    assert kernel.run("%%capture held\nprint('quiet')\n!echo also").stdout == ""
    assert kernel.run("held.stdout").text == "'quiet\\nalso\\n'"
    assert kernel.run("%%bash\necho out\necho err >&2").stdout == "out\n"


def test_help_is_a_result(kernel: KernelProcess) -> None:
    (result,) = kernel.run("len?").results
    assert "Return the number of items" in str(result.bundle["text/plain"])


# --- errors ---------------------------------------------------------------------------------


def test_an_exception_is_an_error_with_its_traceback(kernel: KernelProcess) -> None:
    outcome = kernel.run("def f():\n    return 1 / 0\nf()")
    assert outcome.status == "error"
    assert (outcome.error.name, outcome.error.value) == ("ZeroDivisionError", "division by zero")
    assert "Cell In[1], line 2, in f()" in outcome.error.traceback
    assert "----> 2     return 1 / 0" in outcome.error.traceback
    assert "\x1b" not in outcome.error.traceback
    assert "headrace" not in outcome.error.traceback
    assert outcome.stderr == ""


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1 +", "SyntaxError"),
        ("if True:\nx", "IndentationError"),
        ("return 5", "SyntaxError"),
        ("a\x00b", "SyntaxError"),
        ("'\ud800'.encode()", "UnicodeEncodeError"),
        ("eval('1 +')", "SyntaxError"),
        ("%no_such_magic", "UsageError"),
        ("import no_such_module", "ModuleNotFoundError"),
    ],
)
def test_code_that_cannot_run_is_an_error(kernel: KernelProcess, code: str, name: str) -> None:
    outcome = kernel.run(code)
    assert outcome.status == "error"
    assert outcome.error.name.replace("ValueError", "SyntaxError") == name
    assert name.replace("SyntaxError", "Error") in outcome.error.traceback
    assert outcome.stderr == ""


def test_every_kind_of_exception_ends_only_its_execution(kernel: KernelProcess) -> None:
    for name in ("GeneratorExit", "KeyboardInterrupt", "BaseException", "StopIteration"):
        outcome = kernel.run(f"raise {name}")
        assert (outcome.status, outcome.error.name) == ("error", name)
    assert kernel.run("1").text == "1"


def test_an_exception_group_has_its_parts(kernel: KernelProcess) -> None:
    error = kernel.run(
        "raise ExceptionGroup('many', [ValueError(1), ExceptionGroup('inner', [KeyError('k')])])"
    ).error
    assert [part.name for part in error.parts] == ["ValueError", "ExceptionGroup"]
    assert [part.value for part in error.parts[1].parts] == ["'k'"]
    assert "ExceptionGroup: many" in error.traceback


def test_parts_beyond_the_limit_are_cut_visibly(kernel: KernelProcess) -> None:
    error = kernel.run("raise ExceptionGroup('g', [ValueError(i) for i in range(100)])").error
    assert len(error.parts) == 63
    assert "[only 63 parts are described one by one]" in error.traceback


def test_an_exception_that_cannot_be_shown_is_still_an_error(kernel: KernelProcess) -> None:
    error = kernel.run("class E(Exception):\n    def __str__(self): 1 / 0\nraise E").error
    assert (error.name, error.value) == ("E", "<its __str__ raised ZeroDivisionError>")


def test_an_exception_that_ends_its_own_description_is_an_error(kernel: KernelProcess) -> None:
    outcome = kernel.run("class E(Exception):\n    def __str__(self): exit()\nraise E")
    assert (outcome.status, outcome.error.name) == ("error", "E")
    assert outcome.error.value == "<describing it raised SystemExit>"


def test_huge_errors_are_cut_to_what_fits(kernel: KernelProcess) -> None:
    error = kernel.run("raise ValueError('\\U0001f600' * 3_000_000)").error
    assert len(error.value) < 1024 * 1024
    assert "characters and more cut" in error.value


def test_an_endless_recursion_has_a_short_traceback(kernel: KernelProcess) -> None:
    error = kernel.run("def f(): f()\nf()").error
    assert error.name == "RecursionError"
    assert "calls in the middle are left out" in error.traceback
    assert len(error.traceback) < 5000


def test_an_error_in_a_run_script_is_the_execution_s_error(
    kernel: KernelProcess, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('begun')\nraise ValueError('from a file')\n")
    outcome = kernel.run(f"%run {script}")
    assert (outcome.stdout, outcome.error.value) == ("begun\n", "from a file")
    assert outcome.status == "error"


# --- exit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("import sys; sys.exit()", "ok", 0),
        ("import sys; sys.exit(0)", "ok", 0),
        ("exit", "ok", 0),
        ("quit()", "ok", 0),
        ("exit(3)", "error", 3),
        ("import sys; sys.exit(-1)", "error", 255),
        ("import sys; sys.exit(256)", "error", 0),
        ("raise SystemExit(True)", "error", 1),
    ],
)
def test_exit_ends_the_execution_and_not_the_kernel(
    kernel: KernelProcess, code: str, status: str, exit_code: int
) -> None:
    outcome = kernel.run(code)
    assert (outcome.status, outcome.done.exit_code) == (status, exit_code)
    assert outcome.error.name == "SystemExit"
    assert outcome.stderr == ""
    assert kernel.run("1").text == "1"


def test_exit_with_a_text_prints_it_and_is_code_1(kernel: KernelProcess) -> None:
    outcome = kernel.run("import sys; sys.exit('the reason')")
    assert (outcome.status, outcome.done.exit_code) == ("error", 1)
    assert (outcome.error.value, outcome.stderr) == ("the reason", "the reason\n")


def test_os_exit_ends_the_process(kernel: KernelProcess) -> None:
    kernel.start("import os; print('last words'); os._exit(7)")
    assert kernel.pump_to_end().stdout == "last words\n"
    assert kernel.wait_for_exit() == 7


def test_the_host_s_exit_and_its_end_both_end_the_process() -> None:
    with shared_fork_server().kernel() as kernel:
        kernel.send({"type": "exit"})
        kernel.pump_to_end()
        assert kernel.wait_for_exit() == 0
    with shared_fork_server().kernel() as kernel:
        kernel.close_events()
        assert kernel.wait_for_exit() == 0


# --- input ----------------------------------------------------------------------------------


def test_input_is_refused_unless_the_execution_accepts_it(kernel: KernelProcess) -> None:
    error = kernel.run("input('name? ')").error
    assert error.name == "StdinNotImplementedError"
    assert error.value == "this execution does not accept input (accepts_input is false)"


def test_input_asks_the_host(kernel: KernelProcess) -> None:
    execution = kernel.start("a = input('name? ')\nf'hello {a}'", accepts_input=True)
    asked = kernel.wait_for_input()
    assert (asked.prompt, asked.is_password) == ("name? ", False)
    kernel.send({"type": "input", "execution": execution, "text": "Ada"})
    assert kernel.finish().text == "'hello Ada'"


def test_getpass_asks_for_a_password(kernel: KernelProcess) -> None:
    execution = kernel.start("from getpass import getpass\ngetpass()", accepts_input=True)
    asked = kernel.wait_for_input()
    assert (asked.prompt, asked.is_password) == ("Password: ", True)
    kernel.send({"type": "input", "execution": execution, "text": "s3cret"})
    assert kernel.finish().text == "'s3cret'"


def test_the_end_of_input_is_an_eof_error(kernel: KernelProcess) -> None:
    execution = kernel.start("input()", accepts_input=True)
    kernel.wait_for_input()
    kernel.send({"type": "input", "execution": execution, "text": None})
    assert kernel.finish().error.name == "EOFError"


def test_a_late_answer_is_not_taken_for_the_next_question(kernel: KernelProcess) -> None:
    first = kernel.start("input()", accepts_input=True)
    kernel.wait_for_input()
    assert kernel.finish_interrupted().status == "interrupted"
    kernel.send({"type": "input", "execution": first, "text": "late"})
    second = kernel.start("input()", accepts_input=True)
    kernel.wait_for_input()
    kernel.send({"type": "input", "execution": first, "text": "later"})
    kernel.send({"type": "input", "execution": second, "text": "right"})
    assert kernel.finish().text == "'right'"


def test_a_thread_cannot_ask_for_input(kernel: KernelProcess) -> None:
    code = (
        "import concurrent.futures as f\n"
        "with f.ThreadPoolExecutor() as pool: pool.submit(input).result()"
    )
    error = kernel.run(code, accepts_input=True).error
    assert error.value == "only the main thread of the kernel can ask for input"


def test_standard_input_is_empty(kernel: KernelProcess) -> None:
    assert kernel.run("import sys; sys.stdin.read()").text == "''"


# --- children and threads -------------------------------------------------------------------


def test_processes_and_pools_work_in_cells(kernel: KernelProcess) -> None:
    code = (
        "import multiprocessing, concurrent.futures as f\n"
        "def square(n): print('in', n); return n * n\n"
        "with multiprocessing.Pool(2) as pool: a = pool.map(square, range(3))\n"
        "with f.ProcessPoolExecutor(2) as pool: b = list(pool.map(square, range(3)))\n"
        "a, b"
    )
    outcome = kernel.run(code)
    assert outcome.text == "([0, 1, 4], [0, 1, 4])"
    assert sorted(outcome.stdout.split("\n")) == ["", *["in 0"] * 2, *["in 1"] * 2, *["in 2"] * 2]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_not_forked_work_too(kernel: KernelProcess, method: str) -> None:
    code = (
        f"import multiprocessing as m\nwith m.get_context({method!r}).Pool(1) as pool:\n"
        "    numbers = pool.map(abs, [-1, -2])\nnumbers"
    )
    assert kernel.run(code).text == "[1, 2]"


@pytest.mark.parametrize("fork", ["os.fork()", "ctypes.CDLL(None).fork()"])
def test_a_forked_child_that_returns_from_the_code_does_not_speak(
    kernel: KernelProcess, fork: str
) -> None:
    code = (
        f"import os, ctypes\npid = {fork}\n"
        "if pid: status = os.waitpid(pid, 0)[1]\n"
        "else: display('child'); print('child')\n"
        "os.waitstatus_to_exitcode(status) if pid else exit(5)"
    )
    outcome = kernel.run(code)
    assert outcome.text == "5"
    assert outcome.stdout == "'child'\nchild\n"
    assert len(outcome.results) == 1


def test_a_forked_child_that_raises_says_so_on_stderr(kernel: KernelProcess) -> None:
    outcome = kernel.run(
        "import os\npid = os.fork()\nif not pid: 1 / 0\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert outcome.text == "1"
    assert "ZeroDivisionError" in outcome.stderr
    assert outcome.errors == []


def test_the_host_sees_the_end_although_a_child_lives_on(kernel: KernelProcess) -> None:
    kernel.start(
        "import os, time\n"
        "if not os.fork():\n    os.close(1); os.close(2); time.sleep(60)\nos._exit(3)"
    )
    kernel.pump_to_end()
    assert kernel.wait_for_exit() == 3


def test_a_thread_goes_on_printing_between_executions(kernel: KernelProcess) -> None:
    outcome = kernel.run(
        "import threading\ngo = threading.Event()\n"
        "def later(): go.wait(10); print('printed'); display('displayed')\n"
        "t = threading.Thread(target=later); t.start()\n"
        "threading.Timer(0.02, go.set).start()"
    )
    assert outcome.status == "ok"
    kernel.wait_for_stdout("printed\n'displayed'\n")
    assert kernel.run("t.join()").results == []


# --- hostile code ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "import os; os.close(1); os.close(2); os.close(0)",
        "import os; os.dup2(os.open('/dev/null', os.O_RDWR), 1)",
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import sys; sys.stdout.detach()",
        "import sys, io; sys.stdout = io.TextIOWrapper(sys.stdout.detach())",
        "import os; os.closerange(3, 100)",
        "import os; os.set_blocking(1, False)",
        "import sys; sys.setrecursionlimit(60)",
        "import sys; sys.settrace(lambda *a: 1 / 0)",
        "import sys; sys.setprofile(lambda *a: 1 / 0)",
        "import builtins; del builtins.print",
        "import json; json.dumps = json.loads = None",
        "import os; os.read = os.write = os.getpid = os.fstat = None",
        "import os; os.environ = {}",
        "import time; time.sleep = time.monotonic = None",
        "import gc; gc.disable(); gc.set_threshold(1)",
        "import threading; threading.RLock = None",
        "import sys; sys.displayhook = None; sys.excepthook = None",
        "get_ipython().display_pub = None",
        "globals().clear()",
        "del __builtins__",
    ],
)
def test_damage_is_repaired_before_the_next_execution(kernel: KernelProcess, damage: str) -> None:
    kernel.run(damage)
    outcome = kernel.run(
        "import sys; a = sys.stdout.write('out\\n'); b = sys.stderr.write('err\\n'); 1"
    )
    assert (outcome.stdout, outcome.stderr, outcome.text) == ("out\n", "err\n", "1")


@pytest.mark.parametrize(
    "attack",
    [
        "import os; os.closerange(3, 1024)",
        "import os, threading; threading.Timer(0.02, os.closerange, (3, 1024)).start()",
        "import os\nn = os.open('/dev/null', 2)\nfor fd in range(200, 300): os.dup2(n, fd)",
    ],
)
def test_closing_the_event_socket_ends_the_process(kernel: KernelProcess, attack: str) -> None:
    kernel.start(attack)
    kernel.pump_to_end()
    assert kernel.wait_for_exit() == 1


@pytest.mark.parametrize(
    "attack",
    [
        "import sys; sys.modules.clear()",
        "import builtins; vars(builtins).clear()",
        "import gc\nfor o in gc.get_objects():\n    if type(o) is dict: o.clear()",
        "import os; os.kill(os.getpid(), 11)",
        "import ctypes; ctypes.string_at(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_at_worst_the_process_ends(kernel: KernelProcess, attack: str) -> None:
    kernel.start(attack)
    try:
        kernel.finish()
        kernel.run("1")
    except (EOFError, BrokenPipeError):
        kernel.wait_for_exit()


def test_a_crash_leaves_a_trace_on_stderr(kernel: KernelProcess) -> None:
    kernel.start("import ctypes; ctypes.string_at(0)")
    assert "Segmentation fault" in kernel.pump_to_end().stderr
    assert kernel.wait_for_exit() == -11


# --- the fork server's part -----------------------------------------------------------------


def test_the_fork_server_has_one_thread_and_all_libraries() -> None:
    assert shared_fork_server().report == {"missing": [], "threads": 1}


def test_the_kernel_keeps_its_descriptors_out_of_the_way(kernel: KernelProcess) -> None:
    assert kernel.run("import os; os.dup(0)").text == "3"


def test_children_inherit_only_the_standard_descriptors(kernel: KernelProcess) -> None:
    assert kernel.run("!ls /proc/self/fd").stdout.split() == ["0", "1", "2", "3"]
