"""The list of a place: what a checkpoint there looks for, as a region of the distribution like any other."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firmware.build import build_device
from firmware.checkpoint import Checkpoint
from firmware.config import Home
from firmware.machine.events import Alarm, Passed
from firmware.settings import read_settings
from firmware.syncjob import sync
from hw.rfid.emulator.scene import Radio, lane_scene
from scripts.bench.lane import BEGAN, FORMS, Lane, Traffic, simulate
from scripts.cli.main import main
from scripts.sandbox.authority import AuthorityFolder, new_authority
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.hot import HotRows
from scripts.sandbox.nightly import PublicationError
from scripts.sandbox.regions import region_of
from scripts.sandbox.tags import TagForm, bind_tag
from tests.test_checkpoint import read_of
from verifier.cache.store import StatusStore
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.types import Month, Plate, PlateSeen, StatusLetter, VehicleRecord
from verifier.verdict import Tone, VerdictCode

LIST = region_of("overdue_川A")
MONTH = Month.at(BEGAN)


class World:
    """An authority whose vehicles all have tags, and a device that holds the list of 川A alone."""

    def __init__(self, folder: Path) -> None:
        self.now = BEGAN
        self.store: dict[str, bytes] = {}
        self.authority = new_authority(self.store, clock=lambda: self.now, scale=400, seed=21)
        registry = self.authority.registry
        for vehicle in list(registry.vehicles.values()):
            if vehicle.tid is None:
                bind_tag(registry, vehicle.plate, f"E2801170{vehicle.number:016X}")
            registry.set_status(vehicle.plate, "A")
            if vehicle.valid_until < MONTH.plus(1):
                registry.renew(vehicle.plate, MONTH.plus(6))
        everyone = [v for v in registry.vehicles.values() if v.plate.kind == "02"]
        self.here = [v for v in everyone if v.plate.text.startswith("川A")]
        self.elsewhere = [v for v in everyone if not v.plate.text.startswith("川")]
        self.home = Home(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_secret(self.home.epoch_key, self.authority.epoch_key.hex().encode())

    @property
    def client(self) -> SyncClient:
        root = self.authority.publisher.root_bytes()
        fetcher, key = MemoryFetcher(self.store), self.authority.epoch_key
        return SyncClient(self.home.cache, fetcher, lambda: self.now, root, LIST.name, epoch_key=key)

    def publish(self) -> None:
        self.authority.publish(region=LIST)
        self.client.refresh()

    def lapse(self, *vehicles: Vehicle) -> None:
        for vehicle in vehicles:
            self.authority.registry.lapse(vehicle.plate, MONTH.plus(-2))

    def passes(self, vehicle: Vehicle, form: TagForm = TagForm.TC0) -> Alarm | Passed:
        """What the handheld's checkpoint tells of this vehicle."""
        with closing((device := build_device(self.home, lambda: self.now)).store):
            verifier = device.verifier
            lanes = Checkpoint(verifier.check, verifier.look_at, with_memory=form is TagForm.TC1)
            (told,) = lanes.see(read_of(self.authority.tag(vehicle.plate, form), 1.0, memory=form is TagForm.TC1))
        return told

    def code_of(self, vehicle: Vehicle) -> VerdictCode:
        """The verdict on its plate, seen and confirmed by the officer."""
        with closing((device := build_device(self.home, lambda: self.now)).store):
            seen = PlateSeen(plate=vehicle.plate, confirmed=True)
            return device.verifier.check(Observation(plate_seen=seen)).verdict.code


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "device")


