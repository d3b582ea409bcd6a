from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.conftest import load_data
from verifier.decide import ACTIONS, PRECEDENCE, decide
from verifier.errors import EvidenceError
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.facts import GOOD_GRADES
from verifier.policy import Policy
from verifier.types import (
    CacheEvidence,
    CacheState,
    CodeEvidence,
    CodeFault,
    CodeReading,
    Credential,
    CredentialState,
    CredentialStatus,
    Evidence,
    Month,
    OnlineEvidence,
    OnlineState,
    Plate,
    PlateSeen,
    PresentationMode,
    Serial,
    SignatureState,
    Source,
    StatusAnswer,
    StatusLetter,
    TagAuth,
    TagEvidence,
    TagLevel,
    TagRecord,
    TagSuspicion,
    VehicleRecord,
    VinAnswer,
    WatchHit,
)
from verifier.verdict import Action, Finding, Grade, Reason, Tone, VerdictCode

CASES = load_data("decision_cases.json")["cases"]
POLICY = Policy()
NOW = datetime(2026, 8, 20, 2, 0, tzinfo=UTC)  # 10:00 in Shanghai


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_decision_case(case):
    evidence, now = evidence_from_json(case)
    verdict = decide(evidence, POLICY, now)
    expect = case["expect"]
    assert (verdict.code, verdict.grade, verdict.tone) == (expect["verdict"], expect["grade"], expect["tone"])
    assert set(expect["reasons_include"]) <= set(verdict.reasons)
    assert not set(expect["reasons_exclude"]) & set(verdict.reasons)
    assert set(expect["actions_include"]) <= set(verdict.actions)
    assert not set(expect["actions_exclude"]) & set(verdict.actions)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_evidence_survives_json(case):
    evidence, now = evidence_from_json(case)
    again = evidence_from_json(json.loads(json.dumps(evidence_to_json(evidence, now))))
    assert again == (evidence, now)


def test_every_verdict_stands_in_the_table_in_order():
    codes = [code for code, _ in PRECEDENCE]
    assert set(codes) == set(VerdictCode)
    first = list(dict.fromkeys(code for code in codes if code is not VerdictCode.UNDECIDED))
    assert first == [code for code in VerdictCode if code is not VerdictCode.UNDECIDED]


# ------------------------------------------------------------------------------------- rules by example

PLATE = Plate("京A12345", "02")
OTHER = Plate("京A54321", "02")


def record(**changes) -> VehicleRecord:
    base = {
        "plate": PLATE,
        "status": frozenset("A"),
        "inspection_valid_until": Month(2027, 8),
        "ecred_issued": True,
    }
    base.update(changes)
    base["status"] = frozenset(map(StatusLetter, base["status"]))
    return VehicleRecord(**base)


def cache(vehicle, *, hours=8.0, state=None, covers=True, new_plate=None) -> CacheEvidence:
    document = CredentialStatus(state=state, superseded_by_plate=new_plate) if state else None
    return CacheEvidence(
        state=CacheState.OK,
        as_of=NOW - timedelta(hours=hours),
        scope="national",
        covers=covers,
        answer=StatusAnswer(vehicle=vehicle, credential=document),
    )


def code(**changes) -> CodeEvidence:
    credential = Credential(
        serial=Serial("S1"), plate=PLATE, valid_until=Month(2027, 8), issued_at=datetime(2025, 8, 12, tzinfo=UTC)
    )
    credential = replace(credential, **{k: v for k, v in changes.items() if k in Credential.__dataclass_fields__})
    rest = {k: v for k, v in changes.items() if k in CodeEvidence.__dataclass_fields__ and k != "credential"}
    return CodeEvidence(
        **{
            "reading": CodeReading.OK,
            "mode": PresentationMode.STORED,
            "signature": SignatureState.VALID,
            "credential": credential,
            **rest,
        }
    )


SEEN = PlateSeen(plate=PLATE, confirmed=True)
ANPR = PlateSeen(plate=PLATE, confirmed=False, source="anpr")


def verdict_of(**evidence):
    return decide(Evidence(**evidence), POLICY, NOW)


def test_r3_a_replated_car_is_not_a_mismatch():
    new = replace(SEEN, plate=OTHER)
    found = verdict_of(
        code=code(),
        plate_seen=new,
        cache=cache(record(plate=OTHER), state=CredentialState.SUPERSEDED, new_plate=OTHER.text),
    )
    assert (found.code, found.tone) == (VerdictCode.SUPERSEDED, Tone.NOTE)
    assert Reason.REPLATED in found.reasons


def test_r3_another_plate_than_the_named_one_stays_a_mismatch():
    found = verdict_of(
        code=code(),
        plate_seen=replace(SEEN, plate=OTHER),
        cache=cache(record(plate=OTHER), state=CredentialState.SUPERSEDED, new_plate="京A99999"),
    )
    assert found.code is VerdictCode.MISMATCH


@pytest.mark.parametrize(("letters", "month"), [("A", Month(2026, 7)), ("AQ", Month(2026, 7)), ("Q", Month(2026, 7))])
def test_r7_renewal_within_the_hour_wins_over_the_cached_overdue(letters, month):
    renewed = code(issued_at=NOW - timedelta(hours=1))
    found = verdict_of(code=renewed, plate_seen=SEEN, cache=cache(record(status=letters, inspection_valid_until=month)))
    assert (found.code, found.grade, found.tone) == (VerdictCode.VALID, Grade.FRESH_CACHE, Tone.PASS)
    assert Reason.CREDENTIAL_NEWER_THAN_CACHE in found.reasons
    stale = verdict_of(
        code=renewed, plate_seen=SEEN, cache=cache(record(status=letters, inspection_valid_until=month), hours=50)
    )
    assert (stale.code, stale.grade) == (VerdictCode.VALID_STALE, Grade.STALE_CACHE)


def test_r7_does_not_outrank_a_stolen_car_or_a_revocation():
    renewed = code(issued_at=NOW - timedelta(hours=1))
    assert verdict_of(code=renewed, cache=cache(record(status="C"))).code is VerdictCode.WANTED
    revoked = cache(record(), state=CredentialState.REVOKED)
    assert verdict_of(code=renewed, cache=revoked).code is VerdictCode.REVOKED


def test_r8_overdue_by_old_data_is_a_question_and_a_seal_stands():
    overdue = record(inspection_valid_until=Month(2026, 5))
    assert verdict_of(plate_seen=SEEN, cache=cache(overdue)).code is VerdictCode.EXPIRED
    old = verdict_of(plate_seen=SEEN, cache=cache(overdue, hours=200))
    assert (old.code, old.tone) == (VerdictCode.EXPIRED_UNCONFIRMED, Tone.CAUTION)
    sealed = verdict_of(plate_seen=SEEN, cache=cache(record(status="K"), hours=2000))
    assert sealed.code is VerdictCode.RESTRICTED
    stolen = verdict_of(plate_seen=SEEN, cache=cache(record(status="C"), hours=50))
    assert (stolen.code, Reason.WATCH_STALE in stolen.reasons) == (VerdictCode.WATCH_CONFIRM, True)


def test_r9_overdue_and_revoked_together_is_overdue():
    found = verdict_of(
        code=code(), cache=cache(record(inspection_valid_until=Month(2026, 5)), state=CredentialState.REVOKED)
    )
    assert found.code is VerdictCode.EXPIRED
    assert Reason.CREDENTIAL_REVOKED in found.reasons


def test_r9_revoked_document_of_a_valid_vehicle():
    found = verdict_of(code=code(), cache=cache(record(), state=CredentialState.REVOKED))
    assert found.code is VerdictCode.REVOKED
    assert Reason.VEHICLE_VALID in found.reasons
    assert Action.NO_PENALTY_NOT_SHOWN in found.actions


