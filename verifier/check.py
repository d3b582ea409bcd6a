"""One whole check: what was seen, to a verdict, to a line in the audit log.

1  decode      bytes to SignedCredential; a bad mark is a finding, go to 3
2  verify      to VerifiedCredential; a trust failure is a finding, go on: the vehicle may still be known
3  status      what the cache says of the vehicle and of the document
4  decide      all evidence, policy and time to the verdict
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from verifier.audit import AuditLog, CheckRecord
from verifier.cache.store import GenerationInfo, StatusStore
from verifier.clock import Clock
from verifier.codec.credential import decode
from verifier.decide import decide
from verifier.errors import (
    CacheCorruptError,
    CacheError,
    CacheMissingError,
    CodeError,
    EpochKeyError,
    PolicyError,
    TrustListError,
    UntrustedError,
)
from verifier.policy import Policy, load_policy
from verifier.trust import TrustList, load_trust_list
from verifier.types import (
    CacheEvidence,
    CacheState,
    CodeEvidence,
    CodeFault,
    CodeReading,
    Credential,
    CredentialStatus,
    Evidence,
    Plate,
    PlateSeen,
    Purpose,
    SignatureState,
    StatusAnswer,
    TagAuth,
    TagEvidence,
    Verdict,
)
from verifier.verify import verify

# A credential's faults as the decision sees them (docs/decision.md, last table).
READINGS: dict[CodeFault, CodeReading] = {
    CodeFault.NOT_A_MARK: CodeReading.FOREIGN,
    CodeFault.VERSION: CodeReading.UNSUPPORTED_VERSION,
    CodeFault.OVERSIZE: CodeReading.MALFORMED,
    CodeFault.ENCODING: CodeReading.MALFORMED,
    CodeFault.COSE_SHAPE: CodeReading.MALFORMED,
    CodeFault.CBOR: CodeReading.MALFORMED,
    CodeFault.HEADER: CodeReading.MALFORMED,
    CodeFault.CLAIMS: CodeReading.MALFORMED,
}
SIGNATURES: dict[CodeFault, SignatureState] = {
    CodeFault.UNKNOWN_KEY: SignatureState.UNKNOWN_KEY,
    CodeFault.ALG_UNAVAILABLE: SignatureState.UNKNOWN_KEY,
    CodeFault.TRUST_STALE: SignatureState.UNKNOWN_KEY,
    CodeFault.KEY_COMPROMISED: SignatureState.REVOKED_KEY,
    CodeFault.KEY_RETIRED: SignatureState.REVOKED_KEY,
    CodeFault.KEY_WINDOW: SignatureState.REVOKED_KEY,
    CodeFault.JURISDICTION: SignatureState.REVOKED_KEY,
    CodeFault.ALG: SignatureState.INVALID,
    CodeFault.SIGNATURE: SignatureState.INVALID,
    CodeFault.HOLDER_KEY: SignatureState.INVALID,
}

NOTHING_READ = b""
"""The payload that stands for a code which no decoder could read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the officer's device saw: the bytes of a code (NOTHING_READ for an unreadable one), tag, plate, paper."""

    code: bytes | None = None
    tag: TagEvidence | None = None
    plate_seen: PlateSeen | None = None
    paper_displayed: bool | None = None
    purpose: Purpose = Purpose.ENFORCEMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A finished check."""

    check_id: str
    verdict: Verdict
    evidence: Evidence
    now: datetime


@dataclass(frozen=True, slots=True)
class _Rules:
    """Trust list and policy of one generation."""

    generation: str | None
    trust: TrustList
    policy: Policy


class Verifier:
    """Runs checks against one status source; it follows that source to a new generation by itself."""

    def __init__(
        self,
        status: StatusStore,
        *,
        clock: Clock,
        audit: AuditLog | None,
        software: str,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._status = status
        self._clock = clock
        self._audit = audit
        self._software = software
        self._new_id = new_id
        self._rules = _Rules(None, TrustList(()), Policy())

    def check(self, seen: Observation) -> CheckResult:
        """One check. Bad marks and a bad cache are verdicts; AuditError when the record cannot be kept."""
        now = self._clock()
        info, state = self._generation()
        code = None if seen.code is None else code_evidence(seen.code, self._rules.trust, now)
        cache = CacheEvidence(state=state) if info is None else self._look_up(info, seen, code)
        evidence = Evidence(
            code=code,
            tag=seen.tag,
            plate_seen=seen.plate_seen,
            paper_displayed=seen.paper_displayed,
            cache=cache,
            purpose=seen.purpose,
        )
        verdict = decide(evidence, self._rules.policy, now)
        result = CheckResult(check_id=self._new_id(), verdict=verdict, evidence=evidence, now=now)
        if self._audit is not None:
            self._audit.append(self._record(result, seen, info))
        return result

    def _generation(self) -> tuple[GenerationInfo | None, CacheState]:
        """The generation in use, with its trust list and policy loaded once."""
        try:
            info = self._status.info()
            if info.path.name != self._rules.generation:
                self._rules = _Rules(
                    info.path.name,
                    load_trust_list(self._status.trust_entries()),
                    load_policy(self._status.policy()),
                )
        except CacheMissingError:
            return None, CacheState.MISSING
        except (CacheError, TrustListError, PolicyError):
            return None, CacheState.CORRUPT
        return info, CacheState.OK

    def _look_up(self, info: GenerationInfo, seen: Observation, code: CodeEvidence | None) -> CacheEvidence:
        plates = _identities(seen, code)
        credential = code.credential if code and code.signature is SignatureState.VALID else None
        state, covers, document, vehicle = CacheState.OK, False, None, None
        try:
            # The list of document states is checked on its own, so it counts even where the vehicles' data fail.
            document = self._document(credential, plates)
            if plates and self._status.covers(plates[0]):
                vehicle = self._status.vehicle(plates[0])
                covers = True
        except CacheCorruptError:
            state = CacheState.CORRUPT
        except EpochKeyError:
            covers = False  # cannot say: nothing in this set can be found under the key at hand
        except CacheMissingError:
            state = CacheState.MISSING
        return CacheEvidence(
            state=state,
            as_of=info.as_of,
            scope=info.scope,
            covers=covers,
            answer=StatusAnswer(vehicle=vehicle, credential=document),
        )

    def _document(self, credential: Credential | None, plates: list[Plate]) -> CredentialStatus | None:
        if credential is None or credential.status_list is None or credential.status_index is None:
            return None
        return self._status.credential(credential.serial, credential.status_list, credential.status_index, plates)

    def _record(self, result: CheckResult, seen: Observation, info: GenerationInfo | None) -> CheckRecord:
        sources: dict[str, Any] = {"cache": None}
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
            policy=self._rules.policy,
            verdict=result.verdict,
            inputs={} if seen.code is None else {"code_sha256": hashlib.sha256(seen.code).hexdigest()},
            sources=sources,
            software=self._software,
        )


def code_evidence(payload: bytes, trust: TrustList, now: datetime) -> CodeEvidence:
    """Decode and verify the bytes of a code into evidence; never raises for what a code contains."""
    if payload == NOTHING_READ:
        return CodeEvidence(reading=CodeReading.NONE)
    try:
        verified = verify(decode(payload), trust, now)
    except CodeError as exc:
        if exc.fault in READINGS:
            return CodeEvidence(reading=READINGS[exc.fault], fault=exc.fault)
        claims = exc.claims if isinstance(exc, UntrustedError) else None
        return CodeEvidence(
            reading=CodeReading.OK,
            mode=claims.mode if claims else None,
            signature=SIGNATURES[exc.fault],
            credential=claims,
            fault=exc.fault,
        )
    return CodeEvidence(
        reading=CodeReading.OK,
        mode=verified.mode,
        signature=SignatureState.VALID,
        credential=verified.credential,
        shown_at=verified.shown_at,
        fault=verified.fault,
    )


def _identities(seen: Observation, code: CodeEvidence | None) -> list[Plate]:
    """The plates that were seen, proven ones first; the first is the vehicle to look up."""
    claims = code.credential if code else None
    proven = code is not None and code.signature is SignatureState.VALID
    ranked: list[tuple[bool, Plate]] = []
    if seen.plate_seen is not None:
        ranked.append((seen.plate_seen.confirmed, seen.plate_seen.plate))
    if seen.tag is not None:
        ranked.append((seen.tag.auth is TagAuth.OK, seen.tag.plate))
    if claims is not None:
        ranked.append((proven, claims.plate))
    return [plate for _, plate in sorted(ranked, key=lambda pair: not pair[0])]
