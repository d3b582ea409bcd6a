"""The whole road in one process: sandbox authority, sync in memory, picture, verdict."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

from firmware.build import build_device
from firmware.config import REGION, Home
from hw.camera.files import FileSource
from hw.qr.decoders import available_decoders
from scripts.cli.main import main
from scripts.sandbox.authority import Authority, new_authority
from scripts.sandbox.codes import qr_picture
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.showcase import Exhibit, Showcase
from scripts.still_picture import payloads
from verifier.adapters import NOTHING_READ, READINGS, SIGNATURES, code_evidence
from verifier.audit import read_log, replay
from verifier.cache import schema
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.codec.index import decode_index, encode_index
from verifier.errors import AuditError
from verifier.plates import kinds_of, parse_plate
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.trust import TrustList, load_trust_list
from verifier.types import (
    CodeFault,
    CodeReading,
    KeyState,
    Plate,
    PlateSeen,
    PresentationMode,
    SignatureState,
    StatusLetter,
    TagAuth,
    TagEvidence,
)
from verifier.vehicle_words import VEHICLE_TYPES
from verifier.verdict import Action, Grade, Reason, Tone, VerdictCode
from verifier.vin import ALPHABET, LENGTH, read_vin

START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


class World:
    """An authority, a device, and a clock that the test turns."""

    def __init__(self, folder, now=START) -> None:
        self.now = now
        self.store: dict[str, bytes] = {}
        self.authority: Authority = new_authority(self.store, clock=self.clock, scale=500, seed=3)
        self.showcase = Showcase(self.authority)
        self.showcase.before_publication()
        self.authority.publish()
        self.home = Home(folder)
        write_secret(self.home.epoch_key, self.authority.epoch_key.hex().encode())
        self.device = build_device(self.home, self.clock)

    def clock(self) -> datetime:
        return self.now

    def sync(self):
        root = self.authority.publisher.root_bytes()
        fetcher, key = MemoryFetcher(self.store), self.authority.epoch_key
        return SyncClient(self.home.cache, fetcher, self.clock, root, REGION, epoch_key=key).refresh()

    def check(self, **seen):
        return self.device.verifier.check(Observation(**seen)).verdict

    def ordinary(self):
        """A vehicle with nothing against it that no exhibit uses."""
        return self.showcase._next()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.sync()
    yield world
    world.device.store.close()


def test_every_exhibit_ends_in_its_verdict(world, tmp_path):
    for exhibit in world.showcase.after_sync():
        verdict = world.check(**observation(exhibit, tmp_path))
        assert verdict.code is exhibit.expect, exhibit.name


def observation(exhibit: Exhibit, folder) -> dict:
    """From a picture on the disk, as the product reads it."""
    code = None
    if exhibit.picture is not None:
        path = folder / f"{exhibit.name}.png"
        exhibit.picture().save(path)
        (frame,) = FileSource(path).frames()
        (code,) = payloads(frame, available_decoders())
    seen = PlateSeen(plate=exhibit.plate, confirmed=True) if exhibit.plate else None
    return {"code": code, "plate_seen": seen, "paper_displayed": exhibit.paper}


def test_the_same_data_grow_old(world):
    vehicle = world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.PRINTED, START - timedelta(days=5)).encode()
    for hours, code, grade in (
        (0, VerdictCode.VALID, Grade.FRESH_CACHE),
        (26, VerdictCode.VALID, Grade.FRESH_CACHE),
        (27, VerdictCode.VALID_STALE, Grade.STALE_CACHE),
        (169, VerdictCode.SIGNED_ONLY, Grade.SIGNATURE_ONLY),
    ):
        world.now = START + timedelta(hours=hours)
        verdict = world.check(code=text)
        assert (verdict.code, verdict.grade) == (code, grade)


def test_a_clock_behind_the_data_withholds_the_verdict(world):
    vehicle = world.ordinary()
    world.now = START - timedelta(days=3)
    verdict = world.check(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True))
    assert (verdict.code, Reason.CLOCK_SUSPECT in verdict.reasons) == (VerdictCode.UNDECIDED, True)


def test_the_next_look_up_follows_a_new_generation(world):
    vehicle = world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.STORED, START - timedelta(days=5)).encode()
    assert world.check(code=text).code is VerdictCode.VALID
    world.authority.registry.revoke(vehicle.plate)
    world.now = START + timedelta(hours=1)
    world.authority.publish()
    assert world.check(code=text).code is VerdictCode.VALID
    world.sync()
    assert world.check(code=text).code is VerdictCode.REVOKED


def test_a_key_that_is_withdrawn_reaches_the_device_with_the_trust_list(world):
    vehicle = world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.STORED, START - timedelta(days=5)).encode()
    assert world.check(code=text).code is VerdictCode.VALID

    keys = world.authority.issuer.keys
    keys[vehicle.city.code] = keys[vehicle.city.code].in_state(KeyState.COMPROMISED)
    world.authority.trust_version += 1
    world.now = START + timedelta(hours=1)
    world.authority.publish()
    world.sync()
    verdict = world.check(code=text)
    assert (verdict.code, Reason.QR_KEY_REVOKED in verdict.reasons) == (VerdictCode.UNTRUSTED_ISSUER, True)


def test_a_typed_plate_that_is_nowhere_is_not_found(world):
    verdict = world.check(plate_seen=PlateSeen(plate=Plate("京Z00000", "02"), confirmed=True))
    assert (verdict.code, verdict.grade) == (VerdictCode.NOT_FOUND, Grade.FRESH_CACHE)


def test_the_same_text_of_another_kind_is_another_vehicle(world):
    vehicle = world.ordinary()
    verdict = world.check(plate_seen=PlateSeen(plate=Plate(vehicle.plate.text, "15"), confirmed=True))
    assert verdict.code is VerdictCode.NOT_FOUND


def test_a_lorry_whose_kind_was_not_typed_is_no_mismatch_and_no_absence(world):
    lorry = next(v for v in world.authority.registry.vehicles.values() if v.plate.kind == "01")
    seen = PlateSeen(plate=parse_plate(lorry.plate.text), confirmed=True)
    text = world.authority.text(lorry.plate, PresentationMode.STORED, START - timedelta(days=5)).encode()
    both, shown = world.check(code=text, plate_seen=seen), world.check(code=text)
    assert (both.code, both.tone, both.reasons) == (shown.code, shown.tone, shown.reasons)
    alone = world.check(plate_seen=seen)
    assert alone.code not in (VerdictCode.NOT_FOUND, VerdictCode.UNDECIDED)
    assert alone.valid_until == lorry.valid_until


def test_one_text_on_two_vehicles_needs_the_kind(world):
    lorry = next(v for v in world.authority.registry.vehicles.values() if v.plate.kind == "01")
    car = replace(world.ordinary(), plate=Plate(lorry.plate.text, "02"), tid=None)
    world.authority.registry.register(car)
    world.now = START + timedelta(hours=1)
    world.authority.publish()
    world.sync()
    unsaid = world.check(plate_seen=PlateSeen(plate=parse_plate(lorry.plate.text), confirmed=True))
    assert unsaid.code is VerdictCode.UNDECIDED
    said = world.check(plate_seen=PlateSeen(plate=car.plate, confirmed=True))
    assert (said.code, said.valid_until) == (VerdictCode.VALID, car.valid_until)


def test_tag_code_and_plate_are_compared(world):
    vehicle, other = world.ordinary(), world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.STORED, START - timedelta(days=5)).encode()
    tag = TagEvidence(auth=TagAuth.OK, tid="E28011602000", plate=other.plate)
    assert world.check(code=text, tag=tag).code is VerdictCode.MISMATCH
    weak = replace(tag, auth=TagAuth.UNSUPPORTED)
    assert world.check(code=text, tag=weak).tone is Tone.CAUTION
    assert world.check(tag=replace(tag, plate=vehicle.plate)).code is VerdictCode.VALID


def test_without_a_cache_nothing_is_trusted_and_nothing_is_lost(tmp_path):
    world = World(tmp_path)
    vehicle = world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.STORED).encode()
    assert world.check(code=text).code is VerdictCode.UNTRUSTED_ISSUER
    assert world.check(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True)).code is VerdictCode.UNDECIDED
    assert len(list(read_log(world.home.audit))) == 2


def test_a_wrong_epoch_key_cannot_say_and_a_revocation_still_stands(world):
    vehicle, revoked = world.ordinary(), world.ordinary()
    world.authority.registry.revoke(revoked.plate)
    world.now = START + timedelta(hours=1)
    world.authority.publish()
    world.sync()
    world.home.epoch_key.write_text("00" * 32)
    device = build_device(world.home, world.clock)
    seen = Observation(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True))
    assert device.verifier.check(seen).verdict.code is VerdictCode.UNDECIDED
    text = world.authority.text(revoked.plate, PresentationMode.STORED, START - timedelta(days=5)).encode()
    assert device.verifier.check(Observation(code=text)).verdict.code is VerdictCode.REVOKED
    device.store.close()


def test_a_flipped_bit_in_the_cache_never_says_not_found(world):
    vehicles = [world.ordinary() for _ in range(20)]
    base = world.home.cache / "current" / "base.db"
    data = bytearray(base.read_bytes())
    for place in range(5000, len(data), 97):
        data[place] ^= 0x10
    base.chmod(0o644)
    base.write_bytes(data)
    world.device.store.close()
    for vehicle in vehicles:
        verdict = world.check(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True))
        assert (verdict.code, Reason.CACHE_REJECTED in verdict.reasons) == (VerdictCode.UNDECIDED, True)


def test_an_unreadable_code_beside_a_plate_leaves_the_plates_verdict(world):
    vehicle = world.ordinary()
    seen = PlateSeen(plate=vehicle.plate, confirmed=True)
    verdict = world.check(code=NOTHING_READ, plate_seen=seen)
    assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.NOTE)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="no full device here")
def test_a_check_that_cannot_be_recorded_is_shown_and_says_so(world):
    world.home.audit.unlink(missing_ok=True)
    world.home.audit.symlink_to("/dev/full")
    result = world.device.verifier.check(Observation(code=NOTHING_READ))
    assert result.verdict.code is VerdictCode.UNREADABLE
    assert "not recorded" in result.remarks[0]


def test_a_bad_policy_is_not_taken_by_the_sync(world):
    authority = world.authority
    world.now = START + timedelta(hours=1)
    authority.publisher.publish_trust(
        entries=authority.issuer.trust_entries(), trust_version=2, policy=b'{"name":"odd"}', policy_version=2
    )
    report = world.sync()
    assert any("policy" in note for note in report.notes)
    vehicle = world.ordinary()
    assert world.check(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True)).policy == "default/1"


def test_a_policy_that_this_program_cannot_read_leaves_the_last_good_one_in_force(world):
    """As after an update of the program: the data on the card were accepted by another version of it."""
    vehicle = world.ordinary()
    seen = Observation(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True))
    assert world.device.verifier.check(seen).remarks == ()
    old = (world.home.cache / "current").resolve()
    policy = json.dumps({**json.loads((old / "policy.json").read_bytes()), "fresh_h": -5}).encode()
    content = schema.content_hash((old / "index.cbor").read_bytes(), (old / "entries.cbor").read_bytes(), policy)
    new = old.with_name(f"national-1-{content}")
    shutil.copytree(old, new)
    (new / "policy.json").write_bytes(policy)
    (world.home.cache / "current").unlink()
    (world.home.cache / "current").symlink_to(f"gen/{new.name}")
    result = world.device.verifier.check(seen)
    assert (result.verdict.code, result.verdict.policy) == (VerdictCode.VALID, "default/1")
    assert "policy.fresh_h" in result.remarks[0]
    assert "default/1 stays in force" in result.remarks[0]
    assert list(read_log(world.home.audit))[-1]["sources"]["remarks"] == list(result.remarks)


# ------------------------------------------------------------------------------ what a set covers, and what not

PROVINCE, WATCH_ONLY = {"scope": "province", "covers": ("京",)}, {"scope": "watch", "covers": ("-",)}


def seen_plate(plate):
    return PlateSeen(plate=plate, confirmed=True)


def a_stranger(world, text):
    """A vehicle in good standing that the register has and the device's data have not."""
    fellow = next(v for v in iter(world.ordinary, None) if v.plate.text.startswith(text[0]))
    stranger = replace(fellow, plate=Plate(text, "02"), tid=None)
    world.authority.registry.register(stranger)
    return stranger


