"""The local verdict at once, the centre's word when it comes: what changes, on whose screen, and what is kept of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.config import REGION
from firmware.views import result_view
from scripts.sandbox.folder_store import MemoryFetcher
from tests import fault_proxy as faults
from tests.centres import OLD, START, Handset, OnlineWorld, at_once, status_key
from tests.fault_proxy import fault_proxy
from verifier.adapters import online_evidence, online_failure
from verifier.audit import read_log, replay
from verifier.cache.keys import PLATE, plate_bytes
from verifier.check import Observation
from verifier.codec.online import DocumentWord, IdKind, OnlineAnswer, Row, RowStatus, decode_answer, decode_request
from verifier.codec.status import ListedStatus
from verifier.errors import FetchError, FetchTimeoutError, RefusedError, RejectedError, StatusError
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.late import LateAnswers, wants_centre
from verifier.link import Ask, Mode
from verifier.online import MAX_AT_WORK
from verifier.plates import kinds_of
from verifier.sync import SyncClient
from verifier.types import (
    CredentialState,
    CredentialStatus,
    Evidence,
    Month,
    OnlineEvidence,
    OnlineState,
    Plate,
    PlateSeen,
    PresentationMode,
    SignatureState,
    Source,
    StatusAnswer,
    StatusLetter,
    TagAuth,
    TagEvidence,
    VinAnswer,
)
from verifier.verdict import Action, Finding, Grade, Reason, Tone, VerdictCode
from verifier.vin import read_vin
from verifier.wording import REASONS

V = VerdictCode


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture(scope="module")
def url(world: OnlineWorld) -> Iterator[str]:
    with world.serving() as url:
        yield url


@pytest.fixture
def home(world: OnlineWorld, tmp_path: Path) -> Iterator[Path]:
    """A device whose data are of three days ago."""
    with world.old_data(tmp_path) as folder:
        yield folder


@pytest.fixture
def hand(world: OnlineWorld, home: Path, url: str) -> Iterator[Handset]:
    hand = Handset(world, home, url)
    yield hand
    hand.close()


def code_of(world: OnlineWorld, plate: Plate) -> bytes:
    return world.authority.text(plate, PresentationMode.STORED, START - timedelta(days=5)).encode()


def typed(plate: Plate) -> Observation:
    return Observation(plate_seen=PlateSeen(plate=plate, confirmed=True))


# --------------------------------------------------------------------------------------------- what changes


def test_a_late_answer_turns_old_data_into_a_verdict_of_today(world, hand):
    local, late = hand.check(world.vehicle().plate)
    assert (local.verdict.code, local.verdict.grade) == (V.VALID_STALE, Grade.STALE_CACHE)
    assert (late.verdict.code, late.verdict.grade, late.verdict.tone) == (V.VALID, Grade.ONLINE, Tone.PASS)
    assert (late.check_id, late.late) == (local.check_id, True)
    assert hand.queue.waiting() == []


def test_a_vehicle_that_lapsed_since_the_night_never_keeps_its_green(world, hand):
    vehicle = world.vehicle()
    world.authority.registry.lapse(vehicle.plate, Month(2026, 8))
    local, late = hand.check(vehicle.plate)
    assert (local.verdict.code, late.verdict.code) == (V.VALID_STALE, V.EXPIRED)


def test_a_driver_who_was_inspected_since_the_night_is_cleared_at_the_roadside(world, home, hand):
    vehicle = world.vehicle()
    world.now = START
    world.authority.registry.lapse(vehicle.plate, Month(2026, 8))
    world.authority.publish()
    world.sync(home)
    world.authority.registry.renew(vehicle.plate, Month(2027, 8))
    local, late = hand.check(vehicle.plate)
    assert (local.verdict.code, local.verdict.tone) == (V.EXPIRED, Tone.STOP)
    assert (late.verdict.code, late.verdict.tone) == (V.VALID, Tone.PASS)


def test_a_stolen_car_is_stopped_by_the_letters_of_the_centre(world, hand):
    vehicle = world.vehicle()
    world.authority.registry.set_status(vehicle.plate, "AC")
    assert hand.check(vehicle.plate)[-1].verdict.code is V.WANTED


def test_a_vehicle_that_the_register_does_not_have_is_not_found_by_a_signed_answer_only(world, hand):
    nobody = Plate("京Z9Z9Z9", "02")
    local, late = hand.check(nobody)
    assert local.verdict.code is not V.NOT_FOUND
    assert (late.verdict.code, late.evidence.online.state) == (V.NOT_FOUND, OnlineState.NOT_FOUND)


def test_a_credential_revoked_since_the_night_is_refused_at_the_roadside(world, hand):
    vehicle = world.vehicle()
    code = code_of(world, vehicle.plate)
    world.authority.registry.revoke(vehicle.plate)
    local, late = hand.check(vehicle.plate, code)
    assert (local.verdict.code, late.verdict.code) == (V.VALID_STALE, V.REVOKED)


def test_a_centre_that_cannot_say_is_no_answer_and_never_not_found(world, hand):
    world.unknown = True
    vehicle = world.vehicle()
    late = hand.check(vehicle.plate)[-1]
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.UNREACHABLE, V.VALID_STALE)
    assert hand.centre.link.failures == 0  # the centre itself is there
    assert len(hand.queue.waiting()) == 1
    nobody = hand.check(Plate("京Z9Z9Z9", "02"))[-1]
    assert nobody.verdict.code is not V.NOT_FOUND


def test_a_row_that_the_centre_read_more_than_an_hour_ago_is_no_online_answer(world, hand):
    def aged(answer: OnlineAnswer) -> OnlineAnswer:
        return replace(answer, rows=tuple(replace(r, as_of=r.as_of - timedelta(seconds=3601)) for r in answer.rows))

    world.spoil = aged
    late = hand.check(world.vehicle().plate)[-1]
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.UNREACHABLE, V.VALID_STALE)


def test_a_centre_speaks_only_of_plates_in_its_charge(world, home, url, tmp_path):
    shanghai = status_key(regions=("沪",))
    world.authority.begin_status(shanghai)
    world.now = START
    world.authority.publish()
    world.authority.publish_trust()
    world.sync(home)
    world.now, world.signer = START + OLD, shanghai
    hand = Handset(world, home, url)
    beijing = next(p for p in world.authority.registry.vehicles if p.text.startswith("京"))
    late = hand.check(beijing)[-1]
    hand.close()
    world.now = START
    world.authority.begin_status(world.key)
    world.authority.publish()
    assert late.evidence.online.state is OnlineState.BAD_SIGNATURE


def test_a_plate_of_which_nobody_said_the_kind_is_asked_for_under_each(world, home, url):
    vehicle = world.vehicle()
    text = vehicle.plate.text
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        late = hand.check(Plate(text, None))[-1]
        hand.close()
    (request,) = [decode_request(body) for body in proxy.requests]
    assert len(request.ids) == len(kinds_of(text))
    assert late.verdict.code is V.VALID


def test_two_vehicles_of_one_text_are_nobody_without_a_kind(world, home, url):
    vehicle = world.vehicle()
    other = next(kind for kind in kinds_of(vehicle.plate.text) if kind != vehicle.plate.kind)
    twin = replace(vehicle, plate=Plate(vehicle.plate.text, other))
    world.authority.registry.register(twin)
    hand = Handset(world, home, url)
    late = hand.check(Plate(vehicle.plate.text, None))[-1]
    hand.close()
    del world.authority.registry.vehicles[twin.plate]
    assert (late.verdict.code, late.verdict.tone) == (V.UNDECIDED, Tone.CAUTION)
    assert Reason.WATCH_KIND in late.verdict.reasons
    assert Reason.ONLINE_UNREACHABLE not in late.verdict.reasons
    assert replay(list(read_log(hand.audit))[-1])[1]


def test_a_hit_is_not_lost_where_the_centre_has_two_vehicles_of_one_text_and_one_is_stolen(world, home, url):
    """The device's old data know the other one alone."""
    vehicle = world.vehicle()
    other = next(kind for kind in kinds_of(vehicle.plate.text) if kind != vehicle.plate.kind)
    stolen = replace(vehicle, plate=Plate(vehicle.plate.text, other), status=frozenset({StatusLetter.STOLEN}))
    world.authority.registry.register(stolen)
    world.now = START + OLD
    hand = Handset(world, home, url)
    local, late = hand.check(Plate(vehicle.plate.text, None))
    told = hand.check(stolen.plate, fresh=True)[-1]
    hand.close()
    del world.authority.registry.vehicles[stolen.plate]
    assert local.verdict.code is V.VALID_STALE
    assert (late.verdict.code, Action.RELEASE in late.verdict.actions) == (V.WATCH_CONFIRM, False)
    assert told.verdict.code is V.WANTED


