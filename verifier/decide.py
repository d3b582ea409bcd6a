"""The verdict: one pure function from evidence, policy and time. No clock, disk or network in here.

`verifier/facts.py` derives the facts by the rules of docs/decision.md; the table `PRECEDENCE` picks the verdict
from them; reasons, actions and tone follow.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from verifier.facts import DEREGISTERED_LETTERS, GOOD_GRADES, RECORD_GRADES, RESTRICTED_LETTERS, Facts
from verifier.policy import Policy
from verifier.types import CodeFault, CodeReading, Evidence, Source
from verifier.verdict import Action, Grade, Reason, Tone, Verdict, VerdictCode
from verifier.wording import VERDICTS

V, R, A = VerdictCode, Reason, Action

# -------------------------------------------------------------------------------------------- precedence

PRECEDENCE: tuple[tuple[VerdictCode, Callable[[Facts], bool]], ...] = (
    # danger
    (V.WANTED, lambda f: f.wanted),
    # document fraud
    (V.FORGED, lambda f: f.forged),
    (V.MISMATCH, lambda f: f.mismatch),
    (V.WATCH_CONFIRM, lambda f: f.watch_confirm),
    # vehicle facts that do not heal (R8)
    (V.DEREGISTERED, lambda f: f.record_says(DEREGISTERED_LETTERS)),
    (V.RESTRICTED, lambda f: f.record_says(RESTRICTED_LETTERS)),
    (V.OUT_OF_SCOPE, lambda f: f.out_of_scope()),
    # from here on a suspect clock forbids a verdict (R5)
    (V.UNDECIDED, lambda f: f.clock_suspect),
    (V.EXPIRED, lambda f: f.overdue is True and f.record_trusted and f.grade in GOOD_GRADES),
    # document facts
    (V.REVOKED, lambda f: f.revoked),
    (V.SUPERSEDED, lambda f: f.superseded and f.valid_by_record(RECORD_GRADES)),
    (V.NOT_YET_VALID, lambda f: f.not_yet),
    (
        V.EXPIRED_UNCONFIRMED,
        lambda f: f.overdue is True or (f.credential_month_past and not f.valid_by_record(RECORD_GRADES)),
    ),
    (V.NOT_FOUND, lambda f: f.absence_proven),
    # good news
    (V.VALID, lambda f: f.valid_by_record(GOOD_GRADES)),
    (V.VALID_STALE, lambda f: f.valid_by_record(RECORD_GRADES)),
    (V.SIGNED_ONLY, lambda f: f.credential is not None),
    # reading faults
    (V.UNTRUSTED_ISSUER, lambda f: f.key_trouble),
    (V.UNREADABLE, lambda f: f.reading in (CodeReading.NONE, CodeReading.MALFORMED)),
    (V.NOT_A_MARK, lambda f: f.reading is CodeReading.FOREIGN),
    (V.UNSUPPORTED_VERSION, lambda f: f.reading is CodeReading.UNSUPPORTED_VERSION),
    (V.UNDECIDED, lambda f: True),
)

ACTIONS: dict[VerdictCode, tuple[Action, ...]] = {
    V.WANTED: (A.CONFIRM_PLATE, A.CONFIRM_CENTRE),
    V.FORGED: (A.PRESERVE_EVIDENCE, A.ENTER_PLATE),
    V.MISMATCH: (A.CONFIRM_PLATE, A.CHECK_VIN, A.PRESERVE_EVIDENCE),
    V.WATCH_CONFIRM: (A.CONFIRM_PLATE, A.CONFIRM_CENTRE),
    V.DEREGISTERED: (A.CHECK_VIN,),
    V.RESTRICTED: (A.CONFIRM_CENTRE,),
    V.OUT_OF_SCOPE: (),
    V.EXPIRED: (A.HANDLE_OVERDUE,),
    V.REVOKED: (A.CHECK_VIN,),
    V.SUPERSEDED: (A.RELEASE, A.ASK_OWNER_REFRESH),
    V.NOT_YET_VALID: (A.ENTER_PLATE,),
    V.EXPIRED_UNCONFIRMED: (A.ONLINE_RECHECK, A.ENTER_PLATE),
    V.NOT_FOUND: (A.CONFIRM_PLATE, A.CONFIRM_CENTRE),
    V.VALID: (A.RELEASE,),
    V.VALID_STALE: (A.RELEASE, A.ONLINE_RECHECK),
    V.SIGNED_ONLY: (A.RELEASE, A.ONLINE_RECHECK),
    V.UNTRUSTED_ISSUER: (A.SYNC_NOW, A.ENTER_PLATE),
    V.UNREADABLE: (A.RESCAN, A.ENTER_PLATE),
    V.NOT_A_MARK: (A.RESCAN, A.ENTER_PLATE),
    V.UNSUPPORTED_VERSION: (A.SYNC_NOW, A.ENTER_PLATE),
    V.UNDECIDED: (A.ENTER_PLATE, A.CONFIRM_CENTRE),
}

# An action that a reason brings along, whatever the verdict.
REASON_ACTIONS: dict[Reason, Action] = {
    R.ID_WEAK: A.CONFIRM_PLATE,
    R.ID_UNCONFIRMED_MISMATCH: A.CONFIRM_PLATE,
    R.TAG_AUTH_FAILED: A.CONFIRM_PLATE,
    R.WATCH_LEAD: A.CONFIRM_CENTRE,
    R.DATA_STALE: A.SYNC_NOW,
    R.CACHE_REJECTED: A.SYNC_NOW,
    R.QR_ISSUER_UNKNOWN: A.SYNC_NOW,
    R.CREDENTIAL_OUTDATED: A.ASK_OWNER_REFRESH,
    R.TRUST_LIST_OLD: A.SYNC_NOW,
    R.VIN_MISMATCH: A.CHECK_VIN,
    R.VIN_NOT_FOUND: A.CHECK_VIN,
    R.VIN_WANTED: A.CONFIRM_CENTRE,
}

# R16: reasons that turn a pass into a note, and those that turn a pass or a note into a caution.
NOTE_REASONS = frozenset(
    {
        R.ID_WEAK,
        R.QR_NOT_LIVE,
        R.QR_ISSUER_UNKNOWN,
        R.QR_KEY_REVOKED,
        R.CREDENTIAL_OUTDATED,
        R.STATUS_NOTE,
        R.CTP_LAPSED,
        R.QR_UNREADABLE,
        R.QR_MALFORMED,
        R.TRUST_LIST_OLD,
    }
)
CAUTION_REASONS = frozenset(
    {R.ID_UNCONFIRMED_MISMATCH, R.TAG_AUTH_FAILED, R.VIN_MISMATCH, R.VIN_NOT_FOUND, R.VIN_WANTED}
)

# Verdicts beside which "not shown: no penalty" is never said (R12).
_NO_PENALTY_LINE = frozenset({V.WANTED, V.MISMATCH, V.DEREGISTERED, V.RESTRICTED})


def decide(evidence: Evidence, policy: Policy, now: datetime) -> Verdict:
    """The verdict on all that was seen. Pure: the same input gives the same verdict a year later.

    `now` is the device's clock, aware; ValueError for a naive one.
    """
    if now.tzinfo is None:
        raise ValueError("now: a time without a zone")
    facts = Facts(evidence, policy, now)
    code = _first_that_holds(facts)
    _verdict_reasons(facts, code)
    tone = _tone(facts, code)
    return Verdict(
        code=code,
        grade=facts.grade,
        tone=tone,
        findings=tuple(dict.fromkeys(facts.findings)),
        actions=_actions(facts, code, tone),
        policy=policy.label,
        plate=facts.subject,
        valid_until=facts.month,
        as_of=facts.as_of,
    )


def _first_that_holds(facts: Facts) -> VerdictCode:
    for code, holds in PRECEDENCE:
        if holds(facts):
            return code
    raise AssertionError("the last row of the table always holds")


def _verdict_reasons(facts: Facts, code: VerdictCode) -> None:
    """R9 and R14: reasons that depend on the verdict."""
    valid = facts.record_trusted and facts.valid_by_record(GOOD_GRADES) and not facts.clock_suspect
    if code in (V.FORGED, V.REVOKED) and valid:
        facts.note(R.VEHICLE_VALID, Source.RECORD)
    if code is V.SIGNED_ONLY and facts.record is not None and facts.grade not in RECORD_GRADES:
        facts.note(R.STATUS_TOO_OLD, Source.CACHE)


def _tone(facts: Facts, code: VerdictCode) -> Tone:
    """R16."""
    tone = VERDICTS[code].tone
    reasons = {finding.reason for finding in facts.findings}
    doubtful = _outside_jurisdiction(facts) or _signed_under_an_old_list(facts, code)
    if tone in (Tone.PASS, Tone.NOTE) and (reasons & CAUTION_REASONS or doubtful):
        return Tone.CAUTION
    return Tone.NOTE if tone is Tone.PASS and reasons & NOTE_REASONS else tone


def _outside_jurisdiction(facts: Facts) -> bool:
    """A listed key signed a plate it may not sign: the one withdrawn-key fault that is worth a caution."""
    code = facts.evidence.code
    return code is not None and code.fault is CodeFault.JURISDICTION


def _signed_under_an_old_list(facts: Facts, code: VerdictCode) -> bool:
    """R18: a signature is all there is, and its key may have been withdrawn long ago."""
    return code is V.SIGNED_ONLY and facts.list_old


def _actions(facts: Facts, code: VerdictCode, tone: Tone) -> tuple[Action, ...]:
    actions = list(ACTIONS[code])
    if code is V.EXPIRED and facts.grade is Grade.FRESH_CACHE:
        actions.append(A.ONLINE_RECHECK)
    if code is V.DEREGISTERED and facts.grade not in GOOD_GRADES:
        actions.append(A.CONFIRM_CENTRE)
    actions += _no_penalty(facts, code)
    actions += [REASON_ACTIONS[f.reason] for f in facts.findings if f.reason in REASON_ACTIONS]
    if _outside_jurisdiction(facts):
        actions.append(A.CONFIRM_PLATE)
    if _signed_under_an_old_list(facts, code):
        actions.append(A.ENTER_PLATE)
    if tone in (Tone.CAUTION, Tone.STOP):
        actions = [action for action in actions if action is not A.RELEASE]
    seen = facts.evidence.plate_seen
    if A.RELEASE in actions and not (seen is not None and seen.confirmed):
        # A code can be copied and a tag moved: nobody is released before the plate was compared with the car.
        actions.insert(0, A.CONFIRM_PLATE)
    if facts.vin_confirmed and A.CHECK_VIN in actions:
        # That is done; where nothing else is left to do about a stop, the centre knows more.
        actions = [action for action in actions if action is not A.CHECK_VIN] or [A.CONFIRM_CENTRE]
    return tuple(dict.fromkeys(actions))


def _no_penalty(facts: Facts, code: VerdictCode) -> list[Action]:
    """R12: the lines for a credential that was not shown and a paper mark that is not displayed."""
    actions = []
    valid = facts.valid_by_record(GOOD_GRADES) and not facts.clock_suspect
    shown = facts.credential is not None
    if valid and (not shown or code is V.REVOKED) and code not in _NO_PENALTY_LINE:
        actions.append(A.NO_PENALTY_NOT_SHOWN)
    if facts.evidence.paper_displayed is False:
        if shown or (facts.record is not None and facts.record.ecred_issued):
            actions.append(A.NO_PENALTY_NOT_DISPLAYED)
        elif facts.record is not None:
            actions.append(A.FOLLOW_LOCAL_DISPLAY_RULE)
    return actions