@pytest.mark.parametrize(("index", "absent"), [(PROVINCE, ("京Z00000", "沪Z00000")), (WATCH_ONLY, ("", "京Z00000"))])
def test_absence_says_something_only_of_what_the_set_covers(world, index, absent):
    put_into_use(world, **index)
    covered, outside = absent
    if covered:
        verdict = world.check(plate_seen=seen_plate(Plate(covered, "02")))
        assert (verdict.code, verdict.grade) == (VerdictCode.NOT_FOUND, Grade.FRESH_CACHE)
    verdict = world.check(plate_seen=seen_plate(Plate(outside, "02")))
    assert (verdict.code, verdict.grade, verdict.as_of) == (VerdictCode.UNDECIDED, Grade.NOTHING, None)
    assert verdict.reasons == (Reason.NO_STATUS_DATA,)
    cache = list(read_log(world.home.audit))[-1]["evidence"]["cache"]
    assert (cache["scope"], cache["covers"]) == (index["scope"], False)


@pytest.mark.parametrize("index", [PROVINCE, WATCH_ONLY])
def test_a_good_code_from_outside_is_signed_only_and_its_driver_may_go(world, index):
    stranger = a_stranger(world, "沪Z00001")
    text = printed(world, stranger)
    whole = world.check(code=text)
    assert (whole.code, Action.RELEASE in whole.actions) == (VerdictCode.NOT_FOUND, False)
    put_into_use(world, **index)
    verdict = world.check(code=text)
    assert (verdict.code, verdict.tone, verdict.grade) == (VerdictCode.SIGNED_ONLY, Tone.NOTE, Grade.SIGNATURE_ONLY)
    assert Action.RELEASE in verdict.actions
    both = world.check(code=text, plate_seen=seen_plate(stranger.plate))
    assert both.code is VerdictCode.SIGNED_ONLY


