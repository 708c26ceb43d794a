"""What runs the tests of vendors cannot say that one passed which has not."""

import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import vendor
from tests.support.modes import NODE_NEEDED, find_node
from tests.support.vendor import VendorUnavailableError, provide
from tests.support.vendor_cases import Case, covered, find_cases
from tests.support.vendor_runs import Job, Outcome, Run, start_node, start_python

pytestmark = [pytest.mark.compat]

PYTHON_TESTS = """
import os, pytest, time

# covers: files.read,
#   files.write
def test_good(): pass

def test_bad():
    print("said before")
    assert 1 == 2

@pytest.mark.parametrize("n", [1, 2, 3])
def test_good_at_first(n): assert n < 3

def test_that_skips_itself(): pytest.skip("no")

@pytest.fixture
def broken():
    yield
    raise ValueError("teardown")

def test_with_a_bad_end(broken): pass

# covers: files.read
async def test_that_ends_its_process(): os._exit(0)

def test_never_reached(): pass
"""
NODE_TESTS = """
import assert from 'node:assert/strict'
import test from 'node:test'

// covers: Sandbox.create
test('good', () => {})
test('bad (1)', () => {
  console.log('said before')
  assert.equal(1, 2)
})
test('that skips itself', { skip: true }, () => {})
test('with a bad part', async (t) => {
  await t.test('part', () => assert.fail('in part'))
})
test('that throws later', () => {
  setTimeout(() => { throw new Error('late') }, 1)
  return new Promise((resolve) => setTimeout(resolve, 50))
})
"""


def outcomes(run: Run, cases: Sequence[Case]) -> dict[str, Outcome]:
    try:
        return {case.name: run.outcome(case) for case in cases}
    finally:
        run.stop()


def job_for(tmp_path: Path, name: str, text: str) -> Job:
    source = tmp_path / "sources" / "face"
    source.mkdir(parents=True)
    (source / name).write_text(text)
    directory = tmp_path / "run"
    directory.mkdir()
    return Job(find_cases([source]), directory, {}, 30.0)


def test_only_a_python_test_that_passed_has_passed(tmp_path: Path) -> None:
    job = job_for(tmp_path, "test_all.py", PYTHON_TESTS)

    found = outcomes(start_python(Path(sys.executable), job), job.cases)

    assert [name for name, outcome in found.items() if outcome.passed] == ["test_good"]
    assert "said before" in found["test_bad"].text
    assert "assert 3 < 3" in found["test_good_at_first"].text
    assert "teardown" in found["test_with_a_bad_end"].text
    assert "ended without this test" in found["test_that_ends_its_process"].text
    assert "ended without this test" in found["test_never_reached"].text


def test_only_a_javascript_test_that_passed_has_passed(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None
    job = job_for(tmp_path, "all.test.mjs", NODE_TESTS)

    found = outcomes(start_node(Path(node), tmp_path, job), job.cases)

    assert [name for name, outcome in found.items() if outcome.passed] == ["good"]
    assert "said before" in found["bad (1)"].text
    assert "late" in found["that throws later"].text


def test_a_run_that_hangs_is_over_at_its_deadline(tmp_path: Path) -> None:
    text = "import time\ndef test_slow(): time.sleep(300)\n"
    job = job_for(tmp_path, "test_slow.py", text)
    short = Job(job.cases, job.directory, {}, 0.5)
    run = start_python(Path(sys.executable), short)

    found = outcomes(run, job.cases)

    assert not found["test_slow"].passed
    assert "did not come to this test" in found["test_slow"].text
    assert run.process.poll() is not None


def test_a_file_tells_what_its_tests_cover(tmp_path: Path) -> None:
    python = job_for(tmp_path / "python", "test_all.py", PYTHON_TESTS).cases
    node = job_for(tmp_path / "node", "all.test.mjs", NODE_TESTS).cases

    assert str(python[0]) == "all::test_good"
    assert len(python) == 7
    assert len(node) == 5
    by_method = covered([*python, *node])
    assert {name: len(cases) for name, cases in by_method.items()} == {
        "files.read": 2,
        "files.write": 1,
        "Sandbox.create": 1,
    }


# --- environments -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Imagined:
    """An environment that counts how often it is built."""

    name: str = "imagined"
    requirements: tuple[str, ...] = ("one",)
    basis: str = "none"
    built: list[Path] = field(default_factory=list)
    fails: bool = False

    def build(self, place: Path) -> None:
        self.built.append(place)
        (place / "part").touch()
        if self.fails:
            raise VendorUnavailableError("no network")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vendor, "CHECKOUT", tmp_path)
    monkeypatch.delenv(vendor.CACHE_VARIABLE, raising=False)
    return tmp_path


def test_two_builders_build_once(checkout: Path) -> None:
    imagined = Imagined()
    threads = [threading.Thread(target=provide, args=(imagined,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert provide(imagined) == imagined.built[0]
    assert len(imagined.built) == 1
    assert imagined.built[0].is_relative_to(checkout / ".cache" / "compat")


def test_other_requirements_are_another_environment() -> None:
    first = provide(Imagined())
    second = provide(Imagined(requirements=("two",)))

    assert first != second
    assert not first.exists()


def test_what_was_not_built_whole_is_built_again() -> None:
    with pytest.raises(VendorUnavailableError):
        provide(Imagined(fails=True))

    again = Imagined()
    place = provide(again)

    assert again.built == [place]


def test_an_installer_that_fails_says_why() -> None:
    with pytest.raises(VendorUnavailableError, match="no-such-distribution-of-anybody"):
        provide(vendor.PythonEnvironment("none", ("./no-such-distribution-of-anybody",)))


def test_a_machine_without_npm_has_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    # The answer that is kept is that of the whole run.
    assert find_node.__wrapped__() == ()
    assert NODE_NEEDED > ()
