"""The photo of a stop: from the scanner's frame to the sealed file and its record, and of everything else nothing."""

from __future__ import annotations

import gc
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from firmware import build
from firmware.config import Home
from firmware.eyes import Eyes
from firmware.fault_frames import FaultFrames
from firmware.machine import states as st
from firmware.machine.events import Event, PartFault
from firmware.scan_protocol import FRAME_HEADER, MAX_PHOTO
from firmware.scanner import Event as ScanEvent
from firmware.scanner import FaultEvent, FaultReason, Heartbeat, PhotoEvent
from firmware.stop_photos import HELD_S, SCENE_S, HeldPhotos, StopPhotos, fault_frames
from hw.qr.decoders import available_decoders
from scripts.sandbox.audit_keys import open_log, open_photo
from tests.centres import OLD, Handset, OnlineWorld
from tests.officer import Officer, home_of
from tests.sealed_logs import PRIVATE, write_key
from tests.test_appliance import NO_CAMERA, check_plate, code_of
from tests.test_audit_photos import jpeg, small_disk
from tests.test_plate_entry import presses
from tests.test_scanner import loaded_by
from verifier.check import CheckResult, Observation
from verifier.codec.online import OnlineAnswer
from verifier.photos import MAX_PHOTO as MOST_STORED
from verifier.photos import PhotoStore
from verifier.types import Plate
from verifier.verdict import Tone, VerdictCode

__all__ = ["small_disk"]
V = VerdictCode


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture(scope="module")
def stolen(world: OnlineWorld) -> Plate:
    plate: Plate = world.vehicle().plate
    world.authority.registry.set_status(plate, "C")
    world.authority.publish()
    return plate


@pytest.fixture
def home(world: OnlineWorld, stolen: Plate, tmp_path: Path) -> Path:
    """Of a device whose log is sealed."""
    folder = home_of(world, tmp_path / "home")
    write_key(folder / "audit-key.pem")
    return folder


@pytest.fixture
def officer(world: OnlineWorld, home: Path) -> Iterator[Officer]:
    with closing(Officer(world, home)) as made:
        yield made


def records(home: Path) -> list[dict[str, Any]]:
    return [one.record for one in open_log(home / "audit.jsonl", PRIVATE) if one.record]


def photo_records(home: Path) -> list[dict[str, Any]]:
    return [record for record in records(home) if record["kind"] == "photo"]


def opened(home: Path, record: dict[str, Any]) -> np.ndarray:
    """The photo of a record, grey; sealed, and with the digest of the record."""
    sealed = (home / "photos" / record["name"]).read_bytes()
    assert b"\xff\xd8\xff" not in sealed
    plain = open_photo(PRIVATE, record["name"], sealed)
    assert hashlib.sha256(plain).hexdigest() == record["sha256"]
    assert len(plain) <= MAX_PHOTO < MOST_STORED
    return cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)


def codes_in(gray: np.ndarray) -> set[bytes]:
    return {code.payload for decoder in available_decoders() for code in decoder.decode(gray)}


def held() -> list[HeldPhotos]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, HeldPhotos) and one._held]


# ---------------------------------------------------------------------------------------------- an officer's day


def test_the_frame_of_a_code_that_is_a_stop_is_sealed_and_its_digest_stands_in_the_record(
    world: OnlineWorld, stolen: Plate, officer: Officer, home: Path
) -> None:
    code = code_of(world, stolen)
    assert officer.scans(code).verdict is V.WANTED
    officer.until(lambda: bool(photo_records(home)))
    [record] = photo_records(home)
    check_id = officer.shown.outcome.result.check_id
    assert (record["id"], record["of"], record["evidence"]) == (check_id, "code", True)
    assert codes_in(opened(home, record)) == {code.encode()}


def test_with_the_plate_confirmed_the_same_stop_has_the_same_photo_and_not_that_of_the_officers_boots(
    world: OnlineWorld, stolen: Plate, officer: Officer, home: Path
) -> None:
    code = code_of(world, stolen)
    officer.scans(code)
    first = officer.shown.outcome.result.check_id
    officer.holds_up().skip(0.5).press("ok")  # a press at once was meant for what stood there before
    officer.until(lambda: isinstance(officer.page, st.Shown) and officer.shown.outcome.result.check_id != first)
    assert officer.verdict is V.WANTED
    officer.until(lambda: len(photo_records(home)) == 2)
    assert [record["of"] for record in photo_records(home)] == ["code", "code"]
    assert len({record["sha256"] for record in photo_records(home)}) == 1


