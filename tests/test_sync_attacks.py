"""Attacks on the distribution, over HTTP against the real client: the set in use stays, and the next good run succeeds.

The attacker serves what he likes. Where a test says so he also holds keys, and signs with them as well as he can.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, TargetFile  # type: ignore[attr-defined]

from scripts.sandbox.hot import HotRows, sign_hot
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.publisher_metadata import SignedMetadata
from scripts.sandbox.server import Answer, serve, serve_answers
from tests.nightly import Device, Night, trust_list
from tests.syncing import copy_of, device_behind, first_night, index_of, index_path, publish_seed, recovers, seed_in_use
from tests.test_net import OK, raw_server
from verifier.cache.state import Marks
from verifier.codec.hot import MAX_HOT, HotListError
from verifier.codec.index import decode_index, encode_index
from verifier.errors import DigestError, FetchError, RejectedError, RollbackError, SyncError
from verifier.net import HttpFetcher
from verifier.repository import ENTRIES_TARGET, ExpiredError, SignatureError, index_target
from verifier.sync import sync_history
from verifier.sync_report import SyncOutcome, SyncReport


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """What no test changes."""
    return device_behind(first_night(), tmp_path_factory.mktemp("behind") / "cache", hours=12)


@pytest.fixture
def device(behind: Device, tmp_path: Path) -> Device:
    return copy_of(behind, tmp_path / "cache")


@pytest.fixture
def night(device: Device) -> Night:
    return device.night


def sync(device: Device, url: str) -> SyncReport:
    with HttpFetcher(url, read_timeout=2, total_timeout=5) as fetcher:
        return device.client(fetcher=fetcher).refresh()


def fails(device: Device, store: Mapping[str, bytes], error: type[SyncError] | tuple[type[SyncError], ...]) -> str:
    """A sync from the attacker's server that must fail so."""
    before = seed_in_use(device)
    with serve(store) as server, pytest.raises(error) as caught:
        sync(device, server.url)
    assert seed_in_use(device) == before
    assert sync_history(device.root).last_failure == str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------- who only serves what there was


@pytest.mark.parametrize("lost", [(), ("trust",), ("state.db",)])
def test_rollback(device: Device, night: Night, lost: tuple[str, ...]) -> None:
    """Yesterday's publication, whole and well signed, its timestamp still in force."""
    yesterday = dict(night.store)
    night.clock.move(hours=12)
    publish_seed(night, 2)
    with serve(night.store) as server:
        sync(device, server.url)
    for name in lost:
        path = device.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    fails(device, yesterday, RollbackError)
    recovers(device, 2)


def test_freeze(device: Device, night: Night) -> None:
    """The same publication day after day, while the publisher has long signed others."""
    frozen = dict(night.store)
    with serve(frozen) as server:
        sync(device, server.url)
    night.clock.move(hours=49)
    publish_seed(night, 2)
    assert "expired" in fails(device, frozen, ExpiredError)
    recovers(device, 2)


