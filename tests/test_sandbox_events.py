"""What happens to vehicles, papers and keys in the sandbox's back office, and what the road sees of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from firmware.build import build_device
from firmware.config import REGION, Home
from scripts.cli.main import main
from scripts.sandbox.authority import EVENTS, KEY_EVENTS, Authority, AuthorityFolder, new_authority
from scripts.sandbox.encrypted import BlockError, open_block, seal
from scripts.sandbox.fleet import CITIES, IssueReason, Vehicle, fleet
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.issuer import ISSUE_REASON, NATIONAL, REASONS, Extras
from scripts.sandbox.keys import DAY, holder_signer
from scripts.sandbox.registry import ACTIVE, REVOKED, SUPERSEDED, Registry, RegistryError, city_of
from scripts.sandbox.server import serve
from tests.nightly import FakeClock
from verifier.adapters import code_evidence
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.codec.credential import ENCRYPTED, MARK, MAX_TEXT, decode, encode
from verifier.errors import RollbackError, SyncError
from verifier.net import Fetcher, HttpFetcher
from verifier.secret_files import write_secret
from verifier.sm2 import libcrypto
from verifier.sync import SyncClient
from verifier.trust import load_trust_list
from verifier.types import (
    Algorithm,
    CodeFault,
    Credential,
    KeyState,
    Month,
    Plate,
    PlateSeen,
    PresentationMode,
    Serial,
    SignatureState,
    StatusLetter,
)
from verifier.verdict import Action, Reason, Tone, Verdict, VerdictCode

START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
LIVE, STORED = PresentationMode.LIVE, PresentationMode.STORED
PRINTED, TAG_LABEL = PresentationMode.PRINTED, PresentationMode.TAG_LABEL
CARS = list(fleet(1000, 4, date(2026, 11, 22)))


class World:
    """An authority that has published once, a device that has synced, and the clock of both."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(START)
        self.store: dict[str, bytes] = {}
        self.authority: Authority = new_authority(self.store, clock=self.clock, scale=500, seed=3)
        self.registry = self.authority.registry
        self.authority.publish()
        home = Home(folder)
        write_secret(home.epoch_key, self.authority.epoch_key.hex().encode())
        self.cache = home.cache
        self.device = build_device(home, self.clock)
        self.sync()

    def sync(self, fetcher: Fetcher | None = None) -> None:
        root, key = self.authority.publisher.root_bytes(), self.authority.epoch_key
        fetcher = fetcher or MemoryFetcher(self.store)
        SyncClient(self.cache, fetcher, self.clock, root, REGION, epoch_key=key).refresh()

    def next_night(self) -> None:
        self.clock.move(hours=24)
        self.authority.publish()
        self.sync()

    def good(self, city: str | None = None, nth: int = 0) -> Vehicle:
        """A small car in order, and far from its month's end."""
        return [
            v
            for v in self.registry.vehicles.values()
            if v.status == {StatusLetter.NORMAL}
            and v.valid_until > Month.at(START).plus(3)
            and v.ctp_until > date(2027, 2, 1)
            and v.plate.kind == "02"
            and city in (None, v.city.code)
        ][nth]

    def check(self, text: str | None = None, plate: Plate | None = None) -> Verdict:
        seen = PlateSeen(plate=plate, confirmed=True) if plate else None
        code = text.encode() if text is not None else None
        return self.device.verifier.check(Observation(code=code, plate_seen=seen)).verdict

    def fault(self, text: str) -> CodeFault | None:
        """What is wrong with a code by the trust list that the device holds."""
        trust = load_trust_list(self.device.store.trust_entries())
        return code_evidence(text.encode(), trust, self.clock()).fault

    def rotate(self, issuer: str, state: KeyState = KeyState.RETIRED) -> None:
        self.authority.replace_key(self.authority.next_key(issuer), state)

    def trust_reaches_the_device(self) -> None:
        self.authority.publish_trust()
        self.sync()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.device.store.close()


def mark_of(text: str) -> dict[int, object]:
    return cbor.decode(decode(text.encode()).credential.payload)[MARK]


# -------------------------------------------------------------------------------------- the register alone

PLATES = [v.plate for v in CARS[:16]]
FREE = [Plate(f"{city.prefixes[0]}00{city.prefixes[0][-1]}0{n}", "02") for n, city in enumerate(CITIES[:6])]
MONTHS = st.integers(0, 40).map(Month(2026, 11).plus)
ANY = st.sampled_from(PLATES + FREE)
STEPS = st.one_of(
    st.tuples(st.just("renew"), ANY, MONTHS, st.sampled_from([IssueReason.INSPECTION, IssueReason.EXEMPT])),
    st.tuples(st.just("replate"), ANY, ANY),
    st.tuples(st.just("newcomer"), ANY, MONTHS),
    st.tuples(st.just("lapse"), ANY, MONTHS),
    st.tuples(st.just("set_status"), ANY, st.sampled_from(["A", "Q", "GQ", "C"])),
    st.tuples(st.just("reissue_city"), st.sampled_from([city.code for city in CITIES])),
    *(st.tuples(st.just(name), ANY) for name in ("reissue", "transfer", "lost_paper", "revoke")),
)