def test_of_a_car_in_order_and_of_a_caution_no_picture_is_kept_anywhere(
    world: OnlineWorld, officer: Officer, home: Path
) -> None:
    assert officer.scans(code_of(world)).verdict is V.VALID
    assert officer.ready().scans("https://example.com/").verdict is V.NOT_A_MARK
    officer.ready().close()
    assert not (home / "photos").exists()
    assert not (home / "fault-frames").exists()
    assert {record["kind"] for record in records(home)} == {"check"}
    assert held() == []


def test_a_stop_by_a_typed_plate_has_a_photo_of_what_is_before_the_camera(
    stolen: Plate, officer: Officer, home: Path
) -> None:
    eyes = officer.holds_up().appliance.parts.eyes
    officer.until(lambda: eyes.frame_s is not None)  # the camera gives frames
    view = cv2.imread(str(home / "window.png"), cv2.IMREAD_GRAYSCALE)
    assert check_plate(officer, stolen).verdict is V.WANTED
    officer.until(lambda: bool(photo_records(home)))
    [record] = photo_records(home)
    assert (record["of"], record["evidence"]) == ("scene", False)
    assert abs(float(opened(home, record).mean()) - float(view.mean())) < 2


def test_a_stop_without_a_camera_says_in_the_record_that_there_is_no_photo(
    world: OnlineWorld, stolen: Plate, home: Path
) -> None:
    with closing(Officer(world, home, NO_CAMERA)) as officer:
        assert check_plate(officer, stolen).verdict is V.WANTED
        check_id = officer.shown.outcome.result.check_id
    assert photo_records(home) == [
        {**photo_records(home)[0], "id": check_id, "name": None, "sha256": None, "why": "no camera"}
    ]
    assert not (home / "photos").exists()


@pytest.mark.parametrize("level", ["masked", "id"])
def test_below_the_full_level_a_stop_leaves_neither_photo_nor_word_of_one(
    world: OnlineWorld, stolen: Plate, home: Path, level: str
) -> None:
    (home / "audit.toml").write_text(f'stop = "{level}"\nusual = "masked"\n')
    with closing(Officer(world, home)) as officer:
        assert officer.scans(code_of(world, stolen)).verdict is V.WANTED
    assert not (home / "photos").exists()
    assert photo_records(home) == []


def test_of_two_cars_of_an_accident_the_one_that_is_a_stop_has_its_own_photo(
    world: OnlineWorld, stolen: Plate, officer: Officer, home: Path
) -> None:
    code = code_of(world, stolen)
    officer.press("right").scans(code)
    assert isinstance(officer.page, st.Accident)
    officer.scans(code_of(world))
    assert {one.result.verdict.code for one in officer.shown.outcomes} == {V.WANTED, V.VALID}
    stop = next(one.result for one in officer.shown.outcomes if one.result.verdict.tone is Tone.STOP)
    officer.until(lambda: bool(photo_records(home)))
    [record] = photo_records(home)
    assert record["id"] == stop.check_id
    assert codes_in(opened(home, record)) == {code.encode()}
    assert {payload for one in held() for frame in one._held for payload in frame.payloads} == {code.encode()}


def test_a_car_that_only_the_centre_calls_a_stop_has_the_photo_of_its_code(tmp_path: Path) -> None:
    world = OnlineWorld()
    with world.serving() as url:
        home = home_of(world, tmp_path / "home")
        write_key(home / "audit-key.pem")
        (home / "online.toml").write_text(f'url = "{url}"\n')
        plate = world.vehicle().plate
        code = code_of(world, plate)
        world.now += OLD
        world.authority.registry.set_status(plate, "C")
        with closing(Officer(world, home)) as officer:
            officer.scans(code).until(lambda: officer.verdict is V.WANTED)
            assert officer.shown.outcome.result.late
            officer.until(lambda: bool(photo_records(home)))
        [record] = photo_records(home)
        assert codes_in(opened(home, record)) == {code.encode()}


def goes_to_another_car(officer: Officer) -> None:
    officer.hold("back")
    officer.press("ok")
    assert isinstance(officer.page, st.Aim)


def looks_at_it_once_more_later(officer: Officer) -> None:
    goes_to_another_car(officer)
    officer.ready().press("down", "ok")
    assert isinstance(officer.page, st.Shown)


