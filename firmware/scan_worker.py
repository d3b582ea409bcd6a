"""The scanner process: `python -m firmware.scan_worker REPORTS SLOT JOB`, started by `firmware.scanner`.

It loads OpenCV and the decoders, takes frames from its own source, and may hang or die in them. File descriptor REPORTS
takes its messages, SLOT the frame that it is about to read and then its photo; each byte on its standard input grants
one frame, or says how the camera shall take the next ones.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from firmware.scan_protocol import (
    FRAME_HEADER,
    GRANT,
    MAX_FRAME_PIXELS,
    MAX_PHOTO,
    PHOTO_GRANT,
    PHOTO_HEADER,
    PHOTO_PLACE,
    Begin,
    Done,
    End,
    Failed,
    Job,
    Message,
    Missing,
    Ready,
    Unusable,
    decode_settings,
    encode,
)
from hw.errors import DeviceNotFoundError, FrameError, HardwareError
from hw.interfaces import CameraSettings, CodeDecoder, Frame, FrameSource
from hw.qr.hints import find_hint
from hw.qr.pipeline import STILL_BUDGET_S, decode_frame, marks
from hw.qr.reader import CodeReader
from hw.qr.views import Views
from verifier.types import CodeSeen, Hint

_IDLE_S = 1.0  # between two grants, after which nobody looks
_MAX_DATA = 1 << 30  # bytes; a picture of 100 megapixels takes 600 MB while it is read
_MAX_FILE = PHOTO_PLACE + PHOTO_HEADER.size + MAX_PHOTO  # bytes; the slot is the only file it writes
_PHOTOS = ((1280, 80), (1280, 55), (960, 45), (640, 35))  # longer side in pixels and JPEG quality, the best first

Gray = NDArray[np.uint8]


class _Reading(NamedTuple):
    codes: Sequence[CodeSeen]
    hint: Hint | None
    remedy: CameraSettings = CameraSettings()


class _Light:
    """Tells the camera what the reader's remedies want, and on top what the program asks for."""

    def __init__(self, source: FrameSource) -> None:
        self._adjust: Callable[[CameraSettings], None] | None = getattr(source, "adjust", None)
        self._remedy = self._asked = self._told = CameraSettings()
        self._resting = False

    def follow(self, remedy: CameraSettings) -> None:
        self._remedy = remedy
        self._tell()

    def ask(self, settings: CameraSettings) -> None:
        self._asked = settings
        self._tell()

    def rest(self) -> None:
        """Nobody looks, or only now and then whether the camera lives: no lamp, which dazzles and drains."""
        self._resting = True
        self._tell()

    def wake(self) -> None:
        """Somebody asks for one frame after the other."""
        self._resting = False
        self._tell()

    def _tell(self) -> None:
        remedy, asked = self._remedy, self._asked
        self._put(
            CameraSettings(
                torch=(remedy.torch or asked.torch) and not self._resting,
                exposure_ev=asked.exposure_ev or remedy.exposure_ev,
                zoom=remedy.zoom or asked.zoom,
            )
        )

    def _put(self, settings: CameraSettings) -> None:
        if self._adjust is not None and settings != self._told:
            self._told = settings
            self._adjust(settings)


def work(job: Job, reports: int, slot: int, grants: int) -> None:
    """Do the job: a message at the start, and for each grant one frame, until there are no more or nobody asks."""
    with ExitStack() as leaving:
        try:
            _work(job, reports, slot, grants, leaving)
        except DeviceNotFoundError as exc:
            _send(reports, Missing(exc.component, exc.problem))
        except HardwareError as exc:
            _send(reports, Failed(str(exc)))


def _work(job: Job, reports: int, slot: int, grants: int, leaving: ExitStack) -> None:
    decoders = _imported(job.decoders)()
    source: FrameSource = _imported(job.source)(*map(Path, job.paths), skip=job.skip)
    leaving.callback(_leave, source, job.alarm_s)
    light = _Light(source)
    read = _still_reader(decoders) if job.still else _video_reader(decoders)
    _send(reports, Ready())
    frames = source.frames()
    while order := _granted(grants, light):
        frame = next(frames, None)
        if frame is None:
            _send(reports, Done())
            return
        if isinstance(frame, FrameError):
            _send(reports, Unusable(frame.component, frame.problem))
            continue
        _put(slot, frame.gray)
        _send(reports, Begin(frame.name))
        end, remedy = _end(frame, read, job.alarm_s, getattr(source, "total", None))
        if (job.photos and end.codes) or order == PHOTO_GRANT:
            _put_photo(slot, jpeg_of(frame.gray))
        _send(reports, end)
        light.follow(remedy)