def test_a_revoked_document_from_outside_is_revoked(world):
    vehicle = world.ordinary()
    text = printed(world, vehicle)
    world.authority.registry.revoke(vehicle.plate)
    world.now = START + timedelta(hours=1)
    world.authority.publish()
    world.sync()
    put_into_use(world, **WATCH_ONLY)
    assert world.check(code=text).code is VerdictCode.REVOKED


def test_a_stolen_car_in_a_watch_only_set_is_a_hit(world):
    """Presence is a fact whatever the set covers: without this a watch-only device would never find anything."""
    stolen = next(v for v in world.authority.registry.vehicles.values() if StatusLetter.STOLEN in v.status)
    put_into_use(world, **WATCH_ONLY)
    verdict = world.check(plate_seen=seen_plate(stolen.plate))
    assert (verdict.code, verdict.tone) == (VerdictCode.WANTED, Tone.STOP)


def test_a_stolen_vehicle_in_a_watch_only_set_asks_for_the_kind_that_nobody_typed(world):
    """The car itself is not in such a set, so one vehicle under this text does not say that it stands there."""
    stolen = next(
        v for v in world.authority.registry.vehicles.values()
        if StatusLetter.STOLEN in v.status and len(kinds_of(v.plate.text)) > 1
    )  # fmt: skip
    put_into_use(world, **WATCH_ONLY)
    text_alone = world.check(plate_seen=seen_plate(Plate(stolen.plate.text, None)))
    assert (text_alone.code, text_alone.tone) == (VerdictCode.WATCH_CONFIRM, Tone.CAUTION)
    assert Reason.WATCH_KIND in text_alone.reasons
    assert text_alone.actions[0] is Action.CONFIRM_PLATE
    assert text_alone.as_of == START
    assert [replay(entry)[1] for entry in read_log(world.home.audit)] == [True]
    other = next(kind for kind in kinds_of(stolen.plate.text) if kind != stolen.plate.kind)
    assert world.check(plate_seen=seen_plate(Plate(stolen.plate.text, other))).code is VerdictCode.UNDECIDED


