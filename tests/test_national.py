"""The national generator: real plates and hashes, sorted rows and blocks as the cache's own code makes them, churn."""

from __future__ import annotations

import hashlib
from contextlib import closing
from datetime import date

import numpy as np
import pytest

from scripts.sandbox import national
from scripts.sandbox.fleet import _plate_text
from scripts.sandbox.national import MAX_SCALE, PLACE_BITS, PROVINCES, National
from scripts.sandbox.national_churn import NO_VEHICLE, Churn
from scripts.sandbox.national_rows import Rows, pack_blocks, sort_fleet
from verifier.cache.blocks import PER, PER_SEALED, encode_groups, read_block, split_blocks
from verifier.cache.build import write_base_blocks
from verifier.cache.changes import write_changes
from verifier.cache.keys import MAX_KEY, PLATE, KeyHasher, key48, plate_bytes
from verifier.cache.schema import BaseMeta
from verifier.cache.tables import Table
from verifier.cache.values import SEE_EXACT, TOMBSTONE, from_wide, to_wide
from verifier.codec.delta import decode_delta, encode_delta
from verifier.codec.index import DeltaEntry
from verifier.plates import PROVINCES as PROVINCE_CHARACTERS
from verifier.plates import parse_plate
from verifier.types import StatusLetter

DAY = date(2026, 11, 22)
KEY = bytes(range(32))


def fleet(scale: int = 5000, seed: int = 1) -> National:
    return National(scale, seed, DAY, KEY)


def everyone(of: National) -> np.ndarray:
    return of.numbers(np.arange(of.scale))


def quiet(*_: object) -> None:
    pass


class FewHashes(National):
    """Hashes of which only the first byte and the rest behind the key differ: many share a key."""

    def digests(self, numbers):
        digests = super().digests(numbers).copy()
        digests[:, 1:6] = 0
        return digests


def meta(of: National) -> BaseMeta:
    return BaseMeta(
        region="national", seq=1, n=of.scale, keys=0, key_epoch=1, key_check=KeyHasher(KEY).check_value,
        scheme=of.scheme,
    )  # fmt: skip


def write(path, of: National):
    """The fleet's base at `path`; the sorted fleet."""
    made = sort_fleet(of, quiet)
    exact = encode_groups(made.exact)
    assert write_base_blocks(path, pack_blocks(made.rows()), meta(of), exact=exact).keys == made.keys
    return made


def found(table: Table, digest: bytes) -> int | None:
    """The facts that a base or changes.db holds of a vehicle; None when it is not listed."""
    value = table.find(key48(digest))
    if value is None or value == TOMBSTONE:
        return None
    return table.exact(key48(digest)).get(digest) if value == SEE_EXACT else table.meta.scheme.widen(value)


# ------------------------------------------------------------------------------------------------- vehicles


def test_numbers_on_plates_are_those_of_the_small_fleet():
    indexes = np.random.default_rng(1).integers(0, 1 << 32, 500)
    writers = {"02": national._ordinary, "01": national._ordinary, "52": national._small_electric}
    for kind, write_all in writers.items():
        made = [bytes(row).rstrip(b"\0").decode() for row in write_all(indexes)]
        assert made == [_plate_text("", kind, index) for index in indexes.tolist()]
    made = [bytes(row).decode() for row in national._large_electric(indexes)]
    assert made == [_plate_text("", "51", index % 1_000_000) for index in indexes.tolist()]


def test_every_province_has_vehicles_with_plates_of_real_syntax():
    of = fleet()
    plates = of.plates(everyone(of))
    assert {plate.text[0] for plate in plates} == set(PROVINCE_CHARACTERS)
    assert {plate.kind for plate in plates} == {"01", "02", "51", "52"}
    assert all(parse_plate(plate.text, plate.kind) == plate for plate in plates)
    assert of.plate_bytes(everyone(of)).tolist() == [plate_bytes(plate) for plate in plates]


def test_no_two_vehicles_have_one_plate_even_where_plates_run_short():
    of, province = fleet(MAX_SCALE), 0
    places = np.arange(0, of.counts[province], 24)  # one letter of the largest province
    plates = of.plate_bytes(places + (province << PLACE_BITS))
    assert len(places) > 1_200_000
    assert len(np.unique(plates)) == len(plates)


def test_counts_add_up_to_the_scale_and_no_more_fit():
    assert fleet(42_250_000).counts.sum() == 42_250_000
    assert len(fleet().counts) == len(PROVINCES) == 31
    for scale in (0, MAX_SCALE + 1):
        with pytest.raises(ValueError, match="scale"):
            fleet(scale)


