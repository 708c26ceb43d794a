"""Environment and directory of an execution: in this process, and in real kernels."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_guest.surroundings import Surroundings
from tests.support.kernel_process import KernelProcess, shared_fork_server


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Iterator[Path]:
    """Keep this process's own directory and environment."""
    former = Path.cwd()
    environment = dict(os.environ)
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(former)
    os.environ.clear()
    os.environ.update(environment)


def test_variables_are_set_and_restored_exactly() -> None:
    os.environ["KEPT"] = "former"
    surroundings = Surroundings({"KEPT": "now", "NEW": "now"}, None)
    surroundings.enter()
    assert (os.environ["KEPT"], os.environ["NEW"]) == ("now", "now")
    del os.environ["KEPT"]
    os.environ["NEW"] = "changed by the code"
    surroundings.leave()
    assert os.environ["KEPT"] == "former"
    assert "NEW" not in os.environ


def test_a_variable_that_cannot_be_set_is_refused_and_the_others_undone() -> None:
    surroundings = Surroundings({"GOOD": "1", "BAD": "\0"}, None)
    with pytest.raises(ValueError, match="null byte"):
        surroundings.enter()
    surroundings.leave()
    assert "GOOD" not in os.environ


def test_the_directory_is_entered_and_left(place: Path) -> None:
    (place / "inner").mkdir()
    surroundings = Surroundings({}, str(place / "inner"))
    surroundings.enter()
    assert Path.cwd() == place / "inner"
    os.chdir("/")
    surroundings.leave()
    assert Path.cwd() == place


def test_the_former_directory_is_found_again_after_it_was_moved(place: Path) -> None:
    (place / "before").mkdir()
    os.chdir(place / "before")
    surroundings = Surroundings({}, "/")
    surroundings.enter()
    (place / "before").rename(place / "after")
    surroundings.leave()
    assert Path.cwd() == place / "after"


def test_a_former_directory_that_is_gone_is_no_obstacle(place: Path) -> None:
    (place / "gone").mkdir()
    os.chdir(place / "gone")
    (place / "gone").rmdir()
    surroundings = Surroundings({}, "/")
    surroundings.enter()
    surroundings.leave()


def test_a_missing_directory_is_named_and_nothing_is_left_open() -> None:
    before = _count_descriptors()
    surroundings = Surroundings({"NEW": "1"}, "/no/such/directory")
    with pytest.raises(FileNotFoundError, match="/no/such/directory"):
        surroundings.enter()
    surroundings.leave()
    assert "NEW" not in os.environ
    assert _count_descriptors() == before


def _count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- in a kernel --------------------------------------------------------------------------------


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


def test_the_environment_of_an_execution_is_undone(kernel: KernelProcess) -> None:
    kernel.configure({"KEPT": "context", "BOTH": "context"}, "/")
    code = (
        "import os\n"
        "seen = [os.environ.get(n) for n in ('KEPT', 'BOTH', 'ONCE')]\n"
        "os.environ.update(BOTH='changed', ONCE='changed', NEW='made')\n"
        "seen"
    )
    outcome = kernel.run(code, env={"BOTH": "execution", "ONCE": "execution"})
    assert outcome.text == "['context', 'execution', 'execution']"
    after = kernel.run("[os.environ.get(n) for n in ('KEPT', 'BOTH', 'ONCE', 'NEW')]")
    assert after.text == "['context', 'context', None, 'made']"


def test_children_see_the_environment(kernel: KernelProcess) -> None:
    assert kernel.run("!echo $GREETING", env={"GREETING": "hello"}).stdout == "hello\n"


def test_an_impossible_environment_is_an_error(kernel: KernelProcess) -> None:
    outcome = kernel.run("print('ran')", env={"GOOD": "1", "BAD": "a\x00b"})
    assert (outcome.status, outcome.error.name, outcome.stdout) == ("error", "ValueError", "")
    assert kernel.run("import os; os.environ.get('GOOD')").results == []


def test_the_directory_of_an_execution_is_left_again(kernel: KernelProcess, tmp_path: Path) -> None:
    kernel.configure({}, str(tmp_path))
    inner = tmp_path / "inner"
    inner.mkdir()
    code = "import os\nwas = os.getcwd()\nos.chdir('/')\nwas"
    assert kernel.run(code, cwd=str(inner)).text == repr(str(inner))
    assert kernel.run("os.getcwd()").text == repr(str(tmp_path))


def test_a_directory_that_code_chose_stays(kernel: KernelProcess, tmp_path: Path) -> None:
    kernel.run(f"import os; os.chdir({str(tmp_path)!r})")
    assert kernel.run("os.getcwd()").text == repr(str(tmp_path))


def test_a_missing_directory_is_an_error_and_nothing_runs(kernel: KernelProcess) -> None:
    outcome = kernel.run("print('ran')", cwd="/no/such/directory")
    assert (outcome.error.name, outcome.status) == ("FileNotFoundError", "error")
    assert "'/no/such/directory'" in outcome.error.value
    assert outcome.stdout == ""


def test_a_context_directory_that_appears_later_is_entered_then(
    kernel: KernelProcess, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    kernel.configure({}, str(late))
    assert kernel.run("1").error.name == "FileNotFoundError"
    late.mkdir()
    assert kernel.run("import os; os.getcwd()").text == repr(str(late))


def test_modules_are_imported_from_the_working_directory(
    kernel: KernelProcess, tmp_path: Path
) -> None:
    (tmp_path / "beside_the_code.py").write_text("value = 5\n")
    kernel.configure({}, str(tmp_path))
    assert kernel.run("import beside_the_code; beside_the_code.value").text == "5"


def test_the_time_zone_of_the_context_counts(kernel: KernelProcess) -> None:
    kernel.configure({"TZ": "UTC+5"}, "/")
    assert kernel.run("import time; time.timezone").text == "18000"
