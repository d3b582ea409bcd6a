"""GX readers (`5A`): the documented serial protocol that inventories GB/T 29768 tags, with Gen2 beside it.

Frame: 5A, protocol 00, version 01, message type, message id, RS-485 address (only with bit 5 of the type), length (2,
of the data), data, CRC-16 (polynomial 1021, preset 0) over all but the head. Facts from the vendor's own client.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable
from typing import NamedTuple, Unpack

from hw.errors import RegionRefusedError, RejectedError, TagError, TagProblem, UnsupportedError
from hw.rfid.driver import COMPONENT, READ_TIMEOUT_S, Driver, DriverOptions, whole_dbm
from hw.rfid.framing import MORE, Layout, Refusal
from hw.rfid.packets import GEN2, LINK_CRC, Answer, End, Fault, Packet, Refused, Sighting
from hw.rfid.transport import Connect
from hw.rfid.types import (
    BAND_KHZ,
    MAX_ANTENNA,
    MAX_EPC_BYTES,
    AirProtocol,
    AuthResult,
    Bank,
    Caps,
    Event,
    Gap,
    GapReason,
    Integrity,
    InventoryConfig,
    MemoryRead,
    RadioConfig,
    Region,
    RoundEnd,
    Selector,
    TagRead,
    Unsupported,
)
from verifier.types import TagAuth

HEAD = b"\x5a\x00\x01"
APP, BASE = 0x01, 0x02  # low nibble of the message type
FROM_READER, RS485 = 0x10, 0x20
NOTICE_CAP = 2 + MAX_EPC_BYTES + 3 + 48  # code, PC, antenna, and every field of fixed length
CAP = 1024  # bytes of data: a notice with the longest code, TID and 255 words of user memory, and room

# The commands this driver knows: message type << 8 | id. Writing, locking and destroying are not among them.
INFO = APP << 8
CAPABILITIES, SET_POWER, GET_POWER, SET_BAND, GET_BAND = (BASE << 8 | mid for mid in range(5))
INVENTORY = {
    AirProtocol.GEN2: BASE << 8 | 0x10,
    AirProtocol.GB29768: BASE << 8 | 0x50,
    AirProtocol.GJB7377: BASE << 8 | 0x60,
}
STOP = BASE << 8 | 0xFF

NOTICES = {0x00: AirProtocol.GEN2, 0x30: AirProtocol.GB29768, 0x40: AirProtocol.GJB7377}
ENDS = {mid + 1: protocol for mid, protocol in NOTICES.items()}
PROTOCOLS = {0: AirProtocol.GEN2, 2: AirProtocol.GB29768, 3: AirProtocol.GJB7377}  # 1 is ISO 18000-6B

CHINA = 0
REGIONS = {0: Region.CHINA_920, 1: Region.CHINA_840, 3: Region.US, 4: Region.EUROPE}

SINGLE, CONTINUOUS = 0, 1  # inventory modes
END_SINGLE, END_STOPPED, END_HARDWARE = 0, 1, 2
RESULT_OK = 0
RESULT_IDENTIFY = 10  # "identify failure"; documents name it for writing, and no other code for a failed proof
PROOFS: dict[int | None, TagAuth] = {RESULT_OK: TagAuth.OK, RESULT_IDENTIFY: TagAuth.FAIL}
PROBLEMS = {
    1: TagProblem.NOT_FOUND, 3: TagProblem.LOCKED, 4: TagProblem.OVERRUN, 5: TagProblem.ACCESS,
}  # fmt: skip

# Fields after the antenna: number: bytes, or None when two bytes of length come first.
FIELDS: dict[int, int | None] = {
    0x01: 1, 0x02: 1, 0x03: None, 0x04: None, 0x05: None, 0x06: 1, 0x07: 8, 0x08: 4, 0x09: 1, 0x0A: None,
    0x11: 2, 0x12: 2, 0x13: 2, 0x14: 2, 0x20: None, 0x22: 4,
}  # fmt: skip
RSSI, RESULT, TID, USER, FREQUENCY, EPC_BANK = 0x01, 0x02, 0x03, 0x04, 0x08, 0x0A
# Fields of the inventory command.
ASK_TID, ASK_USER, ASK_PASSWORD, ASK_SAFE_MARK, ASK_EPC_BANK = 0x02, 0x03, 0x05, 0x06, 0x09
SAFE_MARK = bytes((ASK_SAFE_MARK, 1))


def build(command: int, data: bytes = b"", *, address: int | None = None, flags: int = 0) -> bytes:
    """A frame for a reader on its own line, or for the one with this RS-485 address."""
    kind = command >> 8 | flags | (RS485 if address is not None else 0)
    body = HEAD[1:] + bytes((kind, command & 0xFF)) + (b"" if address is None else bytes((address,)))
    body += len(data).to_bytes(2, "big") + data
    return HEAD[:1] + body + crc_hqx(body, 0).to_bytes(2, "big")


class Capabilities(NamedTuple):
    """The answer to CAPABILITIES."""

    power_range_dbm: tuple[float, float]
    antennas: int
    regions: tuple[Region, ...]
    protocols: tuple[AirProtocol, ...]


def capabilities(data: bytes) -> Capabilities | None:
    """`min max antennas n2 bands n2 protocols`; None when that does not add up. What we do not know is left out."""
    if len(data) < 5:
        return None
    end = 5 + int.from_bytes(data[3:5], "big")
    bands = data[5:end]
    count = int.from_bytes(data[end : end + 2], "big")
    protocols = data[end + 2 :]
    if len(data) < end + 2 or len(protocols) != count:
        return None
    return Capabilities(
        (float(data[0]), float(data[1])), data[2],
        tuple(REGIONS[band] for band in bands if band in REGIONS),
        tuple(PROTOCOLS[number] for number in protocols if number in PROTOCOLS),
    )  # fmt: skip


def _measure(buffer: bytearray, at: int, cap: int) -> int:
    begin = buffer[at : at + 3]
    if begin != HEAD:
        return MORE if HEAD.startswith(begin) else -1
    if len(buffer) - at < 8:
        return MORE
    extra = 1 if buffer[at + 3] & RS485 else 0
    length = buffer[at + 5 + extra] << 8 | buffer[at + 6 + extra]
    return length + 9 + extra if length <= cap else -1


def _sound(frame: bytes) -> bool:
    return crc_hqx(frame[1:-2], 0) == frame[-2] << 8 | frame[-1]


class GxCodec:
    """The bytes of the family; frames of another RS-485 address are refused."""

    name = "gx"
    layout = Layout(frozenset(HEAD[:1]), re.compile(HEAD[:1]), _measure, _sound)
    inventory_cap = NOTICE_CAP
    cap = CAP

    def __init__(self, address: int | None = None) -> None:
        """`address` is the reader's on an RS-485 bus; None takes every one."""
        self._address = address

    def decode(self, frame: bytes) -> Packet:
        """What a frame says; it does not tell requests from answers."""
        kind, mid = frame[3], frame[4]
        if kind & RS485 and self._address not in (None, frame[5]):
            return Refused(Refusal.TYPE)
        data = frame[8 if kind & RS485 else 7 : -2]
        if not kind & FROM_READER:
            return Answer((kind & 0xF) << 8 | mid, data)
        if kind & 0xF != BASE:
            return Refused(Refusal.TYPE)
        if mid in NOTICES:
            return _notice(mid, data)
        return End(mid, RoundEnd(), data[0]) if mid in ENDS and data else Refused(Refusal.TYPE)


