"""The command as a whole, as far as it needs no sandbox."""

import subprocess
import sys

import pytest

from headrace import __version__
from headrace.cli import main
from headrace.cli.failure import ungrouped
from headrace.model.errors import LaunchError


def test_the_version_is_printed_without_importing_what_is_not_needed() -> None:
    code = (
        "import sys; from headrace.cli.main import run; run(['--version']);"
        "print(sorted({'click', 'rich', 'anyio', 'asyncio', 'ctypes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [f"headrace {__version__}", "[]"]


def test_help_names_the_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0

    said = capsys.readouterr().out
    assert "doctor" in said
    assert "run" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["walk"], "No such command 'walk'"),
        (["run"], "nothing to run"),
        (["run", "missing.py"], "'missing.py'"),
        (["run", "-c", "1", "--timeout", "soon"], "'soon'"),
        (["run", "-c", "1", "--timeout", "nan"], "nan"),
        (["run", "-c", "1", "--language", "cobol"], "'cobol'"),
        (["run", "-c", "1", "--env", "A"], "'A'"),
        (["run", "-c", "1", "--env", "1=2"], "'1'"),
        (["run", "-c", "1", "--mode", "wild"], "'wild'"),
        (["run", "-c", "1", "--require", "luck"], "'luck'"),
        (["run", "-c", "1", "--results", "/dev/null"], "'/dev/null'"),
        (["run", "--strange"], "--strange"),
        (["doctor", "--require", "luck"], "'luck'"),
        (["doctor", "extra"], "extra"),
    ],
)
def test_bad_input_has_status_2_and_a_message_that_names_it(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2

    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_closed_standard_descriptors_are_not_reused() -> None:
    code = (
        "import os; from headrace.cli.main import plug_standard_descriptors;"
        "os.close(0); os.close(1); plug_standard_descriptors();"
        "fd = os.open('/dev/zero', os.O_RDONLY); os.write(2, str(fd).encode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(done.stderr) > 2


def test_one_failure_of_ours_stands_for_its_group() -> None:
    with pytest.raises(LaunchError, match="it"), ungrouped():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [LaunchError("it")]), OSError()])


def test_a_preferred_failure_comes_first() -> None:
    with pytest.raises(BrokenPipeError), ungrouped(BrokenPipeError):
        raise ExceptionGroup("outer", [LaunchError("it"), BrokenPipeError()])


def test_a_group_of_bugs_is_raised_as_it_is() -> None:
    with pytest.RaisesGroup(ZeroDivisionError), ungrouped():
        raise ExceptionGroup("outer", [ZeroDivisionError()])