# ------------------------------------------------------------------------------- the VIN, by the centre's register


NOBODYS = read_vin("LSVAA49J4E2000001")


def test_the_centre_confirms_the_vin_of_the_plate_and_nothing_gets_greener_by_it(world, hand):
    vehicle = world.vehicle()
    plain = hand.check(vehicle.plate)[-1]
    local, late = hand.check(vehicle.plate, vin=read_vin(vehicle.vin))
    assert (late.evidence.online.vin, late.verdict.code) == (VinAnswer.SAME, V.VALID)
    assert Finding(Reason.VIN_CONFIRMED, Source.ONLINE) in late.verdict.findings
    assert (late.verdict.tone, late.verdict.grade, late.verdict.actions) == (
        plain.verdict.tone, plain.verdict.grade, plain.verdict.actions
    )  # fmt: skip
    assert ("VIN: not compared" in str(local.remarks), "VIN" in str(late.remarks)) == (True, False)


def test_a_cloned_plate_on_another_car_is_a_doubt_that_nobody_is_let_go_on(world, hand):
    vehicle, other = world.vehicle(), world.vehicle()
    late = hand.check(vehicle.plate, vin=read_vin(other.vin))[-1]
    assert (late.evidence.online.vin, late.verdict.code, late.verdict.tone) == (
        VinAnswer.OTHER, V.VALID, Tone.CAUTION
    )  # fmt: skip
    assert Finding(Reason.VIN_MISMATCH, Source.ONLINE) in late.verdict.findings
    assert (Action.CHECK_VIN in late.verdict.actions, Action.RELEASE in late.verdict.actions) == (True, False)
    view = result_view(late, "en")
    assert REASONS[Reason.VIN_MISMATCH].en in str(view)


