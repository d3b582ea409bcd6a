"""The sync by deltas, and what may befall it: the rows of the design's failure table that other files leave over."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.server import Answer, serve, serve_answers
from tests.nightly import BEGAN, EPOCH_KEY, Device, Night, Unguarded, fleet, record
from tests.syncing import (
    SPOIL,
    Breaking,
    PowerCut,
    chunk_count,
    copy_of,
    cut_at,
    device_behind,
    first_night,
    index_of,
    publish_seed,
    recovers,
    refused,
    seed_in_use,
    steps_of,
)
from verifier.backoff import until_done
from verifier.cache.store import StatusStore
from verifier.cache.swap import file_digest
from verifier.check import Observation, Verifier
from verifier.codec.delta import Delta, DeltaFormatError, decode_delta, encode_delta
from verifier.codec.index import DeltaEntry, Index
from verifier.download import delta_path
from verifier.errors import CacheCorruptError, DigestError, FetchError, NotFoundError, RollbackError, SyncError
from verifier.net import HttpFetcher
from verifier.snapshot import SPACE_RESERVE, NoSpaceError
from verifier.sync import sync_history
from verifier.sync_report import SyncOutcome
from verifier.types import PlateSeen
from verifier.verdict import Tone

STEPS = (
    "verified", "downloaded", "applied", "written", "before-rename", "after-rename", "before-accept", "after-accept",
    "before-symlink", "after-symlink", "before-marks", "after-marks",
)  # fmt: skip


@pytest.fixture
def night() -> Night:
    return first_night(made_by=Unguarded)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """What no test changes."""
    return device_behind(first_night(made_by=Unguarded), tmp_path_factory.mktemp("behind") / "cache")


@pytest.fixture
def device(behind: Device, tmp_path: Path) -> Device:
    return copy_of(behind, tmp_path / "cache")


def later(night: Night, *seeds: int) -> None:
    """Further nights, each a day after the one before."""
    for seed in seeds:
        night.clock.move(hours=24)
        assert publish_seed(night, seed).snapshot is None


def delta_paths(night: Night) -> list[str]:
    return [delta_path("national", entry.sha256) for entry in index_of(night).deltas]


# ----------------------------------------------------------------------------------------------- the plans


@pytest.mark.parametrize("missed", [1, 7, 30])
def test_after_so_many_missed_nights_one_sync_takes_the_deltas_alone(device: Device, missed: int) -> None:
    later(device.night, *range(2, missed + 1))
    device.fetcher.requests.clear()
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.DELTAS, 1, missed + 1)
    assert [p for p in device.fetcher.requests if p.startswith("delta/")] == delta_paths(device.night)
    assert chunk_count(device) == 0
    assert report.notes == ()
    recovers(device, missed)


def test_a_week_offline_is_graded_by_the_age_of_the_data_and_then_caught_up(device: Device) -> None:
    seen = Observation(plate_seen=PlateSeen(plate=fleet(1)[0][0].plate, confirmed=True))
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        checks = Verifier(store, clock=device.night.clock, audit=None, software="test")
        told = []
        for day in range(1, 9):
            result = checks.check(seen)
            assert result.age == (timedelta(days=day), False)
            told.append((result.verdict.grade.value, result.verdict.tone is Tone.STOP))
            if day < 7:
                later(device.night, day + 1)
            elif day == 7:
                device.night.clock.move(hours=24)
    assert [grade for grade, _ in told] == ["B", *"CCCCCC", "D"]
    assert not any(stop for grade, stop in told if grade != "B")  # old data accuse nobody
    device.night.clock.move(hours=-24)
    report = device.client().refresh()
    assert report.as_of == device.night.clock()
    assert seed_in_use(device) == 7


def test_nights_one_by_one_are_the_same_as_all_at_once(device: Device, tmp_path: Path) -> None:
    late = device.night.device(tmp_path / "late")
    for seed in range(2, 6):
        later(device.night, seed)
        assert device.client().refresh().outcome is SyncOutcome.DELTAS
    report = late.client().refresh()
    assert (report.outcome, report.seq_before) == (SyncOutcome.SNAPSHOT, None)  # a new device: base and all deltas
    recovers(device, 5)
    recovers(late, 5)


def test_another_base_is_taken_as_a_snapshot(device: Device) -> None:
    device.night.clock.move(hours=24)
    assert publish_seed(device.night, 2, snapshot=True).snapshot == "asked for"
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.SNAPSHOT, 1, 3)
    assert not (device.root / "current" / "changes.db").exists()
    later(device.night, 3)
    assert device.client().refresh().outcome is SyncOutcome.DELTAS
    recovers(device, 3)


def test_the_base_is_the_same_file_from_night_to_night(device: Device) -> None:
    inode = (device.root / "current" / "base.db").stat().st_ino
    device.client().refresh()
    assert (device.root / "current" / "base.db").stat().st_ino == inode


def test_a_new_trust_list_alone_keeps_base_and_changes(device: Device) -> None:
    device.client().refresh()
    inodes = [(device.root / "current" / name).stat().st_ino for name in ("base.db", "changes.db")]
    device.night.publisher.publish_trust(
        entries=(device.root / "current" / "entries.cbor").read_bytes(), trust_version=9,
        policy=b'{"version": 3}', policy_version=3,
    )  # fmt: skip
    device.client().refresh()
    assert [(device.root / "current" / name).stat().st_ino for name in ("base.db", "changes.db")] == inodes


def test_empty_delta(device: Device) -> None:
    device.client().refresh()
    device.night.clock.move(hours=24)
    assert device.night.publish().rows == 0
    report = device.client().refresh()
    assert (report.outcome, report.seq_after, report.as_of) == (SyncOutcome.DELTAS, 3, device.night.clock())
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        assert store.vehicle(fleet(1)[0][0].plate) == record(fleet(1)[0][0].plate, 1)


def test_tombstones_and_newcomers(device: Device) -> None:
    device.client().refresh()
    gone, stays = fleet(120, 1)[:20], fleet(120, 1)[20:]
    device.night.publish(vehicles=iter([*stays, *fleet(140, 1)[120:]]))
    device.client().refresh()
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        assert [store.vehicle(vehicle.plate) for vehicle, _ in gone] == [None] * 20
        for vehicle, _ in fleet(140, 1)[20:]:
            assert store.vehicle(vehicle.plate) == vehicle
    device.night.publish(vehicles=iter(fleet(140, 1)))  # and back
    device.client().refresh()
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        for vehicle, _ in fleet(140, 1):
            assert store.vehicle(vehicle.plate) == vehicle


# --------------------------------------------------------------------------------------------- power cuts


def test_the_steps_are_those_that_are_tested(device: Device) -> None:
    assert steps_of(device) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_cut_during_delta(device: Device, step: str) -> None:
    """At no step is a half-applied night in use, and what was downloaded is not downloaded again."""
    with pytest.raises(PowerCut):
        device.client(on_step=cut_at(step)).refresh()
    assert seed_in_use(device) == (1 if STEPS.index(step) >= STEPS.index("after-symlink") else 0)
    device.fetcher.requests.clear()
    recovers(device)
    fetched = [p for p in device.fetcher.requests if p.startswith("delta/")]
    assert len(fetched) == (1 if step == "verified" else 0)


def test_cut_between_rename_and_symlink(device: Device) -> None:
    with pytest.raises(PowerCut):
        device.client(on_step=cut_at("after-rename")).refresh()
    assert len(list((device.root / "gen").iterdir())) == 2
    assert seed_in_use(device) == 0
    recovers(device)  # and the orphan is gone


def test_a_link_that_breaks_between_deltas_costs_none_that_was_fetched(device: Device) -> None:
    later(device.night, 2, 3, 4)

    class Broken(MemoryFetcher):
        def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
            if path == delta_paths(device.night)[2]:
                raise FetchError(path, "no connection, or it broke off")
            yield from super().fetch(path, max_length)

    refused(device, FetchError, fetcher=Broken(device.night.store))
    device.fetcher.requests.clear()
    recovers(device, 4)
    assert [p for p in device.fetcher.requests if p.startswith("delta/")] == delta_paths(device.night)[2:]


@pytest.mark.parametrize("kept", [0, 1, 4095, 4096, 4097, 20_000, 24_575, 24_576])
def test_power_cut_at_any_byte_of_download(night: Night, tmp_path: Path, kept: int) -> None:
    device = night.device(tmp_path)
    with pytest.raises(FetchError):
        device.client(fetcher=Breaking(device.fetcher, 6)).refresh()
    (part,) = (tmp_path / "stage").iterdir()
    part.write_bytes(part.read_bytes()[:kept])
    device.fetcher.requests.clear()
    recovers(device, 0)
    assert chunk_count(device) == len(index_of(night).base.hashes) - kept // 4096


@pytest.mark.parametrize("chunks", [1, 7, 8, 9, 15, 20])
def test_a_cut_costs_at_most_eight_chunks_of_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    """What the card has surely kept is what was forced onto it; the rest is gone with the power."""
    night = Night(vehicles=fleet(7000))
    night.publish()
    device, kept = night.device(tmp_path), [0]

    def fsync(handle: int) -> None:
        os_fsync(handle)
        kept.append(os.fstat(handle).st_size)

    os_fsync = os.fsync
    monkeypatch.setattr("verifier.download.os.fsync", fsync)
    with pytest.raises(FetchError):
        device.client(fetcher=Breaking(device.fetcher, chunks)).refresh()
    monkeypatch.undo()
    (part,) = (tmp_path / "stage").iterdir()
    assert part.stat().st_size == chunks * 4096
    with part.open("r+b") as handle:
        handle.truncate(kept[-1])
    assert chunks - kept[-1] // 4096 < 8
    device.fetcher.requests.clear()
    device.client().refresh()
    assert chunk_count(device) == len(index_of(night).base.hashes) - kept[-1] // 4096
    assert sha256((device.root / "current" / "base.db").read_bytes()).digest() == index_of(night).base.sha256


# ---------------------------------------------------------------------------------- bad and missing objects


@pytest.mark.parametrize("how", SPOIL)
def test_truncated_longer_or_flipped_delta(device: Device, how: str) -> None:
    """Refused by its digest after three tries; that object alone is fetched again when it is good."""
    (path,) = delta_paths(device.night)
    bad = MemoryFetcher(device.night.store | {path: SPOIL[how](device.night.store[path])})
    refused(device, (DigestError, FetchError), fetcher=bad)
    assert bad.requests.count(path) >= 3
    device.fetcher.requests.clear()
    recovers(device)
    assert [p for p in device.fetcher.requests if not p.startswith("metadata/")][-1] == path


def test_a_server_that_is_a_moment_behind_is_asked_again(device: Device) -> None:
    (path,) = delta_paths(device.night)

    class Behind(MemoryFetcher):
        def fetch(self, path_: str, max_length: int) -> Iterator[bytes]:
            if path_ == path and self.requests.count(path) < 2:
                self.requests.append(path_)
                raise NotFoundError(path_)
            yield from super().fetch(path_, max_length)

    fetcher = Behind(device.night.store)
    assert device.client(fetcher=fetcher).refresh().outcome is SyncOutcome.DELTAS
    assert fetcher.requests.count(path) == 3
    recovers(device)


def test_404_of_a_delta_is_tried_again_and_then_a_snapshot(device: Device) -> None:
    """No delta, no chain: the device says so, keeps its set without fetching a base, and takes the next base."""
    store = dict(device.night.store)
    (path,) = delta_paths(device.night)
    del store[path]
    fetcher = MemoryFetcher(store)
    refused(device, NotFoundError, fetcher=fetcher)
    assert fetcher.requests.count(path) == 6  # thrice for the chain, thrice for the snapshot
    assert not [p for p in fetcher.requests if p.startswith("chunk/")]
    publish_seed(device.night, 2, snapshot=True)
    assert device.client().refresh().outcome is SyncOutcome.SNAPSHOT
    recovers(device, 2)


def answering(night: Night, absent: Callable[[str], bool], asked: list[str]) -> Callable[[str], Answer]:
    """The public folder behind a web server that says 404 to some requests, and what it was asked for."""

    def respond(target: str) -> Answer:
        path = target.lstrip("/")
        gone = absent(path)
        asked.append(path)
        return Answer(404) if gone or path not in night.store else Answer(200, night.store[path])

    return respond


def test_404_of_a_delta_over_http_is_asked_for_twice_again(device: Device) -> None:
    """A server behind a load balancer that is a moment late with its files."""
    (path,) = delta_paths(device.night)
    asked: list[str] = []
    respond = answering(device.night, lambda p: p == path and asked.count(p) < 2, asked)
    with serve_answers(respond) as server, HttpFetcher(server.url) as fetcher:
        assert device.client(fetcher=fetcher).refresh().outcome is SyncOutcome.DELTAS
    assert asked.count(path) == 3
    recovers(device)


def test_404_of_a_delta_that_stays_over_http_ends_in_the_snapshot_that_the_publisher_makes_of_it(
    device: Device,
) -> None:
    """Two retries, then the snapshot plan. Its base needs the same delta, so the publisher, who sees it missing, makes
    another base; the device comes by itself, keeps answering from its set meanwhile, and fetches no chunk in vain."""
    night, asked, waits = device.night, list[str](), list[timedelta]()
    (path,) = delta_paths(night)
    del night.store[path]

    def sleep(seconds: float) -> None:
        assert asked.count(path) == 6
        assert not [p for p in asked if p.startswith("chunk/")]
        assert seed_in_use(device) == 0
        waits.append(timedelta(seconds=seconds))
        night.clock.move(seconds=seconds)
        assert night.publisher.missing() == [path]
        assert publish_seed(night, 2).snapshot == "what was published before cannot be read back"

    respond = answering(night, lambda _: False, asked)
    with serve_answers(respond) as server, HttpFetcher(server.url) as fetcher:
        report = until_done(
            device.client(fetcher=fetcher).refresh, failures=0, clock=night.clock, sleep=sleep, draw=lambda: 0.0,
            told=lambda error, _: waits.clear() if not isinstance(error, NotFoundError) else None,
        )  # fmt: skip
    assert waits == [timedelta(minutes=1)]
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.SNAPSHOT, 1, 3)
    recovers(device, 2)


def test_404_of_a_delta_that_a_newer_base_no_longer_needs_is_a_snapshot_at_once(device: Device) -> None:
    """The device has missed both the delta and the night with the base."""
    publish_seed(device.night, 2, snapshot=True)
    for path in [path for path in device.night.store if path.startswith("delta/")]:
        del device.night.store[path]
    with serve(device.night.store) as server, HttpFetcher(server.url) as fetcher:
        assert device.client(fetcher=fetcher).refresh().outcome is SyncOutcome.SNAPSHOT
    recovers(device, 2)


def test_old_index_replayed_is_counted_until_a_good_sync(device: Device) -> None:
    old = dict(device.night.store)
    later(device.night, 2)
    device.client().refresh()
    shutil.rmtree(device.root / "trust")
    for count in (1, 2, 3):
        with pytest.raises(RollbackError):
            device.client(fetcher=MemoryFetcher(old)).refresh()
        history = sync_history(device.root)
        assert (history.failures, "older" in str(history.last_failure)) == (count, True)
    recovers(device, 2)
    assert sync_history(device.root).failures == 0


def test_chain_gap(device: Device) -> None:
    """A device that is not on the chain, here because its own index names other deltas, takes a snapshot."""
    held, changed = fork(device.night), device.night
    held.publish(vehicles=fleet(120, 9), policy_version=2)  # another night under the number 2
    device.client(fetcher=MemoryFetcher(held.store)).refresh()
    later(changed, 2)
    shutil.rmtree(device.root / "trust")
    device.fetcher.requests.clear()
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.SNAPSHOT, 2, 3)
    assert chunk_count(device) == 0  # the base is the same
    recovers(device, 2)


def fork(night: Night) -> Night:
    """The repository as it was after the first night, under the same keys, to go on otherwise."""
    store = {path: data for path, data in night.store.items() if "/2." not in path and "delta" not in path}
    store |= {p: d for p, d in night.store.items() if p in ("metadata/timestamp.json",)}
    twin = Night(store=store, clock=night.clock, publisher_keys=night.publisher._keys, made_by=Unguarded)
    twin.clock.move(hours=1)
    return twin


class Forger(Unguarded):
    """Signs what no device must apply: every digest is right, the delta is not."""

    forge: Callable[[Delta], bytes]

    def _put_delta(self, index: Index, old: object, new: object, change: object, replayed: Path) -> DeltaEntry:
        good = super()._put_delta(index, old, new, change, replayed)  # type: ignore[arg-type]
        delta = decode_delta(self._store[delta_path(self._region, good.sha256)], good)
        data = type(self).forge(delta)
        entry = replace(good, length=len(data), sha256=sha256(data).digest())
        self._store[delta_path(self._region, entry.sha256)] = data
        return entry


def bomb(delta: Delta) -> bytes:
    """A header that promises few rows before a body that inflates to many."""
    small = encode_delta(replace(delta, keys=[], values=[], exact=[], replated=[]))
    many = encode_delta(replace(delta, keys=range(1_000_000), values=[32] * 1_000_000, exact=[], replated=[]))
    head = len(small) - len(zlib_of(small))
    return encode_delta(delta)[:head] + zlib_of(many)


def zlib_of(encoded: bytes) -> bytes:
    return encoded[encoded.index(b"\x78\xda") :]


FORGERIES: dict[str, Callable[[Delta], bytes]] = {
    "inflates to gigabytes": bomb,
    "trailing data": lambda delta: encode_delta(delta) + b"\0",
    "from another base": lambda delta: encode_delta(replace(delta, base_seq=delta.base_seq + 1, seq_from=2, seq_to=3)),
    "applied twice": lambda delta: encode_delta(replace(delta, seq_from=1, seq_to=2)),
    "another region": lambda delta: encode_delta(replace(delta, region="beijing")),
    "another epoch": lambda delta: encode_delta(replace(delta, key_epoch=7)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_delta_that_is_not_what_it_should_be(device: Device, forgery: str) -> None:
    """Inflating without bound, trailing data, twice, out of order, from another base: refused, nothing has changed."""
    device.client().refresh()
    night, careful = device.night, device.night.publisher
    forger = type("OneForger", (Forger,), {"forge": staticmethod(FORGERIES[forgery])})
    night.publisher = forger(night.store, night.clock, keys=careful._keys, chunk=night.chunk)
    night.clock.move(hours=24)
    publish_seed(night, 2)
    with pytest.raises(DeltaFormatError):
        device.client().refresh()
    assert seed_in_use(device) == 1
    night.publisher = careful
    publish_seed(night, 3, snapshot=True)
    recovers(device, 3)


def test_new_version_published_mid_download(device: Device) -> None:
    """The old index's objects still exist: the run ends with the night it began with, the next one takes the rest."""

    def publish(step: str) -> None:
        if step == "verified":
            publish_seed(device.night, 2)

    report = device.client(on_step=publish).refresh()
    assert report.seq_after == 2
    assert seed_in_use(device) == 1
    report = device.client().refresh()
    assert (report.outcome, report.seq_before, report.seq_after) == (SyncOutcome.DELTAS, 2, 3)
    recovers(device, 2)