@pytest.mark.parametrize("protocol", FORMS)
def test_a_checkpoint_with_the_list_of_its_place_alarms_for_its_overdue_and_all_wanted_vehicles_alone(world, protocol):
    overdue, stolen, foreign = world.here[:3], world.elsewhere[0], world.elsewhere[1:4]
    world.lapse(*overdue, *foreign)
    world.authority.registry.set_status(stolen.plate, "C")
    world.publish()
    in_order = [*world.here[3:8], *world.elsewhere[4:20]]
    tags = {v: world.authority.tag(v.plate, FORMS[protocol]) for v in (*foreign, *overdue, stolen, *in_order)}
    identities = [(tag.tid, tag.epc, tag.user) for tag in tags.values()]
    radio = Radio(read_probability=0.7)
    scene = lane_scene(identities, lanes=4, vehicles=len(tags), speed_kmh=60.0, seed=3, radio=radio)
    run = simulate(Lane(Traffic(), scene, {}, frozenset(), {}, {}, world.home), protocol)
    assert set(run.checked) == {tag.epc for tag in tags.values()}
    assert run.faults == []
    assert set(run.alarms) == {tags[v].epc for v in (*overdue, stolen)}
    words = {VerdictCode.EXPIRED_UNCONFIRMED.value: set(overdue), VerdictCode.WATCH_CONFIRM.value: {stolen}}
    assert all(run.words[tags[v].epc] == word for word, vehicles in words.items() for v in vehicles)


def test_an_old_list_asks_the_officer_to_check_and_is_never_red(world):
    world.lapse(world.here[0])
    world.publish()
    assert world.code_of(world.here[0]) is VerdictCode.EXPIRED
    for age in (timedelta(hours=27), timedelta(days=8), timedelta(days=400)):
        world.now = BEGAN + age
        told = world.passes(world.here[0])
        assert isinstance(told, Alarm)
        assert (told.result.verdict.code, told.result.verdict.tone) == (VerdictCode.EXPIRED_UNCONFIRMED, Tone.CAUTION)
        assert world.code_of(world.here[0]) is VerdictCode.EXPIRED_UNCONFIRMED


def test_who_was_inspected_this_morning_passes_in_silence_by_the_lists_own_hot_list(world):
    world.lapse(world.here[0], world.here[1])
    world.publish()
    assert isinstance(world.passes(world.here[0]), Alarm)
    world.authority.registry.renew(world.here[0].plate, MONTH.plus(24))
    world.now += timedelta(minutes=10)
    world.authority.publish_hot(region=LIST)
    world.client.refresh_hot()
    assert world.passes(world.here[0]) == Passed(1)
    assert isinstance(world.passes(world.here[1]), Alarm)


def test_what_was_read_before_a_night_came_is_not_laid_over_it_and_a_hot_list_is_as_old_as_its_reading(world):
    vehicle, publisher = world.here[0], world.authority.publisher.of_region(LIST.name)
    world.publish()
    world.lapse(vehicle)

    def read() -> HotRows:
        rows = world.authority._records(LIST)
        return publisher.hot_changes(vehicles=rows, epoch_key=world.authority.epoch_key, key_epoch=1)

    early = read()
    world.now += timedelta(minutes=4)
    assert publisher.publish_hot(early, world.authority.epoch_key).issued_at == BEGAN
    world.authority.registry.renew(vehicle.plate, MONTH.plus(24))
    world.publish()
    with pytest.raises(PublicationError, match="meanwhile"):
        publisher.publish_hot(early, world.authority.epoch_key)
    world.client.refresh_hot()
    assert world.code_of(vehicle) is VerdictCode.UNDECIDED


def test_that_a_vehicle_is_not_on_the_list_says_nothing_good_of_it(world):
    world.lapse(world.here[0], world.elsewhere[0])
    world.publish()
    assert world.code_of(world.elsewhere[0]) is VerdictCode.UNDECIDED
    assert world.code_of(world.here[1]) is VerdictCode.UNDECIDED


def test_an_empty_list_is_published_and_alarms_for_nobody(world):
    world.publish()
    assert world.passes(world.here[0]) == Passed(1)


