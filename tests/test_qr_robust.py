"""Frames made to exhaust: each gets an answer after a bounded number of looks at pictures of bounded size."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from hw.interfaces import CodeDecoder
from hw.qr.decoders import ZbarDecoder, available_decoders
from hw.qr.pipeline import STAGES, decode_frame
from hw.qr.reader import CodeReader
from scripts.bench.optics import Gray
from tests.drawn import draw
from verifier.types import CodeSeen

MARK = "VM1:" + "0A$ 9+Z.:K" * 20
LARGEST_LOOK = 2592 * 2592  # pixels, for the quick decoder alone
LARGEST_SLOW_LOOK = 1280 * 1280


class Watching:
    """A decoder that keeps the sizes of the pictures it was given."""

    def __init__(self, decoder: CodeDecoder) -> None:
        self.decoder, self.name = decoder, decoder.name
        self.sizes: list[int] = []

    def decode(self, gray: Gray) -> list[CodeSeen]:
        assert gray.flags.c_contiguous
        assert gray.dtype == np.uint8
        self.sizes.append(gray.size)
        return self.decoder.decode(gray)


def finder_patterns(height: int, width: int) -> Gray:
    finder = np.pad(np.pad(np.zeros((3, 3)), 1, constant_values=255), 1)
    tile = np.kron(np.pad(finder, 1, constant_values=255), np.ones((4, 4))).astype(np.uint8)
    grid = np.tile(tile, (height // tile.shape[0] + 1, width // tile.shape[1] + 1))
    return np.ascontiguousarray(grid[:height, :width])


def sixty_codes(*, with_mark: bool) -> Gray:
    """Twelve megapixels of foreign codes, with a small mark in the last corner."""
    wall = np.full((3000, 4000), 200, np.uint8)
    for number in range(60):
        code = draw(f"https://example.org/{number}", 8)
        top, left = 30 + number // 10 * 490, 20 + number % 10 * 395
        wall[top : top + code.shape[0], left : left + code.shape[1]] = code
    if with_mark:
        code = draw(MARK, 3)
        wall[2780 : 2780 + code.shape[0], 3760 : 3760 + code.shape[1]] = code
    return wall


FRAMES: dict[str, Callable[[], Gray]] = {
    "finder patterns": lambda: finder_patterns(720, 1280),
    "finder patterns, 12 megapixels": lambda: finder_patterns(3000, 4000),
    "noise": lambda: np.random.default_rng(1).integers(0, 256, (720, 1280), dtype=np.uint8),
    "noise, 12 megapixels": lambda: np.random.default_rng(1).integers(0, 256, (3000, 4000), dtype=np.uint8),
    "white": lambda: np.full((720, 1280), 255, np.uint8),
    "black, 12 megapixels": lambda: np.zeros((3000, 4000), np.uint8),
    "one pixel": lambda: np.zeros((1, 1), np.uint8),
    "one row": lambda: np.zeros((1, 4096), np.uint8),
    "no pixel": lambda: np.zeros((0, 0), np.uint8),
    "no column": lambda: np.zeros((720, 0), np.uint8),
}


LONG = "noise, 12 megapixels"  # as many looks as at finder patterns of that size


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name == LONG)) for name in FRAMES])
def test_an_exhausting_frame_gets_an_answer_after_looks_of_bounded_size(name: str) -> None:
    gray = FRAMES[name]()
    watched = [Watching(decoder) for decoder in available_decoders()]
    reader = CodeReader(watched, clock=lambda: 0.0)
    assert [reader.read(gray).codes for _ in range(3)] == [(), (), ()]
    assert sum(len(decoder.sizes) for decoder in watched) <= 6
    assert decode_frame(gray, watched, budget_s=60, clock=lambda: 0.0) == []
    assert sum(len(decoder.sizes) for decoder in watched) <= 6 + len(STAGES)
    for decoder in watched:
        largest = LARGEST_SLOW_LOOK if isinstance(decoder.decoder, ZbarDecoder) else LARGEST_LOOK
        assert max(decoder.sizes, default=0) <= largest


@pytest.mark.long  # measures time
@pytest.mark.parametrize("name", [name for name in FRAMES if "finder" in name or "noise" in name])
@pytest.mark.parametrize("decoders", [available_decoders, lambda: [ZbarDecoder()]], ids=["all", "zbar alone"])
def test_an_exhausting_picture_is_answered_within_a_second(
    name: str, decoders: Callable[[], list[CodeDecoder]]
) -> None:
    gray, made = FRAMES[name](), decoders()
    made[0].decode(gray[:64, :64].copy())  # what is loaded on first use is loaded now
    began = time.process_time()
    assert decode_frame(gray, made, budget_s=1.0, clock=time.process_time) == []
    assert time.process_time() - began <= 1.0


def test_sixty_foreign_codes_are_all_read_and_none_is_taken_for_a_mark() -> None:
    codes = decode_frame(sixty_codes(with_mark=False), available_decoders(), budget_s=60)
    assert sorted(code.payload for code in codes) == sorted(b"https://example.org/%d" % n for n in range(60))


def test_a_small_mark_among_sixty_foreign_codes_is_found() -> None:
    pytest.importorskip("zxingcpp", reason="zxing-cpp is not installed")
    frame = sixty_codes(with_mark=True)
    assert MARK.encode() in [code.payload for code in decode_frame(frame, available_decoders(), budget_s=60)]
    reader = CodeReader(available_decoders(), clock=lambda: 0.0)
    readings = [[code.payload for code in reader.read(frame).codes] for _ in STAGES]
    assert [MARK.encode()] in readings


@pytest.mark.parametrize(
    "view",
    [lambda g: g[:, ::-1][:, ::-1], lambda g: np.asfortranarray(g), lambda g: np.repeat(g, 2, axis=1)[:, ::2]],
    ids=["mirrored twice", "column by column", "every second column"],
)
def test_rows_need_not_lie_one_after_the_other(view: Callable[[Gray], Gray]) -> None:
    gray = view(np.pad(draw(MARK), 60, constant_values=150))
    assert [code.payload for code in decode_frame(gray, available_decoders(), budget_s=60)] == [MARK.encode()]
    assert [code.payload for code in CodeReader(available_decoders()).read(gray).codes] == [MARK.encode()]


def test_a_read_only_frame_stays_as_it_is() -> None:
    gray = sixty_codes(with_mark=False)[:900, :1300].copy()
    before = gray.copy()
    gray.flags.writeable = False
    reader = CodeReader(available_decoders(), clock=lambda: 0.0)
    assert all(reader.read(gray).codes for _ in range(5))
    np.testing.assert_array_equal(gray, before)
