"""Signatures: raw verification by algorithm, on public keys of `cryptography` and of libcrypto."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL
from typing import assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.codec.cose import SIGNATURE_LENGTH
from verifier.sm2 import Sm2PublicKey, check_point, libcrypto
from verifier.types import Algorithm

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | Sm2PublicKey

_ES256 = ECDSA(SHA256())


def load_public_key(
    alg: Algorithm, key: bytes, find_libcrypto: Callable[[], CDLL | None] = libcrypto
) -> PublicKey | None:
    """The encoded key as an object: 65 or 33 bytes P-256 point (SEC 1), 32 bytes Ed25519, 65 bytes SM2 point.

    None where this machine's libcrypto has no SM2. ValueError when the length is wrong or the point not on the curve.
    """
    if alg is Algorithm.ES256:
        if len(key) not in (33, 65):
            raise ValueError("key: not a P-256 point")
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key)
    if alg is Algorithm.EDDSA:
        if len(key) != 32:
            raise ValueError("key: wrong length")
        return Ed25519PublicKey.from_public_bytes(key)
    if alg is not Algorithm.SM2:
        assert_never(alg)
    check_point(key)  # a list is refused alike where the algorithm is absent
    library = find_libcrypto()
    return Sm2PublicKey(library, key) if library else None


def verify_with(public: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the 64-byte signature (r || s, or R || S) of the message verifies under the key.

    CodeError ALG_UNAVAILABLE when libcrypto failed at an SM2 signature.
    """
    if len(signature) != SIGNATURE_LENGTH:
        return False
    try:
        if isinstance(public, EllipticCurvePublicKey):
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            public.verify(encode_dss_signature(r, s), message, _ES256)
        elif isinstance(public, Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, Sm2PublicKey):
            return public.verify(message, signature)
        else:
            assert_never(public)
    except InvalidSignature:
        return False
    return True
