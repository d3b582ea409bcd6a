"""What holds for every evidence, whatever was seen and answered.

The normal run takes thousands of random evidences; `scripts/test -m long` takes 200,000.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.test_decide import NOW, OTHER, PLATE, POLICY
from verifier.decide import decide
from verifier.evidence import evidence_from_json, evidence_to_json
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
    Verdict,
    VerdictCode,
    WatchHit,
    same_plate,
)

COUNTS = [1000, pytest.param(200_000, marks=pytest.mark.long)]


def for_all(count: int, *strategies: st.SearchStrategy, check: Callable[..., None]) -> None:
    """Run the check on so many examples: always the same ones in the normal run, others each time in the long one."""
    options = settings(
        max_examples=count,
        deadline=None,
        derandomize=count < 100_000,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    options(given(*strategies)(check))()


def mostly(usual: object, *others: object) -> st.SearchStrategy:
    """The usual value three times out of four: a good verdict takes many things in order at once."""
    return st.sampled_from([usual] * 3 * len(others) + list(others))


def at_times(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """None half of the time."""
    return st.one_of(st.none(), strategy)


plates = mostly(PLATE, OTHER, Plate("京A12345", "01"), Plate("京A12345", None), Plate("VA12345", "32"))
ages = st.sampled_from([8.0] * 8 + [50.0] * 6 + [-2.0, 0.0, 25.9, 26.0, 168.0, 200.0, 900.0])
months = mostly(Month(2027, 8), None, Month(2026, 7), Month(2026, 8))
moments = ages.map(lambda hours: NOW - timedelta(hours=hours))
letters = st.sets(st.sampled_from(StatusLetter), min_size=1, max_size=3).map(frozenset)
normal = st.just(frozenset({StatusLetter.NORMAL}))
records = st.builds(
    VehicleRecord,
    plate=plates,
    status=st.one_of(normal, normal, letters),
    inspection_valid_until=months,
    ecred_issued=st.booleans(),
    ctp_until=mostly(None, date(2026, 7, 31), date(2027, 7, 31)),
    credential_serial=mostly(Serial("S1"), None, Serial("S2")),
)
documents = st.builds(
    CredentialStatus,
    state=mostly(*CredentialState),
    superseded_by_plate=mostly(None, PLATE.text, OTHER.text),
)
answers = st.builds(StatusAnswer, vehicle=st.one_of(st.none(), records, records), credential=at_times(documents))
caches = st.builds(
    CacheEvidence,
    state=mostly(*CacheState),
    as_of=moments,
    scope=st.just("national"),
    covers=mostly(True, False),
    answer=answers,
)
FAILURES = [s for s in OnlineState if s not in (OnlineState.OK, OnlineState.NOT_FOUND)]
online_failures = st.builds(OnlineEvidence, state=st.sampled_from(FAILURES))
onlines = st.one_of(
    online_failures,
    online_failures,
    st.just(OnlineEvidence(state=OnlineState.NOT_FOUND, server_time=NOW)),
    records.map(lambda r: OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=r), server_time=NOW)),
)
credentials = st.builds(
    Credential,
    serial=st.just(Serial("S1")),
    plate=plates,
    valid_until=months.filter(bool),
    issued_at=mostly(NOW - timedelta(days=300), NOW - timedelta(hours=1), NOW + timedelta(days=1)),
)
read_codes = st.builds(
    CodeEvidence,
    reading=st.just(CodeReading.OK),
    mode=st.sampled_from(PresentationMode),
    signature=mostly(*SignatureState),
    credential=credentials,
    shown_at=mostly(None, NOW, NOW - timedelta(hours=1)),
    fault=mostly(None, CodeFault.JURISDICTION, CodeFault.EXPIRED, CodeFault.NEEDS_PRESENTATION),
)
unread_codes = st.sampled_from([r for r in CodeReading if r is not CodeReading.OK]).map(
    lambda r: CodeEvidence(reading=r)
)
tags = st.builds(TagEvidence, auth=mostly(*TagAuth), tid=st.just("E280"), plate=plates)
seen = st.builds(PlateSeen, plate=plates, confirmed=mostly(True, False))
hits = st.builds(
    WatchHit,
    basis=st.sampled_from([Source.PLATE_SEEN, Source.TAG, Source.CODE]),
    kind=st.just("stolen"),
    as_of=moments,
)
evidences = st.builds(
    Evidence,
    code=st.one_of(st.none(), read_codes, read_codes, unread_codes),
    tag=at_times(tags),
    plate_seen=at_times(seen),
    paper_displayed=st.sampled_from([None, True, False]),
    cache=caches,
    online=onlines,
    watch=st.one_of(st.just(()), st.just(()), st.lists(hits, max_size=2).map(tuple)),
    clock_trusted=mostly(True, False),
)


def trusted_identities(evidence: Evidence) -> set[Source]:
    found = set()
    if evidence.plate_seen and evidence.plate_seen.confirmed:
        found.add(Source.PLATE_SEEN)
    if evidence.tag and evidence.tag.auth is TagAuth.OK:
        found.add(Source.TAG)
    if evidence.code and evidence.code.signature is SignatureState.VALID:
        found.add(Source.CODE)
    return found


def identities(evidence: Evidence) -> list[tuple[Source, Plate]]:
    parts = [(Source.PLATE_SEEN, evidence.plate_seen), (Source.TAG, evidence.tag)]
    found = [(source, part.plate) for source, part in parts if part is not None]
    if evidence.code is not None and evidence.code.credential is not None:
        found.append((Source.CODE, evidence.code.credential.plate))
    return found


def weakened(evidence: Evidence) -> Evidence:
    """The same evidence with nothing proven."""
    code, tag, plate = evidence.code, evidence.tag, evidence.plate_seen
    if code is not None and code.signature is SignatureState.VALID:
        code = replace(code, signature=SignatureState.UNKNOWN_KEY)
    if tag is not None and tag.auth is TagAuth.OK:
        tag = replace(tag, auth=TagAuth.UNSUPPORTED)
    return replace(evidence, code=code, tag=tag, plate_seen=plate and replace(plate, confirmed=False))


def decided(evidence: Evidence) -> Verdict:
    return decide(evidence, POLICY, NOW)


every_count = pytest.mark.parametrize("count", COUNTS)


@every_count
def test_no_stop_and_no_caution_releases(count):
    def check(evidence):
        verdict = decided(evidence)
        assert verdict.tone in (Tone.PASS, Tone.NOTE) or Action.RELEASE not in verdict.actions

    for_all(count, evidences, check=check)


@every_count
def test_expired_takes_a_good_source_and_only_expired_is_handled(count):
    def check(evidence):
        verdict = decided(evidence)
        if verdict.code is VerdictCode.EXPIRED:
            assert verdict.grade in (Grade.ONLINE, Grade.FRESH_CACHE)
        assert (Action.HANDLE_OVERDUE in verdict.actions) is (verdict.code is VerdictCode.EXPIRED)

    for_all(count, evidences, check=check)


@every_count
def test_what_only_a_weak_identity_says_makes_no_mismatch_wanted_or_expired(count):
    def check(evidence):
        weak = weakened(evidence)
        assert not trusted_identities(weak)
        assert decided(weak).code not in (VerdictCode.MISMATCH, VerdictCode.WANTED, VerdictCode.EXPIRED)

    for_all(count, evidences, check=check)


@every_count
def test_a_wrong_signature_is_a_stop_and_nothing_else_is_called_forged(count):
    def check(evidence):
        verdict = decided(evidence)
        if evidence.code is not None and evidence.code.signature is SignatureState.INVALID:
            assert verdict.tone is Tone.STOP
        else:
            assert verdict.code is not VerdictCode.FORGED

    for_all(count, evidences, check=check)


@every_count
def test_a_stolen_revoked_or_mismatched_car_is_never_a_pass(count):
    """By a source of any age, on any identity that may speak of the vehicle."""

    passes = []

    def check(evidence):
        verdict = decided(evidence)
        if verdict.tone is not Tone.PASS:
            return
        passes.append(verdict.code)
        answer = evidence.online.answer or evidence.cache.answer
        if evidence.code is not None and evidence.code.signature is SignatureState.VALID and answer is not None:
            assert answer.credential is None or answer.credential.state is not CredentialState.REVOKED
        assert not any(hit.basis in trusted_identities(evidence) for hit in evidence.watch)
        plates = [plate for source, plate in identities(evidence) if source in trusted_identities(evidence)]
        assert all(same_plate(a, b) for a in plates for b in plates) or Reason.REPLATED in verdict.reasons

    for_all(count, evidences, check=check)
    assert len(passes) > count / 50


@every_count
def test_the_random_evidence_reaches_every_verdict(count):
    reached = set()
    for_all(max(count, 4000), evidences, check=lambda evidence: reached.add(decided(evidence).code))
    assert reached == set(VerdictCode)


@every_count
def test_no_online_failure_makes_not_found(count):
    def check(evidence, failure):
        offline = replace(evidence, online=OnlineEvidence(state=OnlineState.DISABLED))
        assert decided(replace(evidence, online=failure)).code is decided(offline).code

    for_all(count, evidences, online_failures, check=check)


@every_count
def test_an_older_cache_makes_no_stop_of_what_a_fresher_one_allows(count):
    permanent = {VerdictCode.DEREGISTERED, VerdictCode.RESTRICTED, VerdictCode.REVOKED}

    def check(evidence, hours):
        fresh = decided(replace(evidence, cache=replace(evidence.cache, as_of=NOW)))
        aged = replace(evidence.cache, as_of=NOW - timedelta(hours=max(hours, 0.0)))
        old = decided(replace(evidence, cache=aged))
        assert old.tone is not Tone.STOP or fresh.tone is Tone.STOP or old.code in permanent

    for_all(count, evidences, ages, check=check)


@every_count
def test_an_unreadable_code_never_changes_what_tag_or_plate_decide(count):
    def check(evidence, unread):
        assume(evidence.tag is not None or evidence.plate_seen is not None)
        before = decided(replace(evidence, code=None))
        after = decided(replace(evidence, code=unread))
        if before.code is not VerdictCode.UNDECIDED or Reason.CLOCK_SUSPECT in before.reasons:
            assert after.code is before.code

    for_all(count, evidences, unread_codes, check=check)


@every_count
def test_a_record_decides_the_same_again(count):
    def check(evidence):
        again, now = evidence_from_json(json.loads(json.dumps(evidence_to_json(evidence, NOW))))
        assert decide(again, POLICY, now) == decided(evidence)

    for_all(count, evidences, check=check)
