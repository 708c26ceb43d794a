"""How much of the event loop's time one guest may have: all of it shortly, a quarter for long."""

_SAVINGS = 0.5
_RATE = 0.25


class Share:
    """A budget of seconds that fills up by a quarter of the time that passes, up to half one."""

    def __init__(self, now: float) -> None:
        self._left = _SAVINGS
        self._filled_at = now

    def spend(self, began: float, ended: float) -> float:
        """Note work between two times; gives how many seconds to rest before the next."""
        earned = (ended - self._filled_at) * _RATE
        self._filled_at = ended
        self._left = min(_SAVINGS, self._left + earned) - (ended - began)
        return max(0.0, -self._left / _RATE)
