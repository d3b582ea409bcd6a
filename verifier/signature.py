"""Signatures: raw verification by algorithm, on public keys of `cryptography`."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.types import Algorithm

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey

_ES256 = ECDSA(SHA256())


def load_public_key(alg: Algorithm, key: bytes) -> PublicKey | None:
    """The encoded key (65 or 33 bytes SEC 1 point, or 32 bytes) as an object; None for an algorithm absent here.

    ValueError when the length is wrong or the point is not on the curve.
    """
    if alg is Algorithm.ES256:
        if len(key) not in (33, 65):
            raise ValueError("key: not a P-256 point")
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key)
    if len(key) != (32 if alg is Algorithm.EDDSA else 65):
        raise ValueError("key: wrong length")
    return Ed25519PublicKey.from_public_bytes(key) if alg is Algorithm.EDDSA else None


def verify_raw(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the 64-byte signature (r || s, or R || S) of the message verifies under the key."""
    if len(signature) != 64:
        return False
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            key.verify(encode_dss_signature(r, s), message, _ES256)
    except InvalidSignature:
        return False
    return True
