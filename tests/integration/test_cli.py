"""The real command with real sandboxes: streams, results, exit statuses, signals, privileges."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from headrace.cli import group
from tests.support.modes import Mode

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]

COMMAND = Path(sys.prefix) / "bin" / "headrace"
EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 90
"""Seconds for one command; a start on a busy machine takes some."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    status: int
    stdout: bytes
    stderr: str


def headrace(*arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Done:
    done = subprocess.run(
        [COMMAND, *arguments], input=stdin, capture_output=True, timeout=PATIENCE, cwd=cwd
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


def run_code(code: str, *options: str, stdin: bytes = b"") -> Done:
    return headrace("run", *options, "-c", code, stdin=stdin)


@contextmanager
def started(*arguments: str | Path, **options: object) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command in a process group of its own, as a shell does; end it at the end."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        **{  # type: ignore[call-overload]
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "process_group": 0,
            **options,
        },
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read_until(fd: int, wanted: bytes) -> bytes:
    """Read until ``wanted`` was seen, for as long as a test is patient."""
    deadline = time.monotonic() + PATIENCE
    seen = b""
    while wanted not in seen:
        left = deadline - time.monotonic()
        assert left > 0, f"{wanted!r} did not come, but {seen!r}"
        if select.select([fd], [], [], left)[0]:
            chunk = os.read(fd, 65536)
            assert chunk, f"the end came before {wanted!r}, after {seen!r}"
            seen += chunk
    return seen


# --- output -----------------------------------------------------------------------------------


def test_both_streams_arrive_byte_for_byte() -> None:
    code = "import os; os.write(1, bytes(range(256))); os.write(2, b'oops'); print('end', end='')"

    done = run_code(code)

    assert (done.status, done.stdout, done.stderr) == (0, bytes(range(256)) + b"end", "oops")


def test_output_comes_while_the_program_runs() -> None:
    code = "import time; print('first'); time.sleep(60)"

    with started("run", "-c", code) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"first\n")


def test_ten_megabytes_arrive_whole() -> None:
    done = run_code("print('x' * 10_000_000)")

    assert done.stdout == b"x" * 10_000_000 + b"\n"


def test_results_are_shown_as_text() -> None:
    done = run_code("import pandas as pd\nprint('table:')\npd.DataFrame({'a': [1, 2]})")

    assert done.stdout == b"table:\n   a\n0  1\n1  2\n"
    assert done.stderr == ""


def test_standard_input_can_be_the_program() -> None:
    assert headrace("run", "-", stdin="print('ä')".encode()).stdout == "ä\n".encode()


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    with started("run", "-c", "while True: print('y' * 100)") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


def test_a_full_disk_is_said() -> None:
    with (
        Path("/dev/full").open("wb") as full,
        started("run", "-c", "print('x')", stdout=full) as process,
    ):
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 125
    assert b"No space left on device" in said
    assert b"Traceback" not in said


# --- exit status ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("1", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit('bye')", 1, "bye\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("syntax error", 1, "SyntaxError"),
        ("import os; os._exit(3)", 3, "headrace: kernel_died: "),
        ("import os; os._exit(0)", 0, "headrace: kernel_died: "),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139, "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, "headrace: "),
    ],
)
def test_the_exit_status_is_the_programs_own(code: str, status: int, said: str) -> None:
    done = run_code(code)

    assert done.status == status
    assert said in done.stderr
    assert bool(done.stderr) is bool(said)


def test_a_time_limit_has_status_124_and_is_named() -> None:
    done = run_code("while True: pass", "--timeout", "0.5")

    assert done.status == 124
    assert "headrace: timeout: the limit timeout is 0.5 seconds" in done.stderr


def test_out_of_memory_has_status_137_and_is_named() -> None:
    done = run_code("x = bytearray(3 * 1024**3)\nfor i in range(0, len(x), 4096): x[i] = 1")

    assert done.status == 137
    assert "headrace: oom: " in done.stderr


def test_a_traceback_has_no_colour_codes_and_nothing_of_ours() -> None:
    done = run_code("def f():\n    raise ValueError('no')\nf()")

    assert "Traceback" in done.stderr
    assert "ValueError: no" in done.stderr
    assert "\x1b" not in done.stderr
    assert "headrace" not in done.stderr


# --- several programs, variables, input -------------------------------------------------------


