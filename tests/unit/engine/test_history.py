"""The history of a sandbox says what happened to it, and nothing of what it did inside."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.engine.engine import Engine
from headrace.engine.history import KEPT_ENTRIES, History, name_program
from headrace.engine.sandbox import Sandbox
from headrace.model.life import HistoryEntry, Level
from headrace.model.specs import Limits, ProcessRequest, SandboxSpec
from tests.support.fakes import FakeClock, open_fake_engine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine on a fake launcher."""
    async with open_fake_engine(tmp_path, clock=FakeClock(100.0)) as (engine, _):
        yield engine


async def make(engine: Engine) -> Sandbox:
    return await engine.create(SandboxSpec(limits=Limits(lifetime=60), env={"SECRET": "hidden"}))


def messages(sandbox: Sandbox) -> list[str]:
    return [entry.message for entry in sandbox.history.list()]


def test_an_entry_has_its_time_and_its_fields_as_text() -> None:
    history = History(lambda: 7.5)

    history.note("process started", {"pid": 3})

    assert history.list() == [HistoryEntry(7.5, Level.INFO, "process started", {"pid": "3"})]


def test_the_oldest_entries_go_and_long_values_are_cut() -> None:
    history = History(lambda: 0.0)

    for number in range(KEPT_ENTRIES + 1):
        history.note(f"entry {number}", {"value": "x" * 1000})

    assert len(history.list()) == KEPT_ENTRIES
    assert history.list()[0].message == "entry 1"
    assert history.list()[0].fields == {"value": "x" * 128}


@pytest.mark.parametrize(
    ("argv", "name"),
    [(("/bin/bash", "-c", "secret"), "bash"), (("echo",), "echo"), (("/",), "/"), (("",), "")],
)
def test_of_a_command_only_its_program_is_named(argv: tuple[str, ...], name: str) -> None:
    assert name_program(argv) == name


async def test_pauses_and_timeouts_are_noted(engine: Engine) -> None:
    sandbox = await make(engine)

    await sandbox.pause()
    await sandbox.resume()
    await sandbox.set_timeout(30)
    await sandbox.extend(10)
    await sandbox.extend(90)

    assert [(entry.message, dict(entry.fields)) for entry in sandbox.history.list()] == [
        ("sandbox created", {"template": "code-interpreter", "timeout": "60"}),
        ("sandbox paused", {}),
        ("sandbox resumed", {}),
        ("timeout set", {"seconds": "30"}),
        ("timeout extended", {"seconds": "90"}),
    ]


async def test_commands_are_noted_without_arguments_output_and_environment(engine: Engine) -> None:
    sandbox = await make(engine)

    process = await sandbox.start_process(ProcessRequest(("echo", "hidden"), env={"A": "hidden"}))
    await process.wait()
    other = await sandbox.start_process(ProcessRequest(("exit", "3")))
    await other.wait()

    assert messages(sandbox)[1:] == ["process started", "process ended"] * 2
    started, ended = sandbox.history.list()[1:3]
    assert started.fields == {"pid": str(process.pid), "program": "echo", "user": "user"}
    assert ended.fields == {"pid": str(process.pid), "reason": "ok", "exit_code": "0"}
    assert sandbox.history.list()[-1].fields["exit_code"] == "3"
    assert "hidden" not in repr(sandbox.history.list())


async def test_the_life_in_the_pool_is_nobodys_history(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        sandbox = await make(engine)
        await sandbox.pause()

        sandbox.adopt(sandbox.spec)

        assert messages(sandbox) == ["sandbox created"]
