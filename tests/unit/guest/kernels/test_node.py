"""What node is given: our sources in one file, and orders as JSON."""

import json

import pytest

from headrace_guest.kernels.drivers import make_interpreters
from headrace_guest.kernels.interpreter import Ends, Order
from headrace_guest.kernels.node import Node
from headrace_guest.languages import Found
from headrace_guest.protocol import ProtocolError


def parts_of(node: Node) -> dict[str, bytes]:
    head, _end, rest = node.program.partition(b"\n")
    parts = {}
    for name, length in json.loads(head).items():
        parts[name], rest = rest[:length], rest[length:]
    assert rest == b""
    return parts


def test_only_typescript_carries_the_compiler() -> None:
    javascript = parts_of(Node("/usr/bin/node", is_typescript=False))
    typescript = parts_of(Node("/usr/bin/node", is_typescript=True))
    assert set(javascript) == {"loop", "rewrite", "values", "acorn"}
    assert set(typescript) == {*javascript, "amaro"}


def test_an_order_survives_as_json() -> None:
    order = Order("'größer 😀'\udc80\u2028", {"A": "\n"}, None)
    message = json.loads(Node("/usr/bin/node", is_typescript=True).encode(order))
    assert message["code"] == order.code
    assert message["env"] == {"A": "\n"}
    assert (message["cwd"], message["typescript"]) == (None, True)


def test_no_word_of_the_command_is_too_long_for_the_kernel() -> None:
    words = Node("/usr/bin/node", is_typescript=True).command(Ends(200, 201, 202, 203))
    assert all(len(word) < 128 * 1024 for word in words)
    assert words[-4:] == ["200", "201", "202", "203"]


def test_a_node_that_compiles_nothing_ahead_is_as_before() -> None:
    node = Node("/bin/false", is_typescript=False)
    program = node.program
    with pytest.raises(ProtocolError, match="node ended"):
        node.compile_ahead()
    assert node.program == program


def test_what_cannot_be_compiled_ahead_is_told_and_costs_no_language(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = Found("/bin/false", "20.12", None, "nodejs")
    assert make_interpreters({"javascript": found}).keys() == {"javascript"}
    assert "each start of node takes longer: node ended" in capfd.readouterr().err
