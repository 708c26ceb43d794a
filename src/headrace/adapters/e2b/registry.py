"""What this dialect remembers of a sandbox beyond what the engine knows, and how one is found.

All of it lives as long as the sandbox, and in the node that owns it.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from headrace.adapters.base import Scope, note
from headrace.adapters.e2b.access import Purpose, SignedUrl, Tokens
from headrace.adapters.e2b.creations import Creations
from headrace.adapters.e2b.exchange import find_header
from headrace.adapters.e2b.watcher import Watcher
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import (
    HeadraceError,
    SandboxNotFoundError,
    UnauthenticatedError,
    WrongStateError,
)

MAX_DEAD = 1000
"""So many sandboxes that are gone are remembered: their ports say so as this dialect does."""

DEFAULT_TIMEOUT = 300.0
"""How many seconds a sandbox lives that asks for no time; also one that traffic woke."""


@dataclass
class Details:
    """What a client said about a sandbox that only this dialect cares for.

    ``network`` is its network object as it came, ``timeout`` the seconds it last asked for,
    ``is_public`` whether its ports are for everybody who knows their names. ``watchers`` are the
    directories that clients watch by asking again and again, by the ids they know.
    """

    network: Mapping[str, Any] | None = None
    timeout: float = DEFAULT_TIMEOUT
    is_public: bool = True
    waking: anyio.Lock = field(default_factory=anyio.Lock)
    watchers: dict[str, Watcher] = field(default_factory=dict)

    def mask_host(self, port: int) -> str | None:
        """Give the host name that servers inside are told in place of their own, or None."""
        mask = (self.network or {}).get("maskRequestHost")
        return mask.replace("${PORT}", str(port)) if isinstance(mask, str) and mask else None

    def has_tls(self, port: int) -> bool:
        """Say whether the server at a port is to be spoken to with TLS."""
        ports = (self.network or {}).get("httpsPorts")
        return isinstance(ports, list) and port in ports


class Registry:
    """Finds sandboxes for the data plane, whose requests carry no API key.

    ``creations`` are those that clients may ask for again, ``since`` is when all this began.
    """

    def __init__(self, engine: Engine, tokens: Tokens) -> None:
        self.tokens = tokens
        self.creations = Creations()
        self.since = time.time()
        self._engine = engine
        self._details: dict[str, Details] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()

    def details(self, sandbox: Sandbox) -> Details:
        """Give what is remembered of a living sandbox; it may be changed."""
        found = self._details.get(sandbox.id)
        if found is None:
            self._forget_the_dead()
            found = self._details[sandbox.id] = Details()
        return found

    def knows(self, sandbox_id: str) -> bool:
        """Say whether this dialect has had to do with a sandbox, which may be gone."""
        return sandbox_id in self._details or sandbox_id in self._dead

    async def find(self, sandbox_id: str, scope: Scope) -> Sandbox:
        """Give a running sandbox; one that may wake is woken.

        Raises SandboxNotFoundError for everything else, a paused one included.
        """
        sandbox = self._engine.find(sandbox_id)
        note(scope, sandbox_id=sandbox_id)
        if sandbox.state is SandboxState.PAUSED and sandbox.spec.auto_resume:
            await self._wake(sandbox)
        if sandbox.state is not SandboxState.RUNNING:
            raise SandboxNotFoundError(f"the sandbox {sandbox_id!r} is {sandbox.state}")
        return sandbox

    def check_agent_token(self, sandbox: Sandbox, scope: Scope) -> None:
        """Raise UnauthenticatedError unless the request has the token of the sandbox's agent."""
        presented = find_header(scope, b"x-access-token")
        if not self.tokens.is_good(Purpose.AGENT, sandbox.id, presented):
            raise UnauthenticatedError("unauthorized access, please provide a valid access token")

    def has_any_token(self, sandbox: Sandbox, scope: Scope) -> bool:
        """Say whether the request has one of the two tokens of the sandbox."""
        agent = find_header(scope, b"x-access-token")
        return self.has_traffic_token(sandbox, scope) or self.tokens.is_good(
            Purpose.AGENT, sandbox.id, agent
        )

    def has_traffic_token(self, sandbox: Sandbox, scope: Scope) -> bool:
        """Say whether the request has the token that opens ports that are not public."""
        presented = find_header(scope, b"e2b-traffic-access-token")
        return self.tokens.is_good(Purpose.TRAFFIC, sandbox.id, presented)

    def find_signer(self, url: SignedUrl) -> str | None:
        """Give the id of the sandbox with whose token a URL was signed: all are tried."""
        self._forget_the_dead()
        living = [sandbox.id for sandbox in self._engine.list()]
        for sandbox_id in (*living, *reversed(self._dead)):
            if url.is_signed_with(self.tokens.make(Purpose.AGENT, sandbox_id)):
                return sandbox_id
        return None

    async def resume(self, sandbox: Sandbox, seconds: float) -> bool:
        """Wake a sandbox that is paused, to live so many seconds; says whether it was paused.

        Of several requests at the same time one wakes it. Raises what the engine raises.
        """
        async with self.details(sandbox).waking:
            if sandbox.state is not SandboxState.PAUSED:
                return False
            await sandbox.resume()
            await sandbox.set_timeout(seconds)
            return True

    async def _wake(self, sandbox: Sandbox) -> None:
        try:
            await self.resume(sandbox, self.details(sandbox).timeout)
        except WrongStateError:
            return
        except HeadraceError as error:
            raise SandboxNotFoundError(f"it could not be woken: {error.message}") from error

    def _forget_the_dead(self) -> None:
        living = {sandbox.id for sandbox in self._engine.list()}
        for sandbox_id in self._details.keys() - living:
            del self._details[sandbox_id]
            self._dead[sandbox_id] = None
        while len(self._dead) > MAX_DEAD:
            self._dead.popitem(last=False)
