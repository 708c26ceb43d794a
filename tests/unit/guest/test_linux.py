"""The thin calls do what they name, and say what was refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace_guest import linux


def in_child(action: Callable[[], str]) -> str:
    """Run something in a forked child, which it may change for good; gives what it returned."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, action().encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(write, f"failed: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


def test_a_refused_call_names_itself_and_its_arguments() -> None:
    # An ordinary user is refused before the path is looked up.
    with pytest.raises(OSError, match="open_tree /no/such/place"):
        linux.open_tree("/no/such/place", is_recursive=False)
    with pytest.raises(OSError, match="mount none on /no/such/place"):
        linux.mount("none", "/no/such/place", "tmpfs")
    with pytest.raises(OSError, match="setns 0x20000"):
        linux.setns(-1, linux.CLONE_NEWNS)


def test_the_command_line_and_environment_that_others_see_are_replaced() -> None:
    def rename() -> str:
        linux.set_command_line("agent")
        shown = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0")
        environment = Path("/proc/self/environ").read_bytes().strip(b"\0")
        name = Path("/proc/self/comm").read_text().strip()
        return f"{shown!r} {environment!r} {name}"

    assert in_child(rename) == "b'agent' b'' agent"


def test_a_range_of_descriptors_is_closed() -> None:
    def close() -> str:
        first = os.dup(0)
        second = os.dup(0)
        result = os.pipe()
        linux.close_range(first, second)
        open_ones = [fd for fd in (first, second, *result) if Path(f"/proc/self/fd/{fd}").exists()]
        return str(len(open_ones))

    assert in_child(close) == "2"


def test_capabilities_that_are_given_up_are_gone() -> None:
    def drop() -> str:
        if os.geteuid() == 0:
            linux.limit_bounding_set()
        linux.set_capabilities((), ())
        lines = Path("/proc/self/status").read_text().splitlines()
        return " ".join(
            line.split()[1].lstrip("0") or "none"
            for line in lines
            if line.startswith(("CapPrm", "CapEff"))
        )

    assert in_child(drop) == "none none"


def test_an_ordinary_user_cannot_touch_the_bounding_set() -> None:
    def drop() -> str:
        if os.geteuid() == 0:
            os.setresuid(12345, 12345, 12345)
        linux.limit_bounding_set()
        return "dropped"

    assert "prctl PR_CAPBSET_DROP" in in_child(drop)


def test_a_refused_write_is_seen() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        linux.write_file("/proc/self/oom_score_adj", "5000")
