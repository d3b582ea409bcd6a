"""Changes over a base: whatever way they came, the answers are those of the register, or "cannot say"."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generations import BASE_SEQ, CollidingHasher, Nights, Vehicles
from tests.nightly import EPOCH_KEY, plates, record
from verifier.cache.blocks import PER
from verifier.cache.changes import write_changes
from verifier.cache.keys import MAX_KEY, KeyHasher, key48
from verifier.cache.selftest import check_changes, read_base_meta
from verifier.cache.store import StatusStore
from verifier.cache.tables import Table
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.delta import Delta, DeltaFormatError
from verifier.errors import CacheCorruptError, EpochKeyError
from verifier.types import CredentialState, Month, Plate, Serial, VehicleRecord

FLEET = list(plates(400))
ABSENT = Plate("沪Z99999", "02")


def register(n: int = 200, seed: int = 0) -> dict[Plate, VehicleRecord]:
    return {plate: record(plate, seed) for plate in FLEET[:n]}


def later(vehicles: Vehicles, draw: random.Random) -> Vehicles:
    """The register a night later: some changed, some gone, some new, some with what 24 bits cannot hold."""
    new = dict(vehicles)
    for plate in draw.sample(FLEET, len(FLEET) // 6):
        what = draw.randrange(4)
        if what == 0:
            new.pop(plate, None)
        elif what == 1:
            new[plate] = replace(record(plate), inspection_valid_until=Month(1990 + draw.randrange(30), 3))
        else:
            new[plate] = record(plate, draw.randrange(1000))
    return new


def answers_as(nights: Nights, vehicles: Vehicles) -> None:
    with closing(nights.store()) as store:
        for plate in [*FLEET, ABSENT]:
            assert store.vehicle(plate) == vehicles.get(plate)


@pytest.mark.parametrize(("hasher", "sealed"), [(KeyHasher, False), (CollidingHasher, False), (KeyHasher, True)])
def test_every_night_answers_as_the_register_of_that_night(
    tmp_path: Path, hasher: type[KeyHasher], sealed: bool
) -> None:
    draw = random.Random(hasher.__name__)
    nights = Nights(tmp_path, register(), hasher(EPOCH_KEY), sealed=sealed)
    nights.install()
    answers_as(nights, nights.vehicles)
    previous = None
    for turn in range(8):
        nights.night(later(nights.vehicles, draw))
        changes = nights.changes(f"{turn}.db", previous, start=turn)
        nights.install(changes)
        answers_as(nights, nights.vehicles)
        assert check_changes(changes, read_base_meta(nights.base), nights.index(), EPOCH_KEY)
        previous = changes
    # A device that was away for eight nights gets the same in one pass.
    nights.install(nights.changes("at once.db"))
    answers_as(nights, nights.vehicles)


def delta_of(rows: Mapping[int, int], seq: int = BASE_SEQ) -> Delta:
    keys = sorted(rows)
    return Delta(
        region="national", seq_from=seq, seq_to=seq + 1, base_seq=BASE_SEQ, key_epoch=1,
        keys=keys, values=[rows[key] for key in keys],
    )  # fmt: skip


def test_many_small_nights_do_not_shatter_the_blocks(tmp_path: Path) -> None:
    base, path = Nights(tmp_path, register(50)).base, tmp_path / "0.db"
    count = write_changes(path, base, None, [delta_of(dict.fromkeys(range(0, 4_000_000, 1000), 0))])
    for turn in range(1, 30):
        delta = delta_of({turn * 100_000 + 1: 0, turn * 100_000 + 2: 0}, BASE_SEQ + turn)
        assert write_changes(tmp_path / f"{turn}.db", base, path, [delta]) == count + 2 * turn
        path = tmp_path / f"{turn}.db"
    with closing(Table(path)) as table:
        assert len(list(table.rows("seg"))) <= 2 * count // PER


def test_untouched_blocks_are_taken_over_as_they_are(tmp_path: Path) -> None:
    base, keys = Nights(tmp_path, register(50)).base, [i << 30 for i in range(1 << 10)]
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    write_changes(old, base, None, [delta_of(dict.fromkeys(keys, 64))])
    write_changes(new, base, old, [delta_of({keys[500] + 1: 96}, BASE_SEQ + 1)])
    with closing(Table(old)) as before, closing(Table(new)) as after:
        stored = [set(table.stored("seg")) for table in (before, after)]
    assert len(stored[1] - stored[0]) <= 2
    assert len(stored[0] - stored[1]) == 1


def test_the_ends_of_the_key_space_and_wide_gaps(tmp_path: Path) -> None:
    base, once, twice = Nights(tmp_path, register(50)).base, tmp_path / "1.db", tmp_path / "2.db"
    rows = {0: 32, 1: TOMBSTONE, 2 + (1 << 32): 64, 5 + (1 << 33): 96, MAX_KEY - 1: 128, MAX_KEY: 160}
    assert write_changes(once, base, None, [delta_of(rows)]) == len(rows)
    assert write_changes(twice, base, once, [delta_of({}, BASE_SEQ + 1)]) == len(rows)
    for path in (once, twice):
        with closing(Table(path)) as table:
            assert {key: table.find(key) for key in rows} == rows
            assert [table.find(key) for key in (2, 1 << 32, MAX_KEY - 2)] == [None] * 3


def test_an_empty_night_moves_only_the_moment(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register())
    nights.night(nights.vehicles)
    nights.install(nights.changes())
    answers_as(nights, nights.vehicles)
    with closing(nights.store()) as store:
        assert (store.info().seq, store.info().base_seq) == (BASE_SEQ + 1, BASE_SEQ)


# ------------------------------------------------------------------------------------------ collisions


def test_a_second_vehicle_under_a_key_is_told_apart_for_good(tmp_path: Path) -> None:
    hasher = CollidingHasher(EPOCH_KEY)
    keyed = {plate: key48(hasher.digest(b"plate", (plate.kind + plate.text).encode())) for plate in FLEET}  # type: ignore[operator]
    first = FLEET[0]
    second, third = [plate for plate in FLEET[1:] if keyed[plate] == keyed[first]][:2]
    nights = Nights(tmp_path, {first: record(first)}, hasher)
    steps = [
        {first: record(first), second: record(second)},
        {second: record(second)},
        {second: record(second, 1), third: record(third)},
        {},
        {third: record(third)},
    ]
    for turn, vehicles in enumerate(steps):
        nights.night(vehicles)
        nights.install(nights.changes(f"{turn}.db"))
        with closing(nights.store()) as store:
            assert [store.vehicle(p) for p in (first, second, third)] == [
                vehicles.get(p) for p in (first, second, third)
            ]


@pytest.mark.parametrize("in_base", [True, False])
def test_a_plain_row_for_a_key_that_vehicles_share_is_refused(tmp_path: Path, in_base: bool) -> None:
    # Two vehicles with the lowest key, in the base or since the first night; a 24-bit value cannot say whose it is.
    nights = Nights(tmp_path, register(40) if in_base else register(1), CollidingHasher(EPOCH_KEY))
    deltas = [] if in_base else [nights.night(register(40))]
    plain = delta_of({0: 32}, BASE_SEQ + len(deltas))
    with pytest.raises(DeltaFormatError, match="share"):
        write_changes(tmp_path / "out.db", nights.base, None, [*deltas, plain])
    assert not (tmp_path / "out.db").exists()


# -------------------------------------------------------------------------------------- what is refused


def test_a_delta_twice_out_of_order_or_of_another_base_changes_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register())
    one, two, three = (nights.night(register(seed=seed)) for seed in (1, 2, 3))
    out = tmp_path / "out.db"
    write_changes(out, nights.base, None, [one])
    previous = tmp_path / "previous.db"
    shutil.copy(out, previous)
    before = previous.read_bytes()
    wrong = [
        (previous, [one]), (previous, [two, two]), (previous, [three]), (previous, [three, two]),
        (None, [two]), (None, [one, one]), (None, [one, three]),
        (previous, [replace(two, base_seq=BASE_SEQ - 1)]), (previous, [replace(two, key_epoch=2)]),
        (previous, [replace(two, region="other")]),
        (previous, [replace(two, values=[30] * len(two.keys), exact=())]),
    ]  # fmt: skip
    for held, deltas in wrong:
        with pytest.raises(DeltaFormatError):
            write_changes(out, nights.base, held, deltas)
        assert previous.read_bytes() == before
    assert out.read_bytes() == before  # never begun
    assert write_changes(out, nights.base, previous, [two, three])


def test_changes_of_another_base_are_refused(tmp_path: Path) -> None:
    nights, other = Nights(tmp_path / "a", register()), Nights(tmp_path / "b", register(seed=7))
    one, two = nights.night(register(seed=1)), nights.night(register(seed=2))
    write_changes(tmp_path / "one.db", nights.base, None, [one])
    with pytest.raises(CacheCorruptError):
        write_changes(tmp_path / "out.db", other.base, tmp_path / "one.db", [two])
    with pytest.raises(CacheCorruptError):
        write_changes(tmp_path / "out.db", nights.base, tmp_path / "none.db", [two])
    with pytest.raises(CacheCorruptError):  # a base in place of the changes
        write_changes(tmp_path / "out.db", nights.base, nights.base, [one])
    assert not (tmp_path / "out.db").exists()


def test_damaged_changes_are_never_carried_on(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register(60))
    one, two = nights.night(register(60, seed=1)), nights.night(register(60, seed=2))
    old, out = tmp_path / "one.db", tmp_path / "out.db"
    write_changes(old, nights.base, None, [one])
    write_changes(out, nights.base, old, [two])
    data, good = old.read_bytes(), content(out)
    refused = 0
    for byte in range(0, len(data), 211):
        old.write_bytes(data[:byte] + bytes([data[byte] ^ 1 << byte % 8]) + data[byte + 1 :])
        out.unlink(missing_ok=True)
        try:
            write_changes(out, nights.base, old, [two])
        except (CacheCorruptError, DeltaFormatError):
            refused += 1
            assert not out.exists()
        else:
            assert content(out) == good
    assert refused > 10


def content(path: Path) -> list[object]:
    with closing(Table(path)) as table:
        return [table.meta, *(list(table.rows(name)) for name in ("seg", "exact", "replated"))]


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register())
    one = nights.night(register(seed=1))

    class CutError(Exception):
        pass

    def cut(*_: object) -> None:
        raise CutError

    with pytest.raises(CutError):
        write_changes(tmp_path / "out.db", nights.base, None, [one], cut)
    assert not (tmp_path / "out.db").exists()


def test_sealed_changes_need_the_key_they_were_sealed_with(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register(), sealed=True)
    one = nights.night(register(seed=1))
    for key in (None, bytes(32)):
        with pytest.raises(EpochKeyError):
            write_changes(tmp_path / "out.db", nights.base, None, [one], epoch_key=key)
    assert not (tmp_path / "out.db").exists()


# ----------------------------------------------------------------------------------------- in the store


def spoiled(data: bytes, byte: int) -> bytes:
    return data[:byte] + bytes([data[byte] ^ 1 << byte % 8]) + data[byte + 1 :]


def test_a_flipped_bit_anywhere_in_the_changes_is_never_the_older_answer(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register(60))
    nights.night(register(60, seed=1))
    path = nights.install(nights.changes()) / "changes.db"
    data, probes = path.read_bytes(), FLEET[:6]
    corrupt = 0
    for byte in range(0, len(data), 53):
        path.write_bytes(spoiled(data, byte))
        with closing(nights.store()) as store:
            for plate in [*probes, ABSENT]:
                try:
                    assert store.vehicle(plate) == nights.vehicles.get(plate)
                except CacheCorruptError:
                    corrupt += 1
    assert corrupt > 30


@pytest.mark.parametrize("spoil", [Path.unlink, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(bytes(8192))])
def test_changes_that_are_gone_cost_the_vehicles_and_nothing_else(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    nights = Nights(tmp_path, register())
    nights.night(register(seed=1))
    path = nights.install(nights.changes()) / "changes.db"
    spoil(path)
    with closing(nights.store()) as store:
        for _ in range(2):
            with pytest.raises(CacheCorruptError):
                store.vehicle(FLEET[0])
        revoked = store.credential(Serial("00" * 12), 7, 1, ())
        assert revoked is not None
        assert revoked.state is CredentialState.REVOKED
        assert store.info().seq == BASE_SEQ + 1


def test_changes_of_an_earlier_night_are_not_taken_for_the_newest(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register())
    nights.night(register(seed=1))
    early = nights.changes("early.db")
    nights.night(register(seed=2))
    nights.install(early)
    with closing(nights.store()) as store, pytest.raises(CacheCorruptError):
        store.vehicle(FLEET[0])


def test_a_tombstone_in_a_base_is_damage(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register())
    nights.night({})
    changes = nights.changes()
    nights.install(changes)
    answers_as(nights, {})
    target = tmp_path / "current" / "base.db"
    with closing(sqlite3.connect(target)) as base, closing(sqlite3.connect(changes)) as over:
        rows = over.execute("SELECT k, d FROM seg").fetchall()
        base.execute("DELETE FROM seg")
        base.executemany("INSERT INTO seg VALUES (?, ?)", rows)
        base.commit()
    nights.base = target
    nights.entries.clear()
    nights.install()
    with closing(nights.store()) as store, pytest.raises(CacheCorruptError):
        store.vehicle(FLEET[0])


def test_a_new_plate_is_found_in_base_and_changes(tmp_path: Path) -> None:
    old, newer = Serial("00" * 12), Serial("11" * 12)
    nights = Nights(tmp_path, register(), replated={old: FLEET[1], newer: FLEET[2]})
    nights.night(register(), {newer: FLEET[3]})
    nights.night(register(), {old: FLEET[4]})
    with closing(nights.store()) as store:
        for changes, expected in (("a", (FLEET[4], FLEET[3])),):
            nights.install(nights.changes(changes))
            for serial, plate in zip((old, newer), expected, strict=True):
                found = store.credential(serial, 7, 3, FLEET)
                assert found is not None
                assert found.superseded_by_plate == plate.text


def test_a_wrong_epoch_key_is_not_damage_and_not_an_absent_vehicle(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register(), sealed=True)
    nights.night(register(seed=1))
    nights.install(nights.changes())
    with closing(StatusStore(tmp_path, bytes(32))) as store:
        with pytest.raises(EpochKeyError):
            store.vehicle(FLEET[0])
        assert store.info().seq == BASE_SEQ + 1


def test_see_exact_is_what_the_changes_of_a_rare_value_say(tmp_path: Path) -> None:
    nights = Nights(tmp_path, register(5))
    rare = replace(record(FLEET[0]), inspection_valid_until=Month(1900, 1))
    nights.night(register(5) | {FLEET[0]: rare})
    changes = nights.changes()
    with closing(Table(changes)) as table:
        assert table.find(key48(nights.digest(FLEET[0]))) == SEE_EXACT
    nights.install(changes)
    answers_as(nights, nights.vehicles)
