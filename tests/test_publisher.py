"""The publisher: what it makes of a night, in which order, and what it refuses to sign."""

from __future__ import annotations

import random
from collections.abc import Mapping, MutableMapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from scripts.sandbox import nightly
from scripts.sandbox.nightly import Change, PublicationError, State
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.regions import NATIONAL, PROVINCES, WATCH, region_of
from tests.nightly import EPOCH_KEY, Device, FakeClock, Night, fleet, record, trust_list
from verifier.cache.build import build_base
from verifier.cache.keys import KeyHasher
from verifier.cache.store import StatusStore
from verifier.codec.delta import Delta, encode_delta
from verifier.codec.index import DeltaEntry, Index, decode_index
from verifier.errors import SyncError
from verifier.plates import PROVINCES as CHARACTERS
from verifier.sync import sync_history
from verifier.sync_report import SyncOutcome
from verifier.trust import load_trust_list
from verifier.types import Month, Plate, Serial, StatusLetter, VehicleRecord


def changed(
    vehicles: list[tuple[VehicleRecord, str | None]], n: int, seed: int = 1
) -> list[tuple[VehicleRecord, str | None]]:
    """The same fleet with other facts for the first n."""
    other = {v.plate: record(v.plate, seed) for v, _ in vehicles[:n]}
    return [(other.get(v.plate, v), tid) for v, tid in vehicles]


def latest(store: Mapping[str, bytes], region: str = "national") -> Index:
    indexes = [decode_index(data) for path, data in store.items() if path.startswith(f"targets/nightly/{region}/")]
    return max(indexes, key=lambda index: index.seq)


def answers(device: Device, vehicles: list[tuple[VehicleRecord, str | None]]) -> bool:
    """Whether a device that syncs now answers for every vehicle and tag as the register does."""
    device.client().refresh()
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        return all(
            store.vehicle(vehicle.plate) == vehicle
            and (tid is None or store.vehicle_by_tag(tid, vehicle.plate) == vehicle)
            for vehicle, tid in vehicles
        )


# ------------------------------------------------------------------------------------ delta or another base


def test_a_night_is_a_delta_on_the_first_base() -> None:
    night = Night()
    first = night.publish()
    assert (first.snapshot, first.rows, latest(night.store).min_client) == ("the first night", None, 1)
    night.vehicles = changed(night.vehicles, 5)
    second = night.publish()
    assert (second.snapshot, second.base_sha256) == (None, first.base_sha256)
    assert 5 <= (second.rows or 0) <= 15  # a plate, and where it has one its tag, in two ways
    index = latest(night.store)
    assert index.min_client == 2  # a client that knows no deltas would take the base for the whole
    assert [(d.seq_from, d.seq_to, d.rows) for d in index.deltas] == [(1, 2, second.rows)]


def test_after_so_many_nights_there_is_another_base(tmp_path: Path) -> None:
    night = Night(nights=3, vehicles=fleet(40))
    assert [night.publish().snapshot for _ in range(6)] == ["the first night", None, None, None, "after 3 nights", None]
    assert [(d.seq_from, d.seq_to) for d in latest(night.store).deltas] == [(5, 6)]
    assert answers(night.device(tmp_path), night.vehicles)


@pytest.mark.parametrize("nights", [-1, 91])
def test_a_chain_longer_than_an_index_may_name_is_refused(nights: int) -> None:
    with pytest.raises(ValueError, match="nights"):
        Night(nights=nights)


def test_another_base_on_request() -> None:
    night = Night(vehicles=fleet(40))
    night.publish()
    assert night.publish(snapshot=True).snapshot == "asked for"
    assert latest(night.store).deltas == ()


def test_another_epoch_key_makes_another_base(tmp_path: Path) -> None:
    night = Night(vehicles=fleet(40))
    night.publish()
    assert night.publish(epoch_key=bytes(32), key_epoch=2).snapshot == "another epoch key"
    assert night.publish(epoch_key=EPOCH_KEY, key_epoch=2).snapshot == "another epoch key"
    night.device(tmp_path).client().refresh()


def test_values_that_no_longer_fit_make_another_base(tmp_path: Path) -> None:
    night = Night()
    device = night.device(tmp_path)
    night.publish()
    few = [
        (replace(v, inspection_valid_until=Month(2299, 1)) if i < 60 else v, t) for i, (v, t) in enumerate(fleet(300))
    ]
    assert night.publish(vehicles=iter(few)).snapshot is None  # these are exact rows
    assert answers(device, few)
    far = [(replace(v, inspection_valid_until=Month(2299, 1)), t) for v, t in fleet(300)]
    assert night.publish(vehicles=iter(far)).snapshot == "its values no longer fit"
    assert answers(device, far)


