"""What holds for every evidence, whatever was seen and answered.

The normal run takes thousands of random evidences; `scripts/test -m long` takes 200,000.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_decide import NOW, OTHER, PLATE, POLICY
from verifier.decide import decide
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.roles import INSPECTION_LETTERS, Answer, limited_answer
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
    VehicleRecord,
    VinAnswer,
    WatchHit,
    same_plate,
)
from verifier.verdict import Action, Grade, Reason, Tone, Verdict, VerdictCode

COUNT, LONG_COUNT = 400, 200_000

HOURS = [8.0] * 8 + [50.0] * 6 + [-2.0, 0.0, 25.9, 26.0, 168.0, 200.0, 900.0]
ANSWERS = (OnlineState.OK, OnlineState.NOT_FOUND, OnlineState.SEVERAL)
FAILURES = [state for state in OnlineState if state not in ANSWERS]
OLD_LIST = NOW - timedelta(days=31)
UNREAD = [CodeEvidence(reading=reading) for reading in CodeReading if reading is not CodeReading.OK]


@dataclass(frozen=True)
class Example:
    """An evidence, and what may be put in the place of a part of it."""

    evidence: Evidence
    failure: OnlineEvidence
    hours: float
    unread: CodeEvidence


class Draw:
    """Random evidence. The usual value comes three times out of four: a good verdict takes many things in order."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def one(self, *values):
        return self.rng.choice(values)

    def mostly(self, usual, *others):
        return usual if self.rng.random() < 0.75 else self.rng.choice(others)

    def at_times(self, make: Callable[[], Any], share: float = 0.5):
        return make() if self.rng.random() < share else None

    def moment(self):
        return NOW - timedelta(hours=self.rng.choice(HOURS))

    def plate(self):
        others = (OTHER, Plate("京A12345", "01"), Plate("京A12345", None), Plate("VA12345", "32"))
        return self.mostly(PLATE, *others)

    def record(self):
        letters = self.rng.sample(list(StatusLetter), self.rng.randint(1, 3))
        return VehicleRecord(
            plate=self.plate(),
            status=frozenset(self.mostly([StatusLetter.NORMAL], letters)),
            inspection_valid_until=self.mostly(Month(2027, 8), None, Month(2026, 7), Month(2026, 8)),
            ecred_issued=self.one(True, False),
            ctp_until=self.mostly(None, date(2026, 7, 31), date(2027, 7, 31)),
            credential_serial=self.mostly(Serial("S1"), None, Serial("S2")),
        )

    def document(self):
        new_plate = self.mostly(None, PLATE.text, OTHER.text)
        return CredentialStatus(state=self.mostly(*CredentialState), superseded_by_plate=new_plate)

    def answer(self):
        return StatusAnswer(vehicle=self.at_times(self.record, 0.7), credential=self.at_times(self.document))

    def cache(self):
        return CacheEvidence(
            state=self.mostly(*CacheState),
            as_of=self.moment(),
            scope="national",
            covers=self.mostly(True, False),
            answer=self.answer(),
            watched=self.mostly(False, False, True),
        )

    def failure(self):
        return OnlineEvidence(state=self.rng.choice(FAILURES))

    def online(self):
        found = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=self.record()), server_time=NOW)
        lost = OnlineEvidence(state=OnlineState.NOT_FOUND, server_time=NOW)
        unclear = OnlineEvidence(state=OnlineState.SEVERAL, server_time=NOW, watched=self.mostly(False, True))
        answered = [replace(answer, vin=self.mostly(None, *VinAnswer)) for answer in (found, lost, unclear)]
        return self.one(self.failure(), self.failure(), *answered)

    def credential(self):
        return Credential(
            serial=Serial("S1"),
            plate=self.plate(),
            valid_until=self.mostly(Month(2027, 8), Month(2026, 7), Month(2026, 8)),
            issued_at=self.mostly(NOW - timedelta(days=300), NOW - timedelta(hours=1), NOW + timedelta(days=1)),
        )

    def code(self):
        if self.rng.random() < 0.3:
            return self.rng.choice(UNREAD)
        return CodeEvidence(
            reading=CodeReading.OK,
            mode=self.one(*PresentationMode),
            signature=self.mostly(*SignatureState),
            credential=self.credential(),
            shown_at=self.mostly(None, NOW, NOW - timedelta(hours=1)),
            fault=self.mostly(None, CodeFault.JURISDICTION, CodeFault.EXPIRED, CodeFault.NEEDS_PRESENTATION),
            trust_as_of=self.mostly(NOW - timedelta(hours=8), None, OLD_LIST),
            vin_matches=self.mostly(None, True, False),
        )

    def tag(self):
        return TagEvidence(auth=self.mostly(*TagAuth), tid="E280", plate=self.plate())

    def seen(self):
        return PlateSeen(plate=self.plate(), confirmed=self.mostly(True, False))

    def hit(self):
        basis = self.one(Source.PLATE_SEEN, Source.TAG, Source.CODE)
        return WatchHit(basis=basis, kind="stolen", as_of=self.moment())

    def evidence(self):
        return Evidence(
            code=self.at_times(self.code, 0.75),
            tag=self.at_times(self.tag),
            plate_seen=self.at_times(self.seen),
            paper_displayed=self.one(None, True, False),
            cache=self.cache(),
            online=self.online(),
            watch=tuple(self.hit() for _ in range(self.mostly(0, 1, 2))),
            clock_trusted=self.mostly(True, False),
        )


