"""What tells a code that comes into view from one that stays in view. Loads no library: the program's side needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from verifier.types import CodeSeen

SAME_CODE_S = 5.0  # seconds out of sight until the same code counts as shown again
MAX_KNOWN = 1024  # codes; a recording of ever new ones, on which no time passes, must not fill the memory


class Deduplicator:
    """Tells a code that comes into view from one that stays in view, by its payload alone.

    A live code renews its payload every half minute on the same screen: each renewal is a code of its own, because
    only the check can tell that both speak of the same vehicle.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, same_code_s: float = SAME_CODE_S) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._same_code_s = same_code_s
        self._last_s: dict[bytes, float] = {}

    def new(self, codes: Iterable[CodeSeen]) -> list[CodeSeen]:
        """Those of a frame's codes that were not in view within the last seconds; call it for each frame."""
        now = self._clock()
        self._last_s = {payload: last for payload, last in self._last_s.items() if now - last < self._same_code_s}
        fresh = []
        for code in codes:
            if self._last_s.pop(code.payload, None) is None:
                fresh.append(code)
            self._last_s[code.payload] = now  # behind all that were seen before it
        for payload in list(self._last_s)[:-MAX_KNOWN]:
            del self._last_s[payload]
        return fresh

    def forget(self) -> None:
        """Take every code for new: the officer asked again."""
        self._last_s.clear()
