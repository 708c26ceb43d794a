"""Ranges of ids are never shared, and a crash gives them back."""

import os
import select
from pathlib import Path

import pytest

from headrace_guest import linux
from headrace_guest.idranges import (
    FIRST_ID,
    RANGE,
    SLOTS,
    Block,
    NoRangeError,
    is_alive,
    make_user_namespace,
)


def test_two_launchers_never_get_the_same_block(tmp_path: Path) -> None:
    first, second = Block.claim(tmp_path), Block.claim(tmp_path)
    assert first.first == FIRST_ID
    assert second.first == FIRST_ID + SLOTS * RANGE
    first.close()
    second.close()


def test_a_closed_block_may_be_claimed_again(tmp_path: Path) -> None:
    first = Block.claim(tmp_path)
    assert is_alive(first.name, tmp_path)
    first.close()
    assert not is_alive(first.name, tmp_path)
    again = Block.claim(tmp_path)
    assert again.number == first.number
    again.close()


def test_a_block_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        Block.claim(tmp_path)
        os._exit(0)
    os.waitpid(pid, 0)
    block = Block.claim(tmp_path)
    assert block.number == 0
    block.close()


def test_ranges_do_not_overlap_and_run_out(tmp_path: Path) -> None:
    block = Block.claim(tmp_path)
    bases = [block.take() for _ in range(SLOTS)]
    assert len(set(bases)) == SLOTS
    assert all((base - block.first) % RANGE == 0 for base in bases)
    with pytest.raises(NoRangeError):
        block.take()
    block.give_back(bases[7])
    assert block.take() == bases[7]
    block.close()


def test_an_unknown_name_is_not_alive(tmp_path: Path) -> None:
    assert not is_alive("b77", tmp_path)


def test_a_launcher_that_dies_half_way_leaves_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper has inherited the pipe, so the pipe ends when nobody is left."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            monkeypatch.setattr(linux, "write_file", lambda *_: os._exit(0))
            make_user_namespace("0 0 1", "0 0 1", owner=os.geteuid())
        finally:
            os._exit(1)
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    assert select.select([read], [], [], 10)[0] == [read]
    assert os.read(read, 1) == b""
    os.close(read)