def test_the_vin_of_a_stolen_car_under_a_cloned_plate_calls_for_the_centre_and_makes_no_stop(world, hand):
    vehicle, stolen = world.vehicle(), world.vehicle()
    world.authority.registry.set_status(stolen.plate, "C")
    late = hand.check(vehicle.plate, vin=read_vin(stolen.vin))[-1]
    assert (late.evidence.online.vin, late.verdict.tone) == (VinAnswer.WANTED, Tone.CAUTION)
    assert {Reason.VIN_MISMATCH, Reason.VIN_WANTED} <= set(late.verdict.reasons)
    assert {Action.CHECK_VIN, Action.CONFIRM_CENTRE} <= set(late.verdict.actions)


def test_a_vin_that_no_vehicle_has_is_said_to_be_so_and_makes_no_stop(world, hand):
    late = hand.check(world.vehicle().plate, vin=NOBODYS)[-1]
    assert (late.evidence.online.vin, late.verdict.code, late.verdict.tone) == (
        VinAnswer.ABSENT, V.VALID, Tone.CAUTION
    )  # fmt: skip
    assert (Reason.VIN_NOT_FOUND in late.verdict.reasons, Action.CHECK_VIN in late.verdict.actions) == (True, True)


def test_a_typed_vin_is_asked_for_though_the_local_verdict_is_a_pass(world, home, url):
    world.now = START
    vehicle, other = world.vehicle(), world.vehicle()
    hand = Handset(world, home, url)
    local, late = hand.check(vehicle.plate, vin=read_vin(other.vin))
    hand.close()
    assert (local.verdict.tone, late.verdict.tone) == (Tone.PASS, Tone.CAUTION)


def test_no_vin_goes_out_or_into_the_log_but_its_hash(world, home, url):
    vehicle = world.vehicle()
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        results = hand.check(vehicle.plate, code_of(world, vehicle.plate), vin=read_vin(vehicle.vin))
        hand.close()
    (body,) = proxy.requests
    assert [asked.kind for asked in decode_request(body).ids] == [IdKind.PLATE, IdKind.CREDENTIAL, IdKind.VIN]
    assert vehicle.vin.encode() not in body
    log = hand.audit.read_text(encoding="utf-8")
    assert (vehicle.vin in log, vehicle.vin.encode().hex() in log, vehicle.vin in repr(results)) == (False,) * 3
    entries = list(read_log(hand.audit))
    assert [entry["evidence"]["online"]["vin_answer"] for entry in entries] == [None, "same"]
    assert [replay(entry)[1] for entry in entries] == [True, True]


def vin_row(change: Callable[[Row], Row]) -> Callable[[OnlineAnswer], OnlineAnswer]:
    """The last row, which is the VIN's, as a centre may have it."""
    return lambda answer: replace(answer, rows=(*answer.rows[:-1], change(answer.rows[-1])))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: replace(row, status=RowStatus.UNKNOWN, record=None),
        lambda row: replace(row, as_of=row.as_of - timedelta(minutes=61)),
    ],
    ids=["unknown", "old"],
)
def test_what_the_centre_cannot_say_of_a_vin_now_changes_nothing(world, hand, change):
    vehicle, other = world.vehicle(), world.vehicle()
    plain = hand.check(vehicle.plate)[-1]
    world.spoil = vin_row(change)
    late = hand.check(vehicle.plate, vin=read_vin(other.vin))[-1]
    assert (late.evidence.online.vin, late.verdict) == (None, plain.verdict)
    assert "VIN: not compared" in str(late.remarks)


