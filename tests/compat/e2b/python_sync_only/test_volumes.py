"""Volumes, which are not offered."""

import pytest
from e2b_code_interpreter import Volume, VolumeException


def test_no_volume_can_be_made() -> None:
    with pytest.raises(VolumeException, match="volumes"):
        Volume.create("data")
