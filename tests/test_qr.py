"""Reading codes: each library alone, the ladder of stages, and photographs that others took."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.camera.files import load_picture
from hw.errors import DeviceNotFoundError
from hw.interfaces import CodeDecoder
from hw.qr.decoders import ZbarDecoder, ZxingDecoder, available_decoders, decoder_report
from hw.qr.pipeline import BESIDE, STAGES, Stage, decode_frame, marks, whole_marks
from hw.qr.views import Views
from scripts.bench.optics import Gray
from scripts.bench.roadside import CONDITIONS, FRAME, Made, make, mark_text
from tests.drawn import draw
from verifier.types import CodeSeen

AMPLE_S = 60.0
MARK = mark_text(3)
URL = "https://example.org/not-a-mark"
VECTORS = Path(os.environ.get("MARKCHECK_VECTORS", Path(__file__).resolve().parents[1] / "../shared/vectors"))


class SteppingClock:
    """Time that passes only by being looked at: `step_s` seconds each time."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


class Counting:
    """A decoder that counts how often it is asked."""

    def __init__(self, decoder: CodeDecoder) -> None:
        self.decoder, self.name, self.calls = decoder, decoder.name, 0

    def decode(self, gray: Gray) -> list[CodeSeen]:
        self.calls += 1
        return self.decoder.decode(gray)


def zxing() -> CodeDecoder:
    pytest.importorskip("zxingcpp", reason="zxing-cpp is not installed")
    return ZxingDecoder()


@pytest.fixture(params=[zxing, ZbarDecoder], ids=["zxing", "zbar"])
def decoder(request: pytest.FixtureRequest) -> CodeDecoder:
    return request.param()


def payloads(codes: list[CodeSeen]) -> list[bytes]:
    return [code.payload for code in codes]


def read(gray: Gray, decoders: list[CodeDecoder] | None = None) -> list[bytes]:
    return payloads(decode_frame(gray, decoders or available_decoders(), budget_s=AMPLE_S))


def on_white(*codes: Gray) -> Gray:
    """The codes beside each other in a frame, 40 pixels apart."""
    frame = np.full(FRAME, 255, np.uint8)
    left = 40
    for code in codes:
        height, width = code.shape
        frame[60 : 60 + height, left : left + width] = code
        left += width + 40
    return frame


# ---------------------------------------------------------------------------------------- each library alone


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(MARK, id="a mark"),
        pytest.param("0123456789" * 9, id="digits"),
        pytest.param(b"back\\slash ~ {lower} \x1d\x00\t\r\n.", id="control bytes"),
        pytest.param("https://example.org/?a=%20b", id="a URL"),
    ],
)
def test_ascii_comes_back_byte_for_byte(decoder: CodeDecoder, content: str | bytes) -> None:
    expected = content if isinstance(content, bytes) else content.encode()
    assert payloads(decoder.decode(draw(content))) == [expected]


def test_zxing_gives_all_256_bytes_unchanged() -> None:
    everything = bytes(range(256))
    assert payloads(zxing().decode(draw(everything, mode="byte"))) == [everything]


def test_zbar_gives_other_bytes_as_its_guess_at_their_text() -> None:
    [payload] = payloads(ZbarDecoder().decode(draw(b"\xe9t\xe9", mode="byte")))
    assert payload.decode("utf-8") == "été"


def test_corners_lie_on_the_code(decoder: CodeDecoder) -> None:
    code = draw(MARK, module_px=4)
    quiet_px = 4 * 4
    [seen] = decoder.decode(on_white(code))
    first, last = np.array(seen.corners).min(axis=0), np.array(seen.corners).max(axis=0)
    np.testing.assert_allclose(first, np.array([40, 60]) + quiet_px, atol=6)
    np.testing.assert_allclose(last, np.array([40, 60]) + code.shape[0] - quiet_px, atol=6)
    assert seen.decoder == decoder.name


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 300), (300, 1), (2, 2)])
def test_a_tiny_picture_holds_no_code(decoder: CodeDecoder, shape: tuple[int, int]) -> None:
    assert decoder.decode(np.zeros(shape, np.uint8)) == []
    assert read(np.zeros(shape, np.uint8), [decoder]) == []


