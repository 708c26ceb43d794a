"""What is not offered is refused at once and by name."""

import pytest
from e2b_code_interpreter import AsyncSandbox, SandboxException


async def test_a_sandbox_is_neither_copied_nor_forked(sandbox: AsyncSandbox) -> None:
    with pytest.raises(SandboxException, match="snapshot") as copied:
        await sandbox.create_snapshot()
    with pytest.raises(SandboxException, match="fork") as forked:
        await sandbox.fork()

    assert copied.value.status_code == forked.value.status_code == 501
    assert await sandbox.list_snapshots().next_items() == []
    assert not await AsyncSandbox.delete_snapshot("never-was")
    assert await sandbox.is_running()


async def test_no_volume_can_be_mounted() -> None:
    with pytest.raises(SandboxException, match="volumeMounts"):
        await AsyncSandbox.create(volume_mounts={"/data": "data"})