def _granted(grants: int, light: _Light) -> bytes:
    """Wait for the grant of a frame, and tell the camera what it brings along; empty when the program is gone."""
    hurried, _, _ = select.select([grants], [], [], _IDLE_S)
    if not hurried:
        light.rest()
    while (order := os.read(grants, 1)) not in (b"", GRANT, PHOTO_GRANT):
        light.ask(decode_settings(order))
    if hurried and order:
        light.wake()
    return order


def _leave(source: FrameSource, alarm_s: float) -> None:
    """Let go of the camera; its driver may hang in that, or when the interpreter ends, and nobody may be watching."""
    signal.setitimer(signal.ITIMER_REAL, alarm_s)
    source.close()


def _end(
    frame: Frame, read: Callable[[Gray], _Reading], alarm_s: float, total: int | None
) -> tuple[End, CameraSettings]:
    # Without a handler of Python's the signal ends the process in whatever native loop it is, even when the program
    # that should watch over it is gone.
    signal.setitimer(signal.ITIMER_REAL, alarm_s)
    began = time.monotonic()
    codes, hint, remedy = read(frame.gray)
    ms = (time.monotonic() - began) * 1000
    signal.setitimer(signal.ITIMER_REAL, 0)
    ours = marks(codes)
    at_s = getattr(frame, "at_s", None)  # a camera's frames have none
    return End(codes=tuple(ours or codes), are_marks=bool(ours), hint=hint, ms=ms, at_s=at_s, total=total), remedy


def _video_reader(decoders: Sequence[CodeDecoder]) -> Callable[[Gray], _Reading]:
    reader = CodeReader(decoders)

    def read(gray: Gray) -> _Reading:
        reading = reader.read(gray)
        return _Reading(reading.codes, reading.hint, reading.camera)

    return read


def _still_reader(decoders: Sequence[CodeDecoder]) -> Callable[[Gray], _Reading]:
    def read(gray: Gray) -> _Reading:
        codes = decode_frame(gray, decoders, budget_s=STILL_BUDGET_S)
        return _Reading(codes, None if codes else find_hint(gray, Views(gray).region))

    return read


def _imported(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)


def _put(slot: int, gray: Gray) -> None:
    """The frame's pixels first and its size last: what a size stands before is whole. The photo before it goes."""
    os.pwrite(slot, FRAME_HEADER.pack(0, 0), 0)
    os.pwrite(slot, PHOTO_HEADER.pack(0), PHOTO_PLACE)
    if 0 < gray.size <= MAX_FRAME_PIXELS:
        _write(slot, np.ascontiguousarray(gray).data.cast("B"), FRAME_HEADER.size)
        os.pwrite(slot, FRAME_HEADER.pack(*gray.shape), 0)


def jpeg_of(gray: Gray) -> bytes:
    """The frame as JPEG of at most MAX_PHOTO bytes; empty for one that cannot be made so small."""
    for side, quality in _PHOTOS if gray.size else ():
        scale = min(1.0, side / max(gray.shape))
        width, height = (max(1, round(pixels * scale)) for pixels in (gray.shape[1], gray.shape[0]))
        small = gray if scale == 1.0 else cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, quality))
        if done and data.size <= MAX_PHOTO:
            return data.tobytes()
    return b""


def _put_photo(slot: int, jpeg: bytes) -> None:
    _write(slot, memoryview(jpeg), PHOTO_PLACE + PHOTO_HEADER.size)
    os.pwrite(slot, PHOTO_HEADER.pack(len(jpeg)), PHOTO_PLACE)


def _write(slot: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(slot, data, place)
        data, place = data[written:], place + written


def _send(reports: int, message: Message) -> None:
    data = encode(message)
    while data:
        data = data[os.write(reports, data) :]


def _limit() -> None:
    """No core dump, which would hold pictures of cars; no more memory than a large picture needs; no large file."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, _MAX_DATA),
        (resource.RLIMIT_FSIZE, _MAX_FILE),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _report_failure(reports: int) -> None:
    """Let an exception that nothing handles reach the program: its kind and place, no text from a picture."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        places = traceback.extract_tb(trace)
        place = f" in {Path(places[-1].filename).name}, line {places[-1].lineno}" if places else ""
        with suppress(OSError):
            _send(reports, Failed(f"{kind.__name__}{place}"))

    sys.excepthook = hook


def main(arguments: Sequence[str]) -> int:
    """REPORTS SLOT JOB: two file descriptors and the job as text."""
    reports, slot, job = arguments
    _limit()
    _report_failure(int(reports))
    with suppress(BrokenPipeError):  # the program is gone
        work(Job.from_text(job), int(reports), int(slot), sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
