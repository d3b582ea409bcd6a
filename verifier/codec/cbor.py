"""Deterministic CBOR (RFC 8949 clause 4.2) and nothing else.

Allowed: unsigned and negative integers, byte and text strings, arrays, maps with integer or text keys, true and
false. Bytes that have any other encoding, or anything after the item, are refused with `CodeFault.CBOR`.
"""

from __future__ import annotations

from typing import Any

import cbor2

from verifier.errors import CodeError
from verifier.types import CodeFault

MAX_DEPTH = 6
_LEAST, _MOST = -(2**64), 2**64 - 1
_PLAIN = frozenset({bytes, str, bool})  # types of which every value is allowed
_KEYS = frozenset({int, str})


def decode(data: bytes) -> Any:
    """Decode one item; CodeError(CBOR) names what is not deterministic. The caller bounds the length."""
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, TypeError) as exc:
        raise CodeError(CodeFault.CBOR, "not well-formed") from exc
    _check(value, 1)
    # Re-encoding keeps the order of the map, so one comparison refuses long heads, indefinite lengths,
    # duplicate keys, big numbers as tags and trailing bytes at once; `_check` has seen to the order.
    if cbor2.dumps(value) != data:
        raise CodeError(CodeFault.CBOR, "not the deterministic encoding")
    return value


def encode(value: Any) -> bytes:
    """Encode with bytewise sorted map keys; CodeError(CBOR) for a type that the format does not have."""
    ordered = _ordered(value)
    _check(ordered, 1)
    return cbor2.dumps(ordered)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _ordered(value[k]) for k in sorted(value, key=cbor2.dumps)}
    if isinstance(value, (list, tuple)):
        return [_ordered(v) for v in value]
    return value


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is int:
        if not _LEAST <= value <= _MOST:
            raise CodeError(CodeFault.CBOR, "integer out of range")
        return
    if depth > MAX_DEPTH:
        raise CodeError(CodeFault.CBOR, "nested too deeply")
    if kind is list:
        for item in value:
            _check(item, depth + 1)
    elif kind is dict:
        _check_map(value, depth)
    else:
        raise CodeError(CodeFault.CBOR, "a type that is not allowed")


def _check_map(value: dict[Any, Any], depth: int) -> None:
    if not _KEYS.issuperset(map(type, value)):
        raise CodeError(CodeFault.CBOR, "a map key that is not an integer or text")
    keys = [cbor2.dumps(key) for key in value]
    if keys != sorted(keys):
        raise CodeError(CodeFault.CBOR, "map keys not in order")
    for key, item in value.items():
        _check(key, depth)  # a number beyond 64 bits is a tag in the bytes
        if type(item) not in _PLAIN:
            _check(item, depth + 1)
