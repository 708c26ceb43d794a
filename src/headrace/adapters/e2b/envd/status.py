"""What the agent of a sandbox says of it over plain HTTP: what it uses, and its environment."""

from collections.abc import Awaitable, Callable, Mapping

from headrace.adapters.e2b.call import Call

PAGES: Mapping[str, Callable[[Call], Awaitable[None]]] = {}
"""What can be read, by path."""