@pytest.mark.parametrize("lost", ["chunk/", "delta/", "targets/nightly/"])
def test_what_cannot_be_read_back_makes_another_base(tmp_path: Path, lost: str) -> None:
    night = Night()
    night.publish()
    night.vehicles = changed(night.vehicles, 9)
    night.publish()
    for path in [p for p in night.store if p.startswith(lost)]:
        del night.store[path]
    night.vehicles = changed(night.vehicles, 12)
    assert "gone" in (why := str(night.publish().snapshot)) or "read back" in why
    assert answers(night.device(tmp_path), night.vehicles)


def test_a_damaged_chunk_is_not_built_upon() -> None:
    night = Night()
    night.publish()
    path = next(p for p in night.store if p.startswith("chunk/"))
    night.store[path] = night.store[path][:-1] + b"x"
    assert "read back" in str(night.publish().snapshot)


def test_many_nights_of_all_kinds_of_changes_give_the_register(tmp_path: Path) -> None:
    draw = random.Random(20270301)
    night = Night(nights=4)
    device, late = night.device(tmp_path / "daily"), night.device(tmp_path / "late")
    pool = fleet(120)
    outcomes = set()
    for turn in range(11):
        night.vehicles = [
            (record(v.plate, draw.randrange(3)), tid if draw.random() < 0.9 else None)
            for v, tid in pool
            if draw.random() < 0.9
        ]
        night.replated = {Serial(f"{i:024x}"): draw.choice(pool)[0].plate for i in range(10) if draw.random() < 0.7}
        night.publish()
        if turn % 3 == 2:
            assert answers(late, night.vehicles)
        outcomes.add(device.client().refresh().outcome)
        assert answers(device, night.vehicles)
        with closing(StatusStore(device.root, EPOCH_KEY)) as store:
            listed = {vehicle.plate for vehicle, _ in night.vehicles}
            assert not any(store.vehicle(v.plate) for v, _ in pool if v.plate not in listed)
            for i in range(10):
                found = store.credential(Serial(f"{i:024x}"), 7, 3, [v.plate for v, _ in pool])
                assert found is not None
                plate = night.replated.get(Serial(f"{i:024x}"))
                assert found.superseded_by_plate == (plate.text if plate else None)
        night.clock.move(hours=24)
    assert outcomes == {SyncOutcome.DELTAS, SyncOutcome.SNAPSHOT}


def test_sealed_blocks_go_on_from_night_to_night(tmp_path: Path) -> None:
    night = Night(vehicles=fleet(60))
    night.publisher = Publisher(night.store, night.clock, keys=night.publisher._keys, chunk=4096, sealed=True)
    device = night.device(tmp_path, epoch_key=EPOCH_KEY)
    assert night.publish().snapshot == "the first night"
    device.client().refresh()
    night.vehicles = changed(night.vehicles, 10)
    assert night.publish().snapshot is None
    assert device.client().refresh().outcome is SyncOutcome.DELTAS
    assert answers(device, night.vehicles)
    night.publisher = Publisher(night.store, night.clock, keys=night.publisher._keys, chunk=4096)
    assert night.publish().snapshot == "sealed otherwise than before"
    assert answers(device, night.vehicles)


def test_a_recheck_of_sealed_changes_under_another_key_is_a_sync_that_failed_and_no_damage(tmp_path: Path) -> None:
    night = Night(vehicles=fleet(60))
    night.publisher = Publisher(night.store, night.clock, keys=night.publisher._keys, chunk=4096, sealed=True)
    device = night.device(tmp_path, epoch_key=EPOCH_KEY)
    for vehicles in (night.vehicles, changed(night.vehicles, 10)):
        night.vehicles = vehicles
        night.publish()
        device.client().refresh()
    with pytest.raises(SyncError, match="epoch key"):
        device.client(epoch_key=bytes(32)).refresh(recheck=True)
    assert "epoch key" in (sync_history(tmp_path).last_failure or "")
    assert answers(device, night.vehicles)
    assert device.client().refresh(recheck=True).outcome is SyncOutcome.FRESH


# -------------------------------------------------------------------------------------------------- order