def test_a_revoked_serial_stays_revoked_where_the_cache_does_not_cover_the_plate():
    found = verdict_of(code=code(), cache=cache(None, state=CredentialState.REVOKED, covers=False))
    assert (found.code, found.grade) == (VerdictCode.REVOKED, Grade.SIGNATURE_ONLY)


def test_r10_an_unknown_key_is_never_forged():
    unknown = code(signature=SignatureState.UNKNOWN_KEY, fault=CodeFault.UNKNOWN_KEY)
    found = verdict_of(code=unknown, plate_seen=SEEN, cache=cache(record()))
    assert (found.code, found.tone) == (VerdictCode.VALID, Tone.NOTE)
    assert Action.SYNC_NOW in found.actions


def test_a_key_outside_its_jurisdiction_is_worth_a_caution():
    foreign = code(signature=SignatureState.REVOKED_KEY, fault=CodeFault.JURISDICTION)
    found = verdict_of(code=foreign, plate_seen=SEEN, cache=cache(record()))
    assert (found.code, found.tone) == (VerdictCode.VALID, Tone.CAUTION)
    assert Action.RELEASE not in found.actions
    retired = code(signature=SignatureState.REVOKED_KEY, fault=CodeFault.KEY_RETIRED)
    assert verdict_of(code=retired, plate_seen=SEEN, cache=cache(record())).tone is Tone.NOTE


def test_r5_a_good_online_answer_repairs_the_clock():
    online = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record()), server_time=NOW)
    found = decide(Evidence(plate_seen=SEEN, online=online, clock_trusted=False), POLICY, NOW - timedelta(days=400))
    assert (found.code, found.grade) == (VerdictCode.VALID, Grade.ONLINE)
    assert Reason.CLOCK_CORRECTED in found.reasons
    assert Reason.CLOCK_SUSPECT not in found.reasons


def test_r5_a_deregistered_car_stands_on_a_suspect_clock():
    suspect = Evidence(plate_seen=SEEN, cache=cache(record(status="E")), clock_trusted=False)
    assert decide(suspect, POLICY, NOW).code is VerdictCode.DEREGISTERED


def test_weak_reads_that_differ_never_release():
    tag = TagEvidence(auth=TagAuth.UNSUPPORTED, tid="E280", plate=OTHER)
    found = verdict_of(plate_seen=ANPR, tag=tag, cache=cache(record()))
    assert found.tone is Tone.CAUTION
    assert Action.RELEASE not in found.actions


def test_a_document_past_its_own_life_asks_for_a_refresh():
    found = verdict_of(code=code(fault=CodeFault.EXPIRED), cache=cache(record()))
    assert (found.code, found.tone) == (VerdictCode.VALID, Tone.NOTE)
    assert Action.ASK_OWNER_REFRESH in found.actions
    stripped = verdict_of(code=code(fault=CodeFault.NEEDS_PRESENTATION), cache=cache(record()))
    assert Reason.QR_NOT_LIVE in stripped.reasons


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="zone"):
        decide(Evidence(), POLICY, datetime(2026, 8, 20))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"now": "2026-08-20T10:00:00"}, "now"),
        ({"now": None}, "now: missing"),
        ({"clock": "odd"}, "clock"),
        ({"plate_seen": {"plate_kind": "02"}}, "plate_seen.text: missing"),
        ({"cache": {"state": "ok", "as_of": "yesterday"}}, "cache.as_of"),
        ({"cache": {"state": "ok"}}, "cache.as_of: missing"),
        ({"qr": {"decode": "ok"}}, "qr.signature"),
        ({"qr": {"decode": "ok", "signature": "valid"}}, "qr.credential"),
        ({"qr": {"decode": "none", "trust_as_of": "2026-08-20"}}, "qr.trust_as_of"),
        ({"qr": {"decode": "none", "vin_matches": "no"}}, "qr.vin_matches"),
        ({"online": {"state": "ok"}}, "online.record"),
        ({"online": {"state": "ok", "vin_answer": "mine"}}, "online.vin_answer"),
        ({"watch": [{"basis": "rumour"}]}, r"watch\[0\].basis"),
        ({"tag": []}, "tag: not an object"),
        ({"plate_seen": {"text": "京A12345", "plate_kind": "77", "confirmed": True}}, "plate_seen.plate_kind"),
        ({"plate_seen": {"text": "京A12345", "plate_kind": [2], "confirmed": True}}, "plate_seen.plate_kind"),
    ],
)
def test_unusable_evidence_names_the_field(change, named):
    with pytest.raises(EvidenceError, match=named):
        evidence_from_json({**CASES[0], **change})


def test_unknown_status_letters_name_the_field():
    case = json.loads(json.dumps(CASES[1]))
    case["cache"]["record"]["status"] = "AZ"
    with pytest.raises(EvidenceError, match="cache.record.status"):
        evidence_from_json(case)


# ------------------------------------------------------------------------------- every row of every table


@pytest.mark.parametrize(
    ("letters", "code", "tone"),
    [
        *((letter, VerdictCode.WANTED, Tone.STOP) for letter in "CJN"),
        *((letter, VerdictCode.DEREGISTERED, Tone.STOP) for letter in "EMP"),
        *((letter, VerdictCode.RESTRICTED, Tone.STOP) for letter in "KLD"),
        *((letter, VerdictCode.VALID, Tone.NOTE) for letter in "BGHIO"),
        ("Q", VerdictCode.EXPIRED, Tone.STOP),
        ("A", VerdictCode.VALID, Tone.PASS),
        ("AGQ", VerdictCode.EXPIRED, Tone.STOP),
        ("CE", VerdictCode.WANTED, Tone.STOP),
        ("EK", VerdictCode.DEREGISTERED, Tone.STOP),
        ("KQ", VerdictCode.RESTRICTED, Tone.STOP),
    ],
)
def test_r13_every_status_letter_has_its_effect(letters, code, tone):
    found = verdict_of(plate_seen=SEEN, cache=cache(record(status=letters)))
    assert (found.code, found.tone) == (code, tone)
    assert (Reason.STATUS_NOTE in found.reasons) is bool(set(letters) & set("BGHIO"))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (OnlineState.DENIED, Reason.ONLINE_DENIED),
        (OnlineState.TIMEOUT, Reason.ONLINE_TIMEOUT),
        (OnlineState.UNREACHABLE, Reason.ONLINE_UNREACHABLE),
        (OnlineState.BAD_SIGNATURE, Reason.ONLINE_REJECTED),
        (OnlineState.DISABLED, None),
    ],
)
def test_r4_every_online_failure_is_named_and_changes_nothing(state, reason):
    found = verdict_of(plate_seen=SEEN, cache=cache(record()), online=OnlineEvidence(state=state))
    assert (found.code, found.tone) == (VerdictCode.VALID, Tone.PASS)
    assert found.reasons == ((reason,) if reason else ())


@pytest.mark.parametrize(
    ("reading", "code", "reason"),
    [
        (CodeReading.NONE, VerdictCode.UNREADABLE, Reason.QR_UNREADABLE),
        (CodeReading.MALFORMED, VerdictCode.UNREADABLE, Reason.QR_MALFORMED),
        (CodeReading.FOREIGN, VerdictCode.NOT_A_MARK, Reason.QR_FOREIGN),
        (CodeReading.UNSUPPORTED_VERSION, VerdictCode.UNSUPPORTED_VERSION, Reason.QR_VERSION),
    ],
)
def test_every_reading_fault_is_named(reading, code, reason):
    alone = verdict_of(code=CodeEvidence(reading=reading))
    assert (alone.code, alone.tone, alone.grade) == (code, Tone.CAUTION, Grade.NOTHING)
    assert alone.reasons == (reason,)
    beside = verdict_of(code=CodeEvidence(reading=reading), plate_seen=SEEN, cache=cache(record()))
    assert (beside.code, beside.reasons) == (VerdictCode.VALID, (reason,))
    noted = reading in (CodeReading.NONE, CodeReading.MALFORMED)
    assert beside.tone is (Tone.NOTE if noted else Tone.PASS)