@pytest.mark.parametrize(
    ("kind", "content"), [("EAN13", "4006381333931"), ("Code128", "VM1:ABC"), ("DataMatrix", "VM1:ABC")]
)
def test_other_symbols_are_not_read_as_codes(decoder: CodeDecoder, kind: str, content: str) -> None:
    zxingcpp = pytest.importorskip("zxingcpp", reason="zxing-cpp draws the bars")
    symbol = zxingcpp.create_barcode(content, getattr(zxingcpp.BarcodeFormat, kind))
    picture = np.ascontiguousarray(np.asarray(symbol.to_image(scale=5)))
    assert [found.text for found in zxingcpp.read_barcodes(picture)] == [content]
    assert read(on_white(picture), [decoder]) == []


def test_micro_qr_is_not_read(decoder: CodeDecoder) -> None:
    assert read(on_white(draw("12345", module_px=6, micro=True)), [decoder]) == []


# ------------------------------------------------------------------------------------- what is installed here


def test_zxing_comes_first_and_either_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    zxing()
    assert [found.name for found in available_decoders()] == ["zxing", "zbar"]
    assert all(works and re.fullmatch(r"\d+\.\d+.*", detail) for _, works, detail in decoder_report())
    monkeypatch.setitem(sys.modules, "zxingcpp", None)  # None makes the import fail as if not installed
    assert [found.name for found in available_decoders()] == ["zbar"]
    assert decoder_report()[0] == ("zxing", False, "not installed")
    assert read(draw(MARK)) == [MARK.encode()]
    monkeypatch.setitem(sys.modules, "pyzbar", None)
    with pytest.raises(DeviceNotFoundError, match="install zxing-cpp"):
        available_decoders()


def test_zxing_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    zxing()
    monkeypatch.setitem(sys.modules, "pyzbar", None)
    assert [found.name for found in available_decoders()] == ["zxing"]
    assert read(draw(MARK)) == [MARK.encode()]


def test_the_report_says_what_keeps_a_library_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    zxing()
    for broken, problem in (
        (ModuleType("zxingcpp"), "installed in a version without what is needed: "),
        (_WithoutItsLibrary("zxingcpp"), "installed, but does not load: libzxing.so.3: cannot open"),
    ):
        monkeypatch.setitem(sys.modules, "zxingcpp", broken)
        name, works, detail = decoder_report()[0]
        assert (name, works) == ("zxing", False)
        assert detail.startswith(problem)
        assert [found.name for found in available_decoders()] == ["zbar"]


class _WithoutItsLibrary(ModuleType):
    def __getattr__(self, name: str) -> object:
        raise OSError("libzxing.so.3: cannot open shared object file")


# ------------------------------------------------------------------------------------------------ the ladder


def test_a_clean_frame_costs_one_zxing_call_and_a_few_looks_for_a_second_mark() -> None:
    counted = [Counting(zxing()), Counting(ZbarDecoder())]
    assert read(on_white(draw(MARK)), counted) == [MARK.encode()]
    assert sum(decoder.calls for decoder in counted) <= 1 + len(BESIDE) < len(STAGES) / 2


def test_of_two_marks_the_one_that_reads_easily_does_not_hide_the_other() -> None:
    other = mark_text(4)
    soft = np.asarray(cv2.GaussianBlur(draw(other, 3), (0, 0), 1.55), np.uint8)
    frame = on_white(draw(MARK), soft)
    assert payloads(zxing().decode(frame)) == [MARK.encode()]
    assert read(frame) == [MARK.encode(), other.encode()]


SECOND_MARKS = {"defocus": 0.6, "noise": 0.55, "contrast": 0.5, "hard_shadow": 0.6, "moire": 0.6, "banding": 0.45}


def with_an_easy_mark(frame: Gray) -> Gray:
    """The frame with a plain mark in its corner, away from the one in its middle."""
    shown, easy = frame.copy(), draw(MARK, 3)
    side = round(easy.shape[0] * 0.85)
    shown[8 : 8 + side, 8 : 8 + side] = cv2.resize(easy, (side, side), interpolation=cv2.INTER_AREA)
    return shown


