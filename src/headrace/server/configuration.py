"""Reads the settings from flags, environment and file, and remembers where each one is from.

A value from a flag wins over one from the environment, that over the file, and the file over the
default. What nobody knows is refused by name: a typing error must not pass unnoticed.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from headrace.model.errors import InvalidRequestError
from headrace.server.settings import DELIMITER, MAIN_TOPIC, PREFIX, Settings, describe

ROOT_FILE = Path("/etc/headrace/config.toml")
CONFIG_VARIABLE = "HEADRACE_CONFIG"
_FOREIGN = {"HEADRACE_URL", "HEADRACE_API_KEY", CONFIG_VARIABLE}
"""Variables that are not settings of the service but of its clients, or name the file."""
_FOREIGN_PREFIX = "HEADRACE_TEST_"
_MAX_FILE = 1024 * 1024
_SECRET = {"server.api_keys"}


@dataclass(frozen=True, slots=True)
class Value:
    """A value as somebody wrote it, and where."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, and the origin of each by its name (``topic.name``)."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, object, str]]:
        """Give name, value and origin of each setting; keys are counted, never shown."""
        return [(name, self._show(name), self.origins[name]) for name, _, _ in describe()]

    def _show(self, name: str) -> object:
        topic, _, field = name.partition(".")
        value: Any = getattr(getattr(self.settings, topic), field)
        if name in _SECRET:
            return f"{len(value)} set, not shown" if value else []
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, Path):
            return str(value)
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def load(
    environ: Mapping[str, str], flags: Mapping[str, object], config: Path | None = None
) -> Configuration:
    """Read everything; ``flags`` are by name (``server.port``), those that were given.

    ``config`` is the file that a flag names. Raises InvalidRequestError that names the value,
    where it is from and what was expected.
    """
    named = config or _path(environ.get(CONFIG_VARIABLE))
    values: dict[str, Value] = {}
    values.update(_read_file(named or default_file(environ), must_exist=named is not None))
    values.update(_read_environment(environ))
    values.update(_read_flags(flags))
    nested: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        topic, _, field = name.partition(".")
        nested.setdefault(topic, {})[field] = value.value
    try:
        settings = Settings(**nested)  # type: ignore[arg-type]  # pydantic reads them
    except ValidationError as error:
        raise _explain(error, values) from None
    _check_together(settings)
    names = [name for name, _, _ in describe()]
    return Configuration(
        settings, {name: values[name].origin if name in values else "default" for name in names}
    )


def default_file(environ: Mapping[str, str]) -> Path:
    """Give the file that is read where none is named; it need not exist."""
    if os.geteuid() == 0:
        return ROOT_FILE
    base = _path(environ.get("XDG_CONFIG_HOME"))
    home = _path(environ.get("HOME"))
    if base is None or not base.is_absolute():
        base = (home or Path("/nonexistent")) / ".config"
    return base / "headrace" / "config.toml"


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Value]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        if must_exist:
            raise InvalidRequestError(f"there is no configuration file {path}") from None
        return {}
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_FILE:
        raise InvalidRequestError(f"{path} has more than {_MAX_FILE} bytes")
    try:
        tables = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} is no TOML: {error}") from None
    return _read_tables(tables, path)


def _read_tables(tables: Mapping[str, object], path: Path) -> dict[str, Value]:
    values = {}
    for topic, table in tables.items():
        if topic not in Settings.model_fields:
            topics = ", ".join(f"[{name}]" for name in Settings.model_fields)
            raise InvalidRequestError(f"{path}: unknown table [{topic}]; expected {topics}")
        if not isinstance(table, dict):
            raise InvalidRequestError(f"{path}: {topic} must be a table: write [{topic}]")
        for field, value in table.items():
            name = f"{topic}.{field}"
            _check_known(name, f"{path}: unknown setting {field!r} in [{topic}]")
            values[name] = Value(value, str(path))
    return values


def _read_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for variable, text in sorted(environ.items()):
        is_foreign = variable in _FOREIGN or variable.startswith(_FOREIGN_PREFIX)
        if not variable.startswith(PREFIX) or is_foreign:
            continue
        name = _name_of(variable)
        _check_known(name, f"unknown environment variable {variable}", as_variable=True)
        if name in values:
            raise InvalidRequestError(
                f"{values[name].origin} and {variable} are the same setting; set one of them"
            )
        if text:
            values[name] = Value(text, variable)
    return values


def _name_of(variable: str) -> str:
    topic, delimiter, field = variable.removeprefix(PREFIX).lower().partition(DELIMITER)
    return f"{topic}.{field}" if delimiter else f"{MAIN_TOPIC}.{topic}"


def variable_of(name: str) -> str:
    """Give the environment variable of a setting, in its short form where it has one."""
    topic, _, field = name.partition(".")
    prefix = "" if topic == MAIN_TOPIC else topic + DELIMITER
    return (PREFIX + prefix + field).upper()


def _read_flags(flags: Mapping[str, object]) -> dict[str, Value]:
    for name in flags:
        _check_known(name, f"unknown setting {name!r}")
    return {name: Value(value, "flag") for name, value in flags.items()}


def _check_known(name: str, problem: str, *, as_variable: bool = False) -> None:
    known = [row[0] for row in describe()]
    if name in known:
        return
    guess = _guess(name, known)
    shown = variable_of(guess) if guess and as_variable else guess
    raise InvalidRequestError(f"{problem}; did you mean {shown}?" if shown else problem)


def _guess(name: str, known: Iterable[str]) -> str | None:
    field = name.partition(".")[2]
    by_field = {each.partition(".")[2]: each for each in known}
    if field in by_field:
        return by_field[field]
    # Some write the topic with a single underline: HEADRACE_LOGS_LEVEL.
    by_words = {each.replace(".", "_"): each for each in known}
    for candidates, word in ((by_words, field), (by_field, field)):
        close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.75)
        if close:
            return candidates[close[0]]
    return None


def _explain(error: ValidationError, values: Mapping[str, Value]) -> InvalidRequestError:
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"][:2])
    value = values.get(name)
    origin = f" ({value.origin})" if value is not None and value.origin != "flag" else ""
    got = "" if value is None or name in _SECRET else f", got {_shorten(value.value)}"
    problem = first["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"{name}{origin}: {problem[0].lower()}{problem[1:]}{got}")


def _shorten(value: object) -> str:
    text = repr(value.get_secret_value() if isinstance(value, SecretStr) else value)
    return text if len(text) <= 200 else text[:200] + "…"


def _check_together(settings: Settings) -> None:
    """Refuse what cannot be meant."""
    server = settings.server
    if (server.tls_cert is None) != (server.tls_key is None):
        raise InvalidRequestError("server.tls_cert and server.tls_key belong together; set both")
    if not server.tcp and server.socket is None:
        raise InvalidRequestError("nothing to listen on: server.tcp is off and server.socket unset")
    settings.default_limits.check_within(settings.max_limits)
