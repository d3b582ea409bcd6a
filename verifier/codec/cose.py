"""COSE_Sign1 (RFC 9052 clause 4.2) in the strict profile of VM1: bytes and structure, no keys, no signing."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import cbor2

from verifier.codec import cbor
from verifier.errors import CodeError
from verifier.types import CodeFault

TAG = 0xD2  # CBOR tag 18, COSE_Sign1
TYP_CREDENTIAL = 65001
TYP_PRESENTATION = 65002
TYP_HOT = 65004  # a hot list (`verifier.codec.hot`), never a code
TYP_ONLINE = 65005  # an answer of the online look-up (`verifier.codec.online`), never a code
SIGNATURE_LENGTH = 64  # bytes, for all three algorithms

_ALG, _KID, _TYP = 1, 4, 16
_CODES = (TYP_CREDENTIAL, TYP_PRESENTATION)
_KID_OPTIONAL = (TYP_PRESENTATION, TYP_HOT)


class Sign1(NamedTuple):
    """One COSE_Sign1: header values, payload bytes, signature (64 bytes) and the exact bytes it covers."""

    alg: int
    kid: bytes | None  # 8 bytes; None in a presentation signed by the holder's key
    typ: int
    payload: bytes
    signature: bytes
    to_be_signed: bytes


def sig_structure(protected: bytes, payload: bytes) -> bytes:
    """ToBeSigned of RFC 9052 clause 4.4 with empty external_aad."""
    return cbor2.dumps(["Signature1", protected, b"", payload])


def protected_header(alg: int, kid: bytes | None, typ: int) -> bytes:
    """The encoded protected header: alg, kid (left out when None) and typ."""
    header: dict[int, int | bytes] = {_ALG: int(alg), _TYP: typ}
    if kid is not None:
        header[_KID] = kid
    return cbor.encode(header)


def join(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    """Put a COSE_Sign1 together from its parts."""
    return bytes((TAG,)) + cbor.encode([protected, {}, payload, signature])


def parse_sign1(data: bytes, types: Collection[int] = _CODES) -> Sign1:
    """Bytes to Sign1 of one of these types; CodeError COSE_SHAPE, CBOR or HEADER."""
    if not data or data[0] != TAG:
        raise CodeError(CodeFault.COSE_SHAPE, "no COSE_Sign1 tag")
    parts = cbor.decode(data[1:])
    if not (
        type(parts) is list
        and [type(p) for p in parts] == [bytes, dict, bytes, bytes]
        and len(parts[3]) == SIGNATURE_LENGTH
    ):
        raise CodeError(CodeFault.COSE_SHAPE, "not [protected, {}, payload, 64-byte signature]")
    protected, unprotected, payload, signature = parts
    if unprotected:
        raise CodeError(CodeFault.HEADER, "unprotected header not empty")
    alg, kid, typ = _header(protected, types)
    return Sign1(alg, kid, typ, payload, signature, sig_structure(protected, payload))


def _header(protected: bytes, types: Collection[int]) -> tuple[int, bytes | None, int]:
    header = cbor.decode(protected)
    if type(header) is not dict:
        raise CodeError(CodeFault.HEADER, "protected header not a map")
    alg, kid, typ = header.get(_ALG), header.get(_KID), header.get(_TYP, 0)
    if type(alg) is not int or typ not in types:
        raise CodeError(CodeFault.HEADER, "alg or typ missing or unknown")
    if kid is None:
        if typ not in _KID_OPTIONAL:
            raise CodeError(CodeFault.HEADER, "kid missing")
    elif type(kid) is not bytes or len(kid) != 8:
        raise CodeError(CodeFault.HEADER, "kid not 8 bytes")
    if len(header) != (2 if kid is None else 3):
        raise CodeError(CodeFault.HEADER, "a label that is not alg, kid or typ")
    return alg, kid, typ