def test_several_files_share_files_and_no_variables(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1; open('shared', 'w').write('from a'); print('a')")
    (tmp_path / "b.py").write_text("print(open('shared').read(), 'x' in globals())")

    done = headrace("run", tmp_path / "a.py", tmp_path / "b.py")

    assert (done.status, done.stdout) == (0, b"a\nfrom a False\n")


def test_the_first_failing_file_is_the_last(tmp_path: Path) -> None:
    for name, code in {"a": "print('a')", "b": "raise SystemExit(4)", "c": "print('c')"}.items():
        (tmp_path / f"{name}.py").write_text(code)

    done = headrace("run", *(tmp_path / f"{name}.py" for name in "abc"))

    assert (done.status, done.stdout) == (4, b"a\n")


def test_variables_are_set_and_ours_are_not_seen() -> None:
    code = "import os; print(os.environ['A'], os.environ.get('HEADRACE_CANARY'))"
    env = {**os.environ, "HEADRACE_CANARY": "secret"}
    done = subprocess.run(
        [COMMAND, "run", "--env", "A=x=y", "-c", code],
        capture_output=True, timeout=PATIENCE, env=env, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.stdout == b"x=y None\n"


def test_input_comes_from_standard_input() -> None:
    done = run_code("print(input('name? ') + '!'); input()", stdin=b"Ann\n")

    assert done.stdout == b"name? Ann!\n"
    assert "EOFError" in done.stderr
    assert done.status == 1


def test_a_program_from_standard_input_cannot_ask() -> None:
    done = headrace("run", "-", stdin=b"input('name? ')\n")

    assert done.status == 1
    assert b"name? " not in done.stdout


# --- results ----------------------------------------------------------------------------------

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('end')"


def test_pictures_are_saved_and_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"

    first = run_code(PLOT, "--results", str(out))
    second = run_code(PLOT, "--results", str(out))

    assert (first.status, second.status) == (0, 0)
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        *("result-001.chart.json", "result-001.png"),
        *("result-002.chart.json", "result-002.png"),
    ]
    chart = json.loads((out / "result-001.chart.json").read_bytes())
    assert chart["elements"][0]["points"] == [[0.0, 1.0], [1.0, 2.0]]
    assert (out / "result-001.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert f"headrace: saved {out}/result-002.png\n" in second.stderr
    assert (out / "result-001.png").stat().st_uid == os.getuid()


def test_tables_and_dicts_are_saved_in_forms_for_programs(tmp_path: Path) -> None:
    code = "import pandas as pd\ndisplay(pd.DataFrame({'a': [1, 2]}))\n{'n': 3}"
    done = run_code(code, "--results", str(tmp_path))

    assert done.stdout == b"   a\n0  1\n1  2\n{'n': 3}\n"
    assert json.loads((tmp_path / "result-001.data.json").read_bytes()) == {"a": [1, 2]}
    assert (tmp_path / "result-001.html").read_text().count("<table") == 1
    assert json.loads((tmp_path / "result-002.json").read_bytes()) == {"n": 3}


def test_a_relative_results_directory_is_meant_as_seen_by_the_caller(tmp_path: Path) -> None:
    headrace("run", "--results", "out", "-c", PLOT, cwd=tmp_path)

    assert (tmp_path / "out" / "result-001.png").is_file()


def test_a_picture_without_a_directory_is_shown_as_text_with_a_hint() -> None:
    done = run_code(PLOT)

    assert done.stdout.startswith(b"<Figure size")
    assert done.stdout.endswith(b"end\n")
    assert done.stderr.count("--results DIR") == 1


# --- signals ----------------------------------------------------------------------------------


def test_ctrl_c_interrupts_the_program() -> None:
    with started("run", "-c", "print('go')\nwhile True: pass") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout.fileno(), b"go\n")
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert b"KeyboardInterrupt" in said
    assert b"headrace: interrupted" in said


def test_a_program_may_answer_ctrl_c_and_go_on() -> None:
    code = (
        "import time\ntry:\n    print('go')\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught')"
    )
    with started("run", "-c", code) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"go\n")
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(PATIENCE) == 0


def test_the_second_ctrl_c_kills_a_program_that_does_not_heed_the_first() -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('go')\nwhile True: time.sleep(1)"
    )
    with started("run", "-c", code) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"go\n")
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_the_sandbox(number: signal.Signals, status: int) -> None:
    with started("run", "-c", "import time; print('go'); time.sleep(60)") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"go\n")
        process.send_signal(number)
        assert process.wait(PATIENCE) == status


def test_input_on_a_terminal_is_asked_and_a_password_is_not_shown() -> None:
    code = "import getpass; print('hi', input('name? ')); print(len(getpass.getpass('word? ')))"
    main, side = pty.openpty()
    try:
        with started("run", "-c", code, stdin=side, stdout=side, stderr=side) as process:
            read_until(main, b"name? ")
            os.write(main, b"Ann\n")
            read_until(main, b"word? ")
            os.write(main, b"secret\n")
            rest = read_until(main, b"6\r\n")
            assert process.wait(PATIENCE) == 0
    finally:
        os.close(main)
        os.close(side)
    assert b"secret" not in rest


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py"], "'missing.py': No such file or directory"),
        (["-c", "1", "--timeout", "-5"], "-5"),
        (["-c", "1", "--language", "cobol"], "'cobol'"),
        (["-c", "1", "--require", "luck"], "'luck'"),
        ([], "nothing to run"),
    ],
)
def test_bad_input_has_status_2_and_runs_nothing(arguments: Sequence[str], said: str) -> None:
    done = headrace("run", *arguments)

    assert (done.status, done.stdout) == (2, b"")
    assert said in done.stderr


# --- privileges and leftovers -----------------------------------------------------------------


def children_of(pid: int) -> set[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in listed}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in lines)}


