"""A Python kernel that has run nothing yet, so that a new context need not wait for one.

The first one is that of the default context, as long as that has run nothing: it is there anyway.
Once that is used, a context which nobody sees, the spare, has one: started at leisure, so that a
sandbox with one short task never pays for it, and not warmed up, which more than halves its memory.
What was taken is replaced in the background, and warmed up, since this client makes contexts.
"""

from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from headrace.engine.context import Context
from headrace.engine.context_state import ContextState
from headrace.engine.kernel import Kernel
from headrace.model.errors import KernelDiedError

COURTESY = 0.05
"""Seconds in which whoever made a context has the processor for the first code."""
LEISURE = 2.0
"""Seconds from the first use of the default context until a spare one is started."""


class Reserve:
    """The unused kernel of one sandbox.

    ``default`` gives the default context of Python, None if it was removed; ``make`` gives a new
    context that has not been started.
    """

    def __init__(self, default: Callable[[], Context | None], make: Callable[[], Context]) -> None:
        self.spare: Context | None = None
        self._default = default
        self._make = make
        self._is_held = False
        self._is_expected = False
        self._turn = anyio.Lock()

    def take(self) -> Kernel | None:
        """Give an unused kernel that stands, or None."""
        for context in (self._default(), self.spare):
            kernel = None if context is None else context.give_kernel()
            if kernel is not None:
                return kernel
        return None

    def expect(self, tasks: TaskGroup) -> None:
        """Take note that the default context is being used; what follows runs in ``tasks``."""
        if not self._is_expected:
            self._is_expected = True
            tasks.start_soon(self._keep_at_leisure)

    async def refill(self) -> None:
        """Have an unused kernel started after a moment, unless there is one or `hold` was called.

        A kernel that does not start is none; the next context then waits for its own.
        """
        await anyio.sleep(COURTESY)
        context = await self._keep()
        if context is not None:
            context.warm_up()

    async def _keep_at_leisure(self) -> None:
        await anyio.sleep(LEISURE)
        await self._keep()

    async def _keep(self) -> Context | None:
        """Have an unused kernel; gives the context that it was started for, None if none was."""
        async with self._turn:
            context = None if self._is_held else await self._choose()
            if context is None:
                return None
            with suppress(KernelDiedError):
                await context.await_ready()
                return context
            return None

    async def _choose(self) -> Context | None:
        """Give the context whose kernel is to be started."""
        default, spare = self._default(), self.spare
        if default is not None and default.state is ContextState.UNSTARTED:
            return default
        if any(each is not None and each.has_unused_kernel for each in (default, spare)):
            return None
        if spare is not None and spare.state is ContextState.DEAD:
            self.spare = None
            await spare.remove("its kernel was lost")
        if self.spare is None:
            self.spare = self._make()
        return self.spare

    async def hold(self) -> None:
        """Start nothing from here on; returns when nothing is being started."""
        self._is_held = True
        async with self._turn:
            return

    def release(self) -> None:
        """Start kernels again, when the next one is taken."""
        self._is_held = False
