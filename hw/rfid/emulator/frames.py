"""The emulators' own codec, on the reader's side: frames to the host, commands from the host.

It shares nothing with the drivers, so that a mistake in one cannot hide in the other.

| protocol | frame |
|---|---|
| M100 | `BB type cmd PL2 params CS 7E`, CS = sum of type to params; also `AA .. DD` |
| A0 | `A0 LEN ADDR CMD DATA CS`, LEN counts ADDR to CS, the whole frame sums to 0 mod 256 |
| GX | `5A 00 01 MT MID [address] LEN2 DATA CRC2`, CRC-16/XMODEM of all after 5A |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

COMMAND, RESPONSE, NOTICE = 0, 1, 2  # types of M100 frames
M100_ENDS = {"bb": (0xBB, 0x7E), "aa": (0xAA, 0xDD)}
GX_APP, GX_BASE, GX_NOTICE, GX_RS485 = 0x01, 0x02, 0x10, 0x20  # MT: message class and flags
MAX_COMMAND = 600  # bytes; longer is no command but noise in a length field
PARTIAL_S = 0.2  # a command that stops this long is forgotten


class Command(NamedTuple):
    """One command of the host."""

    code: int
    data: bytes
    group: int = 0  # GX: message class
    address: int = 0  # A0


class Format(NamedTuple):
    """How to find commands among bytes: the head, the length of a whole frame, and its meaning or None."""

    head: int
    length: Callable[[bytes | bytearray], int | None]  # None: not known from these few bytes
    parse: Callable[[bytes], Command | None]


class CommandSplitter:
    """Bytes in any pieces to commands; what is no command is passed over byte by byte."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._buffer = bytearray()
        self._heard_s = 0.0
        self.junk = 0  # bytes

    def feed(self, data: bytes, now: float) -> Iterator[Command]:
        """The commands completed by these bytes, heard at `now` (seconds)."""
        if self._buffer and now - self._heard_s > PARTIAL_S:
            self.junk += len(self._buffer)
            self._buffer.clear()
        self._heard_s = now
        self._buffer += data
        while command := self._next():
            yield command

    def _next(self) -> Command | None:
        buffer = self._buffer
        while buffer:
            length = self._form.length(buffer) if buffer[0] == self._form.head else 0
            if length is None or len(buffer) < length <= MAX_COMMAND:
                return None
            command = self._form.parse(bytes(buffer[:length])) if 0 < length <= MAX_COMMAND else None
            del buffer[: length if command else 1]
            if command:
                return command
            self.junk += 1
        return None


# ---------------------------------------------------------------------------------------------------- CRC-16


def crc16(data: bytes, start: int) -> int:
    """CRC-16 with polynomial 1021, most significant bit first."""
    crc = start
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def tag_crc(data: bytes) -> bytes:
    """The CRC-16 that a tag sends after PC and EPC (ISO/IEC 18000-63 annex F)."""
    return (crc16(data, 0xFFFF) ^ 0xFFFF).to_bytes(2)


# ------------------------------------------------------------------------------------------------------ M100


def m100_frame(kind: int, code: int, params: bytes, framing: str = "bb") -> bytes:
    """A frame of the M100 family; `kind` is COMMAND, RESPONSE or NOTICE."""
    head, tail = M100_ENDS[framing]
    body = bytes((kind, code)) + len(params).to_bytes(2) + params
    return bytes((head, *body, sum(body) & 0xFF, tail))


def m100_format(framing: str) -> Format:
    """Commands between one of the two pairs of head and tail."""
    head, tail = M100_ENDS[framing]

    def length(buffer: bytes | bytearray) -> int | None:
        return 7 + int.from_bytes(buffer[3:5]) if len(buffer) >= 5 else None

    def parse(frame: bytes) -> Command | None:
        if frame[-1] != tail or frame[-2] != sum(frame[1:-2]) & 0xFF or frame[1] != COMMAND:
            return None
        return Command(frame[2], frame[5:-2])

    return Format(head, length, parse)


# -------------------------------------------------------------------------------------------------------- A0


def a0_frame(address: int, code: int, data: bytes) -> bytes:
    """A frame of the A0 family, the same in both directions."""
    body = bytes((0xA0, len(data) + 3, address, code)) + data
    return body + bytes((-sum(body) & 0xFF,))


def _a0_length(buffer: bytes | bytearray) -> int | None:
    if len(buffer) < 2:
        return None
    return 2 + buffer[1] if buffer[1] >= 3 else 0


def _a0_parse(frame: bytes) -> Command | None:
    return None if sum(frame) & 0xFF else Command(frame[3], frame[4:-1], address=frame[2])


A0_FORMAT = Format(0xA0, _a0_length, _a0_parse)


# -------------------------------------------------------------------------------------------------------- GX


def gx_frame(group: int, code: int, data: bytes) -> bytes:
    """A frame of the GX protocol without an RS-485 address; GX_NOTICE in `group` says that the reader began."""
    body = bytes((0x00, 0x01, group, code)) + len(data).to_bytes(2) + data
    return b"\x5a" + body + crc16(body, 0).to_bytes(2)


def _gx_length(buffer: bytes | bytearray) -> int | None:
    if len(buffer) < 4:
        return None
    at = 6 if buffer[3] & GX_RS485 else 5
    return at + 4 + int.from_bytes(buffer[at : at + 2]) if len(buffer) >= at + 2 else None


def _gx_parse(frame: bytes) -> Command | None:
    if frame[1:3] != b"\x00\x01" or crc16(frame[1:-2], 0) != int.from_bytes(frame[-2:]):
        return None
    data_at = 8 if frame[3] & GX_RS485 else 7
    return Command(frame[4], frame[data_at:-2], group=frame[3] & 0x0F)


GX_FORMAT = Format(0x5A, _gx_length, _gx_parse)