def test_a_doubt_by_the_vin_is_kept_where_the_centre_cannot_say_anything_of_the_plate(world, hand):
    vehicle, other = world.vehicle(), world.vehicle()
    world.spoil = lambda answer: replace(
        answer, rows=(Row(status=RowStatus.UNKNOWN, as_of=answer.issued_at), *answer.rows[1:])
    )
    local, late = hand.check(vehicle.plate, vin=read_vin(other.vin))
    assert (late.verdict.code, late.verdict.grade) == (local.verdict.code, local.verdict.grade)
    assert (late.verdict.tone, Reason.VIN_MISMATCH in late.verdict.reasons) == (Tone.CAUTION, True)
    assert replay(list(read_log(hand.audit))[-1])[1]
    assert len(hand.queue.waiting()) == 1, "the plate is still to be looked at again"
    world.spoil = lambda answer: answer
    hand.rechecker.tells(hand.shown.append)
    assert [news.now for news in hand.rechecker.run(hand.verifier.standing()).settled] == [V.VALID]
    again = hand.shown[-1]
    assert (again.verdict.grade, again.verdict.tone) == (Grade.ONLINE, Tone.CAUTION)
    assert Reason.VIN_MISMATCH in again.verdict.reasons, "nobody asks for the VIN again: what was said of it holds"


def test_a_plate_without_its_kind_is_compared_under_each_that_it_may_have(world, hand):
    vehicle = world.vehicle()
    late = hand.check(Plate(vehicle.plate.text, None), vin=read_vin(vehicle.vin))[-1]
    assert late.evidence.online.vin is VinAnswer.SAME


def test_the_vin_of_a_wanted_car_is_no_confirmation_though_another_vehicle_has_the_same_text(world, home, url):
    world.now = START
    vehicle, wanted = world.vehicle(), world.vehicle()
    kind = next(kind for kind in kinds_of(vehicle.plate.text) if kind != vehicle.plate.kind)
    twin = Plate(vehicle.plate.text, kind)
    world.authority.registry.replate(wanted.plate, twin)
    world.authority.registry.set_status(twin, "AC")
    hand = Handset(world, home, url)
    local, late = hand.check(Plate(vehicle.plate.text, None), vin=read_vin(wanted.vin))
    hand.close()
    assert local.verdict.tone is Tone.PASS, "the night before knew of one vehicle only"
    assert (late.evidence.online.vin, late.verdict.tone) == (VinAnswer.WANTED, Tone.CAUTION)
    assert (Action.CONFIRM_CENTRE in late.verdict.actions, Action.RELEASE in late.verdict.actions) == (True, False)
    assert Reason.VIN_CONFIRMED not in late.verdict.reasons


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("taken", [False, True], ids=["free", "given to another car"])
def test_whoever_shows_the_mark_of_the_plate_before_is_doubted_only_where_another_car_has_that(
    world, hand, taken, wanted
):
    vehicle, other = world.vehicle(), world.vehicle()
    code, old = code_of(world, vehicle.plate), vehicle.plate
    new = Plate(old.text[:2] + "0" + "GC"[taken] + "0" + "GC"[wanted] + "0", "02")
    world.authority.registry.replate(old, new)
    if wanted:
        world.authority.registry.set_status(new, "C")
    if taken:
        world.authority.registry.replate(other.plate, old)
    # This centre has no word on the new plate of a document, the answer of a real one has.
    moved = DocumentWord(ListedStatus.SUPERSEDED, world.digest(PLATE, plate_bytes(new)))
    world.spoil = lambda answer: replace(
        answer, rows=(answer.rows[0], replace(answer.rows[1], record=moved), *answer.rows[2:])
    )
    hand.shown.clear()
    hand.late.check(Observation(code=code, vin=read_vin(vehicle.vin)))
    late = hand.shown[-1]
    other = VinAnswer.OTHER if taken else None
    assert late.evidence.online.vin is (VinAnswer.WANTED if wanted else other)
    assert (late.verdict.tone, Reason.VIN_MISMATCH in late.verdict.reasons) == (Tone.CAUTION, taken or wanted)


def test_a_centre_that_serves_no_vins_still_answers_for_the_plate(world, home, url):
    vehicle = world.vehicle()
    world.serves = frozenset(IdKind) - {IdKind.VIN}
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        late = hand.check(vehicle.plate, vin=read_vin(vehicle.vin))[-1]
        hand.close()
    assert [len(decode_request(body).ids) for body in proxy.requests] == [2, 1]
    assert (late.verdict.code, late.verdict.grade, late.evidence.online.vin) == (V.VALID, Grade.ONLINE, None)
    assert "VIN: not compared" in str(late.remarks)


def test_a_centre_that_refuses_everything_is_asked_no_third_time(world, home, url):
    world.serves = frozenset()
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        late = hand.check(world.vehicle().plate, vin=NOBODYS)[-1]
        assert (late.evidence.online.state, len(proxy.requests)) == (OnlineState.UNREACHABLE, 2)
        hand.check(world.vehicle().plate)
        assert len(proxy.requests) == 3
        hand.close()


