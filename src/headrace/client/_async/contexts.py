"""The contexts of a sandbox."""

from collections.abc import Mapping

from headrace.client._async.connection import AsyncConnection
from headrace.client._shared import answers, calls
from headrace.client._shared.values import Context
from headrace.model.ids import SandboxId


class AsyncContexts:
    """The interpreter states of a sandbox: variables of one are unknown to the others.

    context = await sandbox.contexts.create("python", cwd="/tmp")
    await sandbox.run_code("x = 1", context=context)
    """

    def __init__(self, connection: AsyncConnection, sandbox_id: SandboxId) -> None:
        self._connection = connection
        self._sandbox_id = sandbox_id

    async def create(
        self,
        language: str = "python",
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Context:
        """Make a context. ``env`` comes on top of the sandbox's variables."""
        request = calls.create_context(self._sandbox_id, language, cwd, env)
        return await self._connection.call(request, answers.context)

    async def list(self) -> tuple[Context, ...]:
        """Give all contexts, the default ones too."""
        return await self._connection.call(calls.list_contexts(self._sandbox_id), answers.contexts)

    async def get(self, context: Context | str) -> Context:
        """Ask for the present state of a context."""
        request = calls.get_context(self._sandbox_id, context_id(context))
        return await self._connection.call(request, answers.context)

    async def restart(self, context: Context | str) -> Context:
        """Give a context a fresh interpreter; its variables are gone."""
        request = calls.change_context(self._sandbox_id, context_id(context), "restart")
        return await self._connection.call(request, answers.context)

    async def interrupt(self, context: Context | str) -> bool:
        """Interrupt what runs in a context; false if nothing ran."""
        request = calls.change_context(self._sandbox_id, context_id(context), "interrupt")
        return await self._connection.call(request, answers.interrupted)

    async def remove(self, context: Context | str) -> None:
        """End a context and what runs in it."""
        await self._connection.fetch(calls.remove_context(self._sandbox_id, context_id(context)))


def context_id(context: Context | str) -> str:
    """Give the id of a context that is named by itself or by its id."""
    return context if isinstance(context, str) else context.id
