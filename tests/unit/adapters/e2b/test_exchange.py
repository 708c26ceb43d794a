"""Requests are read within bounds, and refused with words that name the fault."""

import json
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from headrace.adapters.e2b import exchange as exchange_module
from headrace.adapters.e2b.errors import BodyTimeoutError, ClientGoneError
from headrace.adapters.e2b.exchange import Exchange, check_json, check_values, find_header
from headrace.adapters.e2b.settings import E2bSettings
from headrace.model.errors import InvalidRequestError, LimitExceededError
from tests.support.native import Conversation


class Thing(BaseModel):
    """A body."""

    name: str = "none"
    parts: list[int] = []


def make_exchange(
    *pieces: bytes, query: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> tuple[Exchange, Conversation]:
    conversation = Conversation(list(pieces) or [b""])
    scope: dict[str, Any] = {"type": "http", "query_string": query, "headers": list(headers)}
    settings = E2bSettings(max_body=10)
    return Exchange(scope, conversation.receive, conversation.send, settings), conversation


# --- bodies -----------------------------------------------------------------------------------


async def test_a_body_is_read_once_and_kept() -> None:
    exchange, _ = make_exchange(b"1234", b"", b"567")

    assert await exchange.read_all() == b"1234567"
    assert await exchange.read_all() == b"1234567"


async def test_a_body_may_have_as_much_as_the_settings_say() -> None:
    exchange, _ = make_exchange(b"12345", b"67890")
    assert len(await exchange.read_all()) == 10

    exchange, _ = make_exchange(b"12345", b"67890", b"1")
    with pytest.raises(LimitExceededError, match="more than 10 bytes"):
        await exchange.read_all()


async def test_pieces_come_as_they_are_and_never_empty() -> None:
    exchange, _ = make_exchange(b"", b"a", b"", b"b", b"")

    assert [piece async for piece in exchange.read_bytes()] == [b"a", b"b"]


async def test_a_body_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "BODY_TIMEOUT", 0.01)
    exchange, conversation = make_exchange(b"a", b"b")
    conversation.withheld = 1

    with pytest.raises(BodyTimeoutError):
        await exchange.read_all()


async def test_a_client_that_leaves_ends_the_reading() -> None:
    exchange, conversation = make_exchange(b"a", b"b")
    conversation.withheld = 1
    conversation.disconnect()

    with pytest.raises(ClientGoneError):
        await exchange.read_all()


async def test_an_empty_body_is_an_empty_object() -> None:
    exchange, _ = make_exchange()

    assert await exchange.read_body(Thing) == Thing()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b'{"name": 7}', "the body: name: "),
        (b'{"parts": [1, "x"]}', "the body: parts.1: "),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_the_place_of_a_fault_is_named(data: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_json(Thing, data)

    assert text in caught.value.message
    assert len(caught.value.message) < 500


def test_many_faults_are_counted_and_not_described() -> None:
    data = json.dumps({"parts": ["x"] * 5000}).encode()

    with pytest.raises(InvalidRequestError, match=r"has 5000 faults"):
        check_json(Thing, data)


def test_millions_of_texts_are_refused_before_they_are_looked_at() -> None:
    data = b'{"x":[' + b'"",' * 100_000 + b'""]}'

    with pytest.raises(InvalidRequestError, match="texts"):
        check_json(Thing, data)
    assert check_json(Thing, b'{"name": "' + b'\\"' * 200_000 + b'"}').name == '"' * 200_000


# --- heads ------------------------------------------------------------------------------------


def test_the_first_of_several_headers_counts() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"\xfc"), (b"a", b"2")]}

    assert find_header(scope, b"a") == "1"
    assert find_header(scope, b"b") == "ü"
    assert find_header(scope, b"c") is None


def test_a_query_is_unescaped() -> None:
    exchange, _ = make_exchange(query=b"a=1&a=%C3%BC+x&b=&c")

    assert exchange.query() == {"a": ["1", "ü x"], "b": [""], "c": [""]}


@pytest.mark.parametrize("query", [b"a=%FF", b"\xff", b"&".join([b"a=1"] * 101)])
def test_a_query_that_cannot_be_read_is_refused(query: bytes) -> None:
    exchange, _ = make_exchange(query=query)

    with pytest.raises(InvalidRequestError, match="the query"):
        exchange.query()


def test_values_of_a_query_are_checked() -> None:
    with pytest.raises(InvalidRequestError, match=r"the query: parts: "):
        check_values(Thing, {"parts": "x"})


# --- answers ----------------------------------------------------------------------------------


async def test_nothing_has_neither_type_nor_length() -> None:
    exchange, conversation = make_exchange()

    await exchange.answer_nothing()

    assert (conversation.status, conversation.headers, conversation.body) == (204, {}, b"")
    assert exchange.status == 204


async def test_a_value_is_answered_as_json() -> None:
    exchange, conversation = make_exchange()

    await exchange.answer([1], 201, (b"x-a", b"b"))

    assert conversation.status == 201
    assert conversation.headers == {
        "x-a": "b",
        "content-type": "application/json",
        "content-length": "3",
    }
    assert conversation.body == b"[1]"


# --- clients that leave -----------------------------------------------------------------------


async def test_work_is_done_while_the_client_is_there() -> None:
    exchange, _ = make_exchange()
    await exchange.read_all()
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert await exchange.unless_gone(work)
    assert done == [1]


async def test_work_ends_when_the_client_leaves() -> None:
    exchange, conversation = make_exchange()
    await exchange.read_all()

    async def leave_and_wait() -> None:
        conversation.disconnect()
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        assert not await exchange.unless_gone(leave_and_wait)


async def test_a_failure_of_the_work_comes_out_as_it_is() -> None:
    exchange, _ = make_exchange()
    await exchange.read_all()

    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await exchange.unless_gone(fail)