def test_a_wanted_vehicle_among_several_with_one_text_asks_for_the_kind(world):
    """The national set has both: which of them stands there, nobody has said."""
    stolen = next(
        v for v in world.authority.registry.vehicles.values()
        if StatusLetter.STOLEN in v.status and len(kinds_of(v.plate.text)) > 1
    )  # fmt: skip
    other = next(kind for kind in kinds_of(stolen.plate.text) if kind != stolen.plate.kind)
    fellow = replace(world.ordinary(), plate=Plate(stolen.plate.text, other), tid=None)
    world.authority.registry.register(fellow)
    world.now = START + timedelta(hours=1)
    world.authority.publish()
    world.sync()
    text_alone = world.check(plate_seen=seen_plate(Plate(stolen.plate.text, None)))
    assert (text_alone.code, Reason.WATCH_KIND in text_alone.reasons) == (VerdictCode.WATCH_CONFIRM, True)
    assert world.check(plate_seen=seen_plate(stolen.plate)).code is VerdictCode.WANTED
    assert world.check(plate_seen=seen_plate(fellow.plate)).code is VerdictCode.VALID


def test_a_damaged_block_of_a_set_that_does_not_cover_the_plate_is_still_cannot_say(world):
    put_into_use(world, **PROVINCE)
    base = world.home.cache / "current" / "base.db"
    base.chmod(0o644)
    base.write_bytes(base.read_bytes()[:4096])
    verdict = world.check(plate_seen=seen_plate(Plate("沪Z00000", "02")))
    assert verdict.code is VerdictCode.UNDECIDED


