"""The test runs themselves: right user, right interpreter, nothing left out silently."""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import headrace
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import Limits, SandboxSpec
from tests.support.leaks import assert_nothing_left, take_footprint, take_steady_footprint
from tests.support.modes import (
    CONDITIONS,
    PREFIX_VARIABLE,
    USER_VARIABLE,
    Mode,
    NotRun,
    current_mode,
    read_not_run,
)
from tests.support.running import open_engine, run_process, run_python
from tests.support.suite import describe, judge, names_paths, parse

TESTS = Path(__file__).resolve().parents[1]


def test_the_environment_is_the_one_that_was_built() -> None:
    prefix = os.environ[PREFIX_VARIABLE]
    user = pwd.getpwnam(os.environ[USER_VARIABLE])
    assert sys.prefix == prefix
    assert Path(sys.executable) == Path(prefix, "bin", "python")
    assert os.getresuid() == (user.pw_uid,) * 3
    assert os.getresgid() == (user.pw_gid,) * 3
    assert set(os.getgroups()) <= set(os.getgrouplist(user.pw_name, user.pw_gid))
    assert os.environ["HOME"] == user.pw_dir
    assert Path(headrace.__file__).is_relative_to(Path(prefix, "lib"))
    assert Path(prefix).stat().st_uid == user.pw_uid


def test_a_rootless_run_has_no_capability_left() -> None:
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    if current_mode() is Mode.ROOTLESS:
        assert os.geteuid() != 0
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    else:
        assert os.geteuid() == 0


async def test_the_interpreter_in_a_sandbox_is_the_one_outside(sandbox: Sandbox) -> None:
    question = "import json, os, sys; print(json.dumps([sys.prefix, sys.version, os.__file__]))"
    meant = [sys.prefix, sys.version, os.__file__]
    assert json.loads((await run_python(sandbox, question)).stdout) == meant
    python = f"{sys.prefix}/bin/python"
    assert json.loads((await run_process(sandbox, python, "-Ic", question)).stdout) == meant


async def test_the_engine_runs_in_the_mode_that_was_asked_for(engine: Engine, mode: Mode) -> None:
    assert engine.report.mode == mode.value


async def test_the_ids_in_a_sandbox_are_those_of_its_user(sandbox: Sandbox) -> None:
    code = "import os, pwd; print(os.getresuid(), os.getresgid(), pwd.getpwuid(os.getuid())[0])"
    expected = "(1000, 1000, 1000) (1000, 1000, 1000) user\n"
    assert (await run_python(sandbox, code)).stdout == expected


async def test_an_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    before = await take_steady_footprint(tmp_path)
    async with open_engine(tmp_path, pool_size=2) as engine:
        sandbox = await engine.create(SandboxSpec())
        await run_python(sandbox, "import subprocess; subprocess.Popen(['sleep', '60'])")
        during = take_footprint(tmp_path)
        assert len(during.processes) > len(before.processes)
    # Its templates, and the empty places where it mounts, are kept for the next start.
    places = (f"{tmp_path}/state", f"{tmp_path}/runtime/root")
    kept = {path for path in take_footprint(tmp_path).paths if path.startswith(places)}
    kept.add(f"{tmp_path}/runtime")
    await assert_nothing_left(replace(before, paths=frozenset(kept)), during, tmp_path)


async def test_a_killed_sandbox_leaves_nothing_behind(tmp_path: Path) -> None:
    async with open_engine(tmp_path, pool_size=0) as engine:
        # The first sandbox makes what all later ones share.
        await engine.kill((await engine.create(SandboxSpec())).id)
        before = await take_steady_footprint(tmp_path)
        sandbox = await engine.create(SandboxSpec(limits=Limits(processes=64)))
        code = (
            "import os, subprocess, mmap\n"
            "open('/tmp/large', 'wb').write(bytes(10_000_000))\n"
            "for _ in range(20):\n"
            "    subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" TERM INT; sleep 100'])\n"
        )
        await run_python(sandbox, code)
        await run_process(sandbox, "/bin/sh", "-c", "sleep 100 & echo")
        during = take_footprint(tmp_path)
        assert len(during.processes) >= len(before.processes) + 20
        await engine.kill(sandbox.id)
        await assert_nothing_left(before, during, tmp_path)


# --- tests/not-run.toml -----------------------------------------------------------------------


def test_every_entry_of_the_list_names_tests_that_exist() -> None:
    entries = read_not_run(TESTS / "not-run.toml").tests
    sources = {path: path.read_text() for path in TESTS.rglob("test_*.py")}
    ids = {
        f"{path.relative_to(TESTS.parent)}::{line.split('def ')[1].split('(')[0]}"
        for path, text in sources.items()
        for line in text.splitlines()
        if line.startswith(("def test_", "async def test_"))
    }
    for entry in entries:
        named = [name for name in ids if entry.covers(name) or entry.covers(f"{name}[x]")]
        by_parameter = entry.pattern.endswith(("in_sandbox_root*", "]"))
        assert named or by_parameter, entry.pattern


