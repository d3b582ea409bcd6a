"""Frame after frame of a camera: few milliseconds for each, and what one frame does not show the next one may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hw.interfaces import CodeDecoder
from hw.qr.hints import find_hint
from hw.qr.pipeline import STAGES, Search, Stage, marks
from hw.qr.views import Gray
from verifier.types import CodeSeen, Hint

FRAME_BUDGET_S = 0.035
SAME_CODE_S = 5.0  # seconds out of sight until the same code counts as shown again

_REMEMBERED_FRAMES = 10  # after as many without the mark, its place says nothing any more
_REMEMBERED_MARKS = 2
_HINT_EVERY = 3  # frames without a code; an officer reads no faster, and measuring takes a quarter of a frame's time
_SKIPS = 3  # frames in a row; a machine that is always late must come to the other stages all the same
_FIRST_LOOKS = (("zxing", "frame"), ("zbar", "half"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReading:
    """What one frame gave: the codes, each payload once, or why there is none; how it was found and how long it took.

    `hint` is None when a code was read, and when the frame does not tell what is the matter. It is measured in every
    third frame without a code and stands for the two after it.
    """

    codes: tuple[CodeSeen, ...]
    hint: Hint | None
    stages: tuple[str, ...]
    seconds: float


class CodeReader:
    """Reads the frames of one video in order; keeps where marks were and which stage has its turn.

    No thread of its own, and a decoder that hangs hangs it: run it in a process that can be ended.
    """

    def __init__(self, decoders: Sequence[CodeDecoder], clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._decoders = list(decoders)
        self._clock = clock
        names = {decoder.name for decoder in decoders}
        ladder = [stage for stage in STAGES if stage.decoder in names]
        self._first = next((s for look in _FIRST_LOOKS for s in ladder if (s.decoder, s.name) == look), None)
        self._others = [stage for stage in ladder if stage is not self._first and not stage.still_only]
        self._turn = 0
        self._skipped = 0
        self._unread = 0
        self._hint: Hint | None = None
        self._seen: list[CodeSeen] = []
        self._age = 0

    def read(self, gray: Gray, *, budget_s: float = FRAME_BUDGET_S) -> FrameReading:
        """The codes in a uint8 height x width frame: all marks that are read, else the foreign codes.

        First where marks were a moment ago, then the whole frame, then one further stage if no mark was read and
        `budget_s` seconds have not passed. A stage that has begun is not cut short.
        """
        begin = self._clock()
        if gray.size == 0 or self._first is None:
            return FrameReading(codes=(), hint=None, stages=(), seconds=0.0)
        search = Search(gray, self._decoders)
        for mark in self._seen:
            search.take(_place_of(mark, self._first.decoder))
        search.take(self._first)
        if not marks(search.codes) and self._has_time(begin + budget_s):
            self._look_once_more(search)
        codes = search.codes
        self._remember(codes)
        return FrameReading(
            codes=tuple(marks(codes) or codes),
            hint=self._hint_for(search),
            stages=tuple(f"{stage.decoder} {stage.name}" for stage in search.stages),
            seconds=self._clock() - begin,
        )

    def _hint_for(self, search: Search) -> Hint | None:
        if search.codes:
            self._unread, self._hint = 0, None
            return None
        if self._unread % _HINT_EVERY == 0:
            self._hint = find_hint(search.views.gray, search.views.region)
        self._unread += 1
        return self._hint

    def _has_time(self, deadline: float) -> bool:
        late = self._clock() >= deadline and self._skipped < _SKIPS
        self._skipped = self._skipped + 1 if late else 0
        return not late

    def _look_once_more(self, search: Search) -> None:
        for _ in self._others:
            stage = self._others[self._turn]
            self._turn = (self._turn + 1) % len(self._others)
            if search.can_take(stage):
                search.take(stage)
                return

    def _remember(self, codes: Iterable[CodeSeen]) -> None:
        if seen := [mark for mark in marks(codes) if mark.corners][:_REMEMBERED_MARKS]:
            self._seen, self._age = seen, 0
        else:
            self._age += 1
        if self._age >= _REMEMBERED_FRAMES:
            self._seen = []


def _place_of(mark: CodeSeen, decoder: str) -> Stage:
    return Stage("where it was", decoder, lambda views: views.around(mark))


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
            if code.payload not in self._last_s:
                fresh.append(code)
            self._last_s[code.payload] = now
        return fresh

    def forget(self) -> None:
        """Take every code for new: the officer asked again."""
        self._last_s.clear()