def test_a_night_that_comes_while_a_base_is_half_downloaded_costs_no_chunk(night: Night, tmp_path: Path) -> None:
    device = night.device(tmp_path)
    with pytest.raises(FetchError):
        device.client(fetcher=Breaking(device.fetcher, 5)).refresh()
    later(night, 1)
    device.fetcher.requests.clear()
    recovers(device, 1)
    assert chunk_count(device) == len(index_of(night).base.hashes) - 5


# ---------------------------------------------------------------------------------------- a rotten card


def rot(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def rot_block(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (block,) = connection.execute("SELECT d FROM seg ORDER BY k LIMIT 1 OFFSET 7").fetchone()
    rot(path, path.read_bytes().index(block) + 5)


def test_rotten_block(device: Device) -> None:
    """The key it held is "cannot say"; a recheck fetches the one broken chunk and no other."""
    device.client().refresh()
    base = device.root / "current" / "base.db"
    whole = base.read_bytes()
    rot(base, len(whole) // 2)
    assert device.client().refresh().outcome is SyncOutcome.FRESH
    device.fetcher.requests.clear()
    report = device.client().refresh(recheck=True)
    assert report.outcome is SyncOutcome.SNAPSHOT
    assert report.notes == (
        "the set in use was damaged: base: digest",
        f"the base was repaired: 1 of {len(whole) // 4096} chunks fetched anew",
    )
    assert chunk_count(device) == 1
    assert base.read_bytes() == whole
    recovers(device)
    assert device.client().refresh(recheck=True).outcome is SyncOutcome.FRESH


def test_repairing_a_base_never_writes_into_the_one_in_use(night: Night, tmp_path: Path) -> None:
    """After a cut behind the swap the partial file and the base in use are one file under two names."""
    device = night.device(tmp_path)
    with pytest.raises(PowerCut):
        device.client(on_step=cut_at("after-symlink")).refresh()
    base = device.root / "current" / "base.db"
    assert base.stat().st_nlink == 2
    rot(base, base.stat().st_size // 2)
    before = base.read_bytes()
    with pytest.raises(FetchError):
        device.client(fetcher=Breaking(device.fetcher, 0)).refresh(recheck=True)
    assert base.read_bytes() == before  # whoever reads it still finds all blocks but one
    device.fetcher.requests.clear()
    device.client().refresh(recheck=True)
    assert chunk_count(device) == 1
    recovers(device, 0)


def test_a_base_that_the_card_no_longer_gives_is_fetched_anew(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.client().refresh()
    broken = (device.root / "current" / "base.db").stat().st_ino

    def digest(path: Path) -> bytes:
        if path.stat().st_ino == broken:
            raise OSError(errno.EIO, "Input/output error")
        return file_digest(path)

    monkeypatch.setattr("verifier.sync.file_digest", digest)
    report = device.client().refresh(recheck=True)
    assert report.outcome is SyncOutcome.SNAPSHOT
    assert report.notes[0] == "the set in use was damaged: base: cannot be read"
    assert (device.root / "current" / "base.db").stat().st_ino != broken
    recovers(device)


@pytest.mark.parametrize("how", ["rotten", "truncated", "removed", "of another night"])
def test_overlay_corrupt(device: Device, how: str) -> None:
    """Damaged changes are written anew from the base in use and all deltas since; no chunk is fetched."""
    device.client().refresh()
    old = (device.root / "current" / "changes.db").read_bytes()
    later(device.night, 2)
    device.client().refresh()
    changes = device.root / "current" / "changes.db"
    if how == "rotten":
        rot_block(changes)
    elif how == "truncated":
        changes.write_bytes(b"")
    elif how == "removed":
        changes.unlink()
    else:
        changes.write_bytes(old)
    device.fetcher.requests.clear()
    report = device.client().refresh(recheck=how == "rotten")
    assert report.outcome is SyncOutcome.SNAPSHOT
    assert report.notes[0].startswith("the set in use was damaged: ")
    assert chunk_count(device) == 0
    recovers(device, 2)


def test_damaged_changes_under_a_new_night_are_not_built_upon(device: Device) -> None:
    """Nobody asked for a recheck, but the night that comes on top reads every block."""
    device.client().refresh()
    changes = device.root / "current" / "changes.db"
    rot_block(changes)
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        said = []
        for vehicle, _ in fleet(120):
            try:
                said.append(store.vehicle(vehicle.plate) == record(vehicle.plate, 1))
            except CacheCorruptError:
                said.append(None)  # cannot say
    assert False not in said
    later(device.night, 2)
    report = device.client().refresh()
    assert any("snapshot was taken" in note for note in report.notes)
    assert chunk_count(device) == 0  # the base is whole
    recovers(device, 2)


def test_disk_full(device: Device) -> None:
    """Said before anything is fetched, for deltas as for a snapshot."""
    device.fetcher.requests.clear()
    assert "MiB" in refused(device, NoSpaceError, free_space=lambda _: 100_000)
    assert not [p for p in device.fetcher.requests if p.startswith(("delta/", "chunk/"))]
    recovers(device)


@pytest.mark.parametrize("bytes_left", [0, 4096, 20_000])
@pytest.mark.parametrize("snapshot", [False, True])
def test_disk_full_while_writing(device: Device, snapshot: bool, bytes_left: int) -> None:
    """No file can grow any more: the kernel itself refuses, in base, changes or delta. Look-ups are not concerned."""
    if snapshot:
        publish_seed(device.night, 2, snapshot=True)
    softly, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        with pytest.raises(SyncError):
            device.client().refresh()
        assert seed_in_use(device) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (softly, hard))
    assert seed_in_use(device) == 0
    recovers(device, 2 if snapshot else 1)


def test_room_is_needed_for_the_changes_that_the_deltas_make(device: Device) -> None:
    """Free is what the reserve leaves over; 200 rows need more than a kilobyte and less than twenty."""
    with pytest.raises(NoSpaceError):
        device.client(free_space=lambda _: SPACE_RESERVE + 1024).refresh()
    assert device.client(free_space=lambda _: SPACE_RESERVE + 20_000).refresh().outcome is SyncOutcome.DELTAS


def test_metadata_and_marks_lost(device: Device) -> None:
    """With nothing left but an old generation's folder the first index is taken, and it is said."""
    device.client().refresh()
    shutil.rmtree(device.root / "trust")
    (device.root / "state.db").unlink()
    (device.root / "current").unlink()
    report = device.client().refresh()
    assert any("state reset" in note for note in report.notes)
    recovers(device)


def test_clock_years_behind_or_ahead(device: Device) -> None:
    device.night.clock.now = BEGAN - timedelta(days=4000)
    report = device.client().refresh()
    assert any("clock is behind" in note for note in report.notes)
    assert seed_in_use(device) == 1
