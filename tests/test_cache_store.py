"""Base and store together: what was published is what is answered, and damage is "cannot say"."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generations import CollidingHasher, Nights
from tests.nightly import BEGAN, EPOCH_KEY, Night, fleet, plates, record
from verifier.cache.build import BuildError, build_base
from verifier.cache.keys import (
    CREDENTIAL,
    PLATE,
    TAG,
    KeyHasher,
    key48,
    load_epoch_key,
    plate_bytes,
    tag_bytes,
)
from verifier.cache.schema import BASE, CHANGES, ENTRIES, HOT, INDEX, POLICY, STATUS_LIST
from verifier.cache.store import StatusStore
from verifier.errors import CacheCorruptError, CacheMissingError, EpochKeyError, PlateError
from verifier.types import CredentialState, CredentialStatus, Month, Plate, Serial, StatusLetter, VehicleRecord

ABSENT = Plate("沪Z99999", "02")
GENERATION_FILES = (BASE, STATUS_LIST, INDEX, ENTRIES, POLICY)
OLD_SERIAL, OTHER_SERIAL = Serial("0a1b2c3d4e5f60718293a4b5"), Serial("11" * 12)


def publish(root: Path, night: Night | None = None) -> Night:
    night = night or Night()
    night.publish()
    night.device(root).client().refresh()
    return night


def build(root: Path, vehicles: Iterable[tuple[VehicleRecord, str | None]], **options: object) -> None:
    """A base alone, in a generation around which the rest is borrowed from a small publication."""
    publish(root, Night(vehicles=[]))
    base = root.resolve() / "current" / "base.db"
    build_base(base, vehicles, region="national", seq=1, epoch_key=EPOCH_KEY, key_epoch=1, **options)  # type: ignore[arg-type]


def test_everything_published_is_answered_exactly(tmp_path: Path) -> None:
    night = publish(tmp_path)
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        for vehicle, tid in night.vehicles:
            assert store.vehicle(vehicle.plate) == vehicle
            if tid is not None:
                assert store.vehicle_by_tag(tid.lower(), vehicle.plate) == vehicle
        assert store.vehicle(ABSENT) is None
        assert store.vehicle_by_tag("E2FF", ABSENT) is None


def test_what_is_known_of_the_generation(tmp_path: Path) -> None:
    night = Night()
    published = night.publish(scope="province:京", covers=("京", "津A"))
    night.device(tmp_path).client().refresh()
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        info = store.info()
        assert (info.region, info.seq, info.as_of) == ("national", 1, BEGAN)
        assert (info.scope, info.covers) == ("province:京", ("京", "津A"))
        assert (info.vehicles, info.key_epoch) == (len(night.vehicles), 1)
        assert info.bytes > published.base_length
        assert info.path.resolve() == (tmp_path / "current").resolve()
        assert store.covers(Plate("京C00001", "02"))
        assert store.covers(Plate("津A00001", None))
        assert not store.covers(Plate("津B00001", "02"))
        assert store.trust_entries().startswith(b"\x86")
        assert b'"default"' in store.policy()


def test_the_same_text_under_two_kinds_is_two_vehicles(tmp_path: Path) -> None:
    small = replace(record(Plate("京A00001", "02")), inspection_valid_until=Month(2027, 1))
    large = replace(record(Plate("京A00001", "01")), inspection_valid_until=Month(2028, 1))
    build(tmp_path, [(small, None), (large, None)])
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert store.vehicle(small.plate) == small
        assert store.vehicle(large.plate) == large
        assert store.vehicle(Plate("京A00001", None)) == small  # the usual kind is meant


def test_an_unknown_kind_means_the_usual_one_and_no_other(tmp_path: Path) -> None:
    coach, cycle = record(Plate("京A0001学", "16")), record(Plate("京A0002学", "17"))
    build(tmp_path, [(coach, None), (cycle, None)])
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert store.vehicle(Plate("京A0001学", None)) == coach
        assert store.vehicle(Plate("京A0002学", None)) is None
        assert store.vehicle(Plate("no plate", None)) is None


def test_what_cannot_be_listed_is_not_listed(tmp_path: Path) -> None:
    publish(tmp_path)
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert store.vehicle(Plate("京" * 60, "02")) is None
        assert store.vehicle(Plate("京A00001", "2")) is None
        assert store.vehicle_by_tag("no hex", ABSENT) is None
        assert store.vehicle(Plate("京Ａ·00001", "02")) is not None  # written in another form


@pytest.mark.parametrize("n", [2, 3, 40])
def test_colliding_keys_are_told_apart(tmp_path: Path, n: int) -> None:
    hasher = CollidingHasher(EPOCH_KEY)
    vehicles = fleet(n)
    build(tmp_path, iter(vehicles), hasher=hasher)
    with closing(StatusStore(tmp_path, EPOCH_KEY, hasher=hasher)) as store:
        for vehicle, tid in vehicles:
            assert store.vehicle(vehicle.plate) == vehicle
            if tid is not None:
                assert store.vehicle_by_tag(tid, vehicle.plate) == vehicle
        assert n == 2 or store.vehicle(ABSENT) is None  # a third identity under a key that is shared


def test_rare_values_go_into_the_exact_table(tmp_path: Path) -> None:
    sets = [frozenset({a, b}) for a in StatusLetter for b in StatusLetter if a < b]
    vehicles = [
        (replace(vehicle, status=letters, inspection_valid_until=Month(1990 + i, 1)), tid)
        for i, ((vehicle, tid), letters) in enumerate(zip(fleet(len(sets)), sets, strict=True))
    ]
    build(tmp_path, vehicles)
    with closing(sqlite3.connect(tmp_path / "current" / "base.db")) as connection:
        assert connection.execute("SELECT count(*) FROM exact").fetchone()[0] > 80
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        for vehicle, _ in vehicles:
            assert store.vehicle(vehicle.plate) == vehicle


@pytest.mark.parametrize("twice", [[0, 0], [1, 1]])
def test_a_plate_or_tag_listed_twice_is_refused(tmp_path: Path, twice: list[int]) -> None:
    vehicles = fleet(5)
    if twice == [0, 0]:
        vehicles.append((vehicles[0][0], None))
    else:
        vehicles.append((record(ABSENT), vehicles[1][1]))
    with pytest.raises(BuildError) as caught:
        build(tmp_path, vehicles)
    assert ABSENT.text not in str(caught.value)


def test_a_plate_without_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlateError):
        build(tmp_path, [(record(Plate("京A00001", None)), None)])


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build(tmp_path, fleet(10), progress=lambda *args: told.append(args))
    assert ("hash", 10, 10) in told
    assert told[-1] == ("write", 256, 256)


# ---------------------------------------------------------------------------------------- credentials


def test_states_of_credentials(tmp_path: Path) -> None:
    publish(tmp_path, Night(states=[0, 1, 2, 3]))
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        answers = [store.credential(OTHER_SERIAL, 7, index, ()) for index in range(4)]
        assert [a.state if a else None for a in answers] == [
            CredentialState.ACTIVE,
            CredentialState.REVOKED,
            CredentialState.SUPERSEDED,  # suspended: not a current document either
            CredentialState.SUPERSEDED,
        ]
        assert store.credential(OTHER_SERIAL, 7, 4, ()) is None  # behind the end of the list
        assert store.credential(OTHER_SERIAL, 7, -1, ()) is None
        assert store.credential(OTHER_SERIAL, 8, 0, ()) is None  # a list that is not held


def test_a_suspended_credential_leads_to_no_new_plate(tmp_path: Path) -> None:
    new = Plate("京AD00001", "52")
    publish(tmp_path, Night(states=[2], replated={OLD_SERIAL: new}))
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert store.credential(OLD_SERIAL, 7, 0, [new]) == CredentialStatus(state=CredentialState.SUPERSEDED)
    with closing(StatusStore(tmp_path, bytes(32))) as store:  # and needs no key
        assert store.credential(OLD_SERIAL, 7, 0, [new]) == CredentialStatus(state=CredentialState.SUPERSEDED)


def test_re_plating_names_the_new_plate_only_when_it_was_seen(tmp_path: Path) -> None:
    new = Plate("京AD00001", "52")
    publish(tmp_path, Night(states=[3, 0], replated={OLD_SERIAL: new}))
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        plain = CredentialStatus(state=CredentialState.SUPERSEDED)
        named = replace(plain, superseded_by_plate=new.text)
        assert store.credential(OLD_SERIAL, 7, 0, [ABSENT, new]) == named
        assert store.credential(OLD_SERIAL, 7, 0, [Plate(new.text, None)]) == named
        assert store.credential(OLD_SERIAL, 7, 0, [ABSENT]) == plain
        assert store.credential(OTHER_SERIAL, 7, 0, [new]) == plain
        assert store.credential(Serial("no hex"), 7, 0, [new]) == plain
        assert store.credential(OLD_SERIAL, 7, 1, [new]) == CredentialStatus(state=CredentialState.ACTIVE)


# --------------------------------------------------------------------------------------- the epoch key


def test_a_wrong_epoch_key_is_not_an_absent_vehicle(tmp_path: Path) -> None:
    night = publish(tmp_path)
    with closing(StatusStore(tmp_path, bytes(32))) as store:
        with pytest.raises(EpochKeyError):
            store.vehicle(night.vehicles[0][0].plate)
        with pytest.raises(EpochKeyError):
            store.vehicle_by_tag("E280", ABSENT)
        with pytest.raises(EpochKeyError):
            store.credential(OLD_SERIAL, 7, 3, ())
        # What needs no key still answers.
        assert store.info().seq == 1
        revoked = store.credential(OLD_SERIAL, 7, 1, ())
        assert revoked is not None
        assert revoked.state is CredentialState.REVOKED


def test_epoch_key_files(tmp_path: Path) -> None:
    path = tmp_path / "epoch.key"
    path.write_text(EPOCH_KEY.hex() + "\n")
    assert load_epoch_key(path) == EPOCH_KEY
    for text in ("", "zz" * 32, "00" * 31, "é" * 64):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(EpochKeyError):
            load_epoch_key(path)
    with pytest.raises(EpochKeyError):
        load_epoch_key(tmp_path / "none")
    with pytest.raises(EpochKeyError):
        StatusStore(tmp_path, b"short")


def test_kinds_of_identity_and_keys_never_mix() -> None:
    person = [PLATE, TAG, CREDENTIAL]
    hashers = [KeyHasher(key) for key in (EPOCH_KEY, bytes(32))]
    digests = {hasher.digest(p, b"x") for hasher in hashers for p in person}
    assert len(digests) == len({key48(digest) for digest in digests}) == 6
    assert key48(bytes(range(16))) == 0x000102030405
    assert plate_bytes(Plate("京A·00001", "02")) == "02京A00001".encode()


def forms(plate: Plate) -> list[bytes]:
    """A plate's text, and what follows its first character, as any program could have left it in a file."""
    codes = ("utf-8", "gbk", "utf-16-le", "utf-16-be")
    # The letter and digits without the Chinese character in front, where the rest is ASCII.
    tail = [plate.text[1:].encode(code) for code in codes] if plate.text[1:].isascii() else []
    return [plate.text.encode(code) for code in codes] + tail


