"""Sealed files: unreadable without the epoch key, and a changed byte is noticed as in any other file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from scripts.sandbox.hot import HotRows
from scripts.sandbox.nightly import PublicationError
from scripts.sandbox.publisher import Publisher
from tests.generations import HOT_KEY, Nights, signed
from tests.nightly import BEGAN, EPOCH_KEY, Device, Night, fleet, plates, record
from verifier.cache.blocks import PER_SEALED, encode_group, split_blocks
from verifier.cache.build import write_base_blocks
from verifier.cache.schema import BaseMeta
from verifier.cache.sealing import BOX, DELTA_BOX, HOT_BOX, TAG, Seal, close_box, open_box
from verifier.cache.selftest import check_base, read_base_meta
from verifier.cache.store import StatusStore
from verifier.cache.tables import AnyTable, Table
from verifier.cache.values import ValueScheme, to_wide
from verifier.codec.delta import DeltaFormatError, decode_delta
from verifier.codec.hot import HotList, HotListError, SealedRows, decode_hot, open_rows, seal_rows
from verifier.codec.index import DeltaEntry
from verifier.errors import CacheCorruptError, EpochKeyError, SyncError
from verifier.sync_report import SyncOutcome
from verifier.types import Plate

FLEET = list(plates(300))
ABSENT = Plate("沪Z99999", "02")
SALT = bytes(range(32))


def sealed(root: Path) -> Nights:
    nights = Nights(root, {plate: record(plate) for plate in FLEET}, sealed=True)
    nights.install()
    return nights


def test_a_sealed_base_answers_under_its_key_alone(tmp_path: Path) -> None:
    nights = sealed(tmp_path)
    with closing(nights.store()) as store:
        assert [store.vehicle(plate) for plate in FLEET] == [record(plate) for plate in FLEET]
        assert store.vehicle(ABSENT) is None
    with closing(StatusStore(tmp_path, bytes(32))) as store, pytest.raises(EpochKeyError):
        store.vehicle(FLEET[0])
    for key in (None, bytes(32)):
        with closing(Table(nights.base, key)) as table, pytest.raises(EpochKeyError):
            table.find(0)


def test_a_flipped_bit_in_a_sealed_base_is_never_an_answer(tmp_path: Path) -> None:
    nights = sealed(tmp_path)
    path = tmp_path / "current" / "base.db"
    data, corrupt = path.read_bytes(), 0
    for byte in range(0, len(data), 97):
        path.write_bytes(data[:byte] + bytes([data[byte] ^ 1 << byte % 8]) + data[byte + 1 :])
        with closing(nights.store()) as store:
            for plate in (*FLEET[:4], ABSENT):
                try:
                    assert store.vehicle(plate) == (None if plate == ABSENT else record(plate))
                except (CacheCorruptError, EpochKeyError):
                    corrupt += 1
    assert corrupt > 30


def test_neither_keys_nor_values_stand_in_a_sealed_file(tmp_path: Path) -> None:
    vehicles = [record(plate) for plate in FLEET]
    found = {}
    for name, locked in (("open", False), ("sealed", True)):
        nights = Nights(tmp_path / name, {v.plate: v for v in vehicles}, sealed=locked)
        with closing(Table(nights.base, EPOCH_KEY)) as table:
            bodies = [body for _, body in table.rows("seg")]
        data = nights.base.read_bytes()
        found[name] = sum(body in data for body in bodies), len(bodies)
    assert found["open"][0] == found["open"][1] > 100
    assert found["sealed"][0] == 0


def test_no_two_files_are_sealed_under_one_key(tmp_path: Path) -> None:
    a, b = (Nights(tmp_path / name, {plate: record(plate) for plate in FLEET}, sealed=True) for name in "ab")
    assert a.meta.salt != b.meta.salt
    with closing(Table(a.base)) as one, closing(Table(b.base)) as other:
        assert not {d for _, d in one.stored("seg")} & {d for _, d in other.stored("seg")}


def test_tables_and_places_cannot_be_exchanged() -> None:
    seal = Seal(EPOCH_KEY, SALT, "national", 1)
    d = seal.close("exact", 7, b"body")
    assert seal.open("exact", 7, d) == b"body"
    assert len(d) == 4 + TAG
    others: list[tuple[AnyTable, int]] = [("replated", 7), ("seg", 7), ("exact", 8), ("exact", -1), ("exact", 1 << 70)]
    for table, k in others:
        with pytest.raises(CacheCorruptError):
            seal.open(table, k, d)
    for other in (Seal(EPOCH_KEY, SALT, "national", 2), Seal(EPOCH_KEY, SALT, "other", 1)):
        with pytest.raises(CacheCorruptError):
            other.open("exact", 7, d)
    for cut in (b"", d[:-1], d + b"\0"):
        with pytest.raises(CacheCorruptError):
            seal.open("exact", 7, cut)
    with pytest.raises(EpochKeyError):
        Seal(EPOCH_KEY, b"short", "national", 1)


def test_four_sealed_blocks_fill_a_page() -> None:
    seal = Seal(EPOCH_KEY, SALT, "national", 1)
    (k, d), *_ = split_blocks(((i, 0) for i in range(1000)), PER_SEALED)
    stored = len(seal.close("seg", k, d[4:]))
    assert 4 * (stored + 15) <= 4096 - 8 < 4 * (stored + 7 + 15)


def test_the_self_test_reads_a_sealed_base_with_and_without_the_key(tmp_path: Path) -> None:
    nights = sealed(tmp_path)
    for key in (EPOCH_KEY, None):
        assert check_base(nights.base, nights.index(), key) == len(FLEET)
    with pytest.raises(EpochKeyError):
        check_base(nights.base, nights.index(), bytes(32))
    meta = read_base_meta(nights.base)
    with pytest.raises(CacheCorruptError):
        check_base(nights.base, replace(nights.index(), key_epoch=2), None)
    blocks = list(split_blocks((i << 20, 0) for i in range(500)))
    for spoiled in (blocks[1:], blocks[:-1], blocks[:1] + blocks[2:]):
        path = tmp_path / "spoiled.db"
        write_base_blocks(path, spoiled, meta, epoch_key=EPOCH_KEY)
        with pytest.raises(CacheCorruptError):
            check_base(path, nights.index(), EPOCH_KEY)


def test_a_format_that_does_not_fit_the_salt_is_refused() -> None:
    plain = BaseMeta(
        region="national", seq=1, n=0, keys=0, key_epoch=1, key_check=bytes(16),
        scheme=ValueScheme(730_000, 24_000, (0, 1)),
    )  # fmt: skip
    for meta in (plain, replace(plain, salt=SALT), replace(plain, base_seq=4), replace(plain, salt=SALT, base_seq=4)):
        assert BaseMeta.from_rows(meta.to_rows()) == meta
        rows = meta.to_rows()
        with pytest.raises(CacheCorruptError):
            BaseMeta.from_rows(rows | {"salt": "00" * 32})
        with pytest.raises(CacheCorruptError):
            BaseMeta.from_rows(rows | {"base_seq": "9"})


def test_groups_are_sealed_too(tmp_path: Path) -> None:
    meta = replace(Nights(tmp_path, {}, sealed=True).meta, keys=0)
    path = tmp_path / "groups.db"
    digest = b"\0" * 5 + b"\7" + b"r" * 10
    group = [(7, encode_group(7, [(digest, 99)]))]
    write_base_blocks(path, split_blocks([]), meta, exact=group, replated=group, epoch_key=EPOCH_KEY)
    assert b"rrrrrrrrrr" not in path.read_bytes()
    with closing(Table(path, EPOCH_KEY)) as table:
        assert table.exact(7) == table.group("replated", 7) == {digest: 99}


# ------------------------------------------------------------------------------------------------- boxes


def test_a_box_opens_under_its_key_and_for_its_purpose_alone() -> None:
    box = close_box(EPOCH_KEY, HOT_BOX, b"rows")
    assert open_box(EPOCH_KEY, HOT_BOX, box) == b"rows"
    assert close_box(EPOCH_KEY, HOT_BOX, b"rows") != box, "each has a key of its own"
    changed = box[:-1] + bytes([box[-1] ^ 1])
    for key, what, data in (
        (None, HOT_BOX, box), (bytes(32), HOT_BOX, box), (EPOCH_KEY, DELTA_BOX, box), (EPOCH_KEY, HOT_BOX, changed),
        (EPOCH_KEY, HOT_BOX, box[:51]), (EPOCH_KEY, HOT_BOX, b"MCS2" + box[4:]), (EPOCH_KEY, HOT_BOX, b""),
    ):  # fmt: skip
        with pytest.raises(EpochKeyError):
            open_box(key, what, data)


# --------------------------------------------------------------------------------------------- the hot list


def test_a_sealed_hot_list_shows_neither_keys_nor_values_and_opens_to_what_it_was(tmp_path: Path) -> None:
    nights = sealed(tmp_path)
    wide = to_wide(record(FLEET[0], 7))
    hot = nights.hot(rows={5: wide, 7: None}, exact={nights.digest(FLEET[0]): wide})
    data = signed(seal_rows(hot, EPOCH_KEY))
    assert nights.digest(FLEET[0]) in signed(hot)
    for secret in (wide.to_bytes(8, "little"), nights.digest(FLEET[0])[6:]):
        assert secret not in data
    closed = decode_hot(data, HOT_KEY.public_key())
    assert (closed.rows, closed.exact, closed.count) == ({}, {}, 3)
    assert open_rows(closed, EPOCH_KEY) == hot == open_rows(hot, EPOCH_KEY)
    with pytest.raises(HotListError, match="epoch key"):
        open_rows(closed, bytes(32))


def test_a_sealed_hot_list_is_above_the_night_and_tells_its_number_without_the_key(tmp_path: Path) -> None:
    nights = sealed(tmp_path)
    gone = nights.hot(exact={nights.digest(FLEET[3]): None, nights.digest(FLEET[4]): to_wide(record(FLEET[4], 9))})
    nights.put_hot(seal_rows(gone, EPOCH_KEY))
    with closing(nights.store()) as store:
        assert store.info().hot_seq == 1
        assert store.vehicle(FLEET[3]) is None
        assert store.vehicle(FLEET[4]) == record(FLEET[4], 9)
        assert store.vehicle(FLEET[5]) == record(FLEET[5])
        assert (store.info().hot_seq, store.info().notes) == (1, ())
        nights.put_hot(seal_rows(nights.hot(hot_seq=2), EPOCH_KEY))
        assert store.vehicle(FLEET[3]) == record(FLEET[3])
    with closing(StatusStore(tmp_path, bytes(32))) as store:
        assert (store.info().hot_seq, store.info().notes) == (2, ())
        with pytest.raises(EpochKeyError):
            store.vehicle(FLEET[3])


def closed(hot: HotList, box: bytes, count: int = 0) -> HotList:
    return replace(hot, sealed=SealedRows(count, box))


@pytest.mark.parametrize("name", ["another key", "no map", "other fields", "another number"])
def test_a_signed_list_whose_seal_does_not_fit_costs_its_rows_and_nothing_else(tmp_path: Path, name: str) -> None:
    nights = sealed(tmp_path)
    hot = nights.hot(exact={nights.digest(FLEET[3]): None})
    whole = seal_rows(hot, EPOCH_KEY).sealed
    assert whole is not None
    bad = {
        "another key": seal_rows(hot, bytes(32)),
        "no map": closed(hot, close_box(EPOCH_KEY, HOT_BOX, b"rows")),
        "other fields": closed(hot, close_box(EPOCH_KEY, HOT_BOX, b"\xa0")),
        "another number": closed(hot, whole.box, 2),
    }
    nights.put_hot(replace(bad[name], rows={}, exact={}))
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[3]) == record(FLEET[3])
        (note,) = store.info().notes
        assert note.startswith("hot list: ")
        assert store.info().hot_seq is None
        nights.put_hot(seal_rows(replace(hot, hot_seq=2), EPOCH_KEY))
        assert store.vehicle(FLEET[3]) is None
        assert store.info().notes == ()


def test_a_list_with_too_many_rows_or_a_value_that_is_none_is_neither_signed_nor_sealed() -> None:
    hot = HotList(
        region="national", nightly_seq=1, hot_seq=1, issued_at=BEGAN, next_update=BEGAN + timedelta(hours=1),
        sealed=SealedRows(200_001, b""),
    )  # fmt: skip
    with pytest.raises(ValueError, match="more than 200000 rows"):
        signed(hot)
    with pytest.raises(ValueError, match="a value out of bounds"):
        seal_rows(replace(hot, sealed=None, rows={1: 1 << 56}), EPOCH_KEY)


# ----------------------------------------------------------------------------------------- deltas and the sync


def publisher(night: Night, *, locked: bool = True) -> Night:
    night.publisher = Publisher(night.store, night.clock, keys=night.publisher._keys, chunk=4096, sealed=locked)
    return night


def changes(night: Night, seed: int, **options: object) -> None:
    night.vehicles = [(record(v.plate, seed), tid) for v, tid in night.vehicles]
    night.publish(**options)
    night.clock.move(hours=24)


def holds(device: Device, key: bytes = EPOCH_KEY) -> bool:
    with closing(StatusStore(device.root, key)) as store:
        return all(store.vehicle(v.plate) == v for v, _ in device.night.vehicles)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    night = publisher(Night(vehicles=fleet(60)))
    night.publish()
    made = night.device(tmp_path)
    made.client().refresh()
    return made


def test_a_delta_on_its_way_shows_nothing_and_is_read_under_its_key_alone(device: Device) -> None:
    changes(device.night, 1)
    [data] = [data for path, data in device.night.store.items() if path.startswith("delta/")]
    assert data.startswith(BOX)
    entry = DeltaEntry(seq_from=1, seq_to=2, length=len(data), sha256=sha256(data).digest(), rows=1)
    for key in (None, bytes(32)):
        with pytest.raises(EpochKeyError):
            decode_delta(data, entry, key)
    with pytest.raises(DeltaFormatError, match="header and index differ"):
        decode_delta(data, entry, EPOCH_KEY)
    rows = len(open_box(EPOCH_KEY, DELTA_BOX, data))
    assert len(data) == rows + 52


def test_a_night_that_is_applied_without_a_shift_asks_the_centre_for_the_key_once(device: Device) -> None:
    asked = []

    def centre() -> bytes:
        asked.append(1)
        return EPOCH_KEY

    changes(device.night, 1)
    with pytest.raises(SyncError, match="changes cannot be written .*: epoch key"):
        device.client().refresh()
    with pytest.raises(SyncError, match="changes cannot be written .*: epoch key"):
        device.client(ask_key=lambda: bytes(32)).refresh()
    client = device.client(ask_key=centre)
    assert client.refresh().outcome is SyncOutcome.DELTAS
    assert holds(device)
    changes(device.night, 2)
    assert client.refresh().outcome is SyncOutcome.DELTAS
    assert (holds(device), asked) == (True, [1])


def test_a_recheck_without_a_shift_reads_sealed_changes_under_the_centres_key_and_repairs_them(device: Device) -> None:
    changes(device.night, 1)
    client = device.client(ask_key=lambda: EPOCH_KEY)
    client.refresh()
    assert client.refresh(recheck=True).outcome is SyncOutcome.FRESH
    path = device.root / "current" / "changes.db"
    with closing(sqlite3.connect(path)) as connection:
        (block,) = connection.execute("SELECT d FROM seg LIMIT 1").fetchone()
    data = path.read_bytes()
    path.write_bytes(data.replace(block[:16], bytes(byte ^ 0x40 for byte in block[:16])))
    for key in (None, bytes(32)):
        with pytest.raises(SyncError, match="changes cannot be checked"):
            device.client(epoch_key=key).refresh(recheck=True)
    report = device.client(epoch_key=bytes(32), ask_key=lambda: EPOCH_KEY).refresh(recheck=True)
    assert (report.outcome, report.notes[0][:27]) == (SyncOutcome.SNAPSHOT, "the set in use was damaged:")
    assert holds(device)


def test_neither_a_plain_night_nor_a_base_alone_asks_for_a_key(tmp_path: Path) -> None:
    def never() -> bytes:
        raise AssertionError

    for locked in (True, False):
        night = publisher(Night(vehicles=fleet(60)), locked=locked)
        night.publish()
        device = night.device(tmp_path / str(locked), ask_key=never)
        device.client().refresh()
        if not locked:
            changes(night, 1)
            assert device.client().refresh().outcome is SyncOutcome.DELTAS
        assert holds(device)


def test_a_new_epoch_of_sealed_data_is_taken_by_a_device_that_holds_the_old_key(device: Device) -> None:
    new = bytes(reversed(range(32)))
    changes(device.night, 1, epoch_key=new, key_epoch=2)
    client = device.client(epoch_key=EPOCH_KEY, ask_key=lambda: new)
    assert client.refresh().outcome is SyncOutcome.SNAPSHOT
    assert holds(device, new)
    changes(device.night, 2, epoch_key=new, key_epoch=2)
    changes(device.night, 3, epoch_key=new, key_epoch=2)
    assert client.refresh().outcome is SyncOutcome.DELTAS
    assert holds(device, new)


def test_a_sealing_publisher_signs_no_plain_row(device: Device) -> None:
    with pytest.raises(PublicationError, match="no key"):
        device.night.publisher.publish_hot(HotRows({7: None}))
    hot = device.night.publisher.publish_hot(HotRows({7: None}), EPOCH_KEY)
    assert (hot.rows, hot.count) == ({}, 1)
    assert device.client().refresh_hot().rows == 1
