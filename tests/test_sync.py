"""The sync by snapshots: whatever happens, the set in use stays whole, and the next run succeeds."""

from __future__ import annotations

import fcntl
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, TargetFile  # type: ignore[attr-defined]

from scripts.sandbox.folder_store import FolderStore, MemoryFetcher
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_data import RegionData
from scripts.sandbox.publisher_keys import PublisherKeys
from tests.nightly import BEGAN, EPOCH_KEY, Device, FakeClock, Night, Unguarded, fleet, trust_list
from tests.syncing import (
    SPOIL,
    Breaking,
    Dead,
    PowerCut,
    chunk_count,
    copy_of,
    cut_at,
    device_behind,
    first_night,
    index_of,
    index_path,
    killed_at,
    publish_seed,
    recovers,
    refused,
    seed_in_use,
    steps_of,
)
from verifier.cache.marks import read_clock
from verifier.cache.store import StatusStore
from verifier.clock import Ticks
from verifier.codec.index import BaseEntry, decode_index, encode_index
from verifier.errors import DigestError, FetchError, NotFoundError, RollbackError, SyncBusyError, SyncError
from verifier.policy import load_policy
from verifier.repository import ExpiredError, SignatureError
from verifier.snapshot import ClientTooOldError, NoSpaceError
from verifier.sync import SyncClient, sync_history
from verifier.sync_report import StorageError, SyncOutcome
from verifier.trust import load_trust_list
from verifier.trusted_time import TrustedTime

STEPS = (
    "verified", "downloaded", "written", "before-rename", "after-rename", "before-accept", "after-accept",
    "before-symlink", "after-symlink", "before-marks", "after-marks",
)  # fmt: skip


@pytest.fixture
def night() -> Night:
    return first_night(nights=0, made_by=Unguarded)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """What no test changes."""
    return device_behind(first_night(nights=0, made_by=Unguarded), tmp_path_factory.mktemp("behind") / "cache")


@pytest.fixture
def device(behind: Device, tmp_path: Path) -> Device:
    return copy_of(behind, tmp_path / "cache")


# ------------------------------------------------------------------------------------------ the good road


def test_first_sync_takes_a_snapshot(night: Night, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    device = night.device(tmp_path)
    report = device.client(progress=lambda *args: told.append(args)).refresh()
    assert report.outcome is SyncOutcome.SNAPSHOT
    assert (report.region, report.seq_before, report.seq_after) == ("national", None, 1)
    assert (report.vehicles, report.as_of, report.notes) == (120, BEGAN, ())
    assert report.requests == len(device.fetcher.requests)
    assert report.bytes_fetched > 20_000
    assert seed_in_use(device) == 0
    downloads = [(done, whole) for step, done, whole in told if step == "download"]
    assert downloads[-1][0] == downloads[-1][1]
    assert sorted(downloads) == downloads


def test_nothing_new_costs_two_requests(device: Device) -> None:
    device.client().refresh()
    device.fetcher.requests.clear()
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.FRESH, 2, 2)
    assert device.fetcher.requests == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert report.bytes_fetched < 1024
    assert sync_history(device.root).last_good == device.night.clock()


def test_a_second_night(device: Device) -> None:
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.SNAPSHOT, 1, 2)
    assert seed_in_use(device) == 1
    recovers(device)


def test_an_unchanged_status_list_is_not_fetched_again(device: Device) -> None:
    device.client().refresh()
    device.night.publish()
    device.fetcher.requests.clear()
    device.client().refresh()
    assert not [path for path in device.fetcher.requests if path.startswith(("tsl", "targets/trust", "targets/policy"))]


def test_a_new_trust_list_alone_makes_a_generation_without_a_download(device: Device) -> None:
    device.client().refresh()
    inode = (device.root / "current" / "base.db").stat().st_ino
    name = (device.root / "current").readlink()
    device.night.publisher.publish_trust(
        entries=trust_list(9),
        trust_version=3,
        policy=(device.root / "current/policy.json").read_bytes(),
        policy_version=2,
    )
    device.fetcher.requests.clear()
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.DELTAS, 2, 2)
    assert (device.root / "current").readlink() != name
    assert (device.root / "current" / "base.db").stat().st_ino == inode
    assert not [path for path in device.fetcher.requests if path.startswith(("chunk", "tsl", "targets/nightly"))]
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        assert len(load_trust_list(store.trust_entries()).keys) == 9


