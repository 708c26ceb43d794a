"""File operations as the agent sees them: deadlines, cancelling, children that misbehave."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from headrace_guest import operations
from headrace_guest.protocol import Json
from tests.support.agent_host import AgentHost, wait_until


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


def act(monkeypatch: pytest.MonkeyPatch, work: Callable[[int], Mapping[str, Json]]) -> None:
    """Have the operation "stat" do something else, in an agent that is forked after this."""
    action = operations.Action(lambda _message: lambda data, _may_commit: work(data))
    monkeypatch.setitem(operations.ACTIONS, "stat", action)


def sleep(_data: int) -> Mapping[str, Json]:
    while True:
        signal.pause()


def test_an_operation_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    act(monkeypatch, sleep)
    with AgentHost() as host:
        answer = host.call_file("stat", path="/", timeout=0.05)
        assert answer.error == "failed"
        assert answer.detail == "the file operation took longer than 0.05 s"


def test_an_operation_that_ignores_being_stopped_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ignore(_data: int) -> Mapping[str, Json]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return sleep(_data)

    monkeypatch.setattr(operations, "_GRACE", 0.05)
    act(monkeypatch, ignore)
    with AgentHost() as host:
        number = host.file("stat", path="/")
        wait_until(lambda: host.children() != [])
        host.call("cancel", target=number)
        assert host.answer(number).detail == "the file operation was cancelled"


def test_a_stopped_child_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_data: int) -> Mapping[str, Json]:
        os.kill(os.getpid(), signal.SIGSTOP)
        return {}

    monkeypatch.setattr(operations, "_GRACE", 0.05)
    act(monkeypatch, stop)
    with AgentHost() as host:
        assert "took longer" in host.call_file("stat", path="/", timeout=0.1).detail


def test_a_report_that_is_too_long_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    act(monkeypatch, lambda _data: {"x": "y" * 1_000_000})
    with AgentHost() as host:
        answer = host.call_file("stat", path="/")
        assert answer.error == "failed"


def test_a_value_that_cannot_be_sent_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    act(monkeypatch, lambda _data: {"x": float("inf")})
    with AgentHost() as host:
        assert host.call_file("stat", path="/").error == "failed"


def test_an_unexpected_exception_is_a_failure_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_data: int) -> Mapping[str, Json]:
        raise ZeroDivisionError("a mistake of ours")

    act(monkeypatch, fail)
    with AgentHost() as host:
        answer = host.call_file("stat", path="/")
        assert (answer.error, answer.detail) == ("failed", "ZeroDivisionError: a mistake of ours")


def test_a_child_that_ends_without_a_word_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    act(monkeypatch, lambda _data: os._exit(7))
    with AgentHost() as host:
        answer = host.call_file("stat", path="/")
        assert answer.detail == "the process of the file operation ended with status 7"


def test_a_user_that_the_sandbox_cannot_give_is_permission_denied(host: AgentHost) -> None:
    for fields in ({"user": "root"}, {"user": "user", "privileged": True}):
        answer = host.call_file("stat", path="/", **fields)
        assert (answer.error, answer.detail) == ("permission_denied", "user 'root' needs root mode")
    assert host.call_file("stat", path="/", privileged=False).error is None
    assert host.call_file("stat", path="/", privileged=1).error == "invalid"


def test_a_child_holds_nothing_of_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(_data: int) -> Mapping[str, Json]:
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.exists()]
        return {
            "sockets": sum(link.startswith("socket:") for link in links),
            "oom": Path("/proc/self/oom_score_adj").read_text().strip(),
            "session": os.getsid(0) == os.getpid(),
        }

    act(monkeypatch, look)
    with AgentHost() as host:
        value = host.call_file("stat", path="/").value
        assert value == {"sockets": 1, "oom": "500", "session": True}


def test_operations_run_beside_each_other(host: AgentHost, tmp_path: Path) -> None:
    numbers = [
        host.file("make_dir", path=f"{tmp_path}/{n}", mode=None, parents=False, exist_ok=False)
        for n in range(50)
    ]
    for number in numbers:
        assert host.answer(number).value == {"created": True}
    assert len(list(tmp_path.iterdir())) == 50
