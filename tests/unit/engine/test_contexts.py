"""The contexts of a sandbox: who is default, who is found, what is bounded."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from headrace.engine.config import LanguageReport
from headrace.engine.context import ContextSettings
from headrace.engine.context_state import ContextState
from headrace.engine.contexts import Contexts, runnable
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import ContextNotFoundError, LanguageUnavailableError
from headrace.model.events import FinishReason
from headrace.model.ids import ContextId, sandbox_of
from headrace.model.specs import ContextSpec, ExecutionRequest, Language, SandboxSpec
from tests.support.fakes import REPORT, FakeLauncher, open_fake_engine


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with open_fake_engine(tmp_path) as (engine, _):
        yield await engine.create(SandboxSpec())


@pytest.fixture
async def polyglot(tmp_path: Path) -> AsyncIterator[tuple[Sandbox, FakeLauncher]]:
    """A sandbox on a machine that has bash, JavaScript and TypeScript, but no R."""
    found = {"path": "/usr/bin/x", "version": "99", "problem": None, "package": "x"}
    missing = {"path": None, "version": "", "problem": "there is no R", "package": "r-base-core"}
    languages = {"bash": found, "typescript": found, "javascript": found, "r": missing}
    launcher = FakeLauncher({**REPORT, "languages": languages})
    async with open_fake_engine(tmp_path, launcher) as (engine, _):
        sandbox = await engine.create(SandboxSpec())
        await sandbox.await_ready()
        yield sandbox, launcher


def languages_of(sandbox: Sandbox) -> list[str]:
    return [context.language.value for context in sandbox.contexts]


DEFAULTS = ["python", "javascript", "typescript", "bash"]


async def test_every_language_has_a_default_context_and_only_python_a_kernel(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, launcher = polyglot
    assert languages_of(sandbox) == DEFAULTS
    assert all(sandbox.is_default(context.id) for context in sandbox.contexts)
    states = [context.state for context in sandbox.contexts]
    assert states == [ContextState.IDLE, *[ContextState.UNSTARTED] * 3]
    assert launcher.kernel_starts == 1


async def test_an_unstarted_context_starts_with_its_first_execution(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, launcher = polyglot
    bash = sandbox.contexts[3]
    execution = await sandbox.execute(ExecutionRequest("out x", language=Language.BASH))
    finished = await execution.wait()
    assert (execution.context_id, finished.reason, finished.state_lost) == (bash.id, "ok", False)
    assert await sandbox.default_context(Language.BASH) is bash
    assert bash.state is ContextState.IDLE
    assert launcher.kernel_starts == 2


async def test_an_unstarted_context_can_be_restarted_interrupted_and_awaited(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, launcher = polyglot
    javascript, typescript = sandbox.contexts[1:3]
    assert not await javascript.interrupt()
    assert javascript.state is ContextState.UNSTARTED
    await javascript.restart()
    await typescript.await_ready()
    assert {javascript.state, typescript.state} == {ContextState.IDLE}
    assert launcher.kernel_starts == 3


async def test_an_unstarted_context_that_cannot_start_says_why(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, launcher = polyglot
    launcher.refusals["kernel"] = ("failed", "no more processes")
    execution = await sandbox.execute(ExecutionRequest("out x", language=Language.BASH))
    finished = await execution.wait()
    assert finished.reason is FinishReason.KERNEL_DIED
    assert "no more processes" in (finished.detail or "")
    assert sandbox.contexts[3].state is ContextState.DEAD


async def test_a_sandbox_with_unstarted_contexts_can_be_paused(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, launcher = polyglot
    sandbox.warm_up()
    await sandbox.pause()
    await sandbox.resume()
    assert languages_of(sandbox) == DEFAULTS
    assert launcher.kernel_starts == 1


async def test_new_contexts_are_listed_after_the_default_ones(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, _ = polyglot
    made = [
        await sandbox.create_context(ContextSpec(language))
        for language in (Language.BASH, Language.PYTHON)
    ]
    assert languages_of(sandbox) == [*DEFAULTS, "bash", "python"]
    assert sandbox.contexts[4:] == made
    assert not any(sandbox.is_default(context.id) for context in made)


async def test_a_removed_default_context_comes_back_in_its_place_when_it_is_needed(
    polyglot: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, _ = polyglot
    await sandbox.create_context(ContextSpec(Language.BASH))
    former = sandbox.contexts[1]
    await sandbox.remove_context(former.id)
    assert languages_of(sandbox) == ["python", "typescript", "bash", "bash"]
    execution = await sandbox.execute(ExecutionRequest("out x", language=Language.JAVASCRIPT))
    assert (await execution.wait()).reason is FinishReason.OK
    assert languages_of(sandbox) == [*DEFAULTS, "bash"]
    assert execution.context_id not in (None, former.id)


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
