"""The scanner process with real processes, real decoders and real pictures; time is the test's."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from firmware import scan_worker, scanner
from firmware.build import build_device
from firmware.config import Home
from firmware.fault_frames import KEPT, FaultFrames, png
from firmware.scan_process import photo_in, spawn_worker
from firmware.scan_protocol import (
    GRANT,
    MAX_CODES,
    MAX_CORNERS,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    MAX_PHOTO,
    PHOTO_HEADER,
    PHOTO_PLACE,
    Begin,
    Done,
    End,
    Failed,
    Job,
    MessageParser,
    Missing,
    ProtocolError,
    Ready,
    Unusable,
    encode,
)
from firmware.scanner import (
    CodeEvent,
    Event,
    FaultEvent,
    FaultReason,
    Heartbeat,
    HintEvent,
    Limits,
    PhotoEvent,
    Scanner,
    ScanSource,
    pictures,
    video,
)
from hw.camera import video as hw_video
from hw.camera.files import load_picture
from scripts.bench.optics import Gray
from tests.conftest import ROOT
from tests.drawn import draw
from tests.scan_stand_ins import PRIVATE
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.types import Code, CodeSeen, Hint
from verifier.verdict import VerdictCode

MARK = "VM1:" + "0A$ 9+Z.:K" * 20
OTHER = "VM1:" + "9Z:$ 0B-R" * 21
URL = "https://example.org/not-a-mark"
PATIENCE_S = 60.0  # for real processes on a busy machine
TRAPPED = "tests.scan_stand_ins:trapped"


class Clock:
    """Time that passes when told, and by `step_s` whenever somebody looks."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 1000.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def scene(*texts: str, size: tuple[int, int] = (480, 640)) -> Gray:
    """The codes side by side on grey."""
    gray = np.full(size, 170, np.uint8)
    for place, text in enumerate(filter(None, texts)):
        code = draw(text)
        left = 30 + place * 300
        gray[90 : 90 + code.shape[0], left : left + code.shape[1]] = code
    return gray


EMPTY = scene()


def save(path: Path, gray: Gray) -> None:
    """In one step, as the process may be reading it."""
    new = path.with_suffix(".new")
    new.write_bytes(png(gray.tobytes(), *gray.shape))
    new.replace(path)


