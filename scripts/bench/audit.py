"""What it costs to keep a record: a sealed one, beside a bare append of as many bytes with its sync to the disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from scripts.bench.timing import Pair, side_by_side
from verifier.audit import AuditLog, CheckRecord
from verifier.clock import system_clock
from verifier.decide import decide
from verifier.policy import Policy
from verifier.seal import audit_key
from verifier.types import CacheEvidence, CacheState, Evidence, Plate, PlateSeen

TARGET = 2.0  # times the bare append


def bench_audit(folder: Path | None = None, rounds: int = 100) -> dict[str, Pair]:
    """A sealed and a plain record in a folder of this disk, each beside a bare append of the same length."""
    with tempfile.TemporaryDirectory(prefix="markcheck-bench-", dir=folder) as work:
        key = audit_key(X25519PrivateKey.generate().public_key())
        return {
            name: _beside_bare(Path(work) / name, key if name == "sealed" else None, rounds)
            for name in ("sealed", "plain")
        }


def _beside_bare(path: Path, key: Any, rounds: int) -> Pair:
    log, record = AuditLog(path, key=key), _record()
    log.append(record)
    before = path.stat().st_size
    log.append(record)
    data = bytes(path.stat().st_size - before)
    bare = os.open(path.with_suffix(".bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append() -> None:
        os.write(bare, data)
        os.fdatasync(bare)

    try:
        return side_by_side(lambda: log.append(record), append, rounds=rounds, repeat=2)
    finally:
        os.close(bare)


def _record() -> dict[str, Any]:
    """The record of a typed plate without data: like any other in size."""
    now = system_clock()
    seen = PlateSeen(plate=Plate("京A12345", "02"), confirmed=True)
    evidence = Evidence(plate_seen=seen, cache=CacheEvidence(state=CacheState.MISSING))
    return CheckRecord(
        check_id="0" * 32, evidence=evidence, now=now, policy=Policy(), verdict=decide(evidence, Policy(), now),
        inputs={}, sources={}, software="markcheck bench",
    ).to_json()  # fmt: skip
