"""The files of one log: its journals, and when their bytes move from memory to the disk.

What a log has in the runtime directory above its bound is moved by a worker thread to the state
directory. So a slow or full disk delays nobody until the log's own staging room is used up; then
its output waits, for a bounded time, and is dropped after that.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from headrace.engine.journal import Disk, Journal, Move, Moved
from headrace.model.errors import WrongStateError
from headrace.model.specs import MIB

T = TypeVar("T")
Run = Callable[[Callable[[], T]], "asyncio.Future[T]"]
"""Runs a blocking function in a worker thread; given by the log store."""

LOG_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
"""The ids that a log may have; they become names of directories."""

_SETTLE = 5.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BUGS = (errno.EBADF, errno.EINVAL)


@dataclass(frozen=True)
class Bounds:
    """What one log may use, in bytes, events and seconds.

    ``spill_at`` is what a log keeps in the runtime directory and ``staging`` what may wait there
    on top for the disk. ``tail_events`` and ``tail_bytes`` bound the newest events in memory.
    ``patience`` is how long output waits for a full disk before it is dropped, ``retry`` how
    often the disk is tried meanwhile. ``unwritten`` bounds the records that wait in memory.
    ``output`` is what the log keeps of all streams and ``records`` of everything else, which
    includes an index entry for each event.
    """

    output: int = 1024 * MIB
    records: int = 64 * MIB
    spill_at: int = 4 * MIB
    staging: int = 4 * MIB
    tail_events: int = 256
    tail_bytes: int = 1 * MIB
    patience: float = 10.0
    retry: float = 0.25
    unwritten: int = 32 * MIB

    @property
    def segment(self) -> int:
        """The size at which a segment is finished; five unfinished ones stay below spill_at."""
        return max(1, self.spill_at // 8)


class LogFiles:
    """The journals of one log and the moving of their bytes to the disk.

    Belongs to the event loop; only the copying runs in a worker thread, one job at a time.
    """

    def __init__(
        self, runtime: Path, state: Path, bounds: Bounds, disk: Disk, run: Run[Moved]
    ) -> None:
        self.is_deleted = False
        self._runtime = str(runtime)
        self._state = str(state)
        self._bounds = bounds
        self._disk = disk
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._journals: dict[str, Journal] = {}
        self._move: asyncio.Future[Moved] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Handle | None = None
        self._stalled_since: float | None = None
        self._error: OSError | None = None
        self._waiting: list[Callable[[], None]] = []
        self._is_closed = False
        self._is_abandoned = False

    def journal(self, name: str) -> Journal:
        """Give the journal of that name; its files are made when the first byte comes."""
        journal = self._journals.get(name)
        if journal is None:
            journal = Journal(self._runtime, self._state, name, self._bounds.segment, self._disk)
            self._journals[name] = journal
        return journal

    @property
    def held(self) -> int:
        """The bytes that are in the runtime directory or in memory."""
        return sum(journal.end - journal.moved for journal in self._journals.values())

    @property
    def size(self) -> int:
        """About what the log takes up: its bytes and a page per journal."""
        return sum(journal.end + 4096 for journal in self._journals.values())

    @property
    def unwritten(self) -> int:
        """The bytes that are in memory only."""
        return sum(journal.unwritten for journal in self._journals.values())

    @property
    def has_room(self) -> bool:
        """Say whether more may be put into the runtime directory."""
        return self.held < self._bounds.spill_at + self._bounds.staging

    @property
    def reason(self) -> str:
        """Say in a few words why there is no room."""
        if self._error is None:
            return "log disk too slow"
        return "log disk full" if self._error.errno in _FULL else "log disk failed"

    def flush(self, journal: Journal) -> None:
        """Write a journal's pending bytes; if there is no room they stay in memory for now."""
        if self._is_abandoned:
            return
        try:
            journal.flush()
        except OSError as error:
            self._fail(error)

    def flush_soon(self) -> None:
        """Write all pending bytes at the end of this turn of the loop, all at once."""
        if self._flushing is None and not self._is_abandoned:
            self._flushing = self._loop.call_soon(self._end_turn)

    def flush_all(self) -> None:
        """Write all pending bytes now."""
        for journal in self._journals.values():
            self.flush(journal)
            if self._is_closed:
                journal.seal()

    def balance(self) -> None:
        """Begin to move bytes to the disk if there are too many in the runtime directory."""
        if self._move is None and self._timer is None and self.held > self._bounds.spill_at:
            self.flush_all()
            for journal in self._journals.values():
                journal.seal(only_full=True)
            self._start_move()

    def stall(self, error: OSError | None) -> bool:
        """Note that output found no room; says whether this has lasted too long.

        Makes room by moving everything to the disk, which is tried again and again. Raises an
        error that no disk is to blame for.
        """
        if error is not None:
            self._fail(error)
        now = self._loop.time()
        if self._stalled_since is None:
            self._stalled_since = now
            self._move_all()
        self._arm()
        return now - self._stalled_since >= self._bounds.patience

    def relieved(self) -> None:
        """Note that output found room."""
        if self._stalled_since is not None:
            self._stalled_since = None
            self._error = None

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once, when it is worth trying again."""
        self._waiting.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call back after all."""
        if callback in self._waiting:
            self._waiting.remove(callback)

    def move_all(self) -> None:
        """Begin to move everything to the disk, for the sake of the others."""
        if self._timer is None:
            self._move_all()

    def close_soon(self) -> None:
        """Write everything out and close the files, in a moment; reading goes on."""
        self._is_closed = True
        self.flush_soon()
        self._release_waiting()

    def abandon(self) -> None:
        """Close the files as they are; nothing will be written any more."""
        self._is_abandoned = True
        for handle in (self._timer, self._flushing):
            if handle is not None:
                handle.cancel()
        for journal in self._journals.values():
            journal.seal()
        self._release_waiting()

    async def settle(self) -> None:
        """Wait until no worker is busy with these files, but not for ever if a disk hangs."""
        if self._move is not None:
            await asyncio.wait([self._move], timeout=_SETTLE)

    def delete(self) -> None:
        """Delete the files; blocks, so call it in a thread, after `abandon` and `settle`."""
        self.is_deleted = True
        for path in (self._runtime, self._state):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)

    def _end_turn(self) -> None:
        self._flushing = None
        self.flush_all()
        self.balance()

    def _move_all(self) -> None:
        if self._move is None:
            self.flush_all()
            for journal in self._journals.values():
                journal.seal()
            self._start_move()

    def _start_move(self) -> None:
        work = [journal for journal in self._journals.values() if journal.sealed]
        if work and self._move is None and not self._is_abandoned:
            moves = [Move(journal.target, tuple(journal.sealed)) for journal in work]
            self._move = self._run(partial(self._disk.copy, moves))
            self._move.add_done_callback(partial(self._finish_move, work))

    def _finish_move(self, work: Sequence[Journal], future: "asyncio.Future[Moved]") -> None:
        self._move = None
        if future.cancelled():
            return
        moved = future.result()
        for journal, count in zip(work, moved.counts, strict=True):
            journal.release(count)
        if any(moved.counts):
            self.relieved()
            self._release_waiting()
        if moved.error is None:
            self._error = None
            self.balance()
        else:
            self._fail(moved.error)

    def _fail(self, error: OSError) -> None:
        if error.errno in _BUGS:
            raise error
        self._error = error
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and not self._is_abandoned:
            self._timer = self._loop.call_later(self._bounds.retry, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self.flush_all()
        if self._stalled_since is None:
            self._start_move()
        else:
            self._move_all()
        self._release_waiting()

    def _release_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


class LogDirectories:
    """The two directories in which logs have theirs; one owner at a time."""

    def __init__(self, runtime: Path, state: Path) -> None:
        self.runtime = runtime
        self.state = state
        self._locks: list[int] = []

    def open(self) -> None:
        """Make the directories, lock them and delete what an earlier owner left; blocks.

        Raises WrongStateError if another store uses one of them.
        """
        try:
            for directory in (self.runtime, self.state):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock(directory)
            for directory in (self.runtime, self.state):
                for entry in directory.iterdir():
                    if LOG_ID.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the directories."""
        while self._locks:
            os.close(self._locks.pop())

    def _lock(self, directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._locks.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WrongStateError(
                f"{directory} is in use by another log store", path=str(directory)
            ) from error
