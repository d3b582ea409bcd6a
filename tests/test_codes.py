"""What is printed of a code: pictures, the driver's sheet and the tag card's label, read back by the real decoders."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firmware.fonts import headline_font
from hw.qr.decoders import available_decoders
from hw.qr.pipeline import decode_frame
from scripts.sandbox.authority import Authority, new_authority
from scripts.sandbox.codes import (
    CITY_NAMES,
    MAX_ON_SHEET,
    PRINT_DPI,
    PaperMark,
    card_number,
    print_sheet,
    print_tag_label,
    qr_picture,
    qr_svg,
)
from scripts.sandbox.fleet import CITIES, Vehicle
from verifier.codec.credential import decode
from verifier.trust import load_trust_list
from verifier.types import Month, Plate, PresentationMode
from verifier.verify import verify

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
A4_MM, ID_1_MM = (210, 297), (85.60, 53.98)
QUIET = 4  # modules, ISO/IEC 18004 clause 6.3.8
TEXT = "VM1:" + "ABC0" * 70  # as long as a credential


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority({}, clock=lambda: NOW, scale=64, seed=11)


def paper_mark(authority: Authority, vehicle: Vehicle, mode: PresentationMode) -> PaperMark:
    text = authority.text(vehicle.plate, mode)
    return PaperMark(text, vehicle.plate, vehicle.valid_until, vehicle.city.code)


def some(authority: Authority, count: int, *, tagged: bool = False) -> list[Vehicle]:
    vehicles = [v for v in authority.registry.vehicles.values() if v.tid or not tagged]
    return vehicles[:count]


def picture_of(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def read(picture: Image.Image) -> list[bytes]:
    gray = np.asarray(picture.convert("L"))
    return [code.payload for code in decode_frame(gray, available_decoders(), budget_s=60)]


def code_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the one code, from its finder patterns."""
    (code,) = decode_frame(np.asarray(picture.convert("L")), available_decoders(), budget_s=60)
    xs, ys = zip(*code.corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def mm(pixels: float) -> float:
    return pixels / PRINT_DPI * 25.4


def rendered(pdf: Path) -> Image.Image:
    """The first page of a PDF as a printer's program sees it."""
    if shutil.which("pdftoppm") is None:
        pytest.skip("no pdftoppm (package poppler-utils): the PDF is not rendered")
    out = pdf.with_suffix("")
    subprocess.run(["pdftoppm", "-r", str(PRINT_DPI), "-png", "-singlefile", pdf, out], check=True, timeout=60)
    return picture_of(out.with_suffix(".png"))


# --------------------------------------------------------------------------------------------- pictures


def rasterised(svg: bytes, scale: int = 4) -> Image.Image:
    """The SVG as pixels: one white square, and strokes one unit wide that run level."""
    width, height = (int(n) for n in re.findall(rb'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    assert f'fill="#fff" d="M0 0h{width}v{height}h-{width}z"'.encode() in svg
    (path,) = re.findall(rb'stroke="#000" d="([^"]+)"', svg)
    modules = np.full((height, width), 255, np.uint8)
    x, y = 0.0, 0.0
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", path.decode()):
        values = [float(n) for n in re.findall(r"-?\d*\.?\d+", numbers)]
        if command == "h":
            modules[int(y - 0.5), int(x) : int(x + values[0])] = 0
            x += values[0]
        else:
            x, y = (values[0], values[1]) if command == "M" else (x + values[0], y + values[1])
    return Image.fromarray(np.kron(modules, np.ones((scale, scale), np.uint8)))


def test_the_svg_and_the_png_are_the_same_code():
    assert read(rasterised(qr_svg(TEXT))) == read(qr_picture(TEXT)) == [TEXT.encode()]
    assert rasterised(qr_svg(TEXT), scale=8).tobytes() == qr_picture(TEXT, scale=8).tobytes()


def test_a_picture_has_its_quiet_zone():
    pixels = np.asarray(qr_picture(TEXT, scale=2))
    inked = np.argwhere(pixels == 0)
    assert inked.min() == QUIET * 2
    assert (np.array(pixels.shape) - 1 - inked.max(axis=0) == QUIET * 2).all()


# ------------------------------------------------------------------------------------------------ sheet


def test_a_sheet_of_six_gives_six_printed_credentials(authority, tmp_path):
    vehicles = some(authority, 6)
    print_sheet([paper_mark(authority, v, PresentationMode.PRINTED) for v in vehicles], tmp_path / "sheet.png")
    trust = load_trust_list(authority.issuer.trust_entries())
    found = [verify(decode(payload), trust, NOW) for payload in read(picture_of(tmp_path / "sheet.png"))]
    assert {v.credential.plate for v in found} == {v.plate for v in vehicles}
    assert {(v.mode, v.fault) for v in found} == {(PresentationMode.PRINTED, None)}


def test_the_pdf_sheet_renders_as_a4_with_the_same_codes(authority, tmp_path):
    marks = [paper_mark(authority, v, PresentationMode.PRINTED) for v in some(authority, 2)]
    print_sheet(marks, tmp_path / "sheet.pdf")
    page = rendered(tmp_path / "sheet.pdf")
    assert [mm(side) for side in page.size] == pytest.approx(A4_MM, abs=0.2)
    assert set(read(page)) == {mark.text.encode() for mark in marks}


def test_a_code_on_the_sheet_is_about_60_mm_wide(authority, tmp_path):
    print_sheet([paper_mark(authority, some(authority, 1)[0], PresentationMode.PRINTED)], tmp_path / "sheet.png")
    page = picture_of(tmp_path / "sheet.png")
    left, top, right, bottom = code_box(page)
    assert 54 <= mm(right - left) <= 60.5
    assert 54 <= mm(bottom - top) <= 60.5
    assert page.info["dpi"][0] == pytest.approx(PRINT_DPI, abs=0.1)


def ink(pixels: np.ndarray) -> int:
    return int((pixels == 0).sum())


def test_the_sheet_is_cut_and_folded_beside_the_codes_not_through_them(authority, tmp_path):
    marks = [paper_mark(authority, v, PresentationMode.PRINTED) for v in some(authority, 4)]
    print_sheet(marks[:1], tmp_path / "one.png")
    print_sheet(marks, tmp_path / "four.png")
    one, four = (np.asarray(picture_of(tmp_path / name).convert("L")) for name in ("one.png", "four.png"))
    middle = one.shape[1] // 2
    line = one[:, middle - 2 : middle + 3]
    assert 0.3 < ink(line.min(axis=1)) / (one.shape[0] / 3) < 0.7, "dashes down one third of the page"
    assert ink(four[:, middle - 2 : middle + 3].min(axis=1)) > 1.8 * ink(line.min(axis=1))
    assert ink(one[one.shape[0] // 2 :]) == 0, "nothing where no mark stands"


@pytest.mark.parametrize("count", [0, MAX_ON_SHEET + 1])
def test_a_sheet_takes_one_to_six(count, tmp_path):
    mark = PaperMark(TEXT, Plate("京A12345", "02"), Month(2027, 8), "110000")
    with pytest.raises(ValueError, match="one to six"):
        print_sheet([mark] * count, tmp_path / "sheet.png")


def test_every_city_has_a_chinese_name_that_can_be_printed():
    assert set(CITY_NAMES) == {city.code for city in CITIES}
    assert headline_font(50).missing_glyphs("".join(CITY_NAMES.values())) == set()


# ------------------------------------------------------------------------------------------------ label


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_label_has_the_size_of_a_card_and_its_code_is_read(suffix, authority, tmp_path):
    (vehicle,) = some(authority, 1, tagged=True)
    mark = paper_mark(authority, vehicle, PresentationMode.TAG_LABEL)
    path = tmp_path / f"label.{suffix}"
    print_tag_label(mark, card_number(vehicle.tid or ""), path)
    label = picture_of(path) if suffix == "png" else rendered(path)
    assert [mm(side) for side in label.size] == pytest.approx(ID_1_MM, abs=0.2)
    (payload,) = read(label)
    proven = verify(decode(payload), load_trust_list(authority.issuer.trust_entries()), NOW)
    assert (proven.credential.plate, proven.mode, proven.fault) == (vehicle.plate, PresentationMode.TAG_LABEL, None)
    assert proven.credential.tid_hash is not None


@pytest.mark.parametrize("plate", ["京A12345", "粤BF12345", "粤Z1234港", "川X1234应急"])
@pytest.mark.parametrize("length", [220, 441, 560])
def test_a_code_on_the_label_is_coarse_enough_and_keeps_its_quiet_zone(plate, length, tmp_path):
    text = "VM1:" + "A0B1C2" * (length // 6)
    mark = PaperMark(text, Plate(plate, "02"), Month(2027, 8), "110000")
    print_tag_label(mark, "0123 4567 89AB", tmp_path / "label.png")
    label = picture_of(tmp_path / "label.png")
    left, top, right, bottom = code_box(label)
    assert mm(right - left) >= 30
    modules = qr_picture(text, scale=1).width - 2 * QUIET
    module = (right - left) / modules
    assert mm(module) >= 0.4
    zone = int(QUIET * module) - 2
    ring = np.asarray(label.convert("L"))[top - zone : bottom + zone, left - zone : right + zone].copy()
    ring[zone - 2 : 2 - zone, zone - 2 : 2 - zone] = 255
    assert ink(ring) == 0
    assert ink(np.asarray(label.convert("L"))[60:-60, -25:-4]) == 0, "no text runs over the edge"


def test_the_card_number_names_the_tag_without_giving_its_tid():
    tid = "E2801234567890ABCDEF0123"
    assert card_number(tid) == "90AB CDEF 0123"
    assert tid not in card_number(tid).replace(" ", "")