# --------------------------------------------------------------------------------- a trust list past its time


def printed(world, vehicle, age=timedelta(days=5)):
    return world.authority.text(vehicle.plate, PresentationMode.PRINTED, START - age).encode()


def put_into_use(world, *, entries=None, **changes):
    """A copy of the generation in use, with another trust list or index that fit its name; the old one stays too."""
    old = (world.home.cache / "current").resolve()
    index_bytes = encode_index(replace(decode_index((old / "index.cbor").read_bytes()), **changes))
    entries = entries or (old / "entries.cbor").read_bytes()
    content = schema.content_hash(index_bytes, entries, (old / "policy.json").read_bytes())
    new = old.with_name(f"national-1-{content}")
    shutil.copytree(old, new)
    (new / "index.cbor").write_bytes(index_bytes)
    (new / "entries.cbor").write_bytes(entries)
    (world.home.cache / "current").unlink()
    (world.home.cache / "current").symlink_to(f"gen/{new.name}")


def test_a_month_without_a_publication_rejects_nobody_and_releases_nobody_by_signature_alone(world):
    """One missed run of a publisher once turned every app of a country red."""
    text = printed(world, world.ordinary())
    for days, tone, old in ((29, Tone.NOTE, False), (31, Tone.CAUTION, True)):
        world.now = START + timedelta(days=days)
        result = world.device.verifier.check(Observation(code=text))
        verdict = result.verdict
        assert (verdict.code, verdict.tone) == (VerdictCode.SIGNED_ONLY, tone)
        assert (Reason.TRUST_LIST_OLD in verdict.reasons, Action.RELEASE in verdict.actions) == (old, not old)
        assert result.evidence.code.trust_as_of == START
    assert [replay(entry)[1] for entry in read_log(world.home.audit)] == [True, True]