def carried_out(registry: Registry, step: tuple) -> bool:
    name, *values = step
    try:
        if name == "newcomer":
            registry.register(registry.newcomer(*values, day=date(2026, 11, 22)))
        else:
            getattr(registry, name)(*values)
    except RegistryError:
        return False
    return True


@given(st.lists(STEPS, max_size=40))
def test_a_vehicle_has_at_most_one_active_credential_and_no_serial_comes_twice(steps):
    registry = Registry(CARS[:16], seed=9)
    owners: dict[Serial, tuple[int, str]] = {}
    dead: set[int] = set()
    for step in [None, *steps]:
        before = bytes(registry.states), dict(registry.vehicles), dict(registry.replated)
        if step is not None and not carried_out(registry, step):
            assert (bytes(registry.states), registry.vehicles, registry.replated) == before
        active: set[int] = set()
        for plate, vehicle in registry.vehicles.items():
            entries = list(registry.credentials(plate))
            assert entries[0] == registry.credential(plate)
            for entry in entries:
                assert owners.setdefault(entry.serial, (entry.index, vehicle.vin)) == (entry.index, vehicle.vin)
            live = [entry for entry in entries if registry.states[entry.index] == ACTIVE]
            assert live in ([], [entries[0]])
            active |= {entry.index for entry in live}
            moved = {e.serial: registry.replated.get(e.serial, e.plate) for e in entries}
            assert set(moved.values()) == {plate}, "every credential leads to the plate on the car"
            assert city_of(plate.text) is vehicle.city
        assert active == {index for index, state in enumerate(registry.states) if state == ACTIVE}
        assert len(owners) == len(registry.states)
        assert not active & dead, "what was withdrawn stays so"
        dead |= set(range(len(registry.states))) - active


def test_every_reason_is_reached_by_an_event_and_carried_by_the_code(tmp_path):
    authority = new_authority({}, clock=FakeClock(START), scale=16, seed=1)
    registry, month = authority.registry, Month(2028, 11)
    plate = next(iter(registry.vehicles))
    told = []
    registry.register(registry.newcomer(new := Plate("粤B8D8D8", "02"), month, START.date()))
    told.append(mark_of(authority.text(new, STORED))[ISSUE_REASON])
    for event in (
        lambda: registry.renew(plate, month),
        lambda: registry.renew(plate, month, IssueReason.EXEMPT),
        lambda: registry.reissue(plate),
        lambda: registry.transfer(plate),
    ):
        event()
        told.append(mark_of(authority.text(plate, LIVE))[ISSUE_REASON])
    assert told == [1, 2, 3, 4, 5] == list(REASONS.values())
    assert REASONS.keys() == set(IssueReason)


def test_a_new_vehicle_is_like_those_of_its_city_and_no_other_has_its_vin():
    registry = Registry(CARS[:100], seed=9)
    vins = {v.vin for v in registry.vehicles.values()}
    for text, kind, types in (("粤B8D8D8", "02", "K3"), ("京A0F001", "02", "K"), ("粤BF00001", "52", "K3")):
        vehicle = registry.newcomer(Plate(text, kind), Month(2028, 11), date(2026, 11, 22))
        registry.register(vehicle)
        assert vehicle.vin not in vins
        vins.add(vehicle.vin)
        assert (vehicle.city, vehicle.plate) == (city_of(text), Plate(text, kind))
        assert vehicle.vehicle_type.startswith(types)
        assert (vehicle.status, vehicle.issue_reason) == ({StatusLetter.NORMAL}, IssueReason.REGISTRATION)
    plate = Plate("粤B8D8D8", "02")
    registry.replate(plate, Plate("粤B8D8D9", "02"))
    assert registry.newcomer(plate, Month(2028, 11), date(2026, 11, 22)).vin not in vins, "a plate may be given again"
    for text, kind in (("粤C12345", "02"), ("粤B1234挂", "15")):
        with pytest.raises(RegistryError):
            registry.newcomer(Plate(text, kind), Month(2028, 11), date(2026, 11, 22))


def test_a_reissue_replaces_the_document_and_leaves_the_vehicles_facts():
    registry = Registry(CARS[:16], seed=9)
    plate = PLATES[0]
    first, second = registry.credential(plate), registry.renew(plate, Month(2028, 1))
    facts = registry.vehicle(plate).record()
    third = registry.reissue(plate)
    assert [registry.states[e.index] for e in (first, second, third)] == [SUPERSEDED, SUPERSEDED, ACTIVE]
    assert registry.vehicle(plate).record() == facts


def test_a_transfer_leaves_plate_facts_and_what_was_revoked():
    registry = Registry(CARS[:16], seed=9)
    plate = PLATES[0]
    first, facts = registry.credential(plate), registry.vehicle(plate).record()
    second = registry.transfer(plate)
    registry.revoke(plate)
    third = registry.transfer(plate)
    assert [registry.states[e.index] for e in (first, second, third)] == [SUPERSEDED, REVOKED, ACTIVE]
    assert {e.plate for e in (first, second, third)} == {plate}
    assert (registry.vehicle(plate).record(), registry.replated) == (facts, {})


def test_a_lost_paper_changes_nothing_in_validity():
    registry = Registry(CARS[:16], seed=9)
    before = registry.credential(PLATES[0]), bytes(registry.states), dict(registry.vehicles)
    assert registry.lost_paper(PLATES[0]) == before[0]
    assert (registry.credential(PLATES[0]), bytes(registry.states), registry.vehicles) == before


