"""The audit log: one line for each check, chained by hashes, with all that `decide` needs to be run again.

A line is JSON. It is personal data: the file belongs to the verifier's user alone (mode 0600).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from verifier.decide import decide
from verifier.errors import AuditError, EvidenceError, PolicyError
from verifier.evidence import evidence_from_json, evidence_to_json
from verifier.policy import Policy, dump_policy, load_policy
from verifier.types import Evidence
from verifier.verdict import Verdict

FORMAT = 1
_FIRST = "0" * 64  # what the first line names as its predecessor
_TAIL = 256 * 1024  # bytes; longer than any line
_ID = re.compile(rb'"id":"([0-9A-Za-z_.-]{1,64})"')  # the first in a line is the record's own


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

    def to_json(self) -> dict[str, Any]:
        """The record without its place in the chain."""
        return {
            "v": FORMAT,
            "kind": "check",
            "id": self.check_id,
            "software": self.software,
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
    """The checks in a record: one, or the two of an accident; AuditError when they are no objects."""
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


class AuditLog:
    """Appends records to a file; each line carries the hash of the line before it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Write one record as a line and see it to the disk; AuditError when that fails."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as exc:
            raise AuditError(f"audit log: cannot be opened: {exc.strerror}") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            line, broken_tail = _last_line(descriptor)
            entry = {"prev": _digest(line) if line else _FIRST, **record}
            data = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            # A line that a power cut left unfinished stays as it is, on a line of its own.
            _write_whole(descriptor, b"\n" + data if broken_tail else data)
            os.fsync(descriptor)
        except OSError as exc:
            raise AuditError(f"audit log: cannot be written: {exc.strerror}") from exc
        finally:
            os.close(descriptor)


def _write_whole(descriptor: int, data: bytes) -> None:
    """Append all of it or nothing: a full disk takes a part without an error."""
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, data) != len(data):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _last_line(descriptor: int) -> tuple[bytes, bool]:
    """The last whole line of the file, and whether something unfinished follows it."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(size, _TAIL), max(0, size - _TAIL))
    if not tail:
        return b"", False
    unfinished = not tail.endswith(b"\n")
    lines = [line for line in tail.split(b"\n") if line]
    if unfinished:
        # The chain runs through every line on the disk, the unfinished one included.
        return lines[-1], True
    return lines[-1] if lines else b"", False


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The records in order; AuditError names the first line that is not chained to the one before.

    A line that is no record (a power cut may leave half of one) counts in the chain and is given as {"unreadable": its
    number}.
    """
    previous = _FIRST
    try:
        file = path.open("rb")
    except OSError as exc:
        raise AuditError(f"audit log: cannot be read: {exc.strerror}") from exc
    with file:
        for number, raw in enumerate(file, 1):
            line = raw.rstrip(b"\n")
            if not line:
                continue  # as the writer passes over it too
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if isinstance(entry, dict):
                if entry.get("prev") != previous:
                    raise AuditError(f"audit log: line {number} does not follow line {number - 1}")
                yield entry
            else:
                yield {"unreadable": number}
            previous = _digest(line)


def find_checks(path: Path, check_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The records of these single checks, by number, as they were first written; AuditError when none can be read."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                told = _ID.search(line)
                if told is None or (number := told[1].decode()) not in check_ids or number in found:
                    continue
                with suppress(ValueError, RecursionError):  # half a line counts as none
                    entry = json.loads(line)
                    if isinstance(entry, dict) and entry.get("kind") == "check" and entry.get("id") == number:
                        found[number] = entry
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise AuditError(f"audit log: cannot be read: {exc.strerror}") from exc
    return found


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
