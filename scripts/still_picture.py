"""From one still picture to the payloads worth a check, here: the handheld has a process of its own for that."""

from __future__ import annotations

from collections.abc import Sequence

from hw.interfaces import CodeDecoder, Frame
from hw.qr.pipeline import STILL_BUDGET_S, decode_frame, marks
from verifier.adapters import NOTHING_READ


def payloads(frame: Frame, decoders: Sequence[CodeDecoder], *, budget_s: float = STILL_BUDGET_S) -> list[bytes]:
    """Every mark in the frame; else the first foreign code; else NOTHING_READ alone. Never empty."""
    codes = decode_frame(frame.gray, decoders, budget_s=budget_s)
    if ours := marks(codes):
        return [code.payload for code in ours]
    # A foreign code that is empty was read all the same.
    return [codes[0].payload or b"\n"] if codes else [NOTHING_READ]
