"""The store of logs: finding them, keeping them for a while, and leaving nothing behind."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.event_log import EventLog
from headrace.engine.log_store import LogStore, Retention
from headrace.model.errors import (
    AlreadyExistsError,
    ExecutionNotFoundError,
    UnavailableError,
    WrongStateError,
)
from headrace.model.events import ExecutionEvent, Stream
from headrace.model.records import EXECUTION_CODEC
from tests.support.logs import (
    PATIENCE,
    count_descriptors,
    make_finished,
    make_input,
    read_all,
    wait_until,
)

OUT = Stream.STDOUT
KEEP = Retention(seconds=60.0, bytes=100_000, logs=5, runtime_bytes=3000, tail_bytes=1200, tails=3)


class Clock:
    """Time that stands still until it is told to go on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[LogStore]:
    directories = tmp_path / "run", tmp_path / "state"
    async with LogStore(*directories, clock=clock, retention=KEEP) as store:
        yield store


def finish_one(store: LogStore, log_id: str, output: bytes = b"x") -> EventLog[ExecutionEvent]:
    log = store.create(log_id, EXECUTION_CODEC, max_output=1 << 20)
    log.write(OUT, output)
    log.finish(make_finished)
    return log


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_log_is_found_while_it_grows_and_after_its_end(store: LogStore) -> None:
    log = store.create("a-1", EXECUTION_CODEC, max_output=100)
    assert store.find("a-1") is log
    log.finish(make_finished)
    assert store.find("a-1") is log
    assert store.find("a-2") is None


async def test_an_id_is_used_once(store: LogStore) -> None:
    log = store.create("a", EXECUTION_CODEC, max_output=100)
    with pytest.raises(AlreadyExistsError, match="a log of a already"):
        store.create("a", EXECUTION_CODEC, max_output=100)
    assert store.find("a") is log


@pytest.mark.parametrize("log_id", ["", ".", "..", "a/b", "A", "-a", "a\0", "a\n", "ä", "a" * 101])
async def test_only_ids_of_ours_become_names_of_files(store: LogStore, log_id: str) -> None:
    with pytest.raises(ValueError, match="not an id of ours"):
        store.create(log_id, EXECUTION_CODEC, max_output=100)


async def test_a_log_is_kept_for_so_many_seconds_after_its_end(
    store: LogStore, clock: Clock, tmp_path: Path
) -> None:
    running = store.create("running", EXECUTION_CODEC, max_output=100)
    running.append(make_input)
    finish_one(store, "old")
    clock.now += 30
    finish_one(store, "young")
    await anyio.lowlevel.checkpoint()
    await store.expire(1059.0)
    assert names(tmp_path / "run") == ["old", "running", "young"]
    await store.expire(1060.0)
    assert names(tmp_path / "run") == ["running", "young"]
    assert store.find("old") is None
    await store.expire(1e10)
    assert names(tmp_path / "run") == ["running"]
    assert store.find("running") is running


async def test_the_oldest_logs_go_first_when_all_are_too_many_bytes(store: LogStore) -> None:
    for log_id in ("a", "b", "c"):
        finish_one(store, log_id, b"x" * 30_000)
    await store.expire(1000.0)
    assert [store.find(log_id) is None for log_id in "abc"] == [True, False, False]


async def test_the_oldest_logs_go_first_when_they_are_too_many(store: LogStore) -> None:
    for number in range(7):
        finish_one(store, str(number))
    await store.expire(1000.0)
    assert [store.find(str(number)) is None for number in range(7)] == [True] * 2 + [False] * 5


async def test_an_expired_log_tells_its_reader(store: LogStore) -> None:
    log = finish_one(store, "a")
    reader = log.read()
    await store.expire(1e10)
    with pytest.raises(ExecutionNotFoundError, match="the log of a is past its retention"):
        await anext(reader)


@pytest.mark.parametrize(("size", "kept"), [(1, 3), (400, 2), (2000, 0)])
async def test_finished_logs_leave_the_memory_in_their_order(
    store: LogStore, size: int, kept: int
) -> None:
    logs = [finish_one(store, str(number), b"x" * size) for number in range(5)]
    assert [log.index.tail_bytes > 0 for log in logs] == [False] * (5 - kept) + [True] * kept
    assert [len(await read_all(log)) for log in logs] == [2] * 5


async def test_finished_logs_make_room_in_the_runtime_directory(
    store: LogStore, tmp_path: Path
) -> None:
    logs = [finish_one(store, str(number), b"x" * 1000) for number in range(4)]
    await store.expire(1000.0)
    await wait_until(lambda: sum(log.files.held for log in logs) <= 3000)
    assert names(tmp_path / "state") == ["0", "1"]
    assert names(tmp_path / "state" / "0") == ["index", "records", "stdout"]
    assert names(tmp_path / "run" / "0") == []
    assert [len(await read_all(log)) for log in logs] == [2] * 4


async def test_closing_leaves_no_file_no_descriptor_and_no_lock(tmp_path: Path) -> None:
    before = count_descriptors()
    for _ in range(2):
        async with LogStore(tmp_path / "run", tmp_path / "state", spill_at=8) as store:
            finish_one(store, "finished", b"x" * 1000)
            running = store.create("running", EXECUTION_CODEC, max_output=100_000)
            running.write(OUT, b"x" * 10_000)
            await wait_until(lambda: (tmp_path / "state" / "running").exists())
        assert count_descriptors() == before
        assert names(tmp_path / "run") == names(tmp_path / "state") == []
        await store.aclose()


async def test_closing_wakes_readers_of_logs_without_an_end(store: LogStore) -> None:
    log = store.create("a", EXECUTION_CODEC, max_output=100)
    refused = []

    async def follow() -> None:
        with pytest.raises(UnavailableError, match="closed before it was finished"):
            await anext(log.read())
        refused.append(True)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.lowlevel.checkpoint()
            await store.aclose()
    assert refused == [True]
    with pytest.raises(WrongStateError):
        log.append(make_input)


async def test_a_closed_store_makes_no_logs(store: LogStore) -> None:
    await store.aclose()
    with pytest.raises(UnavailableError):
        store.create("a", EXECUTION_CODEC, max_output=100)


async def test_two_stores_cannot_share_a_directory(store: LogStore, tmp_path: Path) -> None:
    log = store.create("a", EXECUTION_CODEC, max_output=100)
    log.append(make_input)
    with pytest.raises(WrongStateError, match="in use by another log store"):
        async with LogStore(tmp_path / "other", tmp_path / "state"):
            pytest.fail("the store was opened")
    assert names(tmp_path / "run") == ["a"]