def test_nothing_at_all_is_undecided():
    found = verdict_of()
    assert (found.code, found.grade, found.reasons) == (VerdictCode.UNDECIDED, Grade.NOTHING, ())
    assert found.actions == (Action.ENTER_PLATE, Action.CONFIRM_CENTRE)


def test_r1_a_tag_that_failed_to_authenticate_is_a_caution():
    tag = TagEvidence(auth=TagAuth.FAIL, tid="E280", plate=PLATE)
    found = verdict_of(plate_seen=SEEN, tag=tag, cache=cache(record()))
    assert (found.code, found.tone) == (VerdictCode.VALID, Tone.CAUTION)
    assert Reason.TAG_AUTH_FAILED in found.reasons
    assert Action.CONFIRM_PLATE in found.actions
    assert Action.RELEASE not in found.actions


def test_r1_a_hit_that_only_an_unproven_code_leads_to_is_a_lead():
    hit = WatchHit(basis=Source.CODE, kind="stolen", as_of=NOW)
    unknown = code(signature=SignatureState.UNKNOWN_KEY)
    found = verdict_of(code=unknown, watch=(hit,))
    assert (found.code, Reason.WATCH_LEAD in found.reasons) == (VerdictCode.UNTRUSTED_ISSUER, True)
    assert Action.CONFIRM_CENTRE in found.actions
    assert verdict_of(code=code(), watch=(hit,)).code is VerdictCode.WANTED


def test_r2_a_wanted_vehicle_with_the_seen_text_asks_for_the_kind_whatever_else_was_answered():
    watched = replace(cache(None, covers=False), watched=True)
    typed = replace(SEEN, plate=Plate(PLATE.text, None))
    for more in (
        {},
        {"online": OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record()), server_time=NOW)},
        {"code": code()},
    ):
        found = verdict_of(plate_seen=typed, cache=watched, **more)
        assert (found.code, found.tone, Reason.WATCH_KIND in found.reasons) == (
            VerdictCode.WATCH_CONFIRM, Tone.CAUTION, True,
        )  # fmt: skip
        assert Action.RELEASE not in found.actions
    assert verdict_of(plate_seen=typed, cache=watched).as_of == watched.as_of
    old = verdict_of(plate_seen=typed, cache=replace(watched, as_of=NOW - timedelta(days=8)))
    assert (old.code, Reason.WATCH_STALE in old.reasons) == (VerdictCode.WATCH_CONFIRM, True)
    unproven = code(signature=SignatureState.UNKNOWN_KEY)
    lead = verdict_of(code=unproven, cache=watched)
    assert (lead.code, Reason.WATCH_LEAD in lead.reasons) == (VerdictCode.UNTRUSTED_ISSUER, True)


def test_an_online_answer_that_corrected_the_clock_is_of_this_moment():
    online = OnlineEvidence(
        state=OnlineState.OK, answer=StatusAnswer(vehicle=record()), server_time=NOW + timedelta(days=3)
    )
    assert verdict_of(plate_seen=SEEN, online=online).age(NOW) == (timedelta(0), False)
    assert verdict_of(plate_seen=SEEN).age(NOW) is None


@pytest.mark.parametrize(("days", "code"), [(7, VerdictCode.WANTED), (7.1, VerdictCode.WATCH_CONFIRM)])
def test_r8_a_hit_counts_for_seven_days(days, code):
    hit = WatchHit(basis=Source.PLATE_SEEN, kind="stolen", as_of=NOW - timedelta(days=days))
    found = verdict_of(plate_seen=SEEN, watch=(hit,))
    assert (found.code, Reason.WATCH_STALE in found.reasons) == (code, code is VerdictCode.WATCH_CONFIRM)


@pytest.mark.parametrize(("hours", "more"), [(8, False), (50, True), (900, True)])
def test_an_old_deregistration_asks_the_centre(hours, more):
    found = verdict_of(plate_seen=SEEN, cache=cache(record(status="E"), hours=hours))
    assert (Action.CONFIRM_CENTRE in found.actions) is more


def test_jurisdiction_asks_for_the_plate():
    foreign = code(signature=SignatureState.REVOKED_KEY, fault=CodeFault.JURISDICTION)
    found = verdict_of(code=foreign, plate_seen=SEEN, cache=cache(record()))
    assert Action.CONFIRM_PLATE in found.actions
    assert Action.CONFIRM_PLATE not in verdict_of(code=code(), plate_seen=SEEN, cache=cache(record())).actions


@pytest.mark.parametrize("fault", [CodeFault.EXPIRED, CodeFault.LIFETIME])
def test_a_document_that_outlived_itself_is_a_note(fault):
    found = verdict_of(code=code(fault=fault), cache=cache(record()))
    assert (found.code, found.tone, found.reasons) == (VerdictCode.VALID, Tone.NOTE, (Reason.CREDENTIAL_OUTDATED,))


def test_r6_absence_by_an_unconfirmed_plate_says_that_it_is_unconfirmed():
    found = verdict_of(plate_seen=ANPR, cache=cache(None))
    assert (found.code, Reason.ID_WEAK in found.reasons) == (VerdictCode.NOT_FOUND, True)
    assert Reason.ID_WEAK not in verdict_of(plate_seen=SEEN, cache=cache(None)).reasons


def test_r6_absence_from_an_older_cache_proves_nothing_and_asks_for_a_sync():
    found = verdict_of(plate_seen=SEEN, cache=cache(None, hours=50))
    assert (found.code, found.grade) == (VerdictCode.UNDECIDED, Grade.SIGNATURE_ONLY)
    assert Reason.DATA_STALE in found.reasons
    assert Action.SYNC_NOW in found.actions
    fresh = verdict_of(plate_seen=SEEN, cache=cache(None))
    assert (fresh.code, fresh.grade, Reason.DATA_STALE in fresh.reasons) == (
        VerdictCode.NOT_FOUND,
        Grade.FRESH_CACHE,
        False,
    )


def test_r6_a_credential_issued_a_day_before_the_cache_should_be_in_it():
    as_of = NOW - timedelta(hours=8)
    old = verdict_of(code=code(issued_at=as_of - timedelta(hours=24)), cache=cache(None))
    assert old.code is VerdictCode.NOT_FOUND
    new = verdict_of(code=code(issued_at=as_of - timedelta(hours=24) + timedelta(seconds=1)), cache=cache(None))
    assert (new.code, Reason.NEWLY_ISSUED in new.reasons) == (VerdictCode.SIGNED_ONLY, True)


def test_r12_the_no_penalty_lines():
    stolen = verdict_of(plate_seen=SEEN, cache=cache(record(status="C")))
    assert Action.NO_PENALTY_NOT_SHOWN not in stolen.actions
    shown = verdict_of(code=code(), cache=cache(record()))
    assert Action.NO_PENALTY_NOT_SHOWN not in shown.actions
    old = verdict_of(plate_seen=SEEN, cache=cache(record(), hours=50))
    assert Action.NO_PENALTY_NOT_SHOWN not in old.actions
    no_paper = verdict_of(code=code(), cache=cache(record(ecred_issued=False)), paper_displayed=False)
    assert Action.NO_PENALTY_NOT_DISPLAYED in no_paper.actions
    local = verdict_of(plate_seen=SEEN, cache=cache(record(ecred_issued=False)), paper_displayed=False)
    assert Action.FOLLOW_LOCAL_DISPLAY_RULE in local.actions
    nothing_known = verdict_of(plate_seen=SEEN, paper_displayed=False)
    assert not {Action.NO_PENALTY_NOT_DISPLAYED, Action.FOLLOW_LOCAL_DISPLAY_RULE} & set(nothing_known.actions)
    pasted = verdict_of(plate_seen=SEEN, cache=cache(record()), paper_displayed=True)
    assert Action.NO_PENALTY_NOT_DISPLAYED not in pasted.actions


