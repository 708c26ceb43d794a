"""What the engine counts, for whoever wants the figures; the engine knows no metrics library."""

from typing import Protocol

from headrace.model.events import FinishReason


class Meter(Protocol):
    """Hears of what happens. Its methods must be quick and must not raise."""

    def sandbox_created(self, seconds: float, *, from_pool: bool) -> None:
        """Somebody got a sandbox after so long."""

    def sandbox_ended(self) -> None:
        """A sandbox that somebody had is gone."""

    def log_finished(
        self, kind: str, reason: FinishReason, duration: float, output_bytes: int
    ) -> None:
        """An execution, a process or a watch (``kind``) has ended, so many seconds after its start.

        ``output_bytes`` are what it wrote.
        """

    def refused(self, code: str) -> None:
        """A sandbox was asked for and refused; ``code`` is that of the error."""


class NoMeter:
    """A meter that counts nothing."""

    def sandbox_created(self, seconds: float, *, from_pool: bool) -> None:
        """Somebody got a sandbox."""

    def sandbox_ended(self) -> None:
        """A sandbox is gone."""

    def log_finished(
        self, kind: str, reason: FinishReason, duration: float, output_bytes: int
    ) -> None:
        """Something has ended."""

    def refused(self, code: str) -> None:
        """A sandbox was refused."""