def save_video(path: Path, frames: list[Gray], fps: float = 25.0) -> Path:
    height, width = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for gray in frames:
        writer.write(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


def save_folder(folder: Path, grays: list[Gray]) -> Path:
    folder.mkdir()
    for number, gray in enumerate(grays):
        save(folder / f"{number:03}.png", gray)
    return folder


@pytest.fixture(autouse=True)
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_scanner(source: ScanSource, clock: Clock, **options: object) -> Scanner:
    return Scanner(source, clock=clock, **options)  # type: ignore[arg-type]


def until(scanner: Scanner, wanted: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first that is wanted, or to the end of the source."""
    events: list[Event] = []
    deadline = time.monotonic() + PATIENCE_S
    while not scanner.over and not any(map(wanted, events)):
        assert time.monotonic() < deadline, events
        events += scanner.poll(0.2)
    return events


def everything(scanner: Scanner) -> list[Event]:
    return until(scanner, lambda event: False)


def is_code(event: Event) -> bool:
    return isinstance(event, CodeEvent)


def is_fault(event: Event) -> bool:
    return isinstance(event, FaultEvent)


def payloads(events: list[Event]) -> list[str]:
    return [event.code.payload.decode() for event in events if isinstance(event, CodeEvent)]


def faults(events: list[Event]) -> list[FaultEvent]:
    return [event for event in events if isinstance(event, FaultEvent)]


def frames_read(events: list[Event]) -> int:
    return sum(isinstance(event, Heartbeat) for event in events)


# ------------------------------------------------------------------------------------------- what is said, in bytes

CODE = CodeSeen(payload=bytes(range(256)), corners=((1, -2), (3, 4)), decoder="zxing", version=8)
END = End(codes=(CODE,), are_marks=False, hint=None, ms=1.5, at_s=2.0, total=60)
SAID = [Ready(), Begin("a.png"), END, replace(END, codes=(), hint=Hint.DARK, at_s=None), Unusable("b", "no"), Done()]
SAID += [Missing("decoder", "none"), Failed("TypeError in x.py, line 1")]
STREAM = b"".join(map(encode, SAID))


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cutting_of_the_stream_gives_the_same_messages(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parser = MessageParser()
    parts = [STREAM[start:end] for start, end in pairwise(places)]
    assert [message for part in parts for message in parser.feed(part)] == SAID


def body_of(text: str) -> bytes:
    return len(text).to_bytes(4, "big") + text.encode()


def end_with(**changed: object) -> bytes:
    values = json.loads(encode(END)[4:])
    return body_of(json.dumps({**values, **changed}))


def code_with(**changed: object) -> bytes:
    code = json.loads(encode(END)[4:])["codes"][0]
    return end_with(codes=[{**code, **changed}])


@pytest.mark.parametrize(
    "data",
    [
        (MAX_MESSAGE + 1).to_bytes(4, "big"),
        body_of("not JSON"),
        body_of("[" * 100_000),
        body_of("1" * 5000),
        body_of("[]"),
        body_of("{}"),
        body_of('{"type": ["Ready"]}'),
        body_of('{"type": "Begin"}'),
        body_of('{"type": "Begin", "name": 7}'),
        end_with(codes={}),
        end_with(codes=[json.loads(encode(END)[4:])["codes"][0]] * (MAX_CODES + 1)),
        end_with(are_marks=1),
        end_with(hint="RUN"),
        end_with(hint=[]),
        end_with(ms=-1),
        end_with(ms=10**400),
        end_with(ms=True),
        end_with(at_s="soon"),
        end_with(total=1.5),
        end_with(total=-1),
        body_of(encode(END)[4:].decode().replace('"ms": 1.5', '"ms": NaN')),
        code_with(payload="00" * (MAX_PAYLOAD + 1)),
        code_with(payload="zz"),
        code_with(payload=None),
        code_with(corners=[[0, 0]] * (MAX_CORNERS + 1)),
        code_with(corners=[[0]]),
        code_with(corners=[[0, 10**9]]),
        code_with(corners=[[0, True]]),
        code_with(version=41),
        code_with(decoder=None),
    ],
)
def test_what_no_scanner_process_says_is_refused(data: bytes) -> None:
    assert list(MessageParser().feed(end_with())) == [END]
    with pytest.raises(ProtocolError):
        list(MessageParser().feed(data))


@given(st.binary(max_size=300), st.integers(0, len(STREAM)))
def test_noise_gives_messages_or_a_protocol_error_and_nothing_else(noise: bytes, place: int) -> None:
    with suppress(ProtocolError):
        list(MessageParser().feed(STREAM[:place] + noise + STREAM[place:]))


def test_what_a_decoder_gives_too_much_of_is_cut_and_never_refused() -> None:
    hull = tuple((10**7, -(10**7)) for _ in range(100))
    code = CodeSeen(payload=b"V" * 9000, corners=hull, decoder="z\n" * 200, version=99)
    [end] = MessageParser().feed(encode(replace(END, codes=(code,) * (MAX_CODES + 30))))
    assert isinstance(end, End)
    assert len(end.codes) == MAX_CODES
    assert len(end.codes[0].payload) == MAX_PAYLOAD
    assert end.codes[0].version is None
    assert "\n" not in end.codes[0].decoder


def test_text_from_the_process_is_one_bounded_line() -> None:
    [begin] = MessageParser().feed(body_of(json.dumps({"type": "Begin", "name": "a\x1b[31m\n\ud800" * 100})))
    assert isinstance(begin, Begin)
    assert begin.name.isprintable()
    assert len(begin.name) <= 120


# ---------------------------------------------------------------------------------------------- what is read


def test_sixty_frames_of_one_code_are_one_event(tmp_path: Path, clock: Clock) -> None:
    path = save_video(tmp_path / "held.avi", [scene(MARK)] * 60)
    with open_scanner(video(path), clock) as scanner:
        events = everything(scanner)
    [code] = [event for event in events if isinstance(event, CodeEvent)]
    assert code.code.payload == MARK.encode()
    assert code.is_mark
    assert code.first_seen_s == 0
    assert code.frame == "held.avi frame 1 at 0:00.00"
    assert code.code.version == 8 or code.code.decoder != "zxing"
    heartbeats = [event for event in events if isinstance(event, Heartbeat)]
    assert [beat.frames for beat in heartbeats] == list(range(1, 61))
    assert {beat.total for beat in heartbeats} == {60}
    assert faults(events) == []


def test_of_a_foreign_code_and_then_ours_ours_comes_at_once(tmp_path: Path, clock: Clock) -> None:
    path = save_video(tmp_path / "both.avi", [scene(URL)] * 5 + [scene(URL, MARK)] * 5)
    with open_scanner(video(path), clock) as scanner:
        events = everything(scanner)
    codes = [event for event in events if isinstance(event, CodeEvent)]
    assert [(event.code.payload.decode(), event.is_mark) for event in codes] == [(URL, False), (MARK, True)]
    assert codes[1].first_seen_s == pytest.approx(5 / 25)


def test_a_code_of_a_recording_counts_again_after_five_seconds_of_its_own_time(tmp_path: Path, clock: Clock) -> None:
    path = save_video(tmp_path / "twice.avi", [scene(MARK)] * 2 + [EMPTY] * 10 + [scene(MARK)], fps=2)
    with open_scanner(video(path), clock) as scanner:
        codes = [event for event in everything(scanner) if isinstance(event, CodeEvent)]
    assert [event.first_seen_s for event in codes] == [0, 6]


def as_picture(folder: Path) -> ScanSource:
    save(folder / "a.png", scene(MARK, OTHER))
    return pictures(folder / "a.png")


def as_folder(folder: Path) -> ScanSource:
    return pictures(save_folder(folder / "pictures", [scene(MARK, OTHER)]))


def as_video(folder: Path) -> ScanSource:
    return video(save_video(folder / "a.avi", [scene(MARK, OTHER)]))


def as_camera(folder: Path) -> ScanSource:
    save(folder / "a.png", scene(MARK, OTHER))
    return ScanSource(make="tests.scan_stand_ins:Window", path=folder / "a.png", live=True)


SOURCES = [as_picture, as_folder, as_video, as_camera]


@pytest.mark.parametrize("make", SOURCES)
def test_two_marks_in_one_frame_are_both_offered_whatever_the_source(
    tmp_path: Path, make: Callable[[Path], ScanSource]
) -> None:
    with open_scanner(make(tmp_path), Clock()) as scanner:
        answer = scanner.request()
    assert isinstance(answer, tuple)
    assert {event.code.payload.decode() for event in answer} == {MARK, OTHER}
    assert all(event.is_mark for event in answer)
    assert len({event.frame for event in answer}) == 1


def test_each_picture_of_a_folder_is_a_scene_of_its_own_and_a_bad_file_stops_nothing(
    tmp_path: Path, clock: Clock
) -> None:
    folder = save_folder(tmp_path / "pictures", [scene(MARK), scene(MARK), EMPTY])
    (folder / "001b.png").write_bytes(b"nothing")
    with open_scanner(pictures(folder), clock) as scanner:
        events = everything(scanner)
    assert payloads(events) == [MARK, MARK]
    [fault] = faults(events)
    assert (fault.reason, fault.component) == (FaultReason.UNUSABLE, "001b.png")
    assert [event.hint for event in events if isinstance(event, HintEvent)] == [Hint.NO_CODE]


def test_what_is_said_twice_because_saying_it_once_would_load_a_library_is_the_same() -> None:
    assert scanner.VIDEO_SUFFIXES == hw_video.SUFFIXES


def test_several_paths_are_one_source_and_a_bad_one_is_told_once(tmp_path: Path, clock: Clock) -> None:
    paths = [save_folder(tmp_path / "a", [scene("CRASH")] * 2), tmp_path / "none", tmp_path / "c.png"]
    save(paths[2], scene("CRASH"))
    paths += [save_folder(tmp_path / "d", [scene(MARK), scene("CRASH"), scene(OTHER)]), tmp_path / "e.png"]
    save(paths[4], scene(URL))
    with open_scanner(pictures(*paths), clock, decoders=TRAPPED) as reading:
        events = [event for event in patiently(reading, clock) if isinstance(event, CodeEvent | FaultEvent)]
    assert [event.problem if isinstance(event, FaultEvent) else event.frame for event in events] == [
        "the process was ended by signal 11 (000.png)",
        "the process was ended by signal 11 (001.png)",
        "no such file or folder",
        "the process was ended by signal 11 (c.png)",
        "000.png",
        "the process was ended by signal 11 (001.png)",
        "002.png",
        "e.png",
    ]


# --------------------------------------------------------------------------------------------- what goes wrong


@pytest.fixture
def fault_folder(tmp_path: Path) -> Path:
    return tmp_path / "faults"


def scanner_with(frames: list[Gray], tmp_path: Path, clock: Clock, faults: Path) -> Scanner:
    source = pictures(save_folder(tmp_path / "pictures", frames))
    return open_scanner(source, clock, decoders=TRAPPED, fault_frames=FaultFrames(faults))


def wait_for_the_frame(scanner: Scanner, slot_holds: Gray) -> None:
    """Until the process says that it is about to read this frame; its fate is then a matter of the clock alone."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < deadline
        scanner.poll(0.05)
        data = os.pread(scanner._slot, slot_holds.size, 8)
        if data == slot_holds.tobytes():
            scanner.poll(0.2)
            return


def test_a_frame_that_hangs_is_ended_and_kept_and_scanning_goes_on(
    tmp_path: Path, clock: Clock, fault_folder: Path
) -> None:
    guilty = scene("HANG")
    with scanner_with([scene(MARK), guilty, scene(OTHER)], tmp_path, clock, fault_folder) as scanner:
        assert payloads(until(scanner, is_code)) == [MARK]
        wait_for_the_frame(scanner, guilty)
        clock.now_s += pictures(tmp_path).limits.frame_s - 0.001
        assert scanner.poll(0.05) == []
        clock.now_s += 0.002
        [fault] = scanner.poll()
        assert isinstance(fault, FaultEvent)
        assert (fault.reason, fault.retry_s) == (FaultReason.HANG, 0)
        assert "2.5 s" in fault.problem
        events = everything(scanner)
    assert payloads(events) == [OTHER]
    assert fault.picture is not None
    np.testing.assert_array_equal(load_picture(fault.picture).gray, guilty)
    assert fault.picture.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("trap", "problem"),
    [
        ("CRASH", f"the process was ended by signal {int(signal.SIGSEGV)}"),
        ("ABORT", f"the process was ended by signal {int(signal.SIGABRT)}"),
        ("FAIL", "ValueError in scan_stand_ins.py, line "),
    ],
)
def test_a_frame_that_crashes_is_kept_and_scanning_goes_on(
    tmp_path: Path, clock: Clock, fault_folder: Path, trap: str, problem: str
) -> None:
    with scanner_with([scene(trap), scene(MARK)], tmp_path, clock, fault_folder) as scanner:
        events = everything(scanner)
    [fault] = faults(events)
    assert fault.reason is FaultReason.CRASH
    assert fault.problem.startswith(problem)
    assert PRIVATE not in fault.problem
    assert fault.picture is not None
    np.testing.assert_array_equal(load_picture(fault.picture).gray, scene(trap))
    assert payloads(events) == [MARK]


def test_a_code_held_in_view_stays_one_event_when_the_process_dies_in_between(tmp_path: Path, clock: Clock) -> None:
    path = save_video(tmp_path / "held.avi", [scene(MARK)] * 3 + [scene("CRASH")] + [scene(MARK)] * 3)
    with open_scanner(video(path), clock, decoders=TRAPPED) as scanner:
        events = everything(scanner)
    assert payloads(events) == [MARK]
    assert len(faults(events)) == 1
    assert frames_read(events) == 6


def patiently(scanner: Scanner, clock: Clock, count: int = 100) -> list[Event]:
    """Everything up to so many faults; after a fault the time until the new process is the clock's."""
    events: list[Event] = []
    while not scanner.over and len(faults(events)) < count:
        events += until(scanner, is_fault)
        if faults(events) and (wait_s := faults(events)[-1].retry_s):
            assert scanner._child is None
            clock.now_s += wait_s
    return events


def test_repeated_faults_wait_longer_and_longer_and_a_recording_is_given_up(tmp_path: Path, clock: Clock) -> None:
    spawn = saying(encode(Ready()) + encode(Begin("a.png")), then="")
    with open_scanner(video(tmp_path), clock, spawn=spawn) as scanner:
        found = faults(patiently(scanner, clock))
    assert [fault.retry_s for fault in found] == [0, 0, 0.5, 1, 2, 5, 5, 5, 5, None]
    assert {fault.reason for fault in found} == {FaultReason.CRASH}
    assert found[-1].problem.endswith("; given up after 10 faults, the rest was not read")


def test_a_fault_after_ten_good_frames_is_the_first_again(tmp_path: Path, clock: Clock) -> None:
    frame = (encode(Begin("a.png")) + encode(END)).hex()
    good = f"[os.write(int(sys.argv[1]), bytes.fromhex('{frame}')) for _ in range(%d) if sys.stdin.read(1)]"
    children = iter(saying(encode(Ready()), then) for then in ["", "", good % 9, good % 10, ""])

    def spawn(job: Job, reports: int, slot: int) -> subprocess.Popen[bytes]:
        return next(children)(job, reports, slot)

    with open_scanner(video(tmp_path), clock, spawn=spawn) as scanner:
        found = faults(patiently(scanner, clock, count=5))
    assert [fault.retry_s for fault in found] == [0, 0, 0.5, 0, 0]


def test_only_the_last_few_guilty_frames_are_kept(fault_folder: Path) -> None:
    slot = os.memfd_create("slot")
    os.write(slot, (1).to_bytes(4, "big") * 2 + b"x")
    for _ in range(KEPT + 3):
        assert FaultFrames(fault_folder).save(slot, "HANG") is not None
    os.close(slot)
    assert sorted(path.name for path in fault_folder.iterdir()) == [f"fault-00000{n}-hang.png" for n in range(4, 9)]


def test_a_disk_that_takes_no_picture_does_not_stop_the_scanner(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_bytes(b"")
    with scanner_with([scene("ABORT"), scene(MARK)], tmp_path, clock, tmp_path / "file" / "folder") as scanner:
        events = everything(scanner)
    assert [fault.picture for fault in faults(events)] == [None]
    assert payloads(events) == [MARK]


def test_a_slot_that_lies_about_its_size_gives_no_picture(tmp_path: Path) -> None:
    frames = FaultFrames(tmp_path / "faults")
    thin = (1 << 16).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(1 << 16)  # no source gives; slow to write
    for content in (b"", b"\0" * 8, b"\xff" * 8, (9).to_bytes(4, "big") * 2 + b"short", thin):
        slot = os.memfd_create("slot")
        os.write(slot, content)
        assert frames.save(slot, "HANG") is None
        os.close(slot)
    assert not (tmp_path / "faults").exists()


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (480, 640)])
def test_kept_pictures_are_png(tmp_path: Path, size: tuple[int, int]) -> None:
    gray = np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(gray.tobytes(), *size))
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), gray)


