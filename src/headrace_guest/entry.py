"""A fork server's first step: enter the root that it will know, then start again inside it.

The second start is what makes it forget the host: what it imports, shows in tracebacks and has
in its memory comes from the new root only.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, NoReturn

from headrace_guest import isolate, mounts
from headrace_guest.skeleton import Layer

MAX_MESSAGE = 64 * 1024


def main(control_fd: int) -> NoReturn:
    """Read the launcher's first datagram, build the root it describes, and begin anew in it."""
    boot = read_boot(control_fd)
    layers = [read_layer(fields) for fields in boot["layers"]]
    root = isolate.ForkServerRoot(boot["at"], layers, boot["guest"], boot["cache"])
    isolate.enter_fork_server_root(root, is_rootless=boot["is_rootless"])
    told = {
        "role": boot["role"],
        "is_rootless": boot["is_rootless"],
        "path_prefix": boot["path_prefix"],
        "layers": [asdict(forget_source(layer)) for layer in layers],
    }
    memory = os.memfd_create("boot", 0)
    os.write(memory, json.dumps(told).encode())
    os.lseek(memory, 0, os.SEEK_SET)
    os.set_inheritable(control_fd, True)
    program = f"{isolate.GUEST_PATH}/headrace_guest/__main__.py"
    words = [sys.executable, "-I", program, "inside", str(control_fd), str(memory)]
    os.execve(sys.executable, words, dict(os.environ))  # noqa: S606 - our own program


def read_boot(control_fd: int) -> Mapping[str, Any]:
    """Read the launcher's first datagram."""
    control = socket.socket(fileno=control_fd)
    try:
        boot: Mapping[str, Any] = json.loads(control.recv(MAX_MESSAGE))
    finally:
        control.detach()
    return boot


def read_layer(fields: Mapping[str, Any]) -> Layer:
    """Read a layer that was turned into JSON."""
    owner = fields["owner"]
    return Layer(**{**fields, "owner": tuple(owner) if owner else None})


def forget_source(layer: Layer) -> Layer:
    """Replace the host's paths of a layer by those in the fork server's root."""
    place = f"{mounts.LOWERS}/{layer.name}"
    return replace(layer, source=place, mask=None if layer.mask is None else f"{place}.mask")
