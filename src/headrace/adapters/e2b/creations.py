"""Creations that a client may ask for again: the same key gives the same sandbox while it lives."""

import re
from collections.abc import Awaitable, Callable

import anyio

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import InvalidRequestError

_KEY = re.compile(r"[a-z0-9-]{1,255}", re.ASCII)


class _Creation:
    """One sandbox that was asked for by a key; ``users`` counts the requests that are here."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.users = 0
        self.sandbox: Sandbox | None = None

    @property
    def is_needed(self) -> bool:
        """Say whether somebody is making the sandbox, or it lives."""
        return self.users > 0 or (self.sandbox is not None and self.sandbox.is_alive)


class Creations:
    """Knows as many keys as there are sandboxes that were made by one, and requests with one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Creation] = {}

    def __len__(self) -> int:
        return len(self._known)

    async def once(self, tenant: str, key: str, make: Callable[[], Awaitable[Sandbox]]) -> Sandbox:
        """Give the living sandbox that this tenant asked for by this key, or make it.

        Of several requests at the same time one makes it; if that fails the next one tries.
        """
        creation = self._known.get((tenant, key))
        if creation is None:
            self._forget()
            creation = self._known[(tenant, key)] = _Creation()
        creation.users += 1
        try:
            async with creation.lock:
                if creation.sandbox is None or not creation.sandbox.is_alive:
                    creation.sandbox = await make()
                return creation.sandbox
        finally:
            creation.users -= 1
            if not creation.is_needed:
                self._known.pop((tenant, key), None)

    def _forget(self) -> None:
        for name in [name for name, each in self._known.items() if not each.is_needed]:
            del self._known[name]


def check_key(text: str) -> str:
    """Give the value of ``Idempotency-Key``; raises InvalidRequestError."""
    if not _KEY.fullmatch(text):
        raise InvalidRequestError(
            f"Idempotency-Key must be 1 to 255 of a-z, 0-9 and '-', got {text[:100]!r}"
        )
    return text
