"""What befell others who check documents on the road, and that it does not happen here: seven incidents, a test each.

docs/reliability.md tells them. All of it runs on the real sync, verification, decision and clock.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts.sandbox.fleet import CITIES
from scripts.sandbox.publisher import Publisher
from tests import fault_proxy as faults
from tests.centres import Handset, OnlineWorld
from tests.fault_proxy import Wire, fault_proxy
from tests.test_late_answers import code_of
from tests.test_sandbox_events import LIVE, PRINTED, START, MemoryFetcher, World, signed_by_thief
from tests.torture.cards import forms
from verifier.adapters import code_evidence
from verifier.codec.credential import encode
from verifier.decide import decide
from verifier.errors import FetchError, SyncError
from verifier.link import Mode
from verifier.net import HttpFetcher
from verifier.policy import Policy
from verifier.snapshot import ExpiredError
from verifier.trust import TrustList, dump_entries, load_trust_list
from verifier.types import CodeFault, Evidence, KeyState, Month
from verifier.verdict import Reason, Tone, VerdictCode

EARLIER = START - timedelta(days=5)
V = VerdictCode


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.device.store.close()


class CutOff(MemoryFetcher):
    """A connection that breaks after some files."""

    def __init__(self, store: Mapping[str, bytes], files: int) -> None:
        super().__init__(store)
        self.left = files

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        self.left -= 1
        if self.left < 0:
            raise FetchError(path, "no connection, or it broke off")
        yield from super().fetch(path, max_length)


def publish_trust(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a centre does that signs whatever list it has."""
    with monkeypatch.context() as careless:
        careless.setattr(Publisher, "_least", lambda *_: 0)
        world.authority.publish_trust()