# ---------------------------------------------------------------------------------- vehicles, on the road


def test_whoever_lost_the_paper_downloads_the_same_credential_and_is_valid(world):
    vehicle = world.good()
    lost = world.authority.text(vehicle.plate, PRINTED, START - timedelta(days=5))
    world.registry.lost_paper(vehicle.plate)
    world.next_night()
    for text in (lost, *(world.authority.text(vehicle.plate, mode) for mode in (STORED, PRINTED, LIVE))):
        assert world.check(text, vehicle.plate).code is VerdictCode.VALID
    assert world.check(lost, world.good(nth=1).plate).code is VerdictCode.MISMATCH, "the finder's car is another"


def test_a_paper_in_the_wrong_hands_is_revoked_and_the_owner_gets_another(world):
    vehicle = world.good()
    stolen = world.authority.text(vehicle.plate, PRINTED, START - timedelta(days=5))
    assert world.check(stolen).code is VerdictCode.VALID
    world.registry.revoke(vehicle.plate)
    world.registry.reissue(vehicle.plate)
    world.next_night()
    found = world.check(stolen)
    assert (found.code, found.tone) == (VerdictCode.REVOKED, Tone.STOP)
    assert Action.RELEASE not in found.actions
    assert Action.CHECK_VIN in found.actions
    assert Action.NO_PENALTY_NOT_SHOWN in found.actions, "the vehicle's own record stays valid"
    assert world.check(plate=vehicle.plate).code is VerdictCode.VALID
    for mode in (STORED, PRINTED, LIVE):
        assert world.check(world.authority.text(vehicle.plate, mode), vehicle.plate).code is VerdictCode.VALID


def test_a_new_code_is_good_before_the_device_knows_of_the_reissue(world):
    vehicle = world.good()
    world.registry.reissue(vehicle.plate)
    assert world.check(world.authority.text(vehicle.plate, STORED)).code is VerdictCode.VALID


def test_after_a_transfer_the_former_owners_code_is_superseded_as_a_note_and_the_new_owners_is_valid(world):
    vehicle = world.good("440300")
    former = {mode: world.authority.text(vehicle.plate, mode, START - timedelta(days=5)) for mode in (STORED, PRINTED)}
    phone = world.authority.credential(vehicle.plate, LIVE)
    world.registry.transfer(vehicle.plate)
    new = world.authority.text(vehicle.plate, STORED)
    for text in (*former.values(), new):  # the device does not know of it yet
        assert world.check(text, vehicle.plate).code is VerdictCode.VALID
    world.next_night()
    for text in (*former.values(), world.authority.issuer.text(phone, shown_at=world.clock())):
        for plate in (None, vehicle.plate):
            verdict = world.check(text, plate)
            assert (verdict.code, verdict.tone) == (VerdictCode.SUPERSEDED, Tone.NOTE)
            assert Reason.REPLATED not in verdict.reasons
            assert Action.RELEASE in verdict.actions
        assert world.check(text, world.good(nth=1).plate).code is VerdictCode.MISMATCH
    for mode in (STORED, PRINTED, LIVE):
        verdict = world.check(world.authority.text(vehicle.plate, mode), vehicle.plate)
        assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.PASS)


def test_after_a_change_of_plate_every_older_code_leads_to_the_new_one(world):
    vehicle = world.good("440300")
    oldest = world.authority.text(vehicle.plate, PRINTED, START - timedelta(days=9))
    world.registry.renew(vehicle.plate, vehicle.valid_until.plus(12))
    older = world.authority.text(vehicle.plate, STORED, START - timedelta(days=5))
    first, second = Plate("粤B8D8D8", "02"), Plate("京A8D8D8", "02")
    world.registry.replate(vehicle.plate, first)
    old = world.authority.text(first, STORED, START - timedelta(days=3))
    world.registry.replate(first, second)  # and to another city
    world.next_night()
    for text in (oldest, older, old):
        verdict = world.check(text, second)
        assert (verdict.code, Reason.REPLATED in verdict.reasons) == (VerdictCode.SUPERSEDED, True)
        assert world.check(text, world.good(nth=1).plate).code is VerdictCode.MISMATCH
    text = world.authority.text(second, STORED)
    assert world.check(text, second).code is VerdictCode.VALID
    assert world.check(text, second).tone is Tone.PASS


def test_a_vehicle_that_has_its_first_plate_back_has_not_changed_it(world):
    vehicle = world.good("440300")
    old = world.authority.text(vehicle.plate, STORED, START - timedelta(days=5))
    world.registry.replate(vehicle.plate, Plate("粤B8D8D8", "02"))
    world.registry.replate(Plate("粤B8D8D8", "02"), vehicle.plate)
    world.next_night()
    verdict = world.check(old, vehicle.plate)
    assert (verdict.code, Reason.REPLATED in verdict.reasons) == (VerdictCode.SUPERSEDED, False)