@pytest.mark.parametrize(
    "text",
    [
        "[[test]]\nid = 'x'\nwhen = 'root'\n",
        "[[test]]\nid = 'x'\nwhen = 'root'\nreason = ' '\n",
        "[[test]]\nid = 'x'\nwhen = 'rainy'\nreason = 'because'\n",
        "[[run]]\nid = 'x'\nwhen = 'root'\nreason = 'because'\n",
        "[[tset]]\nid = 'x'\nwhen = 'root'\nreason = 'because'\n",
    ],
)
def test_an_entry_without_a_reason_or_with_an_unknown_condition_is_refused(
    tmp_path: Path, text: str
) -> None:
    listing = tmp_path / "not-run.toml"
    listing.write_text(text)
    with pytest.raises(ValueError, match=r"not-run\.toml"):
        read_not_run(listing)


def test_a_pattern_means_itself_but_for_its_stars() -> None:
    entry = NotRun("tests/a.py::test_b[*x]", "root", "because")
    assert entry.covers("tests/a.py::test_b[1-x]")
    assert not entry.covers("tests/a.py::test_b[1-y]")
    assert not entry.covers("tests/a.py::test_b1")


def test_one_of_the_two_modes_holds() -> None:
    assert CONDITIONS["root"]() != CONDITIONS["rootless"]()


SKIPPING = """
import pytest
def test_that_skips_itself(): pytest.skip("I would rather not")
@pytest.mark.skip
def test_marked(): pass
@pytest.mark.xfail(reason="broken")
def test_expected_to_fail(): assert False
def test_in_sandbox_root(): pass
"""


def test_a_skip_that_is_not_listed_is_a_failure(tmp_path: Path) -> None:
    outcomes = run_suite(tmp_path, SKIPPING)
    assert (outcomes["failed"], outcomes["error"], outcomes["passed"]) == (2, 1, 1)


def test_a_file_that_skips_itself_is_an_error(tmp_path: Path) -> None:
    text = "import pytest\npytest.skip('all of it', allow_module_level=True)\n"
    assert run_suite(tmp_path, text)["error"] == 1


def test_a_listed_test_is_left_out_with_its_reason(tmp_path: Path) -> None:
    mode = current_mode()
    listing = f"[[test]]\nid = '*in_sandbox*'\nwhen = '{mode}'\nreason = 'it rains'\n"
    outcomes = run_suite(tmp_path, "def test_in_sandbox_root(): assert False\n", listing)
    assert outcomes["failed"] == 0
    assert outcomes["skipped"] == 1


def run_suite(tmp_path: Path, text: str, listing: str = "") -> dict[str, int]:
    """Run a file of tests under our conftest and a list, and count the outcomes."""
    tests = tmp_path / "tests"
    (tests / "support").mkdir(parents=True)
    for name in ("__init__.py", "conftest.py", "support/__init__.py", "support/modes.py"):
        shutil.copyfile(TESTS / name, tests / name)
    (tests / "not-run.toml").write_text(listing)
    (tests / "test_it.py").write_text(text)
    source = Path(headrace.__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=50
    )
    last = done.stdout.strip().splitlines()[-1]
    found = {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", last)}
    return {name: found.get(name, 0) for name in ("passed", "failed", "skipped", "error")}


# --- scripts/test -----------------------------------------------------------------------------


def test_both_modes_run_unless_one_is_named() -> None:
    assert parse([]) == ([Mode.ROOT, Mode.ROOTLESS], [])
    assert parse(["--mode", "rootless"]) == ([Mode.ROOTLESS], [])
    assert parse(["--mode", "root", "--", "-k", "x"]) == ([Mode.ROOT], ["-k", "x"])
    assert parse(["--", "tests/unit"]) == ([Mode.ROOT, Mode.ROOTLESS], ["tests/unit"])


@pytest.mark.parametrize("words", [["--mode"], ["--mode", "both"], ["-k", "x"], ["tests"]])
def test_what_scripts_test_does_not_know_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="usage"):
        parse(words)


def test_one_failed_run_fails_the_whole() -> None:
    assert judge([0, 0]) == 0
    assert judge([0, 1]) == 1
    assert judge([2, 0]) == 2
    assert judge([0, 5]) == 0
    assert judge([5, 5]) == 5
    assert judge([]) != 0
    assert describe(0) == "passed"
    assert "FAILED" in describe(1)


def test_paths_among_the_arguments_replace_the_usual_ones() -> None:
    suite = TESTS.parent
    assert names_paths(["-x", "tests/security"], suite)
    assert names_paths(["tests/integration/test_modes.py::test_x"], suite)
    assert not names_paths(["-k", "no_such_path"], suite)
