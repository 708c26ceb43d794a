"""``headrace logs``: what an execution or a process of a running service did."""

import anyio
import click

from headrace.adapters.native.codec import encode_ndjson
from headrace.cli import exit_status, results
from headrace.cli.remote import Where, service_options, where
from headrace.cli.terminal import ByteSink, ReaderGoneError, open_outputs
from headrace.client._async.sandbox import AsyncSandbox
from headrace.model.events import (
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ResultDisplayed,
    Stream,
)


@click.command("logs", short_help="Show what an execution or a process wrote.")
@click.argument("log_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option(
    "--after", metavar="N", type=click.IntRange(0), default=0, help="Begin behind event N."
)
@click.option("--json", "as_json", is_flag=True, help="Print every event as a line of JSON.")
@service_options
def command(
    *, log_id: str, follow: bool, after: int, as_json: bool, url: str | None, api_key: str | None
) -> int:
    """Show what an execution or a process wrote, also after its end and that of its sandbox.

    Its standard output goes to standard output, its standard error to standard error.
    """
    return anyio.run(_show, log_id, after, follow, as_json, where(url, api_key))


async def _show(log_id: str, after: int, follow: bool, as_json: bool, service: Where) -> int:
    view = LogView(*open_outputs(), as_json=as_json)
    try:
        async for event in AsyncSandbox.read_log(log_id, after=after, follow=follow, **service):
            await view.show(event)
    except ReaderGoneError:
        return exit_status.READER_GONE
    return 0


class LogView:
    """Shows events as text, as `headrace run` does, or as lines of JSON."""

    def __init__(self, stdout: ByteSink, stderr: ByteSink, *, as_json: bool) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._as_json = as_json

    async def show(self, event: ExecutionEvent | ProcessEvent) -> None:
        """Show one event."""
        if self._as_json:
            await self._stdout.write(encode_ndjson([event]))
            return
        match event:
            case OutputWritten(stream=Stream.STDERR):
                await self._stderr.write(event.data)
            case OutputWritten():
                await self._stdout.write(event.data)
            case ResultDisplayed():
                await self._on_own_line(self._stdout, results.text_form(event.result))
            case CodeRaised():
                await self._on_own_line(self._stderr, event.error.traceback.rstrip("\n"))
            case OutputDropped():
                lost = f"{event.dropped} bytes of {event.stream} are missing: {event.reason}"
                await self._on_own_line(self._stderr, f"headrace: {lost}")
            case ExecutionFinished() | ProcessExited():
                await self._show_end(event)
            case _:
                pass

    async def _show_end(self, event: ExecutionFinished | ProcessExited) -> None:
        facts = [f"exit code {event.exit_code}"] if event.exit_code else []
        facts += [event.detail] if event.detail else []
        if event.reason != "ok":
            said = ": ".join([str(event.reason), *facts])
            await self._on_own_line(self._stderr, f"headrace: {said}")

    async def _on_own_line(self, sink: ByteSink, text: str) -> None:
        prefix = "" if sink.is_at_line_start else "\n"
        await sink.write(f"{prefix}{text}\n".encode("utf-8", "replace"))
