"""The encrypted block of a credential (mark key 12): for the server, carried by handhelds that cannot open it.

HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and AES-128-GCM. A lost handheld leaks nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from scripts.sandbox.fleet import IssueReason, Vehicle
from scripts.sandbox.issuer import REASONS
from verifier.codec import cbor
from verifier.errors import CodeError
from verifier.types import Serial

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_VIN, _TID, _REASON = 1, 2, 3
_REASON_OF = {number: reason for reason, number in REASONS.items()}


class BlockError(ValueError):
    """An encrypted block that this key does not open, or that belongs to another credential."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the block holds in full: the open claims hold it as short hashes, or not at all."""

    vin: str
    tid: str | None
    reason: IssueReason


def seal(server: X25519PublicKey, serial: Serial, vehicle: Vehicle) -> bytes:
    """The block for this credential of the vehicle: about 100 bytes, bound to the serial."""
    facts = {_VIN: vehicle.vin, _TID: vehicle.tid, _REASON: REASONS[vehicle.issue_reason]}
    plain = cbor.encode({key: value for key, value in facts.items() if value is not None})
    return _SUITE.encrypt(plain, server, _info(serial))


def open_block(server: X25519PrivateKey, serial: Serial, block: bytes) -> ServerFacts:
    """What `seal` put in; BlockError for another key, another credential or another content."""
    try:
        facts = cbor.decode(_SUITE.decrypt(block, server, _info(serial)))
        return ServerFacts(facts[_VIN], facts.get(_TID), _REASON_OF[facts[_REASON]])
    except (InvalidTag, CodeError, KeyError, TypeError) as exc:
        raise BlockError("the encrypted block does not open") from exc


def _info(serial: Serial) -> bytes:
    return b"VM1-SERVER" + bytes.fromhex(serial)
