"""Engines with real sandboxes, and short ways to run something in one and look at the outcome."""

import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from headrace.engine.config import EngineConfig
from headrace.engine.context import Context
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.events import (
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ContextId
from headrace.model.results import Result
from headrace.model.specs import ExecutionRequest, ProcessRequest
from tests.support.modes import current_mode

PATIENCE = 30.0
"""Seconds after which a test gives up on a sandbox that does not answer."""

CANARY = secrets.token_hex(12)
"""What is planted in the service's surroundings and must never be seen in a sandbox."""

SERVICE_ENVIRONMENT = {
    "HEADRACE_API_KEYS": f"tenant:{CANARY}",
    "HEADRACE_TEST_CANARY": CANARY,
    "PIP_INDEX_URL": f"https://user:{CANARY}@packages.invalid/simple",
    "AWS_SECRET_ACCESS_KEY": CANARY,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that an execution did."""

    events: tuple[ExecutionEvent, ...]

    @property
    def stdout(self) -> str:
        """What was written to standard output."""
        return _text(self.events, Stream.STDOUT)

    @property
    def stderr(self) -> str:
        """What was written to standard error."""
        return _text(self.events, Stream.STDERR)

    @property
    def results(self) -> list[Result]:
        """What was displayed, in order."""
        return [event.result for event in self.events if isinstance(event, ResultDisplayed)]

    @property
    def errors(self) -> list[CodeRaised]:
        """The exceptions that nobody caught."""
        return [event for event in self.events if isinstance(event, CodeRaised)]

    @property
    def finished(self) -> ExecutionFinished:
        """The one terminal event."""
        (last,) = [event for event in self.events if isinstance(event, ExecutionFinished)]
        assert self.events[-1] is last
        return last


@dataclass(frozen=True, slots=True)
class ProcessOutcome:
    """Everything that a process did."""

    events: tuple[ProcessEvent, ...]

    @property
    def stdout(self) -> str:
        """What was written to standard output."""
        return _text(self.events, Stream.STDOUT)

    @property
    def stderr(self) -> str:
        """What was written to standard error."""
        return _text(self.events, Stream.STDERR)

    @property
    def exited(self) -> ProcessExited:
        """The one terminal event."""
        (last,) = [event for event in self.events if isinstance(event, ProcessExited)]
        assert self.events[-1] is last
        return last


def _text(events: Sequence[object], stream: Stream) -> str:
    written = [e for e in events if isinstance(e, OutputWritten) and e.stream is stream]
    return b"".join(event.data for event in written).decode("utf-8", "replace")


async def run_python(
    sandbox: Sandbox,
    code: str,
    *,
    timeout: float = PATIENCE,  # noqa: ASYNC109 - the limit of the execution, not of this call
    context: Context | None = None,
    **request: Any,
) -> Outcome:
    """Run code and give everything it did; the default Python context unless another is named."""
    context_id: ContextId | None = context.id if context else None
    wanted = ExecutionRequest(code, context_id=context_id, timeout=timeout, **request)
    with anyio.fail_after(timeout + PATIENCE):
        execution = await sandbox.execute(wanted)
        return Outcome(tuple([event async for event in execution.events()]))


async def run_process(
    sandbox: Sandbox,
    *argv: str,
    user: str = "user",
    timeout: float = PATIENCE,  # noqa: ASYNC109 - the limit of the process, not of this call
    env: Mapping[str, str] | None = None,
) -> ProcessOutcome:
    """Run a command and give everything it did."""
    request = ProcessRequest(argv, user=user, timeout=timeout, env=env or {})
    with anyio.fail_after(timeout + PATIENCE):
        process = await sandbox.start_process(request)
        return ProcessOutcome(tuple([event async for event in process.events()]))


@asynccontextmanager
async def open_engine(directory: Path, **settings: Any) -> AsyncIterator[Engine]:
    """Open an engine of the tested mode; its places are below ``directory``.

    Secrets are in its environment, as in that of a real service, for tests to look for inside.
    """
    chosen: dict[str, Any] = {
        "mode": current_mode().value,
        "python_prefix": Path(sys.prefix),
        "state_dir": directory / "state",
        "runtime_dir": directory / "runtime",
        **settings,
    }
    with planted_secrets():
        opening = Engine.open(EngineConfig(**chosen))
        async with opening as engine:
            yield engine


@contextmanager
def planted_secrets() -> Iterator[None]:
    """Have secrets in the environment."""
    before = {name: os.environ.get(name) for name in SERVICE_ENVIRONMENT}
    os.environ.update(SERVICE_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
