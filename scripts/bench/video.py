"""The camera's path: milliseconds a frame, where a mark lies plainly in view and where there is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import numpy as np

from scripts.bench.guarded import GuardedDecoder
from scripts.bench.rivals import LIMIT_S, camera, zxing
from scripts.bench.roadside import make, negatives

RATIO_TARGET = 1.5  # of one zxing call
NO_CODE_TARGET_MS = 35.0

_EASY = ("size", "tilt", "contrast", "jpeg", "cylinder", "motion")  # at level 0
_HELD = 4  # frames for which a hand holds still
_ROUNDS = 6  # of all easy conditions: the CPU clock of some machines ticks in milliseconds


class VideoTimes(NamedTuple):
    """Medians over all frames, CPU milliseconds of one thread."""

    reading_ms: float
    zxing_ms: float
    ratio: float  # of these two
    no_code_ms: float


def measure_video(
    seed: int, progress: Callable[[str, int, int], None], *, scenes: int = 12, frames_a_scene: int = 20
) -> VideoTimes:
    """The reader of the camera's frames beside one zxing call; DeviceNotFoundError where zxing-cpp is not installed.

    `frames_a_scene` frames without a code are a round through all stages when there are about twenty.
    """
    pairs, empty = [], []
    steps = len(_EASY) * _ROUNDS + scenes
    with closing(GuardedDecoder(camera, LIMIT_S)) as reader, closing(GuardedDecoder(zxing, LIMIT_S)) as single:
        for step, condition in enumerate(_EASY * _ROUNDS, 1):
            gray = make(condition, 0, seed + step).gray
            pairs += [(reader.read(gray).ms, single.read(gray).ms) for _ in range(_HELD)]
            progress("camera", step, steps)
        for step, made in enumerate(negatives(seed, scenes), len(_EASY) * _ROUNDS + 1):
            empty += [reader.read(made.gray).ms for _ in range(frames_a_scene)]
            progress("camera", step, steps)
    ours, alone = (float(median) for median in np.median(np.array(pairs), axis=0))
    return VideoTimes(ours, alone, ours / alone, float(np.median(np.array(empty))))
