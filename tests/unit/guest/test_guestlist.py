"""The launcher checks every argument of every verb."""

import os

import pytest

from headrace_guest.guestlist import Guests, RefusedError, read_limits, take_name

LIMITS = {
    "memory": 2**30,
    "disk": 2**20,
    "inodes": 1000,
    "processes": 64,
    "open_files": 256,
    "cpus": 1.5,
}


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", "a\0", 3, None, "x" * 65, "-a"])
def test_a_name_that_is_no_safe_directory_name_is_refused(name: object) -> None:
    with pytest.raises(RefusedError, match="is not a name"):
        take_name({"sandbox": name}, "sandbox")


@pytest.mark.parametrize("value", [None, True, -1, 0, "1", 2**60, 1.5])
def test_a_limit_that_makes_no_sense_is_refused_by_name(value: object) -> None:
    with pytest.raises(RefusedError, match="limit memory"):
        read_limits({**LIMITS, "memory": value})


@pytest.mark.parametrize("value", [0, -1, True, "1", None, 1e9, float("nan")])
def test_cpus_must_be_a_sensible_number(value: object) -> None:
    with pytest.raises(RefusedError, match="cpus"):
        read_limits({**LIMITS, "cpus": value})


def test_limits_are_read() -> None:
    assert read_limits(LIMITS).processes == 64
    assert read_limits(LIMITS).cpus == 1.5


def test_limits_that_are_no_object_are_refused() -> None:
    with pytest.raises(RefusedError, match="must be an object"):
        read_limits([1])


def test_a_taken_name_is_refused() -> None:
    guests = Guests()
    guests.add("a", read_limits(LIMITS))
    with pytest.raises(RefusedError, match="there is a sandbox a"):
        guests.add("a", read_limits(LIMITS))


def test_an_unknown_sandbox_is_refused() -> None:
    with pytest.raises(RefusedError, match="no sandbox b"):
        Guests().find("b")


def test_a_process_is_known_until_it_is_reaped() -> None:
    guests = Guests()
    guest = guests.add("a", read_limits(LIMITS))
    guests.own(guest, 123, os.open("/dev/null", os.O_RDONLY), None)
    guests.own(guest, 124, os.open("/dev/null", os.O_RDONLY), "k")
    assert len(guest.processes()) == 2
    assert guests.disown(124) == (guest, "k")
    assert guests.disown(124) is None
    assert guests.disown(123) == (guest, None)
    assert guest.processes() == []
