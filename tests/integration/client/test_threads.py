"""The sync face used from several threads at once."""

from concurrent.futures import ThreadPoolExecutor

from headrace import Sandbox
from tests.integration.client.conftest import Service


def test_threads_share_a_sandbox(service: Service) -> None:
    with Sandbox.create(**service) as sandbox, ThreadPoolExecutor(16) as threads:

        def work(number: int) -> tuple[str, str]:
            context = sandbox.contexts.create()
            outcome = sandbox.run_code(f"for i in range(50): print({number})", context=context)
            sandbox.contexts.remove(context)
            return outcome.stdout, sandbox.commands.run(["echo", str(number)]).stdout

        found = list(threads.map(work, range(32)))

    assert found == [(f"{number}\n" * 50, f"{number}\n") for number in range(32)]


def test_a_thread_can_type_while_another_one_reads(service: Service) -> None:
    with (
        Sandbox.create(**service) as sandbox,
        sandbox.pty.create(command=["cat"]) as terminal,
        ThreadPoolExecutor(1) as threads,
    ):
        reading = threads.submit(lambda: b"".join(terminal))
        terminal.write("grist\n")
        terminal.write(b"\x04")

        assert reading.result(30).count(b"grist") == 2
