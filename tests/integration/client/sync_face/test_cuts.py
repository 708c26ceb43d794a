# Made from the async face by scripts/generate-sync; change that one.
"""A real service behind a network that breaks again and again."""

from pathlib import Path

import pytest

from headrace import Sandbox
from tests.integration.client.conftest import Service
from tests.support.cutting import cutting_proxy

CUTS = 200
LINES = 1000
# With pauses, so that there are many small events: one that is larger than what passes between
# two cuts never arrives.
CODE = f"import time\nfor i in range({LINES}):\n    print('line', i, 'é')\n    time.sleep(0.002)"


@pytest.mark.parametrize("seed", [1, 2])
def test_200_cuts_of_the_network_lose_nothing_and_repeat_nothing(
    sandbox: Sandbox, service: Service, tmp_path: Path, seed: int
) -> None:
    started = sandbox.start_code(CODE)
    target = service["url"].removeprefix("unix://")
    seqs: list[int] = []
    text = ""
    with cutting_proxy(tmp_path / "proxy", target, CUTS, seed) as proxy:
        url, key = proxy.url, service["api_key"]
        with Sandbox.connect(sandbox.id, url=url, api_key=key) as far:
            while proxy.connections < CUTS:
                seqs, text = [], ""
                for event in far.execution(started.id).events():
                    seqs.append(event.seq)
                    text += getattr(event, "text", "")

    assert seqs == list(range(1, seqs[-1] + 1))
    assert text == "".join(f"line {i} é\n" for i in range(LINES))
