"""The audit log: one record for each check, with all that `decide` needs to be run again.

A line of the file is JSON, sealed to the authority's key where there is one (docs/audit.md). It is personal data: the
file belongs to the verifier's user alone (mode 0600).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from verifier.audit_file import ChainFile, Place, digest, dump, read_lines
from verifier.clock import Clock, system_clock
from verifier.decide import decide
from verifier.errors import AuditError, EvidenceError, PolicyError
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.policy import Policy, dump_policy, load_policy
from verifier.record_level import Capture, captured
from verifier.seal import AuditKey, Session, is_sealed
from verifier.types import SHANGHAI, Evidence
from verifier.verdict import Verdict

FORMAT = 1
COUNTED = ("check", "accident")  # the kinds of records that count in the day's figures
OTHER_KINDS = ("photo", "event")  # those that hold no check


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """Who checks with which device, where and in what mode; None for what is not known.

    Time and purpose of a check stand in its evidence. `place` is in words, as the officer's area or checkpoint.
    `lookups` are the typed plates of the last hour when that was one, and `flagged` says that they are too many.
    """

    officer: str | None = None
    device: str | None = None
    place: str | None = None
    mode: str | None = None
    lookups: int | None = None
    flagged: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields, the unknown ones too."""
        by = {"officer": self.officer, "device": self.device, "place": self.place, "mode": self.mode}
        return {"by": by, "lookups": self.lookups, "flagged": self.flagged}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecord:
    """One check as it is logged. `inputs` holds SHA-256 digests of the raw inputs, `sources` what answered."""

    check_id: str
    evidence: Evidence
    now: datetime
    policy: Policy
    verdict: Verdict
    inputs: dict[str, str]
    sources: dict[str, Any]
    software: str
    context: CheckContext = field(default_factory=lambda: CheckContext())

    def to_json(self) -> dict[str, Any]:
        """The record without its place in the chain."""
        return {
            "v": FORMAT,
            "kind": "check",
            "id": self.check_id,
            "software": self.software,
            **self.context.to_json(),
            "policy": json.loads(dump_policy(self.policy)),
            "sources": self.sources,
            "inputs": self.inputs,
            "evidence": evidence_to_json(self.evidence, self.now),
            "verdict": verdict_to_json(self.verdict),
        }


def accident_json(accident_id: str, a: CheckRecord, b: CheckRecord) -> dict[str, Any]:
    """The one record of two vehicles that met."""
    return {"v": FORMAT, "kind": "accident", "id": accident_id, "a": a.to_json(), "b": b.to_json()}


def checks_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks in a record: one, the two of an accident, or none; AuditError when they are no objects."""
    if is_sealed(entry):
        raise AuditError("audit record: it is sealed; 'markcheck audit open' opens it with the authority's key")
    if entry.get("kind") in OTHER_KINDS:
        return []
    checks = [entry.get("a"), entry.get("b")] if entry.get("kind") == "accident" else [entry]
    if not all(isinstance(check, dict) for check in checks):
        raise AuditError("audit record: an accident without its two checks")
    return [check for check in checks if isinstance(check, dict)]


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict by its codes."""
    return {
        "verdict": verdict.code.value,
        "grade": verdict.grade.value,
        "tone": verdict.tone.value,
        "reasons": [reason.value for reason in verdict.reasons],
        "actions": [action.value for action in verdict.actions],
        "plate": verdict.plate.text if verdict.plate else None,
        "plate_kind": verdict.plate.kind if verdict.plate else None,
        "valid_until": str(verdict.valid_until) if verdict.valid_until else None,
        "as_of": verdict.as_of.isoformat() if verdict.as_of else None,
        "policy": verdict.policy,
    }


class RecordLog(Protocol):
    """What keeps records."""

    def append(self, record: dict[str, Any]) -> None:
        """Keep one for good; AuditError when that fails."""


class AuditLog:
    """Appends records to a file; each line carries the hash of the line before it. Used by several threads.

    With a key each record is sealed to it: what can be read here any more is its day and its verdicts' codes. `usual`
    is how much is kept of a check that found nothing, `stop` of one that did.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: AuditKey | None = None,
        clock: Clock = system_clock,
        usual: Capture = Capture.IDENTITIES,
        stop: Capture = Capture.FULL,
    ) -> None:
        self.key = key
        self._file = ChainFile(path)
        self._clock, self._levels = clock, (usual, stop)
        self._session: Session | None = None
        self._lock = threading.Lock()

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and see it to the disk; AuditError when that fails."""
        record = captured(record, *self._levels)
        readable = {"day": self._clock().astimezone(SHANGHAI).date().isoformat()}
        with self._lock:
            written = False
            try:
                self._file.append(lambda place: self._lines(place, record, readable))
                written = True
            except OSError as exc:
                raise AuditError(f"audit log: cannot be written: {exc.strerror}") from exc
            finally:
                if not written:
                    self._session = None  # one of its keys may be used: a session ends with the first failure

    def _lines(self, place: Place, record: dict[str, Any], readable: dict[str, Any]) -> list[bytes]:
        if self.key is None:
            if place.sealed:
                raise AuditError("audit log: it is a sealed one, and its key is missing")
            return [dump(place.previous, {**readable, **record})]
        lines, previous, session = [], place.previous, self._session
        if session is None or session.day != readable["day"]:  # of its own for each day: days are purged one by one
            session = self._session = Session(self.key, previous, readable["day"])
            lines = [dump(previous, session.opening)]
            previous = digest(lines[0])
        plain = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        sealed = session.seal(plain, {**readable, "codes": _codes(record)}, previous)
        lines.append(dump(previous, sealed))
        return lines


def _codes(record: dict[str, Any]) -> list[str]:
    """The verdicts that count in the day's figures; later words on a check do not count again."""
    if record.get("kind") not in COUNTED:
        return []
    return [check.get("verdict", {}).get("verdict", "") for check in checks_of(record)]


class NoAuditLog:
    """In the place of a log that cannot be had: keeps nothing, and says why each time."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def append(self, record: dict[str, Any]) -> None:
        """AuditError."""
        del record
        raise AuditError(self._problem)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The records in order; AuditError names the first line that is not chained to the one before.

    A line that is no record (a power cut may leave half of one) counts in the chain and is given as {"unreadable": its
    number}.
    """
    for line in read_lines(path):
        yield {"unreadable": line.number} if line.entry is None else line.entry


def replay(check: dict[str, Any], policies: Mapping[str, Policy] = MappingProxyType({})) -> tuple[Verdict, bool]:
    """Decide again from one check's record alone: the verdict, and whether it is the recorded one.

    A record that names its policy without holding it takes it from `policies` (by label). AuditError names what is
    missing.
    """
    evidence, now, policy = recorded(check, policies)
    verdict = decide(evidence, policy, now)
    return verdict, verdict_to_json(verdict) == check.get("verdict")


def recorded(
    check: dict[str, Any], policies: Mapping[str, Policy] = MappingProxyType({})
) -> tuple[Evidence, datetime, Policy]:
    """Evidence, time and policy of one check's record; AuditError names what is missing."""
    try:
        evidence, now = evidence_from_json(check.get("evidence"))
        return evidence, now, _policy(check.get("policy"), policies)
    except (EvidenceError, PolicyError) as exc:
        raise AuditError(f"audit record: {exc}") from exc


def _policy(named: object, policies: Mapping[str, Policy]) -> Policy:
    if isinstance(named, str):
        if named not in policies:
            raise PolicyError(f"policy {named[:50]!r} is missing")
        return policies[named]
    return load_policy(json.dumps(named).encode())