def example_of(seed: int) -> Example:
    draw = Draw(seed)
    return Example(draw.evidence(), draw.failure(), draw.rng.choice(HOURS), draw.rng.choice(UNREAD))


def for_all(count: int, *checks: Callable[[Example], object]) -> None:
    """Run the checks on so many examples, the same ones each time."""

    @settings(max_examples=count)
    @given(st.integers(0, 2**48))
    def run(seed):
        example = example_of(seed)
        for check in checks:
            check(example)

    run()


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


def no_stop_and_no_caution_releases(example):
    verdict = decided(example.evidence)
    assert verdict.tone in (Tone.PASS, Tone.NOTE) or Action.RELEASE not in verdict.actions


def expired_takes_a_good_source_and_only_expired_is_handled(example):
    verdict = decided(example.evidence)
    if verdict.code is VerdictCode.EXPIRED:
        assert verdict.grade in (Grade.ONLINE, Grade.FRESH_CACHE)
    assert (Action.HANDLE_OVERDUE in verdict.actions) is (verdict.code is VerdictCode.EXPIRED)


def what_only_a_weak_identity_says_makes_no_mismatch_wanted_or_expired(example):
    weak = weakened(example.evidence)
    assert not trusted_identities(weak)
    assert decided(weak).code not in (VerdictCode.MISMATCH, VerdictCode.WANTED, VerdictCode.EXPIRED)


def a_wrong_signature_is_a_stop_and_nothing_else_is_called_forged(example):
    code, verdict = example.evidence.code, decided(example.evidence)
    if code is not None and code.signature is SignatureState.INVALID:
        assert verdict.tone is Tone.STOP
    else:
        assert verdict.code is not VerdictCode.FORGED


def a_stolen_revoked_or_mismatched_car_is_never_a_pass(example):
    evidence, verdict = example.evidence, decided(example.evidence)
    if verdict.tone is not Tone.PASS:
        return
    trusted = trusted_identities(evidence)
    answer = evidence.online.answer or evidence.cache.answer
    if Source.CODE in trusted and answer is not None and answer.credential is not None:
        assert answer.credential.state is not CredentialState.REVOKED
    assert not any(hit.basis in trusted for hit in evidence.watch)
    plates = [plate for source, plate in identities(evidence) if source in trusted]
    assert all(same_plate(a, b) for a in plates for b in plates) or Reason.REPLATED in verdict.reasons


def no_online_failure_makes_not_found(example):
    offline = replace(example.evidence, online=OnlineEvidence(state=OnlineState.DISABLED))
    failed = replace(example.evidence, online=example.failure)
    assert decided(failed).code is decided(offline).code


def an_older_cache_makes_no_stop_of_what_a_fresher_one_allows(example):
    permanent = {VerdictCode.DEREGISTERED, VerdictCode.RESTRICTED, VerdictCode.REVOKED}
    cache = example.evidence.cache
    fresh = decided(replace(example.evidence, cache=replace(cache, as_of=NOW)))
    aged = replace(cache, as_of=NOW - timedelta(hours=max(example.hours, 0.0)))
    old = decided(replace(example.evidence, cache=aged))
    assert old.tone is not Tone.STOP or fresh.tone is Tone.STOP or old.code in permanent


def an_unreadable_code_never_changes_what_tag_or_plate_decide(example):
    evidence = example.evidence
    if evidence.tag is None and evidence.plate_seen is None:
        return
    before = decided(replace(evidence, code=None))
    after = decided(replace(evidence, code=example.unread))
    if before.code is not VerdictCode.UNDECIDED or Reason.CLOCK_SUSPECT in before.reasons:
        assert after.code is before.code


def a_record_decides_the_same_again(example):
    again, now = evidence_from_json(json.loads(json.dumps(evidence_to_json(example.evidence, NOW))))
    assert decide(again, POLICY, now) == decided(example.evidence)


def no_watch_data_changes_a_limited_answer(example):
    evidence = example.evidence
    answer = limited_answer(evidence, POLICY, NOW)
    unwatched = replace(evidence, watch=(), cache=replace(evidence.cache, watched=False))
    assert answer == limited_answer(unwatched, POLICY, NOW)
    assert (answer.month is None) is (answer.answer is not Answer.YES)
    if decided(evidence).tone in (Tone.CAUTION, Tone.STOP) and unwatched == evidence:
        letters = [a.vehicle.status for a in (evidence.cache.answer, evidence.online.answer) if a and a.vehicle]
        assert answer.answer is not Answer.YES or any(status - INSPECTION_LETTERS for status in letters)