def test_a_newly_registered_vehicle_is_known_the_next_morning(world):
    plate = Plate("粤B8D8D8", "02")
    world.registry.register(world.registry.newcomer(plate, Month(2028, 11), START.date()))
    assert world.check(world.authority.text(plate, STORED)).code is VerdictCode.SIGNED_ONLY
    world.next_night()
    verdict = world.check(world.authority.text(plate, STORED), plate)
    assert (verdict.code, verdict.valid_until) == (VerdictCode.VALID, Month(2028, 11))


def cities_by_algorithm(world: World) -> dict[Algorithm, str]:
    return {key.alg: code for code, key in world.authority.issuer.keys.items() if code != NATIONAL}


@pytest.mark.parametrize("alg", Algorithm, ids=lambda alg: alg.name)
@pytest.mark.parametrize("mode", PresentationMode, ids=lambda mode: mode.value)
def test_every_mode_under_every_algorithm_is_valid(world, mode, alg):
    if alg is Algorithm.SM2 and libcrypto() is None:
        pytest.skip("this machine's libcrypto has no SM2")
    vehicle = world.good(cities_by_algorithm(world)[alg])
    text = world.authority.text(vehicle.plate, mode)
    assert len(text) <= MAX_TEXT
    assert world.fault(text) is None
    assert decode(text.encode()).credential.alg == alg
    verdict = world.check(text, vehicle.plate)
    assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.PASS)


# ------------------------------------------------------------------------------------------ issuers' keys


def signed_by_thief(world: World, issuer: str, issued_at: datetime) -> str:
    """What somebody with the issuer's first key makes: any vehicle, any date."""
    key = world.authority.issuer.former[0] if world.authority.issuer.former else world.authority.issuer.keys[issuer]
    vehicle = world.good(issuer)
    credential = replace(
        world.authority.credential(vehicle.plate, STORED, issued_at),
        serial=Serial("ab" * 12),
        valid_until=Month(2029, 1),
    )
    return encode(world.authority.issuer.sign(credential, key))


def test_after_a_rotation_the_old_codes_stay_good_and_the_old_key_makes_no_new_ones(world):
    vehicle = world.good("440300")
    codes = {mode: world.authority.text(vehicle.plate, mode) for mode in PresentationMode}
    world.clock.move(hours=2)
    world.rotate("440300")
    world.trust_reaches_the_device()
    world.clock.move(seconds=60)
    for mode in (STORED, PRINTED, TAG_LABEL):
        assert world.check(codes[mode], vehicle.plate).code is VerdictCode.VALID
        assert world.check(world.authority.text(vehicle.plate, mode), vehicle.plate).tone is Tone.PASS
    late = signed_by_thief(world, "440300", world.clock() - timedelta(seconds=59))
    assert world.fault(late) is CodeFault.KEY_WINDOW
    verdict = world.check(late)
    assert (verdict.code, verdict.tone) == (VerdictCode.UNTRUSTED_ISSUER, Tone.CAUTION)
    before = world.authority.text(vehicle.plate, PRINTED, START - timedelta(days=3))
    assert decode(before.encode()).credential.kid == decode(codes[PRINTED].encode()).credential.kid
    world.clock.move(days=799)
    assert world.fault(codes[PRINTED]) is not CodeFault.KEY_RETIRED
    world.clock.move(days=2)
    assert world.fault(codes[PRINTED]) is CodeFault.KEY_RETIRED


def test_several_keys_of_one_issuer_stand_in_the_list_side_by_side(world):
    for _ in range(3):
        world.clock.move(hours=1)
        world.rotate("440300")
    trust = load_trust_list(world.authority.issuer.trust_entries())
    keys = sorted((k for k in trust.keys.values() if k.issuer == "440300"), key=lambda k: k.not_before)
    assert [k.state for k in keys] == [KeyState.RETIRED] * 3 + [KeyState.ACTIVE]
    for old, new in pairwise(keys):
        assert old.not_after == new.not_before
        assert old.until == old.not_after + 800 * DAY
    assert world.authority.trust_version == 4


def test_what_a_stolen_key_signed_is_never_green_and_never_called_forged(world):
    vehicle, issuer = world.good("440300"), "440300"
    honest = world.authority.text(vehicle.plate, PRINTED, START - timedelta(days=5))
    world.clock.move(hours=2)
    world.rotate(issuer, KeyState.COMPROMISED)
    world.trust_reaches_the_device()
    for text in (honest, *(signed_by_thief(world, issuer, START + timedelta(days=n)) for n in (-20, 0))):
        assert world.fault(text) is CodeFault.KEY_COMPROMISED
        alone = world.check(text)
        assert (alone.code, alone.tone) == (VerdictCode.UNTRUSTED_ISSUER, Tone.CAUTION)
        assert Reason.QR_KEY_REVOKED in alone.reasons
        assert Action.RELEASE not in alone.actions
        typed = world.check(text, vehicle.plate)
        assert (typed.code, typed.tone) == (VerdictCode.VALID, Tone.NOTE), "the vehicle's own record decides"
    overdue = next(v for v in world.registry.vehicles.values() if StatusLetter.OVERDUE in v.status)
    assert world.check(honest, overdue.plate).tone in (Tone.STOP, Tone.CAUTION)


