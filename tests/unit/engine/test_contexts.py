"""The contexts of a sandbox: who is default, who is found, what is bounded."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from headrace.engine.config import LanguageReport
from headrace.engine.context import ContextSettings
from headrace.engine.contexts import Contexts, runnable
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import ContextNotFoundError, LanguageUnavailableError
from headrace.model.ids import ContextId, sandbox_of
from headrace.model.specs import ContextSpec, ExecutionRequest, Language, SandboxSpec
from tests.support.fakes import open_fake_engine


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with open_fake_engine(tmp_path) as (engine, _):
        yield await engine.create(SandboxSpec())


async def test_the_default_context_stays_the_same(sandbox: Sandbox) -> None:
    first = await sandbox.default_context(Language.PYTHON)
    assert await sandbox.default_context(Language.PYTHON) is first
    assert sandbox.contexts == [first]


async def test_code_that_names_no_context_runs_in_the_default_one(sandbox: Sandbox) -> None:
    other = await sandbox.create_context(ContextSpec())
    plain = await sandbox.execute(ExecutionRequest("out x"))
    named = await sandbox.execute(ExecutionRequest("out x", context_id=other.id))
    default = await sandbox.default_context(Language.PYTHON)
    assert (plain.context_id, named.context_id) == (default.id, other.id)


async def test_every_id_leads_to_its_sandbox(sandbox: Sandbox) -> None:
    context = await sandbox.default_context(Language.PYTHON)
    execution = await sandbox.execute(ExecutionRequest("out x"))
    assert sandbox_of(context.id) == sandbox_of(execution.id) == sandbox.id


async def test_a_context_is_found_by_its_id_only(sandbox: Sandbox) -> None:
    context = await sandbox.create_context(ContextSpec())
    assert sandbox.context(context.id) is context
    with pytest.raises(ContextNotFoundError, match="'python'"):
        sandbox.context(ContextId("python"))


async def test_each_missing_language_names_those_that_are_there(sandbox: Sandbox) -> None:
    for language in set(Language) - {Language.PYTHON}:
        with pytest.raises(LanguageUnavailableError, match="available: python"):
            await sandbox.default_context(language)


def test_a_missing_interpreter_is_named_with_its_package() -> None:
    reports = {
        "bash": LanguageReport("5.2", None, "bash"),
        "javascript": LanguageReport("18.0", "/usr/bin/node is version 18.0", "nodejs"),
    }
    languages = runnable(reports)
    assert languages == [Language.PYTHON, Language.BASH]
    starters = dict.fromkeys(languages, lambda: None)
    settings = ContextSettings(interrupt_grace=1.0, kernel_start_timeout=1.0)
    contexts = Contexts(starters, reports, settings, lambda: ContextId("c"), dict)  # type: ignore[arg-type]  # no kernel is started
    with pytest.raises(LanguageUnavailableError) as caught:
        contexts.check_language(Language.JAVASCRIPT)
    assert "version 18.0; on Debian, install the package nodejs" in caught.value.message
    assert "available: bash, python" in caught.value.message
    assert caught.value.details["package"] == "nodejs"
    contexts.check_language(Language.BASH)


async def test_removing_a_context_twice_at_once_is_fine(sandbox: Sandbox) -> None:
    context = await sandbox.create_context(ContextSpec())

    async def remove() -> None:
        await sandbox.remove_context(context.id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(remove)
        tasks.start_soon(remove)
    with pytest.raises(ContextNotFoundError):
        await remove()