def test_at_the_turn_of_a_month_the_list_grows_by_all_who_fell_due_and_is_published(world, monkeypatch):
    """It is measured by all vehicles of the place: by its own length it would be refused."""
    monkeypatch.setattr("scripts.sandbox.nightly.SMALL", 0)
    monkeypatch.setattr("scripts.sandbox.nightly.LARGEST_SHARE", 2)  # of the place's 19 vehicles
    world.lapse(world.here[0])
    world.publish()
    due = world.here[1:8]
    for vehicle in due:
        world.authority.registry.renew(vehicle.plate, MONTH)
    world.publish()
    assert all(world.passes(vehicle) == Passed(1) for vehicle in due)
    world.now = datetime(2026, 12, 1, 2, tzinfo=UTC)
    world.publish()
    assert all(isinstance(world.passes(vehicle), Alarm) for vehicle in (world.here[0], *due))


def test_a_mistake_that_makes_a_whole_place_overdue_overnight_reddens_nobody(world, monkeypatch):
    monkeypatch.setattr("scripts.sandbox.nightly.SMALL", 0)
    world.lapse(world.here[0])
    world.publish()
    for vehicle in world.here:
        world.authority.registry.set_status(vehicle.plate, "AQ")
    for options in ({}, {"snapshot": True}):
        with pytest.raises(PublicationError, match="not published"):
            world.authority.publish(region=LIST, **options)
    world.client.refresh()
    assert world.code_of(world.here[1]) is VerdictCode.UNDECIDED
    world.authority.publish(region=LIST, accept_large=True)
    world.client.refresh()
    assert world.code_of(world.here[1]) is VerdictCode.EXPIRED


def test_the_folder_is_pruned_of_nothing_that_the_list_still_needs(world):
    world.lapse(world.here[0])
    world.authority.publish()
    world.publish()
    assert world.authority.publisher.prune() == []
    world.now += timedelta(days=1)
    assert world.client.refresh().vehicles == 1


def test_a_place_is_named_by_its_plates_or_by_their_sound() -> None:
    assert region_of("overdue_chuan_a") == LIST
    assert (LIST.name, LIST.overdue) == ("overdue_chuan_a", "川A")
    assert region_of("overdue_川") == region_of("overdue_chuan")
    for bad in ("overdue_", "overdue_X", "overdue_川I", "overdue_chuan_", "overdue_chuan_A", "overdue_chuana", "川A"):
        with pytest.raises(ValueError, match="no such"):
            region_of(bad)


@pytest.mark.parametrize(
    ("letters", "until", "held"),
    [
        ("A", Month(2026, 11), False), ("A", Month(2026, 10), True), ("AQ", Month(2026, 12), True),
        ("A", None, False), ("Q", None, True),
    ],
)  # fmt: skip
def test_a_vehicle_is_on_the_list_from_the_month_after_its_last_one(letters, until, held):
    record = VehicleRecord(
        plate=Plate("川A12345", "02"), status=frozenset(map(StatusLetter, letters)), inspection_valid_until=until,
        ecred_issued=True, ctp_until=None,
    )  # fmt: skip
    assert LIST.holds(record, Month(2026, 11)) is held
    assert not region_of("overdue_川B").holds(record, Month(2026, 11))


def test_a_handheld_takes_the_list_that_its_settings_name(tmp_path, capsys):
    folder = AuthorityFolder(tmp_path / "sandbox")
    line = ["sandbox", "publish", "--folder", str(folder.folder), "--scale", "2000", "--seed", "5"]
    assert main([*line, "--region", "overdue_川A"]) == 0
    assert "of overdue_chuan_a" in capsys.readouterr().err
    home = Home(tmp_path / "device")
    home.folder.mkdir()
    write_secret(home.epoch_key, folder.epoch_key_file.read_bytes())
    home.root.write_bytes(folder.root_file.read_bytes())
    settings = read_settings('[sync]\nregion = "overdue_chuan_a"\n')
    assert sync(home, str(folder.public), settings.sync.region).kind == "done"
    month = Month.at(system_clock())
    listed = [v for v in folder.open(clock=system_clock).registry.vehicles.values() if LIST.holds(v.record(), month)]
    with closing(StatusStore(home.cache, bytes.fromhex(home.epoch_key.read_text()))) as store:
        assert (store.info().region, store.info().scope, store.info().vehicles) == (LIST.name, "overdue", len(listed))
        assert listed
        assert all(store.vehicle(v.plate) is not None for v in listed)
