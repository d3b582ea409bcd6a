"""What a frame of any protocol says: the few kinds of messages that readers send."""

from __future__ import annotations

from binascii import crc_hqx
from typing import NamedTuple, Protocol

from hw.rfid.framing import Layout, Refusal
from hw.rfid.types import AirProtocol, Integrity, RoundEnd

# In a module of their own names they are found at once; as members of their sets, it takes as long as a CRC.
GEN2 = AirProtocol.GEN2
TAG_CRC, LINK_CRC, CHECKSUM8 = Integrity.TAG_CRC, Integrity.LINK_CRC, Integrity.CHECKSUM8


class Sighting(NamedTuple):
    """A tag, as one frame tells of it."""

    command: int
    protocol: AirProtocol
    epc: bytes
    pc: int
    antenna: int
    rssi_raw: int
    integrity: Integrity
    rssi_dbm: float | None = None
    freq_khz: int | None = None
    tid: bytes | None = None
    user: bytes | None = None
    result: int | None = None  # of the reading or the authentication that was asked for with the inventory
    crc: bytes | None = None  # the tag's own, where the frame carries it


class Answer(NamedTuple):
    """The reader's answer to a command."""

    command: int
    data: bytes


class Fault(NamedTuple):
    """The reader tells that something did not work; `command` None when the protocol does not say what."""

    command: int | None
    code: int
    epc: bytes | None = None
    antenna: int | None = None  # from 1, where one antenna alone is meant


class End(NamedTuple):
    """A round or an operation is over."""

    command: int
    end: RoundEnd
    code: int = 0


class Request(NamedTuple):
    """A command from the host; only decoders of recorded traffic and emulators meet it."""

    command: int
    data: bytes


class Refused(NamedTuple):
    """A whole frame that makes no sense: nothing in it is believed."""

    refusal: Refusal


class Report(NamedTuple):
    """Several tags in one frame."""

    parts: tuple[Sighting | Refused, ...]


Packet = Sighting | Answer | Fault | End | Request | Refused | Report


class Codec(Protocol):
    """A protocol's bytes; pure."""

    name: str
    layout: Layout
    inventory_cap: int
    cap: int

    def decode(self, frame: bytes) -> Packet:
        """What a frame that the splitter gave says; Refused, never an error, for a frame that makes no sense."""
        ...


def pc_words(pc: int) -> int:
    """Length of the EPC in words as its protocol control word counts it (ISO/IEC 18000-63)."""
    return pc >> 11


def tag_crc(pc_and_epc: bytes) -> int:
    """CRC-16 of a Gen2 tag over PC and EPC (polynomial 1021, preset and final FFFF; ISO/IEC 18000-63)."""
    return crc_hqx(pc_and_epc, 0xFFFF) ^ 0xFFFF
