"""When to try a failed sync again: after 1, 2, 4 ... 60 minutes, with jitter."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from verifier.clock import Clock
from verifier.errors import SyncError

FIRST, LONGEST = timedelta(minutes=1), timedelta(minutes=60)
JITTER = 0.25  # of the delay, on top: a thousand handhelds must not come back in the same second

T = TypeVar("T")


def delay(failures: int, draw: float) -> timedelta:
    """How long to wait after so many failures in a row (from 1); `draw` is random, 0 to 1."""
    doublings = min(max(failures, 1) - 1, 6)  # 2^6 minutes are more than the longest delay
    return min(FIRST * (1 << doublings), LONGEST) * (1 + JITTER * draw)


def until_done(
    attempt: Callable[[], T],
    *,
    failures: int,
    clock: Clock,
    sleep: Callable[[float], None],
    draw: Callable[[], float],
    told: Callable[[SyncError, datetime], None],
) -> T:
    """Call `attempt` until it raises no SyncError. `failures` are those before the first call.

    `told` gets each error and the moment of the next attempt; nothing that was reached before is given up meanwhile.
    """
    while True:
        try:
            return attempt()
        except SyncError as exc:
            failures += 1
            wait = delay(failures, draw())
            told(exc, clock() + wait)
            sleep(wait.total_seconds())
