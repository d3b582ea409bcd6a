"""LLRP 1.0.1 (EPCglobal Low Level Reader Protocol): messages found in a stream, and what they say.

Message: `version and type 2, length 4, id 4, body`, length counting all. The library pyllrp reads the bodies, behind
our own splitter: it takes whole messages only and never decides how much to wait for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from hw.errors import DeviceNotFoundError
from hw.rfid.framing import MORE, Layout, Refusal
from hw.rfid.packets import GEN2, LINK_CRC, Answer, End, Fault, Packet, Refused, Report, Request, Sighting, pc_words
from hw.rfid.types import MAX_ANTENNA, MAX_EPC_BYTES, RoundEnd

CAP = 1 << 16  # bytes of a message; the capabilities of a reader with long tables have some 5,000
HEADER = 10
REPORT, KEEPALIVE, EVENT, ERROR = 61, 62, 63, 100
CLOSE_RESPONSE, CAPABILITIES_RESPONSE, CONFIG_RESPONSE = 4, 11, 12
SET_CONFIG_RESPONSE, ADD_RESPONSE, DELETE_RESPONSE = 13, 30, 31
START_RESPONSE, STOP_RESPONSE, ENABLE_RESPONSE = 32, 33, 34
ADD_ACCESS_RESPONSE, DELETE_ACCESS_RESPONSE, ENABLE_ACCESS_RESPONSE = 50, 51, 52
ANSWERS = frozenset(
    {
        CLOSE_RESPONSE, CAPABILITIES_RESPONSE, CONFIG_RESPONSE, SET_CONFIG_RESPONSE, ADD_RESPONSE, DELETE_RESPONSE,
        START_RESPONSE, STOP_RESPONSE, ENABLE_RESPONSE, ADD_ACCESS_RESPONSE, DELETE_ACCESS_RESPONSE,
        ENABLE_ACCESS_RESPONSE, ERROR,
    }
)  # fmt: skip
REQUESTS = frozenset({1, 2, 3, 14, 20, 21, 22, 23, 24, 40, 41, 42, 72})  # what our driver sends
# Faults are named by the number of the event's parameter.
ROSPEC_EVENT, EXCEPTION_EVENT, ANTENNA_EVENT, CLOSE_EVENT = 249, 252, 255, 257
# The reads of an AccessSpec are numbered `series << SERIES | part`: the TID's, and the first of the user memory's. A
# report that comes late, of a spec before, has another series and is not taken for what is asked now.
SERIES = 4  # bits of the part
TID_PART, USER_PART = 1, 2
READ_WORDS = 32  # of one read: no reader we know of gives less
MAX_READS = 9  # the TID, and the longest user memory that an inventory may ask for
# Results of a read; 1.1 gave two of its own to what 1.0.1 calls an error that the tag does not specify.
DONE, TAG_ERROR, NO_RESPONSE, OVERRUN, LOCKED = 0, 1, 2, 4, 5
_BANK_ENDS = frozenset({TAG_ERROR, OVERRUN})
_KNOWN = ANSWERS | REQUESTS | {REPORT, KEEPALIVE, EVENT}
_SUPPORTED_VERSION = 1

# What the library raises on bytes that make no sense; its own read errors are ValueErrors or IndexErrors.
_MALFORMED = (AssertionError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


def library() -> Any:
    """pyllrp; DeviceNotFoundError where it is not installed, or stands on a bitstring it does not know."""
    try:
        found = import_module("pyllrp.pyllrp")
    except ImportError as exc:
        raise DeviceNotFoundError("tag reader", "library pyllrp is not installed") from exc
    if not hasattr(found.bitstring, "ConstBitStream"):  # gone since bitstring 5
        raise DeviceNotFoundError("tag reader", "library pyllrp needs bitstring 4")
    return found


def type_of(frame: bytes | bytearray, at: int = 0) -> int:
    """The number of a message's type."""
    return (frame[at] & 0x03) << 8 | frame[at + 1]


def _measure(buffer: bytearray, at: int, cap: int) -> int:
    if len(buffer) - at < 2:
        return MORE
    if buffer[at] != _SUPPORTED_VERSION << 2 or type_of(buffer, at) not in _KNOWN:
        return -1
    if len(buffer) - at < HEADER:
        return MORE
    length = int.from_bytes(buffer[at + 2 : at + 6], "big")
    return length if HEADER <= length <= cap else -1


