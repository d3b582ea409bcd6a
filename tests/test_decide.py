from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import load_data
from verifier.decide import PRECEDENCE, decide
from verifier.errors import EvidenceError
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.policy import Policy
from verifier.types import (
    Action,
    CacheEvidence,
    CacheState,
    CodeEvidence,
    CodeFault,
    CodeReading,
    Credential,
    CredentialState,
    CredentialStatus,
    Evidence,
    Grade,
    Month,
    OnlineEvidence,
    OnlineState,
    Plate,
    PlateSeen,
    PresentationMode,
    Reason,
    Serial,
    SignatureState,
    Source,
    StatusAnswer,
    StatusLetter,
    TagAuth,
    TagEvidence,
    Tone,
    VehicleRecord,
    VerdictCode,
    WatchHit,
)

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
        ({"online": {"state": "ok"}}, "online.record"),
        ({"watch": [{"basis": "rumour"}]}, r"watch\[0\].basis"),
        ({"tag": []}, "tag: not an object"),
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


# ------------------------------------------------------------------------------------------ what always holds

plates = st.sampled_from([PLATE, OTHER, Plate("京A12345", "01"), Plate("京A12345", None), Plate("VA12345", "32")])
ages = st.sampled_from([-2.0, 0.0, 8.0, 25.9, 26.0, 30.0, 168.0, 200.0, 900.0])
months = st.sampled_from([None, Month(2026, 7), Month(2026, 8), Month(2027, 8)])
moments = ages.map(lambda hours: NOW - timedelta(hours=hours))
letters = st.sets(st.sampled_from(StatusLetter), min_size=1, max_size=3).map(frozenset)
records = st.builds(
    VehicleRecord,
    plate=plates,
    status=st.one_of(st.just(frozenset({StatusLetter.NORMAL})), letters),
    inspection_valid_until=months,
    ecred_issued=st.booleans(),
    ctp_until=st.none(),
    credential_serial=st.sampled_from([None, Serial("S1"), Serial("S2")]),
)
documents = st.builds(
    CredentialStatus,
    state=st.sampled_from(CredentialState),
    superseded_by_plate=st.sampled_from([None, PLATE.text, OTHER.text]),
)
answers = st.builds(StatusAnswer, vehicle=st.one_of(st.none(), records), credential=st.one_of(st.none(), documents))
caches = st.builds(
    CacheEvidence,
    state=st.sampled_from(CacheState),
    as_of=moments,
    scope=st.just("national"),
    covers=st.booleans(),
    answer=answers,
)
FAILURES = [s for s in OnlineState if s not in (OnlineState.OK, OnlineState.NOT_FOUND)]
online_failures = st.builds(OnlineEvidence, state=st.sampled_from(FAILURES))
onlines = st.one_of(
    online_failures,
    st.just(OnlineEvidence(state=OnlineState.NOT_FOUND, server_time=NOW)),
    records.map(lambda r: OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=r), server_time=NOW)),
)
credentials = st.builds(
    Credential,
    serial=st.just(Serial("S1")),
    plate=plates,
    valid_until=months.filter(bool),
    issued_at=moments,
)
read_codes = st.builds(
    CodeEvidence,
    reading=st.just(CodeReading.OK),
    mode=st.sampled_from(PresentationMode),
    signature=st.sampled_from(SignatureState),
    credential=credentials,
    shown_at=st.one_of(st.none(), moments),
    fault=st.sampled_from([None, CodeFault.JURISDICTION, CodeFault.EXPIRED, CodeFault.NEEDS_PRESENTATION]),
)
unread_codes = st.sampled_from([r for r in CodeReading if r is not CodeReading.OK]).map(
    lambda r: CodeEvidence(reading=r)
)
tags = st.builds(TagEvidence, auth=st.sampled_from(TagAuth), tid=st.just("E280"), plate=plates)
seen = st.builds(PlateSeen, plate=plates, confirmed=st.booleans())
hits = st.builds(
    WatchHit,
    basis=st.sampled_from([Source.PLATE_SEEN, Source.TAG, Source.CODE]),
    kind=st.just("stolen"),
    as_of=moments,
)
evidences = st.builds(
    Evidence,
    code=st.one_of(st.none(), read_codes, unread_codes),
    tag=st.one_of(st.none(), tags),
    plate_seen=st.one_of(st.none(), seen),
    paper_displayed=st.sampled_from([None, True, False]),
    cache=caches,
    online=onlines,
    watch=st.lists(hits, max_size=2).map(tuple),
    clock_trusted=st.booleans(),
)


def trusted_identities(evidence: Evidence) -> bool:
    return bool(
        (evidence.plate_seen and evidence.plate_seen.confirmed)
        or (evidence.tag and evidence.tag.auth is TagAuth.OK)
        or (evidence.code and evidence.code.signature is SignatureState.VALID)
    )


@settings(max_examples=3000, deadline=None)
@given(evidences)
def test_what_holds_for_every_evidence(evidence):
    verdict = decide(evidence, POLICY, NOW)
    if verdict.tone in (Tone.STOP, Tone.CAUTION):
        assert Action.RELEASE not in verdict.actions
    if verdict.code is VerdictCode.EXPIRED:
        assert verdict.grade in (Grade.ONLINE, Grade.FRESH_CACHE)
    if Action.HANDLE_OVERDUE in verdict.actions:
        assert verdict.code is VerdictCode.EXPIRED
    if not trusted_identities(evidence):
        assert verdict.code not in (VerdictCode.MISMATCH, VerdictCode.WANTED, VerdictCode.EXPIRED)
    if evidence.code is not None and evidence.code.signature is SignatureState.INVALID:
        assert verdict.tone is Tone.STOP
    elif verdict.code is VerdictCode.FORGED:
        pytest.fail("forged without a signature that is wrong")
    again = evidence_from_json(json.loads(json.dumps(evidence_to_json(evidence, NOW))))
    assert decide(again[0], POLICY, again[1]).code is verdict.code


@settings(max_examples=1000, deadline=None)
@given(evidences, online_failures)
def test_no_online_failure_makes_not_found(evidence, failure):
    offline = replace(evidence, online=OnlineEvidence(state=OnlineState.DISABLED))
    failed = replace(evidence, online=failure)
    assert decide(failed, POLICY, NOW).code is decide(offline, POLICY, NOW).code


@settings(max_examples=1000, deadline=None)
@given(evidences, ages)
def test_an_older_cache_never_makes_a_stop_of_what_a_fresher_one_allows(evidence, hours):
    permanent = {VerdictCode.DEREGISTERED, VerdictCode.RESTRICTED, VerdictCode.REVOKED}
    fresh = replace(evidence, cache=replace(evidence.cache, as_of=NOW))
    old = replace(evidence, cache=replace(evidence.cache, as_of=NOW - timedelta(hours=max(hours, 0.0))))
    before, after = decide(fresh, POLICY, NOW), decide(old, POLICY, NOW)
    if after.tone is Tone.STOP and before.tone is not Tone.STOP:
        assert after.code in permanent


@settings(max_examples=1000, deadline=None)
@given(evidences.filter(lambda e: e.code is None and (e.tag or e.plate_seen)), unread_codes)
def test_an_unreadable_code_never_changes_what_tag_or_plate_decide(evidence, unread):
    before = decide(evidence, POLICY, NOW)
    after = decide(replace(evidence, code=unread), POLICY, NOW)
    if before.code is not VerdictCode.UNDECIDED or Reason.CLOCK_SUSPECT in before.reasons:
        assert after.code is before.code
