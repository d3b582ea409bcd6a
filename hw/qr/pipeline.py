"""A still frame in, the codes in it out: the cheap look first, then ever more effort until a mark is read.

Which stages, and in which order, was measured on drawn frames by what each reads beyond the others in a millisecond:
the two libraries fail on different things, zxing takes a tenth of zbar's time, and most of what the first call misses
is read once the region that holds the code is cut out and binarised for it, or the frame is brought to linear light.
Importing this module loads OpenCV; the scanner process does, others need not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from hw.interfaces import CodeDecoder
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

_MARK = re.compile(rb"VM[0-9]")  # any version of our prefix: a newer one deserves its own answer


_frame, _half = attrgetter("frame"), attrgetter("half")
_region, _enlarged = attrgetter("region"), attrgetter("enlarged")
_second_region = attrgetter("second_region")


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

# Stages of a decoder that is not installed are passed over; what remains is a ladder of its own.
STAGES: tuple[Stage, ...] = (
    Stage("frame", "zxing", _frame),
    Stage("region binarised", "zxing", _region, _binarised),
    Stage("region binarised softly", "zxing", _region, _binarised_softly),
    Stage("frame in linear light", "zxing", _frame, linear),
    Stage("half", "zbar", _half),
    Stage("region enlarged", "zxing", _enlarged),
    Stage("region binarised", "zbar", _region, _binarised),
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

# After a mark was read: a second one that reads less easily must not stay unseen beside it.
_BESIDE = tuple(stage for stage in STAGES if stage.name == "region flattened")


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

    Stage after stage until one reads something that begins like a mark: a foreign code that reads easily must not hide
    a mark beside it. Then one more look for a second mark. Empty when no stage reads anything. The first stage always
    runs; a further one only if `budget_s` seconds leave time for the slowest so far once more, because none that has
    begun is cut short.
    """
    if gray.size == 0:
        return []
    begin = clock()
    before, slowest = begin, 0.0
    search = Search(gray, decoders)
    for stage in filter(search.can_take, stages):
        read = marks(search.take(stage))
        now = clock()
        before, slowest = now, max(slowest, now - before)
        late = now + slowest >= begin + budget_s
        if read and not late:
            search.take(next(filter(search.can_take, _BESIDE), stage))
        if read or late:
            break
    return search.codes


def marks(codes: Iterable[CodeSeen]) -> list[CodeSeen]:
    """The codes that begin like a mark, of whatever version; all of them, for the caller to choose from."""
    return [code for code in codes if _MARK.match(code.payload)]
