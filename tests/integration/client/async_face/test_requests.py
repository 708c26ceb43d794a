"""Plain requests over connections that break: repeated where that is harmless, and only there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import (
    AsyncSandbox,
    ConnectionFailedError,
    DeadlineError,
    LimitExceededError,
    SandboxNotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from headrace.model.errors import HeadraceError
from tests.integration.client.async_face.conftest import Connect, Serve
from tests.support.face_async import sandbox_at
from tests.support.scripted import (
    KEY,
    SANDBOX_ID,
    Asked,
    Reply,
    Script,
    sandbox_record,
    scripted_server,
)

CONTEXT = {"id": "c", "language": "python", "cwd": "/", "state": "idle", "is_default": False}


def failing(times: int, fail: Callable[[Reply], None], answer: object) -> Script:
    """Make a script that fails some times and then answers."""
    failed: list[bool] = []

    def script(asked: Asked, reply: Reply) -> None:
        if len(failed) < times:
            failed.append(True)
            fail(reply)
        else:
            reply.json(answer)

    return script


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def say_busy(reply: Reply) -> None:
    reply.error("unavailable", 503, retry_after="0")


async def test_a_request_names_itself_and_carries_the_key(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: reply.json(sandbox_record()))
    info = await connect(server).info()

    (asked,) = server.asked
    assert info.metadata == {"job": "7"}
    assert asked.target == f"/v1/sandboxes/{SANDBOX_ID}"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["host"] == server.url.removeprefix("http://")
    assert asked.headers["user-agent"].startswith("headrace-python/")


async def test_a_connection_is_used_again(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: reply.json(sandbox_record()))
    sandbox = connect(server)
    for _ in range(5):
        await sandbox.info()

    assert server.connections == 1


async def test_a_connection_that_the_service_closed_is_not_used_again(
    serve: Serve, connect: Connect
) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.json(CONTEXT)
        reply.close()

    server = serve(script)
    sandbox = connect(server)
    for _ in range(5):
        await sandbox.contexts.create()
        assert server.count_open(0) == 0

    assert server.connections == 5


@pytest.mark.parametrize("fail", [Reply.cut, Reply.close, say_busy])
async def test_reading_is_repeated(
    serve: Serve, connect: Connect, fail: Callable[[Reply], None]
) -> None:
    server = serve(failing(2, fail, sandbox_record()))

    assert (await connect(server).info()).id == SANDBOX_ID
    assert len(server.asked) == 3


async def test_reading_is_not_repeated_for_ever(serve: Serve, connect: Connect) -> None:
    server = serve(failing(99, Reply.cut, None))

    with pytest.raises(ConnectionFailedError, match="GET /v1/sandboxes/"):
        await connect(server).info()

    assert len(server.asked) == 4


async def test_what_may_have_been_done_is_not_repeated(serve: Serve, connect: Connect) -> None:
    server = serve(failing(1, Reply.cut, CONTEXT))

    with pytest.raises(ConnectionFailedError, match="unknown whether it was carried out"):
        await connect(server).contexts.create()

    assert len(server.asked) == 1


async def test_what_a_busy_service_refused_is_repeated(serve: Serve, connect: Connect) -> None:
    server = serve(failing(1, say_busy, CONTEXT))

    assert (await connect(server).contexts.create()).id == "c"


async def test_a_service_that_stays_busy_is_given_up(serve: Serve, connect: Connect) -> None:
    server = serve(failing(99, say_busy, None))

    with pytest.raises(UnavailableError, match="because of unavailable"):
        await connect(server).contexts.create()

    assert len(server.asked) == 4


def say_bad_gateway(reply: Reply) -> None:
    reply.head(502, content_type="text/html", content_length="6")
    reply.send(b"<html>")


async def test_a_proxy_without_a_service_behind_it_counts_as_a_cut(
    serve: Serve, connect: Connect
) -> None:
    server = serve(failing(1, say_bad_gateway, sandbox_record()))
    assert (await connect(server).info()).id == SANDBOX_ID

    server = serve(failing(1, say_bad_gateway, CONTEXT))
    with pytest.raises(ConnectionFailedError, match=r"502 \(text/html\).*unknown whether"):
        await connect(server).contexts.create()


async def test_errors_become_the_exceptions_of_their_codes(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: reply.error("sandbox_not_found", 404))

    with pytest.raises(SandboxNotFoundError, match="because of sandbox_not_found") as caught:
        await connect(server).info()

    assert caught.value.code == "sandbox_not_found"
    assert caught.value.details == {"fact": 1, "request_id": "r1"}


async def test_killing_what_is_gone_is_no_error(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: reply.error("sandbox_not_found", 404))

    assert await connect(server).kill() is False


async def test_an_error_in_another_form_is_named_with_what_it_says(
    serve: Serve, connect: Connect
) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.head(401, content_type="text/plain", content_length="9")
        reply.send(b"who\xffare u")

    with pytest.raises(UnauthenticatedError, match=r"401 .*who.are u"):
        await connect(serve(script)).info()


@pytest.mark.parametrize(
    "answer",
    [[], {}, "text", sandbox_record(id=5), sandbox_record(limits=None), sandbox_record(metadata=1)],
)
async def test_nonsense_is_named(serve: Serve, connect: Connect, answer: object) -> None:
    with pytest.raises(ConnectionFailedError, match="not that of a Headrace service"):
        await connect(serve(lambda asked, reply: reply.json(answer))).info()


async def test_what_is_no_http_is_named(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: reply.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))

    with pytest.raises(ConnectionFailedError, match="no HTTP"):
        await connect(server).info()


async def test_an_answer_that_never_comes_is_given_up(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: (server.released.wait(10), None)[1])

    with pytest.raises(DeadlineError, match=r"0\.2 s"):
        await connect(server, request=0.2).info()

    assert len(server.asked) == 1


async def test_an_answer_that_drips_is_given_up(serve: Serve, connect: Connect) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.head(content_type="application/json", content_length="100000")
        while not server.released.wait(0.02):
            reply.send(b" ")

    server = serve(script)

    with pytest.raises(DeadlineError):
        await connect(server, request=0.3).info()


async def test_where_nothing_listens_is_named(tmp_path: Path) -> None:
    with scripted_server(lambda asked, reply: None, tmp_path / "s") as server:
        sandbox = sandbox_at(server.url)

    with pytest.raises(ConnectionFailedError, match=f"unix://{tmp_path}/s: .*is the service runn"):
        await sandbox.contexts.create()


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    with scripted_server(
        lambda asked, reply: reply.json(sandbox_record()), tmp_path / "s"
    ) as server:
        found = await AsyncSandbox.connect(SANDBOX_ID, url=server.url, api_key=KEY)
        await found.aclose()

    assert found.id == SANDBOX_ID
    assert server.asked[0].headers["host"] == "localhost"


async def test_a_prefix_of_the_url_comes_before_every_path(serve: Serve) -> None:
    server = serve(lambda asked, reply: reply.json(sandbox_record()))
    found = await AsyncSandbox.connect(SANDBOX_ID, url=f"{server.url}/code/", api_key=KEY)
    await found.aclose()

    assert server.asked[0].target == f"/code/v1/sandboxes/{SANDBOX_ID}"


async def test_the_key_is_nowhere_to_be_seen(serve: Serve, connect: Connect) -> None:
    sandbox = connect(serve(failing(99, Reply.cut, None)))

    with pytest.raises(HeadraceError) as caught:
        await sandbox.info()

    assert KEY not in repr(sandbox) + str(caught.value) + repr(caught.value.details)


async def test_all_pages_of_a_list_are_read(serve: Serve) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        following = None if "after=two" in asked.target else "two"
        reply.json({"sandboxes": [sandbox_record()] * 2, "next": following})

    server = serve(script)
    listing = AsyncSandbox.list(metadata={"a b": "c&d"}, url=server.url, api_key=KEY)
    found = [info.id async for info in listing]

    assert found == [SANDBOX_ID] * 4
    assert server.asked[0].target == "/v1/sandboxes?metadata=a+b%3Dc%26d"


# --- bodies -----------------------------------------------------------------------------------


def written(asked: Asked, reply: Reply) -> None:
    reply.json({"path": "/f", "size": len(asked.body)})


@pytest.mark.parametrize("size", [0, 5, 1_000_000])
async def test_a_local_file_is_sent_in_pieces_and_with_progress(
    serve: Serve, connect: Connect, tmp_path: Path, size: int
) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    local = tmp_path / "local"
    local.write_bytes(content[:size])
    told: list[tuple[int, int | None]] = []

    server = serve(written)
    sandbox = connect(server)
    progress = lambda done, total: told.append((done, total))  # noqa: E731 - as users write it
    assert await sandbox.files.write("f", local, mode=0o640, progress=progress) == size

    assert server.asked[0].body == content[:size]
    assert server.asked[0].headers["content-length"] == str(size)
    assert server.asked[0].target.endswith("/files/content?path=f&mode=640&parents=true")
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert not size or told[-1] == (size, size)


async def test_pieces_are_sent_as_they_come(serve: Serve, connect: Connect) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b""
        yield b"two"

    server = serve(written)
    assert await connect(server).files.write("f", pieces()) == 6

    assert server.asked[0].body == b"onetwo"
    assert server.asked[0].headers["transfer-encoding"] == "chunked"


async def test_what_can_be_read_again_is_sent_again(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"content")
    server = serve(failing(1, Reply.cut, {"path": "/f", "size": 7}))

    assert await connect(server).files.write("f", tmp_path / "local") == 7
    assert [asked.body for asked in server.asked] == [b"content"] * 2


async def test_what_can_be_read_only_once_is_not_sent_again(serve: Serve, connect: Connect) -> None:
    server = serve(failing(1, Reply.cut, {"path": "/f", "size": 3}))

    with pytest.raises(ConnectionFailedError):
        await connect(server).files.write("f", iter([b"one"]))


async def test_nothing_is_appended_twice(serve: Serve, connect: Connect) -> None:
    server = serve(failing(1, Reply.cut, {"path": "/f", "size": 3}))

    with pytest.raises(ConnectionFailedError, match="unknown"):
        await connect(server).files.write("f", b"one", append=True)


async def test_a_body_that_is_refused_early_gives_the_reason(
    serve: Serve, connect: Connect
) -> None:
    server = serve(lambda asked, reply: None)
    server.refuse_early = lambda reply: reply.error("limit_exceeded", 413)

    with pytest.raises(LimitExceededError, match="because of limit_exceeded"):
        await connect(server).files.write("f", bytes(30_000_000))


def content(data: bytes, promised: int) -> Callable[[Reply], None]:
    def send(reply: Reply) -> None:
        reply.head(content_type="application/octet-stream", content_length=str(promised))
        reply.send(data)
        reply.close()

    return send


async def test_a_download_that_breaks_begins_again_and_appears_when_complete(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 2000
    broken, shorter = content(data, len(data) + 1), content(data[:100_000], 100_000)
    scripts = iter([broken, shorter])
    server = serve(lambda asked, reply: next(scripts)(reply))
    told: list[tuple[int, int | None]] = []

    size = await connect(server).files.download(
        "f", tmp_path / "copy", progress=lambda done, total: told.append((done, total))
    )

    assert size == 100_000
    assert (tmp_path / "copy").read_bytes() == data[:100_000]
    assert told[-1] == (100_000, 100_000)
    assert len(server.asked) == 2


async def test_a_download_that_fails_leaves_nothing(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    server = serve(lambda asked, reply: content(b"some", 10)(reply))

    with pytest.raises(ConnectionFailedError):
        await connect(server).files.download("f", tmp_path / "copy")

    assert names_in(tmp_path) == []


async def test_a_file_that_is_read_in_pieces_is_not_read_on_after_a_cut(
    serve: Serve, connect: Connect
) -> None:
    server = serve(lambda asked, reply: content(b"some", 10)(reply))

    async def read() -> bytes:
        async with connect(server).files.open("f") as reader:
            assert reader.size == 10
            return b"".join([piece async for piece in reader])

    with pytest.raises(ConnectionFailedError, match="broke off"):
        await read()


async def test_text_that_is_none_is_named(serve: Serve, connect: Connect) -> None:
    server = serve(lambda asked, reply: content(b"abc\xff", 4)(reply))

    with pytest.raises(HeadraceError, match="f is not utf-8: invalid start byte 0xff at byte 3"):
        await connect(server).files.read_text("f")
