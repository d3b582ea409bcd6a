"""Typed plates are counted by the hour (I8): who looks up more than the policy allows is flagged in the record.

Nobody is stopped: the officer stands in the road. The file holds moments and no plates, and outlives a restart.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

WINDOW = timedelta(hours=1)
MAX_COUNTED = 10_000  # per officer; beyond, the count stays there
MAX_OFFICERS = 500  # whose look-ups are counted
_MAX_FILE = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class LookupCount:
    """Typed plates of one officer within the last hour, this one included."""

    count: int
    flagged: bool


class Lookups:
    """Counts in memory and, where there is one, in a file; used by several threads.

    `told` hears of each look-up before its verdict is known, in the thread of the check.
    """

    def __init__(self, path: Path | None = None, told: Callable[[LookupCount], None] = lambda count: None) -> None:
        self._path, self._told = path, told
        self._lock = threading.Lock()
        self._moments: dict[str, list[float]] = _load(path)

    def note(self, officer: str | None, now: datetime, limit: int) -> LookupCount:
        """One more look-up of an officer (None: nobody is logged in). `limit` look-ups an hour are not flagged."""
        at = now.timestamp()
        with self._lock:
            kept = {name: _recent(moments, at) for name, moments in self._moments.items()}
            moments = [*kept.get(officer or "", []), at][-MAX_COUNTED:]
            kept[officer or ""] = moments
            self._moments = dict([item for item in kept.items() if item[1]][-MAX_OFFICERS:])
            self._save()
        count = LookupCount(len(moments), len(moments) > limit)
        self._told(count)
        return count

    def _save(self) -> None:
        if self._path is not None:
            fresh = self._path.with_name(f".{self._path.name}.new")
            with suppress(OSError):  # a count is not worth waiting for the disk
                fresh.write_text(json.dumps(self._moments), encoding="utf-8")
                fresh.replace(self._path)


def _recent(moments: list[float], at: float) -> list[float]:
    """Those within the hour, either way: a clock that is set back must not empty the count."""
    return [moment for moment in moments if abs(at - moment) < WINDOW.total_seconds()]


def _load(path: Path | None) -> dict[str, list[float]]:
    """What the file has; nothing for one that is missing or damaged."""
    if path is None:
        return {}
    with (
        suppress(OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError),
        path.open("rb") as file,
    ):
        raw = json.loads(file.read(_MAX_FILE))
        return {
            name: [float(moment) for moment in moments][-MAX_COUNTED:]
            for name, moments in list(raw.items())[:MAX_OFFICERS]
        }
    return {}