def test_the_same_seed_gives_the_same_vehicles_and_another_one_others():
    numbers = everyone(fleet())
    assert np.array_equal(fleet().wides(numbers), fleet().wides(numbers))
    assert not np.array_equal(fleet().wides(numbers), fleet(seed=2).wides(numbers))
    assert fleet().plate_bytes(numbers).tolist() != fleet(seed=2).plate_bytes(numbers).tolist()


def test_one_vehicle_is_the_same_alone_and_among_all_others():
    of = fleet()
    numbers = everyone(of)
    for place in (0, 1234, 4999):
        assert of.wides(numbers[place : place + 1]) == of.wides(numbers)[place]
        assert of.plate_bytes(numbers[place : place + 1]) == of.plate_bytes(numbers)[place]


def test_keys_and_values_are_those_of_the_builder():
    of, hasher = fleet(3000), KeyHasher(KEY)
    numbers = everyone(of)
    wides = of.wides(numbers)
    made, exact = of.hashed(numbers, wides), {}
    for i, plate in enumerate(of.plates(numbers)):
        record = from_wide(int(wides[i]), plate)
        assert to_wide(record) == wides[i]
        digest = hasher.digest(PLATE, plate_bytes(record.plate))
        assert made.keys[i] == key48(digest)
        value = of.scheme.narrow(int(wides[i]))
        assert made.values[i] == (SEE_EXACT if value is None else value)
        if value is None:
            exact[digest] = int(wides[i])
    assert dict(made.exact) == exact != {}


def test_letter_q_follows_a_lapsed_month():
    of = fleet(20_000)
    for plate, wide in zip(of.plates(everyone(of)), of.wides(everyone(of)).tolist(), strict=True):
        record = from_wide(wide, plate)
        until = record.inspection_valid_until
        months = DAY.year * 12 + DAY.month - until.year * 12 - until.month
        assert (StatusLetter.OVERDUE in record.status) == (months > 1)


# ----------------------------------------------------------------------------------------------------- rows


def rows(keys: list[int]) -> list[Rows]:
    made = Rows(np.array(keys, np.uint64), np.arange(len(keys), dtype=np.uint32) * 7 % 0xFFFFFF)
    return [Rows(*(part[start : start + 700] for part in made)) for start in range(0, len(keys), 700)]


KEY_SETS = {
    "none": [],
    "one": [5],
    "both ends": [0, MAX_KEY],
    "close": list(range(1000, 1000 + 3 * PER)),
    "a span that just fits": [7, 7 + (1 << 32) - 1],
    "a span too wide": [7, 7 + (1 << 32)],
    "wide": sorted(np.random.default_rng(1).integers(0, MAX_KEY, 5000).tolist()),
    "dense": np.unique(np.random.default_rng(2).integers(0, 1 << 33, 5000)).tolist(),
}


@pytest.mark.parametrize("per", [PER, PER_SEALED])
@pytest.mark.parametrize("name", KEY_SETS)
def test_packed_blocks_are_those_of_the_cache(name: str, per: int):
    made = rows(KEY_SETS[name])
    plain = [pair for part in made for pair in zip(part.keys.tolist(), part.values.tolist(), strict=True)]
    assert list(pack_blocks(made, per)) == list(split_blocks(plain, per))


def test_every_vehicle_is_found_in_the_base_and_blocks_leave_no_gap(tmp_path):
    of = fleet(20_000)
    made = write(tmp_path / "base.db", of)
    assert made.keys == of.scale
    numbers = everyone(of)
    with closing(Table(tmp_path / "base.db")) as table:
        for digest, wide in zip(of.digests(numbers), of.wides(numbers).tolist(), strict=True):
            assert found(table, digest.tobytes()) == wide
        low = 0
        for k, body in table.rows("seg"):
            assert read_block(k, body)[0] == low
            low = k + 1
    assert low == MAX_KEY + 1


def test_vehicles_that_share_a_key_are_told_apart_by_their_full_hash(tmp_path):
    of = FewHashes(3000, 1, DAY, KEY)
    made = write(tmp_path / "base.db", of)
    numbers = everyone(of)
    assert made.keys < 257
    assert set(made.twins) <= set(numbers.tolist())
    assert len(made.twins) > 2900
    with closing(Table(tmp_path / "base.db")) as table:
        for digest, wide in zip(of.digests(numbers), of.wides(numbers).tolist(), strict=True):
            assert found(table, digest.tobytes()) == wide