@pytest.mark.parametrize(
    ("goes", "why"),
    [(None, None), (goes_to_another_car, "no frame"), (looks_at_it_once_more_later, "no frame")],
    ids=["stays", "another car", "another car, then the history"],
)
def test_a_plate_that_only_the_centre_calls_a_stop_has_a_photo_only_while_the_officer_has_not_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes: Callable[[Officer], None] | None, why: str | None
) -> None:
    """What is before the camera afterwards is another car."""
    monkeypatch.setattr(build, "TOTAL_MS", 30_000)
    world, gone = OnlineWorld(), threading.Event()

    def after_that(answer: OnlineAnswer) -> OnlineAnswer:
        gone.wait(30)
        return answer

    world.spoil = after_that
    with world.serving() as url:
        home = home_of(world, tmp_path / "home")
        write_key(home / "audit-key.pem")
        (home / "online.toml").write_text(f'url = "{url}"\n')
        plate = world.vehicle().plate
        world.now += OLD
        world.authority.registry.set_status(plate, "C")
        with closing(Officer(world, home)) as officer:
            eyes = officer.holds_up().appliance.parts.eyes
            officer.until(lambda: eyes.frame_s is not None)
            local = check_plate(officer, plate).shown.outcome.result
            assert local.verdict.tone is not Tone.STOP
            if goes is not None:
                goes(officer)
            gone.set()
            officer.until(lambda: bool(photo_records(home)))
        [record] = photo_records(home)
        assert (record["id"], record.get("why")) == (local.check_id, why)
        assert record["of"] == "scene" if why is None else record["name"] is None


def test_of_two_cars_of_an_accident_only_the_second_is_before_the_camera_when_both_are_judged(
    world: OnlineWorld, stolen: Plate, officer: Officer, home: Path
) -> None:
    eyes = officer.holds_up().appliance.parts.eyes
    officer.until(lambda: eyes.frame_s is not None)
    officer.press("right", "up", *presses(stolen.text))
    while isinstance(officer.page, st.Typing) and officer.page.kind != stolen.kind:
        officer.press("right")
    officer.press("ok")
    assert isinstance(officer.page, st.Accident)
    officer.scans(code_of(world))
    first = officer.shown.outcomes[0].result
    assert first.verdict.code is V.WANTED
    officer.until(lambda: bool(photo_records(home)))
    [record] = photo_records(home)
    assert (record["id"], record["name"], record["why"]) == (first.check_id, None, "no frame")


# -------------------------------------------------------------------------------------------------- parts of it


@pytest.fixture
def stop(world: OnlineWorld, stolen: Plate, tmp_path: Path) -> CheckResult:
    """A real one."""
    folder = home_of(world, tmp_path / "checks")
    with closing(Handset(world, folder, "http://127.0.0.1:1")) as handset:
        return handset.verifier.check(Observation(code=code_of(world, stolen).encode()))


Make = Callable[..., StopPhotos]


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def make(world: OnlineWorld, told: list[Event]) -> Make:
    def made(
        folder: Path,
        waiting: HeldPhotos,
        photograph: Callable[[], bytes] | None = None,
        now_s: Callable[[], float] = lambda: 0.0,
    ) -> StopPhotos:
        folder.mkdir(exist_ok=True)
        write_key(folder / "audit-key.pem")
        return StopPhotos(Home(folder), world.clock, waiting, photograph, told.append, now_s)

    return made


def keep(photos: StopPhotos, waiting: HeldPhotos, stop: CheckResult, picture: bytes) -> None:
    waiting.put(frozenset([b"code"]), picture)
    photos.judged(Observation(code=b"code"), stop, settled=True)


def test_a_photo_that_cannot_be_recorded_does_not_stay_on_the_card(
    tmp_path: Path, make: Make, stop: CheckResult, told: list[Event]
) -> None:
    waiting = HeldPhotos()
    photos = make(tmp_path / "device", waiting)
    (tmp_path / "device" / "audit.jsonl").mkdir()  # nothing can be appended to that
    keep(photos, waiting, stop, jpeg())
    photos.close()
    assert PhotoStore(tmp_path / "device" / "photos").photos() == []
    [fault] = told
    assert isinstance(fault, PartFault)
    assert fault.part == "photos"


