"""Timing side by side: both functions in turn, so that a drifting machine speed cancels out of the ratio."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Pair(NamedTuple):
    """Medians in microseconds over all rounds, and the median of the ratios round by round."""

    ours_us: float
    baseline_us: float
    ratio: float


def side_by_side(
    ours: Callable[[], object], baseline: Callable[[], object], *, rounds: int = 200, repeat: int = 5
) -> Pair:
    """Time both `repeat` times in each round, in turn."""
    a, b = [], []
    for _ in range(rounds):
        a.append(_timed(ours, repeat))
        b.append(_timed(baseline, repeat))
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return Pair(statistics.median(a), statistics.median(b), statistics.median(ratios))


def _timed(function: Callable[[], object], repeat: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(repeat):
        function()
    return (time.perf_counter_ns() - begin) / repeat / 1000


def machine() -> str:
    """One line that says what the figures were made on."""
    return f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
