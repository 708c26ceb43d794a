"""Cross-origin requests of web pages: refused by browsers unless the settings name their origin.

Credentials are never allowed: cookies mean nothing here, a page must send a key by itself.
"""

from collections.abc import Iterable

from headrace.adapters.native.answers import Answer
from headrace.model.errors import InvalidRequestError
from headrace.server.hosts import check_url

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = b"authorization, content-type, accept, last-event-id, range"
_ANY_HEADER = b"authorization, *"
_ANSWER_HEADERS = (
    b"location, headrace-execution-id, headrace-process-id, server-timing, x-request-id, "
    b"content-range, retry-after"
)
_MAX_AGE = b"600"

Headers = list[tuple[bytes, bytes]]


class Cors:
    """The origins that may use an API from web pages.

    ``setting`` is where they are named. A dialect whose clients send headers of their own takes
    ``any_header``.
    """

    def __init__(
        self,
        origins: Iterable[str],
        setting: str = "server.cors_origins",
        *,
        any_header: bool = False,
    ) -> None:
        names = set(origins)
        self.setting = setting
        self._request_headers = _ANY_HEADER if any_header else _REQUEST_HEADERS
        self._is_open = "*" in names
        self._origins = {check_url(setting, name) for name in names - {"*"}}
        if self._is_open and self._origins:
            raise InvalidRequestError(f"{setting}: '*' stands alone")

    def __bool__(self) -> bool:
        return self._is_open or bool(self._origins)

    def allows(self, origin: str) -> bool:
        """Say whether pages of this origin are welcome."""
        return self._is_open or origin.lower() in self._origins

    def headers(self, origin: str | None) -> Headers:
        """Give what to add to an answer to a page of that origin."""
        if not self:
            return []
        vary: Headers = [] if self._is_open else [(b"vary", b"origin")]
        if origin is None or not self.allows(origin):
            return vary
        allowed = b"*" if self._is_open else origin.encode("latin-1")
        return [
            *vary,
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _ANSWER_HEADERS),
        ]

    def preflight(self) -> Answer:
        """Give the answer to a browser that asks beforehand; `headers` come on top."""
        return Answer(
            204,
            headers=(
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", self._request_headers),
                (b"access-control-max-age", _MAX_AGE),
            ),
        )
