"""An emulated handheld module of the M100 family (QM100, YRM100, R200, JRD-4035): Gen2, one antenna.

Its memory cannot be changed: writing, locking and killing are refused as by a tag with a password.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hw.rfid.emulator.air import Answer
from hw.rfid.emulator.engine import Engine, Refusal, matches, read_bank
from hw.rfid.emulator.faults import FaultKind, FaultPlan
from hw.rfid.emulator.frames import NOTICE, RESPONSE, Command, m100_format, m100_frame, tag_crc
from hw.rfid.emulator.scene import Scene, Tag

NO_TAG, BAD_PARAMETER, BAD_COMMAND, NO_CHANNEL, WRONG_PASSWORD = 0x15, 0x0E, 0x17, 0x20, 0x16
READ_FAILED, WRITE_FAILED, LOCK_FAILED, KILL_FAILED = 0x09, 0x10, 0x13, 0x12
READ_ERROR, WRITE_ERROR = 0xA0, 0xB0  # plus what the tag said:
OVERRUN, LOCKED = 0x03, 0x04

CHINA_2, CHINA_1, US, EU, KOREA = 0x01, 0x04, 0x02, 0x03, 0x06
_CHANNELS = {CHINA_2: 20, CHINA_1: 20, US: 52, EU: 15, KOREA: 32}
_ANTENNA = 1
_DONE = b"\x00"
_ALWAYS, _NEVER, _ALL_BUT_INVENTORY = 0, 1, 2  # when Select is sent before a command
_QUERY = 0x1020  # DR 8, M 1, pilot tone, session S0, target A, Q 4
_INFO = {0: b"M100 26dBm V1.0", 1: b"V2.3.5", 2: b"MagicRF"}
_MAX_POWER = 2600  # 0.01 dBm


class _Selection(NamedTuple):
    """What command 0C set: a mask over a part of a bank."""

    parameter: int
    bit: int
    length: int
    truncate: int
    mask: bytes

    def fits(self, tag: Tag) -> bool:
        """Whether the tag has these bits."""
        return matches(tag, self.parameter & 0x03, self.bit, self.length, self.mask)


class M100(Engine):
    """The module behind `BB .. 7E` or `AA .. DD`."""

    TAGS_PER_S = 50.0

    def __init__(self, scene: Scene, faults: FaultPlan) -> None:
        self._framing = scene.reader.framing
        super().__init__(scene, faults, m100_format(self._framing))

    def settings(self) -> None:
        """Region and power are volatile: a host has to set them again."""
        self._region, self._power, self._channel = US, _MAX_POWER, 1
        self._query, self._mode = _QUERY, _NEVER
        self._selection: _Selection | None = None
        self._modem = bytes.fromhex("030601b0")
        self._rounds_left = 0

    def handler(self, command: Command) -> Callable[[bytes], bytes | None]:
        """The table of commands."""
        try:
            return {
                0x03: self._info, 0x04: self._fixed(3), 0x07: self._set_region, 0x08: self._get_region,
                0x0B: self._get_select, 0x0C: self._set_select, 0x0D: self._get_query, 0x0E: self._set_query,
                0x11: self._set_baud, 0x12: self._set_mode, 0x17: self._sleep, 0x1D: self._set_idle,
                0x22: self._poll, 0x27: self._start, 0x28: self._stop, 0x39: self._read,
                0x49: self._write, 0x65: self._kill, 0x82: self._lock,
                0xA9: self._channel_list, 0xAA: self._get_channel, 0xAB: self._set_channel, 0xAD: self._hop,
                0xB6: self._set_power, 0xB7: self._get_power, 0xF0: self._set_modem, 0xF1: self._get_modem,
                0xF2: self._scan(-47), 0xF3: self._scan(-71),
            }[command.code]  # fmt: skip
        except KeyError:
            raise Refusal(BAD_COMMAND) from None

    def answer(self, code: int, data: bytes) -> bytes:
        """The answer to 12 names 0C, as real modules have it."""
        return m100_frame(RESPONSE, 0x0C if code == 0x12 else code, data, self._framing)

    def refuse(self, code: int, refusal: Refusal) -> bytes:
        """Every error is an answer to FF."""
        return m100_frame(RESPONSE, 0xFF, bytes((refusal.code,)) + refusal.detail, self._framing)

    # --------------------------------------------------------------------------------------- inventory

    def _inventory(self) -> list[Answer]:
        if self.faults.lasting(FaultKind.FHSS, self.now):
            raise Refusal(NO_CHANNEL)
        answers = self.air.round(
            self.now, _ANTENNA, power_dbm=self._dbm, session=self._query >> 8 & 3, target=self._query >> 7 & 1,
            select=self._filter(_ALWAYS),
        )  # fmt: skip
        if not answers:
            raise Refusal(NO_TAG)
        return answers

    def _notice(self, answer: Answer) -> bytes:
        tag = answer.tag
        rssi = max(-128, min(127, round(answer.rssi_dbm))) & 0xFF
        words = tag.pc + tag.epc
        return m100_frame(NOTICE, 0x22, bytes((rssi,)) + words + tag_crc(words), self._framing)

    def _poll(self, data: bytes) -> None:
        _empty(data)
        self.send_reads(self._inventory(), self._notice)

    def _start(self, data: bytes) -> None:
        _sized(data, 3)
        self._rounds_left = int.from_bytes(data[1:])
        if self._rounds_left:
            self.again(0)

    def _stop(self, data: bytes) -> bytes:
        _empty(data)
        self.stop()
        return _DONE

    def round(self) -> None:
        """One of the rounds of command 27; an empty one says so, which is the module's heartbeat."""
        took = self.pace_s
        try:
            took = self.send_reads(self._inventory(), self._notice)
        except Refusal as refusal:
            self.send(self.refuse(0xFF, refusal), took)
        self._rounds_left -= 1
        if self._rounds_left > 0:
            self.again(took)

    # ------------------------------------------------------------------------------------------ memory

    def _access(self, failed: int) -> Answer:
        """The tag that an access command reaches."""
        select = self._filter(_ALL_BUT_INVENTORY)
        answer = self.air.access(self.now, _ANTENNA, power_dbm=self._dbm, select=select)
        if answer is None:
            raise Refusal(failed)
        return answer

    def _read(self, data: bytes) -> bytes:
        _sized(data, 9)
        password, bank = int.from_bytes(data[:4]), data[4]
        word, count = int.from_bytes(data[5:7]), int.from_bytes(data[7:9])
        if bank > 3:
            raise Refusal(BAD_PARAMETER)
        tag = self._access(READ_FAILED).tag
        result = read_bank(tag, bank, word, count, password)
        if result.wrong_password:
            raise Refusal(WRONG_PASSWORD, _echo(tag))
        if result.locked or result.overrun:
            raise Refusal(READ_ERROR | (LOCKED if result.locked else OVERRUN), _echo(tag))
        return _echo(tag) + result.data

    def _write(self, data: bytes) -> bytes:
        if len(data) < 11 or len(data) != 9 + 2 * int.from_bytes(data[7:9]) or len(data) > 9 + 2 * 32:
            raise Refusal(BAD_PARAMETER)
        tag = self._refused(data, WRITE_FAILED)
        raise Refusal(WRITE_ERROR | LOCKED if tag.locked else WRITE_FAILED, _echo(tag))

    def _lock(self, data: bytes) -> bytes:
        _sized(data, 7)
        raise Refusal(LOCK_FAILED, _echo(self._refused(data, LOCK_FAILED)))

    def _kill(self, data: bytes) -> bytes:
        _sized(data, 4)
        raise Refusal(KILL_FAILED, _echo(self._access(KILL_FAILED).tag))

    def _refused(self, data: bytes, failed: int) -> Tag:
        tag = self._access(failed).tag
        if int.from_bytes(data[:4]) != tag.access_password:
            raise Refusal(WRONG_PASSWORD, _echo(tag))
        return tag

    # ------------------------------------------------------------------------------------------ select

    def _filter(self, mode: int) -> Callable[[Tag], bool] | None:
        """The selection, if it holds for this sort of command."""
        wanted = self._selection is not None and self._mode in (_ALWAYS, mode)
        return self._selection.fits if self._selection is not None and wanted else None

    def _set_select(self, data: bytes) -> bytes:
        if len(data) < 7 or len(data) - 7 != (data[5] + 7) // 8:
            raise Refusal(BAD_PARAMETER)
        self._selection = _Selection(data[0], int.from_bytes(data[1:5]), data[5], data[6], data[7:])
        self._mode = _ALL_BUT_INVENTORY
        return _DONE

    def _get_select(self, data: bytes) -> bytes:
        _empty(data)
        chosen = self._selection or _Selection(0x01, 32, 0, 0, b"")
        head = bytes((chosen.parameter, *chosen.bit.to_bytes(4), chosen.length, chosen.truncate))
        return head + chosen.mask

    def _set_mode(self, data: bytes) -> bytes:
        self._mode = _one_of(data, (_ALWAYS, _NEVER, _ALL_BUT_INVENTORY))
        return _DONE

    def _get_query(self, data: bytes) -> bytes:
        _empty(data)
        return self._query.to_bytes(2)

    def _set_query(self, data: bytes) -> bytes:
        _sized(data, 2)
        if data[0] >> 4 != 1:  # only DR 8, M 1 and a pilot tone
            raise Refusal(BAD_PARAMETER)
        self._query = int.from_bytes(data)
        return _DONE

    # ---------------------------------------------------------------------------------------- settings

    @property
    def _dbm(self) -> float:
        """Power below the strongest, on the scale of the scene's reader."""
        return self.setup.max_power_dbm - (_MAX_POWER - self._power) / 100

    def _info(self, data: bytes) -> bytes:
        _one_of(data, _INFO)
        return data + _INFO[data[0]]

    def _set_region(self, data: bytes) -> bytes:
        self._region = _one_of(data, _CHANNELS)
        self._channel = 0
        return _DONE

    def _get_region(self, data: bytes) -> bytes:
        _empty(data)
        return bytes((self._region,))

    def _set_power(self, data: bytes) -> bytes:
        _sized(data, 2)
        if not 0 <= int.from_bytes(data, signed=True) <= _MAX_POWER:
            raise Refusal(BAD_PARAMETER)
        self._power = int.from_bytes(data)
        return _DONE

    def _get_power(self, data: bytes) -> bytes:
        _empty(data)
        return self._power.to_bytes(2)

    def _set_channel(self, data: bytes) -> bytes:
        self._channel = _one_of(data, range(_CHANNELS[self._region]))
        return _DONE

    def _get_channel(self, data: bytes) -> bytes:
        _empty(data)
        return bytes((self._channel,))

    def _channel_list(self, data: bytes) -> bytes:
        if not data or len(data) != data[0] + 1 or any(c >= _CHANNELS[self._region] for c in data[1:]):
            raise Refusal(BAD_PARAMETER)
        return _DONE

    def _hop(self, data: bytes) -> bytes:
        _one_of(data, (0x00, 0xFF))
        return _DONE

    def _set_modem(self, data: bytes) -> bytes:
        _sized(data, 4)
        self._modem = data
        return _DONE

    def _get_modem(self, data: bytes) -> bytes:
        _empty(data)
        return self._modem

    def _set_idle(self, data: bytes) -> bytes:
        _one_of(data, range(31))
        return data

    def _set_baud(self, data: bytes) -> None:
        _sized(data, 2)
        rate = int.from_bytes(data) * 100
        if not 9_600 <= rate <= 921_600:
            raise Refusal(BAD_PARAMETER)
        self.baud = rate  # and no answer

    def _sleep(self, data: bytes) -> bytes:
        _empty(data)
        self.sleep()
        return _DONE

    def _scan(self, dbm: int) -> Callable[[bytes], bytes]:
        """Jammer or channel scan: first and last channel, then one signed byte for each."""

        def scan(data: bytes) -> bytes:
            _empty(data)
            count = _CHANNELS[self._region]
            return bytes((0, count - 1)) + bytes((dbm & 0xFF,)) * count

        return scan

    def _fixed(self, size: int) -> Callable[[bytes], bytes]:
        """A command without a visible effect."""

        def done(data: bytes) -> bytes:
            _sized(data, size)
            return _DONE

        return done


def _echo(tag: Tag) -> bytes:
    """UL PC EPC: which tag it was."""
    return bytes((2 + len(tag.epc),)) + tag.pc + tag.epc


def _sized(data: bytes, size: int) -> None:
    if len(data) != size:
        raise Refusal(BAD_PARAMETER)


def _empty(data: bytes) -> None:
    _sized(data, 0)


def _one_of(data: bytes, allowed: range | tuple[int, ...] | dict[int, int] | dict[int, bytes]) -> int:
    if len(data) != 1 or data[0] not in allowed:
        raise Refusal(BAD_PARAMETER)
    return data[0]
