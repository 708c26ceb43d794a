"""What the engine remembers of sandboxes."""

from dataclasses import replace

from headrace.engine.store import RecentSandboxes, SandboxRecord
from headrace.model.ids import SandboxId

RECORD = SandboxRecord(SandboxId("a" * 26), "code-interpreter", {}, created_at=1.0)


def test_the_newest_record_of_a_sandbox_is_found() -> None:
    store = RecentSandboxes()
    store.save(RECORD)
    store.save(replace(RECORD, ended_at=2.0, end_detail="it was killed"))
    found = store.find(RECORD.sandbox_id)
    assert found is not None
    assert found.end_detail == "it was killed"


def test_of_a_sandbox_that_ended_no_metadata_is_kept() -> None:
    store = RecentSandboxes()
    store.save(replace(RECORD, metadata={"a": "b"}))
    alive = store.find(RECORD.sandbox_id)
    assert alive is not None
    assert alive.metadata == {"a": "b"}
    store.save(replace(RECORD, metadata={"a": "b"}, ended_at=2.0))
    ended = store.find(RECORD.sandbox_id)
    assert ended is not None
    assert ended.metadata == {}


def test_an_unknown_sandbox_is_not_found() -> None:
    assert RecentSandboxes().find(SandboxId("b" * 26)) is None


def test_the_oldest_records_go_first() -> None:
    store = RecentSandboxes(maximum=2)
    names = [SandboxId(letter * 26) for letter in "abc"]
    for name in names:
        store.save(replace(RECORD, sandbox_id=name))
    assert [store.find(name) is not None for name in names] == [False, True, True]
