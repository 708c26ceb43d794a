# Made from the async face by scripts/generate-sync; change that one.
"""What is not offered is refused at once and by name."""

import pytest
from e2b_code_interpreter import Sandbox, SandboxException


def test_a_sandbox_is_neither_copied_nor_forked(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxException, match="snapshot") as copied:
        sandbox.create_snapshot()
    with pytest.raises(SandboxException, match="fork") as forked:
        sandbox.fork()

    assert copied.value.status_code == forked.value.status_code == 501
    assert sandbox.list_snapshots().next_items() == []
    assert not Sandbox.delete_snapshot("never-was")
    assert sandbox.is_running()


def test_no_volume_can_be_mounted() -> None:
    with pytest.raises(SandboxException, match="volumeMounts"):
        Sandbox.create(volume_mounts={"/data": "data"})
