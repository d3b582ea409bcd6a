"""What the camera is asked for, from the program through the scanner process; real processes, real decoders."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firmware import scan_worker
from firmware.cameras import KINDS, camera_source
from firmware.scan_protocol import GRANT, ProtocolError, decode_settings, encode_settings
from firmware.scanner import Heartbeat, HintEvent, Scanner, ScanSource
from hw.interfaces import CameraSettings
from tests.conftest import ROOT
from tests.test_scanner import EMPTY, MARK, PATIENCE_S, is_code, payloads, save, scene, start_worker, until

ALL = [CameraSettings(torch, ev, zoom) for torch in (False, True) for ev in (-1, 0, 1) for zoom in (False, True)]


@pytest.fixture(autouse=True)
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def held(tmp_path: Path) -> Path:
    save(tmp_path / "held.png", scene(MARK))
    return tmp_path / "held.png"


def stand_in(name: str, path: Path) -> ScanSource:
    return ScanSource(make=f"tests.camera_stand_ins:{name}", path=path, live=True)


# ------------------------------------------------------------------------------------------------- in one byte


@pytest.mark.parametrize("settings", ALL)
def test_settings_survive_the_pipe_and_are_no_grant(settings: CameraSettings) -> None:
    byte = encode_settings(settings)
    assert len(byte) == 1
    assert byte != GRANT
    assert decode_settings(byte) == settings


def test_more_stops_than_there_are_become_the_most_there_are() -> None:
    assert decode_settings(encode_settings(CameraSettings(exposure_ev=9))).exposure_ev == 1
    assert decode_settings(encode_settings(CameraSettings(exposure_ev=-9))).exposure_ev == -1


def test_any_other_byte_is_refused() -> None:
    known = {encode_settings(settings) for settings in ALL}
    for byte in map(bytes, zip(range(256))):
        if byte not in known:
            with pytest.raises(ProtocolError):
                decode_settings(byte)


# ----------------------------------------------------------------------------------------------- to the camera


def test_in_the_dark_the_process_lights_the_lamp_by_itself_and_reads(held: Path) -> None:
    with Scanner(stand_in("DarkRoom", held)) as scanner:
        assert payloads(until(scanner, is_code)) == [MARK]


def test_what_the_program_asks_for_reaches_the_camera(held: Path) -> None:
    with Scanner(stand_in("Zoomed", held)) as scanner:
        events = until(scanner, lambda event: isinstance(event, Heartbeat) and event.frames >= 5)
        assert payloads(events) == []
        scanner.adjust(CameraSettings(zoom=True, exposure_ev=1))
        assert payloads(until(scanner, is_code)) == [MARK]
        scanner.adjust(CameraSettings())
        until(scanner, lambda event: isinstance(event, HintEvent))  # in a frame without the code


def test_the_next_process_is_asked_for_the_same(held: Path) -> None:
    with Scanner(stand_in("Zoomed", held)) as scanner:
        scanner.adjust(CameraSettings(zoom=True, exposure_ev=1))
        assert payloads(until(scanner, is_code)) == [MARK]
        assert scanner._child is not None
        scanner._child._process.kill()
        scanner.resume()
        assert payloads(until(scanner, is_code)) == [MARK]


def test_a_source_that_cannot_be_adjusted_takes_no_notice(held: Path) -> None:
    with Scanner(camera_source("window", str(held))) as scanner:
        scanner.adjust(CameraSettings(torch=True, exposure_ev=1, zoom=True))
        assert payloads(until(scanner, is_code)) == [MARK]


class Told(list[CameraSettings]):
    """A camera that notes what it is told; no frames."""

    def adjust(self, settings: CameraSettings) -> None:
        self.append(settings)

    def frames(self) -> Iterator[None]:
        yield None

    def close(self) -> None:
        pass


LIT, BRIGHT, NEAR = CameraSettings(torch=True), CameraSettings(exposure_ev=1), CameraSettings(zoom=True)


def test_the_programs_wishes_come_on_top_of_the_processs_own_remedies() -> None:
    told = Told()
    light = scan_worker._Light(told)  # type: ignore[arg-type]
    light.follow(LIT)
    light.ask(NEAR)
    light.follow(CameraSettings(exposure_ev=-1))
    light.ask(CameraSettings(zoom=True, exposure_ev=1))
    light.follow(CameraSettings(exposure_ev=-1))  # nothing new: the program's word counts
    light.ask(CameraSettings())
    assert told == [
        LIT,
        CameraSettings(torch=True, zoom=True),
        CameraSettings(exposure_ev=-1, zoom=True),
        CameraSettings(exposure_ev=1, zoom=True),
        CameraSettings(exposure_ev=-1),
    ]


def test_the_lamp_is_lit_for_frames_in_a_row_and_never_for_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_worker, "_IDLE_S", 0.0)
    ours, theirs = os.pipe()

    class Waiting(Told):
        """While the process waits, a grant comes; it comes late."""

        late = False

        def adjust(self, settings: CameraSettings) -> None:
            super().adjust(settings)
            if self.late:
                os.write(theirs, GRANT)

    told = Waiting()
    light = scan_worker._Light(told)  # type: ignore[arg-type]
    light.follow(LIT)
    os.write(theirs, GRANT)
    assert scan_worker._granted(ours, light) == GRANT
    assert told == [LIT], "a frame at once"
    told.late = True
    rescue = threading.Timer(PATIENCE_S, os.write, (theirs, GRANT))  # where the lamp is left lit
    rescue.start()
    assert scan_worker._granted(ours, light) == GRANT
    rescue.cancel()
    told.late = False
    light.follow(replace(LIT, exposure_ev=1))
    assert told == [LIT, CameraSettings(), BRIGHT], "one after a pause"
    os.write(theirs, encode_settings(NEAR) + GRANT)
    assert scan_worker._granted(ours, light) == GRANT
    assert told[3:] == [replace(BRIGHT, zoom=True), CameraSettings(torch=True, exposure_ev=1, zoom=True)]
    os.close(theirs)
    assert scan_worker._granted(ours, light) == b"", "the program is gone"
    os.close(ours)


def test_a_camera_that_hangs_when_it_is_closed_keeps_no_process_alive(held: Path) -> None:
    process, reports = start_worker(stand_in("HangsInClose", held), alarm_s=0.2)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(PATIENCE_S) == -signal.SIGALRM
    os.close(reports)


# ------------------------------------------------------------------------------------------------- kinds by name


def test_each_kind_of_camera_has_a_source_that_can_be_imported() -> None:
    for kind in KINDS:
        scan_worker._imported(camera_source(kind, "x").make)


def test_a_kind_says_what_the_scanner_must_know_of_it() -> None:
    sources = {kind: camera_source(kind, "") for kind in KINDS}
    assert {kind for kind, source in sources.items() if source.live} == {"picamera2", "uvc", "window"}
    assert {kind for kind, source in sources.items() if source.still} == {"files"}
    assert sources["picamera2"].path == Path("0")
    assert camera_source("video", "/dev/video2").make == sources["uvc"].make
    assert camera_source("picamera2", "1", lamp="/sys/class/leds/lamp").more == (Path("/sys/class/leds/lamp"),)


def test_a_missing_picamera_library_is_told_as_a_missing_part(held: Path, tmp_path: Path) -> None:
    (tmp_path / "picamera2.py").write_text("raise ImportError('not here')", encoding="utf-8")
    os.environ["PYTHONPATH"] = f"{tmp_path}:{ROOT}"  # as the fixture has set it, and takes it back
    with Scanner(camera_source("picamera2", "")) as scanner:
        [fault] = until(scanner, lambda event: True)
    assert (str(getattr(fault, "reason", "")), getattr(fault, "component", "")) == ("MISSING", "camera")


def test_an_empty_window_is_read_like_any_frame(tmp_path: Path) -> None:
    save(tmp_path / "none.png", EMPTY)
    (tmp_path / "none.png").unlink()
    with Scanner(camera_source("window", str(tmp_path / "none.png"))) as scanner:
        events = until(scanner, lambda event: isinstance(event, Heartbeat))
    assert payloads(events) == []
