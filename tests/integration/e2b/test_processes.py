"""The process service of E2B's dialect over real sockets, with real processes in real sandboxes."""

import base64
import json
import os
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from headrace.engine.engine import Engine
from tests.support.e2b import envelope, open_envelopes
from tests.support.modes import Mode
from tests.support.serving import KEY, InProcessServer, open_server

pytestmark = pytest.mark.sandbox

MIB = 1024 * 1024
PATIENCE = 60.0
SERVICE = "/process.Process/"
SUCCESS = {"exitCode": 0, "exited": True, "status": "exit status 0"}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Stream:
    """The answer of a stream, read message by message."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = response.aiter_raw()
        self._rest = b""
        self.output: dict[str, bytes] = {"stdout": b"", "stderr": b"", "pty": b""}
        self.largest = 0
        self.pid = 0
        self.end: dict[str, Any] | None = None
        self.last: Any = None

    async def step(self) -> bool:
        """Take the next message; says False at the end of the answer."""
        while len(self._rest) < 5 or len(self._rest) < 5 + self._length:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                assert not self._rest
                return False
            self._rest += chunk
        end = 5 + self._length
        message, flags = json.loads(self._rest[5:end]), self._rest[0]
        self._rest = self._rest[end:]
        assert self.last is None, "something came after the end"
        if flags == 2:
            self.last = message
        else:
            self._take(message["event"])
        return True

    async def read_raw(self) -> bytes:
        """Give the rest of the answer as it is."""
        return self._rest + b"".join([chunk async for chunk in self._chunks])

    @property
    def _length(self) -> int:
        length: int = struct.unpack_from(">BI", self._rest)[1]
        return length

    def _take(self, event: dict[str, Any]) -> None:
        ((kind, content),) = event.items()
        assert (kind == "start") is (self.pid == 0)
        if kind == "start":
            self.pid = content["pid"]
        elif kind == "data":
            ((stream, text),) = content.items()
            data = base64.b64decode(text, validate=True)
            self.largest = max(self.largest, len(data))
            self.output[stream] += data
        elif kind == "end":
            self.end = content

    async def wait_for(self, text: bytes, stream: str = "stdout") -> None:
        """Read on until the output has this in it."""
        while text not in self.output[stream]:
            assert await self.step(), self.output

    async def finish(self) -> "Stream":
        """Read to the end."""
        while await self.step():
            pass
        return self


class Sandbox:
    """A sandbox that was made over the control plane, as a client sees it."""

    def __init__(self, http: httpx.AsyncClient, created: dict[str, Any]) -> None:
        self.id: str = created["sandboxID"]
        self._http = http
        self._headers = {
            "e2b-sandbox-id": self.id,
            "e2b-sandbox-port": "49983",
            "x-access-token": created["envdAccessToken"],
        }

    async def unary(self, method: str, message: object) -> httpx.Response:
        """Make a call with one message each way."""
        return await self._http.post(SERVICE + method, json=message, headers=self._headers)

    @asynccontextmanager
    async def open(
        self, method: str, content: bytes | AsyncIterator[bytes], **headers: str
    ) -> AsyncIterator[Stream]:
        """Open a stream and leave it at the end."""
        given = {
            **self._headers,
            "content-type": "application/connect+json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        request = self._http.stream("POST", SERVICE + method, content=content, headers=given)
        async with request as response:
            assert response.status_code == 200
            yield Stream(response)

    @asynccontextmanager
    async def start(
        self, *argv: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> AsyncIterator[Stream]:
        """Start a command and wait for its first message."""
        config = {"cmd": argv[0], "args": argv[1:], **fields.pop("config", {})}
        message = envelope({"process": config, **fields})
        async with self.open("Start", message, **(headers or {})) as stream:
            assert await stream.step()
            yield stream

    async def run(self, *argv: str, **fields: Any) -> Stream:
        """Run a command to its end."""
        async with self.start(*argv, **fields) as stream:
            return await stream.finish()

    async def shell(self, text: str, **fields: Any) -> Stream:
        """Run a line as the SDKs do."""
        return await self.run("/bin/bash", "-l", "-c", text, **fields)


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[InProcessServer]:
    """The service around the engine of the session."""
    async with open_server(tmp_path, engine=engine) as server:
        yield server


@pytest.fixture
async def http(server: InProcessServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key, as the SDKs have it."""
    headers = {"x-api-key": f"e2b_{KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def box(http: httpx.AsyncClient) -> AsyncIterator[Sandbox]:
    """A sandbox, killed after the test."""
    wanted = {"templateID": "code-interpreter", "envVars": {"A": "b"}}
    created = await http.post("/v2/sandboxes", json=wanted)
    assert created.status_code == 201, created.text
    box = Sandbox(http, created.json())
    try:
        yield box
    finally:
        await http.delete(f"/sandboxes/{box.id}")


# --- running --------------------------------------------------------------------------------


async def test_output_arrives_while_the_command_runs(box: Sandbox) -> None:
    line = "for i in 1 2 3; do echo out $i; echo err $i >&2; read; done; exit 3"
    async with box.start("/bin/bash", "-c", line) as stream:
        for number in (b"1", b"2", b"3"):
            # The shell goes on only when it was told to: what came was there before.
            await stream.wait_for(b"out " + number)
            await stream.wait_for(b"err " + number, "stderr")
            step = {"process": {"pid": stream.pid}, "input": {"stdin": encoded(b"\n")}}
            assert (await box.unary("SendInput", step)).json() == {}
        await stream.finish()

    assert stream.output["stdout"] == b"out 1\nout 2\nout 3\n"
    assert stream.end == {
        "exitCode": 3,
        "exited": True,
        "status": "exit status 3",
        "error": "exit status 3",
    }
    assert stream.last == {}


async def test_a_command_has_the_environment_that_the_protocol_promises(box: Sandbox) -> None:
    found = await box.run("/usr/bin/env", "-0", config={"envs": {"B": "c d"}})

    lines = found.output["stdout"].decode().rstrip("\0").split("\0")
    env = dict(line.split("=", 1) for line in lines)
    assert env["PATH"].endswith("/usr/bin:/sbin:/bin")
    assert {name: env[name] for name in ("HOME", "USER", "LOGNAME", "A", "B")} == {
        "HOME": "/home/user",
        "USER": "user",
        "LOGNAME": "user",
        "A": "b",
        "B": "c d",
    }
    assert (env["E2B_SANDBOX"], env["E2B_SANDBOX_ID"]) == ("true", box.id)
    assert env["E2B_TEMPLATE_ID"]


async def test_words_reach_the_command_as_they_are(box: Sandbox) -> None:
    words = ["a b", "$HOME", "*", "", "gr\u00fc\u00dfe", "'\"\\"]

    found = await box.run("/usr/bin/printf", "%s|", *words)

    assert found.output["stdout"].decode() == "".join(f"{word}|" for word in words)


@pytest.mark.parametrize(
    ("user", "cwd", "printed"),
    [
        ("user", None, "/home/user"),
        ("user", "~/work", "/home/user/work"),
        ("user", "work", "/home/user/work"),
        ("user", "/tmp", "/tmp"),
    ],
)
async def test_a_command_runs_where_it_should(
    box: Sandbox, user: str, cwd: str | None, printed: str
) -> None:
    await box.shell("mkdir work")

    headers = {"authorization": f"Basic {encoded(f'{user}:'.encode())}"}
    found = await box.run("/bin/pwd", config={"cwd": cwd}, headers=headers)

    assert found.output["stdout"].decode() == f"{printed}\n"


async def test_root_is_there_in_root_mode_and_refused_in_the_other(
    box: Sandbox, mode: Mode
) -> None:
    headers = {"authorization": f"Basic {encoded(b'root:')}"}
    async with box.open("Start", envelope({"process": {"cmd": "id"}}), **headers) as stream:
        await stream.finish()

    if mode is Mode.ROOT:
        assert stream.output["stdout"].startswith(b"uid=0(root)")
        assert stream.end == SUCCESS
    else:
        assert stream.last["error"]["code"] == "permission_denied"
        assert "root" in stream.last["error"]["message"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cmd": "/bin/ls", "cwd": "/nope"}, "cwd '/nope' does not exist"),
        ({"cmd": "/bin/ls", "cwd": "/etc/passwd"}, "cwd '/etc/passwd' is not a directory"),
        ({"cmd": "/bin/nosuch"}, "/bin/nosuch"),
        ({"cmd": "nosuch"}, "is in no directory of PATH"),
        ({"cmd": "/home/user/lost"}, "/home/user/lost"),
    ],
)
async def test_what_cannot_be_started_is_the_fault_of_the_request(
    box: Sandbox, config: dict[str, str], message: str
) -> None:
    await box.shell("printf '#!/no/such' > ~/lost; chmod +x ~/lost")
    async with box.open("Start", envelope({"process": config})) as stream:
        await stream.finish()

    error = stream.last["error"]
    assert (stream.pid, error["code"]) == (0, "invalid_argument")
    assert message in error["message"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("KILL", "signal: killed"),
        ("TERM", "signal: terminated"),
        ("SEGV", "signal: segmentation fault"),
        ("ABRT", "signal: aborted"),
        ("INT", "signal: interrupt"),
    ],
)
async def test_a_command_that_dies_of_a_signal_says_of_which(
    box: Sandbox, name: str, status: str
) -> None:
    found = await box.run("/bin/bash", "-c", f"kill -{name} $$")

    assert found.end == {"exitCode": -1, "exited": False, "status": status, "error": status}
    assert found.last == {}


