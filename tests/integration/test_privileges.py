"""Giving root up for real: each check runs in a forked child of a test run by root."""

import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli.results import ResultsFolder
from headrace.engine import privileges
from headrace.engine.privileges import ServiceIds
from headrace.model.errors import IsolationError
from headrace.model.results import Result
from headrace_guest import linux

pytestmark = pytest.mark.sandbox

PR_GET_DUMPABLE = 3
SERVICE = ServiceIds(1_999_900_000, 1_999_900_000)


def in_child(check: Callable[[], None]) -> None:
    """Run ``check`` in a forked child and fail with its traceback if it raises."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        report = ""
        try:
            check()
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            report = traceback.format_exc()
        os.write(write_end, report.encode()[-4000:])
        os._exit(1 if report else 0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        report = pipe.read().decode()
    _pid, status = os.waitpid(pid, 0)
    assert (report, os.waitstatus_to_exitcode(status)) == ("", 0)


def test_after_dropping_there_is_no_way_back() -> None:
    def check() -> None:
        privileges.drop(SERVICE, privileges.needed_paths())
        assert os.getresuid() == (SERVICE.uid,) * 3
        assert os.getgroups() == []
        with pytest.raises(PermissionError):
            os.setuid(0)
        with pytest.raises(PermissionError):
            os.setgroups([0])
        with pytest.raises(PermissionError):
            os.chroot("/")
        assert linux.prctl(PR_GET_DUMPABLE) == 0
        with pytest.raises(PermissionError):
            Path("/etc/shadow").read_text()

    in_child(check)


def test_files_made_after_dropping_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    place = tmp_path / "state"
    privileges.prepare_directory(place, SERVICE)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)

    def check() -> None:
        privileges.drop(SERVICE, [])
        made = os.open("secret", os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=fd)
        assert os.fstat(made).st_mode & 0o777 == 0o600
        assert os.fstat(made).st_uid == SERVICE.uid

    in_child(check)
    os.close(fd)


def test_a_directory_below_a_closed_one_is_reached_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    needed = home / "app" / "venv"
    needed.mkdir(parents=True)
    (needed / "module.py").write_text("answer = 42")
    (home / "diary").write_text("secret")
    home.chmod(0o700)

    def check() -> None:
        privileges.drop(SERVICE, [*privileges.needed_paths(), needed])
        assert (needed / "module.py").read_text() == "answer = 42"
        assert [path.name for path in home.iterdir()] == ["app"]
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            (home / "new").write_text("x")

    in_child(check)
    assert (home / "diary").read_text() == "secret"
    assert sorted(path.name for path in home.iterdir()) == ["app", "diary"]


def test_a_linked_directory_below_a_closed_one_is_reached_by_both_names(tmp_path: Path) -> None:
    home = tmp_path / "home"
    real = home / "real"
    real.mkdir(parents=True)
    (real / "file").write_text("here")
    link = home / "link"
    link.symlink_to("real")
    home.chmod(0o700)

    def check() -> None:
        privileges.drop(SERVICE, [link])
        assert (link / "file").read_text() == "here"
        assert (real / "file").read_text() == "here"

    in_child(check)


def test_a_second_thread_stops_the_drop_before_anything_changed() -> None:
    def check() -> None:
        done = threading.Event()
        thread = threading.Thread(target=done.wait, daemon=True)
        thread.start()
        with pytest.raises(IsolationError, match="found 2"):
            privileges.drop(SERVICE, [])
        assert os.getuid() == 0
        done.set()

    in_child(check)


def test_a_directory_of_the_service_is_private_to_it(tmp_path: Path) -> None:
    place = tmp_path / "run" / "headrace"

    privileges.prepare_directory(place, SERVICE)
    privileges.prepare_directory(place, SERVICE)

    found = place.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (SERVICE.uid, SERVICE.gid, 0o700)


def test_a_directory_with_files_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root")

    with pytest.raises(IsolationError, match="holds files of uid 0"):
        privileges.prepare_directory(tmp_path, SERVICE)

    assert tmp_path.stat().st_uid == 0


def read_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in lines)}


async def test_the_writer_of_results_can_write_files_and_nothing_else(tmp_path: Path) -> None:
    with ResultsFolder(str(tmp_path)) as folder:
        await folder.save(Result({"text/html": "<b>"}))
        status = read_status(folder.pid)

    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 1 << linux.CAP_DAC_OVERRIDE
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