def _notice(mid: int, data: bytes) -> Packet:
    """`len2 code PC2 antenna`, then fields."""
    length = data[0] << 8 | data[1] if len(data) >= 2 else 0
    at = 2 + length
    if length > MAX_EPC_BYTES or len(data) < at + 3 or data[at + 2] > MAX_ANTENNA:
        return Refused(Refusal.SHAPE)
    protocol, pc = NOTICES[mid], data[at] << 8 | data[at + 1]
    # The control word of GB/T 29768 counts otherwise; there the length that the CRC protects must do.
    if protocol is GEN2 and pc >> 11 != length / 2:
        return Refused(Refusal.PC_LENGTH)
    fields = _fields(data, at + 3)
    if fields is None:
        return Refused(Refusal.SHAPE)
    result = fields[RESULT][0] if RESULT in fields else None
    tid = user = None
    if not result:  # a failed reading leaves no data, whatever the fields hold
        tid, user = fields.get(TID) or None, fields.get(USER) or fields.get(EPC_BANK) or None
    rssi = fields[RSSI][0] if RSSI in fields else 0
    khz = int.from_bytes(fields[FREQUENCY], "big") if FREQUENCY in fields else None
    return Sighting(mid, protocol, data[2:at], pc, data[at + 2], rssi, LINK_CRC, None, khz, tid, user, result)


def _fields(data: bytes, at: int) -> dict[int, bytes] | None:
    """The known fields up to the first unknown one, whose length nobody tells; None when one is cut short."""
    found: dict[int, bytes] = {}
    end = len(data)
    while at < end and data[at] in FIELDS:
        number, length = data[at], FIELDS[data[at]]
        at += 1
        if length is None:
            length = int.from_bytes(data[at : at + 2], "big")
            at += 2
        if at + length > end:
            return None
        found[number] = data[at : at + length]
        at += length
    return found


