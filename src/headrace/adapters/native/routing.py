"""The table of routes, and finding one; a tree of path segments, so that a search costs little."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from headrace.adapters.native.errors import MethodNotAllowedError
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import BYTES
from headrace.model.errors import HeadraceError, NotFoundError

Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    """One way in which a request may be answered: what for, and the shape by media type."""

    description: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """One operation. ``path`` has ``{name}`` for a segment that is handed over by that name.

    ``body`` is the shape of the JSON body, ``raw_body`` says that the body is bytes. ``failures``
    are the errors that may be answered besides those that any request may meet.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    replies: Mapping[int, Reply]
    failures: tuple[type[HeadraceError], ...] = ()
    body: type[BaseModel] | None = None
    body_is_optional: bool = False
    raw_body: bool = False
    query: type[BaseModel] | None = None
    request_headers: tuple[str, ...] = ()

    @property
    def is_negotiated(self) -> bool:
        """Say whether ``Accept`` has a say; a file is what it is."""
        return bool(self.produces) and BYTES not in self.produces

    @cached_property
    def produces(self) -> tuple[str, ...]:
        """The media types of the answers to what could be done, the preferred one first."""
        found = [
            kind for status, reply in self.replies.items() if status < 300 for kind in reply.content
        ]
        return tuple(dict.fromkeys(found))


class _Node:
    """What may come behind a beginning of a path."""

    __slots__ = ("by_name", "parameter", "parameter_name", "routes")

    def __init__(self) -> None:
        self.by_name: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.parameter_name = ""
        self.routes: dict[str, Route] = {}


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def find(self, method: str, segments: list[str]) -> tuple[Route, dict[str, str]]:
        """Give the route and what its path's parameters are.

        Raises NotFoundError, or MethodNotAllowedError that lists the methods there are.
        """
        node, parameters = self._walk(segments)
        route = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if route is None:
            raise MethodNotAllowedError(method, self._allowed(node))
        return route, parameters

    def methods(self, segments: list[str]) -> list[str]:
        """Give the methods there are for a path; raises NotFoundError."""
        return self._allowed(self._walk(segments)[0])

    def _add(self, route: Route) -> None:
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

    def _walk(self, segments: list[str]) -> tuple[_Node, dict[str, str]]:
        node = self._root
        parameters: dict[str, str] = {}
        for segment in segments:
            child = node.by_name.get(segment)
            if child is None and node.parameter is not None and segment:
                child = node.parameter
                parameters[node.parameter_name] = segment
            if child is None:
                raise NotFoundError("there is nothing at this path")
            node = child
        if not node.routes:
            raise NotFoundError("there is nothing at this path")
        return node, parameters

    @staticmethod
    def _allowed(node: _Node) -> list[str]:
        more = ["HEAD"] if "GET" in node.routes else []
        return sorted([*node.routes, *more, "OPTIONS"])


def split_path(raw: bytes) -> list[str]:
    """Give the decoded segments of a path as it was sent; a slash that is escaped does not split.

    What is no UTF-8 gets U+FFFD, which no name of ours contains.
    """
    if b"%" not in raw:
        return raw[1:].decode("utf-8", "replace").split("/")
    return [unquote_to_bytes(part).decode("utf-8", "replace") for part in raw[1:].split(b"/")]