class LlrpCodec:
    """The messages of one connection.

    A value that a reader was asked to report and leaves out is that of its report before (LLRP 1.0.1, TagReportData):
    so reports are decoded in order, each once.
    """

    name = "llrp"
    layout = Layout(frozenset((0x04,)), re.compile(b"\x04"), _measure, lambda _: True)
    inventory_cap = CAP
    cap = CAP

    def __init__(self) -> None:
        """DeviceNotFoundError without the library."""
        self._library = library()
        self.channels: tuple[int, ...] = ()  # kHz; what a report's channel counts, from 1
        self.series: int | None = None  # of the reads that count; None: of any
        self._before: dict[str, int] = {}

    def decode(self, frame: bytes) -> Packet:
        """What a message says; answers keep the whole message."""
        kind = type_of(frame)
        if kind == KEEPALIVE:
            return End(KEEPALIVE, RoundEnd())
        if kind in ANSWERS:
            return Answer(kind, frame)
        if kind in REQUESTS:
            return Request(kind, frame[HEADER:])
        message = self.parsed(frame)
        if message is None:
            return Refused(Refusal.SHAPE)
        if kind == EVENT:
            return self._event(message)
        return Report(tuple(self._sightings(message)))

    def parsed(self, frame: bytes) -> Any | None:
        """The message as the library's object; None when it makes no sense."""
        library = self._library
        try:
            return library.UnpackMessage(library.bitstring.ConstBitStream(bytes=frame))
        except (*_MALFORMED, library.bitstring.Error):
            return None

    def _event(self, message: Any) -> Packet:
        """The greeting, what ends or disturbs a scan, or a mere sign of life."""
        lib = self._library
        for event in message.getAllParametersByClass(lib.ReaderEventNotificationData_Parameter):
            for told in event.Parameters:
                if isinstance(told, lib.ConnectionAttemptEvent_Parameter):
                    self._before.clear()
                    return Answer(EVENT, told.Status.to_bytes(2, "big"))
                if isinstance(told, lib.ROSpecEvent_Parameter) and told.EventType != 0:
                    return Fault(EVENT, ROSPEC_EVENT)
                if isinstance(told, lib.AntennaEvent_Parameter):
                    return _antenna(told)
                if isinstance(told, lib.ConnectionCloseEvent_Parameter | lib.ReaderExceptionEvent_Parameter):
                    return Fault(EVENT, told.TypeCode)
        return End(EVENT, RoundEnd())

    def _sightings(self, message: Any) -> Iterator[Sighting | Refused]:
        for tag in message.Parameters:
            if isinstance(tag, self._library.TagReportData_Parameter):
                yield self._sighting(tag)

    def _sighting(self, tag: Any) -> Sighting | Refused:
        parts = {part.Name: part for part in tag.Parameters}
        epc = _epc(parts)
        antenna = self._value(parts, "AntennaID")
        channel = self._value(parts, "ChannelIndex") or 0
        rssi = self._value(parts, "PeakRSSI")
        if epc is None or antenna is None or not 1 <= antenna <= MAX_ANTENNA:
            return Refused(Refusal.SHAPE)
        pc = parts["C1G2_PC"].PC_Bits if "C1G2_PC" in parts else len(epc) // 2 << 11
        if len(epc) != 2 * pc_words(pc) or len(epc) > MAX_EPC_BYTES:
            return Refused(Refusal.PC_LENGTH)
        freq = self.channels[channel - 1] if 0 < channel <= len(self.channels) else None
        memory = self._memory(tag)
        if memory is None:
            return Refused(Refusal.SHAPE)
        # No check value of the reader's own, but TCP's and Ethernet's on the way: no worse than a CRC-16 of its frame.
        dbm = None if rssi is None else float(rssi)
        return Sighting(REPORT, GEN2, epc, pc, antenna, rssi or 0, LINK_CRC, dbm, freq, *memory)

    def _memory(self, tag: Any) -> tuple[bytes | None, bytes | None, int | None] | None:
        """TID, user memory and result of what was read along; None when there is more than can have been asked for."""
        told = [part for part in tag.Parameters if isinstance(part, self._library.C1G2ReadOpSpecResult_Parameter)]
        if len(told) > MAX_READS or any(len(part.ReadData) > READ_WORDS for part in told):
            return None
        told = [part for part in told if self.series in (None, part.OpSpecID >> SERIES)]
        reads = {part.OpSpecID % (1 << SERIES): part for part in told}
        tid = _words(reads[TID_PART]) if TID_PART in reads and reads[TID_PART].Result == DONE else None
        failed = [part.Result for part in told if part.Result != DONE]
        return tid or None, _user(reads) or None, failed[0] if failed else DONE if told else None

    def _value(self, parts: dict[str, Any], name: str) -> int | None:
        if name in parts:
            self._before[name] = getattr(parts[name], name)
        return self._before.get(name)


def _antenna(told: Any) -> Packet:
    """An antenna that is gone, or is there (again)."""
    antenna: int = told.AntennaID
    if not 1 <= antenna <= MAX_ANTENNA:
        return Refused(Refusal.SHAPE)
    return (
        Fault(EVENT, ANTENNA_EVENT, antenna=antenna)
        if told.EventType == 0
        else End(EVENT, RoundEnd(antenna=antenna), ANTENNA_EVENT)
    )


def _user(reads: dict[int, Any]) -> bytes | None:
    """The words of consecutive reads up to the end of the bank; None when the tag was lost on the way to it."""
    found = b""
    for part in range(USER_PART, USER_PART + MAX_READS):
        read = reads.get(part)
        if read is None or read.Result in _BANK_ENDS:
            return found
        if read.Result != DONE:
            return None
        found += _words(read)
    return found


def _words(read: Any) -> bytes:
    return b"".join(word.to_bytes(2, "big") for word in read.ReadData)


def _epc(parts: dict[str, Any]) -> bytes | None:
    """The EPC, of 96 bits or of any length in whole words."""
    if "EPC_96" in parts:
        epc: bytes = parts["EPC_96"].EPC.to_bytes(12, "big")
        return epc
    data = parts.get("EPCData")
    return None if data is None else bytes(data.EPC)
