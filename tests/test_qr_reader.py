"""The video path: what a reader remembers from frame to frame, when it saves time, and what counts as one event."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from hw.interfaces import CodeDecoder
from hw.qr.decoders import ZbarDecoder, ZxingDecoder
from hw.qr.deduplicator import MAX_KNOWN, Deduplicator
from hw.qr.pipeline import BESIDE, STAGES, decode_frame
from hw.qr.reader import MAX_CODES, CodeReader
from hw.qr.views import Views
from scripts.bench.optics import Gray
from tests.conftest import ROOT
from tests.drawn import draw
from verifier.types import CodeSeen

MARK = "VM1:" + "0A$ 9+Z.:K" * 20
OTHER = "VM1:" + "9Z:$ 0B-R" * 21
URL = "https://example.org/not-a-mark"
BUDGET_S = 0.035


class Clock:
    """Time that passes when told; each decoder call takes `call_s`."""

    def __init__(self, call_s: float = 0.0) -> None:
        self.now_s, self.call_s = 100.0, call_s

    def __call__(self) -> float:
        return self.now_s


class Timed:
    """A decoder whose calls take time on the clock, and which keeps the sizes of the pictures it was given."""

    def __init__(self, decoder: CodeDecoder, clock: Clock) -> None:
        self.decoder, self.name, self.clock = decoder, decoder.name, clock
        self.sizes: list[tuple[int, ...]] = []

    def decode(self, gray: Gray) -> list[CodeSeen]:
        self.sizes.append(gray.shape)
        self.clock.now_s += self.clock.call_s
        return self.decoder.decode(gray)


def zxing() -> CodeDecoder:
    pytest.importorskip("zxingcpp", reason="zxing-cpp is not installed")
    return ZxingDecoder()


def both() -> list[CodeDecoder]:
    return [zxing(), ZbarDecoder()]


def zbar_alone() -> list[CodeDecoder]:
    return [ZbarDecoder()]


@pytest.fixture(params=[both, zbar_alone], ids=["both", "zbar alone"])
def decoders(request: pytest.FixtureRequest) -> list[CodeDecoder]:
    return request.param()


def frame_of(*placed: tuple[Gray, int, int], size: tuple[int, int] = (720, 1280)) -> Gray:
    """The codes at their left and top in a grey scene."""
    scene = np.full(size, 150, np.uint8)
    for code, left, top in placed:
        scene[top : top + code.shape[0], left : left + code.shape[1]] = code
    return scene


def soft(code: Gray, sigma: float) -> Gray:
    return np.asarray(cv2.GaussianBlur(code, (0, 0), sigma), np.uint8)


def payloads(codes: tuple[CodeSeen, ...] | list[CodeSeen]) -> list[bytes]:
    return [code.payload for code in codes]


EMPTY = frame_of()

# -------------------------------------------------------------------------------------------- frame after frame


def test_while_a_mark_stays_three_of_four_frames_cost_one_call_and_one_more_where_it_was() -> None:
    reader = CodeReader(both(), Clock())
    frame = frame_of((draw(MARK), 300, 200))
    first, *later = (reader.read(frame) for _ in range(13))
    assert first.stages[0] == "zxing frame"
    assert all(payloads(reading.codes) == [MARK.encode()] for reading in (first, *later))
    assert all(reading.stages[:2] == ("zxing where it was", "zxing frame") for reading in later)
    assert [len(reading.stages) for reading in later] == [2, 2, 2, 3] * 3
    assert first.hint is later[0].hint is None


def test_a_mark_that_comes_into_view_is_worth_further_looks_for_as_long_as_a_frame_may_take() -> None:
    frame = frame_of((draw(MARK), 300, 200))
    assert [len(timed_reader(call_s).read(frame).stages) for call_s in (0.04, 0.02, 0.01)] == [1, 2, 4]
    quick = [f"{stage.decoder} {stage.name}" for stage in BESIDE if not stage.still_only]
    looks = timed_reader(0).read(frame).stages
    assert set(looks[1:]) <= set(quick)
    assert len(looks) == len(set(looks)) > 5


def timed_reader(call_s: float) -> CodeReader:
    clock = Clock(call_s)
    return CodeReader([Timed(decoder, clock) for decoder in both()], clock)


def test_without_zxing_the_first_look_is_zbar_at_half_size() -> None:
    reading = CodeReader(zbar_alone(), Clock()).read(frame_of((draw(MARK, 5), 300, 200)), budget_s=0)
    assert payloads(reading.codes) == [MARK.encode()]
    assert reading.stages == ("zbar half",)


def test_frames_without_a_mark_go_through_all_quick_stages_one_at_a_time(decoders: list[CodeDecoder]) -> None:
    reader = CodeReader(decoders, Clock())
    readings = [reader.read(EMPTY) for _ in range(len(STAGES) + 1)]
    assert all(len(reading.stages) == 2 for reading in readings)
    names = {decoder.name for decoder in decoders}
    views = Views(EMPTY)
    quick = [s for s in STAGES if s.decoder in names and not s.still_only and s.part(views) is not None]
    expected = {f"{stage.decoder} {stage.name}" for stage in quick}
    assert {name for reading in readings for name in reading.stages} == expected


def test_a_mark_that_one_call_does_not_read_is_read_within_a_round(decoders: list[CodeDecoder]) -> None:
    frame = frame_of((soft(draw(MARK, 3), 1.65), 500, 300))
    assert all(decoder.decode(frame) == [] for decoder in decoders)
    reader = CodeReader(decoders, Clock())
    assert any(reader.read(frame).codes for _ in STAGES)


def test_a_late_frame_leaves_out_the_further_stage_but_not_for_ever() -> None:
    clock = Clock(call_s=0.02)
    reader = CodeReader([Timed(decoder, clock) for decoder in both()], clock)
    assert [len(reader.read(EMPTY, budget_s=0.01).stages) for _ in range(9)] == [1, 1, 1, 2, 1, 1, 1, 2, 1]
    assert [len(reader.read(EMPTY, budget_s=0.1).stages) for _ in range(3)] == [2, 2, 2]


def test_a_reading_tells_how_long_it_took() -> None:
    clock = Clock(call_s=0.02)
    assert CodeReader([Timed(zxing(), clock)], clock).read(EMPTY).seconds == pytest.approx(0.04)


def test_the_place_of_a_mark_is_looked_at_in_full_resolution() -> None:
    """A large frame is reduced for the look at the whole: there, this mark has one pixel a module."""
    clock = Clock()
    timed = Timed(zxing(), clock)
    reader = CodeReader([timed], clock)
    near = frame_of((draw(MARK, 8), 1000, 700), size=(2160, 3840))
    far = frame_of((draw(MARK, 3), 1180, 880), size=(2160, 3840))
    assert decode_frame(far, [timed], budget_s=0) == []
    assert payloads(reader.read(near).codes) == [MARK.encode()]
    timed.sizes.clear()
    reading = reader.read(far)
    assert payloads(reading.codes) == [MARK.encode()]
    assert reading.stages[0] == "zxing where it was"
    assert timed.sizes[1] == (720, 1280)
    corners = np.array(reading.codes[0].corners)
    side = draw(MARK, 3).shape[0]
    np.testing.assert_allclose(corners.min(axis=0), np.array([1180, 880]) + 12, atol=3)
    np.testing.assert_allclose(corners.max(axis=0), np.array([1180, 880]) + side - 12, atol=3)


def test_the_place_is_forgotten_after_ten_frames_without_the_mark(decoders: list[CodeDecoder]) -> None:
    reader = CodeReader(decoders, Clock())
    reader.read(frame_of((draw(MARK, 5), 300, 100)))
    stages = [reader.read(EMPTY).stages for _ in range(12)]
    looks_back = [any("where it was" in name for name in names) for names in stages]
    assert looks_back == [True] * 10 + [False] * 2


def test_a_bad_code_leaves_no_trace_in_the_next_frame(decoders: list[CodeDecoder]) -> None:
    reader = CodeReader(decoders, Clock())
    readings = [reader.read(frame_of((draw(text, 5), 300, 100))) for text in (URL, MARK, OTHER, URL)]
    assert [payloads(reading.codes) for reading in readings] == [[t.encode()] for t in (URL, MARK, OTHER, URL)]


# ------------------------------------------------------------------------------------------------ several codes


def test_all_marks_are_offered_and_no_foreign_code_beside_them(decoders: list[CodeDecoder]) -> None:
    frame = frame_of((draw(URL, 6), 20, 20), (draw(MARK), 350, 40), (draw(OTHER), 700, 300), (draw(MARK), 20, 400))
    reader = CodeReader(decoders, Clock())
    for _ in range(2):
        assert sorted(payloads(reader.read(frame).codes)) == sorted([MARK.encode(), OTHER.encode()])


def test_a_foreign_code_does_not_end_the_look_for_a_mark(decoders: list[CodeDecoder]) -> None:
    frame = frame_of((draw(URL, 8), 100, 200), (soft(draw(MARK, 3), 1.65), 800, 300))
    reader = CodeReader(decoders, Clock())
    readings = [reader.read(frame) for _ in STAGES]
    assert [URL.encode()] in [payloads(reading.codes) for reading in readings]
    assert all(len(reading.stages) >= 2 for reading in readings)
    assert [MARK.encode()] in [payloads(reading.codes) for reading in readings]


def test_a_mark_that_comes_beside_another_is_seen_at_once(decoders: list[CodeDecoder]) -> None:
    reader = CodeReader(decoders, Clock())
    reader.read(frame_of((draw(MARK, 5), 50, 100)))
    reading = reader.read(frame_of((draw(MARK, 5), 50, 100), (draw(OTHER, 5), 700, 100)))
    assert sorted(payloads(reading.codes)) == sorted([MARK.encode(), OTHER.encode()])


def test_of_two_marks_in_view_the_harder_one_is_offered_too(decoders: list[CodeDecoder]) -> None:
    frame = frame_of((draw(MARK, 5), 50, 100), (soft(draw(OTHER, 3), 1.55), 800, 300))
    for decoder in decoders:
        assert OTHER.encode() not in payloads(decoder.decode(frame))
    assert OTHER.encode() in payloads(CodeReader(decoders, Clock()).read(frame).codes)


def test_a_harder_mark_that_comes_beside_another_is_offered_within_a_second(decoders: list[CodeDecoder]) -> None:
    alone = frame_of((draw(MARK, 5), 50, 100))
    beside = frame_of((draw(MARK, 5), 50, 100), (soft(draw(OTHER, 3), 1.55), 800, 300))
    reader = CodeReader(decoders, Clock())
    reader.read(alone)
    offered = {payload for _ in range(25) for payload in payloads(reader.read(beside).codes)}
    assert offered == {MARK.encode(), OTHER.encode()}


def test_what_merely_begins_like_a_mark_does_not_end_the_look_for_one(decoders: list[CodeDecoder]) -> None:
    frame = frame_of((draw("VM0:", 8), 100, 200), (soft(draw(MARK, 3), 1.65), 800, 300))
    reader = CodeReader(decoders, Clock())
    assert payloads(reader.read(frame, budget_s=0).codes) == [b"VM0:"]
    assert [MARK.encode(), b"VM0:"] in [payloads(reader.read(frame).codes) for _ in STAGES]


class Wall:
    """A decoder that reads the same codes everywhere, in the same order."""

    name = "zxing"

    def __init__(self, texts: list[str]) -> None:
        self.codes = seen(*texts)

    def decode(self, gray: Gray) -> list[CodeSeen]:
        return self.codes


def test_junk_marks_do_not_hide_the_real_one_however_many_they_are() -> None:
    junk = [f"VM0:{number}" for number in range(MAX_CODES)]
    assert payloads(CodeReader([Wall([*junk, MARK])], Clock()).read(EMPTY).codes)[0] == MARK.encode()


def test_of_more_marks_than_are_offered_at_once_the_next_frames_offer_the_others() -> None:
    texts = ["VM1:" + f"{number:04}" * 50 for number in range(160)]
    reader = CodeReader([Wall(texts)], Clock())
    readings = [payloads(reader.read(EMPTY).codes) for _ in range(3)]
    assert [len(set(reading)) for reading in readings] == [MAX_CODES] * 3
    assert {payload for reading in readings for payload in reading} == {text.encode() for text in texts}


# ------------------------------------------------------------------------------------------------------- events


def seen(*texts: str) -> list[CodeSeen]:
    return [CodeSeen(payload=text.encode(), corners=(), decoder="test") for text in texts]


def test_a_code_held_in_view_for_sixty_frames_is_one_event() -> None:
    clock = Clock()
    reader, events = CodeReader(both(), clock), Deduplicator(clock)
    new = []
    for number in range(60):
        frame = frame_of((draw(MARK), 300 + number, 200)) if number % 7 else EMPTY
        new += events.new(reader.read(frame).codes)
        clock.now_s += 0.04
    assert payloads(new) == [MARK.encode()]


def test_telling_events_apart_loads_no_library() -> None:
    code = (
        "import sys, hw.qr.deduplicator, hw.interfaces, hw.camera.remedies; print({'cv2', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(("gap_s", "count"), [(0.0, 1), (4.9, 1), (5.0, 2), (60.0, 2)])
def test_five_seconds_out_of_sight_make_a_new_event(gap_s: float, count: int) -> None:
    clock = Clock()
    events = Deduplicator(clock)
    new = events.new(seen(MARK))
    clock.now_s += gap_s
    assert len(new + events.new(seen(MARK))) == count


def test_the_five_seconds_count_from_the_last_sighting() -> None:
    clock = Clock()
    events = Deduplicator(clock)
    new = []
    for _ in range(10):
        new += events.new(seen(MARK))
        clock.now_s += 4
    assert len(new) == 1


def test_another_code_is_another_event_at_once_and_does_not_renew_the_first() -> None:
    events = Deduplicator(Clock())
    steps = [seen(MARK), seen(OTHER), seen(MARK, OTHER), seen(URL, MARK)]
    assert [payloads(events.new(step)) for step in steps] == [[MARK.encode()], [OTHER.encode()], [], [URL.encode()]]


def test_asked_again_the_same_code_is_an_event_again() -> None:
    events = Deduplicator(Clock())
    events.new(seen(MARK))
    events.forget()
    assert payloads(events.new(seen(MARK))) == [MARK.encode()]


def test_of_ever_new_codes_on_which_no_time_passes_the_longest_out_of_sight_are_forgotten() -> None:
    events = Deduplicator(Clock())
    events.new(seen(MARK, OTHER))
    for number in range(MAX_KNOWN - 1):
        assert len(events.new(seen(MARK, f"https://example.com/{number}"))) == 1
    assert payloads(events.new(seen(OTHER, MARK))) == [OTHER.encode()]
