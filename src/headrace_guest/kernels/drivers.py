"""The languages that have a driver: one class each, made where the program was found."""

import sys
from collections.abc import Callable, Mapping
from functools import partial

from headrace_guest.kernels.bash import Bash
from headrace_guest.kernels.interpreter import Interpreter
from headrace_guest.kernels.java import Java
from headrace_guest.kernels.node import Node
from headrace_guest.kernels.r import R
from headrace_guest.languages import Found
from headrace_guest.protocol import ProtocolError


def _make_node(program: str, *, is_typescript: bool) -> Node:
    node = Node(program, is_typescript=is_typescript)
    try:
        node.compile_ahead()
    except (OSError, ValueError, ProtocolError) as error:
        sys.stderr.write(f"headrace: each start of node takes longer: {error}\n")
    return node


_MAKERS: Mapping[str, Callable[[str], Interpreter]] = {
    "bash": Bash,
    "javascript": partial(_make_node, is_typescript=False),
    "typescript": partial(_make_node, is_typescript=True),
    "r": R,
    "java": Java,
}


def make_interpreters(found: Mapping[str, Found]) -> dict[str, Interpreter]:
    """Make those whose program is there, with all that a start of it need not do again.

    Each reads its own files now, in the fork server, and node compiles them.
    """
    return {
        language: _MAKERS[language](facts.path)
        for language, facts in found.items()
        if facts.path is not None
    }