def test_a_camera_that_gives_no_frame_is_a_hang_and_no_frame_is_blamed(
    tmp_path: Path, clock: Clock, fault_folder: Path
) -> None:
    source = ScanSource(make="tests.scan_stand_ins:Stuck", path=tmp_path, live=True)
    with open_scanner(source, clock, fault_frames=FaultFrames(fault_folder)) as scanner:
        deadline = time.monotonic() + PATIENCE_S
        while scanner._child is None or scanner._child.state.name != "CAPTURING":
            assert time.monotonic() < deadline
            assert scanner.poll(0.1) == []
        clock.now_s += Limits().capture_s + 0.001
        [fault] = scanner.poll()
    assert isinstance(fault, FaultEvent)
    assert (fault.reason, fault.picture) == (FaultReason.HANG, None)
    assert fault.problem == "taking a frame took longer than 2 s"


def test_a_machine_without_decoders_is_told_once_and_not_tried_again(tmp_path: Path, clock: Clock) -> None:
    with open_scanner(as_picture(tmp_path), clock, decoders="tests.scan_stand_ins:none_here") as scanner:
        events = everything(scanner)
    assert events == [FaultEvent(reason=FaultReason.MISSING, component="decoder", problem="no QR library")]


def plug_in(folder: Path, gray: Gray) -> ScanSource:
    folder.mkdir(exist_ok=True)
    save(folder / "frame.png", gray)
    return ScanSource(make="tests.scan_stand_ins:Gate", path=folder / "frame.png", live=True)


