"""Contexts over HTTP: their state, their places, their turns."""

import anyio
import pytest

from tests.support.interpreting import (
    Interpreter,
)

pytestmark = pytest.mark.sandbox


async def test_a_context_keeps_its_state_its_language_and_its_place(fresh: Interpreter) -> None:
    await fresh.main("import os; os.makedirs('work')")
    made = (await fresh.http.post("/contexts", json={"cwd": "/home/user/work"})).json()
    assert (made["language"], made["cwd"]) == ("python", "/home/user/work")
    typed = (await fresh.http.post("/contexts", json={"language": "ts"})).json()
    assert typed["language"] == "typescript"
    listed = (await fresh.http.get("/contexts")).json()
    assert listed[-2:] == [made, typed]

    assert await fresh.main("x = 1; import os; os.getcwd()", context_id=made["id"]) == made["cwd"]
    assert await fresh.main("x", context_id=made["id"]) == "1"
    assert (await fresh.outcome("x")).error["name"] == "NameError"  # type: ignore[index]  # it is
    assert await fresh.main("let y: number = 2; y", context_id=typed["id"]) == "2"

    assert (await fresh.http.post(f"/contexts/{made['id']}/restart")).status_code == 200
    lost = await fresh.outcome("x", context_id=made["id"])
    assert lost.error is not None
    assert lost.error["name"] == "NameError"
    assert await fresh.main("os = __import__('os'); os.getcwd()", context_id=made["id"])

    assert (await fresh.http.delete(f"/contexts/{made['id']}")).status_code == 200
    again = await fresh.http.post("/execute", json={"code": "1", "context_id": made["id"]})
    assert (again.status_code, again.text) == (404, f"Context {made['id']} not found")


async def test_a_directory_that_is_missing_is_made(shared: Interpreter) -> None:
    made = await shared.http.post("/contexts", json={"cwd": "/home/user/new/deep"})
    assert made.status_code == 200
    context = made.json()
    assert context["cwd"] == "/home/user/new/deep"
    code = "import os\nopen('file', 'w').close()\nos.getcwd()"
    assert await shared.main(code, context_id=context["id"]) == "/home/user/new/deep"


@pytest.mark.parametrize(
    ("cwd", "fault"),
    [
        ("/etc/passwd", "not a directory"),
        ("/etc/passwd/below", "/etc/passwd"),
        ("/proc/private", "/proc/private"),
        ("/proc/nowhere/deep", "/proc/nowhere"),
    ],
)
async def test_a_directory_that_cannot_be_is_refused(
    shared: Interpreter, cwd: str, fault: str
) -> None:
    before = len(shared.sandbox.contexts)
    refused = await shared.http.post("/contexts", json={"cwd": cwd})
    assert refused.status_code == 400
    assert fault in refused.text
    assert len(shared.sandbox.contexts) == before


async def test_contexts_run_side_by_side_and_one_context_one_thing_at_a_time(
    fresh: Interpreter,
) -> None:
    other = (await fresh.http.post("/contexts", json={})).json()["id"]
    ended: list[str] = []

    async def run(name: str, code: str, **fields: object) -> None:
        await fresh.run(code, **fields)
        ended.append(name)

    wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "first", wait)
        await anyio.sleep(0.2)
        tasks.start_soon(run, "second", "1")
        await run("beside", "open('go', 'w').close()", context_id=other)
    assert ended == ["beside", "first", "second"]