@pytest.mark.parametrize("seconds", [300, 301])
def test_r5_the_clock_may_be_behind_by_the_skew(seconds):
    late = CacheEvidence(
        state=CacheState.OK,
        as_of=NOW + timedelta(seconds=seconds),
        covers=True,
        answer=StatusAnswer(vehicle=record()),
    )
    assert verdict_of(plate_seen=SEEN, cache=late).code is (
        VerdictCode.VALID if seconds == 300 else VerdictCode.UNDECIDED
    )


@pytest.mark.parametrize(("seconds", "code_"), [(300, VerdictCode.VALID), (301, VerdictCode.NOT_YET_VALID)])
def test_a_credential_from_the_future_is_not_yet_valid(seconds, code_):
    future = code(issued_at=NOW + timedelta(seconds=seconds))
    assert verdict_of(code=future, cache=cache(record())).code is code_
    later = code(not_before=NOW + timedelta(seconds=seconds))
    assert verdict_of(code=later, cache=cache(record())).code is code_


def test_superseded_by_another_serial_in_the_record():
    other = record(credential_serial=Serial("S2"))
    assert verdict_of(code=code(), cache=cache(other)).code is VerdictCode.SUPERSEDED
    assert verdict_of(code=code(), cache=cache(record(credential_serial=Serial("S1")))).code is VerdictCode.VALID
    newer = code(issued_at=NOW - timedelta(hours=1))
    assert verdict_of(code=newer, cache=cache(other)).code is VerdictCode.VALID
    old_data = verdict_of(code=code(), cache=cache(other, hours=200))
    assert (old_data.code, Reason.STATUS_TOO_OLD in old_data.reasons) == (VerdictCode.SIGNED_ONLY, True)


def test_compulsory_insurance_lasts_to_the_end_of_its_day_in_shanghai():
    record_ = record(ctp_until=date(2026, 8, 20))
    evening = datetime(2026, 8, 20, 15, 59, tzinfo=UTC)
    for now, lapsed in ((evening, False), (evening + timedelta(minutes=1), True)):
        online = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record_))
        found = decide(Evidence(plate_seen=SEEN, online=online), POLICY, now)
        assert (Reason.CTP_LAPSED in found.reasons) is lapsed
        assert found.code is VerdictCode.VALID


def test_the_verdict_says_of_what_and_when():
    found = verdict_of(code=code(), plate_seen=SEEN, cache=cache(record()))
    assert (found.plate, found.valid_until, found.as_of) == (PLATE, Month(2027, 8), NOW - timedelta(hours=8))
    assert found.policy == "default/1"
    alone = verdict_of(code=code())
    assert (alone.plate, alone.valid_until, alone.as_of) == (PLATE, Month(2027, 8), None)
    forged = verdict_of(code=code(signature=SignatureState.INVALID))
    assert (forged.plate, forged.valid_until) == (PLATE, None)


def test_the_actions_of_every_verdict_are_those_of_the_table():
    table = load_data("decision_cases.json")["verdicts"]
    assert {code.value: set(actions) for code, actions in ACTIONS.items()} == {
        code: set(row["actions"]) for code, row in table.items()
    }


def test_a_record_of_a_plate_that_nobody_saw_is_not_used():
    stray = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record(plate=Plate("京B99999", "02"))))
    assert verdict_of(plate_seen=SEEN, online=stray).code is VerdictCode.UNDECIDED
    assert verdict_of(code=code(), online=stray).code is VerdictCode.SIGNED_ONLY


def test_r3_the_record_of_the_new_plate_is_used_where_only_the_old_code_is_shown():
    document = CredentialStatus(state=CredentialState.SUPERSEDED, superseded_by_plate=OTHER.text)
    answer = StatusAnswer(vehicle=record(plate=OTHER), credential=document)
    found = verdict_of(code=code(), online=OnlineEvidence(state=OnlineState.OK, answer=answer))
    assert (found.code, found.grade) == (VerdictCode.SUPERSEDED, Grade.ONLINE)


def test_a_home_made_code_does_not_put_a_car_out_of_scope():
    military = code(signature=SignatureState.UNKNOWN_KEY, plate=Plate("VA12345", "32"))
    assert verdict_of(code=military).code is VerdictCode.UNTRUSTED_ISSUER
    assert verdict_of(plate_seen=replace(SEEN, plate=Plate("VA12345", "32"))).code is VerdictCode.OUT_OF_SCOPE
    weak_tag = TagEvidence(auth=TagAuth.UNSUPPORTED, tid="E280", plate=Plate("VA12345", "32"))
    assert verdict_of(tag=weak_tag).code is VerdictCode.OUT_OF_SCOPE


def test_r9_a_suspect_clock_vouches_for_no_vehicle():
    evidence = Evidence(
        code=code(signature=SignatureState.INVALID), plate_seen=SEEN, cache=cache(record()), clock_trusted=False
    )
    found = decide(evidence, POLICY, NOW)
    assert (found.code, Reason.VEHICLE_VALID in found.reasons) == (VerdictCode.FORGED, False)
    assert Action.NO_PENALTY_NOT_SHOWN not in found.actions


@pytest.mark.parametrize(
    ("hours", "grade"),
    [
        (26, Grade.FRESH_CACHE),
        (26.1, Grade.STALE_CACHE),
        (168, Grade.STALE_CACHE),
        (168.1, Grade.SIGNATURE_ONLY),
    ],
)
def test_the_boundaries_of_the_grades_are_inclusive(hours, grade):
    found = verdict_of(plate_seen=SEEN, cache=cache(record(), hours=hours))
    assert found.grade is grade
    assert (Reason.DATA_STALE in found.reasons) is (grade is not Grade.FRESH_CACHE)


def test_r4_a_record_that_came_with_a_bad_signature_is_not_used():
    forged = OnlineEvidence(state=OnlineState.BAD_SIGNATURE, answer=StatusAnswer(vehicle=record()), server_time=NOW)
    found = decide(Evidence(plate_seen=SEEN, online=forged, clock_trusted=False), POLICY, NOW)
    assert (found.code, found.grade) == (VerdictCode.UNDECIDED, Grade.NOTHING)
    assert Reason.CLOCK_CORRECTED not in found.reasons


def test_r4_the_document_state_online_beats_the_cached_one_and_silence_does_not():
    cached = cache(record(), state=CredentialState.REVOKED)
    active = StatusAnswer(vehicle=record(), credential=CredentialStatus(state=CredentialState.ACTIVE))
    online = OnlineEvidence(state=OnlineState.OK, answer=active)
    assert verdict_of(code=code(), cache=cached, online=online).code is VerdictCode.VALID
    silent = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record()))
    assert verdict_of(code=code(), cache=cached, online=silent).code is VerdictCode.REVOKED
    withdrawn = replace(active, credential=CredentialStatus(state=CredentialState.REVOKED))
    online = OnlineEvidence(state=OnlineState.OK, answer=withdrawn)
    assert verdict_of(code=code(), cache=cache(record()), online=online).code is VerdictCode.REVOKED


@pytest.mark.parametrize(("seconds", "corrected"), [(300, False), (301, True), (-301, True)])
def test_r5_a_clock_that_differs_by_more_than_the_skew_is_corrected(seconds, corrected):
    online = OnlineEvidence(
        state=OnlineState.OK, answer=StatusAnswer(vehicle=record()), server_time=NOW + timedelta(seconds=seconds)
    )
    found = verdict_of(plate_seen=SEEN, online=online)
    assert (found.code, Reason.CLOCK_CORRECTED in found.reasons) == (VerdictCode.VALID, corrected)


