"""A small HTTP server that does what a test tells it, also what no server should do.

It has threads of its own, so it serves programs of either kind. Requests are read properly;
answers are the bytes that the script sends.
"""

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import h11

KEY = "0123456789abcdef0123456789abcdef01234567"
_JOINING = 10.0


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Hangup(Exception):  # noqa: N818 - no error, the way out of a script
    """The script is done with this connection."""


class Reply:
    """What a script answers with."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise Hangup from error

    def head(self, status: int = 200, **headers: str) -> None:
        """Send the beginning of an answer; underscores in names stand for hyphens."""
        lines = [f"HTTP/1.1 {status} Because"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def json(self, value: object, status: int = 200, **headers: str) -> None:
        """Send a whole answer."""
        body = json.dumps(value).encode()
        length = str(len(body))
        self.head(status, content_type="application/json", content_length=length, **headers)
        self.send(body)

    def error(self, code: str, status: int, **headers: str) -> None:
        """Send an error in our form."""
        error = {"code": code, "message": f"because of {code}", "details": {"fact": 1}}
        self.json({"error": error | {"request_id": "r1"}}, status, **headers)

    def chunk(self, data: bytes) -> None:
        """Send a chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def close(self) -> None:
        """End the connection properly."""
        raise Hangup

    def cut(self) -> None:
        """Break the connection, so that the client sees a reset where there is such a thing."""
        with suppress(OSError):
            self._connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        raise Hangup


Script = Callable[[Asked, Reply], None]


@dataclass
class ScriptedServer:
    """A server on a unix socket or on a loopback port.

    ``asked`` is every request. Scripts may wait for ``released``. ``refuse_early`` answers as soon
    as a request begins, and throws the rest of it away.
    """

    url: str
    script: Script
    listening: socket.socket
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    refuse_early: Callable[[Reply], None] | None = None
    _threads: list[threading.Thread] = field(default_factory=list)
    _open: set[socket.socket] = field(default_factory=set)

    def accept(self) -> None:
        """Serve until the listening socket is closed."""
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(Hangup, OSError, h11.RemoteProtocolError):
                if self.refuse_early is not None:
                    connection.recv(1)
                    self.refuse_early(Reply(connection))
                    # As servers do it: closing at once would take the answer back.
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                    raise Hangup
                while True:
                    # Answers go past it, so each request gets a state machine of its own.
                    asked = _read(connection, h11.Connection(h11.SERVER))
                    self.asked.append(asked)
                    self.script(asked, Reply(connection))
        finally:
            self._open.discard(connection)

    def count_open(self, expected: int) -> int:
        """Give how many connections are open, after waiting until it is as expected."""
        deadline = time.monotonic() + _JOINING
        while len(self._open) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(self._open)

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self.released.set()
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_JOINING)
            assert not thread.is_alive()


def _read(connection: socket.socket, protocol: h11.Connection) -> Asked:
    request, body = None, b""
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            data = connection.recv(65536)
            if not data and request is None:
                raise Hangup
            protocol.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            headers = {name.decode(): value.decode() for name, value in request.headers}
            return Asked(request.method.decode(), request.target.decode(), headers, body)
        else:
            raise Hangup


@contextmanager
def scripted_server(
    script: Script, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedServer]:
    """Serve ``script`` on the unix socket ``path``, or on a free loopback port."""
    if path is None:
        listening = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if tls is None else "https"
        url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        if tls is not None:
            listening = tls.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
    else:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen()
        url = f"unix://{path}"
    server = ScriptedServer(url, script, listening)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(_JOINING)


# --- what a service would say -----------------------------------------------------------------

SANDBOX_ID = "abcdefghijklmnopqrstuvwxyz"
EXECUTION_ID = f"{SANDBOX_ID}-abcdefghijklmnop"


def sandbox_record(**fields: object) -> dict[str, object]:
    """Give a sandbox as the API writes it."""
    limits = {"memory": 1 << 30, "disk": 1 << 29, "inodes": 1000, "processes": 256}
    return {
        "id": SANDBOX_ID,
        "state": "running",
        "template": "code-interpreter",
        "metadata": {"job": "7"},
        "created_at": 1000.5,
        "ends_at": 4600.5,
        "limits": limits | {"open_files": 1024, "cpus": 1.0, "output": 1 << 30},
        "isolation": {"mode": "root", "enforced": ["seccomp"], "memory": "cgroup"},
        "ports_url": "http://{port}-abc.localhost:8000/",
        **fields,
    }


def event_records(lines: int) -> list[dict[str, object]]:
    """Give the events of an execution that prints so many lines."""
    events: list[dict[str, object]] = [
        {
            "type": "started",
            "id": EXECUTION_ID,
            "context_id": f"{SANDBOX_ID}-ctx",
            "execution_count": 1,
        }
    ]
    events += [{"type": "stdout", "text": f"line {number} é\n"} for number in range(lines)]
    events.append({"type": "finished", "reason": "ok", "duration": 0.5, "state_lost": False})
    return [{"seq": seq, "timestamp": 1000.0 + seq, **event} for seq, event in enumerate(events, 1)]


def encode_lines(records: list[dict[str, object]], after: int = 0) -> bytes:
    """Give the lines of the events behind ``after``."""
    behind = (record for record in records if int(str(record["seq"])) > after)
    return b"".join(json.dumps(record).encode() + b"\n" for record in behind)


def position(asked: Asked) -> int:
    """Give the ``after`` of a request for events, 0 for the request that starts them."""
    _, _, query = asked.target.partition("?after=")
    return int(query or "0")
