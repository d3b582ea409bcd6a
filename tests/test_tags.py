"""In-car tags: what their data prove, what the register says of them, and code, tag and plate in one verdict."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.build import build_device
from firmware.config import REGION, Home
from firmware.fonts import text_font
from scripts.sandbox.authority import AuthorityFolder, new_authority
from scripts.sandbox.codes import card_number
from scripts.sandbox.fleet import Vehicle, fleet
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.keys import make_private_key
from scripts.sandbox.registry import Registry, RegistryError
from scripts.sandbox.status_lookup import Lookup
from scripts.sandbox.tags import (
    PersonalisedTag,
    TagForm,
    bind_tag,
    personalised,
    plain_epc,
    replace_tag,
    unbind_tag,
)
from verifier.adapters import tag_evidence
from verifier.audit import read_log, replay
from verifier.cache.keys import TAG, KeyHasher, tag_bytes
from verifier.check import CheckResult, Observation
from verifier.codec.online import AskedId, IdKind, RowStatus
from verifier.decide import decide
from verifier.errors import EvidenceError
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.policy import Policy
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.trust import load_trust_list
from verifier.types import (
    SHANGHAI,
    Algorithm,
    CacheEvidence,
    CacheState,
    CodeFault,
    Evidence,
    KeyRole,
    Month,
    Plate,
    PlateSeen,
    PresentationMode,
    Source,
    StatusAnswer,
    StatusLetter,
    TagAuth,
    TagEvidence,
    TagLevel,
    TagRecord,
    TagSeen,
    TagSuspicion,
    VehicleRecord,
    WatchHit,
)
from verifier.verdict import Action, Reason, Tone, Verdict, VerdictCode
from verifier.wording import TAG_LEVELS

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
WRITTEN = NOW - timedelta(days=10)
ORDINARY = frozenset({StatusLetter.NORMAL})
NEW_TID = "E28011700000020A1B2C3D4E"


class World:
    """An authority, and a device that has synced from it."""

    def __init__(self, folder, change=lambda world: None) -> None:
        self.now = NOW
        self.store: dict[str, bytes] = {}
        self.authority = new_authority(self.store, clock=lambda: self.now, scale=400, seed=11)
        vehicles = self.authority.registry.vehicles.values()
        lasting = [v for v in vehicles if v.valid_until > Month.at(NOW) and v.ctp_until > NOW.date()]
        fit = [v for v in lasting if v.plate.kind == "02" and v.status == ORDINARY]
        self.tagged = [v for v in fit if v.tid is not None]
        self.bare = [v for v in fit if v.tid is None]
        change(self)
        self.home = Home(folder / "device")
        self.home.folder.mkdir()
        write_secret(self.home.epoch_key, self.authority.epoch_key.hex().encode())
        self.publish()
        self.device = build_device(self.home, lambda: self.now)

    def publish(self) -> None:
        self.authority.publish()
        root = self.authority.publisher.root_bytes()
        fetcher, key = MemoryFetcher(self.store), self.authority.epoch_key
        SyncClient(self.home.cache, fetcher, lambda: self.now, root, REGION, epoch_key=key).refresh()

    def tag(self, vehicle: Vehicle, form: TagForm = TagForm.TC1, issued_at: datetime = WRITTEN) -> PersonalisedTag:
        return self.authority.tag(vehicle.plate, form, issued_at)

    def check(self, tag: PersonalisedTag | TagSeen | None = None, **seen) -> CheckResult:
        read = seen_of(tag) if isinstance(tag, PersonalisedTag) else tag
        evidence = None if read is None else TagEvidence(auth=read.auth, tid="", plate=None, seen=read)
        return self.device.verifier.check(Observation(tag=evidence, **seen))

    def code(self, vehicle: Vehicle, mode: PresentationMode = PresentationMode.STORED) -> bytes:
        return self.authority.text(vehicle.plate, mode, WRITTEN).encode()


def seen_of(tag: PersonalisedTag, **changes) -> TagSeen:
    return replace(TagSeen(epc=tag.epc, tid=tag.tid, user=tag.user), **changes)


def on_the_car(vehicle: Vehicle) -> PlateSeen:
    return PlateSeen(plate=vehicle.plate, confirmed=True)


def tag_of(result: CheckResult) -> TagEvidence:
    assert result.evidence.tag is not None
    return result.evidence.tag


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.device.store.close()


# -------------------------------------------------------------------------------------- one tag, one vehicle


def test_the_published_trust_list_names_a_key_for_the_tags_of_every_city(world):
    roles = [key.role for key in load_trust_list(world.device.store.trust_entries()).keys.values()]
    assert roles.count(KeyRole.TAG) == 16 == roles.count(KeyRole.CREDENTIAL)


def test_an_authority_in_a_folder_keeps_its_tag_keys_and_its_tags(tmp_path):
    folder = AuthorityFolder(tmp_path / "sandbox")
    first = folder.create(clock=lambda: NOW, scale=64, seed=1)
    vehicle = next(v for v in first.registry.vehicles.values() if v.tid is None)
    event = {"event": "bind-tag", "plate": vehicle.plate.text, "kind": vehicle.plate.kind, "tid": NEW_TID.lower()}
    folder.record(first, event)
    again = folder.open(clock=lambda: NOW)
    assert again.trust_entries() == first.trust_entries()
    assert again.registry.vehicle(vehicle.plate).tid == NEW_TID
    assert again.tag(vehicle.plate) == first.tag(vehicle.plate)


TIDS = [f"E2801170{n:016X}" for n in range(4)]
steps = st.lists(
    st.tuples(st.sampled_from(["bind", "replace", "unbind"]), st.integers(0, 5), st.sampled_from(TIDS)), max_size=40
)


@given(steps)
def test_whatever_is_asked_no_tag_is_on_two_vehicles_and_none_is_lost(wishes):
    registry = Registry(fleet(16, 1, NOW.date()), 1)
    plates = list(registry.vehicles)[:6]
    for plate in plates:
        with contextlib.suppress(RegistryError):
            unbind_tag(registry, plate)
    model: dict[Plate, str] = {}
    for what, place, tid in wishes:
        plate = plates[place]
        allowed = {
            "bind": plate not in model and tid not in model.values(),
            "replace": plate in model and tid not in model.values(),
            "unbind": plate in model,
        }[what]
        try:
            if what == "unbind":
                unbind_tag(registry, plate)
                model.pop(plate, None)
            else:
                (bind_tag if what == "bind" else replace_tag)(registry, plate, tid)
                model[plate] = tid
            assert allowed
        except RegistryError:
            assert not allowed
    assert {plate: registry.vehicle(plate).tid for plate in plates if registry.vehicle(plate).tid} == model
    everybody = [v.tid for v in registry.vehicles.values() if v.tid is not None]
    assert len(everybody) == len(set(everybody))


@pytest.mark.parametrize("tid", ["", "E2", "no hex at all", "E28" * 5, "AB" * 40])
def test_what_is_no_tid_is_put_on_no_vehicle(tid):
    registry = Registry(fleet(16, 1, NOW.date()), 1)
    plate = next(plate for plate, vehicle in registry.vehicles.items() if vehicle.tid is None)
    with pytest.raises(RegistryError):
        bind_tag(registry, plate, tid)
    assert registry.vehicle(plate).tid is None


def test_a_vehicle_without_a_tag_has_none_to_write(world):
    with pytest.raises(RegistryError):
        personalised(world.authority.registry, world.authority.tag_keys, world.bare[0].plate, NOW)


def test_the_centre_knows_a_tag_only_while_it_is_on_a_vehicle(tmp_path):
    folder = AuthorityFolder(tmp_path / "sandbox")
    authority = folder.create(clock=lambda: NOW, scale=64, seed=1)
    lookup = Lookup(LiveAuthority(folder, clock=lambda: NOW))
    vehicle = next(v for v in authority.registry.vehicles.values() if v.tid is not None)
    hasher = KeyHasher(authority.epoch_key)
    old, new = (AskedId(IdKind.TAG, hasher.digest(TAG, tag_bytes(tid))) for tid in (vehicle.tid, NEW_TID))
    assert [row.status for row in lookup.rows((old, new), NOW)] == [RowStatus.FOUND, RowStatus.ABSENT]
    event = {"event": "replace-tag", "plate": vehicle.plate.text, "kind": vehicle.plate.kind, "tid": NEW_TID}
    folder.record(authority, event)
    assert [row.status for row in lookup.rows((old, new), NOW)] == [RowStatus.ABSENT, RowStatus.FOUND]
    assert (lookup.plate(old), lookup.plate(new)) == (None, vehicle.plate)


# ------------------------------------------------------------------------------------------------ the ladder


def test_the_levels_of_evidence_are_kept_apart(world):
    vehicle = world.tagged[0]
    tag = world.tag(vehicle)
    stray = TagSeen(epc=b"\x30" + bytes(11), tid=b"\xe2" + bytes(11))
    bound = TagSeen(epc=plain_epc(tag.tid), tid=tag.tid)
    levels = {
        TagLevel.READ: world.check(stray),
        TagLevel.BOUND: world.check(bound, plate_seen=on_the_car(vehicle)),
        TagLevel.CERTIFIED: world.check(tag),
        TagLevel.AUTHENTICATED: world.check(seen_of(tag, auth=TagAuth.OK)),
    }
    assert {level: tag_of(result).level for level, result in levels.items()} == {level: level for level in levels}
    assert tag_of(levels[TagLevel.BOUND]).plate == vehicle.plate


def test_only_what_the_reader_says_makes_a_tag_a_trusted_identity(world):
    tag = world.tag(world.tagged[0])
    certified, authenticated = world.check(tag).verdict, world.check(seen_of(tag, auth=TagAuth.OK)).verdict
    assert (certified.code, certified.tone, Reason.ID_WEAK in certified.reasons) == (VerdictCode.VALID, Tone.NOTE, True)
    assert (authenticated.code, authenticated.tone, authenticated.reasons) == (VerdictCode.VALID, Tone.PASS, ())


@pytest.mark.parametrize("tid", [b"", bytes.fromhex("E28011600000020712345678")])
def test_a_genuine_chip_with_another_cars_plate_written_into_it_is_not_trusted(world, tid):
    """The reader proves the chip, and anybody may write an EPC into one."""
    written = world.tag(world.tagged[0], TagForm.TC0).epc
    result = world.check(TagSeen(epc=written, tid=tid, auth=TagAuth.OK))
    assert tag_of(result).auth is not TagAuth.OK
    assert result.verdict.tone is not Tone.PASS


def test_a_tid_alone_names_no_plate_and_gives_no_good_verdict(world):
    tag = world.tag(world.tagged[0])
    result = world.check(TagSeen(epc=tag.epc, tid=tag.tid))
    assert (tag_of(result).plate, tag_of(result).level) == (None, TagLevel.READ)
    assert (result.verdict.code, result.verdict.tone) == (VerdictCode.UNDECIDED, Tone.CAUTION)
    assert Action.RELEASE not in result.verdict.actions


def test_no_word_for_a_level_says_that_a_tag_is_genuine():
    assert set(TAG_LEVELS) == set(TagLevel)
    for text in TAG_LEVELS.values():
        assert not {"GENUINE", "ORIGINAL", "VALID"} & set(text.en.split())
        assert not set("真原正") & set(text.zh)
        assert len(text.zh) <= 8
        assert len(text.en) <= 16
    assert text_font().missing_glyphs("".join(text.zh + text.en for text in TAG_LEVELS.values())) == set()


@pytest.mark.parametrize("form", TagForm)
def test_both_forms_of_certificate_name_the_plate_and_its_kind(world, form):
    vehicle = world.tagged[1]
    tag = tag_of(world.check(world.tag(vehicle, form)))
    assert (tag.plate, tag.level, tag.fault, tag.record) == (
        vehicle.plate, TagLevel.CERTIFIED, None, TagRecord.BOUND,
    )  # fmt: skip


def test_an_epc_with_fields_alone_is_a_claim_without_proof(world):
    vehicle = world.tagged[1]
    tag = tag_of(world.check(TagSeen(epc=world.tag(vehicle, TagForm.TC0).epc)))
    assert (tag.plate, tag.level, tag.auth) == (vehicle.plate, TagLevel.READ, TagAuth.UNSUPPORTED)


def test_a_certificate_under_an_unknown_key_is_no_forgery_and_no_proof(world):
    vehicle = world.tagged[0]
    stranger = new_authority({}, clock=lambda: NOW, scale=16, seed=1)
    foreign = personalised(world.authority.registry, stranger.tag_keys, vehicle.plate, WRITTEN)
    result = world.check(foreign)
    tag = tag_of(result)
    assert (tag.fault, tag.auth, tag.suspicions) == (CodeFault.UNKNOWN_KEY, TagAuth.UNSUPPORTED, ())
    assert tag.level is TagLevel.BOUND  # by the register, not by the certificate
    assert Reason.TAG_AUTH_FAILED not in result.verdict.reasons


def test_a_key_for_another_city_that_signs_a_plate_is_a_finding(world):
    vehicle = world.tagged[0]
    other = next(key for code, key in world.authority.tag_keys.items() if code != vehicle.city.code)
    wrong = personalised(world.authority.registry, {vehicle.city.code: other}, vehicle.plate, WRITTEN)
    result = world.check(wrong)
    assert (tag_of(result).fault, result.verdict.tone) == (CodeFault.JURISDICTION, Tone.CAUTION)
    assert Reason.TAG_AUTH_FAILED in result.verdict.reasons


# ---------------------------------------------------------------------------------- copies, and other vehicles'


def test_a_user_bank_copied_into_another_tag_is_suspect_and_never_released(world):
    original = world.tag(world.tagged[0])
    copy = original._replace(tid=bytes.fromhex("e28011050000000000000001"))
    result = world.check(copy)
    assert tag_of(result).suspicions == (TagSuspicion.OTHER_TAG,)
    assert (tag_of(result).auth, tag_of(result).level) == (TagAuth.FAIL, TagLevel.READ)
    assert result.verdict.tone is Tone.CAUTION
    assert Reason.TAG_AUTH_FAILED in result.verdict.reasons
    assert Action.RELEASE not in result.verdict.actions


def test_a_forger_who_signs_for_himself_is_suspect(world):
    vehicle = world.tagged[0]
    honest = world.authority.tag_keys[vehicle.city.code]
    forger = replace(honest, private=make_private_key(Algorithm.EDDSA))
    forged = personalised(world.authority.registry, {vehicle.city.code: forger}, vehicle.plate, WRITTEN)
    result = world.check(forged)
    assert tag_of(result).suspicions == (TagSuspicion.OTHER_TAG,)
    assert result.verdict.tone is Tone.CAUTION


def test_the_tag_of_another_vehicle_is_a_finding_whatever_its_records_look_like(tmp_path):
    def alike(world):
        """Two vehicles whose facts in the data are the same, so that nothing but the binding tells them apart."""
        first, second = world.tagged[:2]
        facts = {"valid_until": first.valid_until, "ctp_until": first.ctp_until, "ecred_issued": first.ecred_issued}
        same = replace(second, **facts)
        world.authority.registry.vehicles[second.plate] = same
        world.tagged[1] = same

    world = World(tmp_path, alike)
    first, second = world.tagged[:2]
    assert first.record().inspection_valid_until == second.record().inspection_valid_until
    result = world.check(TagSeen(epc=bytes(12), tid=bytes.fromhex(second.tid)), plate_seen=on_the_car(first))
    assert tag_of(result).record is TagRecord.OTHER_VEHICLE
    assert result.verdict.tone is Tone.CAUTION
    assert Reason.TAG_AUTH_FAILED in result.verdict.reasons
    world.device.store.close()


def test_a_tid_that_ends_like_a_registered_one_is_not_that_one(world):
    tid = bytes.fromhex(world.tagged[0].tid)
    twin = TagSeen(epc=bytes(12), tid=bytes((tid[0] ^ 1,)) + tid[1:])
    tag = tag_of(world.check(twin, plate_seen=on_the_car(world.tagged[0])))
    assert (tag.record, tag.level, tag.plate) == (TagRecord.UNKNOWN, TagLevel.READ, None)


def test_an_old_tag_is_a_finding_once_its_vehicle_has_another_one(tmp_path):
    old = {}

    def renew(world):
        vehicle = world.tagged[0]
        for form in TagForm:
            old[form] = world.tag(vehicle, form)
        replace_tag(world.authority.registry, vehicle.plate, NEW_TID)

    world = World(tmp_path, renew)
    for form in TagForm:
        result = world.check(old[form])
        assert (tag_of(result).level, tag_of(result).record) == (TagLevel.CERTIFIED, TagRecord.UNKNOWN)
        assert result.verdict.tone is Tone.CAUTION
        assert Reason.TAG_AUTH_FAILED in result.verdict.reasons
        new = world.check(world.tag(world.tagged[0], form))
        assert (new.verdict.tone, tag_of(new).record) == (Tone.NOTE, TagRecord.BOUND)
    world.device.store.close()


def test_a_tag_that_moved_to_another_vehicle_speaks_for_that_one_alone(tmp_path):
    kept = []

    def move(world):
        before, after = world.tagged[0], world.bare[0]
        kept.append(world.tag(before))
        unbind_tag(world.authority.registry, before.plate)
        bind_tag(world.authority.registry, after.plate, before.tid)

    world = World(tmp_path, move)
    stale = world.check(kept[0])
    assert (tag_of(stale).record, stale.verdict.tone) == (TagRecord.OTHER_VEHICLE, Tone.CAUTION)
    fresh = world.check(world.tag(world.bare[0]))
    assert (tag_of(fresh).record, fresh.verdict.tone) == (TagRecord.BOUND, Tone.NOTE)
    world.device.store.close()


def test_a_tag_written_after_the_data_is_not_held_against_a_lawful_driver(world):
    vehicle = world.bare[0]
    bind_tag(world.authority.registry, vehicle.plate, NEW_TID)  # not published
    result = world.check(world.tag(vehicle, issued_at=NOW))
    assert (tag_of(result).record, result.verdict.code) == (TagRecord.UNKNOWN, VerdictCode.VALID)
    assert Reason.TAG_AUTH_FAILED not in result.verdict.reasons
    older = world.check(world.tag(vehicle, issued_at=WRITTEN))
    assert Reason.TAG_AUTH_FAILED in older.verdict.reasons


def test_old_data_hold_nothing_against_a_tag(world):
    vehicle = world.bare[0]
    bind_tag(world.authority.registry, vehicle.plate, NEW_TID)
    tag = world.tag(vehicle)
    world.now = NOW + timedelta(hours=27)
    result = world.check(tag)
    assert (result.verdict.code, result.verdict.tone) == (VerdictCode.VALID_STALE, Tone.NOTE)
    assert Reason.TAG_AUTH_FAILED not in result.verdict.reasons


def test_a_stray_tag_in_the_car_changes_nothing_about_a_confirmed_plate(world):
    stray = TagSeen(epc=b"\x30" + bytes(11), tid=b"\xe2" + bytes(11), user=bytes(range(128)))
    result = world.check(stray, plate_seen=on_the_car(world.bare[0]))
    assert (result.verdict.code, result.verdict.tone, result.verdict.reasons) == (VerdictCode.VALID, Tone.PASS, ())


def test_a_car_whose_plate_was_changed_is_known_by_its_old_tag(tmp_path):
    kept, new = [], Plate("京A88A66", "02")

    def replate(world):
        kept.append(world.tag(world.tagged[0]))
        world.authority.registry.replate(world.tagged[0].plate, new)

    world = World(tmp_path, replate)
    result = world.check(kept[0], plate_seen=PlateSeen(plate=new, confirmed=True))
    assert (tag_of(result).record, tag_of(result).plate, tag_of(result).level) == (
        TagRecord.BOUND, new, TagLevel.BOUND,
    )  # fmt: skip
    assert (result.verdict.code, result.verdict.tone) == (VerdictCode.VALID, Tone.PASS)
    world.device.store.close()


@pytest.mark.parametrize("form", TagForm)
@pytest.mark.parametrize("shows_code", [False, True])
def test_old_data_never_stop_a_re_plated_car_because_its_proven_tag_names_its_last_plate(world, form, shows_code):
    new = Plate("京A88A66", "02")
    kept = seen_of(world.tag(world.tagged[0], form), auth=TagAuth.OK)
    world.authority.registry.replate(world.tagged[0].plate, new)  # not published
    world.now = NOW + timedelta(hours=27)
    code = world.authority.text(new, PresentationMode.STORED, NOW).encode() if shows_code else None
    verdict = world.check(kept, plate_seen=PlateSeen(plate=new, confirmed=True), code=code).verdict
    assert (verdict.tone, verdict.plate) == (Tone.CAUTION, new)
    assert verdict.code is not VerdictCode.MISMATCH
    assert Reason.ID_UNCONFIRMED_MISMATCH in verdict.reasons
    assert Action.RELEASE not in verdict.actions


def test_a_re_plating_that_the_data_cannot_know_of_yet_is_no_mismatch(world):
    new = Plate("京A88A66", "02")
    kept = seen_of(world.tag(world.tagged[0]), auth=TagAuth.OK)
    world.authority.registry.replate(world.tagged[0].plate, new)
    code = world.authority.text(new, PresentationMode.STORED, NOW).encode()  # of this day, like the data
    verdict = world.check(kept, plate_seen=PlateSeen(plate=new, confirmed=True), code=code).verdict
    assert (verdict.code is VerdictCode.MISMATCH, verdict.tone) == (False, Tone.CAUTION)
    assert Reason.ID_UNCONFIRMED_MISMATCH in verdict.reasons


def test_a_proven_tag_that_fresh_data_have_on_another_car_is_a_mismatch(world):
    mine, other = world.tagged[:2]
    verdict = world.check(seen_of(world.tag(other), auth=TagAuth.OK), plate_seen=on_the_car(mine)).verdict
    assert (verdict.code, verdict.tone) == (VerdictCode.MISMATCH, Tone.STOP)


def test_beside_a_proven_code_the_plate_of_an_old_tag_is_not_what_is_looked_up(tmp_path):
    """Re-plated: its tag, taken off in the register, names the plate of a car that is impounded."""
    new = Plate("京A88A66", "02")

    def replate(world):
        old = world.tagged[0]
        world.kept = seen_of(world.tag(old), auth=TagAuth.OK)
        world.authority.registry.replate(old.plate, new)
        vehicles = world.authority.registry.vehicles
        vehicles[new] = replace(vehicles[new], tid=None)
        vehicles[old.plate] = replace(world.bare[0], plate=old.plate, status=frozenset({StatusLetter.IMPOUNDED}))

    world = World(tmp_path, replate)
    code = world.authority.text(new, PresentationMode.STORED, NOW - timedelta(days=2)).encode()
    result = world.check(world.kept, code=code)
    assert result.plates[0] == new  # and asked about first, where the centre is asked
    assert (result.verdict.code, result.verdict.tone, result.verdict.plate) == (VerdictCode.VALID, Tone.CAUTION, new)
    world.device.store.close()


def test_a_tag_of_another_car_beside_its_proven_code_hides_no_theft(tmp_path):
    def steal(world):
        stolen = world.tagged[1]
        world.code_ = world.code(stolen)
        world.authority.registry.vehicles[stolen.plate] = replace(stolen, status=frozenset({StatusLetter.STOLEN}))

    world = World(tmp_path, steal)
    other = seen_of(world.tag(world.tagged[0]), auth=TagAuth.OK)
    world.now += timedelta(days=2)
    assert world.check(code=world.code_).verdict.code is VerdictCode.WATCH_CONFIRM
    assert world.check(other, code=world.code_).verdict.code is VerdictCode.WATCH_CONFIRM
    world.device.store.close()


def test_a_code_that_proves_nothing_hides_no_theft_that_a_tag_leads_to(tmp_path):
    def steal(world):
        stolen = world.tagged[0]
        world.authority.registry.vehicles[stolen.plate] = replace(stolen, status=frozenset({StatusLetter.STOLEN}))

    world = World(tmp_path, steal)
    forged = bytearray(world.code(world.tagged[1]))
    forged[-3] ^= 1
    verdict = world.check(world.tag(world.tagged[0]), code=bytes(forged)).verdict
    assert verdict.code in (VerdictCode.FORGED, VerdictCode.WATCH_CONFIRM)
    assert Reason.WATCH_UNCONFIRMED in verdict.reasons
    world.device.store.close()


@pytest.mark.parametrize("auth", [TagAuth.OK, TagAuth.UNSUPPORTED])
def test_data_from_before_a_tag_was_written_do_not_make_it_the_tag_of_the_car_that_it_left(world, auth):
    before, after = world.tagged[0], world.bare[0]
    unbind_tag(world.authority.registry, before.plate)
    bind_tag(world.authority.registry, after.plate, before.tid)  # not published
    tag = seen_of(world.tag(after, issued_at=NOW), auth=auth)
    result = world.check(tag, plate_seen=on_the_car(before))
    assert tag_of(result).plate == after.plate
    assert result.verdict.tone is Tone.CAUTION
    assert Action.RELEASE not in result.verdict.actions


def test_a_suspicion_is_never_a_verdict_but_nobody_is_released_on_it(world):
    for suspicion in TagSuspicion:
        tag = seen_of(world.tag(world.tagged[0]), auth=TagAuth.OK, suspicions=(suspicion,))
        verdict = world.check(tag).verdict
        assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.CAUTION)
        assert Action.RELEASE not in verdict.actions


@pytest.mark.parametrize("letters", ["C", "J"])
def test_a_wanted_vehicle_is_not_overlooked_because_its_tag_has_no_certificate(tmp_path, letters):
    def steal(world):
        world.authority.registry.set_status(world.tagged[0].plate, letters)

    world = World(tmp_path, steal)
    tag = world.tag(world.tagged[0])
    nameless = world.check(TagSeen(epc=tag.epc, tid=tag.tid)).verdict
    assert Reason.WATCH_LEAD in nameless.reasons
    assert Action.CONFIRM_CENTRE in nameless.actions
    assert world.check(tag).verdict.code is VerdictCode.WATCH_CONFIRM  # a copy could wear another car's number
    assert world.check(seen_of(tag, auth=TagAuth.OK)).verdict.code is VerdictCode.WANTED
    world.device.store.close()


def test_an_overdue_car_is_asked_about_by_its_certificate_and_stopped_by_its_proof(tmp_path):
    world = World(tmp_path, lambda world: world.authority.registry.lapse(world.tagged[0].plate, Month(2026, 8)))
    tag = world.tag(world.tagged[0])
    assert world.check(tag).verdict.code is VerdictCode.EXPIRED_UNCONFIRMED
    assert world.check(seen_of(tag, auth=TagAuth.OK)).verdict.code is VerdictCode.EXPIRED
    assert world.check(tag, plate_seen=on_the_car(world.tagged[0])).verdict.code is VerdictCode.EXPIRED
    world.device.store.close()


def test_a_list_of_this_place_asks_for_the_plate_first(world):
    vehicle = world.tagged[0]
    hit = WatchHit(basis=Source.TAG, kind="clone case", as_of=NOW)
    verdict = world.check(world.tag(vehicle), watch=(hit,)).verdict
    assert (verdict.code, verdict.actions[0]) == (VerdictCode.WATCH_CONFIRM, Action.CONFIRM_PLATE)


# ------------------------------------------------------------------------------------------ code, tag and plate


def test_code_tag_and_plate_of_one_car_agree(world):
    vehicle = world.tagged[0]
    result = world.check(world.tag(vehicle), code=world.code(vehicle), plate_seen=on_the_car(vehicle))
    assert (result.verdict.code, result.verdict.tone, result.verdict.reasons) == (VerdictCode.VALID, Tone.PASS, ())
    assert tag_of(result).tid_matches is True


def test_a_proven_tag_of_another_car_beside_a_code_is_a_mismatch(world):
    mine, other = world.tagged[:2]
    verdict = world.check(seen_of(world.tag(other), auth=TagAuth.OK), code=world.code(mine)).verdict
    assert (verdict.code, verdict.tone) == (VerdictCode.MISMATCH, Tone.STOP)


def test_an_unproven_tag_of_another_car_beside_a_plate_is_a_question(world):
    mine, other = world.tagged[:2]
    verdict = world.check(world.tag(other), plate_seen=on_the_car(mine)).verdict
    assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.CAUTION)
    assert Reason.ID_UNCONFIRMED_MISMATCH in verdict.reasons
    assert Action.RELEASE not in verdict.actions


def test_a_code_bound_to_another_tag_than_the_one_in_the_car_is_a_finding_even_without_data(world, tmp_path):
    vehicle = world.tagged[0]
    tag, code = world.tag(vehicle, TagForm.TC0), world.code(vehicle)
    replace_tag(world.authority.registry, vehicle.plate, NEW_TID)
    second = world.tag(vehicle, TagForm.TC0)
    world.now = NOW + timedelta(days=8)  # the data are too old to say anything
    assert Reason.TAG_AUTH_FAILED not in world.check(tag, code=code).verdict.reasons
    result = world.check(second, code=code)
    assert (tag_of(result).tid_matches, result.verdict.tone) == (False, Tone.CAUTION)
    assert Reason.TAG_AUTH_FAILED in result.verdict.reasons


def test_a_tag_that_replaced_the_one_of_an_older_code_is_no_finding(tmp_path):
    kept = []

    def renew(world):
        kept.append(world.code(world.tagged[0]))
        replace_tag(world.authority.registry, world.tagged[0].plate, NEW_TID)

    world = World(tmp_path, renew)
    for form in TagForm:
        result = world.check(world.tag(world.tagged[0], form), code=kept[0])
        assert (tag_of(result).tid_matches, tag_of(result).record) == (False, TagRecord.BOUND)
        assert Reason.TAG_AUTH_FAILED not in result.verdict.reasons
    world.device.store.close()


def test_the_label_of_a_tag_card_resolves_to_the_same_record_by_its_number(world):
    vehicle = world.tagged[0]
    result = world.check(code=world.code(vehicle, PresentationMode.TAG_LABEL))
    assert result.credential is not None
    assert result.credential.mode is PresentationMode.TAG_LABEL
    store, plate = world.device.store, result.credential.plate
    assert store.vehicle_by_card(card_number(vehicle.tid), plate) == store.vehicle(plate) == vehicle.record()
    assert store.vehicle_by_card(vehicle.tid, plate) == vehicle.record()
    assert store.vehicle_by_card(card_number(world.tagged[1].tid), plate) is None
    assert store.vehicle_by_card(card_number(vehicle.tid), world.tagged[1].plate) is None
    assert store.vehicle_by_card("not a number", plate) is None
    assert result.verdict.code is VerdictCode.VALID


def test_lapsed_insurance_is_a_line_of_its_own_beside_the_inspection(tmp_path):
    def lapse(world):
        vehicle = world.tagged[0]
        world.authority.registry.vehicles[vehicle.plate] = replace(vehicle, ctp_until=NOW.date() - timedelta(days=3))

    world = World(tmp_path, lapse)
    vehicle = world.tagged[0]
    for seen in ({"code": world.code(vehicle, PresentationMode.TAG_LABEL)}, {"tag": world.tag(vehicle)}):
        verdict = world.check(**seen).verdict
        assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.NOTE)
        assert Reason.CTP_LAPSED in verdict.reasons
    world.device.store.close()


# --------------------------------------------------------------------------------------------- hostile memory

NOISE = st.binary(max_size=160)


@given(epc=st.binary(max_size=64), tid=st.none() | st.binary(max_size=70), user=st.none() | NOISE)
def test_whatever_a_tag_holds_it_ends_in_evidence_that_proves_nothing(epc, tid, user):
    tag = tag_evidence(TagSeen(epc=epc, tid=tid, user=user), TRUST, NOW)
    assert (tag.level, tag.issued_on) == (TagLevel.READ, None)
    json.dumps(evidence_to_json(Evidence(tag=tag), NOW))


TRUST = load_trust_list(new_authority({}, clock=lambda: NOW, scale=16, seed=1).trust_entries())


@pytest.mark.parametrize(
    "seen",
    [
        TagSeen(epc=b""),
        TagSeen(epc=b"", tid=b"", user=b""),
        TagSeen(epc=b"\xff" * 62, tid=b"\xe2" + bytes(11), user=bytes(range(128))),
        TagSeen(epc=bytes(12), tid=bytes(64), user=b"\xff" * 128),
        TagSeen(epc=bytes(12), tid=bytes(200)),
    ],
    ids=["no epc", "nothing", "496 bits and noise", "a full tid", "a tid that cannot be"],
)
def test_a_strange_tag_gives_a_caution_and_leaves_the_other_ways_alone(world, seen):
    alone = world.check(seen)
    assert (alone.verdict.code, alone.verdict.tone) == (VerdictCode.UNDECIDED, Tone.CAUTION)
    assert tag_of(alone).plate is None
    beside = world.check(seen, code=world.code(world.bare[0]), plate_seen=on_the_car(world.bare[0]))
    assert (beside.verdict.code, beside.verdict.tone) == (VerdictCode.VALID, Tone.PASS)


def test_a_damaged_cache_says_nothing_of_a_tag(world):
    tag = world.tag(world.tagged[0])
    base = next((world.home.cache / "gen").glob("*/base.db"))
    world.device.store.close()
    base.write_bytes(b"no database")
    result = world.check(tag)
    assert (tag_of(result).record, tag_of(result).level) == (None, TagLevel.CERTIFIED)
    assert Reason.TAG_AUTH_FAILED not in result.verdict.reasons


# ------------------------------------------------------------------------------------------------- the record


def test_every_check_of_a_tag_can_be_decided_again_from_its_record_alone(world):
    mine, other = world.tagged[:2]
    copy = world.tag(mine)._replace(tid=bytes.fromhex("e28011050000000000000001"))
    made = [
        world.check(world.tag(mine)),
        world.check(seen_of(world.tag(mine), auth=TagAuth.OK)),
        world.check(copy),
        world.check(world.tag(other), plate_seen=on_the_car(mine)),
        world.check(seen_of(world.tag(other), auth=TagAuth.OK), code=world.code(mine)),
        world.check(TagSeen(epc=b"", tid=bytes.fromhex(other.tid))),
        world.check(seen_of(world.tag(mine), suspicions=tuple(TagSuspicion))),
    ]
    records = list(read_log(world.home.audit))
    assert len(records) == len(made)
    for record, result in zip(records, made, strict=True):
        verdict, same = replay(record)
        assert same
        assert verdict == result.verdict
        again, _ = evidence_from_json(record["evidence"])
        assert again.tag == replace(tag_of(result), vehicle_type=None, body_colour=None)  # shown, and not kept
        assert len(record["inputs"]["tag_sha256"]) == 64


def test_two_cars_of_an_accident_are_recorded_with_their_tags(world):
    mine, other = world.tagged[:2]
    seen = [
        Observation(tag=TagEvidence(auth=TagAuth.OK, tid="", plate=None, seen=seen_of(world.tag(v), auth=TagAuth.OK)))
        for v in (mine, other)
    ]
    world.device.verifier.check_pair(*seen)
    (record,) = read_log(world.home.audit)
    assert record["a"]["inputs"]["tag_sha256"] != record["b"]["inputs"]["tag_sha256"]
    assert all(replay(record[car])[1] for car in "ab")


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 4},
        {"level": "2"},
        {"record": "maybe"},
        {"suspicions": ["x"]},
        {"suspicions": "two_epcs"},
        {"issued_on": 5},
    ],
)
def test_a_record_that_says_something_else_of_a_tag_is_refused(wrong):
    good = evidence_to_json(Evidence(tag=TagEvidence(auth=TagAuth.OK, tid="E2", plate=Plate("京A12345", "02"))), NOW)
    with pytest.raises(EvidenceError, match="tag"):
        evidence_from_json({**good, "tag": {**good["tag"], **wrong}})


def test_a_list_of_tags_in_the_field_is_looked_up_without_being_recorded(world):
    vehicle = world.tagged[0]
    tag = world.device.verifier.look_at(seen_of(world.tag(vehicle)))
    assert (tag.plate, tag.level, tag.record) == (vehicle.plate, TagLevel.CERTIFIED, TagRecord.BOUND)
    assert not world.home.audit.exists()
    later = world.device.verifier.check(Observation(tag=tag))  # what the list holds is worked out anew
    assert later.evidence.tag == replace(tag, seen=None)


# ---------------------------------------------------------------------------------------------- the rule itself

OF_TODAY = TagEvidence(auth=TagAuth.OK, tid="E280", plate=Plate("京A12345", "02"), level=TagLevel.AUTHENTICATED)


def failed(tag: TagEvidence, age: timedelta = timedelta(0)) -> bool:
    cache = CacheEvidence(state=CacheState.OK, as_of=NOW - age, covers=True, answer=StatusAnswer(vehicle=None))
    return Reason.TAG_AUTH_FAILED in decide(Evidence(tag=tag, cache=cache), Policy(), NOW).reasons


@pytest.mark.parametrize("record", [TagRecord.UNKNOWN, TagRecord.OTHER_VEHICLE])
def test_the_register_is_believed_against_a_tag_while_it_is_fresh_and_not_a_second_longer(record):
    tag = replace(OF_TODAY, record=record)
    assert failed(tag, Policy().fresh)
    assert not failed(tag, Policy().fresh + timedelta(seconds=1))


@pytest.mark.parametrize(("days", "believed"), [(0, False), (1, False), (2, True)])
def test_a_tag_counts_as_newer_than_the_data_for_as_long_as_a_change_takes_to_reach_them(days, believed):
    issued = NOW.astimezone(SHANGHAI).date() - timedelta(days=days)
    assert failed(replace(OF_TODAY, record=TagRecord.UNKNOWN, issued_on=issued)) is believed


def test_without_the_date_of_the_data_nothing_is_held_against_a_tag():
    tag = replace(OF_TODAY, record=TagRecord.UNKNOWN)
    assert Reason.TAG_AUTH_FAILED not in decide(Evidence(tag=tag), Policy(), NOW).reasons


def test_an_authenticated_tag_alone_is_proof_of_the_vehicle_it_names():
    overdue = VehicleRecord(
        plate=Plate("京A12345", "02"), status=ORDINARY | {"Q"}, inspection_valid_until=Month.at(NOW).plus(-6),
        ecred_issued=True,
    )  # fmt: skip
    cache = CacheEvidence(state=CacheState.OK, as_of=NOW, covers=True, answer=StatusAnswer(vehicle=overdue))
    assert decide(Evidence(tag=OF_TODAY, cache=cache), Policy(), NOW).code is VerdictCode.EXPIRED
    camera = replace(ANOTHER, confirmed=False)  # what nobody confirmed takes no trust away
    assert decide(Evidence(tag=OF_TODAY, plate_seen=camera, cache=cache), Policy(), NOW).code is VerdictCode.EXPIRED


ANOTHER = PlateSeen(plate=Plate("京A54321", "02"), confirmed=True)


def beside_another_plate(tag: TagEvidence, age: timedelta = timedelta(0), **seen) -> Verdict:
    cache = CacheEvidence(state=CacheState.OK, as_of=NOW - age, covers=True, answer=StatusAnswer(vehicle=None))
    return decide(Evidence(tag=tag, plate_seen=ANOTHER, cache=cache, **seen), Policy(), NOW)


@pytest.mark.parametrize("record", [None, *TagRecord])
def test_only_a_proven_tag_that_the_register_has_on_the_vehicle_it_names_makes_a_mismatch(record):
    mismatch = beside_another_plate(replace(OF_TODAY, record=record)).code is VerdictCode.MISMATCH
    assert mismatch is (record is TagRecord.BOUND)


def test_the_register_makes_a_mismatch_of_a_tag_while_it_is_fresh_and_not_a_second_longer():
    tag = replace(OF_TODAY, record=TagRecord.BOUND)
    assert beside_another_plate(tag, Policy().fresh).code is VerdictCode.MISMATCH
    late = beside_another_plate(tag, Policy().fresh + timedelta(seconds=1))
    assert (late.code is VerdictCode.MISMATCH, late.tone) == (False, Tone.CAUTION)


def test_by_a_clock_under_suspicion_no_data_are_fresh_enough_to_make_a_mismatch_of_a_tag():
    verdict = beside_another_plate(replace(OF_TODAY, record=TagRecord.BOUND), clock_trusted=False)
    assert (verdict.code is VerdictCode.MISMATCH, verdict.tone) == (False, Tone.CAUTION)


def test_data_that_are_corrupt_make_no_mismatch_of_a_tag():
    cache = CacheEvidence(state=CacheState.CORRUPT, as_of=NOW)
    tag = replace(OF_TODAY, record=TagRecord.BOUND)
    verdict = decide(Evidence(tag=tag, plate_seen=ANOTHER, cache=cache), Policy(), NOW)
    assert (verdict.code is VerdictCode.MISMATCH, verdict.tone) == (False, Tone.CAUTION)


tags_of_a_car = st.builds(
    TagEvidence,
    auth=st.sampled_from(TagAuth), tid=st.just("E280"), plate=st.just(Plate("京A12345", "02")),
    level=st.sampled_from(TagLevel), record=st.none() | st.sampled_from(TagRecord),
    issued_on=st.none() | st.dates(NOW.date() - timedelta(days=40), NOW.date()),
    tid_matches=st.none() | st.booleans(),
)  # fmt: skip


@given(tag=tags_of_a_car, age=st.timedeltas(timedelta(0), timedelta(days=40)), trusted=st.booleans())
def test_the_tag_of_another_car_never_ends_in_a_pass_or_a_note_whatever_the_data_say(tag, age, trusted):
    record = VehicleRecord(
        plate=ANOTHER.plate, status=ORDINARY, inspection_valid_until=Month.at(NOW).plus(6), ecred_issued=True
    )
    for answer in (StatusAnswer(vehicle=record), StatusAnswer(vehicle=None)):
        cache = CacheEvidence(state=CacheState.OK, as_of=NOW - age, covers=True, answer=answer)
        evidence = Evidence(tag=tag, plate_seen=ANOTHER, cache=cache, clock_trusted=trusted)
        verdict = decide(evidence, Policy(), NOW)
        assert verdict.tone in (Tone.CAUTION, Tone.STOP)
        assert Action.RELEASE not in verdict.actions


def test_a_tag_without_a_plate_is_no_identity_at_all():
    stray = TagEvidence(auth=TagAuth.OK, tid="E280", plate=None, record=TagRecord.UNKNOWN)
    verdict = decide(Evidence(tag=stray), Policy(), NOW)
    assert (verdict.code, verdict.plate, verdict.reasons) == (VerdictCode.UNDECIDED, None, ())
