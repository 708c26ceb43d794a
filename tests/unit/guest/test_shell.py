"""The shell's own ways, seen through real kernels."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel_process import KernelProcess, shared_fork_server


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


def test_a_command_leaves_its_exit_code(kernel: KernelProcess) -> None:
    kernel.run("!exit 3")
    assert kernel.run("_exit_code").text == "3"
    kernel.run("!kill -9 $$")
    assert kernel.run("_exit_code").text == "-9"


def test_a_command_sees_variables_of_the_code(kernel: KernelProcess) -> None:
    assert kernel.run("name = 'Ada'\n!echo {name} $name").stdout == "Ada Ada\n"
    assert kernel.run("def f(inner):\n    !echo {inner}\nf('local')").stdout == "local\n"


def test_the_output_of_a_command_can_be_taken(kernel: KernelProcess) -> None:
    outcome = kernel.run("x = !echo out; echo err >&2\nlist(x)")
    assert (outcome.text, outcome.stderr) == ("['out', 'err']", "")


def test_a_failing_command_raises_if_so_configured(kernel: KernelProcess) -> None:
    kernel.run("get_ipython().system_raise_on_error = True")
    assert kernel.run("!exit 3").error.name == "CalledProcessError"


def test_commands_have_no_terminal_and_no_input(kernel: KernelProcess) -> None:
    assert kernel.run("!test -t 1 || echo no terminal; cat").stdout == "no terminal\n"


def test_a_captured_command_writes_into_the_capture(kernel: KernelProcess) -> None:
    code = (
        "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as s:\n"
        "    !echo hä\ns.getvalue()"
    )
    outcome = kernel.run(code)
    assert (outcome.text, outcome.stdout) == ("'hä\\n'", "")


def test_a_background_command_does_not_hold_the_execution_up(kernel: KernelProcess) -> None:
    assert kernel.run("!sleep 60 &").status == "ok"


def test_an_unusable_shell_variable_is_passed_over(kernel: KernelProcess) -> None:
    assert kernel.run("!echo fine", env={"SHELL": "/no/such/shell"}).stdout == "fine\n"


@pytest.mark.parametrize(
    "code", ["%%capture held\n1 / 0", "get_ipython().run_cell('1 / 0');", "%%time\n1 / 0"]
)
def test_an_error_of_a_cell_in_a_cell_is_not_lost(kernel: KernelProcess, code: str) -> None:
    outcome = kernel.run(code)
    assert (outcome.status, outcome.error.name) == ("error", "ZeroDivisionError")


def test_a_run_script_shows_no_figure_of_its_own(kernel: KernelProcess, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('ran')\n")
    kernel.run("import matplotlib.pyplot as plt; plt.plot([1]);")
    outcome = kernel.run(f"%run {script}")
    assert (outcome.stdout, outcome.results) == ("ran\n", [])


def test_a_debugger_says_that_there_is_no_input(kernel: KernelProcess) -> None:
    assert kernel.run("breakpoint()\nx = 1").error.name == "StdinNotImplementedError"
    kernel.run("1 / 0")
    assert kernel.run("%debug").error.name == "StdinNotImplementedError"
    assert kernel.run("1").text == "1"


def test_tb_shows_the_last_traceback_on_stderr(kernel: KernelProcess) -> None:
    kernel.run("1 / 0")
    outcome = kernel.run("%tb")
    assert (outcome.status, outcome.errors) == ("ok", [])
    assert "ZeroDivisionError" in outcome.stderr


def test_the_style_of_tracebacks_can_be_chosen(kernel: KernelProcess) -> None:
    kernel.run("%xmode Minimal")
    assert kernel.run("1 / 0").error.traceback == "ZeroDivisionError: division by zero"


def test_a_syntax_error_in_another_file_shows_the_way_there(
    kernel: KernelProcess, tmp_path: Path
) -> None:
    (tmp_path / "broken_module.py").write_text("x = (\n")
    kernel.configure({}, str(tmp_path))
    traceback = kernel.run("import broken_module").error.traceback
    assert "import broken_module" in traceback
    assert "broken_module.py" in traceback
    assert "interactiveshell" not in traceback


def test_an_exception_group_shows_no_frame_of_the_shell(kernel: KernelProcess) -> None:
    traceback = kernel.run("raise ExceptionGroup('g', [ValueError(1)])").error.traceback
    assert "interactiveshell" not in traceback


def test_an_exception_can_bring_its_own_traceback(kernel: KernelProcess) -> None:
    code = "class E(Exception):\n    def _render_traceback_(self): return ['mine', 'own']\nraise E"
    assert kernel.run(code).error.traceback == "mine\nown"


def test_an_event_handler_of_user_code_that_fails_is_told_on_stderr(
    kernel: KernelProcess,
) -> None:
    kernel.run("get_ipython().events.register('post_run_cell', lambda r: 1 / 0)")
    outcome = kernel.run("1")
    assert (outcome.status, outcome.text) == ("ok", "1")
    assert "ZeroDivisionError" in outcome.stderr


def test_a_task_of_an_interrupted_cell_does_not_go_on(kernel: KernelProcess) -> None:
    kernel.run("import asyncio\nran = []")
    kernel.start(
        "try:\n    print('begun'); await asyncio.sleep(60)\nfinally:\n    ran.append('cleaned')"
    )
    kernel.wait_for_stdout("begun")
    assert kernel.finish_interrupted().status == "interrupted"
    assert kernel.run("await asyncio.sleep(0.01)\nran").text == "['cleaned']"


def test_a_graphical_event_loop_is_refused_with_a_reason(kernel: KernelProcess) -> None:
    assert "There is no screen" in kernel.run("%gui qt").stderr


def test_output_is_not_kept_in_memory_for_a_notebook(kernel: KernelProcess) -> None:
    kernel.run("print('x')\ndisplay('y')\n'z'")
    kernel.run("1 / 0")
    code = "h = get_ipython().history_manager; len(h.outputs), list(h.exceptions.values())"
    assert kernel.run(code).text == "(0, [{}])"


def test_reset_leaves_a_usable_shell(kernel: KernelProcess) -> None:
    kernel.run("x = 1")
    kernel.run("%reset -f")
    assert kernel.run("x").error.name == "NameError"
    assert kernel.run("exit").done.exit_code == 0