def test_several_processes_make_the_same_rows(monkeypatch):
    monkeypatch.setattr("scripts.sandbox.national_rows.CHUNK", 300)
    alone, together = (sort_fleet(fleet(2000), quiet, processes=processes) for processes in (1, 2))
    assert all(map(np.array_equal, alone.groups, together.groups))
    assert alone.exact == together.exact


def test_a_province_alone_has_its_own_vehicles_and_no_others():
    of = fleet()
    parts = [sort_fleet(of, quiet, provinces=(province,)) for province in range(len(PROVINCES))]
    assert [part.vehicles for part in parts] == of.counts.tolist()
    keys = np.concatenate([part.keys for one in parts for part in one.rows()])
    assert np.array_equal(np.sort(keys), np.concatenate([part.keys for part in sort_fleet(of, quiet).rows()]))


def test_progress_is_told_up_to_the_whole():
    told: dict[str, tuple[int, int]] = {}
    sort_fleet(fleet(), lambda step, done, whole: told.update({step: (done, whole)}))
    assert told == {"hash": (5000, 5000), "sort": (256, 256)}


# ---------------------------------------------------------------------------------------------------- churn


def nights(of: National, count: int = 4, nightly: int = 600, **options) -> tuple[Churn, list]:
    churn = Churn(of, nightly, **options)
    return churn, [churn.night("national", 1, 1) for _ in range(count)]


def test_base_and_deltas_together_say_what_the_register_says(tmp_path):
    of = fleet()
    write(tmp_path / "base.db", of)
    churn, deltas = nights(of)
    write_changes(tmp_path / "changes.db", tmp_path / "base.db", None, deltas)
    changed = churn.changed()
    numbers = np.union1d(everyone(of), changed)
    wides = churn.wides(numbers)
    with closing(Table(tmp_path / "base.db")) as base, closing(Table(tmp_path / "changes.db")) as changes:
        for digest, wide in zip(of.digests(numbers), wides, strict=True):
            table = base if changes.find(key48(digest.tobytes())) is None else changes
            assert found(table, digest.tobytes()) == (None if wide == NO_VEHICLE else int(wide))
    gone, new = (wides == NO_VEHICLE).sum(), (~np.isin(changed, everyone(of))).sum()
    assert gone > 10
    assert new > 40
    assert len(changed) > 1500


def test_nights_follow_one_another_and_survive_the_wire():
    _, deltas = nights(fleet(), 3)
    assert [(delta.seq_from, delta.seq_to, delta.base_seq) for delta in deltas] == [(1, 2, 1), (2, 3, 1), (3, 4, 1)]
    for delta in deltas:
        data = encode_delta(delta)
        entry = DeltaEntry(
            seq_from=delta.seq_from, seq_to=delta.seq_to, length=len(data), sha256=sha256(data), rows=len(delta.keys)
        )
        again = decode_delta(data, entry)
        assert list(again.rows()) == list(delta.rows())
        assert list(again.exact) == list(delta.exact)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_the_same_fleet_changes_in_the_same_way():
    (_, first), (_, second), (_, other) = nights(fleet()), nights(fleet()), nights(fleet(seed=2))
    assert first == second != other


def test_spared_vehicles_never_change():
    of = fleet(2000)
    spared = everyone(of)[::2]
    churn, _ = nights(of, spared=spared.tolist())
    assert np.array_equal(churn.wides(spared), of.wides(spared))
    assert not np.isin(churn.changed(), spared).any()


def test_a_deregistered_vehicle_stays_out_and_a_new_one_was_not_there_before():
    churn, deltas = nights(fleet(), 1)
    after = churn.wides(churn.changed())
    gone = churn.changed()[after == NO_VEHICLE]
    assert sum(value == TOMBSTONE for value in deltas[0].values) == len(gone) > 0
    for _ in range(5):
        churn.night("national", 1, 1)
    assert (churn.wides(gone) == NO_VEHICLE).all()
    newcomers = churn.changed()[~np.isin(churn.changed(), everyone(fleet()))]
    assert len(newcomers)
    assert (Churn(fleet(), 600).wides(newcomers) == NO_VEHICLE).all()


def test_an_inspection_ends_an_overdue_one():
    of = fleet(20_000)
    churn, _ = nights(of, 1, 15_000)
    changed = np.intersect1d(churn.changed(), everyone(of))
    overdue = np.uint64(national.OVERDUE_BIT)
    before, after = of.wides(changed), churn.wides(changed)
    months = [wides >> np.uint64(17) & np.uint64(0x1FFFF) for wides in (before, after)]
    renewed = (months[0] != months[1]) & (after != NO_VEHICLE)
    assert (before[renewed] & overdue != 0).sum() > 10
    assert (after[renewed] & overdue == 0).all()