def unplug(folder: Path) -> None:
    folder.rename(folder.with_name("gone"))
    shutil.rmtree(folder.with_name("gone"))


def test_a_camera_that_is_unplugged_and_plugged_in_again_is_read_again(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "camera"
    source = plug_in(folder, scene(MARK))
    unplug(folder)
    with open_scanner(source, clock) as scanner:
        assert faults(patiently(scanner, clock, count=2)) == [
            FaultEvent(reason=FaultReason.MISSING, component="camera", problem="not there", retry_s=0.5),
            FaultEvent(reason=FaultReason.MISSING, component="camera", problem="not there", retry_s=1),
        ]
        plug_in(folder, scene(MARK))
        assert payloads(until(scanner, is_code)) == [MARK]
        unplug(folder)
        [fault] = faults(patiently(scanner, clock, count=1))
        assert (fault.reason, fault.component, fault.retry_s) == (FaultReason.MISSING, "camera", 2)
        plug_in(folder, scene(OTHER))
        assert payloads(until(scanner, is_code)) == [OTHER]


def test_a_camera_that_stays_away_is_looked_for_every_ten_seconds(tmp_path: Path, clock: Clock) -> None:
    spawn = saying(encode(Missing("camera", "not there")), then="")
    source = ScanSource(make="", path=tmp_path, live=True)
    with open_scanner(source, clock, spawn=spawn) as scanner:
        waits = [fault.retry_s for fault in faults(patiently(scanner, clock, count=12))]
    assert waits == [0.5, 1, 2, 5, *[10] * 8]


def saying(data: bytes, then: str = "sys.stdin.read()") -> Callable[[Job, int, int], subprocess.Popen[bytes]]:
    """Starts a process that says this and then waits, or what else it is to do."""
    code = f"import os, sys; os.write(int(sys.argv[1]), bytes.fromhex(sys.argv[2])); {then}"

    def spawn(job: Job, reports: int, slot: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-IS", "-c", code, str(reports), data.hex()]
        return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(reports,), bufsize=0)

    return spawn


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 9, encode(Done()), encode(Ready()) + encode(END), encode(Ready()) + encode(Begin("a")) * 2],
    ids=["noise", "done before ready", "end before begin", "begun twice"],
)
def test_a_process_that_says_what_it_never_says_is_ended(tmp_path: Path, clock: Clock, data: bytes) -> None:
    with open_scanner(video(tmp_path), clock, spawn=saying(data)) as scanner:
        [fault] = until(scanner, is_fault)
        assert isinstance(fault, FaultEvent)
        assert fault.reason is FaultReason.BABBLE


