"""What a frame without a reading tells the officer: drawn frames of each trouble, and a table of what was said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from hw.camera.remedies import remedy
from hw.interfaces import CameraSettings
from hw.qr.decoders import ZbarDecoder, available_decoders
from hw.qr.hints import find_hint
from hw.qr.reader import CodeReader
from hw.qr.views import Views
from scripts.bench.optics import Gray
from tests.drawn import draw
from verifier.types import Hint
from verifier.wording import HINTS

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
SEEDS = range(8)
HEIGHT, WIDTH = 720, 1280
Rng = np.random.Generator


def gray(values: np.ndarray) -> Gray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def scene(rng: Rng) -> Gray:
    """A car front in broad strokes: a gradient, panels, letters, fine noise."""
    picture = gray(np.linspace(rng.uniform(60, 110), rng.uniform(120, 200), HEIGHT)[:, None] * np.ones(WIDTH))
    for _ in range(14):
        x, y = (int(rng.integers(0, side)) for side in (WIDTH, HEIGHT))
        w, h = (int(side) for side in rng.integers(20, 300, 2))
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(20, 235)), int(rng.choice([-1, 2, 5])))
    for _ in range(4):
        spot = (int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT)))
        cv2.putText(picture, "INSPECTION 2026", spot, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 240, 2)
    return gray(picture + rng.normal(0, 2, picture.shape))


def mark(rng: Rng) -> Gray:
    return draw("VM1:" + "".join(ALPHABET[i] for i in rng.integers(0, len(ALPHABET), rng.integers(270, 440))), 8)


def shown(rng: Rng, module_px: float, middle: tuple[float, float] | None = None) -> tuple[Gray, float, float, float]:
    """A mark in a scene, a little turned; the frame, the code's middle and the length of its side in pixels."""
    code = mark(rng)
    side = code.shape[0]
    x, y = middle or (WIDTH * rng.uniform(0.4, 0.6), HEIGHT * rng.uniform(0.44, 0.56))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-15, 15), module_px / 8)
    turn[:, 2] += np.array([x, y]) - side / 2
    soft = cv2.GaussianBlur(code, (0, 0), max(0.5, 4 / module_px))
    layer = cv2.warpAffine(soft, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(np.full_like(code, 255), turn, (WIDTH, HEIGHT)) > 127
    return np.where(mask, layer, scene(rng)), x, y, module_px * (side / 8 - 8)


def moved(picture: Gray, length_px: int, angle_deg: float) -> Gray:
    kernel = np.zeros((length_px, length_px), np.float32)
    kernel[length_px // 2] = 1
    turn = cv2.getRotationMatrix2D((length_px / 2 - 0.5, length_px / 2 - 0.5), angle_deg, 1)
    kernel = cv2.warpAffine(kernel, turn, (length_px, length_px))
    return gray(cv2.filter2D(picture, cv2.CV_32F, kernel / kernel.sum()))


def without_code(rng: Rng) -> Gray:
    return scene(rng)


def too_far(rng: Rng) -> Gray:
    return shown(rng, rng.uniform(0.95, 1.15))[0]


def out_of_focus(rng: Rng) -> Gray:
    module_px = rng.uniform(3, 5)
    return gray(cv2.GaussianBlur(shown(rng, module_px)[0], (0, 0), module_px * rng.uniform(0.8, 1.1)))


def shaken(rng: Rng) -> Gray:
    module_px = rng.uniform(3, 5)
    return moved(shown(rng, module_px)[0], round(module_px * rng.uniform(2.5, 3.5)), rng.uniform(0, 180))


def at_night(rng: Rng) -> Gray:
    light = shown(rng, 4)[0] / 255 * rng.uniform(1, 2.5)
    return gray(light + rng.normal(0, 1.5, light.shape) + 3)


def dazzled(rng: Rng) -> Gray:
    picture, x, y, side = shown(rng, rng.uniform(3, 5))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    across = columns - x - side * rng.uniform(-0.2, 0.2)
    down = rows - y - side * rng.uniform(-0.2, 0.2)
    return gray(picture + 600 * np.exp(-(((across**2 + down**2) / (0.3 * side) ** 2) ** 2)))


def cut_off(rng: Rng) -> Gray:
    left = rng.random() < 0.5
    x = rng.uniform(-30, 30)
    return shown(rng, 5, (x if left else WIDTH - x, HEIGHT * rng.uniform(0.4, 0.6)))[0]


EXAMPLES: list[tuple[Hint, Callable[[Rng], Gray]]] = [
    (Hint.NO_CODE, without_code),
    (Hint.TOO_SMALL, too_far),
    (Hint.BLURRED, out_of_focus),
    (Hint.BLURRED, shaken),
    (Hint.DARK, at_night),
    (Hint.GLARE, dazzled),
    (Hint.CUT_OFF, cut_off),
]


@pytest.fixture(scope="module")
def said() -> dict[str, Counter[Hint | None]]:
    """For each kind of example, what the reader said of those that it did not read."""
    table: dict[str, Counter[Hint | None]] = {}
    decoders = available_decoders()
    for _, make in EXAMPLES:
        readings = [CodeReader(decoders).read(make(np.random.default_rng(seed))) for seed in SEEDS]
        table[make.__name__] = Counter(reading.hint for reading in readings if not reading.codes)
    return table


@pytest.mark.parametrize(("hint", "make"), EXAMPLES, ids=[make.__name__ for _, make in EXAMPLES])
def test_nine_of_ten_clear_examples_are_named(
    said: dict[str, Counter[Hint | None]], hint: Hint, make: Callable[[Rng], Gray]
) -> None:
    named = said[make.__name__]
    assert named.total() >= len(SEEDS) - 2, "examples that can be read are no examples"
    assert named[hint] >= 0.9 * named.total(), named


@pytest.mark.parametrize("module_px", [1.9, 3, 7])
def test_a_frame_that_was_read_has_no_hint(module_px: float) -> None:
    decoders = available_decoders()
    for seed in range(6):
        reading = CodeReader(decoders).read(shown(np.random.default_rng(seed), module_px)[0])
        assert reading.codes
        assert reading.hint is None


def test_the_hint_is_measured_in_every_third_frame_without_a_code_and_anew_after_one() -> None:
    reader = CodeReader(available_decoders())
    wall, dark = np.full((90, 160), 200, np.uint8), np.full((90, 160), 9, np.uint8)
    code = draw("https://example.org", 4)
    said = [reader.read(frame).hint for frame in (wall, dark, dark, dark, code, dark)]
    assert said == [Hint.NO_CODE, Hint.NO_CODE, Hint.NO_CODE, Hint.DARK, None, Hint.DARK]


def test_a_frame_with_a_foreign_code_has_no_hint() -> None:
    frame = scene(np.random.default_rng(1))
    code = draw("https://example.org/not-a-mark", 6)
    frame[100 : 100 + code.shape[0], 200 : 200 + code.shape[1]] = code
    assert CodeReader(available_decoders()).read(frame).hint is None


def test_a_code_in_clear_view_that_no_measure_explains_gets_no_hint() -> None:
    """Without its three corner patterns nothing can read it; that is neither distance, nor light, nor the hand."""
    rng = np.random.default_rng(2)
    code = mark(rng)[::2, ::2]
    side, corner = code.shape[0], 4 * 4 + 8 * 4
    for rows in (slice(0, corner), slice(side - corner, side)):
        for columns in (slice(0, corner), slice(side - corner, side)):
            code[rows, columns] = 128
    frame = scene(rng)
    frame[200 : 200 + side, 400 : 400 + side] = code
    reading = CodeReader(available_decoders()).read(frame)
    assert (reading.codes, reading.hint) == ((), None)


@pytest.mark.parametrize("value", [0, 20])
def test_a_black_frame_is_dark(value: int) -> None:
    assert CodeReader(available_decoders()).read(np.full((HEIGHT, WIDTH), value, np.uint8)).hint is Hint.DARK


@pytest.mark.parametrize("value", [90, 255])
def test_an_empty_wall_holds_no_code(value: int) -> None:
    assert CodeReader(available_decoders()).read(np.full((HEIGHT, WIDTH), value, np.uint8)).hint is Hint.NO_CODE


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 2), (3, 3), (7, 40)])
def test_any_tiny_picture_gets_an_answer(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    assert find_hint(noise, Views(noise).region) in (None, *Hint)


def test_the_hint_is_the_same_from_a_large_frame() -> None:
    frame = np.asarray(cv2.resize(cut_off(np.random.default_rng(4)), None, fx=3, fy=3), np.uint8)
    assert CodeReader([ZbarDecoder()]).read(frame).hint is Hint.CUT_OFF


# ---------------------------------------------------------------------------------- what the camera can do about it

PLAIN, LIT = CameraSettings(), CameraSettings(torch=True)


@pytest.mark.parametrize(
    ("before", "hint", "after"),
    [
        (PLAIN, Hint.DARK, LIT),
        (LIT, Hint.DARK, CameraSettings(torch=True, exposure_ev=1)),
        (PLAIN, Hint.GLARE, CameraSettings(exposure_ev=-1)),
        (LIT, Hint.GLARE, CameraSettings(exposure_ev=-1)),
        (LIT, Hint.BLURRED, LIT),
        (PLAIN, Hint.NO_CODE, PLAIN),
        (PLAIN, None, PLAIN),
    ],
)
def test_darkness_asks_for_the_lamp_and_glare_for_less_light(
    before: CameraSettings, hint: Hint | None, after: CameraSettings
) -> None:
    assert remedy(before, hint, unread_s=0.1) == after


def test_exposure_is_bracketed_while_nothing_is_read() -> None:
    after_s = (0, 0.4, 0.5, 0.9, 1.0, 1.4, 1.5, 2)
    tried = [remedy(LIT, Hint.NO_CODE, unread_s=seconds).exposure_ev for seconds in after_s]
    assert tried == [0, 0, -1, -1, 1, 1, 0, -1]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_each_reading_says_how_the_next_frames_should_be_taken() -> None:
    clock = Clock()
    reader = CodeReader(available_decoders(), clock)
    dark, wall = np.full((90, 160), 9, np.uint8), np.full((90, 160), 200, np.uint8)

    def asked(frame: Gray, at_s: float) -> CameraSettings:
        clock.now_s = at_s
        return reader.read(frame).camera

    brighter, darker = (CameraSettings(torch=True, exposure_ev=stop) for stop in (1, -1))
    assert asked(dark, 0.0) == LIT
    # Darkness is measured in every third frame and stands for the two after it.
    assert [asked(wall, at_s) for at_s in (0.1, 0.2, 0.3, 0.6)] == [brighter, brighter, LIT, darker]
    assert asked(draw("https://example.org", 4), 0.7) == darker, "what a code was read with is kept"
    assert asked(wall, 0.8) == LIT, "the time without a code begins anew"


def test_each_hint_has_its_words() -> None:
    assert set(HINTS) == set(Hint)
    for text in HINTS.values():
        assert 0 < len(text.zh) <= 8
        assert 0 < len(text.en) <= 16
