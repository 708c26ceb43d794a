"""On a machine without node, R and Java, their languages are refused; everything else works."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import LanguageUnavailableError
from headrace.model.events import FinishReason
from headrace.model.specs import ContextSpec, ExecutionRequest, Language, SandboxSpec
from tests.support.machine_view import machine_without
from tests.support.requests import ask
from tests.support.running import open_engine
from tests.support.serving import open_server

pytestmark = pytest.mark.sandbox

MISSING = [
    (Language.JAVASCRIPT, "node", "nodejs"),
    (Language.TYPESCRIPT, "node", "nodejs"),
    (Language.R, "R", "r-base-core"),
    (Language.JAVA, "java", "default-jdk-headless"),
]


@pytest.fixture(scope="module")
async def poor_engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine whose launcher sees a machine with Python and bash only."""
    directory = tmp_path_factory.mktemp("poor")
    with machine_without(["node", "R", "java"], directory):
        async with open_engine(directory, pool_size=0) as engine:
            yield engine


@pytest.fixture
async def sandbox(poor_engine: Engine) -> AsyncIterator[Sandbox]:
    sandbox = await poor_engine.create(SandboxSpec())
    try:
        yield sandbox
    finally:
        await poor_engine.kill(sandbox.id)


@pytest.mark.parametrize(("language", "program", "package"), MISSING)
async def test_a_missing_language_is_refused_with_the_name_of_its_package(
    sandbox: Sandbox, language: Language, program: str, package: str
) -> None:
    wanted = f"there is no {program} in /usr/bin.*on Debian, install the package {package};"
    with pytest.raises(LanguageUnavailableError, match=wanted) as caught:
        await sandbox.execute(ExecutionRequest("1", language=language))
    assert caught.value.details["package"] == package
    with pytest.raises(LanguageUnavailableError, match=wanted):
        await sandbox.create_context(ContextSpec(language))
    with pytest.raises(LanguageUnavailableError, match=wanted):
        await sandbox.default_context(language)


async def test_no_context_of_a_missing_language_is_listed(sandbox: Sandbox) -> None:
    languages = [context.language for context in sandbox.contexts]
    assert languages == [Language.PYTHON, Language.BASH]


@pytest.mark.parametrize(
    ("language", "code"), [(Language.PYTHON, "print(6 * 7)"), (Language.BASH, "echo $((6 * 7))")]
)
async def test_the_other_languages_work(sandbox: Sandbox, language: Language, code: str) -> None:
    execution = await sandbox.execute(ExecutionRequest(code, language=language))
    assert (await execution.wait()).reason is FinishReason.OK
    assert execution.log.output_bytes == len("42\n")


async def test_the_sandbox_shows_no_missing_program(sandbox: Sandbox) -> None:
    code = "! command -v node R java"
    execution = await sandbox.execute(ExecutionRequest(code, language=Language.BASH))
    assert (await execution.wait()).reason is FinishReason.OK


async def test_the_native_api_says_which_package_is_missing(
    poor_engine: Engine, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with open_server(tmp_path, engine=poor_engine) as server:
        _, body = await ask(server, "POST", "/v1/sandboxes", {})
        path = f"/v1/sandboxes/{json.loads(body)['id']}"
        for language, _program, package in MISSING:
            for place, wanted in (
                ("contexts", {"language": language}),
                ("executions", {"language": language, "code": "1"}),
            ):
                status, body = await ask(server, "POST", f"{path}/{place}", wanted)
                error = json.loads(body)["error"]
                assert (status, error["code"]) == (400, "language_unavailable")
                assert f"install the package {package}" in error["message"]
                assert error["details"]["package"] == package
        _, body = await ask(server, "GET", f"{path}/contexts")
        listed = json.loads(body)["contexts"]
        assert [(each["language"], each["state"] == "unstarted") for each in listed] == [
            ("python", False),
            ("bash", True),
        ]
        assert (await ask(server, "DELETE", path))[0] == 204