def test_r5_the_time_of_a_corrupt_cache_says_nothing_of_the_clock():
    rotten = CacheEvidence(state=CacheState.CORRUPT, as_of=NOW + timedelta(days=9))
    assert Reason.CLOCK_SUSPECT not in verdict_of(plate_seen=SEEN, cache=rotten).reasons


def test_r6_an_online_not_found_counts_for_a_new_credential_too():
    new = code(issued_at=NOW - timedelta(hours=1))
    found = verdict_of(code=new, online=OnlineEvidence(state=OnlineState.NOT_FOUND))
    assert (found.code, found.grade) == (VerdictCode.NOT_FOUND, Grade.ONLINE)
    assert Reason.NEWLY_ISSUED not in found.reasons


def test_r7_needs_the_cache_a_past_month_and_a_credential_in_date():
    new = code(issued_at=NOW - timedelta(hours=1))
    overdue = record(inspection_valid_until=Month(2026, 5))
    online = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=overdue))
    assert verdict_of(code=new, online=online).code is VerdictCode.EXPIRED
    both_past = code(issued_at=NOW - timedelta(hours=1), valid_until=Month(2026, 6))
    assert verdict_of(code=both_past, cache=cache(overdue)).code is VerdictCode.EXPIRED
    in_order = verdict_of(code=new, cache=cache(record()))
    assert (in_order.code, in_order.reasons) == (VerdictCode.VALID, ())


def test_r7_does_not_speak_for_another_vehicle():
    new = code(issued_at=NOW - timedelta(hours=1), plate=OTHER)
    overdue = record(inspection_valid_until=Month(2026, 5))
    found = verdict_of(code=new, plate_seen=ANPR, cache=cache(overdue))
    assert found.code is VerdictCode.EXPIRED_UNCONFIRMED


def test_r7_goes_with_the_vehicle_to_its_new_plate():
    new = code(issued_at=NOW - timedelta(hours=1))
    overdue = record(plate=OTHER, inspection_valid_until=Month(2026, 5))
    found = verdict_of(
        code=new,
        plate_seen=replace(SEEN, plate=OTHER),
        cache=cache(overdue, state=CredentialState.ACTIVE, new_plate=OTHER.text),
    )
    assert (found.code, Reason.REPLATED in found.reasons) == (VerdictCode.VALID, True)


def test_r3_a_third_plate_beside_the_old_and_the_new_one_is_a_mismatch():
    third = TagEvidence(auth=TagAuth.OK, tid="E280", plate=Plate("京A99999", "02"))
    replated = cache(record(plate=OTHER), state=CredentialState.SUPERSEDED, new_plate=OTHER.text)
    found = verdict_of(code=code(), tag=third, plate_seen=replace(SEEN, plate=OTHER), cache=replated)
    assert found.code is VerdictCode.MISMATCH
    weak = replace(third, auth=TagAuth.UNSUPPORTED)
    noted = verdict_of(code=code(), tag=weak, plate_seen=replace(SEEN, plate=OTHER), cache=replated)
    assert (noted.code, noted.tone) == (VerdictCode.SUPERSEDED, Tone.CAUTION)


def test_r3_takes_a_proven_credential_and_a_plate_that_was_seen():
    replated = cache(record(), state=CredentialState.SUPERSEDED, new_plate=OTHER.text)
    assert Reason.REPLATED not in verdict_of(code=code(), plate_seen=SEEN, cache=replated).reasons
    unproven = code(signature=SignatureState.UNKNOWN_KEY)
    seen_new = replace(SEEN, plate=OTHER)
    assert Reason.REPLATED not in verdict_of(code=unproven, plate_seen=seen_new, cache=replated).reasons


def test_r9_vehicle_valid_takes_a_trusted_record_of_good_grade():
    forged = code(signature=SignatureState.INVALID)
    for other in (
        {"plate_seen": ANPR, "cache": cache(record())},
        {"plate_seen": SEEN, "cache": cache(record(), hours=50)},
        {"plate_seen": SEEN, "cache": cache(record(inspection_valid_until=Month(2026, 5)))},
    ):
        assert Reason.VEHICLE_VALID not in verdict_of(code=forged, **other).reasons
    assert Reason.VEHICLE_VALID not in verdict_of(code=code(), cache=cache(record())).reasons


@pytest.mark.parametrize("letters", ["C", "E", "K"])
def test_r12_no_penalty_line_beside_a_wanted_deregistered_or_restricted_vehicle(letters):
    found = verdict_of(plate_seen=SEEN, cache=cache(record(status=letters)))
    assert Action.NO_PENALTY_NOT_SHOWN not in found.actions


def test_r12_no_penalty_line_beside_a_mismatch():
    tag = TagEvidence(auth=TagAuth.OK, tid="E280", plate=OTHER)
    found = verdict_of(plate_seen=SEEN, tag=tag, cache=cache(record()))
    assert (found.code, Action.NO_PENALTY_NOT_SHOWN in found.actions) == (VerdictCode.MISMATCH, False)


def test_r14_status_too_old_goes_with_signed_only_alone():
    old = cache(record(), hours=200)
    assert Reason.STATUS_TOO_OLD in verdict_of(code=code(), cache=old).reasons
    assert Reason.STATUS_TOO_OLD not in verdict_of(plate_seen=SEEN, cache=old).reasons
    assert Reason.STATUS_TOO_OLD not in verdict_of(code=code()).reasons
    unknown_month = cache(record(inspection_valid_until=None))
    found = verdict_of(code=code(), cache=unknown_month)
    assert (found.code, Reason.STATUS_TOO_OLD in found.reasons) == (VerdictCode.SIGNED_ONLY, False)


def test_r14_an_outdated_month_is_a_note_on_a_valid_vehicle_only():
    past = code(valid_until=Month(2026, 6))
    found = verdict_of(code=past, cache=cache(record()))
    assert (found.code, found.tone, found.reasons) == (VerdictCode.VALID, Tone.NOTE, (Reason.CREDENTIAL_OUTDATED,))
    overdue = cache(record(inspection_valid_until=Month(2026, 6)))
    assert Reason.CREDENTIAL_OUTDATED not in verdict_of(code=past, cache=overdue).reasons


def test_r16_a_caution_never_softens_a_stop():
    tag = TagEvidence(auth=TagAuth.FAIL, tid="E280", plate=PLATE)
    found = verdict_of(plate_seen=SEEN, tag=tag, cache=cache(record(status="C")))
    assert (found.code, found.tone) == (VerdictCode.WANTED, Tone.STOP)


@pytest.mark.parametrize(("seconds", "late"), [(300, False), (301, True), (-301, True)])
def test_r11_a_live_code_is_live_for_its_limit(seconds, late):
    live = code(mode=PresentationMode.LIVE, shown_at=NOW - timedelta(seconds=seconds))
    assert (Reason.QR_NOT_LIVE in verdict_of(code=live, cache=cache(record())).reasons) is late


def test_overdue_online_needs_no_second_look_and_valid_none_either():
    overdue = record(inspection_valid_until=Month(2026, 5))
    online = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=overdue))
    assert verdict_of(plate_seen=SEEN, online=online).actions == (Action.HANDLE_OVERDUE,)
    assert Action.ONLINE_RECHECK in verdict_of(plate_seen=SEEN, cache=cache(overdue)).actions
    assert Action.ONLINE_RECHECK not in verdict_of(plate_seen=SEEN, cache=cache(record())).actions


def test_a_month_that_the_register_does_not_know_is_no_valid_inspection():
    assert verdict_of(plate_seen=SEEN, cache=cache(record(inspection_valid_until=None))).code is VerdictCode.UNDECIDED


