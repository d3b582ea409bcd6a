"""One whole check: what was seen, to a verdict, to a line in the audit log.

1  decode      bytes to SignedCredential; a bad mark is a finding, go to 3
2  verify      to VerifiedCredential; a trust failure is a finding, go on: the vehicle may still be known
3  status      what the cache says of the vehicle and of the document
4  decide      all evidence, policy and time to the verdict
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from verifier.adapters import cache_evidence, code_evidence, registered_tag, tag_evidence, tag_is_watched
from verifier.audit import CheckContext, CheckRecord, RecordLog, accident_json
from verifier.cache.keys import CARD_DIGITS
from verifier.cache.store import GenerationInfo, StatusStore
from verifier.clock import Clock
from verifier.decide import decide
from verifier.errors import (
    AuditError,
    CacheError,
    CacheMissingError,
    PolicyError,
    TrustListError,
)
from verifier.lookups import Lookups
from verifier.online import Standing
from verifier.plates import confusable_plates, kinds_of
from verifier.policy import Policy, load_policy
from verifier.trust import TrustList, load_trust_list
from verifier.trusted_time import TrustedTime
from verifier.types import (
    CacheEvidence,
    CacheState,
    CodeEvidence,
    Credential,
    Evidence,
    OnlineEvidence,
    Plate,
    PlateSeen,
    PresentationMode,
    Purpose,
    SignatureState,
    TagAuth,
    TagEvidence,
    TagLevel,
    TagRecord,
    TagSeen,
    TagSuspicion,
    WatchHit,
    same_plate,
)
from verifier.verdict import LOUD, Action, Age, Verdict, VerdictCode
from verifier.vin import Vin


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the officer's device saw: the bytes of a code (NOTHING_READ for an unreadable one), tag, plate, paper.

    `vin` is the one on the car, as typed: compared with the code and by the centre, its text kept nowhere. `card` is
    the number on the card of its tag, as `read_card` gives it, typed with the plate because its code cannot be read.
    `watch` is what a list of this place says of the car.
    """

    code: bytes | None = None
    tag: TagEvidence | None = None
    plate_seen: PlateSeen | None = None
    paper_displayed: bool | None = None
    vin: Vin | None = field(default=None, repr=False)
    card: str = field(default="", repr=False)
    watch: tuple[WatchHit, ...] = ()
    purpose: Purpose = Purpose.ENFORCEMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A finished check."""

    check_id: str
    verdict: Verdict
    evidence: Evidence
    now: datetime
    policy: Policy
    remarks: tuple[str, ...] = ()  # for the technician: what could not be used
    similar: tuple[Plate, ...] = ()  # plates in the data that a typed one may be mistaken for
    earliest: datetime  # the earliest that it can have been: `now`, or what a clock under suspicion leaves of it
    late: bool = False  # whether this is the check once more, with what the centre said after it
    officer: str | None = None  # who checked, if somebody was logged in

    @property
    def plates(self) -> tuple[Plate, ...]:
        """The plates that were seen, proven ones first; the first is the vehicle that was looked up."""
        return tuple(_identities(self.evidence, self.evidence.code))

    @property
    def age(self) -> Age | None:
        """How old the status data are, None without any; the least that they can be under a suspect clock."""
        return self.verdict.age(self.earliest)

    @property
    def credential(self) -> Credential | None:
        """The proven credential, whose claims may be compared with the car; None for a code that proves nothing."""
        return _proven(self.evidence.code)

    @property
    def mode(self) -> PresentationMode | None:
        """How the proven credential was shown; None for a code that proves nothing, or where a record does not tell."""
        code = self.evidence.code
        return code.mode if code is not None and _proven(code) is not None else None

    @property
    def plate_to_confirm(self) -> Plate | None:
        """The plate that an officer has yet to compare with the car's; None where he has, or need not."""
        asked, seen = self.verdict.plate, self.evidence.plate_seen
        if asked is None or Action.CONFIRM_PLATE not in self.verdict.actions:
            return None
        return None if seen is not None and seen.confirmed and same_plate(seen.plate, asked) else asked


@dataclass(frozen=True, slots=True)
class _Rules:
    """Trust list and policy in force, and what was refused of the generation they were to come from."""

    generation: str | None
    trust: TrustList
    policy: Policy
    remarks: tuple[str, ...]
    trust_as_of: datetime | None = None  # the moment that list describes


_NO_VIN = "VIN: not compared; there is no proven credential and no word of the centre, or it seems to be mistyped"
_CARD_CHARACTERS = frozenset("0123456789ABCDEF")
_MAX_CARD_INPUT = 24  # characters, before the gaps are taken out
_TRIES = 3  # generations that may come and go during one check


