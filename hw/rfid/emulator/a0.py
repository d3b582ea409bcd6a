"""An emulated lane reader of the A0 family (Invelion, Rodinbell, Yanzeo; Impinj R2000 and E710): Gen2, 1-8 antennas.

It answers one command after another: what arrives during a round of inventory waits for its end. Its tags cannot
be changed: writing, locking and killing are refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from hw.rfid.emulator.air import Answer
from hw.rfid.emulator.engine import Engine, Refusal, read_bank
from hw.rfid.emulator.faults import FaultPlan
from hw.rfid.emulator.frames import A0_FORMAT, Command, a0_frame, tag_crc
from hw.rfid.emulator.scene import Scene, Tag

SUCCESS, FAIL, NO_ANTENNA, NO_TAG, READ_FAILED, ACCESS_FAILED = 0x10, 0x11, 0x22, 0x36, 0x32, 0x40
WRITE_FAILED, LOCK_FAILED, KILL_FAILED = 0x33, 0x34, 0x35
BAD_PARAMETER, TOO_LONG, BAD_BANK, BAD_ANTENNA, BAD_POWER, BAD_REGION, BAD_BAUD = (
    0x41,
    0x42,
    0x43,
    0x47,
    0x48,
    0x49,
    0x4A,
)

FCC, ETSI, CHINA, OWN = 0x01, 0x02, 0x03, 0x04
_LIMITS = {FCC: (7, 59), ETSI: (0, 6), CHINA: (43, 53)}  # frequency indices
_BAUD = {0x03: 38_400, 0x04: 115_200}
_BROADCAST = 0xFF
_OK = bytes((SUCCESS,))
_VERSION = bytes((1, 9))
_MAX_READ = 255 - 3 - 6 - 66  # bytes: LEN less address to checksum, the counts, and PC, EPC and CRC of the longest
_IDENTIFIER = b"MARKCHECK-EM"


class _Poll(NamedTuple):
    """One planned round: antenna (from 1), session and target."""

    antenna: int
    session: int
    target: int


class A0(Engine):
    """The reader behind `A0 LEN ..`."""

    TAGS_PER_S = 167.0

    def __init__(self, scene: Scene, faults: FaultPlan) -> None:
        super().__init__(scene, faults, A0_FORMAT)

    def settings(self) -> None:
        """Region and power fall back to the factory's; a host has to set them again."""
        self._address = self.setup.address
        self._antenna = 1
        self._power = [self.setup.max_power_dbm] * self.setup.antennas
        self._region, self._first, self._last = FCC, *_LIMITS[FCC]
        self._match: bytes | None = None
        self._detector = 0
        self._plan: deque[_Poll] = deque()
        self._command, self._began, self._total = 0, 0.0, 0

    def handler(self, command: Command) -> Callable[[bytes], bytes | None]:
        """The table of commands; a frame for another address is not for us."""
        if command.address not in (self._address, _BROADCAST):
            return lambda _: None
        return {
            0x62: self._set_detector, 0x63: lambda _: bytes((self._detector,)),
            0x66: self._set_fast_power, 0x68: lambda _: _IDENTIFIER, 0x69: self._set_profile, 0x6A: lambda _: b"\xd1",
            0x70: self._reset, 0x71: self._set_baud, 0x72: lambda _: _VERSION, 0x73: self._set_address,
            0x74: self._set_antenna, 0x75: lambda _: bytes((self._antenna - 1,)),
            0x76: self._set_power, 0x77: self._get_power, 0x78: self._set_region, 0x79: self._get_region,
            0x7A: self._beeper, 0x7B: self._temperature, 0x7E: self._return_loss,
            0x81: self._read, 0x82: self._refused(WRITE_FAILED), 0x83: self._refused(LOCK_FAILED),
            0x84: self._refused(KILL_FAILED), 0x85: self._set_match, 0x86: self._get_match,
            0x89: self._real_time, 0x8A: self._fast_switch, 0x8B: self._session_inventory,
            0x94: self._refused(WRITE_FAILED),
        }.get(command.code, _unknown)  # fmt: skip

    def answer(self, code: int, data: bytes) -> bytes:
        """Data, or a status byte."""
        return a0_frame(self._address, code, data)

    def refuse(self, code: int, refusal: Refusal) -> bytes:
        """A frame of length 04 with the status."""
        return a0_frame(self._address, code, refusal.detail + bytes((refusal.code,)))

    # --------------------------------------------------------------------------------------- inventory

    @property
    def busy(self) -> bool:
        """A reader in a round does not listen."""
        return self.scanning

    def _real_time(self, data: bytes) -> None:
        repeat = _fields(data, 1)[0]
        self._inventory(0x89, [_Poll(self._antenna, 0, 0)] * _repeats(repeat))

    def _session_inventory(self, data: bytes) -> None:
        session, target, repeat = _fields(data, 3)
        if session > 3 or target > 1:
            raise Refusal(BAD_PARAMETER)
        self._inventory(0x8B, [_Poll(self._antenna, session, target)] * _repeats(repeat))

    def _inventory(self, code: int, plan: list[_Poll]) -> None:
        if self.antenna_missing(self._antenna):
            raise Refusal(NO_ANTENNA)
        self._begin(code, plan)

    def _fast_switch(self, data: bytes) -> None:
        """A, stay .. D, stay, interval, repeat; readers with eight ports take eight pairs. Above the ports: unused."""
        if len(data) not in (10, 18):
            raise Refusal(BAD_PARAMETER)
        pairs = list(zip(data[:-2:2], data[1:-2:2], strict=True))
        turn = [_Poll(port + 1, 0, 0) for port, stay in pairs if port < self.setup.antennas for _ in range(stay)]
        if not turn:
            raise Refusal(BAD_ANTENNA)
        self._begin(0x8A, turn * max(1, data[-1]))

    def _begin(self, code: int, plan: list[_Poll]) -> None:
        self._plan = deque(plan)
        self._command, self._began, self._total = code, self.now, 0
        self.again(0)

    def round(self) -> None:
        """The next planned round, or the end of all."""
        if not self._plan:
            self.send(self._round_end())
            return
        poll = self._plan.popleft()
        if self.antenna_missing(poll.antenna):
            port = bytes((poll.antenna - 1,)) if self._command == 0x8A else b""
            self.send(self.refuse(self._command, Refusal(NO_ANTENNA, port)))
            self.again(self.pace_s)
            return
        answers = self.air.round(
            self.now, poll.antenna, power_dbm=self._power[poll.antenna - 1], session=poll.session, target=poll.target
        )  # fmt: skip
        self._total += len(answers)
        place = self._frequency_and_antenna(poll.antenna)
        self.again(self.send_reads(answers, lambda answer: self._notice(answer, place, poll.antenna)))

    def _notice(self, answer: Answer, place: int, antenna: int) -> bytes:
        rssi = max(0, min(127, round(answer.rssi_dbm) + 129)) | (0x80 if antenna > 4 else 0)
        data = bytes((place,)) + answer.tag.pc + answer.tag.epc + bytes((rssi,))
        return a0_frame(self._address, self._command, data)

    def _round_end(self) -> bytes:
        lasted = self.now - self._began
        if self._command == 0x8A:
            data = self._total.to_bytes(3) + round(lasted * 1000).to_bytes(4)
        else:
            rate = round(self._total / lasted) if lasted else 0
            data = bytes((self._antenna - 1,)) + (b"" if self.setup.old_round_end else min(rate, 0xFFFF).to_bytes(2))
            data += self._total.to_bytes(4)
        return a0_frame(self._address, self._command, data)

    def _frequency_and_antenna(self, antenna: int) -> int:
        fixed = self.scene.radio.frequency_khz
        if fixed is None:
            index = self._first + self.air.channel(self._last - self._first + 1)
        else:
            index = (fixed - 865_000) // 500 if fixed < 900_000 else 7 + (fixed - 902_000) // 500
        return index << 2 & 0xFC | (antenna - 1) & 0x03

    # ------------------------------------------------------------------------------------------ memory

    def _matched(self, tag: Tag) -> bool:
        return self._match is None or tag.epc == self._match

    def _answers(self) -> list[Answer]:
        if self.antenna_missing(self._antenna):
            raise Refusal(NO_ANTENNA)
        power = self._power[self._antenna - 1]
        answers = self.air.round(self.now, self._antenna, power_dbm=power, select=self._matched)
        if not answers:
            raise Refusal(NO_TAG)
        return answers

    def _read(self, data: bytes) -> None:
        """One frame for each tag that gave its words; the refusal of the last where none did."""
        bank, word, count, *password = _fields(data, 7)
        if bank > 3:
            raise Refusal(BAD_BANK)
        secret, refusal, words = int.from_bytes(bytes(password)), FAIL, []
        for answer in self._answers():
            result = read_bank(answer.tag, bank, word, count, secret)
            if len(result.data) > _MAX_READ or count > _MAX_READ // 2:
                raise Refusal(TOO_LONG)
            if result.data:
                words.append((answer, result.data))
            else:
                refusal = ACCESS_FAILED if result.wrong_password or result.locked else READ_FAILED
        if not words:
            raise Refusal(refusal)
        place = self._frequency_and_antenna(self._antenna)
        for at, (answer, content) in enumerate(words, start=1):
            self.send(self._words(answer, content, len(words), place), at * self.pace_s)

    def _words(self, answer: Answer, content: bytes, tags: int, place: int) -> bytes:
        head = answer.tag.pc + answer.tag.epc
        record = head + tag_crc(head) + content
        data = tags.to_bytes(2) + bytes((len(record),)) + record + bytes((len(content), place, 1))
        return a0_frame(self._address, 0x81, data)

    def _refused(self, failed: int) -> Callable[[bytes], bytes]:
        """Writing, locking, killing: a tag with a password silences whoever does not know it."""

        def refuse(data: bytes) -> bytes:
            if len(data) < 4:
                raise Refusal(BAD_PARAMETER)
            tag = self._answers()[0].tag
            raise Refusal(ACCESS_FAILED if int.from_bytes(data[:4]) != tag.access_password else failed)

        return refuse

    def _set_match(self, data: bytes) -> bytes:
        """Mode 0 with length and EPC sets the match, mode 1 clears it."""
        if data[:1] == b"\x00" and len(data) >= 2 and len(data) == 2 + data[1]:
            self._match = data[2:]
        elif data[:1] == b"\x01":
            self._match = None
        else:
            raise Refusal(BAD_PARAMETER)
        return _OK

    def _get_match(self, data: bytes) -> bytes:
        _fields(data, 0)
        return b"\x01" if self._match is None else bytes((0, len(self._match))) + self._match

    # ---------------------------------------------------------------------------------------- settings

    def _reset(self, data: bytes) -> None:
        _fields(data, 0)
        self.reset_for(0.5)

    def _set_baud(self, data: bytes) -> bytes:
        code = _fields(data, 1)[0]
        if code not in _BAUD:
            raise Refusal(BAD_BAUD)
        self.baud = _BAUD[code]
        return _OK

    def _set_address(self, data: bytes) -> bytes:
        address = _fields(data, 1)[0]
        if address == _BROADCAST:
            raise Refusal(BAD_PARAMETER)
        self._address = address
        return _OK

    def _set_antenna(self, data: bytes) -> bytes:
        port = _fields(data, 1)[0]
        if port >= self.setup.antennas:
            raise Refusal(BAD_ANTENNA)
        self._antenna = port + 1
        return _OK

    def _set_power(self, data: bytes) -> bytes:
        if len(data) not in (1, self.setup.antennas) or max(data) > self.setup.max_power_dbm:
            raise Refusal(BAD_POWER)
        self._power = list(data) if len(data) > 1 else [data[0]] * self.setup.antennas
        return _OK

    def _set_fast_power(self, data: bytes) -> bytes:
        if not 20 <= _fields(data, 1)[0] <= self.setup.max_power_dbm:
            raise Refusal(BAD_POWER)
        self._power = [data[0]] * self.setup.antennas
        return _OK

    def _get_power(self, data: bytes) -> bytes:
        _fields(data, 0)
        return bytes(self._power[:1] if len(set(self._power)) == 1 else self._power)

    def _set_region(self, data: bytes) -> bytes:
        region, first, last = _fields(data, 3)
        if region not in _LIMITS:
            raise Refusal(BAD_REGION)
        low, high = _LIMITS[region]
        if not low <= first <= last <= high:
            raise Refusal(BAD_REGION)
        self._region, self._first, self._last = region, first, last
        return _OK

    def _get_region(self, data: bytes) -> bytes:
        _fields(data, 0)
        return bytes((self._region, self._first, self._last))

    def _beeper(self, data: bytes) -> bytes:
        if _fields(data, 1)[0] > 2:
            raise Refusal(BAD_PARAMETER)
        return _OK

    def _set_detector(self, data: bytes) -> bytes:
        self._detector = _fields(data, 1)[0]
        return _OK

    def _set_profile(self, data: bytes) -> bytes:
        if not 0xD0 <= _fields(data, 1)[0] <= 0xD3:
            raise Refusal(BAD_PARAMETER)
        return _OK

    def _temperature(self, data: bytes) -> bytes:
        """Sign and degrees: 00 is below zero, whatever the documents say."""
        _fields(data, 0)
        celsius = self.setup.temperature_c
        return bytes((int(celsius >= 0), abs(celsius)))

    def _return_loss(self, data: bytes) -> bytes:
        _fields(data, 1)
        return b"\x00" if self.antenna_missing(self._antenna) else b"\x12"


def _unknown(_: bytes) -> bytes:
    raise Refusal(FAIL)


def _fields(data: bytes, count: int) -> tuple[int, ...]:
    """The bytes of a command that has exactly so many."""
    if len(data) != count:
        raise Refusal(BAD_PARAMETER)
    return tuple(data)


def _repeats(count: int) -> int:
    """255 asks for the shortest round, zero for what one is at least."""
    return 1 if count in (0, 0xFF) else count