def test_the_state_of_a_document_counts_for_a_proven_credential_only():
    """Whoever names somebody else's re-plated credential gets nothing for it."""
    unproven = code(signature=SignatureState.UNKNOWN_KEY)
    document = CredentialStatus(state=CredentialState.SUPERSEDED, superseded_by_plate=OTHER.text)
    answer = StatusAnswer(vehicle=record(plate=OTHER, status="C"), credential=document)
    for sources in (
        {"online": OnlineEvidence(state=OnlineState.OK, answer=answer)},
        {"cache": replace(cache(None), answer=answer)},
    ):
        assert verdict_of(code=unproven, **sources).code is VerdictCode.UNTRUSTED_ISSUER


def test_r3_an_unconfirmed_read_of_the_new_plate_agrees_with_the_old_code():
    seen_new = replace(ANPR, plate=OTHER)
    replated = cache(record(plate=OTHER), state=CredentialState.SUPERSEDED, new_plate=OTHER.text)
    found = verdict_of(code=code(), plate_seen=seen_new, cache=replated)
    assert (found.code, found.tone) == (VerdictCode.SUPERSEDED, Tone.NOTE)
    assert Reason.ID_UNCONFIRMED_MISMATCH not in found.reasons


@pytest.mark.parametrize(
    ("seen", "first"),
    [(SEEN, Action.RELEASE), (ANPR, Action.CONFIRM_PLATE), (None, Action.CONFIRM_PLATE)],
)
def test_nobody_is_released_before_the_plate_was_compared_with_the_car(seen, first):
    found = verdict_of(code=code(), plate_seen=seen, cache=cache(record()))
    assert (found.code, found.actions[0]) == (VerdictCode.VALID, first)
    assert Action.RELEASE in found.actions
    forged = verdict_of(code=code(signature=SignatureState.INVALID), plate_seen=seen)
    assert Action.CONFIRM_PLATE not in forged.actions


def test_r4_a_document_state_that_came_with_a_bad_signature_is_not_used():
    active = StatusAnswer(vehicle=record(), credential=CredentialStatus(state=CredentialState.ACTIVE))
    forged = OnlineEvidence(state=OnlineState.BAD_SIGNATURE, answer=active)
    found = verdict_of(code=code(), cache=cache(record(), state=CredentialState.REVOKED), online=forged)
    assert found.code is VerdictCode.REVOKED


def test_r3_joins_the_old_and_the_new_plate_and_no_third():
    third, new_tag = Plate("京A99999", "02"), TagEvidence(auth=TagAuth.UNSUPPORTED, tid="E280", plate=OTHER)
    replated = cache(record(plate=OTHER), state=CredentialState.SUPERSEDED, new_plate=OTHER.text)
    # the officer sees a third plate, an unproven tag has the new one
    found = verdict_of(code=code(), tag=new_tag, plate_seen=replace(SEEN, plate=third), cache=replated)
    assert found.code is VerdictCode.MISMATCH
    assert Reason.ID_UNCONFIRMED_MISMATCH in found.reasons
    # only the code is proven: a camera reads the new plate, a tag a third one
    found = verdict_of(
        code=code(),
        tag=replace(new_tag, plate=third),
        plate_seen=replace(ANPR, plate=OTHER),
        cache=replated,
    )
    assert (found.code, found.tone) == (VerdictCode.SUPERSEDED, Tone.CAUTION)
    assert Reason.ID_UNCONFIRMED_MISMATCH in found.reasons


# ------------------------------------------------------------------------- R18: a trust list past its time

OLD_LIST = NOW - timedelta(days=31)
CAUTIOUS = (Tone.NOTE, Tone.CAUTION)


@pytest.mark.parametrize(("seconds", "old"), [(0, False), (1, True)])
def test_r18_a_trust_list_is_old_after_thirty_days(seconds, old):
    under = code(trust_as_of=NOW - timedelta(days=30, seconds=seconds))
    found = verdict_of(code=under, cache=cache(record()))
    assert (Reason.TRUST_LIST_OLD in found.reasons, Action.SYNC_NOW in found.actions) == (old, old)
    assert found.code is (VerdictCode.VALID_STALE if old else VerdictCode.VALID)


def test_r18_the_age_is_the_policys():
    evidence = Evidence(code=code(trust_as_of=NOW - timedelta(hours=3)), cache=cache(record()))
    for hours, old in ((2, True), (3, False)):
        found = decide(evidence, replace(POLICY, trust_stale=timedelta(hours=hours)), NOW)
        assert (Reason.TRUST_LIST_OLD in found.reasons) is old


ONLINE_VALID = {"online": OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record()))}
OVERDUE_RECORD = record(inspection_valid_until=Month(2026, 5))


@pytest.mark.parametrize(
    ("status", "fresh", "old"),
    [
        (ONLINE_VALID, VerdictCode.VALID, VerdictCode.VALID_STALE),
        ({"cache": cache(record())}, VerdictCode.VALID, VerdictCode.VALID_STALE),
        ({"cache": cache(OVERDUE_RECORD)}, VerdictCode.EXPIRED, VerdictCode.EXPIRED_UNCONFIRMED),
        ({"cache": cache(record(status="C"))}, VerdictCode.WANTED, VerdictCode.WATCH_CONFIRM),
        ({"cache": cache(record(status="J"))}, VerdictCode.WANTED, VerdictCode.WATCH_CONFIRM),
        ({"cache": cache(record(status="N"))}, VerdictCode.WANTED, VerdictCode.WATCH_CONFIRM),
        (
            {"watch": (WatchHit(basis=Source.CODE, kind="stolen", as_of=NOW),)},
            VerdictCode.WANTED,
            VerdictCode.WATCH_CONFIRM,
        ),
        ({"cache": cache(record(status="E"))}, VerdictCode.DEREGISTERED, VerdictCode.DEREGISTERED),
        ({"cache": cache(record(status="K"))}, VerdictCode.RESTRICTED, VerdictCode.RESTRICTED),
        ({"cache": cache(record(), state=CredentialState.REVOKED)}, VerdictCode.REVOKED, VerdictCode.REVOKED),
        ({"cache": cache(record(credential_serial=Serial("S2")))}, VerdictCode.SUPERSEDED, VerdictCode.SUPERSEDED),
        ({"cache": cache(None)}, VerdictCode.NOT_FOUND, VerdictCode.NOT_FOUND),
        ({}, VerdictCode.SIGNED_ONLY, VerdictCode.SIGNED_ONLY),
    ],
)
def test_r18_an_old_list_degrades_what_rests_on_the_code_alone(status, fresh, old):
    assert verdict_of(code=code(trust_as_of=NOW), **status).code is fresh
    found = verdict_of(code=code(trust_as_of=OLD_LIST), **status)
    assert found.code is old
    assert Action.SYNC_NOW in found.actions
    if found.code is not fresh:
        assert (found.grade in GOOD_GRADES, found.tone in CAUTIOUS) == (False, True)
        assert Reason.DATA_STALE not in found.reasons  # it is the list that is old
        assert Reason.WATCH_STALE not in found.reasons


def test_r18_a_signature_alone_releases_nobody_under_an_old_list():
    for more in ({}, {"plate_seen": SEEN}, {"cache": cache(record(), hours=900)}):
        found = verdict_of(code=code(trust_as_of=OLD_LIST), **more)
        assert (found.code, found.tone) == (VerdictCode.SIGNED_ONLY, Tone.CAUTION)
        assert Action.RELEASE not in found.actions
        assert {Action.ONLINE_RECHECK, Action.SYNC_NOW, Action.ENTER_PLATE} <= set(found.actions)
    fresh = verdict_of(code=code(trust_as_of=NOW))
    assert (fresh.tone, Action.RELEASE in fresh.actions) == (Tone.NOTE, True)


