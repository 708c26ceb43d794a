"""The one sandbox of debug mode, which is there for clients that show no key at all.

Only where the operator has switched it on: whoever reaches the service may then use it.
"""

import anyio

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.specs import MAX_TIMEOUT, SandboxSpec

DEBUG_SANDBOX = "debug_sandbox_id"
"""The id that clients in debug mode use; they never ask for a sandbox."""


class DebugSandbox:
    """Made when it is first needed, and again when it has ended."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = anyio.Lock()
        self._sandbox: Sandbox | None = None

    async def find(self) -> Sandbox:
        """Give it; raises what the engine raises if it cannot be made."""
        async with self._lock:
            if self._sandbox is None or not self._sandbox.is_alive:
                self._sandbox = await self._engine.create(
                    SandboxSpec(limits=self._engine.config.default_limits)
                )
                await self._sandbox.set_timeout(MAX_TIMEOUT)
            elif self._sandbox.state is SandboxState.PAUSED:
                await self._sandbox.resume()
        return self._sandbox
