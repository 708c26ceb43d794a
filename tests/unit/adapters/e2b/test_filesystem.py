"""Files and directories over RPC."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService
from tests.support.native import Client, Reply

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["path", "depth", "source", "destination", "watcherId", "recursive", "include_entry", "other"]
)
METHODS = (
    "Stat",
    "ListDir",
    "MakeDir",
    "Move",
    "Remove",
    "CreateWatcher",
    "GetWatcherEvents",
    "RemoveWatcher",
)


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client of the sandbox's agent."""
    return service.agent(sandbox)


@pytest.fixture
def agent(service: E2bService, sandbox: Sandbox) -> Any:
    """The sandbox's agent."""
    return service.launcher.sandboxes[sandbox.id].agent


async def call(client: Client, method: str, message: object, **headers: str) -> Reply:
    return await client.post(f"/filesystem.Filesystem/{method}", message, **headers)


def asked(agent: Any, action: str) -> dict[str, Any]:
    found: dict[str, Any] = [each for each in agent.requests if each.get("action") == action].pop()
    return found


async def test_an_entry_is_shown(client: Client, agent: Any) -> None:
    agent.files["/home/user/a.txt"] = b"four"

    reply = await call(client, "Stat", {"path": "a.txt"})

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {
        "entry": {
            "name": "a.txt",
            "type": "FILE_TYPE_FILE",
            "path": "/home/user/a.txt",
            "size": "4",
            "mode": 420,
            "permissions": "-rw-r--r--",
            "owner": "user",
            "group": "user",
            "modifiedTime": "2023-11-14T22:13:20Z",
        }
    }
    assert asked(agent, "stat")["attributes_prefix"] == "user.e2b."


@pytest.mark.parametrize(
    ("path", "user", "meant"),
    [
        ("", "user", "/home/user"),
        ("a", "user", "/home/user/a"),
        ("~", "root", "/root"),
        ("~/a", "root", "/root/a"),
        ("a//./b/../c/", "user", "/home/user/a/c"),
        ("/", "user", "/"),
        ("//x", "user", "/x"),
        ("/../..", "user", "/"),
        ("../../etc", "user", "/etc"),
    ],
)
async def test_a_path_begins_at_the_home_of_who_asks(
    client: Client, agent: Any, path: str, user: str, meant: str
) -> None:
    basic = "Basic " + base64.b64encode(f"{user}:".encode()).decode()

    await call(client, "Stat", {"path": path}, authorization=basic)

    assert (asked(agent, "stat")["path"], asked(agent, "stat")["user"]) == (meant, user)


async def test_a_user_that_there_is_not_is_unauthenticated(client: Client) -> None:
    basic = "Basic " + base64.b64encode(b"nobody:").decode()
    for method in METHODS[:6]:
        message = {"path": "a", "source": "a", "destination": "b"}
        reply = await call(client, method, message, authorization=basic)
        assert (reply.status, reply.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("message", "depth"),
    [
        ({}, 1),
        ({"depth": 0}, 1),
        ({"depth": None}, 1),
        ({"depth": "3"}, 3),
        ({"depth": 2**32 - 1}, 2**31),
    ],
)
async def test_a_directory_is_listed_to_a_depth(
    client: Client, agent: Any, message: Mapping[str, Any], depth: int
) -> None:
    agent.files |= {"/home/user/b.d": b"", "/home/user/a": b""}

    reply = await call(client, "ListDir", message)

    assert [each["name"] for each in reply.json()["entries"]] == ["a", "b.d"]
    assert (asked(agent, "list")["path"], asked(agent, "list")["depth"]) == ("/home/user", depth)


async def test_an_empty_directory_has_no_entries(client: Client) -> None:
    assert (await call(client, "ListDir", {"path": "/empty"})).json() == {"entries": []}


async def test_a_directory_is_made_once(client: Client, agent: Any) -> None:
    made = await call(client, "MakeDir", {"path": "new.d"})
    again = await call(client, "MakeDir", {"path": "new.d"})

    assert made.json()["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    assert (again.status, again.json()["code"]) == (409, "already_exists")
    assert (asked(agent, "make_dir")["parents"], asked(agent, "make_dir")["exist_ok"]) == (
        True,
        False,
    )


async def test_things_are_moved(client: Client, agent: Any) -> None:
    agent.files["/home/user/a"] = b"x"

    moved = await call(client, "Move", {"source": "a", "destination": "/tmp/b"})
    missing = await call(client, "Move", {"source": "a", "destination": "b"})

    assert moved.json()["entry"]["path"] == "/tmp/b"
    assert asked(agent, "move")["create_parents"] is True
    assert (missing.status, missing.json()["code"]) == (404, "not_found")


async def test_what_is_removed_may_be_missing_but_must_be_named(client: Client, agent: Any) -> None:
    agent.files["/home/user/a"] = b"x"
    for _ in range(2):
        reply = await call(client, "Remove", {"path": "a"})
        assert (reply.status, reply.json()) == (200, {})
    assert agent.files == {}
    assert (asked(agent, "remove")["recursive"], asked(agent, "remove")["missing_ok"]) == (
        True,
        True,
    )
    nameless = await call(client, "Remove", {})
    assert (nameless.status, nameless.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("Stat", {"path": "a\0b"}),
        ("Stat", {"path": "~other"}),
        ("Stat", {"path": "a" * 5000}),
        ("Stat", {"path": 1}),
        ("Stat", []),
        ("ListDir", {"depth": -1}),
        ("ListDir", {"depth": 2**32}),
        ("ListDir", {"depth": "deep"}),
        ("Move", {"source": "a"}),
        ("Move", {"destination": "a"}),
        ("CreateWatcher", {"path": "a", "recursive": "yes"}),
    ],
)
async def test_what_no_request_can_say_is_an_invalid_argument(
    client: Client, method: str, message: object
) -> None:
    reply = await call(client, method, message)

    assert (reply.status, reply.json()["code"]) == (400, "invalid_argument")


async def test_unknown_fields_and_both_spellings_are_taken(client: Client, agent: Any) -> None:
    agent.files["/home/user/a"] = b""
    assert (await call(client, "Stat", {"path": "a", "new": {"x": 1}})).status == 200
    for name in ("watcherId", "watcher_id"):
        reply = await call(client, "GetWatcherEvents", {name: "none"})
        assert (reply.status, reply.json()["code"]) == (404, "not_found")
        assert "'none'" in reply.json()["message"]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(method=st.sampled_from(METHODS), message=st.dictionaries(FIELDS, JSON, max_size=3) | JSON)
async def test_no_message_breaks_anything(client: Client, method: str, message: Any) -> None:
    reply = await call(client, method, message)

    # The fake agent does not refuse what is in the way of a directory.
    assert reply.status in (200, 400, 404, 409, 429)
    reply.json()