def test_on_a_full_card_the_photo_of_a_code_takes_the_place_of_scenes_and_never_of_another_code(
    small_disk: Path, make: Make, stop: CheckResult, told: list[Event]
) -> None:
    waiting = HeldPhotos()
    photos = make(small_disk / "device", waiting, lambda: jpeg(200_000))
    for check in (Observation(), Observation(code=b"code"), Observation(), *[Observation(code=b"code")] * 5):
        if check.code:
            waiting.put(frozenset([b"code"]), jpeg(200_000))
        photos.judged(check, stop, settled=True)
        while not photos._asked.empty():
            pass
    photos.close()
    stored = PhotoStore(small_disk / "device" / "photos").photos()
    assert [photo.evidence for photo in stored] == [True] * 4
    asked = photo_records(small_disk / "device")
    assert [record.get("why") for record in asked] == [None] * 6 + ["not kept"] * 2
    assert [fault.problem for fault in told if isinstance(fault, PartFault)] == [
        "photo: cannot be kept: No space left on device"
    ]


def test_photos_that_a_slow_card_does_not_take_are_bounded_and_nobody_waits_for_it(
    tmp_path: Path, make: Make, stop: CheckResult, told: list[Event]
) -> None:
    gate = threading.Event()
    waiting = HeldPhotos()
    photos = make(tmp_path / "device", waiting, lambda: jpeg() if gate.wait(30) else b"")
    for _ in range(20):
        photos.judged(Observation(), stop, settled=True)
    assert [fault.problem for fault in told if isinstance(fault, PartFault)] == ["the card is too slow"]
    gate.set()
    photos.close()
    found = [record.get("why") for record in photo_records(tmp_path / "device")]
    assert (len(found), 1 <= found.count(None) <= 5) == (20, True), "each stop has a photo, or says why it has none"
    assert set(found) == {None, "not kept"}


def test_a_photo_of_the_scene_that_comes_too_late_is_not_taken_for_the_stops_and_never_reaches_the_card(
    tmp_path: Path, make: Make, stop: CheckResult
) -> None:
    """By then another driver stands there."""
    clock, asked = Clock(), list[bytes]()

    def photograph() -> bytes:
        asked.append(jpeg())
        clock.now_s += SCENE_S + 0.1
        return asked[-1]

    with closing(make(tmp_path / "device", HeldPhotos(), photograph, now_s=clock)) as photos:
        photos.judged(Observation(), stop, settled=True)
    assert ([record["why"] for record in photo_records(tmp_path / "device")], len(asked)) == (["no frame"], 1)
    assert PhotoStore(tmp_path / "device" / "photos").photos() == []


def test_of_two_cars_that_wait_for_the_centre_the_first_has_its_own_photo_too(
    tmp_path: Path, make: Make, stop: CheckResult
) -> None:
    waiting = HeldPhotos()
    caution = replace(stop, verdict=replace(stop.verdict, tone=Tone.CAUTION))
    with closing(make(tmp_path / "device", waiting, lambda: jpeg(5000))) as photos:
        for code, check_id in ((b"first", stop.check_id), (b"second", "0" * 32)):
            waiting.put(frozenset([code]), jpeg())
            photos.judged(Observation(code=code), replace(caution, check_id=check_id), settled=False)
        photos.late(stop, here=False)
    assert [record["of"] for record in photo_records(tmp_path / "device")] == ["code"]


@pytest.mark.parametrize("held_still", [True, False])
def test_a_stop_that_is_learnt_after_the_screen_was_left_has_the_photo_of_its_code_or_none(
    tmp_path: Path, make: Make, stop: CheckResult, held_still: bool
) -> None:
    waiting = HeldPhotos()
    caution = replace(stop, verdict=replace(stop.verdict, tone=Tone.CAUTION))
    with closing(make(tmp_path / "device", waiting, lambda: jpeg(5000))) as photos:
        waiting.put(frozenset([b"code"]), jpeg())
        photos.judged(Observation(code=b"code"), caution, settled=False)
        if not held_still:
            waiting.drop(b"code")
        photos.late(replace(stop, check_id="0" * 32), here=False)  # another check's
        photos.late(stop, here=False)
        photos.late(stop, here=False)  # twice the same answer is one photo
    folder = tmp_path / "device"
    (record,) = photo_records(folder)
    assert (record["of"] if held_still else record["why"]) == ("code" if held_still else "no frame")
    assert len(PhotoStore(folder / "photos").photos()) == held_still


def test_a_camera_that_gives_no_frame_in_time_is_named_in_the_record(
    tmp_path: Path, make: Make, stop: CheckResult
) -> None:
    with closing(make(tmp_path / "device", HeldPhotos(), lambda: b"")) as photos:
        photos.judged(Observation(), stop, settled=True)
    assert [record["why"] for record in photo_records(tmp_path / "device")] == ["no frame"]


