"""Those who are not the police get yes, no or unknown and the month (S21 to S23, J5)."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest

from tests.test_decide import NOW, OTHER, POLICY, SEEN, cache, code, record
from verifier.roles import (
    GATE_LINES,
    LINES,
    NO_DATA,
    VALID_UNTIL,
    Answer,
    LimitedAnswer,
    answer_lines,
    limited_answer,
)
from verifier.types import (
    CredentialState,
    Evidence,
    Month,
    SignatureState,
    Source,
    StatusLetter,
    TagAuth,
    TagEvidence,
    WatchHit,
)
from verifier.verdict import Role, View


def answer_of(**evidence) -> LimitedAnswer:
    return limited_answer(Evidence(**evidence), POLICY, NOW)


def test_a_limited_answer_has_nothing_but_answer_month_and_date():
    assert {field.name for field in fields(LimitedAnswer)} == {"answer", "month", "as_of", "age", "policy"}


def test_an_insurer_reads_the_month():
    answer = answer_of(code=code(), cache=cache(record()))
    assert (answer.answer, answer.month) == (Answer.YES, Month(2027, 8))
    line, date = answer_lines(answer, Role.INSURER)
    assert line == ("检验有效至2027年08月", "VALID TO 2027-08")
    assert (date, answer.age) == (("数据2026-08-20", "DATA 2026-08-20"), (timedelta(hours=8), False))


def test_a_gate_reads_pass_first():
    answer = answer_of(plate_seen=SEEN, cache=cache(record()))
    assert [line.zh for line in answer_lines(answer, Role.GATE)] == [
        "可通行", "检验有效至2027年08月", "数据2026-08-20",
    ]  # fmt: skip
    overdue = answer_of(plate_seen=SEEN, cache=cache(record(inspection_valid_until=Month(2026, 5))))
    assert (overdue.answer, overdue.month) == (Answer.NO, None)
    assert [line.en for line in answer_lines(overdue, Role.GATE)] == [
        "SEE ATTENDANT", "NOT VALID", "DATA 2026-08-20",
    ]  # fmt: skip


def test_every_limited_answer_says_how_old_its_data_are_or_that_there_are_none():
    nothing = answer_of(plate_seen=SEEN)
    assert (nothing.age, answer_lines(nothing, Role.RENTAL)[-1]) == (None, ("无数据", "NO DATA"))
    suspect = Evidence(plate_seen=SEEN, cache=cache(record(status="E")), clock_trusted=False)
    told = limited_answer(suspect, POLICY, NOW, earliest=NOW - timedelta(hours=3))
    assert (told.answer, told.age) == (Answer.NO, (timedelta(hours=5), True))


@pytest.mark.parametrize("letters", ["C", "J", "N", "K", "L", "D", "G", "O", "B", "CK"])
def test_watch_data_and_other_letters_never_show_through(letters):
    hit = WatchHit(basis=Source.PLATE_SEEN, kind="stolen", as_of=NOW - timedelta(hours=1))
    plain = answer_of(plate_seen=SEEN, cache=cache(record()))
    assert answer_of(plate_seen=SEEN, cache=cache(record(status=letters)), watch=(hit,)) == plain


def test_a_wanted_vehicle_with_the_same_text_never_shows_through():
    """A limited role learns neither from the answer nor from its date that such a vehicle is on the watch list."""
    nothing = cache(None, covers=False)
    plain = answer_of(plate_seen=SEEN, cache=nothing)
    assert answer_of(plate_seen=SEEN, cache=replace(nothing, watched=True)) == plain


def test_a_question_about_the_document_is_no_fact_of_the_vehicle():
    forged = code(signature=SignatureState.INVALID)
    assert answer_of(code=forged, plate_seen=SEEN, cache=cache(record())).answer is Answer.UNKNOWN
    revoked = cache(record(), state=CredentialState.REVOKED)
    assert answer_of(code=code(), cache=revoked).answer is Answer.UNKNOWN
    unknown = code(signature=SignatureState.UNKNOWN_KEY)
    assert answer_of(code=unknown).answer is Answer.UNKNOWN


def test_reads_that_differ_are_never_a_yes():
    other_car = TagEvidence(auth=TagAuth.UNSUPPORTED, tid="E280", plate=OTHER)
    assert answer_of(plate_seen=SEEN, tag=other_car, cache=cache(record())).answer is Answer.UNKNOWN


def test_a_deregistered_vehicle_is_a_no():
    assert answer_of(plate_seen=SEEN, cache=cache(record(status="E"))).answer is Answer.NO


def test_lines_fit_the_panel():
    for text in [*LINES.values(), *GATE_LINES.values(), NO_DATA]:
        assert len(text.zh) <= 8
        assert len(text.en) <= 16
    assert len(VALID_UNTIL.en.format(Month(2027, 8))) == 16


def test_the_policy_says_who_sees_what():
    views = {role: POLICY.view(role) for role in Role}
    assert views[Role.OFFICER] is views[Role.AUDITOR] is View.FULL
    assert views[Role.TECHNICIAN] is View.NONE
    assert {views[role] for role in (Role.INSURER, Role.RENTAL, Role.GATE)} == {View.LIMITED}


def test_letters_that_concern_the_inspection_still_count():
    late = record(status={StatusLetter.NORMAL, StatusLetter.OVERDUE})
    assert answer_of(plate_seen=SEEN, cache=cache(late)).answer is Answer.NO
