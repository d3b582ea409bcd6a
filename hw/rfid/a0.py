"""The `A0` family: Invelion, Rodinbell, Yanzeo and other lane readers with Impinj R2000 or E710.

Frame: A0, length (of address to checksum), address, command, data, checksum that makes the whole sum 0 modulo 256.
Real-time notices carry no CRC of the tag, so one damaged frame in 256 passes: two equal reads count as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Unpack

from hw.errors import RejectedError, TagError, TagProblem, UnsupportedError
from hw.rfid.driver import COMPONENT, READ_TIMEOUT_S, Driver, DriverOptions, whole_dbm
from hw.rfid.framing import MORE, Layout, Refusal
from hw.rfid.packets import CHECKSUM8, GEN2, Answer, End, Fault, Packet, Refused, Sighting, pc_words, tag_crc
from hw.rfid.transport import Connect
from hw.rfid.types import (
    BAND_KHZ,
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

HEAD = 0xA0
INVENTORY_CAP = 9 + MAX_EPC_BYTES  # the longest notice: address, command, antenna, PC, EPC, RSSI, phase (2), checksum
CAP = 0xFF

# The commands this driver knows. Writing, locking and killing are not among them.
VERSION = 0x72
SET_ANTENNA = 0x74
SET_POWER, GET_POWER = 0x76, 0x77
SET_REGION, GET_REGION = 0x78, 0x79
READ, MATCH_EPC = 0x81, 0x85
REAL_TIME, FAST_SWITCH, SESSION = 0x89, 0x8A, 0x8B
INVENTORIES = frozenset((REAL_TIME, FAST_SWITCH, SESSION))

REGIONS = {0x01: Region.US, 0x02: Region.EUROPE, 0x03: Region.CHINA_920, 0x04: Region.OTHER}
CHINA = 0x03
OK, ANTENNA_MISSING, NO_TAG, ACCESS_FAIL = 0x10, 0x22, 0x36, 0x40
PROBLEMS = {NO_TAG: TagProblem.NOT_FOUND, 0x32: TagProblem.NOT_FOUND, ACCESS_FAIL: TagProblem.ACCESS}
RSSI_OFFSET = 129


def frequency_khz(index: int) -> int:
    """Index 0-6: 865 MHz and up in steps of 0.5; from 7: 902 MHz and up."""
    return 865_000 + 500 * index if index < 7 else 902_000 + 500 * (index - 7)


def frequency_index(khz: int) -> int:
    """The index of a frequency above 902 MHz, in steps of 500 kHz."""
    return 7 + (khz - 902_000) // 500


def build(command: int, data: bytes = b"", *, address: int = 1) -> bytes:
    """A frame; the reader and the host build alike."""
    body = bytes((HEAD, len(data) + 3, address, command)) + data
    return body + bytes((-sum(body) & 0xFF,))


class MemoryAnswer(NamedTuple):
    """One tag's part of the answer to READ."""

    tags: int  # frames this answer has in all
    pc: int
    epc: bytes
    data: bytes