def test_a_sync_makes_an_old_list_young_again(world):
    text = printed(world, world.ordinary())
    world.now = START + timedelta(days=31)
    assert Reason.TRUST_LIST_OLD in world.check(code=text).reasons
    world.authority.publish()
    world.sync()
    verdict = world.check(code=text)
    assert (verdict.code, Reason.TRUST_LIST_OLD in verdict.reasons) == (VerdictCode.VALID, False)


def test_a_list_that_was_refused_leaves_the_old_one_with_its_own_age(world):
    vehicle = world.ordinary()
    text = printed(world, vehicle)
    assert world.check(code=text).code is VerdictCode.VALID
    world.now = START + timedelta(days=31)
    put_into_use(world, issued_at=world.now, entries=b"\x80 and more")
    result = world.device.verifier.check(Observation(code=text))
    assert (result.verdict.code, result.verdict.grade) == (VerdictCode.VALID_STALE, Grade.STALE_CACHE)
    assert (result.verdict.as_of, result.evidence.code.trust_as_of) == (world.now, START)
    assert "stays in force" in result.remarks[0]
    seen = PlateSeen(plate=vehicle.plate, confirmed=True)
    proven = world.check(code=text, plate_seen=seen)
    assert (proven.code, proven.grade, proven.tone) == (VerdictCode.VALID, Grade.FRESH_CACHE, Tone.NOTE)


def test_r18_goes_by_the_date_of_a_list_that_the_sync_kept_and_not_by_that_of_the_night(world):
    text = printed(world, world.ordinary())
    world.now = START + timedelta(days=31)
    put_into_use(world, issued_at=world.now)
    assert Reason.TRUST_LIST_OLD not in world.check(code=text).reasons
    world.now += timedelta(hours=1)
    put_into_use(world, issued_at=world.now)
    (world.home.cache / "current" / "entries.date").write_bytes(str(int(START.timestamp())).encode())
    verdict = world.check(code=text)
    assert (verdict.code, Reason.TRUST_LIST_OLD in verdict.reasons) == (VerdictCode.VALID_STALE, True)
    assert verdict.as_of == world.now


# ------------------------------------------------------------------------------------ the VIN on the car


def test_the_vin_on_the_car_is_compared_with_the_proven_credential(world):
    vehicle, other = world.ordinary(), world.ordinary()
    text, seen = printed(world, vehicle), PlateSeen(plate=vehicle.plate, confirmed=True)
    same = world.check(code=text, plate_seen=seen, vin=read_vin(vehicle.vin))
    assert (same.code, same.tone, Reason.VIN_CONFIRMED in same.reasons) == (VerdictCode.VALID, Tone.PASS, True)
    clone = world.check(code=text, plate_seen=seen, vin=read_vin(other.vin))
    assert (clone.code, clone.tone, Reason.VIN_MISMATCH in clone.reasons) == (VerdictCode.MISMATCH, Tone.STOP, True)
    assert [replay(entry)[1] for entry in read_log(world.home.audit)] == [True, True]


def test_a_vin_is_kept_nowhere(world):
    vehicle = world.ordinary()
    seen = Observation(code=printed(world, vehicle), vin=read_vin(vehicle.vin))
    assert vehicle.vin not in repr(seen)
    assert vehicle.vin not in repr(world.device.verifier.check(seen))
    assert vehicle.vin not in world.home.audit.read_text(encoding="utf-8")


