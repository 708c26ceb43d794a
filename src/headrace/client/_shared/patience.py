"""How long the SDK waits, how often it tries again, and when it gives up."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds of one client, in seconds.

    ``request`` is for a whole plain request, and for each wait of a file transfer. ``silence`` is
    how long a stream may say nothing, not even a heartbeat (sent every 15 seconds). ``reconnect``
    is how long a stream that was cut is taken up again without getting anywhere.
    """

    request: float = 60.0
    silence: float = 45.0
    reconnect: float = 60.0
    attempts: int = 4
    first_delay: float = 0.1
    longest_delay: float = 5.0

    def delay(self, failures: int) -> float:
        """Give how long to wait after so many failures in a row; the first is tried again soon."""
        return min(self.longest_delay, self.first_delay * 2.0 ** min(failures - 1, 32))


class TimeUpError(Exception):
    """The time of a request is over."""


class Timer:
    """What is left for the next wait: the rest of a total, or the same time for each.

    ``is_total`` false is for transfers, which may last, but not stand still.
    """

    __slots__ = ("_clock", "_deadline", "seconds")

    def __init__(
        self,
        seconds: float,
        *,
        is_total: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._deadline = clock() + seconds if is_total else None

    def left(self) -> float:
        """Give the seconds that the next wait may take; raises TimeUpError if none are left."""
        if self._deadline is None:
            return self.seconds
        left = self._deadline - self._clock()
        if left <= 0:
            raise TimeUpError
        return left