def with_code(evidence: Evidence, **changes: Any) -> Verdict:
    return decided(replace(evidence, code=evidence.code and replace(evidence.code, **changes)))


def an_old_trust_list_makes_no_stop_no_pass_and_no_release(example):
    evidence = example.evidence
    fresh, old = with_code(evidence, trust_as_of=NOW), with_code(evidence, trust_as_of=OLD_LIST)
    assert old.tone is not Tone.STOP or fresh.tone is Tone.STOP
    assert Action.RELEASE not in old.actions or Action.RELEASE in fresh.actions
    if Reason.TRUST_LIST_OLD in old.reasons:
        assert old.tone is not Tone.PASS
        assert Action.SYNC_NOW in old.actions
    else:
        assert old == fresh
    if trusted_identities(evidence) == {Source.CODE} and Reason.CLOCK_SUSPECT not in old.reasons:
        # What the rest of the evidence proves may stop a car, a plate that nobody but the code names may not.
        assert old.code not in (VerdictCode.WANTED, VerdictCode.EXPIRED, VerdictCode.VALID)


def an_unknown_trust_list_age_is_no_age(example):
    evidence = example.evidence
    assert with_code(evidence, trust_as_of=None) == with_code(evidence, trust_as_of=NOW)


def a_vin_that_agrees_changes_no_verdict_and_one_that_differs_stops(example):
    evidence = example.evidence
    silent, same, other = (with_code(evidence, vin_matches=matches) for matches in (None, True, False))
    assert (same.code, same.tone, same.grade) == (silent.code, silent.tone, silent.grade)
    if Action.CHECK_VIN not in silent.actions:
        assert same.actions == silent.actions
    assert same.tone is not Tone.STOP or same.actions
    if Source.CODE in trusted_identities(evidence):
        assert other.code in (VerdictCode.WANTED, VerdictCode.MISMATCH)
    else:
        assert same == other == silent


IN_ORDER = VehicleRecord(
    plate=PLATE, status=frozenset({StatusLetter.NORMAL}), inspection_valid_until=Month(2027, 8), ecred_issued=True
)


def what_the_centre_says_of_a_vin_makes_no_verdict_and_nothing_greener(example):
    evidence, online = example.evidence, example.evidence.online
    if online.state not in ANSWERS:
        online = OnlineEvidence(state=OnlineState.OK, answer=StatusAnswer(vehicle=IN_ORDER), server_time=NOW)
    silent, *told = (decided(replace(evidence, online=replace(online, vin=word))) for word in (None, *VinAnswer))
    for word, verdict in zip(VinAnswer, told, strict=True):
        assert (verdict.code, verdict.grade, verdict.plate) == (silent.code, silent.grade, silent.plate)
        assert verdict.tone in (silent.tone, Tone.CAUTION)
        assert silent.tone in (Tone.PASS, Tone.NOTE) or verdict.tone is silent.tone
        assert Action.RELEASE not in verdict.actions or Action.RELEASE in silent.actions
        if word in (VinAnswer.OTHER, VinAnswer.WANTED):
            assert verdict.tone in (Tone.CAUTION, Tone.STOP)
            assert Action.CHECK_VIN in verdict.actions


PROPERTIES = (
    no_stop_and_no_caution_releases,
    expired_takes_a_good_source_and_only_expired_is_handled,
    what_only_a_weak_identity_says_makes_no_mismatch_wanted_or_expired,
    a_wrong_signature_is_a_stop_and_nothing_else_is_called_forged,
    a_stolen_revoked_or_mismatched_car_is_never_a_pass,
    no_online_failure_makes_not_found,
    an_older_cache_makes_no_stop_of_what_a_fresher_one_allows,
    an_unreadable_code_never_changes_what_tag_or_plate_decide,
    a_record_decides_the_same_again,
    no_watch_data_changes_a_limited_answer,
    an_old_trust_list_makes_no_stop_no_pass_and_no_release,
    an_unknown_trust_list_age_is_no_age,
    a_vin_that_agrees_changes_no_verdict_and_one_that_differs_stops,
    what_the_centre_says_of_a_vin_makes_no_verdict_and_nothing_greener,
)


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda p: p.__name__)
def test_property(holds):
    for_all(COUNT, holds)


@pytest.mark.long
def test_every_property_on_200_000_random_evidences():
    """Others each time; a failure names its seed."""
    first = random.SystemRandom().getrandbits(48)
    for seed in range(first, first + LONG_COUNT):
        example = example_of(seed)
        for holds in PROPERTIES:
            try:
                holds(example)
            except AssertionError as exc:
                raise AssertionError(f"{holds.__name__}, seed {seed}: {example}") from exc


def test_the_random_evidence_reaches_every_verdict_and_passes_often_enough():
    found = []
    for_all(4000, lambda example: found.append(decided(example.evidence)))
    assert {verdict.code for verdict in found} == set(VerdictCode)
    assert sum(verdict.tone is Tone.PASS for verdict in found) > 60
