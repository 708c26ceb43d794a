"""Our end of the launcher, against one that we play ourselves."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.engine.config import EngineConfig
from headrace.engine.launcher import ExitNotice, Launcher, LauncherProcess, RefusedError
from headrace.model.errors import DeadlineError, LaunchError, UnavailableError
from headrace.model.specs import Limits
from tests.support.fakes import REPORT
from tests.support.logs import count_descriptors, wait_until


class Link:
    """A socket with nothing behind it but the test."""

    def __init__(self) -> None:
        self.sock, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far.settimeout(5)

    def send(self, message: object, fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.far, [json.dumps(message).encode()], list(fds))

    async def receive(self) -> tuple[dict[str, Any], list[int]]:
        data, fds, _, _ = await anyio.to_thread.run_sync(socket.recv_fds, self.far, 65536, 8)
        return json.loads(data), fds

    async def aclose(self) -> None:
        self.sock.close()
        self.far.close()


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.exits: list[ExitNotice] = []
        self.gone: list[str] = []

    def process_exited(self, notice: ExitNotice) -> None:
        self.exits.append(notice)

    def launcher_gone(self, detail: str) -> None:
        self.gone.append(detail)


@asynccontextmanager
async def at_work(patience: float = 5.0) -> AsyncIterator[tuple[Launcher, Link]]:
    link = Link()
    launcher = Launcher(link, timeout=patience)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(launcher.run)
            yield launcher, link
            tasks.cancel_scope.cancel()
    finally:
        await launcher.aclose()


async def test_the_report_of_a_launcher_that_is_ready_is_given() -> None:
    link = Link()
    launcher = Launcher(link, timeout=5.0)
    link.send({"notice": "ready", "report": REPORT})
    assert (await launcher.await_report(5.0)).mode == "root"
    await launcher.aclose()


async def test_a_launcher_that_fails_is_an_error_in_its_own_words() -> None:
    link = Link()
    launcher = Launcher(link, timeout=5.0)
    link.send({"notice": "failed", "detail": "mode root needs uid 0"})
    with pytest.raises(LaunchError, match="mode root needs uid 0"):
        await launcher.await_report(5.0)
    await launcher.aclose()


async def test_a_launcher_that_ends_before_it_is_ready_is_an_error() -> None:
    link = Link()
    launcher = Launcher(link, timeout=5.0)
    link.far.close()
    with pytest.raises(LaunchError, match="ended before it was ready"):
        await launcher.await_report(5.0)
    await launcher.aclose()


async def test_a_silent_launcher_is_given_up() -> None:
    link = Link()
    launcher = Launcher(link, timeout=5.0)
    with pytest.raises(LaunchError, match=r"within 0\.01 s"):
        await launcher.await_report(0.01)
    await launcher.aclose()


async def test_a_verb_carries_its_fields_and_descriptors() -> None:
    async with at_work() as (launcher, link), anyio.create_task_group() as tasks:
        read_end, write_end = os.pipe()
        tasks.start_soon(launcher.create, "s1", Limits(), write_end)
        request, fds = await link.receive()
        assert request == {
            "id": 1,
            "verb": "create",
            "sandbox": "s1",
            "limits": {
                "memory": 1024 * 1024 * 1024,
                "disk": 512 * 1024 * 1024,
                "inodes": 100_000,
                "processes": 256,
                "open_files": 1024,
                "cpus": 1.0,
            },
        }
        os.close(write_end)
        os.write(fds[0], b"here")
        assert os.read(read_end, 10) == b"here"
        link.send({"id": 1, "ok": True, "report": {}})
        for fd in (read_end, *fds):
            os.close(fd)


async def test_answers_may_come_in_any_order() -> None:
    async with at_work() as (launcher, link):
        found: dict[str, int | None] = {}

        async def ask(name: str) -> None:
            found[name] = (await launcher.stats(name)).memory

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "a")
            tasks.start_soon(ask, "b")
            requests = [(await link.receive())[0] for _ in range(2)]
            for request in reversed(requests):
                size = {"a": 10, "b": 20}[request["sandbox"]]
                link.send({"id": request["id"], "ok": True, "memory": size})
    assert found == {"a": 10, "b": 20}


async def test_a_refusal_is_an_error_with_its_code_and_reason() -> None:
    async with at_work() as (launcher, link), anyio.create_task_group() as tasks:

        async def kill() -> None:
            with pytest.raises(RefusedError, match="refused freeze: no such thing") as caught:
                await launcher.freeze("s1")
            assert caught.value.refusal == "not_found"

        tasks.start_soon(kill)
        request, _ = await link.receive()
        link.send(
            {"id": request["id"], "ok": False, "error": "not_found", "detail": "no such thing"}
        )


@pytest.mark.parametrize("verb", ["signal_kernel", "kill_kernel"])
async def test_signalling_a_kernel_that_is_gone_is_no_error(verb: str) -> None:
    async with at_work() as (launcher, link), anyio.create_task_group() as tasks:
        arguments = (2,) if verb == "signal_kernel" else ()
        tasks.start_soon(getattr(launcher, verb), "s1", "k1", *arguments)
        request, _ = await link.receive()
        link.send({"id": request["id"], "ok": False, "error": "not_found", "detail": "gone"})


async def test_a_launcher_that_does_not_answer_is_given_up() -> None:
    async with at_work(patience=0.01) as (launcher, _):
        with pytest.raises(DeadlineError, match="no answer to kill"):
            await launcher.kill("s1")


async def test_descriptors_of_a_late_answer_are_closed() -> None:
    async with at_work(patience=0.01) as (launcher, link):
        before = count_descriptors()
        with pytest.raises(DeadlineError):
            await launcher.open_socket("s1", "inet")
        with socket.socket() as made:
            link.send({"id": 1, "ok": True}, (made.fileno(),))
        await anyio.wait_all_tasks_blocked()
        assert count_descriptors() == before


async def test_a_socket_that_was_made_inside_is_given() -> None:
    async with at_work() as (launcher, link), anyio.create_task_group() as tasks:
        with socket.socket() as made:

            async def ask() -> None:
                with await launcher.open_socket("s1", "inet") as sock:
                    assert sock.family == socket.AF_INET
                    assert not sock.getblocking()

            tasks.start_soon(ask)
            request, _ = await link.receive()
            link.send({"id": request["id"], "ok": True}, (made.fileno(),))


async def test_an_answer_without_its_socket_is_an_error() -> None:
    async with at_work() as (launcher, link), anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(LaunchError, match="0 descriptors"):
                await launcher.open_socket("s1", "inet")

        tasks.start_soon(ask)
        request, _ = await link.receive()
        link.send({"id": request["id"], "ok": True})


async def test_an_exit_is_told_to_its_sandbox_only() -> None:
    async with at_work() as (launcher, link):
        mine, other = Heard(), Heard()
        launcher.listen("s1", mine)
        launcher.listen("s2", other)
        notice = {"notice": "exit", "sandbox": "s1", "kernel": "k1"}
        link.send({**notice, "exit_code": None, "signal": 9, "oom": True})
        link.send({**notice, "sandbox": "s3", "exit_code": 0, "signal": None, "oom": False})
        await wait_until(lambda: bool(mine.exits))
        assert mine.exits == [ExitNotice("s1", "k1", None, 9, oom=True)]
        assert other.exits == []
        launcher.forget("s1")
        launcher.forget("s1")


async def test_the_end_of_the_launcher_is_told_to_all_and_to_later_callers() -> None:
    async with at_work() as (launcher, link):
        heard = Heard()
        launcher.listen("s1", heard)

        async def wait_for_stats() -> None:
            with pytest.raises(UnavailableError, match="the launcher ended"):
                await launcher.stats("s1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_stats)
            await link.receive()
            link.far.close()
        assert heard.gone == ["the launcher ended"]
        with pytest.raises(UnavailableError):
            await launcher.stats("s1")


@pytest.mark.parametrize("datagram", [b"[1", b"7", b'"text"', b'{"notice":"exit"}'])
async def test_garbage_is_the_end_of_the_launcher(datagram: bytes) -> None:
    async with at_work() as (launcher, link):
        heard = Heard()
        launcher.listen("s1", heard)
        link.far.send(datagram)
        await wait_until(lambda: bool(heard.gone))


async def test_many_verbs_wait_for_a_launcher_that_is_slow_to_read() -> None:
    async with at_work() as (launcher, link), anyio.create_task_group() as tasks:
        for number in range(600):
            tasks.start_soon(launcher.kill, f"s{number}")
        for _ in range(600):
            request, _ = await link.receive()
            link.send({"id": request["id"], "ok": True})


async def test_a_launcher_process_gets_its_settings_and_ends_with_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, socket, sys\n"
        "sock = socket.socket(fileno=int(sys.argv[-1]))\n"
        "config = json.loads(sock.recv(65536))\n"
        "facts = {'argv': sys.argv[1:], 'env': dict(os.environ), 'sid': os.getsid(0)}\n"
        "sock.send(json.dumps({**config, **facts}).encode())\n"
        "sock.recv(1)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("HEADRACE_API_KEYS", "tenant:secret")
    link = LauncherProcess.start(
        EngineConfig(
            state_dir=tmp_path / "state", runtime_dir=Path("runtime"), python_prefix=tmp_path
        )
    )
    told = json.loads(link.sock.recv(65536))
    assert told["argv"][0] == "-I"
    assert told["argv"][1].endswith("headrace_guest/__main__.py")
    assert told["argv"][2] == "launcher"
    assert told["mode"] == "auto"
    assert told["state_dir"] == str(tmp_path / "state")
    assert told["runtime_dir"] == str(Path.cwd() / "runtime")
    assert told["python_prefix"] == str(tmp_path)
    assert "HEADRACE_API_KEYS" not in told["env"]
    assert told["sid"] != os.getsid(0)
    await link.aclose()
    await link.aclose()


async def test_a_launcher_process_that_cannot_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    before = count_descriptors()
    with pytest.raises(LaunchError, match="cannot be started"):
        LauncherProcess.start(EngineConfig(state_dir=tmp_path, runtime_dir=tmp_path))
    assert count_descriptors() == before


async def test_a_launcher_process_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.engine.launcher._END_TIMEOUT", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    process = await anyio.to_thread.run_sync(subprocess.Popen, ["sleep", "60"])
    await LauncherProcess(ours, process).aclose()
    assert process.returncode == -9
