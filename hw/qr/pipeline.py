"""A still frame in, the codes in it out: the cheap look first, then ever more effort until a mark is read.

Which stages, and in which order, was measured on drawn frames by what each reads beyond the others in a millisecond:
the two libraries fail on different things, zxing takes a tenth of zbar's time, and most of what the first call misses
is read once the region that holds the code is cut out and binarised for it, or the frame is brought to linear light.
Importing this module loads OpenCV; the scanner process does, others need not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from hw.interfaces import CodeDecoder
from hw.qr.marks import marks, whole_marks
from hw.qr.views import (
    Gray,
    View,
    Views,
    as_it_is,
    binarised,
    enlarged_in_linear_light,
    flattened,
    inverted,
    linear,
    scaled,
    sharpened,
    smoothed,
    thresholded,
)
from verifier.types import CodeSeen

__all__ = ["BESIDE", "STAGES", "STILL_BUDGET_S", "Search", "Stage", "decode_frame", "marks", "whole_marks"]

STILL_BUDGET_S = 1.0  # seconds for all stages on one still picture; a verdict is due within three
_SLOWER = 1.5  # times the slowest stage so far; the next one may take

_frame, _half = attrgetter("frame"), attrgetter("half")
_region, _enlarged = attrgetter("region"), attrgetter("enlarged")
_second_region, _covered = attrgetter("second_region"), attrgetter("covered")


@dataclass(frozen=True, slots=True)
class Stage:
    """One attempt: the decoder's name, the part of the frame that it is given, and what is done to that before."""

    name: str
    decoder: str
    part: Callable[[Views], View | None]  # None when the frame has no such part
    operation: Callable[[View], View] = as_it_is
    still_only: bool = False  # takes longer than a camera's frame may


_binarised = partial(binarised, sigma=1.0, parts=20)
_binarised_softly = partial(binarised, sigma=1.5, parts=40)
# A code inside another one takes about a third of its side.
_binarised_inside = partial(binarised, sigma=1.0, parts=60)
_binarised_softly_inside = partial(binarised, sigma=1.5, parts=120)

# Stages of a decoder that is not installed are passed over; what remains is a ladder of its own.
STAGES: tuple[Stage, ...] = (
    Stage("frame", "zxing", _frame),
    Stage("region binarised", "zxing", _region, _binarised),
    Stage("region binarised softly", "zxing", _region, _binarised_softly),
    Stage("covered binarised", "zxing", _covered, _binarised_inside),
    Stage("frame in linear light", "zxing", _frame, linear),
    Stage("half", "zbar", _half),
    Stage("region enlarged", "zxing", _enlarged),
    Stage("region binarised", "zbar", _region, _binarised),
    Stage("covered binarised", "zbar", _covered, _binarised_inside),
    Stage("covered binarised softly", "zxing", _covered, _binarised_softly_inside),
    Stage("second region binarised", "zxing", _second_region, _binarised),
    Stage("region flattened", "zxing", _enlarged, flattened),
    Stage("frame enlarged in linear light", "zxing", _frame, enlarged_in_linear_light, still_only=True),
    Stage("frame binarised", "zxing", _frame, partial(binarised, sigma=1.0, parts=30)),
    Stage("region flattened", "zbar", _region, flattened),
    Stage("region binarised softly", "zbar", _region, _binarised_softly),
    Stage("half", "zxing", _half),
    Stage("frame thresholded", "zbar", _frame, partial(thresholded, parts=8), still_only=True),
    Stage("region sharpened", "zxing", _enlarged, sharpened),
    Stage("region smoothed", "zbar", _enlarged, smoothed, still_only=True),
    Stage("second region binarised", "zbar", _second_region, _binarised),
    Stage("region thresholded", "zbar", _enlarged, partial(thresholded, parts=8), still_only=True),
    Stage("region sharpened", "zbar", _enlarged, sharpened, still_only=True),
    Stage("frame smoothed", "zxing", _frame, smoothed),
    Stage("half inverted", "zbar", _half, inverted),
    Stage("frame", "zbar", _frame, still_only=True),
    Stage("frame thresholded finely", "zbar", _frame, partial(thresholded, parts=30), still_only=True),
    Stage("frame enlarged", "zxing", _frame, partial(scaled, scale=2.0), still_only=True),  # small and badly packed
    Stage("full frame", "zxing", attrgetter("full")),
)

