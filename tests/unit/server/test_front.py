"""The front with parts that only say that they were reached; no sockets."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from headrace.adapters.base import note, origin, request_id
from headrace.server.app import make_rules
from headrace.server.front import Front, Phase, shown_path
from headrace.server.routing import Listener, Part
from headrace.server.settings import E2bTopic, ServerTopic, Settings

ID = "abcdefghijklmnopqrstuvwxyz"
PAGE = "https://page.example"


@dataclass
class Meter:
    seen: list[tuple[str, str, int]] = field(default_factory=list)

    def observe_request(self, dialect: str, method: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((dialect, method, status))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        text: str = orjson.loads(self.body)["error"]["message"]
        return text


class Service:
    """A front whose parts answer with their name and the origin that they were told."""

    def __init__(self, **settings: Any) -> None:
        self.meter = Meter()
        self.phase = Phase()
        self.fails = False
        parts = {part: self._make_part(part) for part in Part}
        e2b = settings.pop("e2b", {})
        rules = make_rules(Settings(server=ServerTopic(**settings), e2b=E2bTopic(**e2b)))
        self._front = Front(parts, rules, self.phase, self.meter)

    def _make_part(self, part: Part) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if self.fails:
                raise ZeroDivisionError("a secret of the request")
            note(scope, sandbox_id="s1")
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                return
            body = f"{part} {origin(scope)} {request_id(scope)}".encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        return app

    async def get(
        self,
        path: str = "/v1/x",
        *,
        host: str | None = "localhost:8000",
        method: str = "GET",
        is_unix: bool = False,
        client: str = "127.0.0.1",
        scheme: str = "http",
        **headers: str,
    ) -> Answer:
        fields = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        if host is not None:
            fields.append((b"host", host.encode("latin-1")))
        is_websocket = scheme in ("ws", "wss")
        scope: dict[str, Any] = {
            "type": "websocket" if is_websocket else "http",
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"signature=secret",
            "headers": fields,
            "client": None if is_unix else (client, 5),
            "extensions": {"websocket.http.response": {}},
        }
        if not is_websocket:
            scope["method"] = method
        answer = Answer(0, {}, b"")

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect" if is_websocket else "http.request", "body": b""}

        async def send(message: Any) -> None:
            if message["type"].endswith(("response.start", "accept")):
                answer.status = message.get("status", 101)
                answer.headers = {k.decode(): v.decode() for k, v in message.get("headers", ())}
            else:
                answer.body += message.get("body", b"")

        await self._front.door(Listener(), is_unix=is_unix)(scope, receive, send)
        return answer


@pytest.fixture(autouse=True)
def _keep_structlog() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


# --- names ------------------------------------------------------------------------------------


async def test_a_request_gets_a_name_that_its_answer_and_its_part_know() -> None:
    one, two = await Service().get(), await Service().get()

    assert one.body.decode().split()[2] == one.headers["x-request-id"]
    assert one.headers["x-request-id"] != two.headers["x-request-id"]


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:8000", "localhost.evil.com", "127.0.0.1.nip.io", "10.0.0.1"]
)
async def test_a_host_name_that_is_not_ours_is_refused_with_the_setting_that_adds_it(
    host: str,
) -> None:
    answer = await Service().get(host=host)

    assert answer.status == 403
    assert repr(host.partition(":")[0]) in answer.message
    assert "server.host_names" in answer.message


@pytest.mark.parametrize("path", ["/health", "/metrics", "/", "/v1/x", "/sandboxes"])
async def test_no_path_is_exempt_from_the_check(path: str) -> None:
    assert (await Service().get(path, host="evil.com")).status == 403


@pytest.mark.parametrize("host", [None, "", "a b", "localhost:x", "localhost, evil.com", "x" * 300])
async def test_a_host_that_is_none_is_a_bad_request(host: str | None) -> None:
    assert (await Service().get(host=host)).status == 400


async def test_on_a_unix_socket_the_host_does_not_matter() -> None:
    for host in ("evil.com", "", None, "a b"):
        assert (await Service().get(host=host, is_unix=True)).status == 200


async def test_a_sandbox_may_be_named_below_every_name_of_ours() -> None:
    service = Service(public_url="https://code.example.com")

    for host in ("localhost", "code.example.com"):
        answer = await service.get(host=f"8080-{ID}.{host}")
        assert answer.body.startswith(b"ports ")
    assert (await service.get(host=f"8080-{ID}.evil.com")).status == 403


# --- the origin that is handed out ------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "request_", "expected"),
    [
        ({}, {"host": "LOCALHOST:8000"}, "http://localhost:8000"),
        ({}, {"scheme": "https", "host": "localhost"}, "https://localhost"),
        ({"public_url": "https://a.example/"}, {}, "https://a.example"),
        ({}, {"is_unix": True, "host": None}, "http://localhost"),
        (
            {},
            {"x_forwarded_proto": "https", "x_forwarded_host": "b.localhost"},
            "http://localhost:8000",
        ),
        (
            {"trusted_proxies": "127.0.0.0/8"},
            {"x_forwarded_proto": "https", "x_forwarded_host": "b.localhost"},
            "https://b.localhost",
        ),
        (
            {"trusted_proxies": "127.0.0.1"},
            {"x_forwarded_host": "b.localhost", "x_forwarded_port": "8443"},
            "http://b.localhost:8443",
        ),
        (
            {"trusted_proxies": "127.0.0.1"},
            {
                "x_forwarded_proto": "https",
                "x_forwarded_host": "b.localhost",
                "x_forwarded_port": "443",
            },
            "https://b.localhost",
        ),
        (
            {"trusted_proxies": "127.0.0.1"},
            {"x_forwarded_host": "evil.localhost, b.localhost"},
            "http://b.localhost",
        ),
        (
            {"trusted_proxies": "unix"},
            {"is_unix": True, "x_forwarded_proto": "https", "x_forwarded_host": "b.example"},
            "https://b.example",
        ),
        ({"trusted_proxies": "10.0.0.1"}, {"x_forwarded_proto": "https"}, "http://localhost:8000"),
    ],
)
async def test_urls_begin_with_what_the_client_uses(
    settings: dict[str, str], request_: dict[str, Any], expected: str
) -> None:
    answer = await Service(**settings).get(**request_)

    assert answer.body.decode().split()[1] == expected


async def test_a_name_that_a_proxy_passes_on_is_checked_like_any_other() -> None:
    service = Service(trusted_proxies="127.0.0.1")

    assert (await service.get(x_forwarded_host="evil.com")).status == 403


# --- web pages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (PAGE, 403),
        ("null", 403),
        (f"http://8080-{ID}.localhost:8000", 403),
        ("http://localhost:9000", 403),
        ("https://localhost:8000", 403),
        ("http://localhost:8000", 101),
        ("http://LOCALHOST:8000", 101),
    ],
)
async def test_only_our_own_pages_may_open_a_websocket(page: str, status: int) -> None:
    assert (await Service().get(scheme="ws", origin=page)).status == status


async def test_programs_and_named_pages_may_open_a_websocket() -> None:
    service = Service(cors_origins=PAGE, public_url="https://a.example")

    assert (await service.get(scheme="ws")).status == 101
    assert (await service.get(scheme="ws", origin=PAGE)).status == 101
    assert (await service.get(scheme="ws", origin="https://a.example")).status == 101
    assert (await service.get(scheme="ws", origin="https://b.example")).status == 403


async def test_a_server_in_a_sandbox_decides_itself_about_pages() -> None:
    service = Service(cors_origins=PAGE)
    host = f"8080-{ID}.localhost"

    assert (await service.get(host=host, scheme="ws", origin="https://any")).status == 101
    answer = await service.get(host=host, method="OPTIONS", access_control_request_method="PUT")
    assert answer.body.startswith(b"ports ")
    assert "access-control-allow-origin" not in (await service.get(host=host, origin=PAGE)).headers


async def test_without_a_setting_no_page_is_told_anything() -> None:
    service = Service()

    asked = await service.get(method="OPTIONS", origin=PAGE, access_control_request_method="POST")

    assert asked.body.startswith(b"native ")
    assert not [name for name in asked.headers if name.startswith("access-control")]


async def test_a_named_page_is_told_what_it_may() -> None:
    service = Service(cors_origins=PAGE)

    asked = await service.get(method="OPTIONS", origin=PAGE, access_control_request_method="POST")
    done = await service.get(origin=PAGE)
    other = await service.get(origin="https://other.example")

    assert asked.status == 204
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert done.headers["access-control-allow-origin"] == PAGE
    assert "headrace-execution-id" in done.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other.headers


async def test_the_pages_of_one_dialect_are_told_nothing_by_the_others() -> None:
    service = Service(cors_origins=PAGE)

    for path in ("/health", "/sandboxes", "/hopx/v1/sandboxes"):
        answer = await service.get(path, origin=PAGE)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_pages_of_the_dialect_of_e2b_have_a_setting_of_their_own() -> None:
    service = Service(e2b={"cors_origins": PAGE})
    asked: dict[str, Any] = {
        "method": "OPTIONS",
        "origin": PAGE,
        "access_control_request_method": "POST",
    }

    sandbox = await service.get(
        "/execute", access_control_request_headers="content-type, E2b-Sandbox-Id", **asked
    )
    control = await service.get("/v2/sandboxes", **asked)
    host = await service.get("/execute", host=f"49999-{ID}.localhost", **asked)
    done = await service.get("/execute", origin=PAGE, e2b_sandbox_id=ID)
    native = await service.get(origin=PAGE)

    for answer in (sandbox, control, host):
        assert answer.status == 204
        assert answer.headers["access-control-allow-headers"] == "authorization, *"
    assert done.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-origin" not in native.headers


# --- ends -------------------------------------------------------------------------------------


async def test_on_its_way_down_only_the_state_is_told() -> None:
    service = Service()
    service.phase.is_draining = True

    refused = await service.get()

    assert refused.status == 503
    assert refused.headers["connection"] == "close"
    assert (await service.get("/health")).body.startswith(b"health ")


async def test_a_defect_is_told_by_the_name_of_the_request_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service()
    service.fails = True

    answer = await service.get()

    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert answer.headers["x-request-id"] in answer.message
    assert "ZeroDivisionError" in caplog.text
    assert service.meter.seen == [("native", "GET", 500)]


# --- the log line -----------------------------------------------------------------------------


async def test_one_line_says_what_became_of_a_request() -> None:
    service = Service()

    with capture_logs() as lines:
        answer = await service.get("/v1/sandboxes/s1", authorization="Bearer secret")

    (line,) = lines
    assert line.pop("duration") >= 0
    assert line == {
        "event": "request answered",
        "log_level": "info",
        "method": "GET",
        "path": "/v1/sandboxes/s1",
        "status": 200,
        "dialect": "native",
        "request_id": answer.headers["x-request-id"],
        "client": "127.0.0.1",
        "sandbox_id": "s1",
    }
    assert service.meter.seen == [("native", "GET", 200)]


async def test_questions_for_the_state_are_quiet_unless_they_fail() -> None:
    service = Service()

    with capture_logs() as lines:
        await service.get("/health")
        await service.get("/health", host="evil.com")
        await service.get("/v1/x", scheme="ws")

    assert [line["log_level"] for line in lines] == ["debug", "info", "info"]
    assert service.meter.seen == [
        ("health", "GET", 200),
        ("health", "GET", 403),
        ("native", "WEBSOCKET", 101),
    ]


@pytest.mark.parametrize(
    ("path", "part", "shown"),
    [
        ("/v1/sandboxes/s/ports/80/token/abc", Part.NATIVE, "/v1/sandboxes/s/ports/80/…"),
        ("/v1/sandboxes/s/ports/80/a\nb", Part.NATIVE, "/v1/sandboxes/s/ports/80/…"),
        ("/token/abc", Part.PORT, ""),
        ("/" + "x" * 300, Part.NOTHING, "/" + "x" * 199 + "…"),
        ("/v1/sandboxes", Part.NATIVE, "/v1/sandboxes"),
    ],
)
def test_what_belongs_to_a_server_in_a_sandbox_is_not_in_the_log(
    path: str, part: Part, shown: str
) -> None:
    assert shown_path(path, part) == shown
