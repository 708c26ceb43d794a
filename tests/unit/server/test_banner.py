from pathlib import Path

from headrace.engine.config import IsolationReport
from headrace.server.banner import Start, describe_start

REPORT = IsolationReport.read(
    {
        "mode": "rootless",
        "enforced": ["namespaces", "seccomp", "processes", "disk"],
        "memory": "watchdog",
        "python": {"missing": ["pandas"]},
    }
)


def test_it_says_where_the_service_and_its_key_are_and_what_is_enforced() -> None:
    start = Start("http://127.0.0.1:1", Path("/run/s"), "in /var/key", REPORT, ("watch out",))

    assert describe_start(start).splitlines()[1:] == [
        "  url            http://127.0.0.1:1",
        "  socket         /run/s",
        "  key            in /var/key",
        "  isolation      rootless mode, enforced: namespaces, seccomp, processes",
        "  not enforced   memory (by watchdog), cpu, id_ranges, idmapped_mounts",
        "  not installed  pandas",
        "  note           watch out",
    ]