class Recording(dict[str, bytes]):
    """A store that remembers in which order it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def __setitem__(self, path: str, data: bytes) -> None:
        self.written.append(path)
        super().__setitem__(path, data)


KINDS = ("chunk/", "delta/", "tsl/", "targets/nightly", "targets/trust", "targets/policy", "nightly-national.json",
         "snapshot.json", "timestamp.json", "hot/")  # fmt: skip


def test_publication_goes_from_data_to_index_to_role_to_snapshot_to_timestamp() -> None:
    store = Recording()
    night = Night(store=store, vehicles=fleet(40))
    for data in ("chunk/", "delta/"):
        store.written.clear()
        night.publish()
        kinds = [kind for path in store.written for kind in KINDS if path.startswith(kind) or path.endswith(kind)]
        data_and_index = kinds[: kinds.index("targets/nightly") + 1]
        assert set(data_and_index) == {data, "tsl/", "targets/nightly"}
        assert kinds[-4:] == ["nightly-national.json", "snapshot.json", "timestamp.json", "hot/"]


# ----------------------------------------------------------------------------------------------- sign-off


class Forgetful(Publisher):
    """Loses one of the changed rows on the way into the delta."""

    def _put_delta(self, index: Index, old: State, new: State, change: Change, replayed: Path) -> DeltaEntry:
        middle = len(change.keys) // 2
        del change.keys[middle], change.values[middle]
        return super()._put_delta(index, old, new, change, replayed)


class Confused(Publisher):
    """Gives one of the changed rows the value of another."""

    def _put_delta(self, index: Index, old: State, new: State, change: Change, replayed: Path) -> DeltaEntry:
        place = next(i for i in range(1, len(change.values)) if change.values[i] != change.values[0])
        change.values[place] = change.values[0]
        return super()._put_delta(index, old, new, change, replayed)


class Misleading(Publisher):
    """Leaves out where the replated vehicles went."""

    def _put_delta(self, index: Index, old: State, new: State, change: Change, replayed: Path) -> DeltaEntry:
        change.replated.clear()
        return super()._put_delta(index, old, new, change, replayed)


@pytest.mark.parametrize("made_by", [Forgetful, Confused, Misleading])
def test_a_delta_that_does_not_give_the_register_is_not_signed(made_by: type[Publisher], tmp_path: Path) -> None:
    night = Night(made_by=made_by)
    night.publish()
    before = dict(night.store)
    device = night.device(tmp_path)
    with pytest.raises(PublicationError, match="replayed"):
        night.publish(
            vehicles=iter(changed(night.vehicles, 40)), replated={Serial("0a" * 12): night.vehicles[3][0].plate}
        )
    assert night.store == before
    assert answers(device, night.vehicles)


def test_a_lost_tombstone_is_noticed_by_the_number_of_rows() -> None:
    class Sparing(Publisher):
        def _put_delta(self, index: Index, old: State, new: State, change: Change, replayed: Path) -> DeltaEntry:
            del change.keys[0], change.values[0]
            return super()._put_delta(index, old, new, change, replayed)

    night = Night(made_by=Sparing)
    night.publish()
    with pytest.raises(PublicationError, match="number of rows"):
        night.publish(vehicles=iter(night.vehicles[10:]))


def test_a_night_that_changes_too_much_is_refused_until_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "SMALL", 20)
    night = Night(vehicles=fleet(600))  # 1,400 rows: 70 are one in twenty
    night.publish()
    before = dict(night.store)
    with pytest.raises(PublicationError, match=r"84 rows have changed, which is more than one in 20 of 1,400"):
        night.publish(vehicles=iter(fleet(600)[:564]))
    assert night.store == before
    for snapshot in (True, False):  # another base does not hide it
        with pytest.raises(PublicationError):
            night.publish(vehicles=iter(fleet(600)[:564]), snapshot=snapshot)
    assert night.publish(vehicles=iter(fleet(600)[:564]), accept_large=True).rows == 84
    assert night.publish(vehicles=iter(fleet(600)[:540])).rows == 56


def test_a_night_far_above_the_usual_is_refused_once_there_is_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "SMALL", 5)
    night = Night(vehicles=fleet(600))
    night.publish()
    for n in range(1, 8):
        assert night.publish(vehicles=iter(fleet(600)[: 600 - 6 * n])).rows == 14
        if n < 7:
            continue
        with pytest.raises(PublicationError, match="56 rows have changed, which is more than 3 times the 14"):
            night.publish(vehicles=iter(fleet(600)[: 600 - 6 * n - 24]))
    assert night.publish(vehicles=iter(fleet(600)[: 600 - 6 * 7 - 18])).rows == 42


def test_a_small_sandbox_is_not_hindered() -> None:
    night = Night()
    night.publish()
    assert night.publish(vehicles=iter(fleet(300, 1))).rows == 700  # every row


def test_half_a_fleet_under_another_key_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "SMALL", 20)
    night = Night()
    night.publish()
    with pytest.raises(PublicationError, match="150 rows"):
        night.publish(vehicles=iter(fleet(150)), epoch_key=bytes(32), key_epoch=2)


# ---------------------------------------------------------------------------------------------- trust list


def test_a_trust_list_that_lost_more_than_half_is_published_only_when_it_is_meant(tmp_path: Path) -> None:
    """And then devices take it, those too that slept through it; the next accident is refused all the same."""
    night = Night(keys=10)
    night.publish()
    device, sleeper = night.device(tmp_path / "a"), night.device(tmp_path / "b")
    for each in (device, sleeper):
        each.client().refresh()
    with pytest.raises(PublicationError, match="has 2 keys and should have 5 at least"):
        night.publish(entries=trust_list(2), trust_version=2)
    night.publish(entries=trust_list(2), trust_version=2, fewer_keys=True)
    assert device.client().refresh().notes == ()
    night.publish(entries=trust_list(3), trust_version=3)
    for each in (device, sleeper):
        assert each.client().refresh().notes == ()
        with closing(StatusStore(each.root, EPOCH_KEY)) as store:
            assert len(load_trust_list(store.trust_entries()).keys) == 3
    night.publish(entries=trust_list(12), trust_version=4)
    with pytest.raises(PublicationError):
        night.publisher.publish_trust(entries=trust_list(5), trust_version=5, policy=b"{}", policy_version=1)


@pytest.mark.parametrize("entries", [trust_list(0), b"\x80nonsense"])
def test_an_empty_or_unreadable_trust_list_is_never_published(entries: bytes) -> None:
    night = Night()
    night.publish()
    for meant in (False, True):
        with pytest.raises(PublicationError):
            night.publish(entries=entries, trust_version=2, fewer_keys=meant)


# ----------------------------------------------------------------------------------------------- provinces


def test_every_province_has_a_name_of_its_own() -> None:
    assert sorted(PROVINCES.values()) == sorted(CHARACTERS)
    for name, character in PROVINCES.items():
        assert region_of(name) == region_of(character)
        assert (region_of(name).scope, region_of(name).covers) == ("province", (character,))
    assert (region_of("national"), region_of("watch")) == (NATIONAL, WATCH)
    for bad in ("", "tibet", "粤B", "../up"):
        with pytest.raises(ValueError, match="no such region"):
            region_of(bad)


def test_a_region_holds_its_own_vehicles() -> None:
    guangdong = VehicleRecord(plate=Plate("粤B12345", "02"), status=frozenset({StatusLetter.NORMAL}),
                              inspection_valid_until=None, ecred_issued=True, ctp_until=None)  # fmt: skip
    stolen = replace(guangdong, plate=Plate("京A12345", "02"), status=frozenset({StatusLetter.STOLEN}))
    regions, month = map(region_of, ("national", "粤", "jing", "watch")), Month(2026, 11)
    held = {r.name: (r.holds(guangdong, month), r.holds(stolen, month)) for r in regions}
    assert held == {"national": (True, True), "yue": (True, False), "jing": (False, True), "watch": (False, True)}


def test_provinces_share_a_repository_and_each_has_its_own_key(tmp_path: Path) -> None:
    night = Night()
    night.publish()
    night.publisher.save_keys(tmp_path / "keys")
    whole, part = fleet(300), fleet(50)
    keys = PublisherKeys.load(tmp_path / "keys")
    for publisher in (Publisher(night.store, night.clock, keys=keys, chunk=4096).of_region("jing"),):
        night.publisher = publisher
        night.publish(vehicles=iter(part), scope="province", covers=("京",))
    # The key is on disk before anything is signed with it, so that the next process can go on.
    assert (tmp_path / "keys" / "nightly-jing.pem").stat().st_mode & 0o777 == 0o600
    again = PublisherKeys.load(tmp_path / "keys")
    night.publisher = Publisher(night.store, night.clock, "jing", keys=again, chunk=4096)
    part = changed(part, 9)
    assert night.publish(vehicles=iter(part), scope="province", covers=("京",)).snapshot is None
    device, province = night.device(tmp_path / "a"), night.device(tmp_path / "b")
    assert answers(device, whole)
    night.region = "jing"
    assert answers(province, part)
    with closing(StatusStore(province.root, EPOCH_KEY)) as store:
        assert (store.info().region, store.info().scope, store.info().covers) == ("jing", "province", ("京",))
        assert not store.covers(Plate("粤B12345", "02"))


def test_the_store_may_be_any_mapping() -> None:
    store: MutableMapping[str, bytes] = {}
    assert Publisher(store, FakeClock()).begun is False


# --------------------------------------------------------------------------------------------- collisions


class FewKeys(KeyHasher):
    """Identities have one of 64 keys: some alone, some with others, and not always the same ones."""

    def digest(self, person: bytes, canonical_bytes: bytes) -> bytes:
        digest = super().digest(person, canonical_bytes)
        return bytes((digest[0] % 64, 0, 0, 0, 0, 0)) + digest[6:]


def test_vehicles_that_share_a_key_are_told_apart_from_night_to_night(tmp_path: Path) -> None:
    """Whoever changes, comes or goes, the delta gives the register."""
    draw, hasher, pool = random.Random(7), FewKeys(EPOCH_KEY), fleet(60)
    paths = [tmp_path / f"{n}.db" for n in range(8)]
    build = partial(build_base, region="national", seq=1, epoch_key=EPOCH_KEY, key_epoch=1, hasher=hasher)
    base = build(paths[0], iter(pool[:20]))
    old = State(paths[0])
    for seq, path in enumerate(paths[1:], start=1):
        vehicles = [(record(v.plate, draw.randrange(2)), tid) for v, tid in pool if draw.random() < 0.4]
        build(path, iter(vehicles), scheme=base.scheme, apart=old.exact_keys())
        with closing(State(path)) as new:
            change = nightly.changes_between(old, new)
            delta = Delta(
                region="national", seq_from=seq, seq_to=seq + 1, base_seq=1, key_epoch=1, keys=change.keys,
                values=change.values, exact=change.exact,
            )  # fmt: skip
            encoded = encode_delta(delta)
            entry = DeltaEntry(
                seq_from=seq, seq_to=seq + 1, length=len(encoded), sha256=sha256(encoded).digest(),
                rows=len(change.keys),
            )  # fmt: skip
            out = tmp_path / f"changes-{seq}.db"
            nightly.sign_off(old, encoded, entry, new, out)
        old.close()
        old = State(paths[0], out)
    assert len(old.exact_keys()) > 10
    old.close()


def test_a_publisher_goes_on_where_vehicles_share_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("verifier.cache.build", "scripts.sandbox.publisher"):
        monkeypatch.setattr(f"{module}.KeyHasher", FewKeys)
    draw, pool, night = random.Random(3), fleet(40), Night()
    device = night.device(tmp_path)
    for _ in range(6):
        night.vehicles = [(record(v.plate, draw.randrange(2)), tid) for v, tid in pool if draw.random() < 0.5]
        night.publish()
        device.client().refresh()
        with closing(StatusStore(device.root, EPOCH_KEY, hasher=FewKeys(EPOCH_KEY))) as store:
            assert [store.vehicle(v.plate) for v, _ in night.vehicles] == [v for v, _ in night.vehicles]
        changed_again = [(record(v.plate, 2), tid) for v, tid in night.vehicles[5:]]
        night.publisher.publish_hot(
            night.publisher.hot_changes(vehicles=iter(changed_again), epoch_key=EPOCH_KEY, key_epoch=1)
        )
        device.client().refresh_hot()
        with closing(StatusStore(device.root, EPOCH_KEY, hasher=FewKeys(EPOCH_KEY))) as store:
            for vehicle, _ in changed_again:
                assert store.vehicle(vehicle.plate) == vehicle


def test_a_delta_that_no_device_could_apply_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(Publisher):
        def _put_delta(self, index: Index, old: State, new: State, change: Change, replayed: Path) -> DeltaEntry:
            return super()._put_delta(replace(index, key_epoch=9), old, new, change, replayed)

    night = Night(vehicles=fleet(40), made_by=Hasty)
    night.publish()
    with pytest.raises(PublicationError, match="could not apply"):
        night.publish()
