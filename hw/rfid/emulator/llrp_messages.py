"""The emulated gantry's own encoding of LLRP 1.0.1 messages, and what it understands of a host's.

It shares nothing with the driver and its library, so that a mistake in one cannot hide in the other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hw.rfid.emulator.engine import Refusal
from hw.rfid.emulator.frames import Command, Format

VERSION = 1
PARAMETER_ERROR, FIELD_ERROR, UNSUPPORTED = 100, 101, 109  # status codes
REPORT, KEEPALIVE, EVENT, ERROR = 61, 62, 63, 100
Part = tuple[int, bytes]
"""A parameter: its type and what follows its length."""


def message(kind: int, number: bytes, body: bytes = b"") -> bytes:
    """A whole message; `number` is its id of four bytes."""
    return struct.pack(">HI", VERSION << 10 | kind, 10 + len(body)) + number + body


def tlv(kind: int, body: bytes = b"") -> bytes:
    """A parameter that tells its length."""
    return struct.pack(">HH", kind, 4 + len(body)) + body


def tv(kind: int, form: str, value: int) -> bytes:
    """A parameter of fixed length."""
    return struct.pack(">B" + form, 0x80 | kind, value)


def parts(body: bytes) -> list[Part]:
    """The parameters that fill `body`; Refusal. Hosts send none of fixed length."""
    found = []
    while body:
        if len(body) < 4:
            raise Refusal(PARAMETER_ERROR)
        kind, length = struct.unpack(">HH", body[:4])
        if kind > 0x3FF or not 4 <= length <= len(body):
            raise Refusal(PARAMETER_ERROR)
        found.append((kind, body[4:length]))
        body = body[length:]
    return found


def part(found: Sequence[Part], kind: int) -> bytes:
    """What the first parameter of this type holds; Refusal when there is none."""
    for number, body in found:
        if number == kind:
            return body
    raise Refusal(PARAMETER_ERROR)


def numbers(form: str, body: bytes) -> tuple[tuple[int, ...], bytes]:
    """The fields at the beginning, and the rest; Refusal."""
    size = struct.calcsize(">" + form)
    if len(body) < size:
        raise Refusal(FIELD_ERROR)
    return struct.unpack(">" + form, body[:size]), body[size:]


def _length(buffer: bytes | bytearray) -> int | None:
    if len(buffer) < 10:
        return None
    length = int.from_bytes(buffer[2:6])
    return length if length >= 10 else 0


FORMAT = Format(VERSION << 2, _length, lambda frame: Command(frame[1], frame[6:]))


# ------------------------------------------------------------------------------------------- from the reader


def status(code: int = 0) -> bytes:
    """LLRPStatus without a description."""
    return tlv(287, struct.pack(">HH", code, 0))


def event(seconds: float, told: bytes) -> bytes:
    """READER_EVENT_NOTIFICATION; this reader has no clock and tells the time since power-up."""
    uptime = tlv(128 + 1, struct.pack(">Q", round(seconds * 1e6)))
    return message(EVENT, bytes(4), tlv(246, uptime + told))


def greeting(attempt: int) -> bytes:
    """The first message of a connection: 0 taken, 2 there is another host."""
    return event(0.0, tlv(256, attempt.to_bytes(2)))


def general(antennas: int) -> bytes:
    """GeneralDeviceCapabilities: no clock, one receive sensitivity, Gen2 on every antenna."""
    firmware = b"1.0"
    head = struct.pack(">HHIIH", antennas, 0x8000, 0, 1, len(firmware)) + firmware
    protocols = b"".join(tlv(140, struct.pack(">HHB", antenna, 1, 1)) for antenna in range(1, antennas + 1))
    return tlv(137, head + tlv(139, struct.pack(">Hh", 1, 0)) + tlv(141, bytes(4)) + protocols)


def llrp_abilities(access_reads: int) -> bytes:
    """LLRPCapabilities and C1G2LLRPCapabilities: one spec at a time, and one for access with so many reads."""
    most = struct.pack(">BBHIIIII", 0, 1, 0, 1, 1, 1, min(access_reads, 1), access_reads)
    return tlv(142, most) + tlv(327, struct.pack(">BH", 0, 1))


def regulatory(levels: dict[int, float], tables: dict[int, tuple[int, ...]], hopping: bool) -> bytes:
    """RegulatoryCapabilities: power in dBm by index, frequencies in kHz by hop table, one radio mode."""
    power = b"".join(tlv(145, struct.pack(">Hh", index, round(dbm * 100))) for index, dbm in levels.items())
    if hopping:
        listed = b"".join(
            tlv(147, struct.pack(f">BBH{len(table)}I", number, 0, len(table), *table))
            for number, table in tables.items()
        )
    else:
        every = [khz for table in tables.values() for khz in table]
        listed = tlv(148, struct.pack(f">H{len(every)}I", len(every), *every))
    mode = tlv(329, struct.pack(">IBBBBIIIII", 1, 0x80, 2, 1, 2, 250_000, 1500, 12_500, 25_000, 0))
    band = tlv(144, power + tlv(146, bytes((hopping << 7,)) + listed) + tlv(328, mode))
    return tlv(143, struct.pack(">HH", 156, 0) + band)


def antenna_configuration(antenna: int, hop_table: int, channel: int, level: int) -> bytes:
    """AntennaConfiguration with receiver and transmitter."""
    transmitter = tlv(224, struct.pack(">HHH", hop_table, channel, level))
    return tlv(222, antenna.to_bytes(2) + tlv(223, b"\x00\x01") + transmitter)


def tag_report(epc: bytes, told: Sequence[bytes]) -> bytes:
    """TagReportData: the EPC, short for 96 bits, and the parameters that were asked for, in their order."""
    head = b"\x8d" + epc if len(epc) == 12 else tlv(241, (8 * len(epc)).to_bytes(2) + epc)
    return tlv(240, head + b"".join(told))
