"""The network of a sandbox: its own loopback and nothing else."""

import itertools
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.engine.sandbox import Sandbox
from tests.security.prelude import attempt, name_of
from tests.security.probes import Place, Probe, outside, probe_in
from tests.support.running import run_python


@dataclass(frozen=True)
class HostListeners:
    """Where the host listens during a test, in every way that code could try."""

    tcp4: int
    tcp6: int
    abstract: str
    path: str


@pytest.fixture
def listeners() -> Iterator[HostListeners]:
    """Listeners of the host."""
    name = f"headrace-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = f"{directory}/listener"
        Path(directory).chmod(0o755)
        socks = [
            socket.create_server(("0.0.0.0", 0)),
            socket.create_server(("::1", 0), family=socket.AF_INET6),
            _listen_unix("\0" + name),
            _listen_unix(path),
        ]
        Path(path).chmod(0o777)
        ports = [sock.getsockname()[1] for sock in socks[:2]]
        yield HostListeners(ports[0], ports[1], name, path)
        for sock in socks:
            sock.close()


def _listen_unix(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(address)
    sock.listen(8)
    return sock


def connect_everywhere(tcp4: int, tcp6: int, abstract: str, path: str) -> dict[str, str]:
    """Connect to each of the host's listeners, and to the world."""

    def connect(family: int, address: object) -> str:
        with socket.socket(family) as sock:
            sock.settimeout(5)
            return attempt(sock.connect, address)

    return {
        "loopback": connect(socket.AF_INET, ("127.0.0.1", tcp4)),
        "any": connect(socket.AF_INET, ("0.0.0.0", tcp4)),
        "loopback6": connect(socket.AF_INET6, ("::1", tcp6)),
        "mapped": connect(socket.AF_INET6, ("::ffff:127.0.0.1", tcp4)),
        "abstract": connect(socket.AF_UNIX, "\0" + abstract),
        "path": connect(socket.AF_UNIX, path),
    }


async def test_listeners_of_the_host_cannot_be_reached(
    probe: Probe, listeners: HostListeners
) -> None:
    """Threats (26, 27): databases and control sockets that trust their own machine."""
    arguments = (listeners.tcp4, listeners.tcp6, listeners.abstract, listeners.path)
    assert set(outside(connect_everywhere, *arguments).values()) == {"ok"}
    verdict = await probe(connect_everywhere, *arguments)
    assert verdict.pop("path") == "ENOENT"
    assert set(verdict.values()) == {"ECONNREFUSED"}


def connect_outside(addresses: list[str]) -> dict[str, str]:
    """Connect to addresses that are not loopback: a host's own, a metadata service's, a name's."""
    answers = {}
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(5)
            answers[address] = attempt(sock.connect, (address, 80))
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            answers[f"udp {address}"] = attempt(sock.sendto, b"x", (address, 53))
    return answers


def _addresses_of_the_host() -> list[str]:
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    pairs = itertools.pairwise(lines)
    local = {line.split()[-1] for line, kind in pairs if "host LOCAL" in kind and "|--" in line}
    return sorted(address for address in local if not address.startswith("127."))


async def test_nothing_but_loopback_is_routed(probe: Probe) -> None:
    """Threat (26): the internet, the host's own addresses, a cloud's metadata service."""
    addresses = ["192.0.2.1", "169.254.169.254", "10.0.0.1", "2001:db8::1", "224.0.0.1"]
    verdict = await probe(connect_outside, [*addresses, *_addresses_of_the_host()])
    assert set(verdict.values()) <= {"ENETUNREACH", "EADDRNOTAVAIL"}, verdict


def interfaces() -> dict[str, object]:
    """List the interfaces and routes, and look up a name."""
    routes = Path("/proc/self/net/route").read_text().splitlines()[1:]
    try:
        socket.getaddrinfo("example.invalid", 80)
        found = "found"
    except socket.gaierror:
        found = "not found"
    return {"names": [n for _, n in socket.if_nameindex()], "routes": routes, "dns": found}


async def test_the_only_interface_is_loopback(probe: Probe) -> None:
    """Threat: an interface that was moved in, or left behind."""
    assert await probe(interfaces) == {"names": ["lo"], "routes": [], "dns": "not found"}


def add_interface() -> list[str]:
    """Ask the kernel, by route netlink, for a dummy, a veth and a changed loopback."""
    import struct

    def ask(kind: bytes | None) -> str:
        info = b""
        if kind is not None:
            name = struct.pack("HH", 4 + len(kind), 1) + kind + b"\0" * (-len(kind) % 4)
            info = struct.pack("HH", 4 + len(name), 18) + name
        index, flags, change = (0, 0, 0) if kind else (1, 0, 1)
        body = struct.pack("BxHiII", 0, 0, index, flags, change) + info
        head = struct.pack("IHHII", 16 + len(body), 16, 0x5 | (0x600 if kind else 0), 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.settimeout(5)
            sock.send(head + body)
            number = struct.unpack_from("i", sock.recv(4096), 16)[0]
        return "ok" if number == 0 else name_of(-number)

    return [ask(b"dummy"), ask(b"veth"), ask(None)]


async def test_no_interface_can_be_made_or_changed(probe: Probe) -> None:
    """Threat: root of the network namespace builds itself a way out."""
    assert await probe(add_interface) == ["EPERM"] * 3
    assert outside(add_interface, in_namespaces=True)[2] == "ok"


def own_server() -> list[str]:
    """Serve and connect on loopback, on a high and a low port."""
    answers = []
    for port in (0, 80):
        with socket.create_server(("127.0.0.1", port)) as server:
            address = server.getsockname()
            client = threading.Thread(target=lambda: socket.create_connection(address).close())  # noqa: B023
            client.start()
            connection, _ = server.accept()
            connection.close()
            client.join()
            answers.append("ok")
    return answers


async def test_loopback_itself_works(probe: Probe) -> None:
    """The control for all of the above: there is a network, and it is the sandbox's own."""
    assert await probe(own_server) == ["ok", "ok"]


async def test_siblings_do_not_share_a_network(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat: another tenant's web server, or its abstract unix socket."""
    code = (
        "import socket\n"
        "tcp = socket.create_server(('127.0.0.1', 8123))\n"
        "unix = socket.socket(socket.AF_UNIX); unix.bind('\\0sibling'); unix.listen()\n"
        "path = socket.socket(socket.AF_UNIX); path.bind('/tmp/sibling'); path.listen()\n"
    )
    await run_python(other, code)
    arguments = (8123, 8123, "sibling", "/tmp/sibling")
    own = await probe_in(other, Place.PROCESS, connect_everywhere, *arguments)
    assert (own["loopback"], own["abstract"], own["path"]) == ("ok", "ok", "ok")
    verdict = await probe_in(sandbox, Place.KERNEL, connect_everywhere, *arguments)
    assert verdict.pop("path") == "ENOENT"
    assert set(verdict.values()) == {"ECONNREFUSED"}


def kinds_of_sockets() -> str:
    """Give the types of the unix sockets that we hold."""
    answers = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            sock = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
        with sock:
            if sock.family == socket.AF_UNIX:
                answers.add(sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    return ",".join(str(kind) for kind in sorted(answers))


async def test_no_datagram_socket_of_the_launcher_is_held(kernel_probe: Probe) -> None:
    """Threat: the sequenced-packet socket on which the launcher takes its orders."""
    seqpacket = int(socket.SOCK_SEQPACKET)
    assert str(seqpacket) not in (await kernel_probe(kinds_of_sockets)).split(",")
