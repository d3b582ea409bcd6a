"""What those who are not the police may learn of a check: in validity or not, and the month (S21 to S23, J5).

A limited answer is decided on evidence without watch data and without any status letter that does not concern the
inspection, so nothing of them can show through, in the answer, its tone or its timing on the screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from verifier.decide import decide
from verifier.facts import DEREGISTERED_LETTERS
from verifier.policy import Policy
from verifier.types import SHANGHAI, CacheEvidence, Code, Evidence, Month, OnlineEvidence, StatusAnswer, StatusLetter
from verifier.verdict import Age, Role, Tone, VerdictCode
from verifier.wording import Text

V = VerdictCode

INSPECTION_LETTERS = DEREGISTERED_LETTERS | {StatusLetter.NORMAL, StatusLetter.OVERDUE}


class Duty(Code):
    """What somebody may do with a handheld."""

    CHECK = "check"  # look at a vehicle by its code, its tag or a typed plate
    VERDICT = "verdict"  # see the whole verdict; who checks without it gets the limited answer
    ACCIDENT = "accident"
    CHECKPOINT = "checkpoint"
    HISTORY = "history"
    UPKEEP = "upkeep"  # sync, self-test, network


_LIMITED = frozenset({Duty.CHECK})

DUTIES: Mapping[Role, frozenset[Duty]] = MappingProxyType(
    {
        Role.OFFICER: frozenset(Duty),
        Role.TECHNICIAN: frozenset({Duty.UPKEEP}),
        Role.AUDITOR: frozenset({Duty.HISTORY, Duty.VERDICT}),
        Role.INSURER: _LIMITED,
        Role.RENTAL: _LIMITED,
        Role.GATE: _LIMITED,
    }
)
"""What each role may do. The policy in force may take the whole verdict from a role, and never gives it one."""


class Answer(StrEnum):
    """A limited answer."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


ANSWERS: dict[VerdictCode, Answer] = {
    V.VALID: Answer.YES,
    V.VALID_STALE: Answer.YES,
    V.SUPERSEDED: Answer.YES,
    V.EXPIRED: Answer.NO,
    V.DEREGISTERED: Answer.NO,
}
"""Facts of the vehicle only. Every other verdict is UNKNOWN, those on a document included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedAnswer:
    """All that a limited role gets; `month` only with a yes, `as_of` and `age` tell how old the data behind it are."""

    answer: Answer
    month: Month | None
    as_of: datetime | None
    policy: str
    age: Age | None


def limited_answer(
    evidence: Evidence, policy: Policy, now: datetime, *, earliest: datetime | None = None
) -> LimitedAnswer:
    """Decide for a limited role; `earliest` is the moment by which a suspect clock's ages are told (`now` if None)."""
    verdict = decide(_inspection_only(evidence), policy, now)
    answer = ANSWERS.get(verdict.code, Answer.UNKNOWN)
    if answer is Answer.YES and verdict.tone not in (Tone.PASS, Tone.NOTE):
        answer = Answer.UNKNOWN  # the vehicle of the record may not be the one that stands there
    return LimitedAnswer(
        answer=answer,
        month=verdict.valid_until if answer is Answer.YES else None,
        as_of=verdict.as_of,
        policy=verdict.policy,
        age=verdict.age(earliest or now),
    )


def _inspection_only(evidence: Evidence) -> Evidence:
    cache: CacheEvidence = replace(evidence.cache, answer=_without_other_letters(evidence.cache.answer), watched=False)
    online: OnlineEvidence = replace(evidence.online, answer=_without_other_letters(evidence.online.answer))
    return replace(evidence, cache=cache, online=online, watch=())


def _without_other_letters(answer: StatusAnswer | None) -> StatusAnswer | None:
    if answer is None or answer.vehicle is None:
        return answer
    vehicle = answer.vehicle
    return replace(answer, vehicle=replace(vehicle, status=vehicle.status & INSPECTION_LETTERS, ctp_until=None))


# ------------------------------------------------------------------------------------------------- wording

VALID_UNTIL = Text("检验有效至{0.year:04d}年{0.month:02d}月", "VALID TO {0}")
LINES: dict[Answer, Text] = {
    Answer.YES: Text("检验有效", "VALID"),
    Answer.NO: Text("不在有效期", "NOT VALID"),
    Answer.UNKNOWN: Text("未能核实", "NOT CONFIRMED"),
}
NO_DATA = Text("无数据", "NO DATA")
GATE_LINES: dict[Answer, Text] = {
    Answer.YES: Text("可通行", "PASS"),
    Answer.NO: Text("请人工核验", "SEE ATTENDANT"),
    Answer.UNKNOWN: Text("请人工核验", "SEE ATTENDANT"),
}


def answer_lines(answer: LimitedAnswer, role: Role) -> tuple[Text, ...]:
    """The words for a limited role: the answer (for a gate two lines), and the date of the data behind it.

    A date and no age: it is right under any clock.
    """
    month = answer.month
    line = LINES[answer.answer]
    if month is not None:
        line = Text(VALID_UNTIL.zh.format(month), VALID_UNTIL.en.format(month))
    lines = (line, _date(answer.as_of))
    return (GATE_LINES[answer.answer], *lines) if role is Role.GATE else lines


def _date(as_of: datetime | None) -> Text:
    if as_of is None:
        return NO_DATA
    local = as_of.astimezone(SHANGHAI)
    return Text(f"数据{local:%Y-%m-%d}", f"DATA {local:%Y-%m-%d}")
