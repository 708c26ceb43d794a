"""A proxy in front of a service that breaks connections in the middle of an answer."""

import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_JOINING = 10.0


@dataclass
class CuttingProxy:
    """Passes bytes on between its unix socket and that of a service.

    The first ``cuts`` connections are broken after a random number of bytes of the answer.
    """

    path: Path
    target: str
    cuts: int
    chance: random.Random
    connections: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the proxy is."""
        return f"unix://{self.path}"

    def accept(self, listening: socket.socket) -> None:
        """Serve until the listening socket is closed."""
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            allowed = self.chance.randrange(300, 3000) if self.connections <= self.cuts else None
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self.target)
            self._sockets += [client, server]
            for source, sink, limit in ((client, server, None), (server, client, allowed)):
                thread = threading.Thread(target=_pass_on, args=(source, sink, limit), daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_JOINING)
            assert not thread.is_alive()
        for each in self._sockets:
            each.close()


def _pass_on(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536 if limit is None else min(limit, 65536)):
            sink.sendall(data)
            if limit is not None:
                limit -= len(data)
                if limit <= 0:
                    linger = struct.pack("ii", 1, 0)
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)  # which ends the thread of the other direction, too


@contextmanager
def cutting_proxy(path: Path, target: str, cuts: int, seed: int) -> Iterator[CuttingProxy]:
    """Run a proxy on the unix socket ``path`` in front of the unix socket ``target``."""
    proxy = CuttingProxy(path, target, cuts, random.Random(seed))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=proxy.accept, args=(listening,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(_JOINING)
            proxy.stop()