def test_a_process_that_talks_on_and_takes_no_grant_is_ended(tmp_path: Path, clock: Clock) -> None:
    talk = f"[os.write(int(sys.argv[1]), {encode(Unusable('a', 'b'))!r} * 500) for _ in iter(int, 1)]"
    with open_scanner(video(tmp_path), clock, spawn=saying(encode(Ready()), then=talk)) as scanner:
        fault = until(scanner, lambda event: isinstance(event, FaultEvent) and event.reason is FaultReason.BABBLE)[-1]
        assert isinstance(fault, FaultEvent)
        assert fault.reason is FaultReason.BABBLE


def test_a_spare_process_takes_over_where_one_dies_and_ends_with_the_scanner(
    window: Callable[[Gray], ScanSource],
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def spawn(job: Job, reports: int, slot: int) -> subprocess.Popen[bytes]:
        started.append(spawn_worker(job, reports, slot))
        return started[-1]

    with open_scanner(window(scene(MARK)), Clock(), decoders=TRAPPED, spawn=spawn, spare=True) as scanner:
        until(scanner, is_code)
        window(scene("CRASH"))
        until(scanner, is_fault)
        assert len(started) == 2
        window(scene(OTHER))
        assert payloads(until(scanner, is_code)) == [OTHER]
        assert scanner._child is not None
        assert scanner._child._process is started[1]
        assert len(started) == 3
    assert [process.returncode for process in started] == [-signal.SIGSEGV, -signal.SIGKILL, -signal.SIGKILL]


def test_a_process_that_cannot_be_made_is_a_fault_and_tried_again(tmp_path: Path, clock: Clock) -> None:
    attempts: list[Job] = []

    def spawn(job: Job, reports: int, slot: int) -> subprocess.Popen[bytes]:
        attempts.append(job)
        if len(attempts) == 1:
            raise OSError(12, "Cannot allocate memory")
        return spawn_worker(job, reports, slot)

    with open_scanner(as_picture(tmp_path), clock, spawn=spawn) as scanner:
        events = everything(scanner)
    assert [(fault.reason, fault.problem) for fault in faults(events)] == [
        (FaultReason.NO_START, "Cannot allocate memory")
    ]
    assert set(payloads(events)) == {MARK, OTHER}


# -------------------------------------------------------------------------------------------------- the trigger


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Callable[[Gray], ScanSource]]:
    """What the camera sees, changed by calling it again."""

    def show(gray: Gray) -> ScanSource:
        save(tmp_path / "window.png", gray)
        return ScanSource(make="tests.scan_stand_ins:Window", path=tmp_path / "window.png", live=True)

    return show


def test_a_request_gives_the_code_in_view_each_time_it_is_asked(window: Callable[[Gray], ScanSource]) -> None:
    clock = Clock()
    with open_scanner(window(scene(MARK)), clock) as scanner:
        until(scanner, is_code)
        clock.step_s = 0.005
        for _ in range(3):
            answer = scanner.request()
            assert isinstance(answer, tuple)
            assert [event.code.payload.decode() for event in answer] == [MARK]


def test_a_request_is_never_answered_with_what_stood_there_before_it(window: Callable[[Gray], ScanSource]) -> None:
    with open_scanner(window(scene(MARK)), Clock()) as scanner:
        until(scanner, is_code)
        for text in (OTHER, MARK, OTHER, MARK):
            window(scene(text))
            answer = scanner.request()
            assert isinstance(answer, tuple)
            assert [event.code.payload.decode() for event in answer] == [text]


def test_a_request_without_a_code_ends_in_a_hint_in_time(window: Callable[[Gray], ScanSource]) -> None:
    clock = Clock()
    with open_scanner(window(EMPTY), clock) as scanner:
        until(scanner, lambda event: isinstance(event, Heartbeat))
        clock.step_s = 0.05
        began = clock.now_s
        assert scanner.request(timeout_s=3) == HintEvent(Hint.NO_CODE)
        assert clock.now_s - began < 3.5


def test_a_request_on_a_foreign_code_looks_for_a_mark_half_a_second_longer(
    window: Callable[[Gray], ScanSource],
) -> None:
    clock = Clock()
    with open_scanner(window(scene(URL)), clock) as scanner:
        until(scanner, is_code)
        clock.step_s = 0.01
        began = clock.now_s
        answer = scanner.request()
        assert isinstance(answer, tuple)
        assert [(event.code.payload.decode(), event.is_mark) for event in answer] == [(URL, False)]
        assert clock.now_s - began < 3