class Verifier:
    """Runs checks against one status source; it follows that source to a new generation by itself.

    `time` tells whether the clock can be believed; without it only the data in use contradict a clock. `context` says
    who checks, as each record has it; `lookups` counts typed plates.
    """

    def __init__(
        self,
        status: StatusStore,
        *,
        clock: Clock,
        audit: RecordLog | None,
        software: str,
        time: TrustedTime | None = None,
        context: Callable[[], CheckContext] = CheckContext,
        lookups: Lookups | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._status = status
        self._clock = clock
        self._audit = audit
        self._software = software
        self._time = time
        self._context, self._lookups = context, lookups
        self._new_id = new_id
        self._rules = _Rules(None, TrustList(()), Policy(), ())

    def check(self, seen: Observation) -> CheckResult:
        """One check. Bad marks and a bad cache are verdicts; what could not be used or kept is in `remarks`."""
        result, record = self._run(seen)
        return _remarked(result, self._keep(record.to_json()))

    def look_at(self, tag: TagSeen) -> TagEvidence:
        """What is known of a tag in the field, for a list of them: looked up, not judged and not recorded."""
        now, (info, _) = self._clock(), self._generation()
        evidence = tag_evidence(tag, self._rules.trust, now)
        return evidence if info is None else registered_tag(evidence, self._status, (), None)

    def upgrade(self, result: CheckResult, online: OnlineEvidence, sources: dict[str, Any]) -> CheckResult:
        """The same check with what the centre said of it, decided and recorded anew under its own number.

        `sources` tells the record where that came from. May be called from another thread than `check`.
        """
        vin = online.vin or result.evidence.online.vin  # asked for once: a later answer knows nothing of it
        evidence = replace(result.evidence, online=replace(online, vin=vin))
        verdict = decide(evidence, result.policy, result.now)
        similar = result.similar if verdict.code is VerdictCode.NOT_FOUND else ()
        told = () if vin is None else (_NO_VIN,)
        remarks = tuple(remark for remark in result.remarks if remark not in told)
        late = replace(result, evidence=evidence, verdict=verdict, similar=similar, remarks=remarks, late=True)
        record = CheckRecord(
            check_id=late.check_id, evidence=evidence, now=late.now, policy=late.policy, verdict=verdict,
            inputs={}, sources=sources, software=self._software,
            context=replace(self._context(), officer=late.officer),  # another one may hold the device by now
        )  # fmt: skip
        return _remarked(late, self._keep({**record.to_json(), "kind": "upgrade"}))

    def standing(self) -> Standing | None:
        """What the device has, and by what it judges an answer of the centre; None without a set in use.

        May be called from another thread than `check`, so it leaves the rules of the check in hand alone.
        """
        try:
            info = self._status.info()
            rules = self._rules
            if info.path.name != rules.generation:
                rules = _new_rules(rules, info, self._status)
        except CacheError:
            return None
        # What the hot list knows, an answer from before it must not take back.
        as_of = max(info.as_of, info.hot_as_of or info.as_of)
        return Standing(trust=rules.trust, as_of=as_of, seq=info.seq, hot_seq=info.hot_seq or 0)

    def check_pair(self, a: Observation, b: Observation) -> tuple[CheckResult, CheckResult]:
        """Two vehicles of one accident (自行协商), checked one after the other and kept in one record."""
        (result_a, record_a), (result_b, record_b) = self._run(a), self._run(b)
        remarks = self._keep(accident_json(self._new_id(), record_a, record_b))
        return _remarked(result_a, remarks), _remarked(result_b, remarks)

    def _run(self, seen: Observation) -> tuple[CheckResult, CheckRecord]:
        now = self._clock()
        doubts = () if self._time is None else self._time.doubts(now)
        info, evidence = self._gather(seen, now)
        evidence, verdict = self._decided(replace(evidence, clock_trusted=not doubts), seen, now)
        result = CheckResult(
            check_id=self._new_id(),
            verdict=verdict,
            evidence=evidence,
            now=now,
            policy=self._rules.policy,
            remarks=(*self._rules.remarks, *_not_compared(seen, evidence.code), *(f"clock: {d}" for d in doubts)),
            similar=self._similar(verdict, seen),
            earliest=now if self._time is None or not doubts else self._time.earliest(now),
            officer=self._context().officer,
        )
        return result, self._record(result, seen, info)

    def _decided(self, evidence: Evidence, seen: Observation, now: datetime) -> tuple[Evidence, Verdict]:
        """A card that the data do not give to the typed plate speaks for no car: nothing good is told of that plate.

        What its record has against it stays said. Whoever mistyped the number is told that nothing is known.
        """
        verdict = decide(evidence, self._rules.policy, now)
        plate, cache = evidence.plate_seen, evidence.cache
        known = evidence.tag is not None and evidence.tag.record is TagRecord.BOUND
        if not seen.card or known or plate is None or (verdict.tone in LOUD and _has_record(cache)):
            return evidence, verdict
        # Where the data could have given it, the doubt stays in the evidence: the centre is not asked about cards.
        doubt = TagEvidence(auth=TagAuth.UNSUPPORTED, tid="", plate=None, suspicions=(TagSuspicion.OTHER_CARD,))
        unknown = replace(
            evidence, plate_seen=replace(plate, confirmed=False), cache=replace(cache, covers=False, answer=None),
            tag=evidence.tag or (doubt if cache.state is CacheState.OK and cache.covers else None),
        )  # fmt: skip
        return unknown, decide(unknown, self._rules.policy, now)

    def _gather(self, seen: Observation, now: datetime) -> tuple[GenerationInfo | None, Evidence]:
        """All evidence, from one generation: a sync may put another one into use at any moment."""
        for _ in range(_TRIES):
            info, state = self._generation()
            code, tag = self._code(seen, now), self._tag(seen.tag, now)
            if info is None:
                cache = CacheEvidence(state=state)
                break
            tag = self._registered(tag, seen, code)
            cache = cache_evidence(self._status, info, _identities(replace(seen, tag=tag), code), _proven(code))
            if tag is not None and tag_is_watched(self._status, tag):
                cache = replace(cache, watched=True)
            if self._generation()[0] == info:
                break
        evidence = Evidence(
            code=code,
            tag=tag and replace(tag, seen=None),
            plate_seen=seen.plate_seen,
            paper_displayed=seen.paper_displayed,
            cache=cache,
            watch=seen.watch,
            purpose=seen.purpose,
        )
        return info, evidence

    def _tag(self, tag: TagEvidence | None, now: datetime) -> TagEvidence | None:
        """What was read of a tag, judged by the rules of this moment."""
        return tag if tag is None or tag.seen is None else tag_evidence(tag.seen, self._rules.trust, now)

    def _registered(self, tag: TagEvidence | None, seen: Observation, code: CodeEvidence | None) -> TagEvidence | None:
        if tag is None and seen.card and seen.plate_seen is not None:
            return card_evidence(seen.card, seen.plate_seen.plate, self._status)
        if tag is None or tag.seen is None:
            return tag
        others = _identities(replace(seen, tag=None), code)
        return registered_tag(tag, self._status, others, _proven(code))

    def _code(self, seen: Observation, now: datetime) -> CodeEvidence | None:
        if seen.code is None:
            return None
        rules = self._rules
        return code_evidence(seen.code, rules.trust, now, trust_as_of=rules.trust_as_of, vin=seen.vin)

    def _generation(self) -> tuple[GenerationInfo | None, CacheState]:
        """The generation in use, with its trust list and policy loaded once."""
        try:
            info = self._status.info()
            if info.path.name != self._rules.generation:
                self._rules = _new_rules(self._rules, info, self._status)
        except CacheMissingError:
            return None, CacheState.MISSING
        except CacheError:
            return None, CacheState.CORRUPT
        return info, CacheState.OK

    def _similar(self, verdict: Verdict, seen: Observation) -> tuple[Plate, ...]:
        """F5: a typed plate that is not found may have a mistaken character."""
        if verdict.code is not VerdictCode.NOT_FOUND or seen.plate_seen is None:
            return ()
        try:
            return tuple(p for p in confusable_plates(seen.plate_seen.plate) if self._status.vehicle(p) is not None)
        except CacheError:
            return ()  # a hint is not worth more than that

    def _record(self, result: CheckResult, seen: Observation, info: GenerationInfo | None) -> CheckRecord:
        sources: dict[str, Any] = {"cache": None, "remarks": list(result.remarks)}
        if info is not None:
            age = result.now - info.as_of
            sources["cache"] = {
                "generation": info.path.name,
                "as_of": info.as_of.isoformat(),
                "age_s": int(age.total_seconds()),
            }
        return CheckRecord(
            check_id=result.check_id,
            evidence=result.evidence,
            now=result.now,
            policy=result.policy,
            verdict=result.verdict,
            inputs=_digests(seen),
            sources=sources,
            software=self._software,
            context=self._counted(seen, result),
        )

    def _counted(self, seen: Observation, result: CheckResult) -> CheckContext:
        """Who checks; a plate that was typed with nothing else that names a car counts as a look-up (I8)."""
        context = replace(self._context(), officer=result.officer)
        typed = seen.plate_seen is not None and seen.plate_seen.source == "officer"
        code = result.evidence.code
        if self._lookups is None or not typed or seen.tag is not None or (code is not None and code.credential):
            return context
        found = self._lookups.note(context.officer, result.now, result.policy.lookups_per_hour)
        return replace(context, lookups=found.count, flagged=found.flagged)

    def _keep(self, entry: dict[str, Any]) -> tuple[str, ...]:
        """Record a check. One that cannot be recorded is shown all the same: the officer stands in the road."""
        try:
            if self._audit is not None:
                self._audit.append(entry)
        except AuditError as exc:
            return (f"{exc}; this check is not recorded",)
        return ()


def read_card(text: str) -> str:
    """The number on a tag's card, as printed or without its gaps, in one form. ValueError for anything else."""
    number = "".join(text.split()).upper()
    if len(text) > _MAX_CARD_INPUT or len(number) != CARD_DIGITS or not set(number) <= _CARD_CHARACTERS:
        raise ValueError(f"card: a number has {CARD_DIGITS} digits, each 0 to 9 or A to F")
    return number


def card_evidence(card: str, plate: Plate, store: StatusStore) -> TagEvidence | None:
    """The tag whose card it is, where the data have it on this plate's vehicle; None tells nothing."""
    for kind in (plate.kind,) if plate.kind is not None else kinds_of(plate.text):
        of = Plate(plate.text, kind)
        try:
            if store.vehicle_by_card(card, of) is not None:
                return TagEvidence(
                    auth=TagAuth.UNSUPPORTED, tid="", plate=of, level=TagLevel.BOUND, record=TagRecord.BOUND
                )  # fmt: skip
        except CacheError:
            return None
    return None


def _has_record(cache: CacheEvidence) -> bool:
    return cache.answer is not None and cache.answer.vehicle is not None


def _remarked(result: CheckResult, remarks: tuple[str, ...]) -> CheckResult:
    return replace(result, remarks=result.remarks + remarks) if remarks else result


def _digests(seen: Observation) -> dict[str, str]:
    """SHA-256 of what was read: a code's bytes; of a tag TID, EPC and user memory, each behind its length."""
    inputs = {}
    if seen.code is not None:
        inputs["code_sha256"] = hashlib.sha256(seen.code).hexdigest()
    if seen.card:
        inputs["card_sha256"] = hashlib.sha256(seen.card.encode()).hexdigest()
    if seen.tag is not None and seen.tag.seen is not None:
        banks = (seen.tag.seen.tid or b"", seen.tag.seen.epc, seen.tag.seen.user or b"")
        joined = b"".join(len(bank).to_bytes(4) + bank for bank in banks)
        inputs["tag_sha256"] = hashlib.sha256(joined).hexdigest()
    return inputs


def _not_compared(seen: Observation, code: CodeEvidence | None) -> tuple[str, ...]:
    if seen.vin is None or (code is not None and code.vin_matches is not None):
        return ()
    return (_NO_VIN,)


def _new_rules(old: _Rules, info: GenerationInfo, status: StatusStore) -> _Rules:
    """Trust list and policy of a new generation; one that is not usable leaves the last good one in force."""
    trust, trust_as_of, policy, remarks = old.trust, old.trust_as_of, old.policy, []
    try:
        trust, trust_as_of = load_trust_list(status.trust_entries()), info.trust_as_of
    except TrustListError as exc:
        remarks.append(f"{exc}; the last good list stays in force")
    try:
        policy = load_policy(status.policy())
    except PolicyError as exc:
        remarks.append(f"{exc}; policy {old.policy.label} stays in force")
    return _Rules(info.path.name, trust, policy, tuple(remarks), trust_as_of)


def _proven(code: CodeEvidence | None) -> Credential | None:
    """The credential whose signature verified, and no other."""
    return code.credential if code is not None and code.signature is SignatureState.VALID else None


def _identities(seen: Observation | Evidence, code: CodeEvidence | None) -> list[Plate]:
    """The plates that were seen, proven ones first; the first is the vehicle to look up."""
    proven, claims = _proven(code), code.credential if code else None
    ranked: list[tuple[bool, Plate]] = []
    if seen.plate_seen is not None:
        ranked.append((seen.plate_seen.confirmed, seen.plate_seen.plate))
    # Before the tag, whose certificate may name the plate of before a re-plating: whether that is so, `Facts` says.
    if proven is not None:
        ranked.append((True, proven.plate))
    if seen.tag is not None and seen.tag.plate is not None:
        ranked.append((seen.tag.auth is TagAuth.OK, seen.tag.plate))
    if proven is None and claims is not None:
        ranked.append((False, claims.plate))
    plates = [plate for _, plate in sorted(ranked, key=lambda pair: not pair[0])]
    return [_with_kind(plate, plates) for plate in plates]


def _with_kind(plate: Plate, others: Sequence[Plate]) -> Plate:
    """A plate whose kind was not given has that of another read of the same text."""
    return plate if plate.kind is not None else next((p for p in others if p.text == plate.text and p.kind), plate)
