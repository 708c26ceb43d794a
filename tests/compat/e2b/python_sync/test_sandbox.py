# Made from the async face by scripts/generate-sync; change that one.
"""The life of a sandbox: made, found, asked, paused, killed."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from e2b_code_interpreter import (
    InvalidArgumentException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)
from face_sync import pause


@pytest.fixture
def metadata() -> dict[str, str]:
    """Metadata that no other test uses."""
    return {"test": str(uuid.uuid4())}


# covers: Sandbox.create, Sandbox.get_info
def test_a_sandbox_knows_itself(metadata: dict[str, str]) -> None:
    begun = datetime.now(UTC)
    sandbox = Sandbox.create(timeout=120, metadata=metadata)
    try:
        info = sandbox.get_info()
    finally:
        sandbox.kill()

    assert info.sandbox_id == sandbox.sandbox_id
    assert sandbox.sandbox_id.isalnum()
    assert sandbox.sandbox_id.islower()
    assert info.metadata == metadata
    assert info.state is SandboxState.RUNNING
    assert info.template_id
    assert info.cpu_count >= 1
    assert info.memory_mb > 0
    assert info.envd_version
    assert timedelta(seconds=-5) < info.started_at - begun < timedelta(seconds=30)
    assert timedelta(seconds=119) < info.end_at - info.started_at < timedelta(seconds=122)


# covers: Sandbox.create
@pytest.mark.parametrize("template", ["base", "code-interpreter-v1"])
def test_a_template_of_the_vendor_is_known(template: str) -> None:
    sandbox = Sandbox.create(template)
    try:
        result = sandbox.run_code("6 * 7")
    finally:
        sandbox.kill()

    assert result.text == "42"


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(SandboxException, match="404") as caught:
        Sandbox.create("no-such-template")

    assert caught.value.status_code == 404


# covers: Sandbox.create
def test_an_idempotency_key_makes_one_sandbox(metadata: dict[str, str]) -> None:
    key = str(uuid.uuid4())
    first = Sandbox.create(metadata=metadata, idempotency_key=key)
    try:
        second = Sandbox.create(metadata=metadata, idempotency_key=key)
        page = Sandbox.list(query=SandboxQuery(metadata=metadata)).next_items()
    finally:
        first.kill()

    assert second.sandbox_id == first.sandbox_id
    assert len(page) == 1


# covers: Sandbox.create
def test_a_sandbox_has_its_environment_variables_everywhere() -> None:
    sandbox = Sandbox.create(envs={"COLOUR": "blue green", "EMPTY": ""})
    try:
        code = sandbox.run_code("import os\nos.environ['COLOUR'], os.environ['EMPTY']")
        command = sandbox.commands.run('echo "$COLOUR,$EMPTY"')
    finally:
        sandbox.kill()

    assert code.text == "('blue green', '')"
    assert command.stdout == "blue green,\n"


# covers: Sandbox.kill, Sandbox.is_running
def test_a_killed_sandbox_is_gone() -> None:
    sandbox = Sandbox.create()
    assert sandbox.is_running()

    killed = sandbox.kill()
    again = sandbox.kill()

    assert killed is True
    assert again is False
    assert not sandbox.is_running()
    with pytest.raises(SandboxNotFoundException):
        sandbox.get_info()
    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect(sandbox.sandbox_id)
    with pytest.raises(TimeoutException):
        sandbox.run_code("1")
    with pytest.raises(TimeoutException):
        sandbox.commands.run("true")
    with pytest.raises(TimeoutException):
        sandbox.files.read("/etc/hosts")


# covers: Sandbox.kill
def test_a_sandbox_can_be_killed_by_its_id(sandbox: Sandbox) -> None:
    assert Sandbox.kill(sandbox.sandbox_id)
    assert not sandbox.is_running()
    assert not Sandbox.kill("nosuchsandbox")


# covers: Sandbox.connect
def test_one_who_connects_finds_the_same_state(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 'kept'")
    sandbox.files.write("note.txt", "on disk")

    other = Sandbox.connect(sandbox.sandbox_id)
    result = other.run_code("x")
    note = other.files.read("note.txt")
    same = sandbox.connect()

    assert other.sandbox_id == same.sandbox_id == sandbox.sandbox_id
    assert result.text == "kept"
    assert note == "on disk"


# covers: Sandbox.connect, Sandbox.set_timeout
def test_connecting_lengthens_a_timeout_and_setting_one_may_shorten_it() -> None:
    sandbox = Sandbox.create(timeout=100)
    try:
        Sandbox.connect(sandbox.sandbox_id, timeout=10)
        kept = sandbox.get_info()
        Sandbox.connect(sandbox.sandbox_id, timeout=500)
        lengthened = sandbox.get_info()
        sandbox.set_timeout(50)
        shortened = sandbox.get_info()
    finally:
        sandbox.kill()

    now = datetime.now(UTC)
    assert kept.end_at > now + timedelta(seconds=80)
    assert now + timedelta(seconds=470) < lengthened.end_at < now + timedelta(seconds=501)
    assert now + timedelta(seconds=20) < shortened.end_at < now + timedelta(seconds=51)


# covers: Sandbox.set_timeout
def test_a_sandbox_ends_at_its_timeout(sandbox: Sandbox) -> None:
    sandbox.set_timeout(1)
    for _ in range(100):
        if not sandbox.is_running():
            break
        pause(0.1)

    assert not sandbox.is_running()
    with pytest.raises(SandboxNotFoundException):
        sandbox.set_timeout(100)


# covers: Sandbox.list, paginator.next_items
def test_a_list_has_pages_and_filters(metadata: dict[str, str]) -> None:
    made = [Sandbox.create(metadata={**metadata, "n": "a b&c=é"}) for _ in range(3)]
    other = Sandbox.create(metadata={**metadata, "n": "other"})
    try:
        query = SandboxQuery(metadata={**metadata, "n": "a b&c=é"})
        pages = []
        paginator = Sandbox.list(query=query, limit=2)
        while paginator.has_next:
            page = paginator.next_items()
            pages.append([info.sandbox_id for info in page])
            assert bool(paginator.next_token) == paginator.has_next
        everything = Sandbox.list(query=SandboxQuery(metadata=metadata)).next_items()
        whole = Sandbox.list(query=query, order="asc").next_items()
        reverse = Sandbox.list(query=query, order="desc").next_items()
    finally:
        for sandbox in [*made, other]:
            sandbox.kill()

    ids = [sandbox.sandbox_id for sandbox in made]
    assert [len(page) for page in pages] == [2, 1]
    assert sorted(pages[0] + pages[1]) == sorted(ids)
    assert {info.sandbox_id for info in everything} == {*ids, other.sandbox_id}
    assert [info.sandbox_id for info in whole] == ids
    assert [info.sandbox_id for info in reverse] == ids[::-1]
    assert all(info.metadata["n"] == "a b&c=é" for info in whole)


# covers: Sandbox.list
def test_a_list_is_filtered_by_template_and_time(metadata: dict[str, str]) -> None:
    sandbox = Sandbox.create("base", metadata=metadata)
    now = datetime.now(UTC)
    try:
        found = {}
        for name, more in {
            "its template": {"template": "base"},
            "another template": {"template": "no-such-template"},
            "since a minute ago": {"started_after": now - timedelta(minutes=1)},
            "in a minute": {"started_after": now + timedelta(minutes=1)},
        }.items():
            query = SandboxQuery(metadata=metadata, **more)
            found[name] = len(Sandbox.list(query=query).next_items())
    finally:
        sandbox.kill()

    assert found == {
        "its template": 1,
        "another template": 0,
        "since a minute ago": 1,
        "in a minute": 0,
    }


# covers: Sandbox.list, Sandbox.pause
def test_a_list_is_filtered_by_state(metadata: dict[str, str]) -> None:
    running = Sandbox.create(metadata=metadata)
    paused = Sandbox.create(metadata=metadata)
    try:
        paused.pause()
        found: dict[str, Any] = {}
        for name, states in {
            "running": [SandboxState.RUNNING],
            "paused": [SandboxState.PAUSED],
            "both": [SandboxState.RUNNING, SandboxState.PAUSED],
            "any": None,
        }.items():
            query = SandboxQuery(metadata=metadata, state=states)
            page = Sandbox.list(query=query).next_items()
            found[name] = {info.sandbox_id for info in page}
    finally:
        running.kill()
        paused.kill()

    assert found["running"] == {running.sandbox_id}
    assert found["paused"] == {paused.sandbox_id}
    assert found["both"] == found["any"] == {running.sandbox_id, paused.sandbox_id}


# covers: Sandbox.pause, Sandbox.connect
def test_a_paused_sandbox_goes_on_where_it_was(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 41")
    command = sandbox.commands.run("sleep 300", background=True, timeout=0)

    paused = sandbox.pause()
    again = sandbox.pause()
    info = sandbox.get_info()
    was_running = sandbox.is_running()
    resumed = sandbox.connect()
    result = resumed.run_code("x + 1")
    processes = resumed.commands.list()

    assert paused is True
    assert again is False
    assert info.state is SandboxState.PAUSED
    assert was_running is False
    assert result.text == "42"
    assert command.pid in [process.pid for process in processes]
    assert resumed.is_running()


# covers: Sandbox.pause
def test_a_paused_sandbox_answers_as_one_that_is_gone(sandbox: Sandbox) -> None:
    Sandbox.pause(sandbox.sandbox_id)

    with pytest.raises(TimeoutException):
        sandbox.run_code("1")
    with pytest.raises(TimeoutException):
        sandbox.commands.run("true")


# covers: Sandbox.beta_pause
def test_the_former_name_of_pausing_works(sandbox: Sandbox) -> None:
    assert sandbox.beta_pause()

    info = sandbox.get_info()
    assert info.state is SandboxState.PAUSED


# covers: Sandbox.create
def test_a_sandbox_may_pause_itself_at_its_timeout(metadata: dict[str, str]) -> None:
    sandbox = Sandbox.create(timeout=1, metadata=metadata, lifecycle={"on_timeout": "pause"})
    try:
        for _ in range(100):
            info = sandbox.get_info()
            if info.state is SandboxState.PAUSED:
                break
            pause(0.1)
        resumed = sandbox.connect(timeout=60)
        result = resumed.run_code("1 + 1")
    finally:
        sandbox.kill()

    assert info.state is SandboxState.PAUSED
    assert info.lifecycle is not None
    assert info.lifecycle["on_timeout"] == "pause"
    assert result.text == "2"


# covers: Sandbox.create
def test_a_sandbox_that_paused_itself_may_wake_at_a_request() -> None:
    sandbox = Sandbox.create(timeout=1, lifecycle={"on_timeout": "pause", "auto_resume": True})
    try:
        sandbox.run_code("x = 5")
        for _ in range(100):
            info = sandbox.get_info()
            if info.state is SandboxState.PAUSED:
                break
            pause(0.1)
        result = sandbox.run_code("x")
    finally:
        sandbox.kill()

    assert info.state is SandboxState.PAUSED
    assert result.text == "5"


# covers: Sandbox.get_metrics
def test_a_sandbox_is_measured(sandbox: Sandbox) -> None:
    sandbox.run_code("x = bytearray(50_000_000)")
    metrics = sandbox.get_metrics()
    for _ in range(100):
        if metrics:
            break
        pause(0.1)
        metrics = sandbox.get_metrics()
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    assert metrics
    assert metrics[-1].cpu_count >= 1
    assert metrics[-1].cpu_used_pct >= 0
    assert 0 < metrics[-1].mem_used <= metrics[-1].mem_total
    assert 0 <= metrics[-1].disk_used <= metrics[-1].disk_total
    assert abs(metrics[-1].timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert sandbox.get_metrics(start=tomorrow) == []


# covers: Sandbox.get_host
def test_a_server_in_a_sandbox_has_a_host_name(sandbox: Sandbox) -> None:
    assert sandbox.get_host(3000).startswith(f"3000-{sandbox.sandbox_id}.")


# covers: Sandbox.update_network
def test_the_network_of_a_sandbox_can_be_closed(sandbox: Sandbox) -> None:
    sandbox.update_network({"allow_internet_access": False})

    result = sandbox.run_code("1 + 1")
    assert result.text == "2"


def test_wrong_options_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxException):
        Sandbox.create(timeout=-5)
    with pytest.raises(SandboxException):
        Sandbox.create(timeout=10**9)
    with pytest.raises((SandboxException, InvalidArgumentException)):
        Sandbox.create(envs={"A=B": "x"})
    with pytest.raises(SandboxException):
        sandbox.set_timeout(-1)
