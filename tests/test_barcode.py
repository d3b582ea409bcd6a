"""A barcode engine over real pseudo terminals; time is the test's."""

from __future__ import annotations

import json
import os
import threading
import tty
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.build import build_device
from firmware.config import Home
from firmware.scan_engine import EngineScanner
from firmware.scanner import CodeEvent, FaultEvent, FaultReason, Scanner, pictures
from hw.barcode import IDLE_S, MAX_PAYLOAD, NAME, PAUSE_S, BarcodeEngine, PayloadSplitter, serial_port
from hw.errors import DeviceNotFoundError, LinkLostError
from hw.qr.pipeline import marks
from scripts.cli import check as check_command
from scripts.cli.main import main
from scripts.sandbox.codes import any_qr_picture
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.types import CodeSeen

MARK = b"VM1:0A$ 9+Z.:K  "  # a space is a character of the alphabet, at the end as well
URL = b"https://example.org/"


class Clock:
    """Time that passes when told, and while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Plug:
    """An engine's end of a serial line, at a path that stays the same when it is plugged in again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: int | None = None

    def plug_in(self) -> None:
        self._end, other = os.openpty()
        tty.setraw(other)
        self.path.symlink_to(os.ttyname(other))
        os.close(other)

    def send(self, data: bytes) -> None:
        assert self._end is not None
        assert os.write(self._end, data) == len(data)

    def unplug(self) -> None:
        if self._end is not None:
            os.close(self._end)
            self.path.unlink()
            self._end = None


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    made = Plug(tmp_path / "ttyACM0")
    made.plug_in()
    yield made
    made.unplug()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(plug: Plug, clock: Clock) -> Iterator[BarcodeEngine]:
    made = BarcodeEngine(serial_port(plug.path), clock=clock, sleep=clock.sleep)
    assert made.poll() == []  # which opens the line
    yield made
    made.close()


def read(engine: BarcodeEngine) -> list[bytes]:
    """All payloads that are on the line."""
    found: list[bytes] = []
    while codes := engine.poll(0.05):
        found += [code.payload for code in codes]
    return found


# ------------------------------------------------------------------------------------------- bytes to payloads

