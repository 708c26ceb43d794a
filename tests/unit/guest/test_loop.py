"""Readiness and deadlines: what is called, and when nothing is."""

import os
import select
from collections.abc import Iterator
from functools import partial

import pytest

from headrace_guest.loop import Loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_ready_descriptor_calls_its_handler(pipe: tuple[int, int]) -> None:
    loop, called = Loop(), []
    loop.watch(pipe[0], select.EPOLLIN, lambda: called.append("readable"))
    os.write(pipe[1], b"x")
    loop.turn()
    assert called == ["readable"]


def test_a_descriptor_without_a_mask_is_silent_even_when_it_hangs_up() -> None:
    reading, writing = os.pipe()
    loop, called = Loop(), []
    loop.watch(reading, select.EPOLLIN, lambda: called.append("readable"))
    loop.watch(reading, 0, lambda: called.append("never"))
    os.close(writing)
    loop.after(0, "end", lambda: called.append("end"))
    loop.turn()
    os.close(reading)
    assert called == ["end"]


def test_a_number_that_is_used_again_has_its_new_handler_only() -> None:
    loop = Loop()
    called: list[str] = []
    for name in ("first", "second"):
        reading, writing = os.pipe()
        loop.watch(reading, select.EPOLLIN, partial(called.append, name))
        os.write(writing, b"x")
        loop.turn()
        loop.forget(reading)
        os.close(reading)
        os.close(writing)
    assert called == ["first", "second"]


def test_a_key_has_one_deadline_and_it_comes_once() -> None:
    loop, called = Loop(), []
    loop.after(100, "key", lambda: called.append("old"))
    loop.after(0, "key", lambda: called.append("new"))
    loop.turn()
    loop.after(0, "other", lambda: called.append("other"))
    loop.turn()
    assert called == ["new", "other"]


def test_a_deadline_that_was_put_off_by_another_one_does_not_come(
    pipe: tuple[int, int],
) -> None:
    loop, called = Loop(), []

    def put_off() -> None:
        called.append("first")
        loop.after(100, "second", lambda: called.append("second"))

    loop.after(0, "first", put_off)
    loop.after(0, "second", lambda: called.append("second"))
    loop.turn()
    loop.cancel("second")
    assert called == ["first"]
