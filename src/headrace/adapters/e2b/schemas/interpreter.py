"""The bodies of the interpreter, exactly as on the wire, and what the engine is asked then.

Absent, null and empty mean the same; what is unknown is passed over, as the vendor does.
"""

from collections.abc import Mapping
from typing import Annotated, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from headrace.adapters.e2b.users import DEFAULT_USER, expand_path
from headrace.model.errors import InvalidRequestError, LanguageUnavailableError
from headrace.model.ids import ContextId
from headrace.model.specs import ContextSpec, ExecutionRequest, Language

_ALIASES: Mapping[str, Language] = {
    "": Language.PYTHON,
    "js": Language.JAVASCRIPT,
    "ts": Language.TYPESCRIPT,
}
_SHOWN = 100


class Body(BaseModel):
    """The base of the bodies."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Execute(Body):
    """Code to run: in a context, or in the default one of a language."""

    code: str
    context_id: str | None = None
    language: str | None = None
    env_vars: Annotated[dict[str, str], Field(max_length=10_000)] | None = None

    def to_request(self) -> ExecutionRequest:
        """Give what the engine is asked; raises InvalidRequestError, LanguageUnavailableError."""
        env = self.env_vars or {}
        if not self.context_id:
            return ExecutionRequest(self.code, language=read_language(self.language), env=env)
        if self.language:
            raise InvalidRequestError("Only one of context_id or language can be provided")
        return ExecutionRequest(self.code, context_id=ContextId(self.context_id), env=env)


class CreateContext(Body):
    """A context that somebody wants."""

    cwd: str | None = None
    language: str | None = None

    def to_spec(self) -> ContextSpec:
        """Give what the engine is asked; raises InvalidRequestError, LanguageUnavailableError."""
        cwd = expand_path(self.cwd or "", DEFAULT_USER)
        return ContextSpec(read_language(self.language), cwd)


class ContextShape(TypedDict):
    """A context as clients see it."""

    id: str
    language: str
    cwd: str


def read_language(name: str | None) -> Language:
    """Give the language of that name; raises LanguageUnavailableError for unknown ones."""
    wanted = (name or "").strip().lower()
    try:
        return _ALIASES.get(wanted) or Language(wanted)
    except ValueError:
        known = ", ".join(Language)
        raise LanguageUnavailableError(
            f"unknown language {wanted[:_SHOWN]!r}; expected one of {known}"
        ) from None
