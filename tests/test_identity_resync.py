"""A full resync: everything anew, nothing older, and what is held serves until the new set is complete."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from scripts.cli.main import main
from scripts.sandbox.folder_store import MemoryFetcher
from tests.nightly import EPOCH_KEY, Device, Night, fleet, record
from tests.syncing import PowerCut, cut_at
from verifier.cache.store import StatusStore
from verifier.cache.swap import exclusive
from verifier.errors import FetchError, RollbackError, SyncBusyError, SyncError
from verifier.resync import resync
from verifier.sync import SyncClient, sync_history
from verifier.sync_report import SyncOutcome, SyncReport

CAR = fleet(1)[0][0].plate


@pytest.fixture
def device(tmp_path: Path) -> Device:
    night = Night(vehicles=fleet(60))
    night.publish()
    made = night.device(tmp_path / "cache")
    made.client().refresh()
    return made


def full(device: Device, on_step=lambda _name: None, **options) -> SyncReport:
    def client(root: Path) -> SyncClient:
        made = device.night.device(root)
        return made.client(**options)

    return resync(device.root, client, on_step)


def answers(device: Device) -> bool:
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        return store.vehicle(CAR) == record(CAR)


def test_everything_is_fetched_anew_and_takes_the_place_of_what_was_held(device: Device):
    plain = device.client().refresh()
    assert plain.outcome is SyncOutcome.FRESH
    held = (device.root / "current").readlink()
    base = (device.root / "current" / "base.db").stat().st_ino
    report = full(device)
    assert report.outcome is SyncOutcome.SNAPSHOT
    assert report.bytes_fetched > plain.bytes_fetched + device.root.joinpath("current", "base.db").stat().st_size
    assert (device.root / "current").readlink() != held
    assert (device.root / "current" / "base.db").stat().st_ino != base
    assert answers(device)
    assert sync_history(device.root).last_good == device.night.clock()
    assert sorted(p.name for p in (device.root / "gen").iterdir()) == [(device.root / "current").readlink().name]
    assert not (device.root / "full.new").exists()
    assert device.client().refresh().outcome is SyncOutcome.FRESH


def test_a_full_resync_that_fails_leaves_what_is_held_in_use(device: Device):
    held = (device.root / "current").readlink()
    without = {path: data for path, data in device.night.store.items() if not path.startswith("chunk/")}
    with pytest.raises(FetchError):
        full(device, fetcher=MemoryFetcher(without))
    assert (device.root / "current").readlink() == held
    assert sync_history(device.root).last_failure is not None
    assert answers(device)
    assert not (device.root / "full.new").exists()


def test_a_full_resync_takes_nothing_older_than_was_accepted(device: Device):
    old = dict(device.night.store)
    device.night.clock.move(hours=20)
    device.night.publish()
    device.client().refresh()
    with pytest.raises(SyncError) as caught:
        full(device, fetcher=MemoryFetcher(old))
    assert isinstance(caught.value, RollbackError) or "older" in str(caught.value) or "version" in str(caught.value)
    assert device.client().refresh().outcome is SyncOutcome.FRESH


@pytest.mark.parametrize("step", ["before-rename", "after-rename", "before-symlink", "after-symlink"])
def test_a_cut_leaves_a_whole_set_and_the_next_sync_succeeds(device: Device, step: str):
    with pytest.raises(PowerCut):
        full(device, cut_at(step))
    assert answers(device)
    assert device.client().refresh().outcome is SyncOutcome.FRESH
    assert full(device).outcome is SyncOutcome.SNAPSHOT
    assert answers(device)


def test_a_new_device_gets_its_first_set_by_it(tmp_path: Path):
    night = Night(vehicles=fleet(60))
    night.publish()
    device = night.device(tmp_path / "cache")
    assert full(device).seq_before is None
    assert answers(device)


def test_it_repairs_a_set_of_which_little_is_left(device: Device):
    (device.root / "current" / "index.cbor").unlink()
    (device.root / "current" / "base.db").write_bytes(b"rotten")
    full(device)
    assert answers(device)


def test_a_sync_at_the_same_time_turns_it_away(device: Device):
    with exclusive(device.root), pytest.raises(SyncBusyError):
        full(device)


def test_by_command_it_needs_a_yes(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    line = ["sync", "--from", str(tmp_path), "--full", "--home", str(tmp_path)]
    assert main(line) == 2
    assert "--yes" in capsys.readouterr().err