# After a mark was read: a second one that reads less easily must not stay unseen beside it. Chosen by what reads such
# marks in frames with an easy one, the quick ones first.
_BESIDE_NAMES = (
    ("zxing", "half"),
    ("zxing", "region enlarged"),
    ("zxing", "region binarised"),
    ("zxing", "region binarised softly"),
    ("zxing", "covered binarised"),
    ("zbar", "second region binarised"),
    ("zbar", "region binarised"),
    ("zbar", "covered binarised"),
    ("zxing", "region flattened"),
    ("zxing", "second region binarised"),
    ("zxing", "frame binarised"),
    ("zbar", "half"),
    ("zbar", "frame thresholded finely"),
)
BESIDE = tuple(stage for name in _BESIDE_NAMES for stage in STAGES if (stage.decoder, stage.name) == name)


class Search:
    """What has been read in one frame so far, stage by stage.

    A code that was read is painted over for the stages after it: of two codes, the one that reads easily must not
    draw all attention away from the other.
    """

    def __init__(self, gray: Gray, decoders: Sequence[CodeDecoder]) -> None:
        self.views = Views(gray)
        self.stages: list[Stage] = []  # those taken
        self._decoders = {decoder.name: decoder for decoder in decoders}
        self._found: dict[bytes, CodeSeen] = {}
        self._unpainted: list[CodeSeen] = []

    @property
    def codes(self) -> list[CodeSeen]:
        """The codes read so far, each payload once."""
        return list(self._found.values())

    def can_take(self, stage: Stage) -> bool:
        """Whether the stage's decoder is here and the stage would see something new."""
        return stage.decoder in self._decoders and stage.part(self._painted()) is not None

    def take(self, stage: Stage) -> list[CodeSeen]:
        """Look once more; the codes that this stage read, known or not."""
        self.stages.append(stage)
        part = stage.part(self._painted())
        if part is None:
            return []
        view = stage.operation(part)
        self._unpainted = [view.in_frame(code) for code in self._decoders[stage.decoder].decode(view.pixels)]
        for code in self._unpainted:
            self._found.setdefault(code.payload, code)
        return list(self._unpainted)

    def _painted(self) -> Views:
        if self._unpainted:
            self.views, self._unpainted = self.views.without(self._unpainted), []
        return self.views


def decode_frame(
    gray: Gray,
    decoders: Sequence[CodeDecoder],
    *,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
    stages: Sequence[Stage] = STAGES,
) -> list[CodeSeen]:
    """The codes in a uint8 height x width frame, each payload once.

    Stage after stage until one reads a whole mark: neither a foreign code that reads easily nor one that merely begins
    like a mark must hide a mark beside it. Then some more looks for a second mark. Empty when no stage reads anything.
    The first stage always runs; a further one only if `budget_s` seconds leave time for more than the slowest so far
    once more, because none that has begun is cut short.
    """
    if gray.size == 0:
        return []
    watch = _StopWatch(clock, budget_s)
    search = Search(gray, decoders)
    for stage in filter(search.can_take, stages):
        read = whole_marks(search.take(stage))
        if watch.is_late():
            break
        if read:
            _look_beside(search, watch)
            break
    return search.codes


def _look_beside(search: Search, watch: _StopWatch) -> None:
    for stage in filter(search.can_take, BESIDE):
        search.take(stage)
        if watch.is_late():
            return


class _StopWatch:
    """Tells after each stage whether time is left for another."""

    def __init__(self, clock: Callable[[], float], budget_s: float) -> None:
        self._clock = clock
        self._before = clock()
        self._end = self._before + budget_s
        self._slowest = 0.0

    def is_late(self) -> bool:
        now = self._clock()
        self._slowest = max(self._slowest, now - self._before)
        self._before = now
        return now + _SLOWER * self._slowest >= self._end