# ------------------------------------------------------------------------------------------ what goes out


def test_what_is_asked_holds_hashes_only(world, home, url):
    vehicle = world.vehicle()
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        hand.check(vehicle.plate, code_of(world, vehicle.plate))
        hand.close()
    (body,) = proxy.requests
    assert [asked.kind for asked in decode_request(body).ids] == [IdKind.PLATE, IdKind.CREDENTIAL]
    serial = world.authority.registry.credential(vehicle.plate).serial
    assert vehicle.plate.text.encode() not in body
    assert bytes.fromhex(serial) not in body


@pytest.mark.parametrize("mode", [Mode.OFFLINE])
def test_in_offline_mode_there_is_no_traffic(world, home, url, mode):
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url, mode=mode)
        assert len(hand.check(world.vehicle().plate)) == 1
        hand.ticks.ms += 10**7
        hand.upkeep.step()
        assert hand.rechecker.run(hand.verifier.standing()).waiting == 1
        hand.centre.retry()
        assert len(hand.check(world.vehicle().plate)) == 1
        assert proxy.connections == 0
        hand.centre.choose(Mode.AUTO)
        assert len(hand.check(world.vehicle().plate)) == 2
        hand.close()


def test_a_pass_on_fresh_data_asks_nobody_unless_the_device_is_set_to(world, home, url):
    world.now = START
    vehicle = world.vehicle()
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        assert len(hand.check(vehicle.plate)) == 1
        assert proxy.connections == 0
        shown = []
        always = LateAnswers(hand.verifier, hand.centre, shown.append, ask=Ask.ALWAYS, start=at_once)
        always.check(typed(vehicle.plate))
        assert [result.verdict.grade for result in shown] == [Grade.FRESH_CACHE, Grade.ONLINE]
        hand.close()


def test_what_only_an_unproven_code_names_and_what_others_check_is_not_asked(world, hand):
    vehicle = world.vehicle()
    result = hand.verifier.check(typed(vehicle.plate))
    assert wants_centre(result)
    unproven = hand.verifier.check(Observation(code=code_of(world, vehicle.plate)))
    code = replace(unproven.evidence.code, signature=SignatureState.UNKNOWN_KEY)
    assert not wants_centre(replace(unproven, evidence=replace(unproven.evidence, code=code)))
    assert not wants_centre(hand.verifier.check(typed(Plate("WJ京1234A", "31"))), Ask.ALWAYS)


# ---------------------------------------------------------------------------------------- whose screen (E7)


class Held:
    """Background work that waits until the test lets it go."""

    def __init__(self) -> None:
        self.works: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> bool:
        self.works.append(work)
        return True


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_late_answer_never_overwrites_the_next_vehicles_screen(world, home, url, order):
    held = Held()
    hand = Handset(world, home, url, start=held)
    lapsed, valid = world.vehicle(), world.vehicle()
    world.authority.registry.lapse(lapsed.plate, Month(2026, 8))
    first = hand.late.check(typed(lapsed.plate))
    second = hand.late.check(typed(valid.plate))
    for number in order:
        held.works[number]()
    shown = [(result.check_id, result.verdict.code) for result in hand.shown]
    assert shown == [
        (first.check_id, V.VALID_STALE),
        (second.check_id, V.VALID_STALE),
        (second.check_id, V.VALID),
    ]
    # The first vehicle's answer is not lost either: it stands in the log under its own number.
    upgrades = {e["id"]: e["verdict"]["verdict"] for e in read_log(hand.audit) if e["kind"] == "upgrade"}
    assert upgrades == {first.check_id: "EXPIRED", second.check_id: "VALID"}
    hand.close()


def test_an_answer_that_comes_while_the_next_check_runs_is_not_shown(world, home, url):
    held = Held()
    hand = Handset(world, home, url, start=held)
    hand.late.check(typed(world.vehicle().plate))
    plain = hand.verifier.check

    def meanwhile(seen: Observation):
        held.works[0]()
        return plain(seen)

    hand.verifier.check = meanwhile
    second = hand.late.check(typed(world.vehicle().plate))
    assert [result.late for result in hand.shown] == [False, False]
    assert hand.shown[-1].check_id == second.check_id
    hand.close()


def test_after_the_officer_left_the_screen_nothing_comes_late(world, home, url):
    held = Held()
    hand = Handset(world, home, url, start=held)
    hand.late.check(typed(world.vehicle().plate))
    hand.late.left()
    held.works[0]()
    assert len(hand.shown) == 1
    hand.close()