@pytest.mark.parametrize("left", [0, 1, 16, 20])
def test_a_trust_list_that_loses_its_keys_is_refused_and_nothing_reads_forged(
    world: World, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Switzerland, 15 October 2021: the gateway was being maintained, and every certificate had a wrong signature."""
    cars = [world.good(city.code) for city in CITIES]
    codes = [world.authority.text(car.plate, PRINTED, EARLIER) for car in cars]
    held = world.device.store.trust_entries()
    keys = list(load_trust_list(held).keys.values())
    world.clock.move(hours=1)
    monkeypatch.setattr(world.authority.issuer, "trust_entries", lambda *_: dump_entries(keys[:left]))
    world.authority.trust_version += 1
    publish_trust(world, monkeypatch)
    world.sync()
    was_refused = world.device.store.trust_entries() == held
    assert was_refused is (left < len(keys) / 2)
    verdicts = [world.check(code) for code in codes]
    assert not was_refused or {verdict.code for verdict in verdicts} == {V.VALID}
    # Where so few were lost that it may have been meant, their drivers have cars that the register knows.
    lost = [verdict for verdict in verdicts if verdict.code is not V.VALID]
    assert {(verdict.code, verdict.tone) for verdict in lost} <= {(V.UNTRUSTED_ISSUER, Tone.CAUTION)}
    assert all(world.check(code, car.plate).code is V.VALID for code, car in zip(codes, cars, strict=True))
    # And were there no list at all: nobody is called a forger for a key that we do not have.
    for code in codes:
        evidence = code_evidence(code.encode(), TrustList(()), world.clock())
        verdict = decide(Evidence(code=evidence), Policy(), world.clock())
        assert (evidence.fault, verdict.code, verdict.tone) == (
            CodeFault.UNKNOWN_KEY, V.UNTRUSTED_ISSUER, Tone.CAUTION
        )  # fmt: skip


def test_data_that_nobody_signs_any_more_grow_old_on_a_device_that_goes_on_working(world: World) -> None:
    """Austria, 15 November 2021: the list was not signed anew, and for two days every certificate was refused."""
    car, gone = world.good(), world.good(nth=1)
    code = world.authority.text(car.plate, PRINTED, EARLIER)
    world.registry.set_status(gone.plate, "E")
    world.next_night()
    seen = []
    for hours in (1, 48, 48, 96):
        world.clock.move(hours=hours)
        if hours > 1:
            with pytest.raises(ExpiredError):
                world.sync()
        seen.append(world.check(code))
        assert world.check(plate=gone.plate).tone is Tone.STOP, "a permanent fact stays true"
    assert [verdict.code for verdict in seen] == [V.VALID, V.VALID_STALE, V.VALID_STALE, V.SIGNED_ONLY]
    assert all(verdict.tone is not Tone.STOP for verdict in seen)
    world.next_night()
    assert world.check(code).code is V.VALID


def test_a_revoked_credential_stays_revoked_and_a_stolen_key_is_killed_by_one_sync(world: World) -> None:
    """October 2021: certificates for "Adolf Hitler", revoked on the 27th and valid again on the 28th."""
    car, other = world.good("440300"), world.good("110000")
    code = world.authority.text(car.plate, PRINTED, EARLIER)
    fine = dict(world.store)
    world.clock.move(hours=1)
    world.registry.revoke(car.plate)
    world.authority.publish()
    world.sync()
    assert world.check(code).code is V.REVOKED
    for hours in (1, 24, 24 * 30):
        world.clock.move(hours=hours)
        with pytest.raises(SyncError):
            world.sync(MemoryFetcher(fine))
        assert world.check(code).code is V.REVOKED, "what was published before does not bring it back, nor does age"
    world.next_night()
    assert world.check(code).code is V.REVOKED
    mass = [signed_by_thief(world, "440300", START + timedelta(days=n)) for n in (-20, -1, 0)]
    kept = world.authority.text(other.plate, PRINTED, EARLIER)
    world.rotate("440300", KeyState.COMPROMISED)
    world.trust_reaches_the_device()
    assert [world.fault(text) for text in mass] == [CodeFault.KEY_COMPROMISED] * 3
    assert all(world.check(text).tone is Tone.CAUTION for text in mass)
    assert world.check(kept, other.plate).tone is Tone.PASS, "another city's drivers notice nothing"


@pytest.mark.parametrize("year", [1970, 2020, 2026, 2038, 2099])
def test_a_wrong_clock_is_told_as_that_and_turns_no_verdict(world: World, year: int) -> None:
    """VerificaC19 and others: any time that the system showed was believed, and a wrong one had the wrong message."""
    car, overdue = world.good(), world.good(nth=1)
    world.registry.lapse(overdue.plate, Month.at(START).plus(-2))
    world.next_night()
    assert world.check(plate=car.plate).tone is Tone.PASS
    assert world.check(plate=overdue.plate).tone is Tone.STOP
    right, world.clock.now = world.clock.now, datetime(year, 1, 19, 3, 14, 8, tzinfo=UTC)
    for plate in (car.plate, overdue.plate):
        verdict = world.check(plate=plate)
        assert (verdict.code, Reason.CLOCK_SUSPECT in verdict.reasons) == (V.UNDECIDED, True)
    code = world.authority.issuer.text(world.authority.credential(car.plate, LIVE, EARLIER), shown_at=START)
    assert world.check(code).tone not in (Tone.PASS, Tone.STOP)
    world.clock.now = right + timedelta(hours=1)
    assert world.check(plate=car.plate).tone is Tone.PASS


def test_an_update_never_holds_the_scanner_and_half_of_one_never_looks_fresh(world: World, tmp_path: Path) -> None:
    """VerificaC19: stuck at the start, partial lists, and a failed download that left the state "valid" for a day."""
    car = world.good()
    code = world.authority.text(car.plate, PRINTED, EARLIER)
    before = world.device.store.info()
    world.clock.move(hours=30)
    world.authority.publish()
    failed: list[SyncError] = []

    def sync(url: str) -> None:
        try:
            with HttpFetcher(url, read_timeout=30, total_timeout=30) as fetcher:
                world.sync(fetcher)
        except SyncError as exc:
            failed.append(exc)

    with fault_proxy(faults.silent, "") as proxy:
        thread = threading.Thread(target=sync, args=(proxy.url,))
        thread.start()
        while not proxy.connections:
            assert thread.is_alive()
        verdicts = [world.check(code) for _ in range(20)]
        assert thread.is_alive(), "the sync hung all the while"
        proxy.closing.set()
        thread.join()
    assert failed
    for requests in itertools.count():
        try:
            world.sync(CutOff(world.store, requests))
        except FetchError:
            assert (world.device.store.info().seq, world.device.store.info().as_of) == (before.seq, before.as_of)
            verdicts.append(world.check(code))
        else:
            break
    assert requests > 4
    assert {verdict.code for verdict in verdicts} == {V.VALID_STALE}
    assert world.check(code).code is V.VALID


def test_a_new_key_is_used_before_every_device_has_it_and_no_code_of_either_key_reads_forged(world: World) -> None:
    """Ramzor and others: issuers had the new key a day before the verifiers did."""
    car = world.good("440300")
    old = world.authority.text(car.plate, PRINTED, EARLIER)
    world.clock.move(hours=2)
    world.rotate("440300")
    world.clock.move(seconds=60)
    new = signed_by_thief(world, "440300", world.clock() - timedelta(seconds=30))  # the old key, after its end
    fresh = world.authority.text(car.plate, PRINTED)
    assert world.check(old).code is V.VALID
    unknown = world.check(fresh)
    assert (unknown.code, unknown.tone) == (V.UNTRUSTED_ISSUER, Tone.CAUTION)
    assert world.check(fresh, car.plate).tone is not Tone.STOP
    world.trust_reaches_the_device()
    assert [world.check(text, car.plate).code for text in (old, fresh)] == [V.VALID, V.VALID]
    assert world.fault(new) is CodeFault.KEY_WINDOW
    issuer = world.authority.issuer
    early = world.authority.credential(car.plate, PRINTED, START - timedelta(days=1))
    assert world.fault(issuer.text(early)) is None, "what is dated before the change is signed with the key of its day"
    from_before_its_time = issuer.sign(early, issuer.keys["440300"])
    assert world.fault(encode(from_before_its_time)) is CodeFault.KEY_WINDOW


def test_a_look_up_carries_no_plate_and_a_shift_without_the_centre_asks_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Officers' searches and their reasons found by search engines; and a service that was away for four hours."""
    caplog.set_level(logging.DEBUG)
    online, heads = OnlineWorld(), list[bytes]()
    (home := tmp_path / "home").mkdir()
    online.sync(home)
    online.now = START + timedelta(days=3)
    car = online.vehicle()

    def watched(wire: Wire) -> None:
        faults.clean(wire)
        heads.append(wire.head)

    with online.serving() as url, fault_proxy(watched, url) as proxy:
        hand = Handset(online, home, proxy.url)
        assert len(hand.check(car.plate, code_of(online, car.plate))) == 2
        hand.close()
        offline = Handset(online, home, proxy.url, mode=Mode.OFFLINE)
        asked = proxy.connections
        for _ in range(12):
            online.now += timedelta(hours=1)
            (result,) = offline.check(car.plate)
            assert result.verdict.tone is not Tone.STOP
        offline.close()
        assert proxy.connections == asked == 1
    everything = b"\n".join([*heads, *proxy.requests, caplog.text.encode()])
    assert heads[0].startswith(b"POST ")
    for form in forms(car.plate):
        assert form not in everything
