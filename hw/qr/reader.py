"""Frame after frame of a camera: few milliseconds for each, and what one frame does not show the next one may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hw.camera.remedies import remedy
from hw.interfaces import CameraSettings, CodeDecoder
from hw.qr.hints import find_hint
from hw.qr.marks import marks, whole_marks
from hw.qr.pipeline import BESIDE, STAGES, Search, Stage
from hw.qr.views import Gray
from verifier.types import CodeSeen, Hint

FRAME_BUDGET_S = 0.035
MAX_CODES = 64  # offered of one frame; of more, the next frame offers the next ones

_REMEMBERED_FRAMES = 10  # after as many without the mark, its place says nothing any more
_REMEMBERED_MARKS = 2
_HINT_EVERY = 3  # frames without a code; an officer reads no faster, and measuring takes a quarter of a frame's time
_SKIPS = 3  # frames in a row; a machine that is always late must come to the other stages all the same
_BESIDE_EVERY = 4  # frames with a mark; the others cost no more than the first look
_FIRST_LOOKS = (("zxing", "frame"), ("zbar", "half"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReading:
    """What one frame gave: the codes, each payload once, or why there is none; how it was found and how long it took.

    `hint` is None when a code was read, and when the frame does not tell what is the matter. It is measured in every
    third frame without a code and stands for the two after it. `camera` is how the next frames should be taken.
    """

    codes: tuple[CodeSeen, ...]
    hint: Hint | None
    stages: tuple[str, ...]
    seconds: float
    camera: CameraSettings


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
        self._others = _Turns(stage for stage in ladder if stage is not self._first and not stage.still_only)
        self._beside = _Turns(stage for stage in BESIDE if stage.decoder in names and not stage.still_only)
        self._with_mark = 0  # frames
        self._first_offered = 0
        self._skipped = 0
        self._unread = 0
        self._hint: Hint | None = None
        self._seen: list[CodeSeen] = []
        self._age = 0
        self._camera = CameraSettings()
        self._read_at = clock()

    def read(self, gray: Gray, *, budget_s: float = FRAME_BUDGET_S) -> FrameReading:
        """The codes in a uint8 height x width frame: all marks that are read, else the foreign codes.

        First where marks were a moment ago, then the whole frame, then one further stage if no whole mark was read and
        `budget_s` seconds have not passed. When a mark comes into view, as many looks for a second one as fit into that
        time; while it stays, one in every fourth frame. A stage that has begun is not cut short.
        """
        begin = self._clock()
        if gray.size == 0 or self._first is None:
            return FrameReading(codes=(), hint=None, stages=(), seconds=0.0, camera=self._camera)
        search = Search(gray, self._decoders)
        for mark in self._seen:
            search.take(_place_of(mark, self._first.decoder))
        search.take(self._first)
        if not whole_marks(search.codes):
            if self._has_time(begin + budget_s):
                self._others.take_next(search)
        else:
            self._look_beside(search, begin + budget_s)
        codes = search.codes
        self._remember(codes)
        hint = self._hint_for(search)
        return FrameReading(
            codes=self._offered(marks(codes) or codes),
            hint=hint,
            stages=tuple(f"{stage.decoder} {stage.name}" for stage in search.stages),
            seconds=self._clock() - begin,
            camera=self._camera_for(codes, hint),
        )

    def _look_beside(self, search: Search, deadline: float) -> None:
        """Another mark that reads less easily must not stay unseen beside the one that was read."""
        if self._seen:
            self._with_mark += 1
            if self._with_mark % _BESIDE_EVERY == 0 and self._has_time(deadline):
                self._beside.take_next(search)
            return
        self._with_mark = 0
        for stage in filter(search.can_take, self._beside.stages):
            if self._clock() >= deadline:
                return
            search.take(stage)

    def _offered(self, codes: list[CodeSeen]) -> tuple[CodeSeen, ...]:
        if len(codes) <= MAX_CODES:
            return tuple(codes)
        first = self._first_offered % len(codes)
        self._first_offered = first + MAX_CODES
        return tuple((codes[first:] + codes[:first])[:MAX_CODES])

    def _camera_for(self, codes: Sequence[CodeSeen], hint: Hint | None) -> CameraSettings:
        now = self._clock()
        if codes:
            self._read_at = now
        else:
            self._camera = remedy(self._camera, hint, unread_s=now - self._read_at)
        return self._camera

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

    def _remember(self, codes: Iterable[CodeSeen]) -> None:
        if seen := [mark for mark in marks(codes) if mark.corners][:_REMEMBERED_MARKS]:
            self._seen, self._age = seen, 0
        else:
            self._age += 1
        if self._age >= _REMEMBERED_FRAMES:
            self._seen = []


class _Turns:
    """Stages that take turns, frame after frame."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = tuple(stages)
        self._turn = 0

    def take_next(self, search: Search) -> None:
        """The next stage that would see something in this frame, if there is one."""
        for _ in self.stages:
            stage = self.stages[self._turn]
            self._turn = (self._turn + 1) % len(self.stages)
            if search.can_take(stage):
                search.take(stage)
                return


def _place_of(mark: CodeSeen, decoder: str) -> Stage:
    return Stage("where it was", decoder, lambda views: views.around(mark))
