"""What the proof of a promise is given, and what it gives back."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class NotHereError(Exception):
    """This machine lacks what the proof needs; the text says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A row of docs/reliability.md. `figures`: how many of what the full run tries; `weight`: its share of the time."""

    number: int
    title: str
    prove: Callable[[Run], None]  # AssertionError, or any other error, when it does not hold
    figures: Mapping[str, int]
    weight: int = 4


@dataclass(slots=True, kw_only=True)
class Run:
    """One proof of one promise. `seconds` None: until the figures of the promise are reached."""

    seed: int
    folder: Path
    seconds: float | None
    figures: Mapping[str, int]
    tell: Callable[[Run], None] = lambda run: None
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def rounds(self, what: str, share: float = 1.0) -> Iterator[int]:
        """Seeds for rounds that count `what`: one at least, and more while neither the figure nor the time is up."""
        ends = None if self.seconds is None else time.monotonic() + share * self.seconds
        for number in itertools.count():
            if number and (self._is_reached(what) or (ends is not None and time.monotonic() >= ends)):
                return
            yield self.seed_of(what, number)
            self.tell(self)

    def seed_of(self, what: str, number: int) -> int:
        """The same for the same run, another for each round."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {what} {number}".encode()).digest()[:6])

    def left(self, what: str) -> int:
        """How many more until the figure is reached."""
        return max(0, self.figures.get(what, 1) - self.counts[what])

    def note(self, text: str) -> None:
        """Something for whoever reads the results; once."""
        if text not in self.notes:
            self.notes.append(text)

    def new_folder(self) -> Path:
        """An empty folder for one round."""
        path = self.folder / f"round-{len(list(self.folder.glob('round-*')))}"
        path.mkdir()
        return path

    def _is_reached(self, what: str) -> bool:
        # What counted nothing in a whole round will count nothing in the next.
        return not self.counts[what] or not self.left(what)