@pytest.mark.parametrize(
    ("vehicle", "code_", "tone"),
    [
        (record(), VerdictCode.VALID, Tone.NOTE),
        (OVERDUE_RECORD, VerdictCode.EXPIRED, Tone.STOP),
        (record(status="C"), VerdictCode.WANTED, Tone.STOP),
    ],
)
def test_r18_a_vehicle_that_something_else_proves_keeps_its_grade(vehicle, code_, tone):
    tag = TagEvidence(auth=TagAuth.OK, tid="E280", plate=PLATE)
    for other in ({"plate_seen": SEEN}, {"tag": tag}):
        found = verdict_of(code=code(trust_as_of=OLD_LIST), cache=cache(vehicle), **other)
        assert (found.code, found.tone, found.grade) == (code_, tone, Grade.FRESH_CACHE)
        assert Reason.TRUST_LIST_OLD in found.reasons
    weak = verdict_of(code=code(trust_as_of=OLD_LIST), cache=cache(vehicle), plate_seen=ANPR)
    assert (weak.grade, weak.tone in CAUTIOUS) == (Grade.STALE_CACHE, True)


def test_r18_a_newer_credential_outranks_an_overdue_record_only_as_far_as_its_list_reaches():
    renewed = {"issued_at": NOW - timedelta(hours=1)}
    sources = {"plate_seen": SEEN, "cache": cache(OVERDUE_RECORD)}
    assert verdict_of(code=code(trust_as_of=NOW, **renewed), **sources).code is VerdictCode.VALID
    found = verdict_of(code=code(trust_as_of=OLD_LIST, **renewed), **sources)
    assert (found.code, found.grade, found.tone) == (VerdictCode.VALID_STALE, Grade.STALE_CACHE, Tone.NOTE)


@pytest.mark.parametrize(
    ("signature", "code_"),
    [
        (SignatureState.INVALID, VerdictCode.FORGED),
        (SignatureState.REVOKED_KEY, VerdictCode.UNTRUSTED_ISSUER),
        (SignatureState.UNKNOWN_KEY, VerdictCode.UNTRUSTED_ISSUER),
    ],
)
def test_r18_age_changes_nothing_for_a_code_that_proves_nothing(signature, code_):
    found = verdict_of(code=code(signature=signature, trust_as_of=OLD_LIST))
    assert found == verdict_of(code=code(signature=signature, trust_as_of=NOW))
    assert (found.code, Reason.TRUST_LIST_OLD in found.reasons) == (code_, False)


def test_r18_a_copied_code_stays_a_mismatch():
    found = verdict_of(code=code(trust_as_of=OLD_LIST), plate_seen=replace(SEEN, plate=OTHER))
    assert (found.code, found.tone) == (VerdictCode.MISMATCH, Tone.STOP)


def test_r18_a_suspect_clock_does_not_know_how_old_the_list_is():
    evidence = Evidence(code=code(trust_as_of=OLD_LIST), cache=cache(record()), clock_trusted=False)
    found = decide(evidence, POLICY, NOW)
    assert (found.code, Reason.TRUST_LIST_OLD in found.reasons) == (VerdictCode.UNDECIDED, False)
    repaired = replace(evidence, online=OnlineEvidence(state=OnlineState.NOT_FOUND, server_time=NOW))
    assert Reason.TRUST_LIST_OLD in decide(repaired, POLICY, NOW - timedelta(days=60)).reasons


# ----------------------------------------------------------------------------- R1: the VIN on the car


def test_r1_another_vin_is_a_mismatch_though_the_plates_agree():
    """A cloned plate with a copied code: all that can be copied agrees."""
    found = verdict_of(code=code(vin_matches=False), plate_seen=SEEN, cache=cache(record()))
    assert (found.code, found.tone) == (VerdictCode.MISMATCH, Tone.STOP)
    assert Reason.VIN_MISMATCH in found.reasons
    assert {Action.CHECK_VIN, Action.PRESERVE_EVIDENCE} <= set(found.actions)
    assert Action.NO_PENALTY_NOT_SHOWN not in found.actions


def test_r1_the_vin_says_nothing_of_an_unproven_code():
    for signature in (SignatureState.UNKNOWN_KEY, SignatureState.INVALID, SignatureState.REVOKED_KEY):
        plain = verdict_of(code=code(signature=signature), plate_seen=SEEN, cache=cache(record()))
        for matches in (True, False):
            unproven = code(signature=signature, vin_matches=matches)
            assert verdict_of(code=unproven, plate_seen=SEEN, cache=cache(record())) == plain


@pytest.mark.parametrize(
    ("status", "left"),
    [
        ({"cache": cache(record(), state=CredentialState.REVOKED)}, Action.NO_PENALTY_NOT_SHOWN),
        ({"cache": cache(None, state=CredentialState.REVOKED, covers=False)}, Action.CONFIRM_CENTRE),
        ({"cache": cache(record(status="E"))}, Action.CONFIRM_CENTRE),
        ({"plate_seen": replace(SEEN, plate=OTHER)}, Action.CONFIRM_PLATE),
    ],
)
def test_r1_a_vin_that_was_compared_need_not_be_checked_again(status, left):
    before = verdict_of(code=code(), **status)
    after = verdict_of(code=code(vin_matches=True), **status)
    assert Action.CHECK_VIN in before.actions
    assert Action.CHECK_VIN not in after.actions
    assert (after.code, after.tone, after.grade) == (before.code, before.tone, before.grade)
    assert (Reason.VIN_CONFIRMED in after.reasons, left in after.actions) == (True, True)


def by_the_centre(word, vehicle=None):
    answer = StatusAnswer(vehicle=vehicle or record())
    return OnlineEvidence(state=OnlineState.OK, answer=answer, server_time=NOW, vin=word)


@pytest.mark.parametrize(
    ("word", "reasons", "actions"),
    [
        (VinAnswer.OTHER, {Reason.VIN_MISMATCH}, {Action.CHECK_VIN}),
        (VinAnswer.WANTED, {Reason.VIN_MISMATCH, Reason.VIN_WANTED}, {Action.CHECK_VIN, Action.CONFIRM_CENTRE}),
        (VinAnswer.ABSENT, {Reason.VIN_NOT_FOUND}, {Action.CHECK_VIN}),
    ],
)
def test_r1_a_vin_that_the_centre_has_elsewhere_is_a_caution_and_never_a_stop(word, reasons, actions):
    found = verdict_of(plate_seen=SEEN, online=by_the_centre(word))
    assert (found.code, found.tone, set(found.reasons)) == (VerdictCode.VALID, Tone.CAUTION, reasons)
    assert actions <= set(found.actions)
    assert Action.RELEASE not in found.actions


def test_r1_a_vin_that_the_centre_has_on_the_plate_need_not_be_checked_again():
    scrapped = by_the_centre(VinAnswer.SAME, record(status="E"))
    found = verdict_of(plate_seen=SEEN, online=scrapped)
    assert (found.code, found.actions) == (VerdictCode.DEREGISTERED, (Action.CONFIRM_CENTRE,))
    assert found.findings == (Finding(Reason.VIN_CONFIRMED, Source.ONLINE),)


@pytest.mark.parametrize(
    ("matches", "word", "told"),
    [
        (False, VinAnswer.SAME, (Reason.VIN_MISMATCH, Source.CODE)),
        (False, VinAnswer.ABSENT, (Reason.VIN_MISMATCH, Source.CODE)),
        (True, VinAnswer.OTHER, (Reason.VIN_MISMATCH, Source.ONLINE)),
        (True, VinAnswer.SAME, (Reason.VIN_CONFIRMED, Source.CODE)),
        (True, VinAnswer.ABSENT, (Reason.VIN_NOT_FOUND, Source.ONLINE)),
    ],
)
def test_r1_of_code_and_centre_the_one_that_doubts_a_vin_is_heard(matches, word, told):
    found = verdict_of(code=code(vin_matches=matches), plate_seen=SEEN, online=by_the_centre(word))
    assert [finding for finding in found.findings if "VIN" in finding.reason] == [told]
    stop, doubt = matches is False, told[0] is not Reason.VIN_CONFIRMED
    assert found.tone is (Tone.STOP if stop else Tone.CAUTION if doubt else Tone.PASS)


