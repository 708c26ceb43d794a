import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from headrace.cli.server_options import read_flags, setting_options
from headrace.model.errors import InvalidRequestError


def parse(*arguments: str) -> dict[str, object]:
    found: dict[str, object] = {}

    @click.command()
    @setting_options
    def command(**options: object) -> None:
        found.update(read_flags(options))

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found


def test_only_flags_that_were_given_are_settings() -> None:
    assert parse() == {}
    assert parse("--port", "1", "--no-tcp", "--log-level", "debug") == {
        "server.port": "1",
        "server.tcp": False,
        "logs.level": "debug",
    }


def test_any_setting_can_be_given_by_its_name() -> None:
    assert parse("--set", "limits.memory=2GiB", "--set", "server.public_url=http://a?b=c") == {
        "limits.memory": "2GiB",
        "server.public_url": "http://a?b=c",
    }


def test_a_flag_of_its_own_wins_over_the_general_one() -> None:
    assert parse("--set", "server.port=1", "--port", "2") == {"server.port": "2"}


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"--set needs NAME=VALUE, got 'server\.port'"):
        parse("--set", "server.port")


@pytest.mark.parametrize("words", [["serve"], ["keys", "list"], ["config", "show"]])
def test_without_the_extra_one_line_says_what_to_install(words: list[str]) -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from headrace.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 1
    assert done.stderr == (
        "Error: the service is not installed (uvicorn is missing): pip install 'headrace[server]'\n"
    )
