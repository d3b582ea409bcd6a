"""A program that runs for days: its key has its time, and the centre's news reach it while it runs."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from firmware.config import Home
from firmware.keeper import held_file
from firmware.machine import states as st
from hw.rfid.emulator.scene import Tag
from scripts.demonstration.handheld import PROTOCOL, Parts
from scripts.demonstration.mirror import page_texts
from scripts.sandbox.republish import Republisher
from scripts.sandbox.server import serve as serve_files
from scripts.sandbox.tags import TagForm
from tests.centres import OLD, OnlineWorld
from tests.handhelds import Field
from tests.officer import Officer, children, home_of
from tests.status_world import World, make_world
from tests.test_appliance import NO_CAMERA, check_plate
from tests.test_checkpoint import Lanes, read_of
from tests.test_tags import NEW_TID
from tests.test_tags import World as TagWorld
from verifier.cache.store import StatusStore
from verifier.clock import system_clock
from verifier.epoch_key import LIFE, EpochKey, hold, is_in_memory
from verifier.hot_follow import EVERY_MS
from verifier.plates import display_text
from verifier.types import Month, Plate
from verifier.verdict import Tone, VerdictCode

V = VerdictCode


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory, where this test's programs hold their key."""
    folder = Path("/dev/shm") / f"markcheck-test-{os.getpid()}-in-use"  # noqa: S108
    if not is_in_memory(folder.parent):
        pytest.skip("no file system in memory here")
    monkeypatch.setenv("MARKCHECK_RUN", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def begin_shift(world: OnlineWorld, home: Path, memory: Path) -> datetime:
    """The key of the epoch for as long as a shift may have it."""
    (home / "epoch.key").unlink(missing_ok=True)
    path, until = held_file(Home(home), memory), world.clock() + LIFE
    assert path is not None
    memory.mkdir(mode=0o700, exist_ok=True)
    hold(path, EpochKey(key=world.authority.epoch_key, epoch=0, valid_until=until))
    return until


def stores_under_a_key(home: Path) -> int:
    """How many stores of this home are held by anybody, under a key that opens the data."""
    gc.collect()
    stores = [one for one in gc.get_objects() if isinstance(one, StatusStore) and one._root == home / "cache"]
    return sum(any(store._epoch_key) for store in stores)


def test_a_running_program_stops_using_a_key_whose_time_is_over_and_takes_the_next_one(
    tmp_path: Path, memory: Path
) -> None:
    world = OnlineWorld()
    with world.serving() as url:
        home = home_of(world, tmp_path / "home")
        (home / "online.toml").write_text(f'url = "{url}"\n')
        world.now = begin_shift(world, home, memory) - timedelta(minutes=1)
        officer = Officer(world, home, NO_CAMERA)
        try:
            plate = world.vehicle().plate
            assert check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
            assert "cache" not in officer.state.faults
            officer.press("back")
            world.now += timedelta(minutes=2)
            officer.until(lambda: "cache" in officer.asks().state.faults)
            assert held_file(Home(home), memory).exists() is False
            assert stores_under_a_key(home) == 0
            assert check_plate(officer, plate).verdict is V.UNDECIDED
            officer.press("back")
            begin_shift(world, home, memory)
            officer.until(lambda: "cache" not in officer.asks().state.faults)
            check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
        finally:
            officer.close()


def test_a_car_reported_stolen_at_the_centre_stops_at_a_running_handheld_within_two_minutes(
    tmp_path: Path, memory: Path
) -> None:
    """Publisher, web server, status server, program and its child are the real ones; the minute is leapt over."""
    centre = make_world(tmp_path / "world")
    republisher = Republisher(centre.live)
    centre.live.authority.publish()
    with centre.serving(), serve_files(centre.live.authority.store) as server:
        field = Field(centre, Home(tmp_path / "home"), memory)
        field.enrolled()
        field.home.root.write_bytes(centre.home.root_file.read_bytes())
        field.sync()
        field.keeper().begin_shift()
        settings = NO_CAMERA + f'[sync]\nsource = "{server.url}"\n'
        officer = Officer(SimpleNamespace(clock=system_clock), field.home.folder, settings)  # type: ignore[arg-type]
        try:
            plate = lawful_car(centre)
            fetched(officer, field.home)
            assert check_plate(officer, plate).shown.outcome.result.verdict.tone is not Tone.STOP
            officer.press("back")
            report_stolen(centre, plate)
            republisher.step()
            before, began = fetched(officer, field.home), officer.now_ms()
            officer.skip(EVERY_MS / 1000).until(lambda: fetched(officer, field.home) > before)
            assert officer.now_ms() - began < 120_000
            assert check_plate(officer, plate).verdict is V.WANTED
            assert officer.heard[-1] == "stop"
        finally:
            officer.close()
    assert not children("firmware.syncjob")


def fetched(officer: Officer, home: Home) -> int:
    """The number of the hot list in use, waited for."""
    with closing(StatusStore(home.cache, bytes(32))) as store:
        officer.until(lambda: store.info().hot_seq is not None)
        return store.info().hot_seq or 0


def lawful_car(centre: World) -> Plate:
    """A small car's plate with nothing against it."""
    vehicles = centre.live.authority.registry.vehicles
    return next(p for p, v in vehicles.items() if p.kind == "02" and not v.record().status - {"A"})


def report_stolen(centre: World, plate: Plate) -> None:
    """As 'markcheck sandbox event status' does, in another process."""
    event = {"event": "status", "plate": plate.text, "kind": plate.kind, "letters": "C"}
    centre.home.record(centre.home.open(clock=system_clock), event)


def test_a_reader_that_is_unplugged_is_a_banner_and_its_tags_come_back_with_it(tmp_path: Path) -> None:
    world = OnlineWorld()
    parts = Parts(tmp_path / "parts")
    settings = NO_CAMERA + f'[reader]\nport = "{parts.port}"\nprotocol = "{PROTOCOL}"\n'
    parts.plug(True)
    officer = Officer(world, home_of(world, tmp_path / "home"), settings)
    try:
        parts.hold_tags([Tag(epc=bytes(range(12)), tid=bytes.fromhex("e28011052000000000000001"))])
        officer.press("left").until(lambda: isinstance(officer.page, st.Tags) and bool(officer.page.tags))
        assert "reader" not in officer.state.faults
        parts.plug(False)
        officer.until(lambda: "reader" in officer.state.faults)
        parts.plug(True)
        officer.until(lambda: "reader" not in officer.state.faults)
        officer.until(lambda: isinstance(officer.page, st.Tags) and bool(officer.page.tags))
    finally:
        officer.close()
        parts.close()


def test_a_check_on_old_data_that_the_centre_corrects_later_is_corrected_in_the_history(tmp_path: Path) -> None:
    world = OnlineWorld()
    with world.serving() as url:
        home = home_of(world, tmp_path / "home")
        (home / "online.toml").write_text(f'url = "{url}"\nmode = "offline"\n')
        world.now += OLD
        officer = Officer(world, home, NO_CAMERA)
        try:
            plate = world.vehicle().plate
            assert check_plate(officer, plate).verdict is V.VALID_STALE
            officer.press("back")
            world.authority.registry.lapse(plate, Month(2026, 8))
            officer.appliance.parts.checks.use_network(st.Network.AUTO)
            officer.until(lambda: officer.state.history[0].result.verdict.code is V.EXPIRED)
            assert isinstance(officer.page, st.Ready)
        finally:
            officer.close()


def test_a_car_whose_tag_may_be_a_copy_is_never_called_valid_on_its_own_page_either(tmp_path: Path) -> None:
    """One EPC with two TIDs: by the register the car is in order, and the alarm says why that is not enough."""
    world = TagWorld(tmp_path)
    car, lanes = world.tagged[0], Lanes(world)
    tag = world.tag(car, TagForm.TC0)
    copy = tag._replace(tid=bytes.fromhex(NEW_TID))
    told = [*lanes.see(read_of(tag, 1.0, memory=True)), *lanes.see(read_of(copy, 1.2, memory=True))]
    world.device.store.close()
    officer = Officer(SimpleNamespace(clock=lambda: world.now), world.home.folder, NO_CAMERA)  # type: ignore[arg-type]
    try:
        officer.hold("ok").until(lambda: isinstance(officer.page, st.Menu))
        while officer.page.cursor != officer.program.state.menu.index(st.MenuItem.CHECKPOINT):  # type: ignore[union-attr]
            officer.press("down")
        officer.press("ok")
        for event in told:
            officer.program.post(event)
        officer.until(lambda: isinstance(officer.page, st.Checkpoint) and officer.page.alarms == 1)
        assert officer.heard[-1] == "caution"
        pages = [page_texts(officer.state, world.now)]
        officer.press("ok", "back", "down", "ok").until(lambda: isinstance(officer.page, st.Shown))
        pages.append(page_texts(officer.state, world.now))
        assert (officer.verdict, officer.shown.outcome.result.verdict.tone) == (V.VALID, Tone.CAUTION)
        assert all({display_text(car.plate), "标识鉴权失败"} <= set(words) for words in pages)
        assert "存疑" in pages[1]
        assert not any({"有效", "检验有效"} & set(words) for words in pages)
    finally:
        officer.close()
