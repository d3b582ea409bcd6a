"""Our ladder of stages and the single decoders it has to beat, each made in its child process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2

from hw.interfaces import CodeDecoder
from hw.qr.decoders import ZbarDecoder, ZxingDecoder, available_decoders
from hw.qr.pipeline import decode_frame
from hw.qr.reader import CodeReader
from scripts.bench.guarded import Decode
from scripts.bench.optics import Gray

LIMIT_S = 2.0  # of processor time for one frame; beyond, it counts as not read
_BUDGET_S = 1.5  # our own, so that the ladder ends before the limit


class Rival(NamedTuple):
    """One column of the tables."""

    name: str
    make: Callable[[], Decode]
    ours: bool = False


def _ladder(decoders: Sequence[CodeDecoder]) -> Decode:
    # By the time of the processor, as everything here: what else the machine does must not shorten the ladder.
    return lambda gray: [
        code.payload for code in decode_frame(gray, decoders, budget_s=_BUDGET_S, clock=time.process_time)
    ]


def _alone(decoder: CodeDecoder) -> Decode:
    return lambda gray: [code.payload for code in decoder.decode(gray)]


def full() -> Decode:
    """The ladder with every decoder that is installed."""
    return _ladder(available_decoders())


def card() -> Decode:
    """The ladder with what the system image brings: zbar and OpenCV."""
    return _ladder([ZbarDecoder()])


def camera() -> Decode:
    """The reader of the camera's frames, which remembers from frame to frame."""
    reader = CodeReader(available_decoders())
    return lambda gray: [code.payload for code in reader.read(gray).codes]


def pyzbar() -> Decode:
    """One call of zbar on the frame as it is, QR codes only."""
    return _alone(ZbarDecoder())


def zxing() -> Decode:
    """One call of zxing-cpp on the frame as it is."""
    return _alone(ZxingDecoder())


def opencv() -> Decode:
    """OpenCV's first detector."""
    return _opencv(cv2.QRCodeDetector())


def opencv_aruco() -> Decode:
    """OpenCV's detector on top of its ArUco module."""
    return _opencv(cv2.QRCodeDetectorAruco())


def _opencv(detector: Any) -> Decode:
    def decode(gray: Gray) -> list[bytes]:
        try:
            found, payloads, *_ = detector.detectAndDecodeBytesMulti(gray)
        except cv2.error:  # its own checks fail on some pictures
            return []
        return [bytes(payload) for payload in payloads if payload] if found else []

    return decode


FULL, CARD = "markcheck", "markcheck, card's packages"
ZXING = "zxing-cpp"
RIVALS = (
    Rival(FULL, full, ours=True),
    Rival(CARD, card, ours=True),
    Rival("pyzbar", pyzbar),
    Rival("QRCodeDetector", opencv),
    Rival("QRCodeDetectorAruco", opencv_aruco),
    Rival(ZXING, zxing),
)