class GxDriver(Driver):
    """A reader of the family. It is silent while no tag answers."""

    speaks_when_empty = False

    def __init__(
        self,
        connect: Connect,
        radio: RadioConfig | None = None,
        *,
        address: int | None = None,
        **options: Unpack[DriverOptions],
    ) -> None:
        """`address` is the reader's on an RS-485 bus."""
        super().__init__(connect, GxCodec(address), radio, **options)
        self._address = address
        self._antennas = 1
        self._protocols: tuple[AirProtocol, ...] = ()
        self._proving = False  # in the scan that was begun last
        self._cannot_prove = False  # it has refused: there is no security module

    def identify(self) -> Caps:
        """What the reader tells it can."""
        told = capabilities(self._command(CAPABILITIES))
        if told is None:
            raise RejectedError(COMPONENT, "capabilities make no sense", CAPABILITIES)
        self._antennas, self._protocols = max(1, min(told.antennas, MAX_ANTENNA)), told.protocols
        return Caps(
            model="GX reader", firmware="", protocols=told.protocols, antennas=told.antennas,
            power_range_dbm=told.power_range_dbm, regions=told.regions, tid_in_inventory=True,
            can_authenticate=AirProtocol.GB29768 in told.protocols, integrity=Integrity.LINK_CRC,
        )  # fmt: skip

    def get_region(self) -> Region:
        """The band the reader is set to."""
        return REGIONS.get(self._command(GET_BAND)[0], Region.OTHER)

    def get_power(self) -> float:
        """The power in dBm, the highest of all antennas."""
        return float(max(self._command(GET_POWER)[1::2], default=0))

    def _set_region(self) -> None:
        self._expect_ok(SET_BAND, bytes((CHINA,)))

    def _set_power(self, dbm: float) -> None:
        power = whole_dbm(dbm)
        self._expect_ok(SET_POWER, bytes(v for antenna in range(1, self._antennas + 1) for v in (antenna, power)))

    def inventory_cap(self, config: InventoryConfig) -> int:
        """Longer with the words that are read with every tag."""
        return NOTICE_CAP + 2 * (config.tid + config.user) + (6 if config.tid or config.user else 0)

    def begin(self, config: InventoryConfig) -> None:
        """Inventory until it is stopped, with TID, user memory and proof where they are configured.

        A tag that demands a proof of the reader answers only then (GB/T 35789.1).
        """
        fields = b""
        if config.tid:
            fields += bytes((ASK_TID, 0, config.tid))  # up to so many words
        if config.user:
            fields += _ask_user(config.protocol, 0, config.user)
        if config.session or config.target:
            raise UnsupportedError(COMPONENT, "session and target are the reader's own")
        self._proving = (
            config.authenticate and config.protocol is AirProtocol.GB29768 and not self._cannot_prove
        )  # fmt: skip
        command = self._scan_command(config.protocol, config.antennas, CONTINUOUS, fields + self._proof())
        packet = self.session.ask(command, _is_answer(INVENTORY[config.protocol]), self._answer_timeout)
        try:
            _raise_refused(packet)
        except RejectedError:
            if not self._proving:
                raise
            self._cannot_prove = True
            self.begin(config)

    def _proof(self) -> bytes:
        return SAFE_MARK if self._proving else b""

    def _stop_request(self) -> tuple[bytes, Callable[[Packet], bool]]:
        return self._frame(STOP), _is_answer(STOP)

    def event(self, packet: Packet, mono_ns: int) -> Event | None:
        """As every driver does; a scan that the hardware ended is a gap.

        RegionRefusedError when a read tells a frequency outside the band, whatever band the reader confirmed.
        """
        if isinstance(packet, End) and packet.code == END_HARDWARE:
            return Gap(GapReason.READER_FAULT, 0.0, packet.code)
        if isinstance(packet, Sighting) and packet.freq_khz and not BAND_KHZ[0] <= packet.freq_khz <= BAND_KHZ[1]:
            self.stop()
            raise RegionRefusedError(COMPONENT, "reader transmits outside 920-925 MHz")
        return super().event(packet, mono_ns)

    def tag_read(self, sighting: Sighting, mono_ns: int) -> TagRead:
        """As every driver does, with the reader's word on the tag."""
        read = super().tag_read(sighting, mono_ns)
        return read._replace(auth=PROOFS.get(sighting.result)) if self._proving else read

    def _fault_event(self, fault: Fault) -> Event | None:
        return None  # its codec makes none

    def _read(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> MemoryRead:
        protocol = selector.protocol
        if bank is Bank.TID:
            if word + count > 0xFF:
                raise UnsupportedError(COMPONENT, "TID: words 0-254 only")
            ask, first = bytes((ASK_TID, 1, word + count)), 2 * word  # exactly so many words, always from the first
        elif bank is Bank.USER:
            ask, first = _ask_user(protocol, word, count), 0
        elif protocol is AirProtocol.GEN2:
            ask, first = bytes((ASK_EPC_BANK,)) + word.to_bytes(2, "big") + bytes((count,)), 0
        else:
            raise UnsupportedError(COMPONENT, "code bank: Gen2 only")
        if any(password):
            ask += bytes((ASK_PASSWORD,)) + password
        try:
            read = self._single(selector, ask)
        except TagError:
            if not self._proving or protocol is not AirProtocol.GB29768:
                raise
            read = self._single(selector, ask + self._proof())  # one that answers only after a proof
        if read.result not in (None, RESULT_OK):
            raise TagError(COMPONENT, PROBLEMS.get(read.result, TagProblem.OTHER))
        data = (read.tid if bank is Bank.TID else read.user) or b""
        return MemoryRead(data[first:], read.epc)

    def authenticate(self, selector: Selector, method: str, challenge: bytes) -> AuthResult | Unsupported:
        """`safe_mark`: the reader's security module and the tag prove themselves to each other (GB/T 29768).

        The keys are the reader's, the challenge too: what it says can be told on, not checked. TagError when the tag
        is not there; a result that speaks neither of success nor of a failed proof is a TagError as well.
        """
        if method != "safe_mark" or selector.protocol is not AirProtocol.GB29768:
            return Unsupported("safe_mark of GB/T 29768 only")
        try:
            result = self._single(selector, SAFE_MARK).result
        except RejectedError:
            return Unsupported("the reader refuses: it has no security module")
        if result is None:
            return Unsupported("the reader tells no result")
        if result in PROOFS:
            return AuthResult(PROOFS[result], code=result)
        raise TagError(COMPONENT, PROBLEMS.get(result, TagProblem.OTHER))

    def _single(self, selector: Selector, fields: bytes) -> Sighting:
        """The meant tag in one round of all tags; TagError when it is not among them, RejectedError."""
        self.idle()
        protocol = selector.protocol
        command, notice = INVENTORY[protocol], next(mid for mid, of in NOTICES.items() if of is protocol)

        answered: list[Packet] = []

        def wants(packet: Packet) -> bool:
            if isinstance(packet, Answer):
                answered.append(packet)
                return packet.command == command and packet.data != b""
            mine = (isinstance(packet, Sighting) and packet.command == notice) or (
                isinstance(packet, End) and packet.command == notice + 1
            )
            return mine and bool(answered)  # what came before the answer belongs to a scan that was stopped

        def last(packet: Packet) -> bool:
            return isinstance(packet, End) or (isinstance(packet, Answer) and packet.data[0] != 0)

        antennas = tuple(range(1, self._antennas + 1))
        packets = self.session.collect(
            self._scan_command(protocol, antennas, SINGLE, fields), wants, last, READ_TIMEOUT_S
        )
        _raise_refused(packets[-1])
        for packet in packets:
            if isinstance(packet, Sighting) and packet.epc == selector.epc:
                return packet
        raise TagError(COMPONENT, TagProblem.NOT_FOUND)

    def _scan_command(self, protocol: AirProtocol, antennas: tuple[int, ...], mode: int, fields: bytes) -> bytes:
        if protocol not in self._protocols or max(antennas) > self._antennas:
            raise UnsupportedError(COMPONENT, "the reader has not this air protocol or antenna")
        mask = sum(1 << antenna - 1 for antenna in set(antennas))
        return self._frame(INVENTORY[protocol], mask.to_bytes(4, "big") + bytes((mode,)) + fields)

    def _frame(self, command: int, data: bytes = b"") -> bytes:
        return build(command, data, address=self._address)

    def _expect_ok(self, command: int, data: bytes) -> None:
        code = self._command(command, data)[0]
        if code:
            raise RejectedError(COMPONENT, "command refused", code)

    def _command(self, command: int, data: bytes = b"") -> bytes:
        """The data of the answer, at least one byte; ReaderTimeoutError, LinkLostError."""
        packet = self.ask(self._frame(command, data), _is_answer(command))
        return packet.data if isinstance(packet, Answer) else b"\x00"


def _ask_user(protocol: AirProtocol, word: int, count: int) -> bytes:
    """The field that asks for user memory; that of GB/T 29768 has areas, and the first one is 30."""
    area = b"" if protocol is AirProtocol.GEN2 else b"\x30"
    return bytes((ASK_USER,)) + area + word.to_bytes(2, "big") + bytes((count,))


def _is_answer(command: int) -> Callable[[Packet], bool]:
    return lambda packet: isinstance(packet, Answer) and packet.command == command and packet.data != b""


def _raise_refused(packet: Packet) -> None:
    if isinstance(packet, Answer) and packet.data[0]:
        raise RejectedError(COMPONENT, "inventory refused", packet.data[0])
    if isinstance(packet, End) and packet.code == END_HARDWARE:
        raise RejectedError(COMPONENT, "inventory ended by a hardware fault", packet.code)