def test_regions_share_a_repository_and_a_device_may_change_its_region(device: Device, tmp_path: Path) -> None:
    device.night.publisher.save_keys(tmp_path / "keys")
    keys = PublisherKeys.load(tmp_path / "keys")
    device.night.publisher = Publisher(device.night.store, device.night.clock, "beijing", keys=keys, chunk=4096)
    publish_seed(device.night, 0)
    device.night.region = "beijing"
    report = device.client().refresh()
    assert (report.region, report.seq_before, report.seq_after) == ("beijing", None, 1)
    assert seed_in_use(device) == 0
    device.night.region = "national"
    publish_seed(device.night, 1)  # by the publisher of the other region: the trust list is everybody's
    assert device.client().refresh().seq_after == 2


def test_a_region_that_is_not_published(device: Device) -> None:
    device.night.region = "tibet"
    assert "nightly/tibet/index.cbor" in refused(device, SyncError)


def test_publisher_goes_on_in_another_process(tmp_path: Path) -> None:
    clock = FakeClock()
    folder = FolderStore(tmp_path / "public")
    night = Night(store=folder, clock=clock)
    publish_seed(night, 0)
    night.publisher.save_keys(tmp_path / "keys")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    device = night.device(tmp_path / "cache")
    device.client().refresh()
    with pytest.raises(ValueError, match="keys"):
        Publisher(folder, clock, chunk=4096)
    night.publisher = Publisher(folder, clock, keys=PublisherKeys.load(tmp_path / "keys"), chunk=4096)
    publish_seed(night, 1)
    assert device.client().refresh().seq_after == 2
    assert seed_in_use(device) == 1
    with pytest.raises(ValueError, match="not those"):
        Publisher(folder, clock, keys=PublisherKeys.generate("national"))


# ---------------------------------------------------------------------------------------------- resuming


def test_a_broken_download_fetches_only_what_is_missing(device: Device) -> None:
    total = len(index_of(device.night).base.hashes)
    part = total * 6 // 10
    refused(device, FetchError, fetcher=Breaking(device.fetcher, part))
    device.fetcher.requests.clear()
    recovers(device)
    assert chunk_count(device) == total - part


@pytest.mark.parametrize("damage", ["cut", "flip", "longer"])
def test_a_partial_file_is_verified_before_it_is_used(device: Device, damage: str) -> None:
    refused(device, FetchError, fetcher=Breaking(device.fetcher, 5))
    (part,) = (device.root / "stage").iterdir()
    data = part.read_bytes()
    spoiled = {"cut": data[:-100], "flip": data[:9000] + b"x" + data[9001:], "longer": data + b"more"}[damage]
    part.write_bytes(spoiled)
    device.fetcher.requests.clear()
    recovers(device)
    kept = {"cut": 4, "flip": 2, "longer": 5}[damage]
    assert chunk_count(device) == len(index_of(device.night).base.hashes) - kept


def test_a_new_publication_while_downloading_drops_the_old_part(device: Device) -> None:
    refused(device, FetchError, fetcher=Breaking(device.fetcher, 5))
    publish_seed(device.night, 2)
    recovers(device, seed=2)


# -------------------------------------------------------------------------------- tampering and old stands


def objects(night: Night) -> dict[str, str]:
    """One path of each kind of object that the second sync fetches."""
    index = index_of(night)
    chunk = index.base.hashes[3].hex()
    entries = sorted(path for path in night.store if path.startswith("targets/trust/"))
    return {
        "chunk": f"chunk/{chunk[:2]}/{chunk}",
        "index": index_path(night),
        "tsl": f"tsl/national/{index.tsl.sha256.hex()}",
        "entries": next(p for p in entries if night.store[p] == trust_list(7)),
        "policy": next(p for p in night.store if p.startswith("targets/policy/") and b'"version": 2' in night.store[p]),
        "timestamp": "metadata/timestamp.json",
        "snapshot": "metadata/2.snapshot.json",
        "targets": "metadata/2.targets.json",
        "nightly": "metadata/2.nightly-national.json",
    }


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize(
    "what", ["chunk", "index", "tsl", "entries", "policy", "timestamp", "snapshot", "targets", "nightly"]
)
def test_spoiled_objects_are_refused_and_old_data_kept(device: Device, what: str, how: str) -> None:
    path = objects(device.night)[what]
    store = dict(device.night.store)
    store[path] = SPOIL[how](store[path])
    refused(device, SyncError, fetcher=MemoryFetcher(store))
    recovers(device)


