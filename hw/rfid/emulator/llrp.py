"""An emulated gantry that speaks LLRP 1.0.1: Gen2, one ROSpec and one AccessSpec at a time, which may only read.

After power-up it hops in a foreign band; a host must choose the hop table of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hw.rfid.emulator import llrp_access
from hw.rfid.emulator import llrp_messages as m
from hw.rfid.emulator.air import Answer
from hw.rfid.emulator.engine import Engine, Refusal
from hw.rfid.emulator.faults import FaultPlan
from hw.rfid.emulator.frames import Command
from hw.rfid.emulator.scene import Scene, Tag

FOREIGN = tuple(range(902_750, 927_251, 500))  # kHz
CHINA = tuple(range(920_625, 924_376, 250))
FIRST_DBM, STEP_DB = 10.0, 0.5
_ROSPEC_EVENT, _ANTENNA_EVENT = 2, 8  # of the notifications a host may ask for
_EVERY, _GENERAL, _ABILITIES, _REGULATORY = 0, 1, 2, 3  # of the capabilities
_ANTENNA, _CHANNEL, _RSSI, _FIRST_SEEN = 0x1000, 0x0800, 0x0400, 0x0200  # of a report's contents
_PC = 0x40


@dataclass(slots=True)
class _Spec:
    """What a host wants to be inventoried and told."""

    number: int
    antennas: tuple[int, ...]
    session: int
    every: int  # so many tags make a report; 0: all of a round
    content: int
    pc: bool
    for_s: float = math.inf
    enabled: bool = False
    ends_s: float = math.inf


class Llrp(Engine):
    """The gantry behind a TCP connection."""

    def __init__(self, scene: Scene, faults: FaultPlan) -> None:
        self.tables = {1: FOREIGN, 2: CHINA}
        self.hopping = True
        self.terse = False  # leaves out what has not changed since the last report
        self.access_reads = llrp_access.MOST_READS  # in one access spec; 0 takes none
        super().__init__(scene, faults, m.FORMAT)

    def settings(self) -> None:
        """Back to the factory's."""
        steps = int((self.setup.max_power_dbm - FIRST_DBM) / STEP_DB) + 1
        self.levels = {index + 1: FIRST_DBM + index * STEP_DB for index in range(steps)}
        # Hop table, channel, power level.
        self._radio = dict.fromkeys(range(1, self.setup.antennas + 1), (1, 1, steps))
        self._events: set[int] = set()
        self._spec: _Spec | None = None
        self._access: llrp_access.Access | None = None
        self._access_enabled = False
        self._turn: list[int] = []
        self._gone: set[int] = set()
        self._last: list[bytes] = []
        self._keepalive_s: float | None = None
        self._due_s = 0.0

    def handler(self, command: Command) -> Callable[[bytes], bytes | None]:
        """The table of commands; every answer carries the id of its command."""
        number = command.data[:4]
        act: Callable[[bytes], bytes | None] = {
            1: self._capabilities, 2: self._get_config, 3: self._set_config, 14: lambda _: m.status(),
            20: self._add, 21: self._delete, 22: self._start, 23: self._stop, 24: self._enable,
            40: self._add_access, 41: self._delete_access, 42: self._enable_access, 72: _no_answer,
        }.get(command.code, _unknown)  # fmt: skip

        def run(data: bytes) -> bytes | None:
            try:
                body = act(data[4:])
            except Refusal as refusal:
                raise Refusal(refusal.code, number) from None
            return None if body is None else number + body

        return run

    def answer(self, code: int, data: bytes) -> bytes:
        """The response of a command."""
        return m.message(_RESPONSES.get(code, m.ERROR), data[:4], data[4:])

    def refuse(self, code: int, refusal: Refusal) -> bytes:
        """The response with a status, or ERROR_MESSAGE for what is no command."""
        return m.message(_RESPONSES.get(code, m.ERROR), refusal.detail, m.status(refusal.code))

    def play(self, until: float) -> None:
        """As every reader, and a keepalive whenever one is due."""
        while self._keepalive_s and self._due_s <= until:
            super().play(self._due_s)
            self.send(m.message(m.KEEPALIVE, bytes(4)))
            self._due_s += self._keepalive_s
        super().play(until)

    # --------------------------------------------------------------------------------------- inventory

    def round(self) -> None:
        """One round on the next antenna."""
        spec = self._spec
        if spec is None:
            return
        if self.now >= spec.ends_s:
            self._tell_end(spec)
            return
        self._turn = self._turn or list(spec.antennas)
        antenna = self._turn.pop(0)
        missing = self.antenna_missing(antenna)
        if missing != (antenna in self._gone):
            self._gone ^= {antenna}
            self._tell(_ANTENNA_EVENT, m.tlv(255, bytes((not missing,)) + antenna.to_bytes(2)))
        if missing:
            self.again(self.pace_s)
            return
        hop_table, channel, level = self._radio[antenna]
        answers = self.air.round(self.now, antenna, power_dbm=self.levels[level], session=spec.session)
        if self.hopping:
            channel = 1 + self.air.channel(len(self.tables[hop_table]))
        self.again(self._send_reports(spec, answers, antenna, channel))

    def _send_reports(self, spec: _Spec, answers: list[Answer], antenna: int, channel: int) -> float:
        """Reading memory takes its time: as long as another tag, for every read."""
        size = spec.every or max(1, len(answers))
        took = 0.0
        for first in range(0, len(answers), size):
            told = b""
            for answer in answers[first : first + size]:
                results = self._read_along(spec, answer.tag)
                told += self._report(spec, answer, antenna, channel, results)
                took += (1 + len(results)) * self.pace_s
            self.send(m.message(m.REPORT, bytes(4), told), took)
        self.reads += len(answers)
        return max(self.pace_s, took)

    def _read_along(self, spec: _Spec, tag: Tag) -> list[bytes]:
        access = self._access
        rides = access is not None and self._access_enabled and access.inventory in (0, spec.number)
        return access.of(tag) if access is not None and rides else []

    def _report(self, spec: _Spec, answer: Answer, antenna: int, channel: int, results: list[bytes]) -> bytes:
        rssi = max(-128, min(127, round(answer.rssi_dbm)))
        lasting = [
            (_ANTENNA, m.tv(1, "H", antenna)),
            (_RSSI, m.tv(6, "b", rssi)),
            (_CHANNEL, m.tv(7, "H", channel)),
        ]
        told = [value for bit, value in lasting if spec.content & bit]
        said, self._last = self._last, told
        told = [value for value in told if not (self.terse and value in said)]
        if spec.content & _FIRST_SEEN:
            told.append(m.tv(3, "Q", round(self.now * 1e6)))
        if spec.pc:
            told.append(m.tv(12, "H", int.from_bytes(answer.tag.pc)))
        return m.tag_report(answer.tag.epc, told + results)

    def _tell(self, wanted: int, told: bytes) -> None:
        if wanted in self._events:
            self.send(m.event(self.now, told))

    # ------------------------------------------------------------------------------------------- specs

    def _add(self, body: bytes) -> bytes:
        if self._spec is not None:
            raise Refusal(m.FIELD_ERROR)
        (number, _, state), rest = m.numbers("IBB", m.part(m.parts(body), 177))
        found = m.parts(rest)
        (stops, duration_ms), _ = m.numbers("BI", m.part(m.parts(m.part(found, 178)), 182))
        antennas, session = self._inventory(m.part(found, 183))
        (trigger, every), content = m.numbers("BH", m.part(found, 237))
        (bits,), selectors = m.numbers("H", m.part(m.parts(content), 238))
        pc = any(kind == 348 and value[0] & _PC for kind, value in m.parts(selectors))
        if state or not number or trigger not in (1, 2) or stops not in (0, 1):
            raise Refusal(m.FIELD_ERROR)
        for_s = duration_ms / 1000 if stops else math.inf
        self._spec = _Spec(number, antennas, session, every, bits, pc, for_s)
        return m.status()

    def _inventory(self, body: bytes) -> tuple[tuple[int, ...], int]:
        """Antennas and session of an AISpec; antenna 0 is all."""
        (count,), rest = m.numbers("H", body)
        antennas, rest = m.numbers(f"{count}H", rest)
        found = m.parts(rest)
        if m.part(found, 184)[:1] != b"\x00":
            raise Refusal(m.FIELD_ERROR)
        (_, protocol), settings = m.numbers("HB", m.part(found, 186))
        if protocol != 1 or not antennas or not all(a == 0 or a in self._radio for a in antennas):
            raise Refusal(m.FIELD_ERROR)
        return (tuple(self._radio) if 0 in antennas else antennas), _session(m.parts(settings))

    def _enable(self, body: bytes) -> bytes:
        self._named(body).enabled = True
        return m.status()

    def _start(self, body: bytes) -> bytes:
        spec = self._named(body)
        if not spec.enabled or self.scanning:
            raise Refusal(m.FIELD_ERROR)
        self._turn, self._last = [], []
        spec.ends_s = self.now + spec.for_s
        self._tell(_ROSPEC_EVENT, m.tlv(249, b"\x00" + spec.number.to_bytes(4) + bytes(4)))
        self.again(0)
        return m.status()

    def _stop(self, body: bytes) -> bytes:
        self._named(body)
        self.end_scan()
        return m.status()

    def end_scan(self) -> None:
        """The spec ends, as a host or the reader itself wants it."""
        if self.scanning and self._spec is not None:
            self.stop()
            self._tell_end(self._spec)

    def _tell_end(self, spec: _Spec) -> None:
        self._tell(_ROSPEC_EVENT, m.tlv(249, b"\x01" + spec.number.to_bytes(4) + bytes(4)))

    def _delete(self, body: bytes) -> bytes:
        if body != bytes(4):
            self._named(body)
        self.end_scan()
        self._spec = None
        return m.status()

    def _add_access(self, body: bytes) -> bytes:
        access = llrp_access.parsed(m.part(m.parts(body), 207))
        if self._access is not None or len(access.reads) > self.access_reads:
            raise Refusal(m.FIELD_ERROR)
        self._access, self._access_enabled = access, False
        return m.status()

    def _enable_access(self, body: bytes) -> bytes:
        self._named_access(body)
        self._access_enabled = True
        return m.status()

    def _delete_access(self, body: bytes) -> bytes:
        """0 is all, also where there is none."""
        if body != bytes(4):
            self._named_access(body)
        self._access = None
        return m.status()

    def _named_access(self, body: bytes) -> None:
        if self._access is None or body != self._access.number.to_bytes(4):
            raise Refusal(m.FIELD_ERROR)

    def _named(self, body: bytes) -> _Spec:
        if self._spec is None or body != self._spec.number.to_bytes(4):
            raise Refusal(m.FIELD_ERROR)
        return self._spec

    # ---------------------------------------------------------------------------------------- settings

    def _capabilities(self, body: bytes) -> bytes:
        (wanted,), _ = m.numbers("B", body)
        parts = {
            _GENERAL: m.general(self.setup.antennas),
            _ABILITIES: m.llrp_abilities(self.access_reads),
            _REGULATORY: m.regulatory(self.levels, self.tables, self.hopping),
        }
        if wanted == _EVERY:
            general, abilities, regulatory = parts.values()
            at = 4 + 24  # LLRPCapabilities stand before the band, those of Gen2 after it
            return m.status() + general + abilities[:at] + regulatory + abilities[at:]
        if wanted not in parts:
            raise Refusal(m.FIELD_ERROR)
        return m.status() + parts[wanted]

    def _get_config(self, body: bytes) -> bytes:
        (antenna, wanted, _, _), _ = m.numbers("HBHH", body)
        if wanted != 3 or antenna not in {0, *self._radio}:
            raise Refusal(m.FIELD_ERROR)
        told = [m.antenna_configuration(n, *radio) for n, radio in self._radio.items() if antenna in (0, n)]
        return m.status() + b"".join(told)

    def _set_config(self, body: bytes) -> bytes:
        (flags,), rest = m.numbers("B", body)
        found = m.parts(rest)
        if flags & 0x80:
            self.stop()
            self.settings()
        for kind, value in found:
            if kind == 222:
                self._configure(value)
            elif kind == 220:
                (trigger, period), _ = m.numbers("BI", value)
                self._keepalive_s, self._due_s = (period / 1000 if trigger else None), self.now + period / 1000
            elif kind == 244:
                states = [m.numbers("HB", state)[0] for _, state in m.parts(value)]
                self._events = {number for number, state in states if state & 0x80}
        return m.status()

    def _configure(self, body: bytes) -> None:
        (antenna,), rest = m.numbers("H", body)
        radio, _ = m.numbers("HHH", m.part(m.parts(rest), 224))
        hop_table, channel, level = radio
        channels = sum(map(len, self.tables.values()))
        lawful = hop_table in self.tables if self.hopping else 1 <= channel <= channels
        if not lawful or level not in self.levels or antenna not in {0, *self._radio}:
            raise Refusal(m.FIELD_ERROR)
        for number in self._radio if antenna == 0 else (antenna,):
            self._radio[number] = (hop_table, channel, level)


_RESPONSES = {1: 11, 2: 12, 3: 13, 14: 4, 20: 30, 21: 31, 22: 32, 23: 33, 24: 34, 40: 50, 41: 51, 42: 52}


def _no_answer(_: bytes) -> None:
    """Acknowledgements are not answered."""


def _unknown(_: bytes) -> bytes:
    raise Refusal(m.UNSUPPORTED)


def _session(settings: list[m.Part]) -> int:
    """The Gen2 session of an inventory's settings; 0 where they do not say."""
    for kind, value in settings:
        if kind != 222:
            continue
        for inner, command in m.parts(value[2:]):
            if inner == 330:
                return next((fields[0] >> 6 for number, fields in m.parts(command[1:]) if number == 336), 0)
    return 0
