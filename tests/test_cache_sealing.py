"""Sealed files: unreadable without the epoch key, and a changed byte is noticed as in any other file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generations import Nights
from tests.nightly import EPOCH_KEY, plates, record
from verifier.cache.blocks import PER_SEALED, encode_group, split_blocks
from verifier.cache.build import write_base_blocks
from verifier.cache.schema import BaseMeta
from verifier.cache.sealing import TAG, Seal
from verifier.cache.selftest import check_base, read_base_meta
from verifier.cache.store import StatusStore
from verifier.cache.tables import AnyTable, Table
from verifier.cache.values import ValueScheme
from verifier.errors import CacheCorruptError, EpochKeyError
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