@pytest.mark.parametrize("condition", SECOND_MARKS)
def test_of_two_marks_in_one_picture_both_are_offered_though_one_is_hard_to_read(condition: str) -> None:
    made = make(condition, SECOND_MARKS[condition], 7)
    frame, both = with_an_easy_mark(made.gray), [MARK.encode(), made.text.encode()]
    assert payloads(zxing().decode(frame)) == [MARK.encode()]
    for decoders in (available_decoders(), [ZbarDecoder()]):
        assert sorted(read(frame, list(decoders))) == sorted(both)


def inside(host_text: str, mark: Gray) -> Gray:
    """A mark printed in the middle of a larger code, as far as error correction lets it be."""
    host = draw(host_text, 26, error="h")
    first = (host.shape[0] - mark.shape[0]) // 2
    host[first : first + mark.shape[0], first : first + mark.shape[0]] = mark
    return np.pad(host, 60, constant_values=220)


@pytest.mark.parametrize("sigma", [0, 1.5, 2.0])
def test_a_mark_inside_a_larger_foreign_code_is_found(decoder: CodeDecoder, sigma: float) -> None:
    mark = draw(MARK, 4)
    frame = inside(URL, np.asarray(cv2.GaussianBlur(mark, (0, 0), sigma), np.uint8) if sigma else mark)
    assert URL.encode() in payloads(decoder.decode(frame))
    assert sorted(read(frame, [decoder])) == sorted([URL.encode(), MARK.encode()])


def test_a_mark_between_foreign_codes_is_found(decoder: CodeDecoder) -> None:
    frame = np.full((1100, 1100), 230, np.uint8)
    foreign, mark = draw(URL, 10), np.asarray(cv2.GaussianBlur(draw(MARK, 4), (0, 0), 2.0), np.uint8)
    for top, left in ((0, 0), (0, 730), (730, 0), (730, 730)):
        frame[top : top + foreign.shape[0], left : left + foreign.shape[1]] = foreign
    first = (1100 - mark.shape[0]) // 2
    frame[first : first + mark.shape[0], first : first + mark.shape[0]] = mark
    assert MARK.encode() not in payloads(decoder.decode(frame))
    assert sorted(set(read(frame, [decoder]))) == sorted([URL.encode(), MARK.encode()])


@pytest.mark.parametrize("junk", ["VM0:", "VM1:JUNK", "VM1:" + "A" * 95, "VM1:https://example.org/" + "a" * 200])
def test_what_merely_begins_like_a_mark_does_not_end_the_look_for_one(decoder: CodeDecoder, junk: str) -> None:
    mark = np.asarray(cv2.GaussianBlur(draw(MARK, 3), (0, 0), 1.65), np.uint8)
    frame = on_white(draw(junk, 4), mark)
    assert MARK.encode() not in payloads(decoder.decode(frame))
    assert payloads(marks(decode_frame(frame, [decoder], budget_s=AMPLE_S))) == [MARK.encode(), junk.encode()]


@cache
def easy_frame() -> Made:
    """One for all who only look at it."""
    return make("size", 0.1, 1)


def beside_a_mesh(frame: Gray) -> Gray:
    """The frame with a perforated plate in its corner, which changes more strongly than any code."""
    shown = frame.copy()
    shown[:160, :160] = np.kron(np.indices((40, 40)).sum(axis=0) % 2, np.full((4, 4), 255)).astype(np.uint8)
    return shown


