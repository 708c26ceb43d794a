"""The contexts of one sandbox, by their ids and by the language whose default they are."""

from collections.abc import Callable, Iterator, Mapping

import anyio
from anyio.abc import TaskGroup

from headrace.engine.config import LanguageReport
from headrace.engine.context import Context, ContextSettings
from headrace.engine.kernel import KernelStarter
from headrace.engine.launcher import ExitNotice
from headrace.engine.reserve import Reserve
from headrace.model.errors import (
    ContextNotFoundError,
    InvalidRequestError,
    LanguageUnavailableError,
    QuotaError,
)
from headrace.model.ids import ContextId
from headrace.model.specs import ContextSpec, ExecutionRequest, Language

MAX_CONTEXTS = 32
"""How many a client may make beside the default ones."""


def runnable(reports: Mapping[str, LanguageReport]) -> list[Language]:
    """Give the languages that contexts can have on this machine."""
    others = [name for name, report in reports.items() if report.problem is None]
    return [Language.PYTHON, *(language for language in Language if language in others)]


class Contexts:
    """Makes, finds and ends contexts; each runs as one task of the sandbox's task group.

    Each language that runs here has a default context from the beginning. That of Python has a
    kernel at once, the others when they are first used.
    """

    def __init__(
        self,
        starters: Mapping[Language, KernelStarter],
        reports: Mapping[str, LanguageReport],
        settings: ContextSettings,
        make_id: Callable[[], ContextId],
        sandbox_env: Callable[[], Mapping[str, str]],
    ) -> None:
        self._starters = starters
        self._reports = reports
        self._settings = settings
        self._make_id = make_id
        self._sandbox_env = sandbox_env
        self._contexts: dict[ContextId, Context] = {}
        self._defaults: dict[Language, ContextId] = {}
        self._tasks: TaskGroup | None = None
        self._reserve = Reserve(
            lambda: self._contexts.get(self._defaults.get(Language.PYTHON, ContextId(""))),
            lambda: self._make(ContextSpec(Language.PYTHON)),
        )

    def begin(self, tasks: TaskGroup) -> None:
        """Make the default contexts; they and all others run in that task group."""
        self._tasks = tasks
        for language in self._starters:
            self.default(language)
        self.default(Language.PYTHON).start()

    def list(self) -> list[Context]:
        """Give all of them: the default ones by language, then the others as they were made."""
        defaults = {self._defaults.get(language): language for language in self._starters}
        order = list(defaults)
        known = list(self._contexts.values())
        first = [context for context in known if context.id in defaults]
        first.sort(key=lambda context: order.index(context.id))
        return first + [context for context in known if context.id not in defaults]

    def find(self, context_id: str) -> Context:
        """Give the context of that id; raises ContextNotFoundError."""
        context = self._contexts.get(ContextId(context_id))
        if context is None:
            raise ContextNotFoundError(
                f"there is no context {context_id!r} in this sandbox", context=context_id
            )
        return context

    def default(self, language: Language) -> Context:
        """Give the context that runs code of that language that names none."""
        known = self._contexts.get(self._defaults.get(language, ContextId("")))
        if known is not None:
            return known
        self.check_language(language)
        context = self._make(ContextSpec(language))
        self._contexts[context.id] = context
        self._defaults[language] = context.id
        return context

    def is_default(self, context_id: str) -> bool:
        """Say whether this context runs the code of its language that names none."""
        return context_id in self._defaults.values()

    def choose(self, request: ExecutionRequest) -> Context:
        """Give the context that a request is for."""
        if request.context_id is None:
            context = self.default(request.language or Language.PYTHON)
        else:
            context = self.find(request.context_id)
        if context.id == self._defaults.get(Language.PYTHON) and self._tasks is not None:
            self._reserve.expect(self._tasks)
        if request.language not in (None, context.language):
            raise InvalidRequestError(
                f"the context {context.id} runs {context.language}, not {request.language}",
                context=context.id,
            )
        return context

    def check_language(self, language: Language) -> KernelStarter:
        """Give the starter of a language's kernels; raises LanguageUnavailableError."""
        starter = self._starters.get(language)
        if starter is None:
            raise self._unavailable(language)
        return starter

    def _unavailable(self, language: Language) -> LanguageUnavailableError:
        available = f"available: {', '.join(sorted(self._starters))}"
        report = self._reports.get(language)
        if report is None:
            return LanguageUnavailableError(
                f"{language} is not available in this version; {available}", language=language
            )
        return LanguageUnavailableError(
            f"{language} is not available: {report.problem}; "
            f"on Debian, install the package {report.package}; {available}",
            language=language,
            package=report.package,
        )

    def add(self, spec: ContextSpec) -> Context:
        """Make a context; when this returns it has a kernel, or one is being started."""
        self.check_language(spec.language)
        if len(self._contexts.keys() - self._defaults.values()) >= MAX_CONTEXTS:
            raise QuotaError(
                f"a sandbox has at most {MAX_CONTEXTS} contexts beside the default ones"
            )
        context = self._make(spec)
        self._contexts[context.id] = context
        kernel = self._reserve.take() if spec.language is Language.PYTHON else None
        if kernel is None:
            context.start()
        else:
            context.take_over(kernel)
        if spec.language is Language.PYTHON and self._tasks is not None:
            self._tasks.start_soon(self._reserve.refill)
        return context

    def _make(self, spec: ContextSpec) -> Context:
        if self._tasks is None:
            raise AssertionError("contexts need a task group to run in")
        starter = self.check_language(spec.language)
        context = Context(self._make_id(), spec, starter, self._settings, self._sandbox_env)
        self._tasks.start_soon(context.run)
        return context

    async def remove(self, context_id: str) -> None:
        """End a context; what it runs, and what waits, ends as killed."""
        context = self.find(context_id)
        with anyio.CancelScope(shield=True):
            await context.remove("the context was removed")
        self._contexts.pop(context.id, None)

    def kernel_exited(self, notice: ExitNotice) -> None:
        """Pass the launcher's word on to whom it concerns."""
        for context in self._all():
            context.kernel_exited(notice)

    async def hold_still(self) -> None:
        """Start no kernel in advance from here on, until `release` or `resume`.

        Returns when none is being started or stopped.
        """
        await self._reserve.hold()
        for context in list(self._all()):
            await context.await_pausable()

    def check_pausable(self) -> None:
        """Raise WrongStateError while a kernel is being started or stopped."""
        for context in self._all():
            context.check_pausable()

    def release(self) -> None:
        """Take `hold_still` back."""
        self._reserve.release()

    def _all(self) -> Iterator[Context]:
        yield from self._contexts.values()
        if self._reserve.spare is not None:
            yield self._reserve.spare

    def pause(self) -> None:
        """Stop the clocks of what runs."""
        for context in self._contexts.values():
            context.pause()

    def resume(self) -> None:
        """Let the clocks go on."""
        self.release()
        for context in self._contexts.values():
            context.resume()

    async def aclose(self, detail: str) -> None:
        """End all executions as killed; the tasks of the contexts must have ended."""
        async with anyio.create_task_group() as tasks:
            for context in self._all():
                tasks.start_soon(context.aclose, detail)