def test_a_request_prefers_a_mark_that_comes_after_a_foreign_code(tmp_path: Path, clock: Clock) -> None:
    path = save_video(tmp_path / "a.avi", [scene(URL)] * 3 + [scene(URL, MARK)] * 3)
    with open_scanner(replace(video(path), live=True), clock) as scanner:
        answer = scanner.request()
    assert isinstance(answer, tuple)
    assert [event.code.payload.decode() for event in answer] == [MARK]


def test_a_request_over_a_frame_that_hangs_ends_in_the_fault(window: Callable[[Gray], ScanSource]) -> None:
    clock = Clock()
    with open_scanner(window(EMPTY), clock, decoders=TRAPPED) as scanner:
        until(scanner, lambda event: isinstance(event, Heartbeat))
        window(scene("HANG"))
        clock.step_s = 0.05
        began = clock.now_s
        answer = scanner.request()
        assert isinstance(answer, FaultEvent)
        assert answer.reason in (FaultReason.HANG, FaultReason.CRASH)
        assert clock.now_s - began < 3.5


@pytest.mark.parametrize(
    ("said", "reason"), [(encode(Missing("camera", "not there")), FaultReason.MISSING), (b"", FaultReason.CRASH)]
)
def test_a_request_between_two_processes_answers_at_once_with_the_fault(
    tmp_path: Path, clock: Clock, said: bytes, reason: FaultReason
) -> None:
    source = ScanSource(make="", path=tmp_path, live=True)
    with open_scanner(source, clock, spawn=saying(said, then="")) as scanner:
        while not (faults(patiently(scanner, clock, count=1))[0].retry_s or 0) >= 5:
            pass
        clock.now_s -= 1.5  # `patiently` went on to the next start
        clock.step_s = 0.001
        began = clock.now_s
        answer = scanner.request(timeout_s=1)
        assert isinstance(answer, FaultEvent)
        assert answer.reason is reason
        assert answer.retry_s == pytest.approx(1.5, abs=0.1)
        assert clock.now_s - began < 0.1


def test_a_file_that_cannot_be_read_here_is_told_at_each_request(tmp_path: Path, clock: Clock) -> None:
    with open_scanner(as_picture(tmp_path), clock, decoders="tests.scan_stand_ins:none_here") as scanner:
        answers = [scanner.request() for _ in range(2)]
    missing = FaultEvent(reason=FaultReason.MISSING, component="decoder", problem="no QR library")
    assert answers == [missing, missing]


