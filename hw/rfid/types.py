"""What a tag reader tells, whatever its protocol: reads, round ends, gaps, abilities, health."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

from hw.errors import RegionRefusedError
from verifier.types import Code, TagAuth

BAND_KHZ = (920_000, 925_000)  # the only band a reader may use on Chinese roads for passive tags
MAX_POWER_DBM = 33.0  # 2 W, the most the band allows
MAX_ANTENNA = 32  # the most ports of any reader
MAX_EPC_BYTES = 62  # ISO/IEC 18000-63: five bits count the words


class AirProtocol(Code):
    """The air interface a tag answered on; what its identity is worth depends on it."""

    GEN2 = "gen2"  # ISO/IEC 18000-63
    GB29768 = "gb29768"  # GB/T 29768
    GJB7377 = "gjb7377"  # GJB 7377.1


class Integrity(Code):
    """What protects a read on its way from the tag to us."""

    TAG_CRC = "tag_crc"  # the tag's own CRC-16 over PC and EPC came along and was checked
    LINK_CRC = "link_crc"  # CRC-16 of the reader's frame
    CHECKSUM8 = "checksum8"  # one byte: 1 in 256 damaged frames passes, so two equal reads count as one

    @property
    def reads_needed(self) -> int:
        """So many equal reads until a tag counts."""
        return 2 if self is Integrity.CHECKSUM8 else 1


class Bank(IntEnum):
    """Memory banks that an officer's device reads; the one with the passwords is not among them."""

    EPC = 1
    TID = 2
    USER = 3


class Region(Code):
    """Radio bands a reader may have been set to."""

    CHINA_920 = "china_920_925"
    CHINA_840 = "china_840_845"
    US = "us"
    EUROPE = "europe"
    KOREA = "korea"
    OTHER = "other"


class TagRead(NamedTuple):
    """One answer of one tag. `epc`, `tid` and `user` are hostile bytes."""

    protocol: AirProtocol
    epc: bytes
    pc: int
    tid: bytes | None
    user: bytes | None
    antenna: int  # from 1
    rssi_dbm: float | None
    rssi_raw: int
    freq_khz: int | None
    mono_ns: int
    wall: datetime
    reader_id: str
    seq: int  # counts the reads of this driver
    integrity: Integrity
    auth: TagAuth | None = None  # what the reader's security module says of the tag, where it was asked along

    @property
    def key(self) -> tuple[AirProtocol, bytes]:
        """Which tag this is: its TID where it was read, else its EPC."""
        return self.protocol, self.tid or self.epc


class RoundEnd(NamedTuple):
    """The reader finished a round; the sign of life of an empty road."""

    antenna: int | None = None
    reads: int | None = None  # in this round, as the reader counts them
    rate: int | None = None  # tags a second, as the reader counts them


class GapReason(Code):
    """Why nothing was heard for a while."""

    LINK_LOST = "link_lost"
    SILENT = "silent"
    ANTENNA_MISSING = "antenna_missing"
    READER_FAULT = "reader_fault"


class Gap(NamedTuple):
    """For so long no tag could have been seen: absence of a read says nothing about this time."""

    reason: GapReason
    seconds: float
    fault: int | None = None  # the reader's own code, where it gave one
    over: bool = False  # the reader scans again


Event = TagRead | RoundEnd | Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioConfig:
    """What the radio is set to before it may transmit; RegionRefusedError for what the band does not allow."""

    band_khz: tuple[int, int] = BAND_KHZ
    power_dbm: float = 20.0

    def __post_init__(self) -> None:
        low, high = self.band_khz
        if not BAND_KHZ[0] <= low < high <= BAND_KHZ[1]:
            raise RegionRefusedError("reader", "configured band is not within 920-925 MHz")
        if not 0 <= self.power_dbm <= MAX_POWER_DBM:
            raise RegionRefusedError("reader", f"configured power is not within 0-{MAX_POWER_DBM:g} dBm")


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryConfig:
    """How to look for tags."""

    protocol: AirProtocol = AirProtocol.GEN2
    antennas: tuple[int, ...] = (1,)  # from 1
    session: int = 0  # 0-3
    target: int = 0  # 0 A, 1 B
    tid: int = 0  # words of the TID to read with every tag; 0 none
    user: int = 0  # words of the user memory to read with every tag; 0 none
    authenticate: bool = False  # have tags of GB/T 29768 prove themselves with every read, where the reader can
    rssi_floor: float | None = None  # dBm; weaker reads are left out

    def __post_init__(self) -> None:
        if not self.antennas or not all(1 <= antenna <= MAX_ANTENNA for antenna in self.antennas):
            raise ValueError(f"antennas: at least one, each 1-{MAX_ANTENNA}")
        if not (self.session in range(4) and self.target in (0, 1)):
            raise ValueError("session: 0-3; target: 0 or 1")
        if not (0 <= self.tid <= 32 and 0 <= self.user <= 255):
            raise ValueError("tid: 0-32 words; user: 0-255 words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a reader can do, asked of itself where its protocol lets us."""

    model: str
    firmware: str
    protocols: tuple[AirProtocol, ...]
    antennas: int
    power_range_dbm: tuple[float, float]
    regions: tuple[Region, ...]
    tid_in_inventory: bool
    can_authenticate: bool
    integrity: Integrity


class Selector(NamedTuple):
    """Which tag is meant."""

    epc: bytes
    protocol: AirProtocol = AirProtocol.GEN2


class MemoryRead(NamedTuple):
    """Words of a bank, and the EPC of the tag that gave them as the reader told it."""

    data: bytes
    epc_echo: bytes


class AuthResult(NamedTuple):
    """What a reader's security module says of a tag. We hold no key: we can pass it on, not check it."""

    state: TagAuth
    source: str = "reader says"
    code: int | None = None


class Unsupported(NamedTuple):
    """This reader cannot do that; says nothing about the tag."""

    what: str


@dataclass(slots=True, kw_only=True)
class Health:
    """Counters since the driver was made."""

    frames: int = 0
    bad_checksum: int = 0
    bad_length: int = 0
    junk_bytes: int = 0
    stalled: int = 0  # frames that began and did not go on
    tag_crc_fail: int = 0
    refused: int = 0  # whole frames that make no sense
    dup: int = 0
    timeouts: int = 0
    reconnects: int = 0
    restarts: int = 0  # by the watchdog, after silence
    overruns: int = 0  # notices that were dropped because nobody took them
    last_frame_age: float | None = None  # seconds
    temperature_c: float | None = None
    antenna_faults: dict[int, int] = field(default_factory=dict)  # antenna: the reader's code