def test_after_a_theft_the_city_gets_new_credentials_and_others_keep_theirs(world):
    vehicle, revoked, other = world.good("440300"), world.good("440300", 1), world.good("110000")
    unissued = replace(world.good("440300", 2), ecred_issued=False)
    world.registry.vehicles[unissued.plate] = unissued
    world.registry.revoke(revoked.plate)
    old, kept = world.registry.credential(vehicle.plate), world.registry.credential(other.plate)
    world.clock.move(hours=2)
    world.rotate("440300", KeyState.COMPROMISED)
    new = world.registry.credential(vehicle.plate)
    assert (new.serial != old.serial, world.registry.states[old.index]) == (True, SUPERSEDED)
    assert world.registry.credential(other.plate) == kept
    assert world.registry.states[world.registry.credential(revoked.plate).index] == REVOKED, "no reason to give one"
    assert world.registry.vehicle(unissued.plate).ecred_issued is False
    world.trust_reaches_the_device()
    for mode in PresentationMode:  # at once, before the night that tells of the new serials
        text = world.authority.text(vehicle.plate, mode)
        assert mark_of(text)[ISSUE_REASON] == REASONS[IssueReason.REISSUE]
        assert world.check(text, vehicle.plate).code is VerdictCode.VALID
    world.next_night()
    assert world.check(world.authority.text(vehicle.plate, STORED)).code is VerdictCode.VALID


def test_a_retired_key_can_be_stolen_too(world):
    kid = world.authority.issuer.keys["440300"].entry.key_id
    world.clock.move(hours=2)
    world.rotate("440300")
    text = signed_by_thief(world, "440300", START - timedelta(days=3))
    world.trust_reaches_the_device()
    assert world.fault(text) is None, "nobody can tell a backdated code of a retired key"
    world.authority.withdraw_key("440300", kid)
    world.trust_reaches_the_device()
    assert world.fault(text) is CodeFault.KEY_COMPROMISED
    assert world.authority.trust_version == 3
    for issuer, wrong in (("440300", kid), ("110000", kid), ("440300", "00" * 8)):
        with pytest.raises(RegistryError):
            world.authority.withdraw_key(issuer, wrong)


def test_the_platforms_freshness_key_has_its_generations_too(world):
    vehicle = world.good("440300")
    before = world.authority.text(vehicle.plate, LIVE)
    world.clock.move(seconds=60)
    world.rotate(NATIONAL)
    world.trust_reaches_the_device()
    assert world.fault(before) is None
    assert world.fault(world.authority.text(vehicle.plate, LIVE)) is None
    earlier = world.authority.credential(vehicle.plate, LIVE, START - timedelta(days=2))
    picture = world.authority.issuer.text(earlier, shown_at=START - timedelta(days=1))
    assert world.fault(picture) is CodeFault.STALE_PRESENTATION, "a forwarded picture from before the change is a note"
    retired = world.authority.issuer.former[0].entry
    assert retired.until - retired.not_after == 35 * DAY, "as long as the credential in a forwarded picture lives"
    stale = world.authority.text(vehicle.plate, LIVE)
    world.clock.move(seconds=60)
    world.rotate(NATIONAL, KeyState.COMPROMISED)
    world.trust_reaches_the_device()
    assert world.fault(stale) is CodeFault.KEY_COMPROMISED
    assert world.check(stale).tone is Tone.CAUTION
    assert world.fault(before) is CodeFault.STALE_PRESENTATION, "the retired one before it was not stolen"
    assert world.check(world.authority.text(vehicle.plate, LIVE), vehicle.plate).tone is Tone.PASS


def test_a_key_cannot_be_replaced_before_it_began_or_for_nobody(world):
    world.rotate("440300")
    entries, version = world.authority.issuer.trust_entries(), world.authority.trust_version
    world.clock.move(hours=-1)
    with pytest.raises(RegistryError):
        world.rotate("440300")
    with pytest.raises(RegistryError):
        world.rotate("999999")
    assert (world.authority.issuer.trust_entries(), world.authority.trust_version) == (entries, version)


def test_a_replayed_older_repository_does_not_bring_a_stolen_key_back(world):
    vehicle = world.good("440300")
    text = world.authority.text(vehicle.plate, PRINTED, START - timedelta(days=5))
    yesterday = dict(world.store)
    world.clock.move(hours=6)
    world.rotate("440300", KeyState.COMPROMISED)
    world.authority.publish_trust()
    with serve(world.store) as server, HttpFetcher(server.url) as fetcher:
        world.sync(fetcher)
    assert world.fault(text) is CodeFault.KEY_COMPROMISED
    held = world.device.store.trust_entries()
    old_list = next(data for path, data in yesterday.items() if path.endswith("entries.cbor"))
    with serve(yesterday) as server, HttpFetcher(server.url) as fetcher, pytest.raises(RollbackError):
        world.sync(fetcher)
    world.clock.move(hours=1)
    world.rotate("110000")
    world.authority.publish_trust()
    # The newest metadata, and the old list behind them.
    swapped = {p: old_list if p.endswith("entries.cbor") else data for p, data in world.store.items()}
    with serve(swapped) as server, HttpFetcher(server.url) as fetcher, pytest.raises(SyncError):
        world.sync(fetcher)
    assert world.device.store.trust_entries() == held
    assert world.fault(text) is CodeFault.KEY_COMPROMISED
    world.sync()
    assert world.device.store.trust_entries() != held
    assert world.fault(text) is CodeFault.KEY_COMPROMISED


