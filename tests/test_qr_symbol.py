"""The make of a symbol that was read: its version, its modules, and the margin around it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hw.interfaces import CodeDecoder
from hw.qr.decoders import ZbarDecoder, ZxingDecoder
from hw.qr.symbol import QUIET_ZONE, Symbol, measure_symbol
from scripts.bench.optics import Gray
from scripts.bench.roadside import make, mark_text
from tests.drawn import draw
from verifier.types import CodeSeen

MARK = mark_text(3)
MODULE_PX = 4


def zxing() -> CodeDecoder:
    pytest.importorskip("zxingcpp", reason="zxing-cpp is not installed")
    return ZxingDecoder()


@pytest.fixture(params=[zxing, ZbarDecoder], ids=["zxing", "zbar"])
def decoder(request: pytest.FixtureRequest) -> CodeDecoder:
    return request.param()


def on_black(margins: tuple[float, float, float, float], **options: int) -> Gray:
    """A mark on a black plate that leaves so many light modules to its left, top, right and bottom."""
    code = draw(MARK, MODULE_PX, **options)
    plate = np.zeros((900, 900), np.uint8)
    border = QUIET_ZONE * MODULE_PX
    side = code.shape[0] - 2 * border
    left, top, right, bottom = (round(margin * MODULE_PX) for margin in margins)
    plate[100 - top : 100 + side + bottom, 100 - left : 100 + side + right] = 255
    plate[100 : 100 + side, 100 : 100 + side] = code[border:-border, border:-border]
    return plate


def measured(gray: Gray, decoder: CodeDecoder) -> Symbol:
    [code] = decoder.decode(gray)
    symbol = measure_symbol(gray, code)
    assert symbol is not None
    return symbol


@pytest.mark.parametrize("version", [1, 2, 7, 10, 13, 25, 40])
def test_the_version_is_told_whichever_library_read_the_code(decoder: CodeDecoder, version: int) -> None:
    symbol = measured(draw("A", MODULE_PX, version=version), decoder)
    assert symbol.version == version
    assert symbol.module_px == pytest.approx(MODULE_PX, rel=0.05)


def test_a_dense_code_of_small_dots_is_measured_too(decoder: CodeDecoder) -> None:
    code = np.pad(draw(MARK * 3, 2, version=30), 30, constant_values=255)
    symbol = measured(code, decoder)
    assert (symbol.version, symbol.quiet_zone_missing) == (30, False)
    assert symbol.module_px == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("margin", [1, 2, 4])
def test_the_width_of_the_quiet_zone_is_told_to_half_a_module(decoder: CodeDecoder, margin: int) -> None:
    symbol = measured(on_black((margin,) * 4), decoder)
    assert symbol.quiet_zone == pytest.approx(margin, abs=0.5)
    assert symbol.quiet_zone_missing == (margin < QUIET_ZONE)


@pytest.mark.parametrize("side", range(4))
def test_one_narrow_side_is_enough_to_be_named(decoder: CodeDecoder, side: int) -> None:
    symbol = measured(on_black((*[6.0] * side, 1.5, *[6.0] * (3 - side))), decoder)
    assert symbol.quiet_zone == pytest.approx(1.5, abs=0.5)
    assert symbol.quiet_zone_missing


def test_what_lies_outside_the_frame_is_no_margin(decoder: CodeDecoder) -> None:
    whole = draw(MARK, MODULE_PX)
    assert not measured(whole, decoder).quiet_zone_missing
    assert measured(np.ascontiguousarray(whole[:, 2 * MODULE_PX :]), decoder).quiet_zone_missing


@pytest.mark.parametrize("margin", [2, 4])
def test_of_an_inverted_code_the_dark_margin_counts(margin: int) -> None:
    symbol = measured(255 - on_black((margin,) * 4), zxing())
    assert symbol.quiet_zone == pytest.approx(margin, abs=0.5)


@pytest.mark.parametrize("angle", [0, 15, 45, 90, 200])
@pytest.mark.parametrize("margin", [1, 4])
def test_turned_and_in_grey_light_it_is_told_to_a_module(decoder: CodeDecoder, angle: int, margin: int) -> None:
    turn = cv2.getRotationMatrix2D((250, 250), angle, 1)
    turn[:, 2] += 200
    plate = np.asarray(cv2.warpAffine(on_black((margin,) * 4), turn, (900, 900), flags=cv2.INTER_LINEAR), np.uint8)
    symbol = measured(plate // 2 + 20, decoder)
    assert symbol.quiet_zone == pytest.approx(margin, abs=1)
    assert symbol.quiet_zone_missing == (margin < QUIET_ZONE)


@pytest.mark.parametrize("level", [0, 0.2, 0.4])
def test_in_a_drawn_roadside_frame_a_missing_quiet_zone_is_named(decoder: CodeDecoder, level: float) -> None:
    made = make("missing_quiet_zone", level, 3)
    symbol = measured(made.gray, decoder)
    assert symbol.quiet_zone == pytest.approx(made.shot.quiet_zone, abs=0.6)
    assert symbol.quiet_zone_missing == (level > 0)


def test_a_code_without_a_timing_pattern_has_no_known_version() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300), dtype=np.uint8)
    code = CodeSeen(payload=b"", corners=((20, 20), (280, 20), (280, 280), (20, 280)), decoder="test")
    symbol = measure_symbol(noise, code)
    assert symbol == Symbol(version=None, module_px=None, quiet_zone=None)
    assert not symbol.quiet_zone_missing


@pytest.mark.parametrize("corners", [(), ((1, 1),) * 4, ((0, 0), (9, 9)), ((0, 0), (5, 5), (9, 9), (20, 20))])
def test_a_code_without_four_corners_is_not_measured(corners: tuple[tuple[int, int], ...]) -> None:
    code = CodeSeen(payload=b"", corners=corners, decoder="test", version=10)
    assert measure_symbol(np.zeros((30, 30), np.uint8), code) is None


OUTSIDE = [((-900, -900), (9000, 0), (9000, 9000), (0, 9000)), ((500, 500), (900, 500), (900, 900), (500, 900))]


@pytest.mark.parametrize("corners", OUTSIDE)
def test_corners_outside_the_frame_do_no_harm(corners: tuple[tuple[int, int], ...]) -> None:
    gray = np.random.default_rng(2).integers(0, 256, (120, 160), dtype=np.uint8)
    for version in (None, 1, 40):
        measure_symbol(gray, CodeSeen(payload=b"", corners=corners, decoder="test", version=version))