def test_with_real_threads_the_last_word_on_the_screen_is_of_the_last_vehicle(world, home, url):
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> bool:
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return True

    hand = Handset(world, home, url, start=start)
    last = ""
    for _ in range(12):
        last = hand.late.check(typed(world.vehicle().plate)).check_id
        current = [result.check_id for result in hand.shown]
        assert current[-1] == last
    for thread in threads:
        thread.join()
    order = [result.check_id for result in hand.shown]
    assert order == sorted(order, key=order.index)  # each vehicle's results stand together
    assert order[-1] == last
    entries = list(read_log(hand.audit))
    assert len([e for e in entries if e["kind"] == "check"]) == 12
    hand.close()


# ----------------------------------------------------------------------------------------------- what is kept


def test_the_log_holds_the_signed_answer_and_the_upgraded_verdict_can_be_decided_again(world, hand):
    local, late = hand.check(world.vehicle().plate)
    check, upgrade = read_log(hand.audit)
    assert (check["kind"], upgrade["kind"]) == ("check", "upgrade")
    assert check["id"] == upgrade["id"] == late.check_id
    assert (replay(check)[0], replay(upgrade)[0]) == (local.verdict, late.verdict)
    assert replay(upgrade)[1]
    proof = upgrade["sources"]["online"]
    request, answer = bytes.fromhex(proof["request"]), bytes.fromhex(proof["answer"])
    assert decode_answer(answer, request, hand.verifier.standing().trust)[0].rows


def test_an_answer_is_used_again_until_it_ends_and_asked_anew_on_the_officers_word(world, home, url):
    vehicle = world.vehicle()
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, home, proxy.url)
        hand.check(vehicle.plate)
        hand.ticks.ms += 299_999
        again = hand.check(vehicle.plate)[-1]
        assert (again.verdict.grade, len(proxy.requests)) == (Grade.ONLINE, 1)
        hand.check(vehicle.plate, fresh=True)
        assert len(proxy.requests) == 2
        hand.ticks.ms += 300_000
        hand.check(vehicle.plate)
        assert len(proxy.requests) == 3
        hand.close()


def test_remembered_answers_are_bounded(world, hand, monkeypatch):
    monkeypatch.setattr("verifier.online.MAX_REMEMBERED", 5)
    for plate in list(world.authority.registry.vehicles)[:12]:
        hand.check(plate)
    assert len(hand.centre._remembered) == 5


def test_an_answer_is_not_used_again_under_another_trust_list(tmp_path):
    world = OnlineWorld()
    vehicle = world.vehicle()
    world.sync(tmp_path)
    with world.serving() as upstream, fault_proxy(faults.clean, upstream) as proxy:
        hand = Handset(world, tmp_path, proxy.url)
        world.now = START + OLD
        assert hand.check(vehicle.plate)[-1].verdict.grade is Grade.ONLINE
        world.now = START + timedelta(hours=1)
        world.authority.begin_status(status_key())  # the key of that answer counts no more
        world.authority.publish()
        world.sync(tmp_path)
        world.now = START + OLD
        late = hand.check(vehicle.plate)[-1]
        hand.close()
    assert len(proxy.requests) == 2
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.BAD_SIGNATURE, V.VALID_STALE)


def test_an_answer_from_before_never_clears_a_car_that_the_hot_list_has_stopped_since(tmp_path):
    world = OnlineWorld()
    vehicle = world.vehicle()
    world.sync(tmp_path)
    world.now = START + OLD  # so that the centre is asked
    with world.serving() as upstream, fault_proxy(faults.clean, upstream) as proxy:
        hand = Handset(world, tmp_path, proxy.url)
        assert hand.check(vehicle.plate)[-1].verdict.code is V.VALID
        world.authority.registry.set_status(vehicle.plate, "AC")
        world.authority.publish_hot()
        SyncClient(
            tmp_path / "cache", MemoryFetcher(world.store), world.clock, world.authority.publisher.root_bytes(), REGION
        ).refresh_hot()
        shown = hand.check(vehicle.plate)
        hand.close()
    assert (len(shown), shown[-1].verdict.code, len(proxy.requests)) == (2, V.WANTED, 2)


def test_a_centre_that_lags_behind_the_set_on_the_device_clears_no_stolen_car(tmp_path):
    world = OnlineWorld()
    vehicle = world.vehicle()
    with world.serving() as url:
        world.authority.registry.set_status(vehicle.plate, "AC")
        world.authority.publish()
        world.sync(tmp_path)
        world.authority.registry.set_status(vehicle.plate, "A")  # as the centre's copy still has it
        world.now = START + timedelta(minutes=20)

        def lagging(answer: OnlineAnswer) -> OnlineAnswer:
            rows = tuple(replace(row, as_of=START - timedelta(minutes=10)) for row in answer.rows)
            return replace(answer, rows=rows)

        world.spoil = lagging
        hand = Handset(world, tmp_path, url)
        local, late = hand.check(vehicle.plate)
        world.spoil = lambda answer: answer
        found = hand.check(vehicle.plate, fresh=True)[-1]
        hand.close()
    assert (local.verdict.code, late.verdict.code) == (V.WANTED, V.WANTED)
    assert late.evidence.online.state is OnlineState.UNREACHABLE
    assert found.verdict.code is V.VALID  # a copy of now does