def memory_answer(data: bytes) -> MemoryAnswer | Refusal:
    """`count2 len PC2 EPC CRC2 data readlen FreqAnt cnt`, len counting PC to data."""
    if len(data) < 10:
        return Refusal.SHAPE
    tags, length, read = int.from_bytes(data[:2], "big"), data[2], data[-3]
    body = data[3:-3]
    pc = int.from_bytes(body[:2], "big")
    end = 2 + pc_words(pc) * 2
    head, crc, stored = body[:end], body[end : end + 2], body[end + 2 :]
    if len(body) != length:
        return Refusal.SHAPE
    if len(crc) != 2 or read not in (len(stored), len(stored) // 2):  # documents differ: bytes, or words
        return Refusal.PC_LENGTH
    if tag_crc(head) != int.from_bytes(crc, "big"):
        return Refusal.TAG_CRC
    return MemoryAnswer(tags, pc, head[2:], stored)


def _measure(buffer: bytearray, at: int, cap: int) -> int:
    if len(buffer) - at < 2:
        return MORE
    length = buffer[at + 1]
    return length + 2 if 3 <= length <= cap else -1


def _sound(frame: bytes) -> bool:
    return sum(frame) & 0xFF == 0


class A0Codec:
    """The bytes of the family; frames of another address are refused (`address` None takes every one)."""

    name = "a0"
    layout = Layout(frozenset((HEAD,)), re.compile(b"\xa0"), _measure, _sound)
    inventory_cap = INVENTORY_CAP
    cap = CAP

    def __init__(self, address: int | None = None) -> None:
        self._address = address

    def decode(self, frame: bytes) -> Packet:
        """What a frame says; whether one byte of data is a status is for who asked to know."""
        if self._address is not None and frame[2] != self._address:
            return Refused(Refusal.TYPE)
        command = frame[3]
        return _inventory(command, frame) if command in INVENTORIES else Answer(command, frame[4:-1])


def _inventory(command: int, frame: bytes) -> Packet:
    """Tags have an odd length, round ends 8 or 10, faults 4 (and 5 where the antenna is named)."""
    length = frame[1]
    if length == 4:
        return Fault(command, frame[4])
    if length == 5 and command == FAST_SWITCH:
        return Fault(command, frame[5], antenna=frame[4] + 1)
    if length == 10 and command == FAST_SWITCH:  # total (3), milliseconds (4)
        return End(command, RoundEnd(reads=int.from_bytes(frame[4:7], "big")))
    if length == 10:
        total = int.from_bytes(frame[7:11], "big")
        return End(command, RoundEnd(frame[4] + 1, total, int.from_bytes(frame[5:7], "big")))
    if length == 8:  # old documents: no rate
        return End(command, RoundEnd(frame[4] + 1, int.from_bytes(frame[5:9], "big")))
    return _notice(command, frame) if length >= 7 and length % 2 else Refused(Refusal.SHAPE)


def _notice(command: int, frame: bytes) -> Packet:
    pc = frame[5] << 8 | frame[6]
    end = 7 + (pc >> 11) * 2
    if len(frame) - 2 - end not in (0, 2):  # with phase, two bytes more
        return Refused(Refusal.PC_LENGTH)
    rssi, place = frame[end], frame[4]
    antenna = (place & 3) + (5 if rssi & 0x80 else 1)  # readers with eight ports: bit 7 of the RSSI
    dbm = float((rssi & 0x7F) - RSSI_OFFSET)
    return Sighting(command, GEN2, frame[7:end], pc, antenna, rssi, CHECKSUM8, dbm, frequency_khz(place >> 2))


class A0Driver(Driver):
    """A reader of the family. Every round is asked for; it ends by itself, there is no command to stop it."""

    rounds = True
    watchdog_s = 0.5  # it answers every round within less; a lost answer must not cost two seconds of a lane

    def __init__(
        self, connect: Connect, radio: RadioConfig | None = None, *, address: int = 1, **options: Unpack[DriverOptions]
    ) -> None:
        super().__init__(connect, A0Codec(address), radio, **options)
        self._address = address
        self._missing_ns: int | None = None  # since when an antenna of the scan is missing
        self._missed = False  # in this round

    def identify(self) -> Caps:
        """The firmware's version; these readers do not tell their model."""
        version = self._command(VERSION)
        return Caps(
            model="A0 reader", firmware=".".join(str(number) for number in version[:2]),
            protocols=(AirProtocol.GEN2,), antennas=4, power_range_dbm=(0.0, MAX_POWER_DBM),
            regions=tuple(REGIONS.values()), tid_in_inventory=False, can_authenticate=False,
            integrity=Integrity.CHECKSUM8,
        )  # fmt: skip

    def get_region(self) -> Region:
        """The band; China's only when the channels lie within it too."""
        data = self._command(GET_REGION)
        region = REGIONS.get(data[0], Region.OTHER)
        if region is not Region.CHINA_920:
            return region
        low, high = (frequency_index(khz) for khz in BAND_KHZ)
        within = len(data) >= 3 and low <= data[1] <= data[2] <= high
        return region if within else Region.OTHER

    def get_power(self) -> float:
        """The power in dBm, the highest of all antennas: one byte when they are equal."""
        return float(max(self._command(GET_POWER)))

    def _set_region(self) -> None:
        low, high = self.radio.band_khz
        self._expect_ok(SET_REGION, bytes((CHINA, frequency_index(low + 499), frequency_index(high))))

    def _set_power(self, dbm: float) -> None:
        self._expect_ok(SET_POWER, bytes((whole_dbm(dbm),)))

    def begin(self, config: InventoryConfig) -> None:
        """One antenna with session and target, or up to four in turn."""
        if config.protocol is not AirProtocol.GEN2 or max(config.antennas) > 4 or config.tid or config.user:
            raise UnsupportedError(COMPONENT, "antennas 1-4, Gen2, EPC only")
        if len(config.antennas) == 1:
            self._expect_ok(SET_ANTENNA, bytes((config.antennas[0] - 1,)))
        elif config.session or config.target:
            raise UnsupportedError(COMPONENT, "session and target with one antenna only")
        self.again(config)

    def again(self, config: InventoryConfig) -> None:
        """Ask for the next round."""
        if len(config.antennas) == 1:
            self.session.send(self._frame(SESSION, bytes((config.session, config.target, 1))))
            return
        turns = [(antenna - 1, 1) for antenna in config.antennas] + [(0xFF, 0)] * (4 - len(config.antennas))
        self.session.send(self._frame(FAST_SWITCH, bytes(value for turn in turns for value in turn) + b"\x00\x01"))

    def _stop_request(self) -> tuple[bytes, Callable[[Packet], bool]]:
        return b"", lambda packet: isinstance(packet, End) or (isinstance(packet, Fault) and packet.antenna is None)

    def event(self, packet: Packet, mono_ns: int) -> Event | None:
        """As every driver does; the first round without a missing antenna ends the gap that one made."""
        if isinstance(packet, Fault) and packet.code == ANTENNA_MISSING:
            self._missed = True
            self._missing_ns = self._missing_ns or mono_ns
        elif isinstance(packet, End) or (isinstance(packet, Fault) and packet.code == NO_TAG):
            missed, since, self._missed = self._missed, self._missing_ns, False
            if not missed and since is not None:
                self._missing_ns = None
                return Gap(GapReason.ANTENNA_MISSING, (mono_ns - since) / 1e9, ANTENNA_MISSING, over=True)
        return super().event(packet, mono_ns)

    def _fault_event(self, fault: Fault) -> Event:
        if fault.antenna is not None:
            self.counters.antenna_faults[fault.antenna] = fault.code
        reason = GapReason.ANTENNA_MISSING if fault.code == ANTENNA_MISSING else GapReason.READER_FAULT
        return RoundEnd(reads=0) if fault.code == NO_TAG else Gap(reason, 0.0, fault.code)

    def _read(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> MemoryRead:
        if selector.protocol is not AirProtocol.GEN2 or word > 0xFF:
            raise UnsupportedError(COMPONENT, "Gen2, words 0-255 only")
        epc = selector.epc
        self._expect_ok(MATCH_EPC, bytes((0, len(epc))) + epc if epc else b"\x01")
        frames = self._answers(READ, bytes((bank, word, count)) + password)
        answers = [answer for answer in map(memory_answer, frames) if not isinstance(answer, Refusal)]
        meant = [answer for answer in answers if answer.epc == epc] or answers
        return MemoryRead(meant[0].data, meant[0].epc) if meant else MemoryRead(b"", b"")

    def _answers(self, command: int, data: bytes) -> list[bytes]:
        """The data of all frames of an answer, one for each tag; TagError, RejectedError."""
        self.idle()
        got: list[bytes] = []

        def last(packet: Packet) -> bool:
            got.append(packet.data if isinstance(packet, Answer) else b"")
            return len(got[-1]) < 2 or len(got) >= int.from_bytes(got[-1][:2], "big")

        self.session.collect(self._frame(command, data), _is_answer(command), last, READ_TIMEOUT_S)
        code = got[-1][0] if len(got[-1]) == 1 else OK
        if code == OK:
            return got
        problem = PROBLEMS.get(code)
        raise TagError(COMPONENT, problem) if problem else RejectedError(COMPONENT, "command refused", code)

    def _frame(self, command: int, data: bytes = b"") -> bytes:
        return build(command, data, address=self._address)

    def _expect_ok(self, command: int, data: bytes) -> None:
        code = self._command(command, data)[0]
        if code != OK:
            raise RejectedError(COMPONENT, "command refused", code)

    def _command(self, command: int, data: bytes = b"") -> bytes:
        """The data of the answer, at least one byte; ReaderTimeoutError, LinkLostError."""
        packet = self.ask(self._frame(command, data), _is_answer(command))
        return packet.data if isinstance(packet, Answer) else b"\x00"


def _is_answer(command: int) -> Callable[[Packet], bool]:
    return lambda packet: isinstance(packet, Answer) and packet.command == command and packet.data != b""
