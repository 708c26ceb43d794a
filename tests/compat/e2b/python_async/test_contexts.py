"""Contexts: several interpreters in one sandbox."""

import pytest
from e2b_code_interpreter import AsyncSandbox, NotFoundException, SandboxException
from face_async import all_of


# covers: Sandbox.create_code_context, Sandbox.run_code
async def test_contexts_do_not_share_their_state(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context()
    await sandbox.run_code("x = 'default'")
    await sandbox.run_code("x = 'own'", context=context)

    default = await sandbox.run_code("x")
    own = await sandbox.run_code("x", context=context)

    assert (default.text, own.text) == ("default", "own")
    assert own.execution_count == 2


# covers: Sandbox.create_code_context
async def test_a_context_has_language_and_directory(sandbox: AsyncSandbox) -> None:
    plain = await sandbox.create_code_context()
    elsewhere = await sandbox.create_code_context(cwd="/tmp", language="python")

    there = await sandbox.run_code("import os; os.getcwd()", context=elsewhere)

    assert (plain.language, plain.cwd) == ("python", "/home/user")
    assert (elsewhere.language, elsewhere.cwd) == ("python", "/tmp")
    assert there.text == "/tmp"


@pytest.mark.parametrize(
    ("language", "name", "code"),
    [
        ("js", "javascript", "process.cwd()"),
        ("TypeScript ", "typescript", "const where: string = process.cwd(); where"),
    ],
)
async def test_names_of_languages_are_put_right(
    sandbox: AsyncSandbox, language: str, name: str, code: str
) -> None:
    context = await sandbox.create_code_context(cwd="/tmp", language=language)

    execution = await sandbox.run_code(code, context=context)

    assert context.language == name
    assert execution.text == "/tmp"


# covers: Sandbox.list_code_contexts, Sandbox.remove_code_context
async def test_contexts_are_listed_and_removed(sandbox: AsyncSandbox) -> None:
    first = await sandbox.list_code_contexts()
    context = await sandbox.create_code_context(language="bash", cwd="/tmp")
    second = await sandbox.list_code_contexts()
    await sandbox.remove_code_context(context)
    third = await sandbox.list_code_contexts()

    assert {"python", "javascript"} <= {one.language for one in first}
    assert [one.id for one in second] == [*(one.id for one in first), context.id]
    assert (second[-1].language, second[-1].cwd) == ("bash", "/tmp")
    assert [one.id for one in third] == [one.id for one in first]


async def test_the_default_context_can_be_named(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("x = 3")
    (default,) = [one for one in await sandbox.list_code_contexts() if one.language == "python"]

    execution = await sandbox.run_code("x", context=default)

    assert execution.text == "3"


# covers: Sandbox.remove_code_context
async def test_a_context_is_removed_by_its_id(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context()

    await sandbox.remove_code_context(context.id)

    with pytest.raises(NotFoundException):
        await sandbox.run_code("1", context=context)


# covers: Sandbox.restart_code_context
async def test_a_restart_forgets_everything_but_the_id(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context(cwd="/tmp")
    await sandbox.run_code("x = 1", context=context)

    await sandbox.restart_code_context(context)
    gone = await sandbox.run_code("x", context=context)
    there = await sandbox.run_code("import os; os.getcwd()", context=context)
    await sandbox.restart_code_context(context.id)

    assert gone.error is not None
    assert gone.error.name == "NameError"
    assert there.text == "/tmp"
    assert context.id in [one.id for one in await sandbox.list_code_contexts()]


async def test_contexts_run_side_by_side(sandbox: AsyncSandbox) -> None:
    one, other = [await sandbox.create_code_context() for _ in range(2)]
    # Each waits for the file that the other one makes.
    code = (
        "import pathlib, time\npathlib.Path('/tmp/{mine}').touch()\n"
        "for _ in range(100):\n    if pathlib.Path('/tmp/{other}').exists(): break\n"
        "    time.sleep(0.1)\n"
        "pathlib.Path('/tmp/{other}').exists()"
    )

    first, second = await all_of(
        lambda: sandbox.run_code(code.format(mine="a", other="b"), context=one),
        lambda: sandbox.run_code(code.format(mine="b", other="a"), context=other),
    )

    assert first.text == second.text == "True"


async def test_an_unknown_language_is_refused(sandbox: AsyncSandbox) -> None:
    with pytest.raises(SandboxException, match="cobol"):
        await sandbox.create_code_context(language="cobol")
    with pytest.raises(SandboxException, match="cobol"):
        await sandbox.run_code("1", language="cobol")