def test_a_vin_that_was_not_compared_is_said_to_be_so(world):
    vehicle, vin = world.ordinary(), read_vin(world.ordinary().vin)
    stranger = world.authority.text(vehicle.plate, PresentationMode.STORED)
    unproven = code_evidence(stranger.encode(), TrustList(()), START, vin=vin)
    assert (unproven.signature, unproven.vin_matches) == (SignatureState.UNKNOWN_KEY, None)
    result = world.device.verifier.check(Observation(code=b"VM1:", vin=vin))
    assert result.verdict.code is VerdictCode.UNREADABLE
    assert "VIN: not compared" in result.remarks[0]


def test_one_wrong_key_in_a_vin_never_makes_a_stop(world):
    vehicle = world.ordinary()
    text, trust = printed(world, vehicle), load_trust_list(world.device.store.trust_entries())
    typed = 0
    for place, char in product(range(LENGTH), ALPHABET):
        slip = vehicle.vin[:place] + char + vehicle.vin[place + 1 :]
        try:
            vin = read_vin(slip)
        except ValueError:
            continue
        typed += 1
        evidence = code_evidence(text, trust, START, vin=vin)
        assert evidence.vin_matches is (True if slip == vehicle.vin else None)
    assert typed > LENGTH  # the check digit does not tell them all


def test_only_a_proven_credential_describes_the_car(world):
    vehicle = world.ordinary()
    proven = world.device.verifier.check(Observation(code=printed(world, vehicle)))
    assert (proven.credential.vehicle_type, proven.credential.body_colour) == (
        vehicle.vehicle_type,
        vehicle.body_colour,
    )
    changed = bytearray(printed(world, vehicle))
    changed[-1] = ord("0") if changed[-1] != ord("0") else ord("1")
    assert world.device.verifier.check(Observation(code=bytes(changed))).credential is None
    assert world.device.verifier.check(Observation(code=NOTHING_READ)).credential is None
    assert world.device.verifier.check(Observation()).credential is None