@pytest.mark.parametrize("sealed", [False, True])
def test_no_plate_tag_or_serial_can_be_found_in_any_file(tmp_path: Path, sealed: bool) -> None:
    # A base, a night of changes over it and a hot list, with some plates in one of them alone.
    fleet_of = list(plates(600))
    nights = Nights(
        tmp_path, {plate: record(plate) for plate in fleet_of[:500]}, sealed=sealed,
        replated={OLD_SERIAL: fleet_of[5]},
    )  # fmt: skip
    rare = replace(record(fleet_of[525]), inspection_valid_until=Month(1990, 1))
    second = {plate: record(plate, 1) for plate in fleet_of[250:550]} | {rare.plate: rare}
    nights.night(second, {OTHER_SERIAL: fleet_of[530]})
    tid = "E28011700000020A7D5C1B2F"
    digests = [nights.digest(plate) for plate in fleet_of[550:]] + [nights.hasher.digest(TAG, tag_bytes(tid))]
    rows = {key48(nights.digest(plate)): None for plate in fleet_of[:50]}
    nights.install(nights.changes())
    nights.put_hot(nights.hot(rows=rows, exact=dict.fromkeys(digests, 1 << 34)))
    with closing(nights.store()) as store:  # they are all in there
        assert store.vehicle(fleet_of[400]) == record(fleet_of[400], 1)
        assert store.info().hot_seq == 1
        assert store.vehicle(fleet_of[575]) is not None
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {*GENERATION_FILES, CHANGES, HOT}
    secrets = [form for plate in fleet_of for form in forms(plate)]
    secrets += [tid.encode(), bytes.fromhex(tid), EPOCH_KEY, EPOCH_KEY.hex().encode()]
    secrets += [form for serial in (OLD_SERIAL, OTHER_SERIAL) for form in (serial.encode(), bytes.fromhex(serial))]
    for path, data in files.items():
        assert not [secret for secret in secrets if secret in data], path.name