MIXES = {
    "an older role under the newer snapshot": ("metadata/2.nightly-national.json", "metadata/1.nightly-national.json"),
    "an older snapshot under the newer timestamp": ("metadata/2.snapshot.json", "metadata/1.snapshot.json"),
    "an older trust list under the newer targets": ("metadata/2.targets.json", "metadata/1.targets.json"),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mix_and_match(device: Device, night: Night, mix: str) -> None:
    """Parts of two publications that never were one."""
    new, old = MIXES[mix]
    fails(device, night.store | {new: night.store[old]}, (DigestError, RollbackError))
    recovers(device)


def test_mix_and_match_of_the_indexs_bytes(device: Device, night: Night) -> None:
    old = next(p for p in night.store if p.startswith("targets/nightly/") and decode_index(night.store[p]).seq == 1)
    fails(device, night.store | {index_path(night): night.store[old]}, (DigestError, RejectedError))
    recovers(device)


@pytest.mark.parametrize(
    "what", ["metadata/timestamp.json", "metadata/2.snapshot.json", "targets/nightly", "delta/", "tsl/"]
)
def test_endless_data_longer_than_what_was_signed(device: Device, night: Night, what: str) -> None:
    """A well-formed answer of many megabytes in place of each object."""

    def respond(target: str) -> Answer:
        path = target.lstrip("/")
        data = bytes(8 << 20) if path.startswith(what) else night.store.get(path)
        return Answer(404) if data is None else Answer(200, data)

    with serve_answers(respond) as server, pytest.raises(FetchError):
        sync(device, server.url)
    assert seed_in_use(device) == 0
    recovers(device)


@pytest.mark.parametrize("head", [OK, OK + b"Transfer-Encoding: chunked\r\n", OK + b"Content-Length: 999999999\r\n"])
def test_endless_data_that_never_end(device: Device, head: bytes) -> None:
    def answer(connection: Any) -> None:
        connection.sendall(head + b"\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    with raw_server(answer) as url, pytest.raises(FetchError):
        sync(device, url)
    assert seed_in_use(device) == 0
    recovers(device)


def test_a_captive_portal_is_no_publication(device: Device) -> None:
    page = Answer(200, b"<html>please log in</html>", "text/html")
    with serve_answers(lambda _: page) as server, pytest.raises(SyncError):
        sync(device, server.url)
    assert seed_in_use(device) == 0
    recovers(device)


# ---------------------------------------------------------------------------------- who also holds some keys


@contextmanager
def signing(night: Night, **stolen: str) -> Iterator[tuple[dict[str, bytes], SignedMetadata]]:
    """A copy of the store, and who signs roles in it with stolen keys: role (with _ for -) = whose key it is."""
    ours = night.publisher._keys
    own = {role: ours.private(role) for role in ("root", "targets", "snapshot", "timestamp")}
    keys = PublisherKeys(own | {role.replace("_", "-"): ours.private(key) for role, key in stolen.items()})
    store = dict(night.store)
    yield store, SignedMetadata(store, night.clock, keys)


def forged_index(night: Night, region: str = "national") -> bytes:
    """An index under the next number that would put nothing in place of everything."""
    index = index_of(night)
    return encode_index(
        replace(index, region=region, seq=index.seq + 1, base=replace(index.base, seq=index.seq + 1), deltas=())
    )


@pytest.fixture
def two_regions(device: Device, night: Night) -> Night:
    """The repository with a second region in it, whose keys will be stolen."""
    yue = night.publisher.of_region("yue")
    other = Night(
        store=night.store, clock=night.clock, publisher_keys=night.publisher._keys, region="yue", trust_version=2
    )
    other.publisher = yue
    other.publish(entries=trust_list(7), policy=policy_of(night), policy_version=2, scope="province", covers=("粤",))
    return night


def policy_of(night: Night) -> bytes:
    return next(d for p, d in night.store.items() if p.startswith("targets/policy/") and b'"version": 2' in d)


def test_key_compromise_a_provinces_key_cannot_sign_the_index_of_another(two_regions: Night, device: Device) -> None:
    """With the keys of snapshot and timestamp too: a role signed by the wrong key."""
    with signing(two_regions, nightly_national="nightly-yue") as (store, forger):
        target = forger.target(index_target("national"), forged_index(two_regions), {"version": 3})
        forger.sign_nightly("national", target)
        forger.sign_snapshot("national")
        forger.sign_timestamp()
        assert "signature" in fails(device, store, SignatureError)


def test_key_compromise_a_province_cannot_name_the_index_of_another(two_regions: Night, device: Device) -> None:
    """With the keys of snapshot and timestamp too: the right role and key, but a path that is not delegated to it."""
    with signing(two_regions, nightly_yue="nightly-yue") as (store, forger):
        target = forger.target(index_target("national"), forged_index(two_regions), {"version": 3})
        forger.sign_nightly("yue", target)
        forger.sign_snapshot("yue")
        forger.sign_timestamp()
        with serve(store) as server:
            assert sync(device, server.url).seq_after == 2  # the region's own role is asked and nobody else
    assert seed_in_use(device) == 1


def test_key_compromise_a_province_cannot_give_out_its_index_as_anothers(two_regions: Night, device: Device) -> None:
    """All online keys are stolen, the targets key too, and only the index says whose it is."""
    with signing(two_regions, nightly_national="nightly-national") as (store, forger):
        target = forger.target(index_target("national"), forged_index(two_regions, "yue"), {"version": 3})
        forger.sign_nightly("national", target)
        forger.sign_snapshot("national")
        forger.sign_timestamp()
        assert "region" in fails(device, store, SyncError)


@pytest.mark.parametrize("key", ["nightly-national", "nightly-yue", "hot-national"])
def test_key_compromise_a_nightly_key_cannot_sign_the_trust_list(two_regions: Night, device: Device, key: str) -> None:
    store = dict(two_regions.store)
    newest = max(p for p in store if p.endswith(".targets.json"))
    metadata: Metadata[Any] = Metadata.from_bytes(store[newest])
    forged = TargetFile.from_data(ENTRIES_TARGET, trust_list(1, seed=9), ["sha256"])
    metadata.signed.targets[ENTRIES_TARGET] = forged
    with signing(two_regions, targets=key) as (_, forger):
        metadata.sign(forger._keys["targets"])
    store[newest] = metadata.to_bytes()
    fails(device, store, (SignatureError, DigestError, RejectedError))


def test_key_compromise_a_nightly_role_cannot_carry_a_trust_list(two_regions: Night, device: Device) -> None:
    """Its role names one, well signed; the device asks the targets role for it and takes that one."""
    with signing(two_regions, nightly_national="nightly-national") as (store, forger):
        forged = forger.target(ENTRIES_TARGET, trust_list(1, seed=9), {"version": 99, "least": 1})
        forger.sign_nightly("national", forged)
        forger.sign_snapshot("national")
        forger.sign_timestamp()
        assert "not in the signed distribution" in fails(device, store, SyncError)


def test_key_compromise_a_hot_key_cannot_sign_nightly_data(two_regions: Night, device: Device) -> None:
    with signing(two_regions, nightly_national="hot-national") as (store, forger):
        target = forger.target(index_target("national"), forged_index(two_regions), {"version": 3})
        forger.sign_nightly("national", target)
        forger.sign_snapshot("national")
        forger.sign_timestamp()
        assert "signature" in fails(device, store, SignatureError)


ALONE: dict[str, Callable[[SignedMetadata], None]] = {
    "timestamp": lambda forger: forger.sign_timestamp(),
    "snapshot": lambda forger: (forger.sign_snapshot("national"), forger.sign_timestamp())[1],
}


@pytest.mark.parametrize("role", ALONE)
def test_key_compromise_timestamp_and_snapshot_alone_bring_nothing_new(
    two_regions: Night, device: Device, role: str
) -> None:
    """They can be signed anew over what there is, and the device takes what there is."""
    with signing(two_regions) as (store, forger):
        ALONE[role](forger)
        with serve(store) as server:
            assert sync(device, server.url).outcome is SyncOutcome.DELTAS
    assert seed_in_use(device) == 1


def test_key_compromise_a_stolen_nightly_key_is_worth_nothing_after_the_next_targets(
    device: Device, night: Night
) -> None:
    """The publisher takes another key for the region's role; what the thief signs then is a stranger's."""
    stolen = night.publisher._keys.private("nightly-national")
    private = {role: night.publisher._keys.private(role) for role in ("root", "targets", "snapshot", "timestamp")}
    night.publisher = Publisher(night.store, night.clock, keys=PublisherKeys(dict(private)), chunk=night.chunk)
    publish_seed(night, 1)
    with serve(night.store) as server:
        assert sync(device, server.url).seq_after == 3
    store = dict(night.store)
    forger = SignedMetadata(store, night.clock, PublisherKeys(private | {"nightly-national": stolen}))
    target = forger.target(index_target("national"), forged_index(night), {"version": 4})
    forger.sign_nightly("national", target)
    forger.sign_snapshot("national")
    forger.sign_timestamp()
    with serve(store) as server, pytest.raises(SignatureError, match="signature"):
        sync(device, server.url)
    # The thief had the keys of snapshot and timestamp too: the next night goes above the numbers that he has used.
    night.publisher.renew()
    publish_seed(night, 2)
    with serve(night.store) as server:
        assert sync(device, server.url).seq_after == 4


def test_key_compromise_an_index_from_the_years_to_come_does_not_move_the_clock_floor(
    device: Device, night: Night
) -> None:
    """Whoever has the nightly key chooses its date; a floor of that date would outlive every rotation of keys."""
    store = dict(night.store)
    forger = SignedMetadata(store, night.clock, night.publisher._keys)
    forged = encode_index(replace(index_of(night), issued_at=night.clock() + timedelta(days=27_000)))
    forger.sign_nightly("national", forger.target(index_target("national"), forged, {"version": 3}))
    forger.sign_snapshot("national")
    forger.sign_timestamp()
    with serve(store) as server, pytest.raises(SyncError, match="after its time stamp"):
        sync(device, server.url)
    assert seed_in_use(device) == 0
    for seed in (2, 3):  # above the numbers that the thief has used
        publish_seed(night, seed)
    with serve(night.store) as server:
        sync(device, server.url)
    assert seed_in_use(device) == 3


HOT_PATH = "hot/national/head.cose"


def hot_list(night: Night, key: str = "hot-national", **fields: object) -> bytes:
    """The published hot list with other fields, signed with one of the keys."""
    hot = night.publisher.hot()
    assert hot is not None
    return sign_hot(replace(hot, **fields), night.publisher._keys.private(key))  # type: ignore[arg-type]


HOT_ATTACKS: dict[str, tuple[Callable[[Night, bytes], bytes], type[SyncError]]] = {
    "rollback": (lambda _, old: old, RollbackError),
    "another content under the same number": (lambda night, _: hot_list(night, rows={1: None}), RollbackError),
    "endless data": (lambda _night, _: bytes(MAX_HOT + 1), RejectedError),
    "mix and match: for another night": (lambda night, _: hot_list(night, nightly_seq=9, hot_seq=99), SyncError),
    "key compromise: nightly": (lambda night, _: hot_list(night, "nightly-national", hot_seq=99), HotListError),
    "key compromise: timestamp": (lambda night, _: hot_list(night, "timestamp", hot_seq=99), HotListError),
    "key compromise: another region's": (lambda night, _: hot_list(night, "hot-yue", hot_seq=99), HotListError),
}


@pytest.mark.parametrize("attack", HOT_ATTACKS)
def test_attacks_on_the_hot_list(two_regions: Night, device: Device, attack: str) -> None:
    make, error = HOT_ATTACKS[attack]
    device.client().refresh()
    old = two_regions.store[HOT_PATH]
    two_regions.clock.move(minutes=5)
    two_regions.publisher.publish_hot(HotRows({7: None}))
    device.client().refresh_hot()
    held = (device.root / "hot.cose").read_bytes()
    store = two_regions.store | {HOT_PATH: make(two_regions, old)}
    with serve(store) as server, HttpFetcher(server.url) as fetcher, pytest.raises(error):
        device.client(fetcher=fetcher).refresh_hot()
    assert (device.root / "hot.cose").read_bytes() == held
    assert device.client().refresh_hot().fresh


def test_freeze_of_the_hot_list(device: Device, night: Night) -> None:
    """The same list hour after hour, while the publisher has long signed others."""
    frozen = dict(night.store)
    with serve(frozen) as server, HttpFetcher(server.url) as fetcher:
        device.client(fetcher=fetcher).refresh()
        device.client(fetcher=fetcher).refresh_hot()
        night.clock.move(minutes=61)
        with pytest.raises(ExpiredError, match="past its time"):
            device.client(fetcher=fetcher).refresh_hot()
    night.publisher.renew_hot()
    assert not device.client().refresh_hot().fresh


def test_key_compromise_another_repositorys_keys_are_strangers(device: Device, tmp_path: Path) -> None:
    stranger = Night(clock=device.night.clock)
    for seed in range(3):
        publish_seed(stranger, seed)
    shutil.rmtree(device.root / "trust")
    assert "signature" in fails(device, stranger.store, SignatureError)
    recovers(device)


def test_a_version_beyond_all_numbers_costs_no_mark(device: Device) -> None:
    """A mistake at the source, such as nanoseconds for a version: state.db must not become one that is thrown away."""
    device.night.publish(trust_version=1_800_000_000_000_000_000)
    with pytest.raises(RollbackError):
        device.client().refresh()
    assert not Marks(device.root / "state.db").lost
    device.night.publish(trust_version=2)
    device.client().refresh()