def test_the_command_compares_a_typed_vin_and_describes_the_car(tmp_path, capsys):
    world = World(tmp_path, system_clock())
    world.sync()
    vehicle, other, picture = world.ordinary(), world.ordinary(), tmp_path / "code.png"
    qr_picture(world.authority.text(vehicle.plate, PresentationMode.STORED, world.now)).save(picture)
    check = ["check", str(picture), "--home", str(tmp_path), "--vin"]
    assert main([*check, vehicle.vin.lower()]) == 0
    card = capsys.readouterr().out
    assert "车架号相符" in card
    assert f"车型 {VEHICLE_TYPES[vehicle.vehicle_type].zh}" in card
    assert main([*check, other.vin, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["reasons"]) == ("MISMATCH", ["VIN_MISMATCH"])
    looks = {"type": vehicle.vehicle_type, "colour": vehicle.body_colour, "use": vehicle.use_nature}
    assert found["vehicle"] == looks
    assert main([*check, vehicle.vin, "--role", "gate"]) == 0
    assert "车型" not in capsys.readouterr().out


@pytest.mark.parametrize("vin", ["LSVAA49J5E2000001", "LSVAA49J4E200000", "LSVAA49J4E2O00001"])
def test_a_mistyped_vin_is_refused_before_anything_is_checked(vin, tmp_path, capsys):
    assert main(["check", str(tmp_path / "code.png"), "--vin", vin, "--home", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert ("VIN: " in shown.err, vin in shown.err + shown.out) == (True, False)
    assert list(tmp_path.iterdir()) == []


def test_a_vin_without_a_picture_has_nothing_to_be_compared_with(tmp_path, capsys):
    assert main(["check", "--plate", "京A12345", "--vin", "LSVAA49J4E2000001", "--home", str(tmp_path)]) == 2
    assert "--vin goes with a PICTURE" in capsys.readouterr().err


# --------------------------------------------------------------------------------- faults to evidence


def test_every_fault_has_its_place_in_the_decision():
    kept = {
        CodeFault.LIFETIME,
        CodeFault.NOT_YET_VALID,
        CodeFault.EXPIRED,
        CodeFault.NEEDS_PRESENTATION,
        CodeFault.STALE_PRESENTATION,
    }
    assert set(READINGS) | set(SIGNATURES) | kept == set(CodeFault)
    assert not set(READINGS) & set(SIGNATURES)


@pytest.mark.parametrize(
    ("payload", "reading", "signature"),
    [
        (NOTHING_READ, CodeReading.NONE, None),
        (b"https://example.com", CodeReading.FOREIGN, None),
        (b"VM7:0", CodeReading.UNSUPPORTED_VERSION, None),
        (b"VM1:", CodeReading.MALFORMED, None),
    ],
)
def test_bytes_to_evidence(payload, reading, signature):
    evidence = code_evidence(payload, TrustList(()), START)
    assert (evidence.reading, evidence.signature) == (reading, signature)


def test_an_unknown_key_keeps_what_the_code_says_as_a_claim(world):
    vehicle = world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.STORED)
    evidence = code_evidence(text.encode(), TrustList(()), START)
    assert evidence.signature is SignatureState.UNKNOWN_KEY
    assert evidence.credential.plate == vehicle.plate


# -------------------------------------------------------------------------------------------- audit log


def test_every_check_leaves_a_line_from_which_it_is_decided_again(world):
    vehicle = world.ordinary()
    text = world.authority.text(vehicle.plate, PresentationMode.STORED, START - timedelta(days=5)).encode()
    world.check(code=text)
    world.check(code=NOTHING_READ)
    world.check(plate_seen=PlateSeen(plate=vehicle.plate, confirmed=True), paper_displayed=False)
    entries = list(read_log(world.home.audit))
    assert [replay(entry)[1] for entry in entries] == [True, True, True]
    assert entries[0]["sources"]["cache"]["generation"].startswith("national-1-")
    assert entries[0]["software"].startswith("markcheck ")
    assert set(entries[0]["inputs"]) == {"code_sha256"}
    assert world.home.audit.stat().st_mode & 0o777 == 0o600


def test_a_changed_removed_or_swapped_line_is_found(world):
    for _ in range(4):
        world.check(code=NOTHING_READ)
    lines = world.home.audit.read_bytes().splitlines(keepends=True)
    changed = lines[1].replace(b"UNREADABLE", b"VALID")
    for broken in ([lines[0], changed, *lines[2:]], lines[1:], [*lines[:1], *lines[2:]], [lines[1], lines[0]]):
        world.home.audit.write_bytes(b"".join(broken))
        with pytest.raises(AuditError, match="does not follow"):
            list(read_log(world.home.audit))
    world.home.audit.write_bytes(lines[0] + b"\n" + b"".join(lines[1:]))
    assert len(list(read_log(world.home.audit))) == 4  # a blank line is nothing


def test_a_line_cut_by_a_power_loss_costs_that_line_only(world):
    world.check(code=NOTHING_READ)
    with world.home.audit.open("ab") as file:
        file.write(b'{"prev":"half a li')
    world.check(code=NOTHING_READ)
    first, cut, last = read_log(world.home.audit)
    assert cut == {"unreadable": 2}
    assert first["verdict"] == last["verdict"]


def test_a_record_that_lacks_something_says_what(world):
    world.check(code=NOTHING_READ)
    (entry,) = read_log(world.home.audit)
    for key in ("evidence", "policy"):
        with pytest.raises(AuditError, match=key):
            replay({k: v for k, v in entry.items() if k != key})
    entry["verdict"]["grade"] = "A"
    assert replay(json.loads(json.dumps(entry)))[1] is False