class SlowCamera:
    """A scanner whose photos come when the test lets them, each with its number."""

    over = False

    def __init__(self) -> None:
        self.asked, self.events = 0, queue.SimpleQueue[ScanEvent]()
        self.events.put(Heartbeat(1, 1.0, None))

    def poll(self, timeout_s: float = 0.0) -> list[ScanEvent]:
        try:
            return [self.events.get(timeout=timeout_s or 0.001)]
        except queue.Empty:
            return []

    def photograph(self) -> int:
        self.asked += 1
        return self.asked

    def resume(self) -> None: ...

    def close(self) -> None: ...


def test_a_photo_that_comes_too_late_is_never_taken_for_a_later_one() -> None:
    camera, posted = SlowCamera(), list[Event]()
    with closing(Eyes(camera, posted.append)) as eyes:
        while eyes.frame_s is None:
            pass
        assert eyes.photograph(0.01) == b""
        camera.events.put(PhotoEvent(1, b"first"))
        assert eyes.photograph(0.2) == b""
        camera.events.put(PhotoEvent(3, b"third"))
        assert eyes.photograph(10) == b"third"
        assert eyes._wanted.photo == b""  # and is nowhere any more
        camera.events.put(FaultEvent(reason=FaultReason.MISSING, component="camera", problem="gone"))
        while not posted:
            pass
        asked = camera.asked
        assert eyes.photograph(10) == b""  # at once: there is no camera to wait for
        assert camera.asked == asked


def test_a_frame_waits_for_its_own_verdict_only_and_not_for_ever() -> None:
    clock = Clock()
    waiting = HeldPhotos(clock)
    waiting.put(frozenset([b"a", b"b"]), b"1")
    assert (waiting.photo(b"c"), waiting.photo(None)) == (b"", b"")
    waiting.drop(None)
    assert waiting.photo(b"b") == b"1"
    waiting.drop(b"b")
    assert waiting.photo(b"a") == b""
    for name in (b"a", b"b", b"c"):
        waiting.put(frozenset([name]), name)
    assert [waiting.photo(name) for name in (b"a", b"b", b"c")] == [b"", b"b", b"c"]
    clock.now_s += HELD_S
    waiting.put(frozenset([b"d"]), b"d")
    waiting.expire()
    assert [waiting.photo(name) for name in (b"b", b"c", b"d")] == [b"", b"", b"d"]
    waiting.put(frozenset([b"d"]), b"")  # read once more, and this time without a picture
    assert waiting.photo(b"d") == b""


def test_frames_on_which_the_scanner_died_are_sealed_too_and_plain_ones_of_before_go(tmp_path: Path) -> None:
    folder = tmp_path / "fault-frames"
    slot = os.memfd_create("slot")
    os.write(slot, (2).to_bytes(4, "big") * 2 + bytes([10, 20, 30, 40]))
    home = Home(tmp_path)
    plain = fault_frames(home, lambda: None)  # type: ignore[arg-type, return-value]
    assert plain is not None
    assert plain.save(slot, "HANG").suffix == ".png"  # type: ignore[union-attr]
    write_key(home.audit_key)
    sealed = fault_frames(home, lambda: None)  # type: ignore[arg-type, return-value]
    assert sealed is not None
    assert list(folder.iterdir()) == []
    path = sealed.save(slot, "CRASH")
    assert path is not None
    assert b"PNG" not in path.read_bytes()
    picture = cv2.imdecode(np.frombuffer(open_photo(PRIVATE, path.name, path.read_bytes()), np.uint8), -1)
    assert picture.tolist() == [[10, 20], [30, 40]]
    home.audit_key.write_text("no key")
    assert fault_frames(home, lambda: None) is None  # type: ignore[arg-type, return-value]
    os.close(slot)


def test_a_full_card_keeps_the_frames_it_has_and_no_half_of_one(small_disk: Path) -> None:
    slot = os.memfd_create("frame")
    os.pwrite(slot, FRAME_HEADER.pack(600, 600) + os.urandom(360_000), 0)
    frames = FaultFrames(small_disk / "fault-frames")
    kept = []
    while (path := frames.save(slot, "crash")) is not None:
        kept.append(path)
    os.close(slot)
    assert kept
    assert sorted((small_disk / "fault-frames").iterdir()) == kept


def test_the_program_keeps_photos_without_an_image_library() -> None:
    assert not loaded_by("firmware.stop_photos") & {"cv2", "numpy", "PIL"}
