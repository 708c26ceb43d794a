"""Typed identifiers and how they are made.

A sandbox id is 26 characters of ``[a-z2-7]``, a letter first; its first four characters name
the node that owns it. Ids of things inside a sandbox are ``<sandbox id>-<suffix>``, so that any
id leads to the sandbox, and thereby to the node, without a look-up.
"""

import re
from typing import NewType

SandboxId = NewType("SandboxId", str)
ContextId = NewType("ContextId", str)
ExecutionId = NewType("ExecutionId", str)
ProcessId = NewType("ProcessId", str)
WatchId = NewType("WatchId", str)

NODE_LENGTH = 4
SANDBOX_LENGTH = 26
SUFFIX_LENGTH = 16

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_SANDBOX = re.compile(r"[a-z][a-z2-7]{25}")
_NODE = re.compile(r"[a-z][a-z2-7]{3}")


def encode_base32(raw: bytes, length: int) -> str:
    """Turn random bytes into ``length`` characters of ``[a-z2-7]``, a letter first.

    The first character takes its value modulo 26, which costs it a little entropy and makes the
    id usable as a host name label everywhere.
    """
    if len(raw) < length:
        raise ValueError(f"an id of {length} characters needs as many bytes, got {len(raw)}")
    rest = "".join(_ALPHABET[byte & 31] for byte in raw[1:length])
    return _ALPHABET[raw[0] % 26] + rest


def make_node(raw: bytes) -> str:
    """Name a node from at least four random bytes."""
    return encode_base32(raw, NODE_LENGTH)


def make_sandbox_id(node: str, raw: bytes) -> SandboxId:
    """Make the id of a new sandbox of ``node`` from at least 22 random bytes."""
    if not _NODE.fullmatch(node):
        raise ValueError(f"a node is four characters of [a-z2-7], a letter first, got {node!r}")
    return SandboxId(node + encode_base32(raw, SANDBOX_LENGTH - NODE_LENGTH))


def make_suffix(raw: bytes) -> str:
    """Make the part of an id behind the sandbox id from at least 16 random bytes."""
    return encode_base32(raw, SUFFIX_LENGTH)


def is_sandbox_id(text: str) -> bool:
    """Say whether ``text`` has the form of a sandbox id."""
    return _SANDBOX.fullmatch(text) is not None


def sandbox_of(identifier: str) -> SandboxId | None:
    """Give the sandbox that an execution, context or process id belongs to, or None."""
    head = identifier.partition("-")[0]
    return SandboxId(head) if is_sandbox_id(head) else None
