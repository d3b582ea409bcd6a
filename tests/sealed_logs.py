"""What the tests of the audit log share: records, keys, and an appending process to be cut off.

`python -m tests.sealed_logs LOG KEY COUNT` is that process: it says the number of each record when it is acknowledged.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.audit import AuditLog
from verifier.seal import audit_key, load_audit_key

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = audit_key(PRIVATE.public_key())
PLATE = "京A12345"


def a_clock() -> datetime:
    return NOW


def write_key(path: Path) -> Path:
    path.write_bytes(PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def record(number: int) -> dict[str, Any]:
    return {"v": 1, "kind": "check", "id": f"{number:032x}", "plate": PLATE, "verdict": {"verdict": "VALID"}}


def sealed_log(path: Path, count: int) -> AuditLog:
    """A log with so many records in one session."""
    log = AuditLog(path, key=KEY, clock=a_clock)
    for number in range(count):
        log.append(record(number))
    return log


def main(log: str, key: str, count: str) -> None:
    audit = AuditLog(Path(log), key=load_audit_key(Path(key)), clock=a_clock)
    for number in range(int(count)):
        audit.append(record(number))
        os.write(1, b"%d\n" % number)  # in one piece


if __name__ == "__main__":
    main(*sys.argv[1:])