# -------------------------------------------------------------------------------------------- damage


def test_no_generation_is_missing(tmp_path: Path) -> None:
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store, pytest.raises(CacheMissingError):
        store.vehicle(ABSENT)


SMALL_FILES = [name for name in GENERATION_FILES if name != "base.db"]


@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_missing_small_file_is_corrupt(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    (tmp_path / "current" / name).unlink()
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store, pytest.raises(CacheCorruptError):
        store.info()


def test_a_link_to_nowhere_is_corrupt(tmp_path: Path) -> None:
    publish(tmp_path)
    shutil.rmtree(tmp_path / "gen")
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store, pytest.raises(CacheCorruptError):
        store.info()


@pytest.mark.parametrize("name", SMALL_FILES)
@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: d + b"x", lambda d: bytes([d[0] ^ 1]) + d[1:]])
def test_a_changed_small_file_is_corrupt(tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]) -> None:
    publish(tmp_path)
    path = tmp_path / "current" / name
    path.write_bytes(spoil(path.read_bytes()))
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store, pytest.raises(CacheCorruptError):
        store.info()


def test_a_flipped_bit_anywhere_in_the_base_is_never_a_wrong_answer(tmp_path: Path) -> None:
    night = publish(tmp_path, Night(vehicles=fleet(40)))
    path = tmp_path / "current" / "base.db"
    data = path.read_bytes()
    probes = [vehicle for vehicle, _ in night.vehicles[:6]]
    corrupt = answers = 0
    for byte in range(0, len(data), 23):
        spoiled = bytearray(data)
        spoiled[byte] ^= 1 << byte % 8
        path.write_bytes(spoiled)
        with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
            for probe in probes:
                try:
                    assert store.vehicle(probe.plate) == probe
                    answers += 1
                except (CacheCorruptError, EpochKeyError):
                    corrupt += 1
            try:
                assert store.vehicle(ABSENT) is None
            except (CacheCorruptError, EpochKeyError):
                corrupt += 1
    assert answers
    assert corrupt