def test_a_mesh_does_not_hide_the_code() -> None:
    made = easy_frame()
    [plain] = ZbarDecoder().decode(made.gray)
    views = Views(beside_a_mesh(made.gray))
    assert views.second_region is not None
    height, width = views.second_region.pixels.shape
    (left, top), (right, bottom) = np.min(plain.corners, axis=0), np.max(plain.corners, axis=0)
    assert (views.region.left, views.region.top) == (0, 0)
    assert views.second_region.left <= left < right <= views.second_region.left + width
    assert views.second_region.top <= top < bottom <= views.second_region.top + height


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.decoder}, {stage.name}")
def test_each_stage_reads_and_says_where(stage: Stage) -> None:
    if stage.decoder == "zxing":
        zxing()
    made = easy_frame()
    frame, payload = made.gray, made.text.encode()
    if stage.name == "full frame":
        frame = np.asarray(cv2.resize(frame, None, fx=2, fy=2), np.uint8)
    if stage.name.startswith("second region"):
        frame = beside_a_mesh(frame)
    if stage.name.startswith("covered"):
        pytest.skip("sees what other stages have read: see the mark inside a larger foreign code")
    shown = 255 - frame if "inverted" in stage.name else frame
    [seen] = decode_frame(shown, available_decoders(), budget_s=AMPLE_S, stages=[stage])
    [plain] = ZbarDecoder().decode(frame)
    assert (seen.payload, seen.decoder) == (payload, stage.decoder)
    for edge in (np.min, np.max):
        np.testing.assert_allclose(edge(seen.corners, axis=0), edge(plain.corners, axis=0), atol=8)


HARD = ("motion", "low_light", "contrast", "glare", "dirt", "windscreen")


@pytest.mark.parametrize(
    "conditions", [pytest.param(HARD, id="hard"), pytest.param([*CONDITIONS][::2], id="more", marks=pytest.mark.long)]
)
def test_the_ladder_reads_what_one_call_does_not(conditions: Sequence[str]) -> None:
    all_made = [make(name, level, 1) for name in conditions for level in (0.3, 0.45)]
    pictures = [(made.gray, made.text.encode()) for made in all_made]
    first, second = zxing(), ZbarDecoder()
    by_zxing = [payloads(first.decode(frame)) == [payload] for frame, payload in pictures]
    by_zbar = [payloads(second.decode(frame)) == [payload] for frame, payload in pictures]
    by_ladder = [read(frame, [first, second]) for frame, _ in pictures]
    by_zbar_ladder = [read(frame, [second]) for frame, _ in pictures]

    for ladder in (by_ladder, by_zbar_ladder):
        assert all(got in ([], [payload]) for got, (_, payload) in zip(ladder, pictures, strict=True))
    assert sum(map(bool, by_ladder)) >= sum(by_zxing) + 3
    assert sum(map(bool, by_zbar_ladder)) >= sum(by_zbar) + 3


def test_two_codes_in_one_frame_are_both_returned(decoder: CodeDecoder) -> None:
    frame = on_white(draw(URL), draw(MARK))
    assert sorted(read(frame, [decoder])) == sorted([URL.encode(), MARK.encode()])


def test_zxing_tells_the_symbol_version() -> None:
    assert [code.version for code in zxing().decode(draw("VM1:A", version=7))] == [7]
    assert [code.version for code in ZbarDecoder().decode(draw("VM1:A", version=7))] == [None]


def test_a_mark_is_found_beside_foreign_codes_that_read_more_easily(decoder: CodeDecoder) -> None:
    mark = np.asarray(cv2.GaussianBlur(draw(MARK, 3), (0, 0), 1.65), np.uint8)
    frame = on_white(draw(URL, 8), mark, draw("WIFI:T:WPA;S:x;;", 6))
    assert MARK.encode() not in payloads(decoder.decode(frame))
    assert MARK.encode() in read(frame, [decoder])


def test_the_same_code_twice_is_one(decoder: CodeDecoder) -> None:
    assert read(on_white(draw(MARK), draw(MARK)), [decoder]) == [MARK.encode()]


WATCHED = ("socket.", "subprocess.", "webbrowser.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "open")


def test_a_url_is_bytes_and_nothing_is_opened(decoder: CodeDecoder) -> None:
    frame = on_white(draw(URL))
    decoder.decode(frame)  # whatever is loaded on first use is loaded now
    events: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: events.append(event) if watching and event.startswith(WATCHED) else None)
    seen = read(frame, [decoder])
    watching = False  # a hook cannot be removed
    assert seen == [URL.encode()]
    assert events == []


# ------------------------------------------------------------------------------- when there is nothing to read


def test_the_ladder_ends_before_a_further_stage_could_exceed_the_budget() -> None:
    frame = np.random.default_rng(4).integers(0, 256, FRAME, dtype=np.uint8)
    clock = SteppingClock(0.1)
    counted = [Counting(decoder) for decoder in available_decoders()]
    assert decode_frame(frame, counted, budget_s=0.35, clock=clock) == []
    assert sum(decoder.calls for decoder in counted) == 2  # a third one might take half as long again
    assert clock.now_s == pytest.approx(0.3)