async def test_a_command_without_input_reads_its_end_at_once(box: Sandbox) -> None:
    found = await box.run("/bin/cat", stdin=False)

    assert found.end == SUCCESS


async def test_a_hundred_megabytes_pass_in_small_chunks_and_little_memory(box: Sandbox) -> None:
    before = resident()
    peak = 0
    seen = 0
    async with box.start("/usr/bin/head", "-c", "100000000", "/dev/zero") as stream:
        while await stream.step():
            seen += len(stream.output["stdout"])
            stream.output["stdout"] = b""
            peak = max(peak, resident())

    assert seen == 100_000_000
    assert stream.end == SUCCESS
    assert stream.largest <= 32 * 1024
    assert peak - before < 64 * MIB


def resident() -> int:
    """Give the memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- lives ----------------------------------------------------------------------------------


async def list_pids(box: Sandbox) -> list[int]:
    """Give the processes that run."""
    reply = await box.unary("List", {})
    return [each["pid"] for each in reply.json()["processes"]]


async def test_the_deadline_of_the_call_kills_the_process(box: Sandbox) -> None:
    text = "echo $$; sleep 100 & wait"
    async with box.start("/bin/bash", "-c", text, headers={"connect_timeout_ms": "500"}) as stream:
        await stream.finish()

    assert stream.end is None
    assert stream.last["error"]["code"] == "deadline_exceeded"
    assert stream.output["stdout"] == f"{stream.pid}\n".encode()
    assert await list_pids(box) == []
    # Nor do those live on that it had started.
    left = await box.run("/usr/bin/pgrep", "sleep")
    assert (left.output["stdout"], left.end and left.end["exitCode"]) == (b"", 1)


async def test_a_process_outlives_its_stream_and_can_be_joined(box: Sandbox) -> None:
    text = "echo early; while read word; do echo got $word; done"
    async with box.start("/bin/bash", "-c", text, tag="mine") as first:
        await first.wait_for(b"early")

    assert await list_pids(box) == [first.pid]
    async with box.open("Connect", envelope({"process": {"tag": "mine"}})) as second:
        assert await second.step()
        word = {"process": {"pid": first.pid}, "input": {"stdin": encoded(b"late\n")}}
        await box.unary("SendInput", word)
        await second.wait_for(b"got late")
        await box.unary("CloseStdin", {"process": {"pid": first.pid}})
        await second.finish()

    assert second.pid == first.pid
    assert second.output["stdout"] == b"got late\n"
    assert (second.end, second.last) == (SUCCESS, {})

    async with box.open("Connect", envelope({"process": {"pid": first.pid}})) as third:
        await third.finish()
    assert (third.pid, third.output["stdout"], third.end) == (first.pid, b"", SUCCESS)


async def test_a_process_that_is_killed_ends_its_stream_in_order(box: Sandbox) -> None:
    async with box.start("/bin/sleep", "100") as stream:
        kill = {"process": {"pid": stream.pid}, "signal": "SIGNAL_SIGKILL"}
        assert (await box.unary("SendSignal", kill)).json() == {}
        await stream.finish()
        again = await box.unary("SendSignal", kill)

    assert stream.end is not None
    assert (stream.end["exitCode"], stream.end["status"]) == (-1, "signal: killed")
    assert stream.last == {}
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


async def test_the_end_of_the_sandbox_breaks_its_streams_off(
    box: Sandbox, http: httpx.AsyncClient
) -> None:
    async with box.start("/bin/sleep", "100") as stream:
        assert (await http.delete(f"/sandboxes/{box.id}")).status_code == 204
        with pytest.raises(httpx.RemoteProtocolError):
            await stream.finish()

    assert (stream.end, stream.last) == (None, None)
    reply = await box.unary("List", {})
    assert (reply.status_code, reply.json()["message"]) == (502, "The sandbox was not found")


async def test_forty_streams_at_once_keep_their_own(box: Sandbox) -> None:
    found: dict[int, bytes] = {}

    async def run(number: int) -> None:
        text = f"for i in $(seq 20); do echo {number} $i; done"
        found[number] = (await box.run("/bin/bash", "-c", text)).output["stdout"]

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(run, number)

    for number in range(40):
        assert found[number] == b"".join(b"%d %d\n" % (number, i) for i in range(1, 21))


# --- input and terminals --------------------------------------------------------------------


async def test_a_stream_of_input_is_written_while_it_is_sent(box: Sandbox) -> None:
    async with box.start("/bin/cat") as reader:

        async def steps() -> AsyncGenerator[bytes, None]:
            yield envelope({"start": {"process": {"pid": reader.pid}}})
            for number in range(20):
                word = b"word %d\n" % number
                yield envelope({"data": {"input": {"stdin": encoded(word)}}})
                yield envelope({"keepalive": {}})
                # The next one is sent only when this one has come back.
                await reader.wait_for(word)

        async with aclosing(steps()) as content, box.open("StreamInput", content) as stream:
            answer = await stream.read_raw()
        await box.unary("CloseStdin", {"process": {"pid": reader.pid}})
        await reader.finish()

    assert open_envelopes(answer) == [(0, {}), (2, {})]
    assert reader.output["stdout"] == b"".join(b"word %d\n" % number for number in range(20))


async def test_a_large_input_arrives_whole(box: Sandbox) -> None:
    content = os.urandom(6 * MIB)
    async with box.start("/usr/bin/md5sum") as stream:
        message = {"process": {"pid": stream.pid}, "input": {"stdin": encoded(content)}}
        assert (await box.unary("SendInput", message)).json() == {}
        await box.unary("CloseStdin", {"process": {"pid": stream.pid}})
        await stream.finish()
    local = await anyio.run_process(["/usr/bin/md5sum"], input=content)

    assert stream.output["stdout"] == local.stdout


async def test_a_terminal_is_typed_into_and_resized(box: Sandbox) -> None:
    size = {"size": {"cols": 100, "rows": 30}}
    config = {"envs": {"TERM": "xterm-256color", "PS1": "$ "}}
    async with box.start("/bin/bash", "--norc", "-i", pty=size, config=config) as stream:
        process = {"process": {"pid": stream.pid}}

        async def type_in(text: bytes) -> None:
            reply = await box.unary("SendInput", {**process, "input": {"pty": encoded(text)}})
            assert reply.json() == {}

        await type_in(b"stty size; tty; echo $TERM\n")
        await stream.wait_for(b"30 100\r\n", "pty")
        await stream.wait_for(b"/dev/pts/", "pty")
        await stream.wait_for(b"xterm-256color\r\n", "pty")
        larger = {**process, "pty": {"size": {"cols": 120, "rows": 40}}}
        assert (await box.unary("Update", larger)).json() == {}
        await type_in(b"stty size\n")
        await stream.wait_for(b"40 120\r\n", "pty")
        assert (await box.unary("CloseStdin", process)).status_code == 500
        await type_in(b"head -c 100000 /dev/zero | tr '\\0' x; echo done\n")
        await stream.wait_for(b"xdone\r\n", "pty")
        await type_in(b"\x04")
        await stream.finish()

    assert stream.largest <= 16 * 1024
    assert stream.output["pty"].count(b"x" * 100) == 1000
    assert stream.output["stdout"] == b""
    assert stream.end == SUCCESS