def bit_in_meta(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"key_check") + 12] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil", [bit_in_meta, Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\0" * 8192)]
)
def test_a_damaged_base_costs_the_vehicles_and_nothing_else(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    night = publish(tmp_path, Night(states=[0, 1, 2, 3]))
    whole = StatusStore(tmp_path, EPOCH_KEY)
    spoil(tmp_path / "current" / "base.db")
    with closing(whole), closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert (store.info().seq, store.info().vehicles, store.info().key_epoch) == (1, len(night.vehicles), 1)
        assert store.info().bytes > 0
        assert store.covers(ABSENT)
        assert (store.trust_entries(), store.policy()) == (whole.trust_entries(), whole.policy())
        answers = [store.credential(OLD_SERIAL, 7, index, ()) for index in range(3)]
        assert [a.state if a else None for a in answers] == [
            CredentialState.ACTIVE,
            CredentialState.REVOKED,
            CredentialState.SUPERSEDED,
        ]
        for ask in (
            lambda: store.vehicle(night.vehicles[0][0].plate),
            lambda: store.vehicle_by_tag("E280", ABSENT),
            lambda: store.credential(OLD_SERIAL, 7, 3, ()),
        ):
            with pytest.raises(CacheCorruptError):
                ask()


def test_a_base_that_comes_back_is_used_again(tmp_path: Path) -> None:
    night = publish(tmp_path)
    base, aside = (tmp_path / "current").resolve() / "base.db", tmp_path / "aside"
    base.rename(aside)
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        with pytest.raises(CacheCorruptError):
            store.vehicle(ABSENT)
        aside.rename(base)
        assert store.vehicle(night.vehicles[0][0].plate) == night.vehicles[0][0]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"\0" * 8192])