@pytest.mark.parametrize(
    "what", ["chunk", "index", "tsl", "entries", "policy", "timestamp", "snapshot", "targets", "nightly"]
)
def test_absent_objects_are_refused_and_old_data_kept(device: Device, what: str) -> None:
    store = dict(device.night.store)
    del store[objects(device.night)[what]]
    refused(device, NotFoundError, fetcher=MemoryFetcher(store))
    recovers(device)


@pytest.mark.parametrize("lost", [(), ("trust",), ("state.db",)])
def test_an_old_publication_is_refused(night: Night, tmp_path: Path, lost: tuple[str, ...]) -> None:
    old = dict(night.store)
    night.clock.move(hours=12)  # the old timestamp is still good for another 36 hours
    publish_seed(night, 1)
    device = night.device(tmp_path)
    device.client().refresh()
    for name in lost:
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RollbackError):
        device.client(fetcher=MemoryFetcher(old)).refresh()
    assert seed_in_use(device) == 1
    device.client().refresh()
    assert seed_in_use(device) == 1


def test_lost_marks_are_rebuilt_from_the_set_in_use(device: Device) -> None:
    (device.root / "state.db").write_bytes(b"no database at all" * 99)
    report = device.client().refresh()
    assert any("state.db" in note for note in report.notes)
    assert seed_in_use(device) == 1


def test_two_contents_under_one_number_are_refused(device: Device) -> None:
    device.client().refresh()
    # A second publisher with the same keys signs other data under a number that was accepted.
    keys = device.root.parent / "keys"
    device.night.publisher.save_keys(keys)
    store = {path: data for path, data in device.night.store.items() if "nightly" not in path}
    twin = Night(store=store, clock=device.night.clock, publisher_keys=PublisherKeys.load(keys))
    twin.clock.move(hours=1)
    publish_seed(twin, 0)
    publish_seed(twin, 1)
    shutil.rmtree(device.root / "trust")
    with pytest.raises(RollbackError, match="other contents"):
        device.client(fetcher=MemoryFetcher(store)).refresh()
    assert seed_in_use(device) == 1


def test_another_publisher_is_not_believed(device: Device) -> None:
    other = Night(clock=device.night.clock)
    publish_seed(other, 0)
    publish_seed(other, 1)
    with pytest.raises((SignatureError, RollbackError)):
        device.client(fetcher=MemoryFetcher(other.store)).refresh()
    shutil.rmtree(device.root / "trust")
    assert "signature" in refused(device, SignatureError, fetcher=MemoryFetcher(other.store))
    recovers(device)


def test_the_nightly_key_cannot_sign_the_trust_list(device: Device) -> None:
    night, store = device.night, dict(device.night.store)
    metadata: Metadata[Any] = Metadata.from_bytes(store["metadata/2.targets.json"])
    forged = TargetFile.from_data("trust/entries.cbor", trust_list(1, seed=9), ["sha256"])
    metadata.signed.targets["trust/entries.cbor"] = forged
    metadata.sign(night.publisher._keys["nightly-national"])
    store["metadata/2.targets.json"] = metadata.to_bytes()
    refused(device, SyncError, fetcher=MemoryFetcher(store))
    recovers(device)


def test_a_publication_for_newer_programs_is_refused(device: Device) -> None:
    device.night.publish(min_client=99)
    refused(device, ClientTooOldError)


@pytest.mark.parametrize("damage", [None, b"", b"no database at all" * 99])
def test_looking_at_the_history_changes_nothing(device: Device, damage: bytes | None) -> None:
    path = device.root / "state.db"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    before = {p: p.stat().st_mtime_ns for p in (device.root, *device.root.iterdir())}
    history = sync_history(device.root)
    unreadable = None if damage is None else "the state file cannot be read"
    assert (history.last_good, history.last_failure, history.last_failure_at) == (None, unreadable, None)
    assert {p: p.stat().st_mtime_ns for p in (device.root, *device.root.iterdir())} == before
    assert any("state.db was lost" in note for note in device.client().refresh().notes)
    assert sync_history(device.root).last_good == device.night.clock()


def test_a_history_of_another_form_cannot_be_read(device: Device) -> None:
    with closing(sqlite3.connect(device.root / "state.db")) as connection, connection:
        connection.execute("UPDATE marks SET value = 'yesterday' WHERE name = 'last_good'")
    assert sync_history(device.root).last_failure == "the state file cannot be read"