@pytest.mark.parametrize("lag", [timedelta(minutes=10), timedelta(seconds=1)])
def test_a_centre_that_lags_behind_the_hot_list_on_the_device_clears_no_stolen_car(tmp_path, lag):
    world = OnlineWorld()
    vehicle = world.vehicle()
    world.sync(tmp_path)
    world.now = START + OLD
    with world.serving() as url:
        world.authority.registry.set_status(vehicle.plate, "AC")
        world.authority.publish_hot()
        SyncClient(
            tmp_path / "cache", MemoryFetcher(world.store), world.clock, world.authority.publisher.root_bytes(), REGION
        ).refresh_hot()
        world.authority.registry.set_status(vehicle.plate, "A")  # as the centre's copy still has it
        before = world.now - lag
        world.spoil = lambda answer: replace(answer, rows=tuple(replace(row, as_of=before) for row in answer.rows))
        hand = Handset(world, tmp_path, url)
        shown = hand.check(vehicle.plate)
        hand.close()
    assert shown[-1].verdict.code is V.WATCH_CONFIRM  # the night is three days old: a question, and never cleared


def test_an_answer_that_came_too_late_serves_the_next_scan(world, home, url):
    vehicle, go = world.vehicle(), threading.Event()

    def slow(wire: faults.Wire) -> None:
        wire.read_request()
        go.wait(10)
        wire.send(faults.http(200, wire.forward().content, "application/cose"))

    with fault_proxy(slow, url) as proxy:
        hand = Handset(world, home, proxy.url, total_ms=50, http_ms=60_000)
        assert hand.check(vehicle.plate)[-1].evidence.online.state is OnlineState.TIMEOUT
        go.set()
        for _ in range(1000):
            if hand.centre._remembered:
                break
            threading.Event().wait(0.01)
        assert hand.check(vehicle.plate)[-1].verdict.grade is Grade.ONLINE
        assert len(proxy.requests) == 1
        hand.close()


# ---------------------------------------------------------------------------------------- online and offline


def test_after_two_failures_scans_do_not_ask_and_a_background_probe_brings_the_centre_back(world, home, url):
    with fault_proxy(faults.answers(500), url) as proxy:
        hand = Handset(world, home, proxy.url)
        for _ in range(2):
            hand.check(world.vehicle().plate)
        assert not hand.centre.link.asks
        assert len(hand.check(world.vehicle().plate)) == 1
        assert (proxy.connections, hand.centre.next_try_ms()) == (2, 15_000)
        hand.upkeep.step()
        assert proxy.connections == 2  # not yet
        proxy.fault = faults.clean
        hand.ticks.ms += 15_000
        hand.upkeep.step()
        assert hand.centre.link.asks
        probe = decode_request(proxy.requests[2])
        known = {
            hand.centre.hasher.digest(b"plate", (p.kind + p.text).encode()) for p in world.authority.registry.vehicles
        }
        assert not {asked.key for asked in probe.ids} & known  # a probe asks about nobody
        assert hand.check(world.vehicle().plate)[-1].verdict.grade is Grade.ONLINE
        hand.close()


def test_a_captive_portal_does_not_count_as_the_centre_being_back(world, home, url):
    with fault_proxy(faults.answers(500), url) as proxy:
        hand = Handset(world, home, proxy.url)
        for _ in range(2):
            hand.check(world.vehicle().plate)
        proxy.fault = faults.captive_portal
        hand.ticks.ms += 15_000
        hand.upkeep.step()
        assert (hand.centre.link.asks, hand.centre.next_try_ms()) == (False, 30_000)
        assert hand.centre.link.reason is OnlineState.BAD_SIGNATURE
        hand.centre.retry()
        proxy.fault = faults.clean
        assert hand.check(world.vehicle().plate)[-1].verdict.grade is Grade.ONLINE
        hand.close()


def test_the_officers_wish_to_ask_again_tries_a_centre_that_failed(world, home, url):
    with fault_proxy(faults.answers(500), url) as proxy:
        hand = Handset(world, home, proxy.url)
        vehicle = world.vehicle()
        for _ in range(2):
            hand.check(vehicle.plate)
        assert not hand.centre.link.asks
        proxy.fault = faults.clean
        assert hand.check(vehicle.plate, fresh=True)[-1].verdict.grade is Grade.ONLINE
        hand.close()


def test_a_check_that_no_thread_can_be_had_for_waits_in_the_queue(world, home, url):
    hand = Handset(world, home, url, start=lambda work: False)
    (result,) = hand.check(world.vehicle().plate)
    assert [number for number, _, _ in hand.queue.waiting()] == [result.check_id]
    hand.close()


