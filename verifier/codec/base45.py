"""Base45 (RFC 9285): the alphabet of QR alphanumeric mode."""

from __future__ import annotations

import struct

from verifier.errors import CodeError
from verifier.types import CodeFault

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES = bytes(ALPHABET.find(chr(c)) & 0xFF for c in range(256))  # 0xFF for what is not in the alphabet


def decode(text: str) -> bytes:
    """Text to bytes; CodeError(ENCODING) for a foreign character, a bad length or a group above its range."""
    try:
        values = text.encode("ascii").translate(_VALUES)
    except UnicodeEncodeError as exc:
        raise CodeError(CodeFault.ENCODING, "not ASCII") from exc
    if len(values) % 3 == 1 or 0xFF in values:
        raise CodeError(CodeFault.ENCODING, "not base45")
    whole = len(values) // 3 * 3
    groups = [a + 45 * b + 2025 * c for a, b, c in zip(*[iter(values[:whole])] * 3, strict=True)]
    tail = values[whole:]
    try:
        out = struct.pack(f">{len(groups)}H", *groups)
        if tail:
            out += struct.pack("B", tail[0] + 45 * tail[1])
    except struct.error as exc:
        raise CodeError(CodeFault.ENCODING, "base45 group out of range") from exc
    return out


def encode(data: bytes) -> str:
    """Bytes to base45 text."""
    out = []
    for i in range(0, len(data) - 1, 2):
        high, rest = divmod(data[i] << 8 | data[i + 1], 2025)
        out.append(ALPHABET[rest % 45] + ALPHABET[rest // 45] + ALPHABET[high])
    if len(data) % 2:
        out.append(ALPHABET[data[-1] % 45] + ALPHABET[data[-1] // 45])
    return "".join(out)