STREAM = MARK + b"\r" + URL + b"\n\r\n" + MARK + b"\r\n" + "标志".encode("gb18030") + b"\r"


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cutting_of_the_stream_gives_the_same_payloads(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    splitter = PayloadSplitter()
    parts = [STREAM[start:end] for start, end in pairwise(places)]
    assert [p for part in parts for p in splitter.feed(part, 0)] == [MARK, URL, MARK, "标志".encode("gb18030")]
    assert not splitter.has_begun


@given(st.lists(st.binary(max_size=3 * MAX_PAYLOAD), max_size=6))
def test_noise_gives_printable_payloads_of_bounded_length_or_none(parts: list[bytes]) -> None:
    splitter = PayloadSplitter()
    for second, part in enumerate(parts):
        for payload in [*splitter.feed(part, second), *splitter.silence(second + 0.5)]:
            assert 0 < len(payload) <= MAX_PAYLOAD
            assert not any(byte < 32 or byte == 127 for byte in payload)


@pytest.mark.parametrize("ended", [b"\r", b""], ids=["by a line end", "by silence"])
def test_a_payload_that_is_too_long_is_dropped_whole_and_the_next_one_counts(ended: bytes) -> None:
    splitter = PayloadSplitter()
    for _ in range(1000):
        assert splitter.feed(b"A" * 4000, 0) == []
        assert len(splitter._buffer) <= MAX_PAYLOAD
    assert splitter.feed(ended, 0) == []
    assert splitter.silence(1) == []
    assert splitter.feed(b"B" * MAX_PAYLOAD + b"\r", 1) == [b"B" * MAX_PAYLOAD]


@pytest.mark.parametrize("noise", [b"\0", b"\xff" * 40, b"\x1b[2J" + MARK, b"\x80" + MARK, b"", b"\x02" + MARK])
def test_what_is_no_text_is_no_code(noise: bytes) -> None:
    splitter = PayloadSplitter()
    assert splitter.feed(noise + b"\r" + MARK + b"\r", 0) == [MARK]


# --------------------------------------------------------------------------------------------------- the line


def test_a_line_end_ends_a_code_at_once_and_silence_ends_one_without(
    plug: Plug, engine: BarcodeEngine, clock: Clock
) -> None:
    plug.send(MARK + b"\r\n")
    assert engine.poll(1) == [CodeSeen(payload=MARK, corners=(), decoder="engine")]
    plug.send(MARK[:5])
    assert engine.poll(1) == []
    plug.send(MARK[5:])
    assert engine.poll(1) == []
    clock.now_s += IDLE_S - 0.01
    assert engine.poll() == []
    clock.now_s += 0.02
    assert read(engine) == [MARK]


def test_bytes_that_wait_on_the_line_belong_to_the_code_however_late_they_are_read(
    plug: Plug, engine: BarcodeEngine, clock: Clock
) -> None:
    plug.send(MARK[:5])
    assert engine.poll(1) == []
    plug.send(MARK[5:])
    clock.now_s += 1
    assert engine.poll() == []
    clock.now_s += 1
    assert read(engine) == [MARK]


def test_a_line_that_is_unplugged_is_told_once_and_read_again_when_it_is_back(
    plug: Plug, engine: BarcodeEngine, clock: Clock
) -> None:
    plug.send(MARK[:5])
    assert engine.poll(1) == []
    plug.unplug()
    with pytest.raises(LinkLostError) as lost:
        engine.poll(1)
    assert str(lost.value).startswith(f"{NAME}: line lost")
    assert engine.retry_s == 0.5
    plug.plug_in()
    began = clock.now_s
    assert engine.poll(0.2) == []
    assert engine.poll(9) == []
    assert clock.now_s - began == pytest.approx(0.5)
    assert engine.poll() == []  # open again; what was begun before is forgotten
    plug.send(MARK + b"\r")
    assert read(engine) == [MARK]


@pytest.mark.parametrize("make", ["nothing", "file"])
def test_a_port_that_is_none_is_looked_for_less_and_less_often(tmp_path: Path, clock: Clock, make: str) -> None:
    path = tmp_path / "port"
    if make == "file":
        path.write_bytes(b"")
    engine = BarcodeEngine(serial_port(path), clock=clock, sleep=clock.sleep)
    waits = []
    for _ in range(7):
        with pytest.raises(DeviceNotFoundError) as error:
            engine.poll()
        assert str(tmp_path) not in str(error.value)
        waits.append(engine.retry_s)
        clock.now_s += waits[-1]
    assert waits == [0.5, 1, 2, 5, 10, 10, 10]


def test_a_line_that_is_lost_as_soon_as_it_is_open_is_opened_less_and_less_often(tmp_path: Path, clock: Clock) -> None:
    plug = Plug(tmp_path / "port")
    engine = BarcodeEngine(serial_port(plug.path), clock=clock, sleep=clock.sleep)
    waits = []
    for _ in range(4):
        plug.plug_in()
        assert engine.poll() == []
        plug.unplug()
        with pytest.raises(LinkLostError):
            engine.poll(1)
        waits.append(engine.retry_s)
        clock.now_s += waits[-1]
    assert waits == [0.5, 1, 2, 5]


def test_what_was_scanned_before_the_line_was_opened_or_in_a_pause_is_never_reported(
    tmp_path: Path, clock: Clock
) -> None:
    plug = Plug(tmp_path / "port")
    plug.plug_in()
    plug.send(b"VM1:BEFORE\r")
    engine = BarcodeEngine(serial_port(plug.path), clock=clock, sleep=clock.sleep)
    assert read(engine) == []
    plug.send(MARK + b"\r")
    clock.now_s += PAUSE_S - 0.1
    assert read(engine) == [MARK]
    plug.send(b"VM1:BEG")
    assert engine.poll(1) == []
    plug.send(b"UN\rVM1:PAUSE\rVM1:BEG")
    clock.now_s += PAUSE_S + 0.1
    assert read(engine) == []
    plug.send(MARK + b"\r")
    assert read(engine) == [MARK]
    engine.close()
    engine.close()
    plug.unplug()


def test_a_line_that_another_program_reads_is_not_shared(plug: Plug, engine: BarcodeEngine, clock: Clock) -> None:
    with pytest.raises(DeviceNotFoundError):
        BarcodeEngine(serial_port(plug.path), clock=clock).poll()


# ------------------------------------------------------------------------------------- beside the camera's codes


@pytest.fixture
def scanner(engine: BarcodeEngine, clock: Clock) -> EngineScanner:
    return EngineScanner(engine, clock=clock)


@pytest.mark.parametrize("payload", [MARK, URL, b"VM9:X", b"vm1:x", b"VMX"])
def test_a_code_from_the_engine_is_the_event_and_the_verdict_that_it_is_from_the_camera(
    tmp_path: Path, plug: Plug, scanner: EngineScanner, payload: bytes
) -> None:
    any_qr_picture(payload.decode()).save(tmp_path / "code.png")
    with Scanner(pictures(tmp_path / "code.png")) as camera:
        [seen] = [event for event in camera.events() if isinstance(event, CodeEvent)]
    plug.send(payload + b"\r")
    [event] = scanner.poll(1)
    assert isinstance(event, CodeEvent)
    assert (event.code.payload, event.is_mark) == (seen.code.payload, seen.is_mark)
    assert event.is_mark == bool(marks([event.code]))
    device = build_device(Home(tmp_path / "home"), system_clock)
    ours, theirs = (device.verifier.check(Observation(code=e.code.payload)).verdict for e in (event, seen))
    assert (ours.code, ours.reasons, ours.actions) == (theirs.code, theirs.reasons, theirs.actions)


def test_a_code_that_the_engine_repeats_is_one_event_and_a_request_counts_it_as_new(
    plug: Plug, scanner: EngineScanner, clock: Clock
) -> None:
    plug.send((MARK + b"\r") * 5)
    assert len(scanner.poll(1)) == 1
    plug.send(MARK + b"\r")
    assert scanner.poll(1) == []
    plug.send(MARK + b"\r")
    answer = scanner.request()
    assert isinstance(answer, tuple)
    assert [event.code.payload for event in answer] == [MARK]


def test_of_a_foreign_code_and_a_mark_that_come_together_a_request_gives_the_mark(
    plug: Plug, scanner: EngineScanner
) -> None:
    plug.send(URL + b"\r" + MARK + b"\r")
    answer = scanner.request()
    assert isinstance(answer, tuple)
    assert [event.code.payload for event in answer] == [MARK]


class Passing(Clock):
    """Time that passes whenever somebody looks."""

    def __call__(self) -> float:
        self.now_s += 0.01
        return self.now_s


def test_a_request_without_a_code_or_a_line_ends_in_a_named_reason_in_time(plug: Plug) -> None:
    clock = Passing()
    with EngineScanner(BarcodeEngine(serial_port(plug.path), clock=clock, sleep=clock.sleep), clock=clock) as scanner:
        plug.unplug()
        for wait_s, reason in ((0.5, FaultReason.MISSING), (10, FaultReason.MISSING)):
            while scanner._engine.retry_s < wait_s - 0.1:
                scanner.poll(9)
            began = clock.now_s
            answer = scanner.request(timeout_s=3)
            assert isinstance(answer, FaultEvent)
            assert (answer.reason, answer.component) == (reason, NAME)
            assert clock.now_s - began < 3.1
        plug.plug_in()
        clock.now_s += 10
        answer = scanner.request(timeout_s=0.5)
        assert isinstance(answer, FaultEvent)
        assert (answer.reason, answer.problem) == (FaultReason.NO_FRAMES, "no code was read within 0.5 s")


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_command_gives_the_verdict_on_one_code_of_the_engine(
    home: Path, plug: Plug, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = threading.Event()

    class Told(BarcodeEngine):
        def poll(self, timeout_s: float = 0.0) -> list[CodeSeen]:
            codes = super().poll(0 if not opened.is_set() else timeout_s)
            opened.set()
            return codes

    monkeypatch.setattr("hw.barcode.BarcodeEngine", Told)
    officer = threading.Thread(target=lambda: (opened.wait(), plug.send(URL + b"\rVM1:NEXT\r")))
    officer.start()
    assert main(["check", "--port", str(plug.path), "--baud", "115200", "--json"]) == 0
    officer.join()
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["verdict"] == "NOT_A_MARK"
    assert len((home / "audit.jsonl").read_bytes().splitlines()) == 1


def test_the_command_names_a_port_that_is_none_and_an_engine_that_reads_nothing(
    home: Path, tmp_path: Path, plug: Plug, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_command, "ENGINE_S", 0.05)
    for port, said in ((tmp_path / "none", "port cannot be opened"), (plug.path, "no code was read within 0.05 s")):
        assert main(["check", "--port", str(port)]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"markcheck: {NAME}: {said}" in shown.err
    assert main(["check", "a.png", "--port", str(plug.path)]) == 2
    assert main(["check", "a.png", "--baud", "9600"]) == 2
    assert not (home / "audit.jsonl").exists()