def test_a_device_that_never_synced_has_no_history(tmp_path: Path) -> None:
    history = sync_history(tmp_path / "none")
    assert (history.last_good, history.last_failure) == (None, None)
    assert not (tmp_path / "none").exists()


# ----------------------------------------------------------------------------------- clock and dead servers


def test_a_dead_server_leaves_the_set_in_use(device: Device) -> None:
    assert "metadata" in refused(device, FetchError, fetcher=Dead())
    recovers(device)


def test_a_dead_publisher_leaves_the_set_in_use(device: Device) -> None:
    device.night.clock.move(hours=49)
    assert "expired" in refused(device, ExpiredError)
    device.night.publisher.renew()
    recovers(device)


def test_a_clock_far_ahead_is_an_expiry_error(device: Device) -> None:
    device.night.clock.move(days=400)
    refused(device, ExpiredError)
    device.night.clock.move(days=-400)
    recovers(device)


def test_a_clock_behind_signed_time_is_replaced_by_it(device: Device) -> None:
    device.client().refresh()
    device.night.clock.now = BEGAN - timedelta(days=5000)
    report = device.client().refresh()
    assert any("clock" in note for note in report.notes)
    # With the floor of signed time, metadata that have expired stay expired.
    device.night.clock.now = BEGAN + timedelta(hours=24)
    old = dict(device.night.store)
    device.night.clock.move(days=10)
    publish_seed(device.night, 2)
    device.client().refresh()
    shutil.rmtree(device.root / "trust")
    device.night.clock.now = BEGAN
    with pytest.raises(ExpiredError):
        device.client(fetcher=MemoryFetcher(old)).refresh()
    assert seed_in_use(device) == 2


def test_signed_times_are_taken_note_of(device: Device) -> None:
    time = TrustedTime(device.root / "state.db", device.night.clock, lambda: Ticks("boot", 0.0))
    device.client(trusted_time=time).refresh()
    known = read_clock(device.root / "state.db")
    assert known is not None
    assert known.signed == known.floor == device.night.clock()
    assert time.doubts(device.night.clock()) == ()
    device.night.clock.move(hours=49)
    time.heard(device.night.clock() - timedelta(hours=49))
    with pytest.raises(ExpiredError, match="have expired.*; clock: it ran ahead") as caught:
        device.client(trusted_time=time).refresh()
    assert str(caught.value).count("\n") == 0


# --------------------------------------------------------------------------------- trust list and policy


@pytest.mark.parametrize("name", ["entries.cbor", "policy.json"])
def test_a_file_altered_on_the_card_is_not_kept_in_place_of_a_refused_one(device: Device, name: str) -> None:
    altered = {"entries.cbor": trust_list(6, seed=9), "policy.json": b'{"altered": true}'}[name]
    (device.root / "current" / name).write_bytes(altered)
    device.night.publish(entries=b"\x80nonsense", policy=b"{}")
    with pytest.raises(SyncError, match="refused"):
        device.client().refresh()
    assert len(list((device.root / "gen").iterdir())) == 1
    publish_seed(device.night, 3)
    recovers(device, seed=3)


def test_a_truncated_base_does_not_cost_the_trust_list(device: Device) -> None:
    (device.root / "current" / "base.db").write_bytes(b"")
    device.night.publish(entries=trust_list(1, seed=9))
    assert any("trust list refused" in note for note in device.client().refresh().notes)
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        assert store.trust_entries() == trust_list(6)


def test_a_number_altered_on_the_card_is_no_mark(device: Device) -> None:
    path = device.root / "current" / "index.cbor"
    path.write_bytes(encode_index(replace(decode_index(path.read_bytes()), seq=1 << 30)))
    recovers(device)


@pytest.mark.parametrize(("keys", "kept"), [(0, True), (2, True), (3, False), (6, False), (40, False)])
def test_a_trust_list_that_shrinks_too_far_is_not_taken(night: Night, tmp_path: Path, keys: int, kept: bool) -> None:
    device = night.device(tmp_path)
    device.client().refresh()
    night.publish(entries=trust_list(keys, seed=5), trust_version=2, vehicles=fleet(50, seed=1))
    report = device.client().refresh()
    assert report.seq_after == 2  # the vehicles are taken all the same
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert len(load_trust_list(store.trust_entries()).keys) == (6 if kept else keys)
        assert store.vehicle(fleet(1)[0][0].plate) == fleet(1, seed=1)[0][0]
    assert bool(report.notes) == kept
    if kept:
        assert "trust list refused, the old one stays" in report.notes[0]
        assert device.client().refresh().outcome is SyncOutcome.FRESH
        night.publish(entries=trust_list(5), trust_version=3)
        assert not device.client().refresh().notes


