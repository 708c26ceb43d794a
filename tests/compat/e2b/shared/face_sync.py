"""What the sync programs use where the two faces of the SDK are called in different ways."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from e2b_code_interpreter import PtySize, Sandbox

PATIENCE = 20.0
"""Seconds for what should happen at once, on a machine that is busy."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A fresh sandbox, killed after the test."""
    sandbox = Sandbox.create()
    try:
        yield sandbox
    finally:
        sandbox.kill()


@pytest.fixture
def stranger() -> dict[str, Any]:
    """The options of a client with the key of another tenant."""
    return {"api_key": os.environ["HEADRACE_TEST_OTHER_KEY"]}


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def all_of(*actions: Callable[[], Any]) -> list[Any]:
    """Do all at the same time, and give the results in order."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]


class Started:
    """Something that goes on in the background."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._action = action
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._future.set_result(self._action())
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits
            self._future.set_exception(error)

    def error(self) -> BaseException | None:
        """Wait for its end and give the exception, if there was one."""
        return self._future.exception(PATIENCE)

    def result(self) -> Any:
        """Wait for its end and give the result."""
        return self._future.result(PATIENCE)


def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


class Watching:
    """The events of a directory so far; the sync face asks for new ones."""

    def __init__(self, handle: Any) -> None:
        self.events: list[Any] = []
        self._handle = handle

    def until(self, condition: Callable[[list[Any]], Any]) -> list[Any]:
        """Wait until the events are as wanted, and give them."""

        def ask() -> Any:
            self.events += self._handle.get_new_events()
            return condition(self.events)

        try:
            until(ask)
        except TimeoutError:
            pytest.fail(f"the events were only {self.events}")
        return self.events


@contextmanager
def watching(sandbox: Sandbox, path: str, **options: Any) -> Iterator[Watching]:
    """Watch a directory."""
    handle = sandbox.files.watch_dir(path, **options)
    try:
        yield Watching(handle)
    finally:
        handle.stop()


class Terminal:
    """A terminal, with all that it showed; the sync face wants a thread that waits."""

    def __init__(self, handle: Any) -> None:
        self.shown = b""
        self.handle = handle
        self._end = Started(lambda: handle.wait(on_pty=self.show))

    def show(self, data: bytes) -> None:
        """Take what the terminal shows."""
        self.shown += data

    @property
    def pid(self) -> int:
        """The process id of its shell."""
        return self.handle.pid

    def until(self, wanted: bytes) -> bytes:
        """Wait until it has shown this, and give all that it showed."""
        try:
            until(lambda: wanted in self.shown)
        except TimeoutError:
            pytest.fail(f"the terminal showed only {self.shown!r}")
        return self.shown

    def end(self) -> Any:
        """Wait for the end of its shell."""
        return self._end.result()


def open_terminal(sandbox: Sandbox, rows: int = 24, cols: int = 80, **options: Any) -> Terminal:
    """Open a terminal."""
    return Terminal(sandbox.pty.create(PtySize(rows=rows, cols=cols), **options))


def connect_terminal(sandbox: Sandbox, pid: int) -> Terminal:
    """Look at a terminal that is open."""
    return Terminal(sandbox.pty.connect(pid))
