"""What bash is told is one word per value, whatever is in it."""

import subprocess

import pytest

from headrace_guest.kernels.bash import Bash
from headrace_guest.kernels.interpreter import Ends, Order

SHOW = (
    'source /dev/stdin; printf "%s\\0" "$__headrace_code" "$__headrace_cwd" "${__headrace_env[@]}"'
)


@pytest.mark.parametrize(
    "text", ["", "plain", "'", "'\"'", "$(touch x)`id`\\", "a\nb\n\n", "größer 😀", "<<END\n", "#!"]
)
def test_values_arrive_as_they_are(text: str) -> None:
    order = Order(text, {"A": text, "B": "b"}, f"/{text}")
    content = Bash("/bin/bash").encode(order)
    shown = subprocess.run(["bash", "-c", SHOW], input=content, capture_output=True, check=True)
    values = shown.stdout.decode().split("\0")[:-1]
    assert values == [text, f"/{text}", f"A={text}", "B=b"]


def test_the_shell_reads_no_file_of_the_sandbox_at_its_start() -> None:
    words = Bash("/bin/bash").command(Ends(200, 201))
    assert words[:3] == ["/bin/bash", "--norc", "--noprofile"]
    assert words[-2:] == ["200", "201"]