def test_a_kept_trust_list_keeps_its_own_date(device: Device) -> None:
    """R18 goes by the list's date: refused night after night, it grows old although the vehicles are of today."""

    def dates() -> tuple[datetime, datetime]:
        with closing(StatusStore(device.root, EPOCH_KEY)) as store:
            info = store.info()
        return info.as_of, info.trust_as_of

    assert dates() == (BEGAN, BEGAN)
    for days in (1, 2):
        device.night.clock.now = BEGAN + timedelta(days=days)
        device.night.publish(entries=trust_list(1, seed=days), trust_version=2)
        assert any("trust list refused" in note for note in device.client().refresh().notes)
        assert dates() == (device.night.clock(), BEGAN)
    (device.root / "current" / "entries.date").write_bytes(b"yesterday")
    assert dates()[1].year == 1970  # what nobody can read is not young
    device.night.clock.move(hours=1)
    device.night.publish(entries=trust_list(5), trust_version=3)
    device.client().refresh()
    assert dates() == (device.night.clock(), device.night.clock())


class Stating(Publisher):
    """Signs that a trust list of three keys is meant, whatever list it is given."""

    def _least(self, entries: bytes, fewer_keys: bool) -> int:
        return 3


@pytest.mark.parametrize(("keys", "taken"), [(0, False), (2, False), (3, True), (4, True)])
def test_a_short_trust_list_is_taken_when_it_was_signed_as_meant(tmp_path: Path, keys: int, taken: bool) -> None:
    night = Night(keys=10, made_by=Stating)
    night.publish()
    device = night.device(tmp_path)
    device.client().refresh()
    night.publish(entries=trust_list(keys), trust_version=2)
    assert bool(device.client().refresh().notes) != taken
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert len(load_trust_list(store.trust_entries()).keys) == (keys if taken else 10)


def test_an_unreadable_trust_list_or_policy_is_not_taken(device: Device) -> None:
    device.night.publish(entries=b"\x80nonsense", policy=b"{}")
    report = device.client().refresh()
    assert len(report.notes) == 2
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        assert len(load_trust_list(store.trust_entries()).keys) == 6
        assert load_policy(store.policy()).version == 1


@pytest.mark.parametrize("bad", [{"entries": trust_list(0)}, {"policy": b"{}"}])
def test_a_first_sync_needs_a_usable_trust_list_and_policy(tmp_path: Path, bad: dict[str, bytes]) -> None:
    night = Night(made_by=Unguarded)
    night.publish(**bad)
    device = night.device(tmp_path)
    with pytest.raises(SyncError, match="refused"):
        device.client().refresh()
    assert not (tmp_path / "current").exists()


@pytest.mark.parametrize("lower", [{"trust_version": 1}, {"policy_version": 1}, {"key_epoch": 0}])
def test_versions_never_go_down(device: Device, lower: dict[str, int]) -> None:
    device.client().refresh()
    publish_seed(device.night, 2)
    device.night.publish(**lower)
    with pytest.raises(RollbackError):
        device.client().refresh()
    assert seed_in_use(device) == 1


# ------------------------------------------------------------------------------------- disk and processes


def test_no_room_is_said_before_anything_is_fetched(device: Device) -> None:
    device.fetcher.requests.clear()
    assert "MiB" in refused(device, NoSpaceError, free_space=lambda _: 100_000)
    assert chunk_count(device) == 0
    recovers(device)


def test_a_failing_card_is_a_storage_error(device: Device) -> None:
    shutil.rmtree(device.root / "stage")
    (device.root / "stage").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        device.client().refresh()
    assert seed_in_use(device) == 0
    assert "card" in (sync_history(device.root).last_failure or "")
    (device.root / "stage").unlink()
    recovers(device)


