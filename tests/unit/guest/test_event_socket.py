"""The kernel's end of the event socket over a real socket pair."""

import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from headrace_guest.capture import Fence, move_high
from headrace_guest.event_socket import EventSocket
from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    FrameReader,
    ProtocolError,
    decode_body,
    encode_frame,
)


@dataclass
class _Pair:
    host: socket.socket
    events: EventSocket
    fence: Fence

    def receive_all(self, count: int) -> list[object]:
        reader = FrameReader(MAX_GUEST_FRAME)
        messages: list[object] = []
        while len(messages) < count:
            data = self.host.recv(65536)
            messages += [decode_body(body)["n"] for body in reader.feed(data)]
        return messages


@pytest.fixture
def pair() -> Iterator[_Pair]:
    host, guest = socket.socketpair()
    host.settimeout(10)
    stdout, stderr = os.pipe(), os.pipe()
    fd = move_high(guest.fileno())
    guest.close()
    fence = Fence(stdout[1], stderr[1], fd)
    events = EventSocket(fd, fence)
    yield _Pair(host, events, fence)
    events.disown()
    host.close()
    for end in (*stdout, *stderr):
        os.close(end)


def test_a_message_arrives_and_the_fence_knows(pair: _Pair) -> None:
    pair.events.send({"n": 1})
    assert pair.fence.has_sent
    assert pair.receive_all(1) == [1]


def test_frames_of_the_host_are_taken_one_by_one(pair: _Pair) -> None:
    pair.host.sendall(encode_frame({"n": 1}) + encode_frame({"n": 2}))
    assert pair.events.receive() == {"n": 1}
    assert pair.events.has_input()
    pair.events.wait()
    assert pair.events.receive() == {"n": 2}
    assert not pair.events.has_input()


def test_half_a_frame_is_nothing_yet_but_counts_as_input(pair: _Pair) -> None:
    frame = encode_frame({"n": 1})
    pair.host.sendall(frame[:5])
    assert pair.events.receive() is None
    assert pair.events.has_input()
    pair.host.sendall(frame[5:])
    assert pair.events.receive() == {"n": 1}


def test_the_host_s_end_is_an_eof(pair: _Pair) -> None:
    pair.host.shutdown(socket.SHUT_WR)
    pair.events.wait()
    with pytest.raises(EOFError):
        pair.events.receive()


def test_a_too_long_message_is_refused_before_anything_is_sent(pair: _Pair) -> None:
    with pytest.raises(ProtocolError):
        pair.events.send({"n": "x" * MAX_GUEST_FRAME})
    pair.events.send({"n": 2})
    assert pair.receive_all(1) == [2]


def test_frames_of_many_threads_stay_whole(pair: _Pair) -> None:
    def send(text: str) -> None:
        for _ in range(20):
            pair.events.send({"n": text * 50_000})

    threads = [threading.Thread(target=send, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    received = pair.receive_all(60)
    for thread in threads:
        thread.join()
    assert sorted(map(str, received)) == sorted(c * 50_000 for c in "abc" for _ in range(20))


def test_a_frame_that_a_signal_cut_short_is_finished_first(pair: _Pair) -> None:
    def fail(*_: object) -> None:
        raise TimeoutError("in the middle of a frame")

    former = signal.signal(signal.SIGALRM, fail)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError):
            pair.events.send({"n": "x" * 4_000_000})  # more than the socket takes
    finally:
        signal.signal(signal.SIGALRM, former)
    sender = threading.Thread(target=pair.events.send, args=({"n": "next"},))
    sender.start()
    assert pair.receive_all(2) == ["x" * 4_000_000, "next"]
    sender.join()


def test_a_signal_wakes_the_wait_and_the_handler_of_user_code_is_kept(pair: _Pair) -> None:
    class _EnoughError(Exception):
        pass

    def stop(*_: object) -> None:
        raise _EnoughError

    former = signal.signal(signal.SIGUSR1, stop)
    theirs = socket.socketpair()
    theirs[0].setblocking(False)
    signal.set_wakeup_fd(theirs[0].fileno())
    try:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(_EnoughError):
            pair.events.wait()
        assert signal.set_wakeup_fd(-1) == theirs[0].fileno()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, former)
        for end in theirs:
            end.close()


def test_a_closed_or_replaced_descriptor_is_noticed(pair: _Pair) -> None:
    assert pair.events.is_intact
    null = os.open("/dev/null", os.O_RDWR)
    fd = next(fd for fd in range(200, 300) if _is_socket(fd))
    os.dup2(null, fd)
    os.close(null)
    assert not pair.events.is_intact


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def test_a_disowned_socket_says_nothing(pair: _Pair) -> None:
    pair.events.disown()
    assert not pair.events.is_mine
    pair.events.send({"n": 1})
    assert pair.host.recv(10) == b""


def test_descriptors_are_moved_out_of_the_way_and_not_inherited() -> None:
    reader, writer = os.pipe()
    high = move_high(reader)
    assert high >= 200
    assert not os.get_inheritable(high)
    for fd in (reader, writer, high):
        os.close(fd)