def test_a_trust_list_between_two_nights_leaves_the_last_index_as_it_is(world):
    index = [path for path in world.store if path.endswith("index.cbor")]
    before = world.device.store.info().seq
    world.rotate("440300")
    world.trust_reaches_the_device()
    assert [path for path in world.store if path.endswith("index.cbor")] == index
    assert world.device.store.info().seq == before
    # Credentials and tags of each city; the platform; the former one.
    assert len(load_trust_list(world.device.store.trust_entries()).keys) == 2 * len(CITIES) + 2
    first = new_authority({}, clock=world.clock, scale=16, seed=1)
    with pytest.raises(RegistryError, match="nothing is published yet"):
        first.publish_trust()


# ------------------------------------------------------------------------------------------ holders' keys


def test_a_live_code_signed_by_the_phone_names_no_key_and_is_valid(world):
    vehicle = world.good("440300")
    text = world.authority.text(vehicle.plate, LIVE, by_holder=True)
    signed = decode(text.encode())
    assert signed.presentation is not None
    assert signed.presentation.kid is None
    assert len(text) <= MAX_TEXT
    assert world.check(text, vehicle.plate).tone is Tone.PASS
    world.clock.move(seconds=91)
    assert world.fault(text) is CodeFault.STALE_PRESENTATION
    with pytest.raises(ValueError, match="live"):
        world.authority.text(vehicle.plate, PRINTED, by_holder=True)


@pytest.mark.parametrize("alg", [Algorithm.ES256, Algorithm.EDDSA], ids=lambda alg: alg.name)
@pytest.mark.parametrize("mode", [LIVE, STORED], ids=lambda mode: mode.value)
def test_only_the_phone_that_the_credential_names_may_show_it(world, alg, mode):
    vehicle, issuer = world.good("440300"), world.authority.issuer
    credential = world.authority.credential(vehicle.plate, mode)
    owner = holder_signer(world.authority.holder_seed, credential.serial, alg)
    again = holder_signer(world.authority.holder_seed, credential.serial, alg)
    assert owner.public == again.public, "always the same from the same seed"
    signed = issuer.sign(credential, extras=Extras(holder=owner.public))
    shown = issuer.present_by_holder(signed, owner, world.clock())
    assert code_evidence(shown.encode(), load_trust_list(issuer.trust_entries()), world.clock()).signature is (
        SignatureState.VALID
    )
    assert world.fault(shown) is None
    for thief in (
        holder_signer(bytes(32), credential.serial, alg),
        holder_signer(world.authority.holder_seed, world.registry.reissue(vehicle.plate).serial, alg),
    ):
        stolen = issuer.present_by_holder(signed, thief, world.clock())
        assert world.fault(stolen) is CodeFault.SIGNATURE
        assert world.check(stolen).code is VerdictCode.FORGED
    unnamed = issuer.present_by_holder(issuer.sign(credential), owner, world.clock())
    assert world.fault(unnamed) is CodeFault.HOLDER_KEY


def test_a_holder_has_no_sm2_key():
    with pytest.raises(ValueError, match="P-256 or Ed25519"):
        holder_signer(bytes(32), Serial("ab" * 12), Algorithm.SM2)


# --------------------------------------------------------------------------------------- the server's block


def test_the_encrypted_block_opens_for_the_server_alone_and_for_its_own_credential(world):
    server = X25519PrivateKey.generate()
    vehicle = next(v for v in world.registry.vehicles.values() if v.tid)
    serial = world.registry.credential(vehicle.plate).serial
    block = seal(server.public_key(), serial, vehicle)
    text = world.authority.text(vehicle.plate, STORED, encrypted=block)
    assert world.fault(text) is None
    assert len(text) <= MAX_TEXT
    assert mark_of(text)[ENCRYPTED] == block
    facts = open_block(server, serial, block)
    assert (facts.vin, facts.tid, facts.reason) == (vehicle.vin, vehicle.tid, vehicle.issue_reason)
    assert vehicle.vin.encode() not in block
    for key, other, data in (
        (X25519PrivateKey.generate(), serial, block),
        (server, Serial("ab" * 12), block),
        (server, serial, block[:-1] + bytes([block[-1] ^ 1])),
        (server, serial, block[:20]),
        (server, serial, b""),
    ):
        with pytest.raises(BlockError):
            open_block(key, other, data)


# --------------------------------------------------------------------------------- kept in a folder, commands


@pytest.fixture
def folder(tmp_path: Path) -> AuthorityFolder:
    home = AuthorityFolder(tmp_path / "sandbox")
    home.create(clock=system_clock, scale=200, seed=5)
    return home


def run(folder: AuthorityFolder, *line: str) -> int:
    return main(["sandbox", *line, "--folder", str(folder.folder)])


def state(authority: Authority) -> tuple:
    registry = authority.registry
    current = {plate: registry.credential(plate) for plate in registry.vehicles}
    return (
        bytes(registry.states), registry.vehicles, registry.replated, current,
        authority.trust_version, authority.issuer.trust_entries(), authority.holder_seed,
    )  # fmt: skip