def test_hanging_attempts_do_not_pile_up(world, home, url):
    with fault_proxy(faults.hang, url) as proxy:
        hand = Handset(world, home, proxy.url, total_ms=20, mode=Mode.ONLINE, http_ms=60_000)
        for _ in range(MAX_AT_WORK + 4):
            late = hand.check(world.vehicle().plate)[-1]
            assert (late.evidence.online.state, late.verdict.code) == (OnlineState.TIMEOUT, V.VALID_STALE)
        assert proxy.connections <= MAX_AT_WORK
        hand.close()


def test_without_a_set_in_use_there_is_nobody_to_ask(world, tmp_path, url):
    with fault_proxy(faults.clean, url) as proxy:
        hand = Handset(world, tmp_path / "empty", proxy.url)
        (result,) = hand.check(Plate("京A12345", "02"))
        assert result.verdict.code is V.UNDECIDED
        assert proxy.connections == 0
        hand.close()


# -------------------------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (StatusError("v1/status", 401), OnlineState.DENIED),
        (StatusError("v1/status", 403), OnlineState.DENIED),
        (RefusedError("v1/status", "x"), OnlineState.DENIED),
        (StatusError("v1/status", 503, 3), OnlineState.UNREACHABLE),
        (FetchTimeoutError("v1/status", "x"), OnlineState.TIMEOUT),
        (RejectedError("v1/status", "x"), OnlineState.BAD_SIGNATURE),
        (FetchError("v1/status", "x"), OnlineState.UNREACHABLE),
    ],
)
def test_each_failure_has_its_own_name_and_none_is_not_found(error, state):
    assert online_failure(error) == OnlineEvidence(state=state)


@pytest.mark.parametrize("state", [OnlineState.OK, OnlineState.NOT_FOUND])
def test_a_word_on_the_document_alone_survives_the_log(state):
    answer = StatusAnswer(vehicle=None, credential=CredentialStatus(state=CredentialState.REVOKED))
    evidence = Evidence(online=OnlineEvidence(state=state, answer=answer, server_time=START))
    assert evidence_from_json(evidence_to_json(evidence, START))[0].online == evidence.online


def test_a_revoked_document_is_refused_also_where_its_vehicle_is_not_found(world, hand):
    vehicle = world.vehicle()
    local, _ = hand.check(vehicle.plate, code_of(world, vehicle.plate))
    for state, code in ((CredentialState.REVOKED, V.REVOKED), (CredentialState.ACTIVE, V.NOT_FOUND)):
        answer = StatusAnswer(vehicle=None, credential=CredentialStatus(state=state))
        late = hand.verifier.upgrade(local, online_evidence(answer, world.now), {})
        assert late.verdict.code is code


def test_an_upgrade_keeps_what_the_local_verdict_knew(world, hand):
    local, late = hand.check(world.vehicle().plate)
    assert late.now == local.now
    assert replace(late.evidence, online=local.evidence.online) == local.evidence
    assert Action.RELEASE in late.verdict.actions
    assert Reason.DATA_STALE not in late.verdict.reasons


def test_a_tag_that_names_no_plate_does_not_have_the_plate_of_an_unproven_code_looked_up(
    world: OnlineWorld, home: Path, url: str
) -> None:
    hand = Handset(world, home, url)
    code = bytearray(code_of(world, world.vehicle().plate))
    unproven = Observation(code=bytes(code), tag=TagEvidence(auth=TagAuth.UNSUPPORTED, tid="E280", plate=None))
    result = hand.verifier.check(unproven)
    assert result.evidence.code is not None
    forged = replace(result.evidence, code=replace(result.evidence.code, signature=SignatureState.INVALID))
    result = replace(result, evidence=forged)
    assert result.plates  # the code names one
    assert not wants_centre(result)
    hand.queue.add(result)
    assert hand.rechecker.run(hand.verifier.standing()).gone == 1
    named = replace(forged, tag=replace(unproven.tag, plate=world.vehicle().plate))
    assert wants_centre(replace(result, evidence=named))
    hand.close()


def test_who_is_told_of_rechecks_hears_each_verdict_as_it_is_now(world: OnlineWorld, home: Path, url: str) -> None:
    hand, heard = Handset(world, home, url, mode=Mode.OFFLINE), []
    (local,) = hand.check(world.vehicle().plate)
    assert local.verdict.code is V.VALID_STALE
    hand.centre.choose(Mode.AUTO)
    hand.rechecker.tells(heard.append)
    hand.rechecker.run(hand.verifier.standing())
    assert [(one.check_id, one.verdict.code, one.late) for one in heard] == [(local.check_id, V.VALID, True)]
    hand.close()