def test_a_base_that_is_no_base_is_corrupt(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path)
    (tmp_path / "current" / "base.db").write_bytes(content)
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store, pytest.raises(CacheCorruptError):
        store.vehicle(ABSENT)


# ------------------------------------------------------------------------------------ new generations


def test_a_new_generation_is_noticed_by_the_next_look_up(tmp_path: Path) -> None:
    night = publish(tmp_path)
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        plate = night.vehicles[0][0].plate
        assert store.vehicle(plate) == record(plate)
        night.vehicles = fleet(200, seed=1)
        publish(tmp_path, night)
        assert store.vehicle(plate) == record(plate, seed=1)
        assert store.info().seq == 2


def test_the_old_generation_answers_while_its_files_are_gone(tmp_path: Path) -> None:
    night = publish(tmp_path)
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        plate = night.vehicles[0][0].plate
        store.vehicle(plate)
        shutil.rmtree(tmp_path / "gen")
        assert store.vehicle(plate) == record(plate)
        assert store.credential(OLD_SERIAL, 7, 1, ()) is not None
        assert store.trust_entries()


def test_a_swap_between_link_and_files_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = publish(tmp_path)
    first = str((tmp_path / "current").readlink())
    night.vehicles = fleet(100, seed=1)
    publish(tmp_path, night)
    calls = iter([first])  # the link as it was before the swap; after it the real one
    real = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: next(calls, None) or real(path))
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        assert store.info().seq == 2


def test_a_swap_before_the_base_is_opened_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = publish(tmp_path)
    first, real = str((tmp_path / "current").readlink()), os.readlink
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        store.info()  # reads the small files of the first generation, and not yet its base
        night.vehicles = fleet(100, seed=1)
        publish(tmp_path, night)  # sweeps the first generation
        calls = iter([first])
        monkeypatch.setattr(os, "readlink", lambda path: next(calls, None) or real(path))
        plate = night.vehicles[0][0].plate
        assert store.vehicle(plate) == record(plate, seed=1)


def test_look_ups_from_many_threads_while_generations_change(tmp_path: Path) -> None:
    night = publish(tmp_path, Night(vehicles=fleet(60)))
    done = threading.Event()
    failures: list[BaseException] = []

    def ask(store: StatusStore) -> None:
        try:
            while not done.is_set():
                for vehicle, _ in night.vehicles[:20]:
                    found = store.vehicle(vehicle.plate)
                    assert found in (record(vehicle.plate), record(vehicle.plate, seed=1))
        except BaseException as exc:
            failures.append(exc)
            raise

    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        threads = [threading.Thread(target=ask, args=(store,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            night.publish(vehicles=fleet(60, seed=turn % 2))
            night.device(tmp_path).client().refresh()
        done.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_the_folder_may_have_an_odd_name(tmp_path: Path) -> None:
    root = tmp_path / "a b?c#d%20"
    night = publish(root)
    with closing(StatusStore(root, EPOCH_KEY)) as store:
        assert store.vehicle(night.vehicles[0][0].plate) is not None


def test_looking_up_writes_nothing(tmp_path: Path) -> None:
    night = publish(tmp_path)
    folder = (tmp_path / "current").resolve()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with closing(StatusStore(tmp_path, EPOCH_KEY)) as store:
        store.vehicle(night.vehicles[0][0].plate)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert stat.S_ISLNK((tmp_path / "current").lstat().st_mode)