def test_the_folder_opens_in_another_process_as_it_was(folder, capsys):
    clock = FakeClock(system_clock())
    authority = folder.open(clock=clock)
    plates = [v.plate for v in authority.registry.vehicles.values() if v.plate.kind == "02"]
    texts = {p: authority.text(p, PRINTED) for p in plates[:8]}
    here = {"plate": plates[0].text, "kind": "02"}
    for event in (
        {"event": "renew", "until": "2029-01", "reason": "exempt"},
        {"event": "lost-paper"},
        {"event": "reissue"},
        {"event": "transfer"},
        {"event": "register", "plate": "粤B8D8D8", "day": "2026-11-22", "until": "2028-11"},
        {"event": "replate", "new_plate": "京A8D8D8", "new_kind": "02"},
    ):
        folder.record(authority, here | event)
    old = authority.issuer.keys["440300"].entry.key_id
    for name, issuer in (("rotate-key", "440300"), ("compromise-key", "440300"), ("rotate-key", NATIONAL)):
        clock.move(hours=1)
        folder.record_key(authority, name, issuer)
    folder.record_stolen(authority, "440300", old)
    again = AuthorityFolder(folder.folder).open(clock=clock)
    assert state(again) == state(authority)
    assert again.trust_version == 5
    states = {k.entry.key_id: k.entry.state for k in again.issuer.former}
    assert sorted(states.values()) == [KeyState.RETIRED, KeyState.COMPROMISED, KeyState.COMPROMISED]
    assert states[old] is KeyState.COMPROMISED
    pems = {path.name for path in folder.private.glob("*.pem")}
    assert len(pems) == 2 * len(CITIES) + 1 + 3
    for path in folder.private.rglob("*"):
        if path.suffix in (".pem", ".key"):
            assert path.stat().st_mode & 0o777 == 0o600, path.name
    trust = load_trust_list(again.issuer.trust_entries())
    for plate, text in texts.items():
        stolen = authority.registry.vehicles.get(plate, authority.registry.vehicle(plates[1])).city.code == "440300"
        fault = code_evidence(text.encode(), trust, clock()).fault
        assert fault is (CodeFault.KEY_COMPROMISED if stolen else None)


def test_git_never_takes_the_private_half_of_an_authority(folder):
    if shutil.which("git") is None:
        pytest.skip("no git here")
    for words in ("init -q", "add -A"):
        subprocess.run(["git", *words.split()], check=True, cwd=folder.folder)
    listed = subprocess.run(["git", "ls-files"], check=True, cwd=folder.folder, capture_output=True, text=True)
    assert "root.json" in listed.stdout.split()
    assert "private" not in listed.stdout


def test_half_an_event_is_named_and_nothing_is_written_behind_it(folder, capsys):
    path = folder.private / "events.jsonl"
    path.write_text('{"event": "lost-')  # the power went
    assert run(folder, "event", "rotate-key", "--issuer", "440300") == 1
    assert "events.jsonl: line 1 is not a whole event" in capsys.readouterr().err
    assert path.read_text() == '{"event": "lost-'


def test_a_key_file_that_was_swapped_is_refused_and_not_listed_as_another_key(folder, capsys):
    authority = folder.open(clock=system_clock)
    for issuer in ("440300", "110000"):
        folder.record_key(authority, "rotate-key", issuer)
    one, two = (path for path in folder.private.glob("*-credential-*.pem"))
    one.write_bytes(two.read_bytes())
    with pytest.raises(RegistryError, match="holds another key"):
        folder.open(clock=system_clock)
    assert run(folder, "publish") == 1


def test_events_and_folders_of_the_first_version_are_still_read(folder):
    authority = folder.open(clock=system_clock)
    plates = [v.plate for v in authority.registry.vehicles.values() if v.plate.kind == "02"][:5]
    lines = [
        {"event": "revoke"},
        {"event": "renew", "until": "2028-11"},
        {"event": "lapse", "until": "2026-01"},
        {"event": "status", "letters": "C"},
        {"event": "replate", "new_plate": "蒙A8D8D8", "new_kind": "02"},  # a city that the sandbox does not have
    ]
    events = [event | {"plate": p.text, "kind": p.kind} for event, p in zip(lines, plates, strict=True)]
    (folder.private / "events.jsonl").write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events))
    (folder.private / "holder.key").unlink()
    registry = folder.open(clock=system_clock).registry
    assert registry.states[registry.credential(plates[0]).index] == REVOKED
    assert registry.vehicle(plates[1]).issue_reason is IssueReason.INSPECTION
    assert registry.vehicle(plates[2]).status >= {StatusLetter.OVERDUE}
    assert registry.vehicle(plates[3]).status == {StatusLetter.STOLEN}
    assert Plate("蒙A8D8D8", "02") in registry.vehicles
    first, second = (folder.open(clock=system_clock).holder_seed for _ in range(2))
    assert first == second


