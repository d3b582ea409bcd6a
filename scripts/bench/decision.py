"""The decision beside one bare ES256 verification."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import cycle

from scripts.bench.timing import Pair, side_by_side
from scripts.sandbox.fleet import fleet
from scripts.sandbox.issuer import Issuer, issuing_keys
from scripts.sandbox.registry import Registry
from verifier.codec.credential import decode
from verifier.decide import decide
from verifier.policy import Policy
from verifier.signature import verify_with
from verifier.trust import load_trust_list
from verifier.types import (
    CacheEvidence,
    CacheState,
    CodeEvidence,
    CodeReading,
    Credential,
    Evidence,
    PlateSeen,
    PresentationMode,
    SignatureState,
    StatusAnswer,
    VehicleRecord,
)

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
TARGET = 0.59  # of a bare ES256 verification: 30 µs where that took 51 µs


def bench_decision() -> Pair:
    """`decide` on made-up vehicles of all kinds, each with its credential, a typed plate and a cached record."""
    issuer = Issuer(issuing_keys(NOW))
    registry = Registry(fleet(2000, 1, date(2026, 11, 22)), 1)
    cases: Iterator[Evidence] = cycle(
        [
            _evidence(issuer.credential(v, registry.credential(v.plate), PresentationMode.STORED, NOW), v.record())
            for v in registry.vehicles.values()
        ]
    )
    policy = Policy()
    vehicle = next(v for v in registry.vehicles.values() if v.city.code == "110000")
    credential = issuer.credential(vehicle, registry.credential(vehicle.plate), PresentationMode.STORED, NOW)
    signed = decode(issuer.text(credential).encode()).credential
    key = load_trust_list(issuer.trust_entries()).keys[signed.kid or b""].public
    if key is None:
        raise RuntimeError("the key of the baseline is not usable here")
    return side_by_side(
        lambda: decide(next(cases), policy, NOW),
        lambda: verify_with(key, signed.to_be_signed, signed.signature),
    )


def _evidence(credential: Credential, record: VehicleRecord) -> Evidence:
    return Evidence(
        code=CodeEvidence(
            reading=CodeReading.OK,
            mode=PresentationMode.STORED,
            signature=SignatureState.VALID,
            credential=credential,
        ),
        plate_seen=PlateSeen(plate=credential.plate, confirmed=True),
        cache=CacheEvidence(
            state=CacheState.OK,
            as_of=NOW - timedelta(hours=8),
            scope="national",
            covers=True,
            answer=StatusAnswer(vehicle=record),
        ),
    )