def test_the_engine_has_no_privileges_while_a_program_runs(tmp_path: Path, mode: Mode) -> None:
    code = "import time; print('go'); time.sleep(60)"
    with started("run", "--results", tmp_path / "out", "-c", code) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"go\n")
        engine = status_of(process.pid)

    expected = "1999900000" if mode is Mode.ROOT else str(os.getuid())
    assert set(engine["Uid"].split()) == {expected}
    assert int(engine["CapEff"], 16) == int(engine["CapPrm"], 16) == 0
    assert mode is Mode.ROOTLESS or engine["NoNewPrivs"] == "1"
    assert mode is Mode.ROOTLESS or int(engine["CapBnd"], 16) == 0


def test_a_killed_command_leaves_no_process() -> None:
    with started("run", "-c", "import time; print('go'); time.sleep(60)") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"go\n")
        children = children_of(process.pid)
        process.kill()

    deadline = time.monotonic() + 20
    while left := [pid for pid in children if is_alive(pid)]:
        assert time.monotonic() < deadline, f"{left} outlived their command"
        time.sleep(0.05)
    assert children


def is_alive(pid: int) -> bool:
    try:
        return status_of(pid)["State"][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_commands_at_once_do_not_disturb_each_other() -> None:
    code = "import os, time; print(os.getpid()); time.sleep(1); print('done')"
    with started("run", "-c", code) as one, started("run", "-c", code) as other:
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in (one, other)]

    assert [one.returncode, other.returncode] == [0, 0]
    assert all(output.endswith(b"done\n") for output in outputs)


def test_rootless_mode_can_be_asked_for_by_everybody() -> None:
    done = headrace("doctor", "--mode", "rootless", "--json")

    checks = {check["name"]: check["value"] for check in json.loads(done.stdout)["checks"]}
    assert done.status == 0
    assert checks["engine"].startswith("rootless mode")


# --- require and doctor -----------------------------------------------------------------------


def test_a_protection_that_is_not_enforced_is_refused_by_name(mode: Mode) -> None:
    missing = "id_ranges"
    done = run_code("print('ran')", "--require", missing)

    if mode is Mode.ROOT:
        assert (done.status, done.stdout) == (0, b"ran\n")
    else:
        assert (done.status, done.stdout) == (125, b"")
        assert f"isolation_too_weak: this machine cannot enforce {missing}" in done.stderr


def test_the_doctor_starts_a_sandbox_and_says_what_is_enforced(mode: Mode) -> None:
    done = headrace("doctor", "--json")

    document = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert document["ok"] is True
    assert done.status == 0
    assert states["sandbox"] == "pass"
    assert states["enforced seccomp"] == "pass"
    assert states["enforced id_ranges"] == ("pass" if mode is Mode.ROOT else "warn")
    assert all(check["remedy"] for check in document["checks"] if check["state"] != "pass")


def test_the_doctor_fails_for_what_is_required_and_not_enforced(mode: Mode) -> None:
    done = headrace("doctor", "--require", "id_ranges")

    assert done.status == (0 if mode is Mode.ROOT else 1)
    line = next(line for line in done.stdout.decode().splitlines() if "enforced id_ranges" in line)
    assert line.startswith("pass" if mode is Mode.ROOT else "fail")
    assert "\x1b" not in done.stdout.decode()


# --- examples ---------------------------------------------------------------------------------

EXPECTED = {
    "ask.py": (0, b"Ann gets 3 sacks, that is 150 kg"),
    "errors.py": (1, b"caught: only 3 sacks of bran are left, not 4"),
    "quickstart.py": (0, b"2790 litres in 6 months"),
    "streaming.py": (0, b"\rdone: 100 %\n"),
}


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_does_what_it_says(name: str) -> None:
    status, said = EXPECTED[name]

    done = headrace("run", EXAMPLES / name, stdin=b"Ann\n3\n")

    assert done.status == status
    assert said in done.stdout


def test_the_streaming_example_keeps_its_order() -> None:
    lines = headrace("run", EXAMPLES / "streaming.py").stdout.decode().splitlines()

    assert lines[:4] == [
        "a print",
        "a write to the descriptor, as C code does it",
        "a child process",
        "and a print again",
    ]


def options_of(command: click.Command) -> set[str]:
    """Give the long options of a command and of all below it."""
    found = {word for each in command.params for word in each.opts if word.startswith("--")}
    if isinstance(command, click.Group):
        context = click.Context(command)
        below = [command.get_command(context, name) for name in command.list_commands(context)]
        found.update(*(options_of(each) for each in below if each is not None))
    return found


def test_the_documents_name_only_options_that_exist() -> None:
    offered = options_of(group.headrace) | {"--help"}
    documents = [Path(__file__).parents[2] / name for name in ("README.md", "docs/cli.md")]
    named = {
        option
        for document in documents
        for line in document.read_text().splitlines()
        if "headrace " in line or line.startswith("| `--")
        for option in re.findall(r"(?<!-)--[a-z][a-z-]*", line)
    }

    assert named <= offered
