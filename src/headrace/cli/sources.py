"""What to run: read from files, standard input or ``-c``, checked before anything is started."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from headrace.model.errors import InvalidRequestError
from headrace.model.specs import MAX_CODE, Language, check_env, check_positive, check_text

STANDARD_INPUT = "-"
SUFFIXES = {
    ".py": Language.PYTHON,
    ".js": Language.JAVASCRIPT,
    ".mjs": Language.JAVASCRIPT,
    ".ts": Language.TYPESCRIPT,
    ".sh": Language.BASH,
    ".r": Language.R,
    ".R": Language.R,
    ".java": Language.JAVA,
}
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One program: how the user named it, its language and its text."""

    name: str
    language: Language
    code: str


def read_sources(files: Sequence[str], code: str | None, language: str | None) -> list[Source]:
    """Read everything that is to run; raises InvalidRequestError that names what is wrong."""
    chosen = None if language is None else Language.parse(language)
    if code is not None:
        if files:
            raise InvalidRequestError(f"-c and a file exclude each other, got {files[0]!r}, too")
        check_text("the code of -c", code, MAX_CODE)
        return [Source("-c", chosen or Language.PYTHON, code)]
    if not files:
        raise InvalidRequestError("nothing to run; give a FILE, - for standard input or -c CODE")
    if files.count(STANDARD_INPUT) > 1:
        raise InvalidRequestError("standard input (-) can be given once only")
    languages = [chosen or language_of(name) for name in files]
    return [
        Source(name, language, read_code(name))
        for name, language in zip(files, languages, strict=True)
    ]


def language_of(name: str) -> Language:
    """Tell the language from the suffix; standard input is Python."""
    if name == STANDARD_INPUT:
        return Language.PYTHON
    suffix = PurePath(name).suffix
    found = SUFFIXES.get(suffix)
    if found is None:
        has = f"the suffix {suffix!r}" if suffix else "no suffix"
        raise InvalidRequestError(
            f"cannot tell the language of {name!r}, which has {has}; "
            f"known are {' '.join(SUFFIXES)}, or give --language"
        )
    return found


def read_code(name: str) -> str:
    """Read one file, or standard input, as text of at most ``MAX_CODE`` bytes."""
    if "\0" in name:
        raise InvalidRequestError(f"a file name cannot contain NUL: {name!r}")
    try:
        data = _read_bounded(name)
    except OSError as error:
        raise InvalidRequestError(f"cannot read {name!r}: {error.strerror}") from error
    if len(data) > MAX_CODE:
        raise InvalidRequestError(
            f"{name!r} is too long: more than {MAX_CODE} bytes ({MAX_CODE >> 20} MiB) of code"
        )
    try:
        code = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{name!r} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        ) from error
    check_text(f"the code of {name!r}", code, MAX_CODE)
    return code


def _read_bounded(name: str) -> bytes:
    fd = 0 if name == STANDARD_INPUT else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = bytearray()
        while len(data) <= MAX_CODE and (chunk := os.read(fd, _CHUNK)):
            data += chunk
        return bytes(data)
    finally:
        if fd != 0:
            os.close(fd)


def parse_env(items: Iterable[str]) -> dict[str, str]:
    """Read the environment variables; the last of a name counts."""
    env = parse_pairs("--env", items)
    check_env(env)
    return env


def parse_pairs(option: str, items: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` items; the last of a name counts."""
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise InvalidRequestError(f"{option} {item!r} must have the form NAME=VALUE")
        pairs[name] = value
    return pairs


def parse_timeout(text: str | None) -> float | None:
    """Read a number of seconds."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise InvalidRequestError(f"--timeout must be a number of seconds, got {text!r}") from None
    check_positive("--timeout", seconds)
    return seconds


def parse_names(items: Iterable[str]) -> frozenset[str]:
    """Read lists of names separated by commas."""
    names = (name.strip() for item in items for name in item.split(","))
    return frozenset(name for name in names if name)
