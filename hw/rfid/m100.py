"""M100, QM100, YRM100, R200, JRD-4035 and kin: handheld Gen2 modules (`BB..7E`, some firmware `AA..DD`).

Frame: head, type (00 command, 01 response, 02 notice), command, length (2, of the parameters), parameters, sum of
type to parameters modulo 256, tail. Facts from the makers' protocol documents, V2.1 (M100) and V2.3.3 (R200).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Unpack

from hw.errors import ReaderTimeoutError, RejectedError, TagError, TagProblem, UnsupportedError
from hw.rfid.driver import COMPONENT, READ_TIMEOUT_S, Driver, DriverOptions, text_of
from hw.rfid.framing import MORE, Layout, Refusal
from hw.rfid.packets import GEN2, TAG_CRC, Answer, Fault, Packet, Refused, Request, Sighting, pc_words, tag_crc
from hw.rfid.transport import Connect
from hw.rfid.types import (
    MAX_EPC_BYTES,
    MAX_POWER_DBM,
    AirProtocol,
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
)

HEAD = 0xBB
TAILS = {0xBB: 0x7E, 0xAA: 0xDD}
OVERHEAD = 7  # bytes around the parameters

# The longest notice is 1 + 2 + 62 + 2; documents that say 64 forgot tags with 496 bits.
INVENTORY_CAP = 5 + MAX_EPC_BYTES
CAP = 512

# The commands this driver knows. Writing, locking and killing are not among them.
INFO, IDLE = 0x03, 0x04
SET_REGION, GET_REGION = 0x07, 0x08
SET_SELECT, SET_SELECT_MODE = 0x0C, 0x12
SET_QUERY = 0x0E
POLL, MULTI_POLL, STOP = 0x22, 0x27, 0x28
READ = 0x39
SET_POWER, GET_POWER = 0xB6, 0xB7
ERROR = 0xFF

ANSWERS = {SET_SELECT_MODE: frozenset((SET_SELECT_MODE, SET_SELECT))}  # the reply to 12 says 0C
NOTICES = frozenset((POLL, MULTI_POLL))  # documents say 27, readers say 22

REGIONS = {
    0x01: Region.CHINA_920, 0x04: Region.CHINA_840, 0x02: Region.US, 0x03: Region.EUROPE, 0x06: Region.KOREA,
}  # fmt: skip
CHINA = 0x01

NO_TAG = 0x15  # an empty round: the heartbeat of a scan and no fault
PROBLEMS = {NO_TAG: TagProblem.NOT_FOUND, 0x09: TagProblem.NOT_FOUND, 0x16: TagProblem.ACCESS}
# A0|e: what the tag itself answered while it was read (ISO/IEC 18000-63, annex of error codes).
TAG_PROBLEMS = {
    0x0: TagProblem.OTHER, 0x3: TagProblem.OVERRUN, 0x4: TagProblem.LOCKED, 0xB: TagProblem.POWER,
    0xF: TagProblem.OTHER,
}  # fmt: skip


def build(command: int, params: bytes = b"", *, kind: int = 0, head: int = HEAD) -> bytes:
    """A frame; `kind` 0 is a command."""
    body = bytes((kind, command)) + len(params).to_bytes(2, "big") + params
    return bytes((head,)) + body + bytes((sum(body) & 0xFF, TAILS[head]))


def tag_problem(code: int) -> TagProblem | None:
    """What an error code of the reader says of the tag; None when it speaks of the reader or the command."""
    if code >> 4 == 0xA:
        return TAG_PROBLEMS.get(code & 0xF, TagProblem.OTHER)
    return PROBLEMS.get(code)


class MemoryAnswer(NamedTuple):
    """The parameters of the answer to READ."""

    pc: int
    epc: bytes
    data: bytes


def memory_answer(params: bytes) -> MemoryAnswer | None:
    """`UL PC EPC data` with UL counting PC and EPC; None when that does not add up."""
    length = params[0] if params else 0
    if length < 2 or len(params) < 1 + length:
        return None
    pc = int.from_bytes(params[1:3], "big")
    if pc_words(pc) * 2 != length - 2:
        return None
    return MemoryAnswer(pc, params[3 : 1 + length], params[1 + length :])


def _measure(buffer: bytearray, at: int, cap: int) -> int:
    if len(buffer) - at < 5:
        return MORE
    length = buffer[at + 3] << 8 | buffer[at + 4]
    if buffer[at + 1] > 2 or length > cap:
        return -1
    return length + OVERHEAD


def _sound(frame: bytes) -> bool:
    return frame[-1] == TAILS[frame[0]] and sum(frame[1:-2]) & 0xFF == frame[-2]


class M100Codec:
    """The bytes of the family."""

    name = "m100"
    layout = Layout(frozenset(TAILS), re.compile(b"[\xbb\xaa]"), _measure, _sound)
    inventory_cap = INVENTORY_CAP
    cap = CAP

    def decode(self, frame: bytes) -> Packet:
        """What a frame says."""
        kind, command = frame[1], frame[2]
        if kind == 2:
            return _notice(frame) if command in NOTICES else Refused(Refusal.TYPE)
        params = frame[5:-2]
        if kind == 0:
            return Request(command, params)
        return _fault(params) if command == ERROR else Answer(command, params)


def _notice(frame: bytes) -> Packet:
    length = len(frame)
    if length < OVERHEAD + 5:
        return Refused(Refusal.SHAPE)
    # Head, type, command, length (2), RSSI, PC (2), EPC, CRC (2), checksum, tail.
    pc = frame[6] << 8 | frame[7]
    if pc >> 11 != (length - OVERHEAD - 5) / 2:
        return Refused(Refusal.PC_LENGTH)
    crc = frame[-4:-2]
    if tag_crc(frame[6:-4]) != crc[0] << 8 | crc[1]:
        return Refused(Refusal.TAG_CRC)
    rssi = frame[5]
    dbm = float(rssi - 256 if rssi > 127 else rssi)
    return Sighting(POLL, GEN2, frame[8:-4], pc, 1, rssi, TAG_CRC, dbm, None, None, None, None, crc)


def _fault(params: bytes) -> Packet:
    if len(params) == 1:
        return Fault(None, params[0])
    answer = memory_answer(params[1:])
    if answer is None or answer.data:
        return Refused(Refusal.SHAPE)
    return Fault(None, params[0], answer.epc)


class M100Driver(Driver):
    """A module of the family. Multi-poll tells of every round, the empty ones too."""

    wake = b"\x00"

    def __init__(self, connect: Connect, radio: RadioConfig | None = None, **options: Unpack[DriverOptions]) -> None:
        super().__init__(connect, M100Codec(), radio, **options)
        self._head = HEAD
        self._query = (0, 0)  # session and target as after power-up

    def prepare(self) -> Caps:
        """As every driver does; a module that slept or was reset forgot what it was told."""
        self._query = (0, 0)
        return super().prepare()

    def identify(self) -> Caps:
        """Hardware and software version as the module words them."""
        try:
            model = self._command(INFO, b"\x00")
        except ReaderTimeoutError:
            self._head = next(head for head in TAILS if head != self._head)  # next time in the other framing
            raise
        return Caps(
            model=text_of(model[1:]), firmware=text_of(self._command(INFO, b"\x01")[1:]),
            protocols=(AirProtocol.GEN2,), antennas=1,
            power_range_dbm=(0.0, MAX_POWER_DBM),  # it does not tell; what it cannot, it does not confirm
            regions=tuple(REGIONS.values()), tid_in_inventory=False, can_authenticate=False,
            integrity=Integrity.TAG_CRC,
        )  # fmt: skip

    def get_region(self) -> Region:
        """The band the module is set to."""
        return REGIONS.get(self._command(GET_REGION)[0], Region.OTHER)

    def get_power(self) -> float:
        """The power in dBm."""
        return int.from_bytes(self._command(GET_POWER)[:2], "big") / 100

    def _set_region(self) -> None:
        self._expect_ok(SET_REGION, bytes((CHINA,)))

    def _set_power(self, dbm: float) -> None:
        self._expect_ok(SET_POWER, round(dbm * 100).to_bytes(2, "big"))

    def begin(self, config: InventoryConfig) -> None:
        """Multi-poll, as many rounds as one command can ask for; the watchdog asks for more."""
        if config.protocol is not AirProtocol.GEN2 or config.antennas != (1,) or config.tid or config.user:
            raise UnsupportedError(COMPONENT, "one antenna, Gen2, EPC only")
        if (config.session, config.target) != self._query:
            # DR 8, M 1, pilot tone, all tags, Q 4: what the documents give as default.
            query = 0x1020 | config.session << 8 | config.target << 7
            self._expect_ok(SET_QUERY, query.to_bytes(2, "big"))
            self._query = config.session, config.target
        self.session.send(self._frame(MULTI_POLL, b"\x22\xff\xff"))

    def _stop_request(self) -> tuple[bytes, Callable[[Packet], bool]]:
        return self._frame(STOP), lambda packet: isinstance(packet, Answer) and packet.command == STOP

    def _fault_event(self, fault: Fault) -> Event:
        return RoundEnd(reads=0) if fault.code == NO_TAG else Gap(GapReason.READER_FAULT, 0.0, fault.code)

    def _read(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> MemoryRead:
        if selector.protocol is not AirProtocol.GEN2:
            raise UnsupportedError(COMPONENT, "Gen2 only")
        mask = selector.epc[:30]  # its length field counts bits in one byte; the echo tells the rest
        # Target and action 0, EPC bank from bit 32 (behind CRC and PC), no truncation.
        self._expect_ok(SET_SELECT, b"\x01\x00\x00\x00\x20" + bytes((len(mask) * 8, 0)) + mask)
        params = self._command(
            READ, password + bytes((bank,)) + word.to_bytes(2, "big") + count.to_bytes(2, "big"), READ_TIMEOUT_S
        )
        answer = memory_answer(params)
        return MemoryRead(answer.data, answer.epc) if answer else MemoryRead(b"", b"")

    def _frame(self, command: int, params: bytes = b"") -> bytes:
        return build(command, params, head=self._head)

    def _expect_ok(self, command: int, params: bytes) -> None:
        code = self._command(command, params)[0]
        if code:
            raise RejectedError(COMPONENT, "command refused", code)

    def _command(self, command: int, params: bytes = b"", timeout: float | None = None) -> bytes:
        """The parameters of the answer, at least one byte; TagError, RejectedError, ReaderTimeoutError."""
        answers = ANSWERS.get(command, frozenset((command,)))

        def wants(packet: Packet) -> bool:
            if isinstance(packet, Fault):  # the heartbeat of a scan that just ended answers nobody
                return packet.code != NO_TAG or command == READ
            return isinstance(packet, Answer) and packet.command in answers and packet.data != b""

        packet = self.ask(self._frame(command, params), wants, timeout)
        if isinstance(packet, Answer):
            return packet.data
        code = packet.code if isinstance(packet, Fault) else 0
        problem = tag_problem(code) if command == READ else None
        raise TagError(COMPONENT, problem) if problem else RejectedError(COMPONENT, "command refused", code)
