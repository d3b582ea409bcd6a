"""Reading codes: our ladder of stages beside each single decoder, on the same pictures in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from hw.errors import DeviceNotFoundError
from scripts.bench.figures import Figure
from scripts.bench.guarded import Attempt, GuardedDecoder
from scripts.bench.optics import Gray
from scripts.bench.picture_sets import PictureSet, Sample
from scripts.bench.rivals import CARD, FULL, LIMIT_S, RIVALS, Rival
from scripts.bench.roadside import FRAME
from scripts.bench.video import NO_CODE_TARGET_MS, RATIO_TARGET, VideoTimes

NATIVE, FITTED = "native", "1280x720"  # the sizes at which pictures are read
ALL = "all"  # the category that holds all others

FULL_TARGET, CARD_TARGET = 98.0, 93.0  # per cent of photographs
MARGIN_TARGET = 8.0  # points ahead of the best single decoder on roadside frames

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Tally:
    """What one decoder did on one category at one size."""

    with_code: int = 0
    read: int = 0  # pictures of which at least one expected text was read
    false: int = 0  # texts that nobody expected
    stopped: int = 0  # pictures at which it died or exceeded the limit
    ms: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # names of pictures with a code that was not read
    misread: list[str] = field(default_factory=list)  # names of pictures in which a text was read that is not there

    def add(self, sample: Sample, attempt: Attempt) -> None:
        """Count one attempt."""
        readings = [_readings(payload) for payload in set(attempt.payloads)]
        right = any(texts & sample.expected for texts in readings)
        false = sum(not texts & sample.expected for texts in readings)
        self.with_code += bool(sample.expected)
        self.read += right
        self.false += false
        self.missed += [sample.name] * (bool(sample.expected) and not right)
        self.misread += [sample.name] * bool(false)
        self.stopped += attempt.stopped
        self.ms.append(attempt.ms)

    @property
    def success(self) -> float | None:
        """Per cent of the pictures with a code; None where there is none."""
        return 100 * self.read / self.with_code if self.with_code else None

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pictures": len(self.ms),
            "with_code": self.with_code,
            "read": self.read,
            "success_percent": None if self.success is None else round(self.success, 1),
            "false_decodes": self.false,
            "stopped": self.stopped,
            "missed": self.missed,
            "misread": self.misread,
            "ms_median": round(statistics.median(self.ms), 2),
            "ms_p95": round(float(np.percentile(self.ms, 95)), 2),
        }


_ENCODINGS = ("utf-8", "latin-1", "shift_jis")


def _readings(payload: bytes) -> set[str]:
    """All texts that a payload may stand for.

    A code without an ECI designator leaves its encoding open (ISO/IEC 18004, clause 7.3). zbar guesses it and returns
    UTF-8, so its guess is undone as well: right bits are no false decode.
    """
    found = {text for encoding in _ENCODINGS if (text := _decoded(payload, encoding)) is not None}
    guessed = _decoded(payload, "utf-8")
    for encoding in _ENCODINGS[1:]:
        try:
            found.add((guessed or "").encode(encoding).decode("utf-8"))
        except UnicodeError:
            continue
    # Shift JIS has the yen sign where ASCII has the backslash (JIS X 0201).
    return found | {text.replace(chr(0xA5), "\\") for text in found}


def _decoded(payload: bytes, encoding: str) -> str | None:
    try:
        return payload.decode(encoding)
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, slots=True)
class QrResult:
    """All tallies of one run, by size, category and decoder."""

    generated: bool
    tallies: Mapping[tuple[str, str, str], Tally]
    names: tuple[str, ...]  # of the decoders that were there
    missing: tuple[str, ...]
    video: VideoTimes | None = None

    @property
    def singles(self) -> tuple[str, ...]:
        """The decoders that are not our ladder."""
        return tuple(name for name in self.names if name not in (FULL, CARD))

    @property
    def categories(self) -> tuple[str, ...]:
        """In the order of the pictures."""
        return tuple(dict.fromkeys(category for _, category, _ in self.tallies if category != ALL))

    def tally(self, name: str, category: str = ALL, size: str = NATIVE) -> Tally:
        """One cell; generated frames have one size, and it stands for both."""
        return self.tallies[NATIVE if self.generated else size, category, name]


# ----------------------------------------------------------------------------------------------------- running


def measure(pictures: PictureSet, progress: Progress, *, rivals: Sequence[Rival] = RIVALS) -> QrResult:
    """Every decoder on every picture, each in a child process; a decoder that is not installed is left out."""
    tallies: dict[tuple[str, str, str], Tally] = {}
    with ExitStack() as stack:
        running, missing = _start(rivals, stack)
        for done, sample in enumerate(pictures, 1):
            for size, shown in _sizes(sample, pictures.generated):
                for name, decoder in running.items():
                    attempt = decoder.read(shown)
                    for category in (sample.category, ALL):
                        tallies.setdefault((size, category, name), Tally()).add(sample, attempt)
            progress("read", done, len(pictures))
    return QrResult(pictures.generated, tallies, tuple(running), missing)


def _start(rivals: Iterable[Rival], stack: ExitStack) -> tuple[dict[str, GuardedDecoder], tuple[str, ...]]:
    running, missing = {}, []
    for rival in rivals:
        try:
            running[rival.name] = stack.enter_context(closing(GuardedDecoder(rival.make, LIMIT_S)))
        except DeviceNotFoundError:
            missing.append(rival.name)
    return running, tuple(missing)


def _sizes(sample: Sample, generated: bool) -> Iterator[tuple[str, Gray]]:
    yield NATIVE, sample.gray
    if not generated:
        yield FITTED, fitted(sample.gray)


def fitted(gray: Gray) -> Gray:
    """The picture as large as it fits into a camera's frame."""
    height, width = gray.shape
    scale = min(FRAME[0] / height, FRAME[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(gray, size, interpolation=method), np.uint8)


# ----------------------------------------------------------------------------------------------------- targets


def targets(result: QrResult) -> list[Figure]:
    """What was promised for this kind of pictures, in the order of the promises."""
    found = list(_roadside_targets(result) if result.generated else _photograph_targets(result))
    for name in (FULL, CARD):
        if name in result.names:
            false = result.tally(name).false
            found.append(Figure(name=f"{name}: false decodes", value=false, at_most=0, unit="", measured=str(false)))
    if result.video:
        found += _video_targets(result.video)
    return found


def _photograph_targets(result: QrResult) -> Iterator[Figure]:
    for name, least in ((FULL, FULL_TARGET), (CARD, CARD_TARGET)):
        if name in result.names and (success := result.tally(name).success) is not None:
            yield Figure(name=f"{name}: read", value=success, at_least=least, unit="%", measured=f"{success:.4g} %")


def _roadside_targets(result: QrResult) -> Iterator[Figure]:
    if FULL not in result.names or not result.singles:
        return
    for category in result.categories:
        ours = result.tally(FULL, category)
        best = max(result.tally(name, category).read for name in result.singles)
        if best == 0:
            continue
        # One picture more; ahead of a decoder that reads everything nobody can be.
        least = 0.0 if best == ours.with_code else 100 / ours.with_code
        yield _ahead(category, _points(ours, best), least)
    ours = result.tally(FULL)
    margin = _points(ours, max(result.tally(name).read for name in result.singles))
    yield _ahead("all", margin, MARGIN_TARGET)


def _ahead(category: str, points: float, least: float) -> Figure:
    name = f"{category}: ahead of the best single"
    return Figure(name=name, value=points, at_least=least, unit="points", measured=f"{points:.4g} points")


def _points(ours: Tally, best: int) -> float:
    return 100 * (ours.read - best) / max(1, ours.with_code)


def _video_targets(video: VideoTimes) -> Iterator[Figure]:
    yield Figure(
        name="video: first call reads / one zxing call", value=video.ratio, at_most=RATIO_TARGET,
        measured=f"{video.ratio:.2f}x ({video.reading_ms:.2f} ms)",
    )  # fmt: skip
    yield Figure(
        name="video: a frame without code", value=video.no_code_ms, at_most=NO_CODE_TARGET_MS, unit="ms",
        measured=f"{video.no_code_ms:.1f} ms",
    )  # fmt: skip