def test_every_event_has_a_command(folder, capsys):
    authority = folder.open(clock=system_clock)
    plates = iter([v.plate for v in authority.registry.vehicles.values() if v.plate.kind == "02"])
    kid = authority.issuer.keys["440300"].entry.key_id
    last = [v for v in authority.registry.vehicles.values() if v.plate.kind == "02"][20:]
    bare = next(v.plate.text for v in last if v.tid is None)
    tagged, other = [v.plate.text for v in last if v.tid is not None][:2]
    lines = {
        "register": "--plate 粤B8D8D8 --city shenzhen",
        "renew": "--plate {} --until 2028-11 --reason exempt",
        "reissue": "--plate {}",
        "transfer": "--plate {}",
        "lost-paper": "--plate {}",
        "replate": "--plate {} --new-plate 京A8D8D8",
        "revoke": "--plate {}",
        "lapse": "--plate {} --until 2026-05",
        "status": "--plate {} --letters C",
        "bind-tag": f"--plate {bare} --tid e28011700000020a1b2c3d4e",
        "replace-tag": f"--plate {tagged} --tid e28011700000020a1b2c3d4f",
        "unbind-tag": f"--plate {other}",
        "rotate-key": "--issuer 440300",
        "compromise-key": f"--issuer 440300 --kid {kid}",
    }
    assert lines.keys() == EVENTS.keys() | KEY_EVENTS.keys()
    for event, options in lines.items():
        text = options.format(next(plates).text if "{}" in options else "")
        assert run(folder, "event", event, *text.split()) == 0, event
    kept = [json.loads(line)["event"] for line in (folder.private / "events.jsonl").read_text().splitlines()]
    assert kept == list(lines)
    registry = folder.open(clock=system_clock).registry
    assert registry.vehicle(Plate("粤B8D8D8", "02")).valid_until == Month.at(system_clock()).plus(24)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [("52", "京A12345", "02"), ("02", "京AD12345", "52"), ("01", "京A12345", "01"), ("51", "京A12345D", "51")],
)
def test_a_vehicle_gets_a_plate_of_a_kind_that_such_plates_have_and_is_found_by_it(old, new, kind, folder, capsys):
    registry = folder.open(clock=system_clock).registry
    vehicle = next(v for v in registry.vehicles.values() if v.plate.kind == old)
    assert run(folder, "event", "replate", "--plate", vehicle.plate.text, "--kind", old, "--new-plate", new) == 0
    moved = folder.open(clock=system_clock).registry.find(Plate(new, None))
    assert (moved.vin, moved.plate) == (vehicle.vin, Plate(new, kind))


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("event register --plate 粤B8D8D8 --city Beijing", 1),
        ("event register --plate 粤C12345", 1),
        ("event register --plate 粤B1234挂", 1),
        ("event register --plate 粤B8D8D8 --letters C", 2),
        ("event replate --plate {} --new-plate 蒙A12345", 1),
        ("event renew --plate {} --until 2028-11 --reason registration", 2),
        ("event renew --plate {}", 2),
        ("event lost-paper --plate 京Z00000", 1),
        ("event lost-paper --plate {} --issuer 440300", 2),
        ("event transfer --plate {} --new-plate 京A12345", 2),
        ("event transfer --plate 京Z00000", 1),
        ("event rotate-key", 2),
        ("event rotate-key --issuer 999999", 1),
        ("event rotate-key --issuer 440300 --kid 00", 2),
        ("event compromise-key --issuer 440300 --kid 0011223344556677", 1),
        ("issue --mode stored --signer holder", 2),
        ("publish --trust-only", 1),
        ("publish --trust-only --scale 16", 2),
    ],
)
def test_what_is_refused_leaves_no_trace(folder, line, status, capsys):
    plate = next(p for p in folder.open(clock=system_clock).registry.vehicles if p.kind == "02")
    before = {path: path.read_bytes() for path in folder.private.rglob("*") if path.is_file()}
    assert run(folder, *line.format(plate.text).split()) == status
    assert "Traceback" not in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.private.rglob("*") if path.is_file()} == before


def test_a_stolen_key_is_refused_minutes_later_by_the_commands_alone(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    assert run(folder, "publish") == 0
    authority = folder.open(clock=system_clock)
    vehicle = next(
        v
        for v in authority.registry.vehicles.values()
        if v.status == {StatusLetter.NORMAL} and v.valid_until > Month.at(system_clock()) and v.plate.kind == "02"
    )
    target = ["--plate", vehicle.plate.text, "--kind", "02"]
    stolen, fresh, live = (str(tmp_path / name) for name in ("stolen.png", "fresh.png", "live.png"))
    assert run(folder, "issue", *target, "--out", stolen) == 0
    assert run(folder, "event", "compromise-key", "--issuer", vehicle.city.code) == 0
    assert "trust list version 2" in capsys.readouterr().err
    assert run(folder, "publish", "--trust-only") == 0
    assert run(folder, "issue", *target, "--out", fresh) == 0
    assert run(folder, "issue", *target, "--mode", "live", "--signer", "holder", "--out", live) == 0
    root, key = str(folder.root_file), str(folder.epoch_key_file)
    with serve(authority.store) as server:
        assert main(["sync", "--from", server.url, "--root", root, "--epoch-key", key]) == 0
    capsys.readouterr()
    verdicts = []
    for picture in (stolen, fresh, live):
        assert main(["check", picture, "--json"]) == 0
        verdicts.append(json.loads(capsys.readouterr().out)["verdict"])
    assert verdicts == ["UNTRUSTED_ISSUER", "VALID", "VALID"]


def test_a_credential_without_extras_is_what_it_was(world):
    vehicle = world.good()
    credential: Credential = world.authority.credential(vehicle.plate, STORED)
    assert not mark_of(world.authority.issuer.text(credential)).keys() & {ISSUE_REASON, ENCRYPTED}
