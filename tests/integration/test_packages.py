"""Installing packages inside a sandbox, without a network: at once, and for this sandbox only."""

from importlib import metadata

import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.specs import Language, SandboxSpec
from tests.support.running import Outcome, run_python
from tests.support.wheels import SOURCE

OFFLINE = "--no-index --no-deps --disable-pip-version-check"


async def run(sandbox: Sandbox, code: str) -> Outcome:
    """Run code that ends well; installing takes a while on a busy machine."""
    outcome = await run_python(sandbox, code, timeout=50)
    assert outcome.finished.reason is FinishReason.OK, (outcome.stdout, outcome.stderr)
    return outcome


async def make_wheel(sandbox: Sandbox, arguments: str) -> None:
    await run(sandbox, f"{SOURCE}\nwheel = make_wheel('/tmp', {arguments})")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ["%pip", "!pip", "!python -m pip", "output = !pip"])
async def test_what_a_cell_installs_it_can_import(sandbox: Sandbox, command: str) -> None:
    await make_wheel(sandbox, "'example', '1.0', {'example.py': 'x = 42'}")
    code = f"{command} install {OFFLINE} {{wheel}}\nimport example\nexample.x"
    outcome = await run(sandbox, code)
    assert outcome.results[0].text == "42"
    assert "Note:" not in outcome.stdout
    assert (await run(sandbox, "!python -c 'import example; print(example.x)'")).stdout == "42\n"


@pytest.mark.timeout(120)
async def test_a_running_kernel_imports_what_another_process_installed(sandbox: Sandbox) -> None:
    await make_wheel(sandbox, "'example', '1.0', {'example.py': 'x = 42'}")
    code = (
        "try:\n    import example\nexcept ImportError:\n    pass\n"
        "import subprocess, sys\n"
        f"words = [sys.executable, '-m', 'pip', 'install', *'{OFFLINE}'.split(), wheel]\n"
        "done = subprocess.run(words, capture_output=True)\n"
        "import example\nexample.x"
    )
    assert (await run(sandbox, code)).results[0].text == "42"


@pytest.mark.timeout(180)
async def test_an_upgrade_is_seen_in_this_sandbox_only(engine: Engine, sandbox: Sandbox) -> None:
    before = metadata.version("click")
    await make_wheel(sandbox, "'click', '99.0', {'click.py': 'x = 99'}")
    await run(sandbox, f"%pip install {OFFLINE} {{wheel}}")
    assert (await run(sandbox, "import click; click.x")).results[0].text == "99"
    await (await sandbox.default_context(Language.PYTHON)).restart()
    assert (await run(sandbox, "import click; click.x")).results[0].text == "99"
    other = await engine.create(SandboxSpec())
    try:
        code = "import click, importlib.metadata as m\n(m.version('click'), hasattr(click, 'x'))"
        assert (await run(other, code)).results[0].text == f"({before!r}, False)"
    finally:
        await other.kill()
    assert metadata.version("click") == before


@pytest.mark.timeout(120)
async def test_an_upgrade_of_a_loaded_package_is_said_to_need_a_restart(sandbox: Sandbox) -> None:
    await run(sandbox, "import click")
    await make_wheel(sandbox, "'click', '99.0', {'click.py': 'x = 99'}")
    outcome = await run(sandbox, f"%pip install {OFFLINE} {{wheel}}")
    assert "stays loaded though 99.0 was installed: restart the context" in outcome.stdout
    assert (await run(sandbox, "import click; hasattr(click, 'x')")).results[0].text == "False"
    await (await sandbox.default_context(Language.PYTHON)).restart()
    assert (await run(sandbox, "import click; click.x")).results[0].text == "99"


@pytest.mark.timeout(120)
async def test_an_upgrade_of_what_kernels_start_with_is_said_not_to_reach_them(
    sandbox: Sandbox,
) -> None:
    await make_wheel(sandbox, "'cycler', '99.0', {'cycler.py': 'x = 99'}")
    outcome = await run(sandbox, f"%pip install {OFFLINE} {{wheel}}")
    assert "every Python context starts with it" in outcome.stdout
    await (await sandbox.default_context(Language.PYTHON)).restart()
    assert (await run(sandbox, "import cycler; hasattr(cycler, 'x')")).results[0].text == "False"
    assert (await run(sandbox, "!python -c 'import cycler; print(cycler.x)'")).stdout == "99\n"


@pytest.mark.timeout(120)
async def test_a_package_in_place_can_be_imported_at_once_and_after_a_restart(
    sandbox: Sandbox,
) -> None:
    files = "{'editable_example.pth': '/home/user/source\\n'}"
    await make_wheel(sandbox, f"'editable_example', '1.0', {files}")
    await run(
        sandbox,
        "import pathlib\nplace = pathlib.Path('/home/user/source')\nplace.mkdir()\n"
        "_ = (place / 'in_place.py').write_text('x = 7')",
    )
    code = f"%pip install {OFFLINE} {{wheel}}\nimport in_place\nin_place.x"
    assert (await run(sandbox, code)).results[0].text == "7"
    await (await sandbox.default_context(Language.PYTHON)).restart()
    assert (await run(sandbox, "import in_place\nin_place.x")).results[0].text == "7"


@pytest.mark.timeout(120)
async def test_a_package_that_is_not_there_is_the_commands_failure_and_not_the_kernels(
    sandbox: Sandbox,
) -> None:
    outcome = await run(sandbox, f"%pip install {OFFLINE} headrace-surely-missing\n_exit_code")
    assert outcome.results[0].text == "1"
    assert "No matching distribution found" in outcome.stderr + outcome.stdout
