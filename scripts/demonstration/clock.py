"""A clock that a demo may set wrong, and one that may run behind for as long as it prepares the past."""

from __future__ import annotations

from datetime import datetime, timedelta

from verifier.clock import Clock, system_clock


class MovableClock:
    """The time of another clock, and so much more; right at first."""

    def __init__(self, right: Clock = system_clock) -> None:
        self._right = right
        self.ahead = timedelta(0)  # by how much it is wrong

    def __call__(self) -> datetime:
        """The moment as this clock has it."""
        return self._right() + self.ahead