def test_one_look_is_taken_without_any_budget(decoder: CodeDecoder) -> None:
    counted = Counting(decoder)
    codes = decode_frame(on_white(draw(MARK)), [counted], budget_s=0, clock=SteppingClock(1))
    assert payloads(codes) == [MARK.encode()]
    assert counted.calls == 1


def test_a_frame_without_code_goes_through_all_stages() -> None:
    counted = [Counting(decoder) for decoder in available_decoders()]
    names = {decoder.name for decoder in counted}
    frame = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))
    assert decode_frame(frame, counted, budget_s=AMPLE_S, clock=SteppingClock(0)) == []
    views = Views(frame)
    taken = [stage for stage in STAGES if stage.decoder in names and stage.part(views) is not None]
    assert sum(decoder.calls for decoder in counted) == len(taken)


def test_no_decoders_read_nothing() -> None:
    assert decode_frame(draw(MARK), [], budget_s=AMPLE_S) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_any_small_picture_is_taken(height: int, width: int, kind: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    gray = [noise, noise // 128 * 255, np.zeros_like(noise), np.full_like(noise, 255)][kind]
    view = Views(gray).region
    rows, columns = view.pixels.shape
    assert rows >= 1
    assert columns >= 1
    np.testing.assert_array_equal(view.pixels, gray[view.top : view.top + rows, view.left : view.left + columns])
    assert read(gray) == []


# --------------------------------------------------------------------------------------------------- choosing


def seen(payload: bytes) -> CodeSeen:
    return CodeSeen(payload=payload, corners=(), decoder="test")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([b"https://a", b"VM1:A"], [b"VM1:A"]),
        ([b"VM1:B", b"WIFI:", b"VM1:A", b"VM2:C"], [b"VM1:B", b"VM1:A", b"VM2:C"]),
        ([b"VMX:", b"", b" VM1:A", b"VM3"], [b"VM3"]),
    ],
)
def test_all_marks_of_any_version_and_nothing_else(before: list[bytes], after: list[bytes]) -> None:
    assert payloads(marks([seen(payload) for payload in before])) == after


def test_marks_that_could_be_proven_come_before_those_that_merely_begin_like_one() -> None:
    junk = [b"VM1:%d" % number for number in range(16)]
    codes = [seen(payload) for payload in (*junk, MARK.encode(), b"VM2:" + b"A0" * 100)]
    assert payloads(marks(codes)) == [MARK.encode(), b"VM2:" + b"A0" * 100, *junk]
    assert payloads(whole_marks(codes)) == [MARK.encode(), b"VM2:" + b"A0" * 100]


@pytest.mark.parametrize("seed", range(8))
def test_every_mark_that_is_issued_has_the_shape_of_one(seed: int) -> None:
    assert whole_marks([seen(mark_text(seed).encode())])


# ----------------------------------------------------------------------------------------------- photographs


def texts(payload: bytes) -> set[str]:
    """All readings of a payload: zxing gives the bytes, whose encoding the code does not always name."""
    found = set()
    for encoding in ("utf-8", "latin-1", "shift_jis"):
        try:
            found.add(payload.decode(encoding))
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize("step", [15, pytest.param(1, marks=pytest.mark.long)])
def test_photographs_that_others_took(step: int) -> None:
    zxing()
    manifest = VECTORS / "qr" / "manifest.csv"
    if not manifest.is_file():
        pytest.skip("no photographs here: set MARKCHECK_VECTORS to the folder that holds qr/manifest.csv")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::step]
    decoders = available_decoders()
    right, missed, phantoms = 0, [], []
    for row in rows:
        expected = set(json.loads(row["all_expected_json"]))
        got = read(load_picture(manifest.parent / row["file"]).gray, decoders)
        if not expected:
            phantoms += [row["file"]] * bool(got)
        elif any(texts(payload) & expected for payload in got):
            right += 1
        else:
            missed.append(row["file"])
    assert phantoms == []
    assert right >= 0.95 * (right + len(missed)), missed