def test_a_damaged_base_is_replaced_when_it_is_rechecked(device: Device) -> None:
    device.client().refresh()
    base = device.root / "current" / "base.db"
    data = bytearray(base.read_bytes())
    data[len(data) // 2] ^= 1
    base.write_bytes(data)
    assert device.client().refresh().outcome is SyncOutcome.FRESH
    assert device.client().refresh(recheck=True).outcome is SyncOutcome.SNAPSHOT
    recovers(device)
    assert device.client().refresh(recheck=True).outcome is SyncOutcome.FRESH


@pytest.mark.parametrize("name", ["tsl.bin", "entries.cbor", "index.cbor", "base.db"])
def test_a_damaged_generation_is_replaced_by_the_next_sync(device: Device, name: str) -> None:
    device.client().refresh()
    (device.root / "current" / name).write_bytes(b"")
    assert device.client().refresh().outcome is SyncOutcome.SNAPSHOT
    recovers(device)


@pytest.mark.parametrize("name", ["policy.json", "base.db"])
def test_a_generation_in_use_is_not_removed_before_the_swap(device: Device, name: str) -> None:
    device.client().refresh()
    in_use = (device.root / "current").resolve()
    (in_use / name).unlink()

    with pytest.raises(PowerCut):
        device.client(on_step=cut_at("before-symlink")).refresh()
    assert (device.root / "current").resolve() == in_use
    assert not (in_use / name).exists()
    assert (in_use / "tsl.bin").exists()
    recovers(device)


def test_a_second_sync_at_the_same_time_is_turned_away(device: Device) -> None:
    def second(step: str) -> None:
        if step == "downloaded":
            with pytest.raises(SyncBusyError):
                device.client().refresh()

    device.client(on_step=second).refresh()
    with (device.root / "lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(SyncBusyError):
            device.client().refresh()
    assert sync_history(device.root).last_failure is None
    recovers(device)


def test_the_steps_are_those_that_are_tested(device: Device) -> None:
    assert steps_of(device) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_a_cut_at_any_step_leaves_the_old_or_the_new_set(device: Device, step: str) -> None:
    with pytest.raises(PowerCut):
        device.client(on_step=cut_at(step)).refresh()
    seed = seed_in_use(device)
    assert seed == (1 if STEPS.index(step) >= STEPS.index("after-symlink") else 0)
    device.fetcher.requests.clear()
    recovers(device)
    if step != "verified":
        assert chunk_count(device) == 0  # what was downloaded is not downloaded again


@pytest.mark.parametrize("step", STEPS)
def test_after_a_cut_the_older_publication_is_still_refused(device: Device, step: str) -> None:
    old = dict(device.night.store)
    publish_seed(device.night, 2)
    with pytest.raises(PowerCut):
        device.client(on_step=cut_at(step)).refresh()
    before = seed_in_use(device)
    shutil.rmtree(device.root / "trust")
    if STEPS.index(step) > STEPS.index("before-accept"):
        with pytest.raises(RollbackError):
            device.client(fetcher=MemoryFetcher(old)).refresh()
        assert seed_in_use(device) == before
    recovers(device, seed=2)


def test_a_killed_process_leaves_one_whole_set(tmp_path: Path) -> None:
    draw = random.Random(20270301)
    night = Night(store=FolderStore(tmp_path / "public"))
    publish_seed(night, 0)
    device = night.device(tmp_path / "cache")
    device.client().refresh()
    (tmp_path / "root.json").write_bytes(night.publisher.root_bytes())
    for seed in range(1, 6):
        night.clock.move(hours=1)
        publish_seed(night, seed)
        arguments = [str(device.root), str(tmp_path / "public"), str(tmp_path / "root.json"), night.clock().isoformat()]
        killed_at(draw.randrange(24), arguments)
        assert seed_in_use(device) in (seed - 1, seed)
        recovers(device, seed)


def test_a_base_that_fails_its_self_test_is_not_taken(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RegionData.put_base

    def without_a_block(data: RegionData, path: Path, seq: int, vehicles: int) -> BaseEntry:
        """Every digest is right, the contents are not."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM seg WHERE k = (SELECT k FROM seg ORDER BY k LIMIT 1 OFFSET 3)")
            connection.commit()
        return whole(data, path, seq, vehicles)

    monkeypatch.setattr(RegionData, "put_base", without_a_block)
    publish_seed(device.night, 2)
    assert "gap" in refused(device, DigestError)
    monkeypatch.setattr(RegionData, "put_base", whole)
    publish_seed(device.night, 3)
    recovers(device, seed=3)


def test_a_bad_region_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyncError):
        SyncClient(tmp_path, Dead(), FakeClock(), b"", "../up")
