from typing import Any

import pytest

from headrace.model.ids import SandboxId
from headrace.server.routing import TABLE, Listener, Part, Request, Target, find_row, find_target

ID = SandboxId("abcdefghijklmnopqrstuvwxyz")
TCP = Listener()
HOPX = Listener(hopx_names=frozenset({"api.hopx.example"}))
SOCKET = Listener(dialect=Part.CLOUDFLARE)


def ask(path: str = "/", listener: Listener = TCP, host: str = "localhost", **more: Any) -> Request:
    return Request(listener, host, path, **more)


ROWS: list[tuple[str, Request, Target]] = [
    ("the listener's own dialect", ask("/v1/x", SOCKET), Target(Part.CLOUDFLARE)),
    ("a TLS name of HopX", ask("/v1/x", HOPX, "api.hopx.example"), Target(Part.HOPX)),
    ("E2b-Sandbox-Id", ask("/v1/x", e2b_sandbox="i"), Target(Part.E2B)),
    ("{port}-{id}.", ask("/v1/x", host=f"8080-{ID}.localhost"), Target(Part.PORT, 8080, ID)),
    ("Bearer hxt_", ask("/v1/x", authorization=f"Bearer hxt_{ID}_secret"), Target(Part.HOPX)),
    ("/v1", ask("/v1/sandboxes"), Target(Part.NATIVE)),
    ("/hopx", ask("/hopx/v1/x"), Target(Part.HOPX)),
    ("/cloudflare", ask("/cloudflare/name"), Target(Part.CLOUDFLARE)),
    ("/bridge", ask("/bridge"), Target(Part.CLOUDFLARE)),
    ("/agb", ask("/agb/x"), Target(Part.AGB)),
    ("/api/stream", ask("/api/stream/x"), Target(Part.WEB)),
    ("/files with a signature", ask("/files", query=b"path=x&signature=v1"), Target(Part.E2B)),
    ("/metrics", ask("/metrics"), Target(Part.METRICS)),
    ("/health", ask("/health"), Target(Part.HEALTH)),
    ("/", ask("/"), Target(Part.WEB)),
    ("/assets", ask("/assets/app.js"), Target(Part.WEB)),
    ("the control plane of E2B", ask("/v3/templates"), Target(Part.E2B)),
    ("/mcp", ask("/mcp"), Target(Part.MCP)),
]


@pytest.mark.parametrize(("row", "request_", "target"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row_takes_what_is_meant_for_it(row: str, request_: Request, target: Target) -> None:
    assert find_row(request_) == (row, target)


@pytest.mark.parametrize("port", [49983, 49999])
def test_two_ports_of_every_sandbox_are_those_of_a_dialect(port: int) -> None:
    assert find_target(ask("/x", host=f"{port}-{ID}.localhost")) == Target(Part.E2B, port, ID)


def test_every_row_of_the_table_has_a_test() -> None:
    assert [row.name for row in TABLE] == [row[0] for row in ROWS]


@pytest.mark.parametrize("index", range(4))
def test_the_rows_that_do_not_look_at_the_path_come_in_their_order(index: int) -> None:
    everything: dict[str, Any] = {
        "listener": Listener(Part.AGB, frozenset({f"8080-{ID}.localhost"})),
        "host": f"8080-{ID}.localhost",
        "e2b_sandbox": "i",
        "authorization": f"Bearer hxt_{ID}_secret",
    }
    changes: list[dict[str, Any]] = [
        {},
        {"listener": Listener(None, frozenset({f"8080-{ID}.localhost"}))},
        {"listener": TCP},
        {"listener": TCP, "e2b_sandbox": None},
    ]

    request = ask("/v1", **{**everything, **changes[index]})

    assert find_row(request)[0] == TABLE[index].name


@pytest.mark.parametrize(
    "request_",
    [
        ask("/v1x"),
        ask("/nothing"),
        ask("/files"),
        ask("/files", query=b"path=signature"),
        ask("/files", query=b"xsignature=1"),
        ask("/health/x"),
        ask("//v1/sandboxes"),
        ask(""),
        ask("*"),
    ],
)
def test_everything_else_is_nothing(request_: Request) -> None:
    assert find_row(request_) == ("nothing", Target(Part.NOTHING))


@pytest.mark.parametrize(
    "host",
    [
        f"0-{ID}.localhost",
        f"65536-{ID}.localhost",
        f"080-{ID}.localhost",
        f"8080-{ID}",
        f"8080-{ID[1:]}.localhost",
        f"8080-2{ID[1:]}.localhost",
        f"8080-{ID}x.localhost",
        f"x.8080-{ID}.localhost",
    ],
)
def test_a_host_name_that_only_resembles_a_port_is_none(host: str) -> None:
    assert find_target(ask("/v1", host=host)).part is Part.NATIVE


@pytest.mark.parametrize(
    "authorization",
    ["Bearer e2b_0123456789abcdef", f"Basic hxt_{ID}_x", "Bearer hxt_short_x", f"hxt_{ID}_x"],
)
def test_only_a_token_of_ours_goes_to_an_agent(authorization: str) -> None:
    assert find_target(ask("/v1", authorization=authorization)).part is Part.NATIVE