# -------------------------------------------------------------------------- R1: the tag of a proven credential

# 12 August 2025 in Shanghai began in the second that a credential was issued in.
MIDNIGHT = datetime(2025, 8, 11, 16, tzinfo=UTC)
FOREIGN_TAG = TagEvidence(auth=TagAuth.UNSUPPORTED, tid="E280", plate=PLATE, tid_matches=False)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, True),
        ({"issued_on": date(2025, 8, 11)}, True),
        ({"issued_on": date(2025, 8, 12)}, False),
        ({"issued_on": date(2025, 8, 13)}, False),
        ({"record": TagRecord.BOUND}, False),
        ({"record": TagRecord.BOUND, "issued_on": date(2025, 8, 11)}, False),
        ({"tid_matches": None}, False),
        ({"tid_matches": True}, False),
    ],
)
def test_r1_a_tag_that_a_proven_credential_is_not_bound_to_is_a_finding_unless_it_came_since(changes, failed):
    tag = replace(FOREIGN_TAG, **changes)
    found = verdict_of(code=code(issued_at=MIDNIGHT), tag=tag, plate_seen=SEEN, cache=cache(record()))
    assert (Reason.TAG_AUTH_FAILED in found.reasons, found.tone is Tone.CAUTION) == (failed, failed)
    unproven = code(issued_at=MIDNIGHT, signature=SignatureState.UNKNOWN_KEY)
    assert Reason.TAG_AUTH_FAILED not in verdict_of(code=unproven, tag=tag, plate_seen=SEEN).reasons


@pytest.mark.parametrize("level", [TagLevel.CERTIFIED, TagLevel.AUTHENTICATED])
def test_r3_a_tag_of_before_a_re_plating_is_no_mismatch_beside_the_new_plates_code(level):
    tag = TagEvidence(auth=TagAuth.OK, tid="E280", plate=PLATE, level=level)
    found = verdict_of(code=code(plate=OTHER), tag=tag)
    assert (found.code is VerdictCode.MISMATCH, found.tone) == (False, Tone.CAUTION)
    bound = replace(tag, record=TagRecord.BOUND)
    assert verdict_of(code=code(plate=OTHER), tag=bound, cache=cache(None)).code is VerdictCode.MISMATCH


@pytest.mark.parametrize("sign", TagSuspicion)
def test_r1_a_suspicion_of_a_copy_takes_the_trust_from_a_tag(sign):
    tag = TagEvidence(auth=TagAuth.OK, tid="E280", plate=PLATE, suspicions=(sign,))
    found = verdict_of(tag=tag, cache=cache(OVERDUE_RECORD))
    assert (found.code, Reason.TAG_AUTH_FAILED in found.reasons) == (VerdictCode.EXPIRED_UNCONFIRMED, True)
    honest = verdict_of(tag=replace(tag, suspicions=()), cache=cache(OVERDUE_RECORD))
    assert (honest.code, Reason.TAG_AUTH_FAILED in honest.reasons) == (VerdictCode.EXPIRED, False)


# ------------------------------------------------------------------------------ R3 and R8: one rule, one case


def replated_record(**changes) -> CacheEvidence:
    return cache(record(plate=OTHER, **changes), state=CredentialState.ACTIVE, new_plate=OTHER.text)


def test_r3_the_record_of_the_new_plate_is_as_trusted_as_the_code_that_leads_to_it():
    overdue = verdict_of(code=code(), cache=replated_record(inspection_valid_until=Month(2026, 5)))
    assert (overdue.code, overdue.tone) == (VerdictCode.EXPIRED, Tone.STOP)
    assert verdict_of(code=code(), cache=replated_record(status="C")).code is VerdictCode.WANTED


@pytest.mark.parametrize("new_plate", [None, "京A99999"])
def test_r3_the_state_of_a_document_opens_no_record_but_that_of_the_plate_it_names(new_plate):
    stray = cache(record(plate=OTHER, status="C"), state=CredentialState.ACTIVE, new_plate=new_plate)
    found = verdict_of(code=code(), cache=stray)
    assert (found.code, Reason.NO_STATUS_DATA in found.reasons) == (VerdictCode.SIGNED_ONLY, True)


@pytest.mark.parametrize(("seconds", "old"), [(0, False), (1, True)])
def test_r8_a_hit_by_the_text_alone_is_old_after_seven_days(seconds, old):
    as_of = NOW - timedelta(days=7, seconds=seconds)
    watched = replace(cache(None, covers=False), watched=True, as_of=as_of)
    found = verdict_of(plate_seen=replace(SEEN, plate=Plate(PLATE.text, None)), cache=watched)
    assert (found.code, Reason.WATCH_STALE in found.reasons) == (VerdictCode.WATCH_CONFIRM, old)


@pytest.mark.parametrize(("days_behind", "code_"), [(0, VerdictCode.WANTED), (30, VerdictCode.WATCH_CONFIRM)])
@pytest.mark.parametrize("listed", [False, True])
def test_r8_by_a_clock_that_is_behind_the_data_no_hit_is_known_to_be_fresh(days_behind, code_, listed):
    data = replace(cache(record(status="A" if listed else "C")), as_of=NOW + timedelta(days=days_behind))
    hits = (WatchHit(basis=Source.PLATE_SEEN, kind="stolen", as_of=data.as_of),) if listed else ()
    assert verdict_of(plate_seen=SEEN, cache=data, watch=hits, clock_trusted=False).code is code_


@pytest.mark.parametrize("wanted", [False, True])
def test_r2_where_the_centre_has_several_vehicles_of_one_text_no_cached_one_is_taken_for_it(wanted):
    online = OnlineEvidence(state=OnlineState.SEVERAL, watched=wanted, server_time=NOW)
    found = verdict_of(plate_seen=replace(SEEN, plate=Plate(PLATE.text, None)), cache=cache(record()), online=online)
    assert found.code is (VerdictCode.WATCH_CONFIRM if wanted else VerdictCode.UNDECIDED)
    assert (Reason.WATCH_KIND in found.reasons, Action.RELEASE in found.actions) == (True, False)
    lead = verdict_of(code=code(signature=SignatureState.UNKNOWN_KEY), online=online)
    assert Reason.WATCH_KIND not in lead.reasons
    assert (Reason.WATCH_LEAD in lead.reasons) is wanted


def test_r8_a_hit_by_the_text_of_a_plate_that_a_camera_read_is_a_question():
    watched = replace(cache(None, covers=False), watched=True)
    found = verdict_of(plate_seen=replace(ANPR, plate=Plate(PLATE.text, None)), cache=watched)
    assert (found.code, Reason.WATCH_KIND in found.reasons) == (VerdictCode.WATCH_CONFIRM, True)


def test_r5_a_suspect_clock_that_was_right_is_said_to_be_put_right():
    online = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=record()), server_time=NOW)
    assert Reason.CLOCK_CORRECTED in verdict_of(plate_seen=SEEN, online=online, clock_trusted=False).reasons


def test_r4_the_state_of_a_document_counts_though_its_vehicle_is_not_found_online():
    withdrawn = StatusAnswer(vehicle=None, credential=CredentialStatus(state=CredentialState.REVOKED))
    found = verdict_of(code=code(), online=OnlineEvidence(state=OnlineState.NOT_FOUND, answer=withdrawn))
    assert found.code is VerdictCode.REVOKED


def test_r4_an_online_word_on_the_document_alone_leaves_the_vehicle_to_the_cache():
    silent = StatusAnswer(vehicle=None, credential=CredentialStatus(state=CredentialState.ACTIVE))
    found = verdict_of(code=code(), cache=cache(record()), online=OnlineEvidence(state=OnlineState.OK, answer=silent))
    assert (found.code, found.grade) == (VerdictCode.VALID, Grade.FRESH_CACHE)
