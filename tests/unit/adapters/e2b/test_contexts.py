"""Contexts of the interpreter: made, listed, restarted, removed."""

from pathlib import Path

import pytest

from headrace.engine.contexts import MAX_CONTEXTS
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import ContextNotFoundError
from tests.support.e2b import E2bService, open_e2b
from tests.support.fakes import FakeLauncher
from tests.support.native import Client

HOME = "/home/user"


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client of the interpreter."""
    return service.interpreter(sandbox)


async def test_a_context_is_python_at_home_unless_told_otherwise(client: Client) -> None:
    for body in ({}, {"cwd": None, "language": None}, {"cwd": "", "language": ""}):
        reply = await client.post("/contexts", body)
        assert reply.status == 200
        made = reply.json()
        assert made == {"id": made["id"], "language": "python", "cwd": HOME}


async def test_a_body_may_be_missing(client: Client) -> None:
    assert (await client.post("/contexts")).status == 200


async def test_default_contexts_are_listed_first_and_new_ones_last(
    client: Client, sandbox: Sandbox
) -> None:
    default = sandbox.contexts[0].id
    assert [each["id"] for each in (await client.get("/contexts")).json()] == [default]
    made = [(await client.post("/contexts")).json()["id"] for _ in range(3)]
    await sandbox.remove_context(default)
    await client.post("/execute", {"code": "out hi"})
    listed = [each["id"] for each in (await client.get("/contexts")).json()]
    assert listed[1:] == made
    assert sandbox.is_default(listed[0])


async def test_a_directory_counts_from_home_and_is_made(
    service: E2bService, client: Client, sandbox: Sandbox
) -> None:
    assert (await client.post("/contexts", {"cwd": "~"})).json()["cwd"] == HOME
    # What the fake agent makes is not a directory, which is refused in turn.
    assert (await client.post("/contexts", {"cwd": "~/new/work"})).status == 400
    agent = service.launcher.sandboxes[sandbox.id].agent
    assert "/home/user/new/work" in agent.files


@pytest.mark.parametrize("cwd", ["a\0b", "x" * 5000, "~root/x", 5])
async def test_what_is_no_directory_is_refused(client: Client, cwd: object) -> None:
    reply = await client.post("/contexts", {"cwd": cwd})
    assert reply.status == 400
    assert reply.headers["content-type"].startswith("text/plain")


async def test_too_many_contexts_are_refused(client: Client, sandbox: Sandbox) -> None:
    default = len(sandbox.contexts)
    for _ in range(MAX_CONTEXTS):
        assert (await client.post("/contexts")).status == 200
    reply = await client.post("/contexts")
    assert reply.status == 429
    assert b"at most 32" in reply.body
    assert len(sandbox.contexts) == MAX_CONTEXTS + default


async def test_a_restarted_context_has_its_name_and_counts_on(client: Client) -> None:
    made = (await client.post("/contexts")).json()
    await client.post("/execute", {"code": "out hi", "context_id": made["id"]})
    reply = await client.post(f"/contexts/{made['id']}/restart")
    assert (reply.status, reply.json()) == (200, made)
    lines = (await client.post("/execute", {"code": "out 2", "context_id": made["id"]})).lines()
    assert lines[1]["text"] == "2\n"


async def test_a_removed_context_is_gone(client: Client, sandbox: Sandbox) -> None:
    made = (await client.post("/contexts")).json()["id"]
    assert (await client.request("DELETE", f"/contexts/{made}")).status == 200
    with pytest.raises(ContextNotFoundError):
        sandbox.context(made)


@pytest.mark.parametrize(("method", "tail"), [("DELETE", ""), ("POST", "/restart")])
@pytest.mark.parametrize("name", ["gone", "%2e%2e", "a%2Fb", "%ff", "x" * 1000])
async def test_an_unknown_context_is_404(client: Client, method: str, tail: str, name: str) -> None:
    reply = await client.request(method, f"/contexts/{name}{tail}")
    assert reply.status == 404
    text = reply.body.decode()
    assert text.startswith("Context ")
    assert text.endswith(" not found")
    assert len(text) < 300


async def test_a_kernel_that_does_not_come_up_is_500_and_leaves_no_context(
    tmp_path: Path,
) -> None:
    launcher = FakeLauncher()
    launcher.refusals["kernel"] = ("failed", "no process can be made")
    async with open_e2b(tmp_path, launcher=launcher) as service:
        sandbox = await service.create()
        reply = await service.interpreter(sandbox).post("/contexts")
        assert reply.status == 500
        assert b"no process can be made" in reply.body
        assert [each.language for each in sandbox.contexts] == ["python"]
