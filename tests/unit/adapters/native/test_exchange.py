"""What a client sends is checked at the edge, within bounds, and refused by name."""

import json
from pathlib import Path

import anyio
import pytest

from headrace.adapters.native import exchange
from headrace.adapters.native.app import NativeSettings
from headrace.adapters.native.errors import UnsupportedMediaTypeError
from headrace.adapters.native.exchange import check_body, check_media_type, check_query
from headrace.adapters.native.schemas import (
    AtPath,
    Body,
    CreateSandbox,
    Execute,
    ListSandboxes,
    StartProcess,
)
from headrace.model.errors import InvalidRequestError
from tests.support.native import Client, NativeService, open_native

SETTINGS = NativeSettings(max_body=1000, max_upload=500)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "line 1 column 0"),
        (b"{", "line 1 column 1"),
        (b'{\n  "code": x}', "line 2 column 11"),
        (b'{"code": "a"} x', "trailing characters at line 1 column 15"),
        (b"[]", "should be an object"),
        (b"null", "should be an object"),
        (b"\xff", "line 1 column 1"),
        (b'{"code": "\xff"}', "line 1 column 11"),
        (b'{"code": "\\ud800"}', "line 1 column"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"code": "a", "timeout": NaN}', "timeout: input should be a finite number"),
        (b'{"code": "a", "timeout": 1e999}', "timeout: input should be a finite number"),
        (b'{"code": "a", "timeout": -1}', "timeout: input should be greater than 0"),
        (b'{"code": "a", "timeout": true}', "timeout: input should be a valid number"),
        (b'{"code": "a", "timeout": "1"}', "timeout: input should be a valid number"),
        (b'{"code": "a", "timeout": ' + b"9" * 5000 + b"}", "number out of range"),
        (b'{"code": 1}', "code: input should be a valid string"),
        (b'{"cod": "a"}', "code: Field required"),
        (b'{"code": "a", "colour": 1}', "colour: there is no such field"),
        (b'{"code": "a", "env": {"A": 1}}', "env.A: input should be a valid string"),
        (b'{"code": "a", "language": "cobol"}', "language: input should be 'python'"),
        (b'{"code": "a", "on_disconnect": "kill"}', "on_disconnect: input should be"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_name(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_body(Execute, body)

    assert caught.value.message.startswith("the body: ")
    assert said in caught.value.message


def test_a_field_deep_inside_is_named() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_body(CreateSandbox, b'{"limits": {"memory": 1, "gold": 2}}')

    assert caught.value.details["errors"] == [
        {
            "field": "limits.memory",
            "message": "input should be greater than or equal to 67108864",
        },
        {"field": "limits.gold", "message": "there is no such field"},
    ]


def test_a_refusal_is_short_however_much_is_wrong() -> None:
    body = b"{" + b",".join(b'"%s%d": 1' % (b"x" * 300, n) for n in range(1000)) + b"}"

    with pytest.raises(InvalidRequestError) as caught:
        check_body(Execute, body)

    assert len(str(caught.value.details)) < 5000


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Execute, b"{" + b",".join(b'"%d":0' % n for n in range(60_000)) + b"}"),
        (Execute, b'{"code":"","env":{' + b",".join(b'"A%d":0' % n for n in range(60_000)) + b"}}"),
        (StartProcess, b'{"argv":[' + b"0," * 500_000 + b"0]}"),
        (StartProcess, b'{"argv":[' + b'"",' * 500_000 + b'""]}'),
    ],
)
def test_a_body_of_very_many_values_is_refused_at_once(model: type[Body], body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_body(model, body)

    assert len(caught.value.message) < 200
    assert len(caught.value.details) <= 1


def test_long_code_full_of_quotes_is_code() -> None:
    code = """print("a", 'b')\n""" * 50_000

    assert check_body(Execute, json.dumps({"code": code}).encode()).code == code


@pytest.mark.parametrize(
    "query",
    [
        b"path=a&path=b",
        b"path=%FF",
        b"path=a&colour=1",
        b"",
        b"path=",
        b"path=a&user=nobody",
        b"&".join(b"a%d=1" % n for n in range(200)),
        b"path=\xff",
    ],
)
def test_a_query_that_does_not_fit_is_refused(query: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="query"):
        check_query(AtPath, query)


def test_a_query_is_read() -> None:
    assert check_query(AtPath, b"path=a%20b+c%C3%A4&user=root") == AtPath(
        path="a b cä", user="root"
    )
    many = check_query(ListSandboxes, b"metadata=a%3Db&metadata=c%3D&limit=7")
    assert many.wanted_metadata() == {"a": "b", "c": ""}
    assert many.limit == 7


@pytest.mark.parametrize("item", ["a", "=b", ""])
def test_metadata_to_look_for_has_name_and_value(item: str) -> None:
    with pytest.raises(InvalidRequestError, match="NAME=VALUE"):
        ListSandboxes.model_validate({"metadata": [item]}).wanted_metadata()


@pytest.mark.parametrize(
    "value",
    [None, "application/json", "Application/JSON ; charset=UTF-8", "application/merge-patch+json"],
)
def test_json_may_say_so(value: str | None) -> None:
    check_media_type(value)


@pytest.mark.parametrize(
    "value",
    ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
def test_what_says_that_it_is_no_json_is_refused(value: str) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        check_media_type(value)


async def test_a_body_in_pieces_is_one_body(client: Client, sandbox_id: str) -> None:
    reply = await client.request(
        "POST",
        f"/v1/sandboxes/{sandbox_id}/executions",
        content=[b'{"co', b"", b'de": "out hi"', b"}"],
        accept="application/json",
    )

    assert reply.json()["stdout"] == "hi\n"


async def test_another_media_type_answers_415(client: Client, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/executions"

    reply = await client.post(path, {"code": ""}, content_type="text/plain")

    assert (reply.status, reply.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_an_optional_body_may_be_missing(client: Client, body: bytes) -> None:
    reply = await client.request(
        "POST", "/v1/sandboxes", content=body, content_type="application/json"
    )

    assert reply.status == 201


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        ([b'{"code": "' + b"x" * 1000], {}),
        ([b'{"code": "', b"x" * 500, b"x" * 500, b""], {}),
        ([b"", b""], {"content_length": "1001"}),
        ([b"", b""], {"content_length": "9" * 300}),
    ],
)
async def test_a_body_that_is_too_large_answers_413(
    tmp_path: Path, content: list[bytes], headers: dict[str, str]
) -> None:
    async with open_native(tmp_path, settings=SETTINGS) as service:
        sandbox_id = await service.client.create()
        path = f"/v1/sandboxes/{sandbox_id}/executions"

        reply = await service.client.request("POST", path, content=content, **headers)

        assert (reply.status, reply.code) == (413, "limit_exceeded")
        assert reply.json()["error"]["details"] == {"maximum": 1000}


async def test_a_client_that_leaves_in_the_middle_of_its_body_gets_nothing_done(
    service: NativeService,
) -> None:
    before = [sandbox.id for sandbox in service.engine.list()]
    async with anyio.create_task_group() as tasks:
        begun = service.client.begin(tasks, "POST", "/v1/sandboxes", content=[b"{}", b" "])
        begun.withheld = 1
        begun.disconnect()
        silent = service.client.begin(tasks, "POST", "/v1/sandboxes", content=[])
        silent.disconnect()

    assert (begun.status, silent.status) == (0, 0)
    assert [sandbox.id for sandbox in service.engine.list()] == before


async def test_a_body_that_never_comes_answers_408(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BODY_TIMEOUT", 0.01)

    reply = await client.request("POST", "/v1/sandboxes", content=[])

    assert (reply.status, reply.code) == (408, "body_timeout")
    assert reply.headers["connection"] == "close"