def wait_until_taken(picture: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while picture.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def by_poll(scanner: Scanner) -> list[Event]:
    return until(scanner, is_code)


def by_events(scanner: Scanner) -> list[Event]:
    events: list[Event] = []
    for event in scanner.events():
        events.append(event)
        if is_code(event):
            break
    return events


@pytest.mark.parametrize("read", [by_poll, by_events])
@pytest.mark.parametrize(("pause_s", "reported"), [(0.9, MARK), (1.1, OTHER), (3600, OTHER)])
def test_what_a_camera_saw_before_a_pause_is_never_reported_after_it(
    tmp_path: Path, clock: Clock, read: Callable[[Scanner], list[Event]], pause_s: float, reported: str
) -> None:
    source = plug_in(tmp_path / "camera", EMPTY)
    with open_scanner(source, clock) as scanner:
        until(scanner, lambda event: isinstance(event, Heartbeat))  # and one more frame is granted
        save(source.path, scene(MARK))
        wait_until_taken(source.path)
        clock.now_s += pause_s
        save(source.path, scene(OTHER))
        assert payloads(read(scanner)) == [reported]


def test_what_a_camera_saw_before_a_resume_is_never_reported_after_it_however_short_the_pause(
    tmp_path: Path, clock: Clock
) -> None:
    source = plug_in(tmp_path / "camera", scene(MARK))
    with open_scanner(source, clock) as scanner:
        assert payloads(until(scanner, is_code)) == [MARK]
        save(source.path, scene(OTHER))
        wait_until_taken(source.path)
        scanner.resume()
        save(source.path, scene(MARK))
        assert payloads(until(scanner, is_code)) == [MARK]


def test_a_resume_in_the_midst_of_a_call_counts_as_well(tmp_path: Path) -> None:
    resumed = threading.Event()

    class Resuming(Clock):
        def __call__(self) -> float:
            if resumed.is_set():
                resumed.clear()
                scanner.resume()
            return super().__call__()

    clock = Resuming()
    source = plug_in(tmp_path / "camera", EMPTY)
    with open_scanner(source, clock) as scanner:
        until(scanner, lambda event: isinstance(event, Heartbeat))
        save(source.path, scene(MARK))
        wait_until_taken(source.path)
        events: list[Event] = []
        while not events:
            resumed.set()  # the clock is looked at in each call
            events = scanner.poll(0.2)
        assert [type(event) for event in events] == [Heartbeat]
        save(source.path, EMPTY)  # for the grant that may have been used before
        assert payloads(until(scanner, lambda event: isinstance(event, Heartbeat))) == []
        save(source.path, scene(OTHER))
        assert payloads(until(scanner, is_code)) == [OTHER]


def test_a_frame_without_use_before_a_pause_costs_no_frame_after_it(tmp_path: Path, clock: Clock) -> None:
    source = plug_in(tmp_path / "camera", EMPTY)
    with open_scanner(source, clock) as scanner:
        until(scanner, lambda event: isinstance(event, Heartbeat))
        source.path.write_bytes(b"no picture")
        wait_until_taken(source.path)
        clock.now_s += 5
        save(source.path, scene(MARK))
        assert payloads(until(scanner, is_code)) == [MARK]


def test_after_a_pause_over_the_first_of_two_codes_both_are_looked_for_again(tmp_path: Path, clock: Clock) -> None:
    source = plug_in(tmp_path / "camera", scene(MARK, OTHER))
    with open_scanner(source, clock) as scanner:
        events = scanner.events()
        assert payloads([next(event for event in events if is_code(event))])
        clock.now_s += 2
        save(source.path, EMPTY)
        wait_until_taken(source.path)
        assert not is_code(next(events))
        save(source.path, scene(MARK, OTHER))
        assert set(payloads(until(scanner, is_code))) == {MARK, OTHER}


def test_a_request_that_sees_no_frame_says_so(tmp_path: Path) -> None:
    source = ScanSource(make="tests.scan_stand_ins:Stuck", path=tmp_path, live=True, limits=Limits(capture_s=1e6))
    with open_scanner(source, Clock(step_s=0.1)) as scanner:
        answer = scanner.request()
    assert isinstance(answer, FaultEvent)
    assert (answer.reason, answer.problem) == (FaultReason.NO_FRAMES, "no frame was read within 2.5 s")


def test_a_request_after_the_end_says_so_at_once(tmp_path: Path, clock: Clock) -> None:
    with open_scanner(as_picture(tmp_path), clock) as scanner:
        everything(scanner)
        answer = scanner.request()
    assert isinstance(answer, FaultEvent)
    assert answer.reason is FaultReason.ENDED


DAMAGED_MARK, FOREIGN = {VerdictCode.UNREADABLE}, {VerdictCode.NOT_A_MARK}
A_HINT, HANG, CRASH, MISSING = {Hint.NO_CODE}, {FaultReason.HANG}, {FaultReason.CRASH}, {FaultReason.MISSING}


def no_process(job: Job, reports: int, slot: int) -> subprocess.Popen[bytes]:
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize(
    "warm",
    [pytest.param(True, id="while it reads"), pytest.param(False, id="as the first thing", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(
    ("shown", "options", "answers"),
    [
        (MARK, {}, DAMAGED_MARK),
        (URL, {}, FOREIGN),
        ("", {}, A_HINT),
        ("HANG", {}, HANG),
        ("CRASH", {}, CRASH),
        ("no camera", {}, MISSING),
        ("stuck camera", {}, HANG),
        ("", {"decoders": "tests.scan_stand_ins:none_here"}, MISSING),
        ("", {"spawn": no_process}, {FaultReason.NO_START}),
    ],
    ids=["mark", "foreign code", "no code", "hang", "crash", "no camera", "stuck", "no decoders", "no process"],
)
def test_each_trigger_ends_in_a_verdict_or_a_named_reason_within_three_seconds(
    tmp_path: Path, window: Callable[[Gray], ScanSource], shown: str, options: Any, answers: set[Code], warm: bool
) -> None:
    """Real processes and the real clock; the device has no data."""
    source = window(EMPTY)
    if shown == "no camera":
        source = replace(source, make="tests.scan_stand_ins:Gate", path=tmp_path / "none" / "frame.png")
    elif shown == "stuck camera":
        source = replace(source, make="tests.scan_stand_ins:Stuck")
    device = build_device(Home(tmp_path / "home"), system_clock)
    with Scanner(source, **{"decoders": TRAPPED, **options}) as scanner:
        if warm:
            until(scanner, lambda event: isinstance(event, Heartbeat | FaultEvent))
        if "camera" not in shown:
            window(scene(shown))
        began = time.monotonic()
        answer = scanner.request()
        found: Code | None = answer.hint if isinstance(answer, HintEvent) else None
        if isinstance(answer, FaultEvent):
            found = answer.reason
        elif isinstance(answer, tuple):
            found = device.verifier.check(Observation(code=answer[0].code.payload)).verdict.code
        took_s = time.monotonic() - began
    assert found in answers | (set() if warm else {FaultReason.NO_FRAMES})
    assert took_s < 3


# ------------------------------------------------------------------------------------------------------- photos


def seen_in(jpeg: bytes) -> Gray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)


def test_a_code_comes_with_the_frame_in_which_it_was_read(tmp_path: Path, clock: Clock) -> None:
    shown = [scene(MARK), scene(URL, OTHER)]
    with open_scanner(pictures(save_folder(tmp_path / "pictures", shown)), clock, photos=True) as scanner:
        codes = [event for event in everything(scanner) if isinstance(event, CodeEvent)]
    assert [event.code.payload.decode() for event in codes] == [MARK, OTHER]
    for event, gray in zip(codes, shown, strict=True):
        assert len(event.photo) <= MAX_PHOTO
        assert np.abs(seen_in(event.photo).astype(int) - gray).mean() < 3
        assert b"Exif" not in event.photo
        assert repr(event.photo) not in repr(event)


@pytest.mark.parametrize("shape", [(1296, 2304), (2000, 2000), (1, 4096), (4096, 1), (1, 1)])
def test_a_photo_is_at_most_two_hundred_kilobytes_whatever_the_frame(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    jpeg = scan_worker.jpeg_of(noise)
    assert 0 < len(jpeg) <= MAX_PHOTO
    assert max(seen_in(jpeg).shape) <= 1280
    assert scan_worker.jpeg_of(np.empty((0, 0), np.uint8)) == b""


GOOD_JPEG = b"\xff\xd8\xff" + bytes(100) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("length", "data", "photo"),
    [
        (len(GOOD_JPEG), GOOD_JPEG, GOOD_JPEG),
        (0, GOOD_JPEG, b""),
        (len(GOOD_JPEG) + 1, GOOD_JPEG, b""),
        (len(GOOD_JPEG) - 1, GOOD_JPEG, b""),
        (MAX_PHOTO + 1, b"\xff\xd8\xff" + bytes(MAX_PHOTO), b""),
        ((1 << 32) - 1, GOOD_JPEG, b""),
        (8, b"GIF89a\xff\xd9", b""),
    ],
)
def test_a_slot_that_lies_about_its_photo_gives_none(length: int, data: bytes, photo: bytes) -> None:
    slot = os.memfd_create("slot")
    assert photo_in(slot) == b""
    os.pwrite(slot, PHOTO_HEADER.pack(length) + data, PHOTO_PLACE)
    assert photo_in(slot) == photo
    os.close(slot)


def test_a_photo_that_is_asked_for_is_of_a_later_moment_and_needs_no_code(tmp_path: Path, clock: Clock) -> None:
    source = plug_in(tmp_path / "camera", scene(MARK))
    with open_scanner(source, clock) as scanner:
        until(scanner, is_code)  # and one more frame is granted
        number = scanner.photograph()
        save(source.path, EMPTY)
        wait_until_taken(source.path)
        save(source.path, scene(URL))
        events = until(scanner, lambda event: isinstance(event, PhotoEvent))
    [photo] = [event for event in events if isinstance(event, PhotoEvent)]
    assert photo.number == number > 0
    assert np.abs(seen_in(photo.photo).astype(int) - scene(URL)).mean() < 3


def test_without_a_code_and_unasked_no_frame_becomes_a_photo(tmp_path: Path, clock: Clock) -> None:
    source = plug_in(tmp_path / "camera", scene(MARK))
    with open_scanner(source, clock, photos=True) as scanner:
        until(scanner, is_code)
        save(source.path, EMPTY)
        until(scanner, lambda event: isinstance(event, HintEvent))
        assert photo_in(scanner._slot) == b""


def test_who_wants_no_photos_gets_none_with_a_code(tmp_path: Path, clock: Clock) -> None:
    with open_scanner(as_camera(tmp_path), clock) as scanner:
        events = until(scanner, is_code)
        assert photo_in(scanner._slot) == b""
    assert [event.photo for event in events if isinstance(event, CodeEvent)] == [b"", b""]


def test_of_a_recording_there_is_no_photo_of_now(tmp_path: Path, clock: Clock) -> None:
    with open_scanner(as_picture(tmp_path), clock) as scanner:
        assert scanner.photograph() == 0


def bytes_in(pipe: int) -> int:
    waiting = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return int.from_bytes(waiting, sys.byteorder)


def test_a_program_that_is_slow_finds_one_frame_waiting_and_no_more(
    window: Callable[[Gray], ScanSource], clock: Clock
) -> None:
    with open_scanner(window(scene(MARK, OTHER)), clock, photos=True) as scanner:
        until(scanner, is_code)
        assert scanner._child is not None
        stat, deadline = Path(f"/proc/{scanner._child._process.pid}/stat"), time.monotonic() + PATIENCE_S
        waiting = 0
        while waiting == 0 or stat.read_text().rpartition(") ")[2][0] != "S":  # it has said something, and rests
            assert time.monotonic() < deadline
            waiting = bytes_in(scanner._child._reports)
        assert bytes_in(scanner._child._reports) < 4096  # no picture
        assert sum(isinstance(event, Heartbeat) for event in scanner.poll()) == 1


# -------------------------------------------------------------------------------------------------- the process


def start_worker(source: ScanSource, alarm_s: float) -> tuple[subprocess.Popen[bytes], int]:
    slot, (reports, theirs) = os.memfd_create("slot"), os.pipe()
    job = Job(source=source.make, paths=(str(source.path),), decoders=TRAPPED, still=True, skip=0, alarm_s=alarm_s)
    process = spawn_worker(job, theirs, slot)
    os.close(theirs)
    os.close(slot)
    return process, reports


def test_a_process_whose_program_is_gone_ends_itself(tmp_path: Path) -> None:
    process, reports = start_worker(as_picture(tmp_path), alarm_s=9)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 0
    os.close(reports)


def test_a_process_that_hangs_without_a_watch_ends_itself(tmp_path: Path) -> None:
    save(tmp_path / "a.png", scene("HANG"))
    process, reports = start_worker(pictures(tmp_path / "a.png"), alarm_s=0.2)
    assert process.stdin is not None
    process.stdin.write(GRANT)
    assert process.wait(PATIENCE_S) == -signal.SIGALRM
    process.stdin.close()
    os.close(reports)


def test_the_process_leaves_no_core_dump_and_writes_no_large_file(window: Callable[[Gray], ScanSource]) -> None:
    with open_scanner(window(EMPTY), Clock()) as scanner:
        until(scanner, lambda event: isinstance(event, Heartbeat))
        assert scanner._child is not None
        limits = Path(f"/proc/{scanner._child._process.pid}/limits").read_text(encoding="ascii")
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")] == [["0", "0"]]
    [size] = [line.split()[3] for line in limits.splitlines() if line.startswith("Max file size")]
    assert int(size) < 40_000_000


def test_closing_ends_the_process_and_is_harmless_twice(window: Callable[[Gray], ScanSource]) -> None:
    scanner = open_scanner(window(EMPTY), Clock())
    until(scanner, lambda event: isinstance(event, Heartbeat))
    assert scanner._child is not None
    process = scanner._child._process
    scanner.close()
    scanner.close()
    assert process.returncode == -signal.SIGKILL
    assert scanner.poll() == []


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


def test_the_program_loads_no_image_library_and_the_process_no_data_and_no_keys() -> None:
    assert not loaded_by("firmware.scanner") & {"cv2", "numpy", "PIL"}
    assert not loaded_by("firmware.scan_worker") & {"sqlite3", "cryptography", "requests", "socket"}
