"""Tables of routes, and finding one: a tree of path segments."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from headrace.adapters.e2b.errors import MethodNotAllowedError
from headrace.model.errors import NotFoundError

C = TypeVar("C")


@dataclass(frozen=True)
class Route(Generic[C]):
    """One operation. ``path`` has ``{name}`` for a segment that is handed over by that name."""

    method: str
    path: str
    handler: Callable[[C], Awaitable[None]]


class _Node(Generic[C]):
    """What may come behind a beginning of a path."""

    __slots__ = ("by_name", "parameter", "parameter_name", "routes")

    def __init__(self) -> None:
        self.by_name: dict[str, _Node[C]] = {}
        self.parameter: _Node[C] | None = None
        self.parameter_name = ""
        self.routes: dict[str, Route[C]] = {}


class Router(Generic[C]):
    """Finds the route of a request; its handlers all take a ``C``."""

    def __init__(self, routes: Iterable[Route[C]]) -> None:
        self._root: _Node[C] = _Node()
        for route in routes:
            self._add(route)

    def find(self, method: str, raw_path: bytes) -> tuple[Route[C], dict[str, str]]:
        """Give the route and what its path's parameters are.

        Raises NotFoundError, or MethodNotAllowedError that lists the methods there are.
        """
        node, parameters = self._root, {}
        for segment in split_path(raw_path):
            child = node.by_name.get(segment)
            if child is None and node.parameter is not None and segment:
                child = node.parameter
                parameters[node.parameter_name] = segment
            if child is None:
                raise NotFoundError("there is nothing at this path")
            node = child
        if not node.routes:
            raise NotFoundError("there is nothing at this path")
        route = node.routes.get(method)
        if route is None:
            allowed = sorted(node.routes)
            raise MethodNotAllowedError(
                f"{method[:20]} is not possible here, only {', '.join(allowed)}", allowed
            )
        return route, parameters

    def _add(self, route: Route[C]) -> None:
        node = self._root
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                if node.parameter_name not in ("", segment[1:-1]):
                    raise ValueError(f"{route.path}: {segment} has another name elsewhere")
                node.parameter_name = segment[1:-1]
                node = node.parameter
            else:
                node = node.by_name.setdefault(segment, _Node())
        if route.method in node.routes:
            raise ValueError(f"{route.method} {route.path} is there twice")
        node.routes[route.method] = route


def split_path(raw: bytes) -> list[str]:
    """Give the decoded segments of a path as it was sent; a slash that is escaped does not split.

    What is no UTF-8 gets U+FFFD, which no name of ours contains.
    """
    return [unquote_to_bytes(part).decode("utf-8", "replace") for part in raw[1:].split(b"/")]
