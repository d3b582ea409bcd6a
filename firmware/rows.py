"""A line of a page in words, for every page that has lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a text, perhaps one at its right end; `chosen` is under the cursor, `big` in the plate's font.

    `bars` of signal, 0 to 8; `outside`: others wrote it, so it is cut where it is too long; `left`: it grows there.
    """

    text: str
    right: str = ""
    chosen: bool = False
    big: bool = False
    bars: int | None = None
    outside: bool = False
    left: bool = False
