"""The child process that writes result files.

It keeps the ids of the caller of the command line, while the process that talks to sandboxes may
have given them up and holds nothing but a socket to this child. It makes new files in one
directory and can do nothing else.

Request: lengths of name and data, name, data. Answer: a code, the length of a text, the text.
"""

import fcntl
import os
import re
import signal
import socket
import struct
from enum import IntEnum
from typing import NoReturn

from headrace_guest import linux

MAX_FILE = 64 * 1024 * 1024
MAX_TOTAL = 1024 * 1024 * 1024
MAX_FILES = 10_000
REQUEST = struct.Struct("!HI")
ANSWER = struct.Struct("!BH")
_NAME = re.compile(rb"[a-z0-9][a-z0-9.-]{0,63}")
_READ = 64 * 1024


class Answer(IntEnum):
    """How a request ended."""

    WRITTEN = 0
    EXISTS = 1
    FAILED = 2


def start_writer(directory_fd: int) -> tuple[int, socket.socket]:
    """Fork the child for that directory; give its pid and our end, which does not block.

    The child ends when our end is closed. This process must have one thread.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _be_writer(directory_fd, theirs.fileno())
    theirs.close()
    ours.setblocking(False)
    return pid, ours


def _be_writer(directory_fd: int, socket_fd: int) -> NoReturn:
    try:
        _let_go_of_everything_else(directory_fd, socket_fd)
        with socket.socket(fileno=3) as requests:
            FileWriter(4).serve(requests)
    finally:
        os._exit(0)


def _let_go_of_everything_else(directory_fd: int, socket_fd: int) -> None:
    os.setsid()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    wanted = (nothing, nothing, nothing, socket_fd, directory_fd)
    parked = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(wanted)) for fd in wanted]
    for number, source in enumerate(parked):
        os.dup2(source, number)
    linux.close_range(len(wanted))
    if os.geteuid() == 0:
        # The directory may belong to somebody else, which root may write to by this one only.
        linux.limit_bounding_set()
        linux.set_capabilities([linux.CAP_DAC_OVERRIDE], [linux.CAP_DAC_OVERRIDE])
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


class FileWriter:
    """Writes new files into one directory, whatever it is asked; within bounds."""

    def __init__(self, directory_fd: int) -> None:
        self._directory = directory_fd
        self._files = 0
        self._bytes = 0

    def serve(self, requests: socket.socket) -> None:
        """Answer requests until the other end closes or breaks the rules."""
        while header := _receive_exactly(requests, REQUEST.size):
            name_length, size = REQUEST.unpack(header)
            name = _receive_exactly(requests, name_length)
            if name is None or not _NAME.fullmatch(name) or size > MAX_FILE:
                return
            data = _receive_exactly(requests, size)
            if data is None:
                return
            code, detail = self.write(name.decode(), data)
            encoded = detail.encode("utf-8", "replace")[:1000]
            requests.sendall(ANSWER.pack(code, len(encoded)) + encoded)

    def write(self, name: str, data: bytes) -> tuple[Answer, str]:
        """Make a new file; never follow a link, never replace one, leave no half of one."""
        if self._files >= MAX_FILES or self._bytes + len(data) > MAX_TOTAL:
            return Answer.FAILED, f"a run may write {MAX_FILES} files and {MAX_TOTAL} bytes"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o666, dir_fd=self._directory)
        except FileExistsError:
            return Answer.EXISTS, ""
        except OSError as error:
            return Answer.FAILED, str(error.strerror)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            os.unlink(name, dir_fd=self._directory)
            return Answer.FAILED, str(error.strerror)
        finally:
            os.close(fd)
        self._files += 1
        self._bytes += len(data)
        return Answer.WRITTEN, ""


def _receive_exactly(requests: socket.socket, count: int) -> bytes | None:
    """Give ``count`` bytes, or None if the other end closed before."""
    data = bytearray()
    while len(data) < count:
        chunk = requests.recv(min(count - len(data), _READ))
        if not chunk:
            return None
        data += chunk
    return bytes(data)
