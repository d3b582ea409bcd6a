"""Base45 (RFC 9285): the alphabet of QR alphanumeric mode."""

from __future__ import annotations

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
    count = len(values) // 3
    # All groups a + 45 b + 2025 c in three long additions: each has a lane of four bytes, which none can overflow.
    lanes, total = bytearray(4 * count), 0
    for place, weight in enumerate((1, 45, 2025)):
        lanes[3::4] = values[place : 3 * count : 3]
        total += weight * int.from_bytes(lanes)
    sums = total.to_bytes(4 * count)
    last = sum(weight * value for weight, value in zip((1, 45), values[3 * count :], strict=False))
    if any(sums[1::4]) or last > 0xFF:
        raise CodeError(CodeFault.ENCODING, "base45 group out of range")
    out = bytearray(2 * count)
    out[::2], out[1::2] = sums[2::4], sums[3::4]
    return bytes(out) + (bytes((last,)) if len(values) % 3 else b"")


def encode(data: bytes) -> str:
    """Bytes to base45 text."""
    out = []
    for i in range(0, len(data) - 1, 2):
        high, rest = divmod(data[i] << 8 | data[i + 1], 2025)
        out.append(ALPHABET[rest % 45] + ALPHABET[rest // 45] + ALPHABET[high])
    if len(data) % 2:
        out.append(ALPHABET[data[-1] % 45] + ALPHABET[data[-1] // 45])
    return "".join(out)
