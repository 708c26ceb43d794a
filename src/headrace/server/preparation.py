"""What a service makes before it gives root up: its claim, its keys, its sockets."""

from contextlib import ExitStack
from pathlib import Path

from headrace.engine.places import Places
from headrace.engine.privileges import ServiceIds
from headrace.model.errors import InvalidRequestError
from headrace.model.specs import DEFAULT_TENANT
from headrace.server.auth import Keyring
from headrace.server.directories import KEYS, LOCAL_KEY
from headrace.server.discovery import Claim, Discovery
from headrace.server.hosts import is_loopback
from headrace.server.keys import (
    KeyFile,
    KeyRecord,
    hash_key,
    parse_configured,
    read_or_make_local_key,
)
from headrace.server.listeners import Door, bind_tcp, bind_unix, load_tls
from headrace.server.settings import ServerTopic

_OPEN_NOTE = "others can read what is sent: set server.tls_cert, or put a proxy with TLS in front"


class Preparation:
    """Made by `prepare`, which the engine calls at the right moment; `close` undoes it.

    A service that is private shares its directories: it claims nothing, is announced nowhere and
    knows only the keys of its settings.
    """

    def __init__(self, server: ServerTopic, places: Places, *, is_private: bool) -> None:
        self.doors: list[Door] = []
        self.discovery: Discovery | None = None
        self.key_place = "given by server.api_keys"
        self.notes: list[str] = []
        self._server = server
        self._places = places
        self._is_private = is_private
        self._keys: list[KeyRecord] = parse_configured(
            secret.get_secret_value() for secret in server.api_keys
        )
        self._file: KeyFile | None = None
        self._stack = ExitStack()
        if is_private and not self._keys:
            raise InvalidRequestError("a private server needs a key in HEADRACE_API_KEYS")

    def prepare(self, ids: ServiceIds | None) -> None:
        """Claim the directories, make files of keys, bind sockets, read certificates.

        ``ids`` are those of the service where this process is root still.
        """
        if not self._is_private:
            self._stack.callback(Claim(self._places.runtime).close)
            self._prepare_keys(self._places.state, ids)
            self.discovery = self._stack.enter_context(Discovery(self._places.runtime, ids))
        self._open_doors(ids)

    def open_keyring(self) -> Keyring:
        """Give all keys that are good."""
        return Keyring(self._keys, self._file)

    def close(self) -> None:
        """Let go of everything."""
        for door in self.doors:
            door.close()
        self._stack.close()

    def _prepare_keys(self, state: Path, ids: ServiceIds | None) -> None:
        self._file = KeyFile(state / KEYS, ids)
        self._file.share()
        if not self._keys:
            path = state / LOCAL_KEY
            key = read_or_make_local_key(path)
            self._keys.append(KeyRecord("local", DEFAULT_TENANT, "", hash_key(key), 0.0))
            self.key_place = f"in {path}"

    def _open_doors(self, ids: ServiceIds | None) -> None:
        server = self._server
        if server.tcp:
            tls = None
            if server.tls_cert is not None and server.tls_key is not None:
                tls = load_tls(server.tls_cert, server.tls_key)
            self.doors.append(Door(bind_tcp(server.host, server.port), tls=tls))
            if tls is None and not is_loopback(server.host):
                self.notes.append(_OPEN_NOTE)
        if server.socket is not None:
            self.doors.append(bind_unix(server.socket, ids, is_private=self._is_private))
