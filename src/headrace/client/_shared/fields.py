"""Typed access to JSON objects that a service sent: what is missing or of another type is named."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class FieldError(ValueError):
    """An answer or an event is not what the API says."""


class Fields:
    """A JSON object whose fields are read with the type that they must have.

    Fields that nobody reads are ignored: a newer service may say more.
    """

    __slots__ = ("_values", "_what")

    def __init__(self, what: str, value: object) -> None:
        if not isinstance(value, dict):
            raise FieldError(f"{what} is {type(value).__name__}, expected an object")
        self._what = what
        self._values: dict[str, Any] = value

    def text(self, name: str) -> str:
        """Give a text."""
        value = self._values.get(name)
        return value if isinstance(value, str) else self._refuse(name, value, "text")

    def whole(self, name: str) -> int:
        """Give a whole number."""
        value = self._values.get(name)
        return value if type(value) is int else self._refuse(name, value, "a whole number")

    def number(self, name: str) -> float:
        """Give a number."""
        value = self._values.get(name)
        if type(value) is float or type(value) is int:
            return float(value)
        return float(self._refuse(name, value, "a number"))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Give true or false."""
        value = self._values.get(name, default)
        return value if isinstance(value, bool) else self._refuse(name, value, "true or false")

    def maybe(self, name: str, read: Callable[[str], T]) -> T | None:
        """Give what ``read`` (a method of this object) gives, or None for null and for nothing."""
        return None if self._values.get(name) is None else read(name)

    def plain(self, name: str) -> dict[str, Any]:
        """Give an object whatever its values are."""
        value = self._values.get(name)
        return value if isinstance(value, dict) else self._refuse(name, value, "an object")

    def inner(self, name: str) -> "Fields":
        """Give an object in this object."""
        return Fields(f"{name} of {self._what}", self._values.get(name))

    def mapping(self, name: str, kind: type[T]) -> dict[str, T]:
        """Give an object whose values all have a type."""
        value: dict[str, T] = self.plain(name)
        for key, item in value.items():
            if not isinstance(item, kind):
                self._refuse(f"{name}[{key!r}]", item, kind.__name__)
        return value

    def items(self, name: str) -> list[Any]:
        """Give a list."""
        value = self._values.get(name)
        return value if isinstance(value, list) else self._refuse(name, value, "a list")

    def texts(self, name: str) -> tuple[str, ...]:
        """Give a list of texts."""
        for item in self.items(name):
            if not isinstance(item, str):
                self._refuse(name, item, "a list of texts")
        return tuple(self.items(name))

    def any(self, name: str) -> Any:  # noqa: ANN401 - what it is, is decided by the caller
        """Give whatever is there, or None."""
        return self._values.get(name)

    def _refuse(self, name: str, value: object, expected: str) -> Any:  # noqa: ANN401 - never returns
        raise FieldError(f"{name} of {self._what} is {value!r:.100}, expected {expected}")
