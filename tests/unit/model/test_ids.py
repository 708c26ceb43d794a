"""Identifiers lead to their sandbox and their node."""

import re

import pytest

from headrace.model.ids import is_sandbox_id, make_node, make_sandbox_id, make_suffix, sandbox_of

RAW = bytes(range(40))


def test_a_sandbox_id_begins_with_its_node() -> None:
    node = make_node(b"\xff\x01\x02\x03")
    made = make_sandbox_id(node, RAW)
    assert made.startswith(node)
    assert re.fullmatch(r"[a-z][a-z2-7]{25}", made)
    assert is_sandbox_id(made)


@pytest.mark.parametrize("node", ["", "abc", "2abc", "ABCD", "abcde", "ab-d"])
def test_a_name_that_is_no_node_is_refused(node: str) -> None:
    with pytest.raises(ValueError, match="a node is four characters"):
        make_sandbox_id(node, RAW)


def test_too_few_random_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs as many bytes"):
        make_suffix(b"abc")


def test_every_first_byte_gives_a_letter() -> None:
    assert {make_node(bytes([byte, 0, 0, 0]))[0] for byte in range(256)} == set(
        "abcdefghijklmnopqrstuvwxyz"
    )


def test_an_id_leads_to_its_sandbox() -> None:
    sandbox = make_sandbox_id("abcd", RAW)
    assert sandbox_of(f"{sandbox}-{make_suffix(RAW)}") == sandbox
    assert sandbox_of(sandbox) == sandbox
    assert sandbox_of("nonsense-x") is None
