"""An emulated reader with the GX "5A" protocol: Gen2 and GB/T 29768 inventory, 1-8 antennas.

Public documents leave open how its RSSI byte is scaled and what an inventory tells of a failed authentication: the
linear scale is an assumption, and so is the result, for which stands the one code that they name "identify failure"
(of a write to a GB/T 29768 tag). A reader without a security module refuses to ask for a proof, as it would any part of
an order that it does not know. Writing, locking and killing are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hw.rfid.emulator.air import Answer
from hw.rfid.emulator.engine import Engine, Refusal, matches, read_bank
from hw.rfid.emulator.faults import FaultPlan
from hw.rfid.emulator.frames import GX_APP, GX_BASE, GX_FORMAT, GX_NOTICE, Command, gx_frame
from hw.rfid.emulator.scene import AirProtocol, Authentication, Scene, Tag

BAD_PORT, BAD_FILTER, BAD_TID, BAD_USER, OTHER = 1, 2, 3, 4, 5  # inventory; Gen2 counts OTHER as 6
LOCKED, OVERRUN, PASSWORD = 3, 4, 5  # results of a read
IDENTIFY = 10  # the tag did not prove itself
WRITE_PASSWORD, WRITE_NO_TAG = 8, 12
DONE, STOPPED, BROKEN = 0, 1, 2  # why an inventory is over

CHINA_2, CHINA_1, BOTH, FCC, ETSI = range(5)
_BANDS = {  # first channel, spacing in kHz, number of channels
    CHINA_2: (920_125, 250, 20), CHINA_1: (840_125, 250, 20), BOTH: (920_125, 250, 20),
    FCC: (902_750, 500, 50), ETSI: (865_700, 600, 4),
}  # fmt: skip
_PROTOCOLS = (0, 2)  # ISO 18000-6C and GB/T 29768 among those of the document
_OK = b"\x00"
_BASEBAND = {False: bytes((0xFE, 0x04, 0x00, 0x00)), True: bytes((0xFE, 0x43, 0x00, 0x00))}
_MIN_POWER = 5
_INVENTORY = {0x10: AirProtocol.GEN2, 0x50: AirProtocol.GB29768}
_WRONG = {0x01: BAD_FILTER, 0x02: BAD_TID, 0x03: BAD_USER}  # part of an inventory command → error
_NOTICE = {AirProtocol.GEN2: 0x00, AirProtocol.GB29768: 0x30}  # one more: the inventory is over


@dataclass(frozen=True, slots=True)
class _Order:
    """What an inventory command asks for."""

    protocol: AirProtocol
    antennas: tuple[int, ...]
    endless: bool
    filter: Callable[[Tag], bool] | None = None
    tid_words: int | None = None
    tid_fixed: bool = False
    user: tuple[int, int] | None = None  # first word, words
    code: tuple[int, int] | None = None  # of the EPC bank, likewise
    password: int = 0
    safe_mark: bool = False


class Gx(Engine):
    """The reader behind `5A 00 01 ..`."""

    TAGS_PER_S = 167.0

    def __init__(self, scene: Scene, faults: FaultPlan) -> None:
        super().__init__(scene, faults, GX_FORMAT)

    def settings(self) -> None:
        """Band and power fall back to the factory's; a host has to set them again."""
        self._band = FCC
        self._power = dict.fromkeys(range(1, self.setup.antennas + 1), self.setup.max_power_dbm)
        self._baseband = dict(_BASEBAND)
        self._order: _Order | None = None
        self._turn: list[int] = []
        self._group = GX_BASE

    def handler(self, command: Command) -> Callable[[bytes], bytes | None]:
        """The table of commands; an unknown one gets no answer."""
        self._group = command.group
        rows: dict[tuple[int, int], Callable[[bytes], bytes | None]] = {
            (GX_APP, 0x00): self._reader_info, (GX_APP, 0x0F): self._reset,
            (GX_APP, 0x12): lambda data: data,
            (GX_BASE, 0x00): self._capabilities, (GX_BASE, 0x01): self._set_power, (GX_BASE, 0x02): self._get_power,
            (GX_BASE, 0x03): self._set_band, (GX_BASE, 0x04): lambda _: bytes((self._band,)),
            (GX_BASE, 0x0B): self._set_baseband(False), (GX_BASE, 0x0C): lambda _: self._baseband[False],
            (GX_BASE, 0xE2): self._set_baseband(True), (GX_BASE, 0xE3): lambda _: self._baseband[True],
            (GX_BASE, 0x10): self._inventory(0x10), (GX_BASE, 0x50): self._inventory(0x50),
            (GX_BASE, 0xFF): self._stop,
        }  # fmt: skip
        for inventory, protocol in _INVENTORY.items():
            for code in range(inventory + 1, inventory + 4):  # write, lock, kill
                rows[GX_BASE, code] = self._refused(protocol)
        return rows.get((command.group, command.code), lambda _: None)

    def answer(self, code: int, data: bytes) -> bytes:
        """Data, or a status byte."""
        return gx_frame(self._group, code, data)

    def refuse(self, code: int, refusal: Refusal) -> bytes:
        """A status byte."""
        return gx_frame(self._group, code, bytes((refusal.code,)))

    # --------------------------------------------------------------------------------------- inventory

    def _inventory(self, code: int) -> Callable[[bytes], bytes]:
        def start(data: bytes) -> bytes:
            protocol = _INVENTORY[code]
            order = _read_order(data, protocol, self.setup.antennas)
            if order.safe_mark and not self.setup.security_module:
                raise Refusal(OTHER)
            self._order, self._turn = order, list(order.antennas)
            self.again(self.pace_s)
            return _OK

        return start

    def _stop(self, _: bytes) -> bytes:
        if self._order is not None:
            self._over(self._order, STOPPED)
        return _OK

    def _over(self, order: _Order, why: int) -> None:
        self.stop()
        self._order = None
        self.send(
            gx_frame(GX_BASE | GX_NOTICE, _NOTICE[order.protocol] + 1, bytes((why,))), self.reads_left_s + self.pace_s
        )

    def round(self) -> None:
        """One round on the next antenna of the order."""
        order = self._order
        if order is None:
            return
        antenna = self._turn.pop(0)
        if self.antenna_missing(antenna):
            self._over(order, BROKEN)
            return
        took = self._one_round(order, antenna)
        if not self._turn and not order.endless:
            self.now += took
            self._over(order, DONE)
            return
        self._turn = self._turn or list(order.antennas)
        self.again(took)

    def _one_round(self, order: _Order, antenna: int) -> float:
        baseband = self._baseband[order.protocol is AirProtocol.GB29768]
        answers = self.air.round(
            self.now, antenna, protocol=order.protocol, power_dbm=self._power[antenna], session=baseband[2] & 3,
            target=baseband[3] & 1, authenticate=order.safe_mark,
            select=order.filter,
        )  # fmt: skip
        frequency = self._frequency()
        return self.send_reads(answers, lambda answer: self._notice(order, answer, antenna, frequency))

    def _notice(self, order: _Order, answer: Answer, antenna: int, frequency: int) -> bytes:
        tag = answer.tag
        raw = max(0, min(255, round((answer.rssi_dbm + 90) * 255 / 60)))
        data = len(tag.epc).to_bytes(2) + tag.epc + tag.pc + bytes((antenna, 0x01, raw))
        data += self._read_with(order, tag)
        if order.protocol is AirProtocol.GEN2:
            data += b"\x08" + frequency.to_bytes(4)
        return gx_frame(GX_BASE | GX_NOTICE, _NOTICE[order.protocol], data)

    def _read_with(self, order: _Order, tag: Tag) -> bytes:
        """The result of what was to be read or proved beside the EPC, and the words."""
        if (order.tid_words, order.user, order.code) == (None, None, None) and not order.safe_mark:
            return b""
        if order.safe_mark and tag.authentication is Authentication.FAILS:
            return bytes((0x02, IDENTIFY))
        words, error = b"", 0
        if order.tid_words is not None:
            tid = tag.tid[: 2 * order.tid_words]
            if order.tid_fixed and len(tid) < 2 * order.tid_words:
                error = OVERRUN
            else:
                words += b"\x03" + len(tid).to_bytes(2) + tid
        for field, bank, asked in ((0x04, 3, order.user), (0x0A, 1, order.code)):
            if asked is None:
                continue
            result = read_bank(tag, bank, *asked, order.password)
            if result.data:
                words += bytes((field,)) + len(result.data).to_bytes(2) + result.data
            else:
                error = PASSWORD if result.wrong_password else LOCKED if result.locked else OVERRUN
        return bytes((0x02, error)) + words

    def _frequency(self) -> int:
        first, spacing, count = _BANDS[self._band]
        return self.scene.radio.frequency_khz or first + spacing * self.air.channel(count)

    # ---------------------------------------------------------------------------------------- settings

    def _capabilities(self, _: bytes) -> bytes:
        power = bytes((_MIN_POWER, self.setup.max_power_dbm, self.setup.antennas))
        return power + len(_BANDS).to_bytes(2) + bytes(_BANDS) + len(_PROTOCOLS).to_bytes(2) + bytes(_PROTOCOLS)

    def _set_power(self, data: bytes) -> bytes:
        """Pairs of antenna and dBm; FF and a flag say whether it is kept."""
        if not data or len(data) % 2:
            raise Refusal(2)
        for antenna, dbm in zip(data[::2], data[1::2], strict=True):
            if antenna == 0xFF:
                continue
            if antenna not in self._power:
                raise Refusal(1)
            if not _MIN_POWER <= dbm <= self.setup.max_power_dbm:
                raise Refusal(2)
            self._power[antenna] = dbm
        return _OK

    def _get_power(self, _: bytes) -> bytes:
        return b"".join(bytes(pair) for pair in self._power.items())

    def _set_band(self, data: bytes) -> bytes:
        if len(data) != 1 or data[0] not in _BANDS:
            raise Refusal(1)
        self._band = data[0]
        return _OK

    def _set_baseband(self, gb: bool) -> Callable[[bytes], bytes]:
        """Pairs 01 speed, 02 Q or CIN and CCN, 03 session, 04 inventoried flag."""

        def put(data: bytes) -> bytes:
            if len(data) % 2 or any(not 1 <= part <= 4 for part in data[::2]):
                raise Refusal(1)
            values = bytearray(self._baseband[gb])
            for part, value in zip(data[::2], data[1::2], strict=True):
                values[part - 1] = value
            if values[2] > 3:
                raise Refusal(3)
            self._baseband[gb] = bytes(values)
            return _OK

        return put

    def _reader_info(self, _: bytes) -> bytes:
        """Serial number, seconds since power-up, compile time, 01 version."""
        serial, compiled = b"EMULATED", b"2024-01-01"
        head = len(serial).to_bytes(2) + serial + int(self.now).to_bytes(4)
        return head + len(compiled).to_bytes(2) + compiled + bytes((0x01, 1, 1, 0, 0))

    def _reset(self, _: bytes) -> None:
        self.reset_for(0.5)

    def _refused(self, protocol: AirProtocol) -> Callable[[bytes], bytes]:
        """Writing, locking, killing: no tag here gives way."""

        def refuse(_: bytes) -> bytes:
            answers = self.air.round(self.now, 1, protocol=protocol, power_dbm=self._power[1])
            raise Refusal(WRITE_PASSWORD if answers else WRITE_NO_TAG)

        return refuse


class _Fields:
    """Reads a command's data from the front; Refusal where it ends too early."""

    def __init__(self, data: bytes, error: int) -> None:
        self._data, self.error = data, error

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, size: int) -> bytes:
        if len(self._data) < size:
            raise Refusal(self.error)
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size))


def _read_order(data: bytes, protocol: AirProtocol, ports: int) -> _Order:
    """The data of commands 10 and 50; Refusal with the number of the part that is wrong."""
    gb = protocol is AirProtocol.GB29768
    fields = _Fields(data, BAD_PORT)
    mask = fields.number(4)
    antennas = tuple(port + 1 for port in range(32) if mask >> port & 1)
    if not antennas or antennas[-1] > ports:
        raise Refusal(BAD_PORT)
    endless = fields.number() == 1
    other = OTHER if gb else OTHER + 1
    tid, user, code, password, safe, chosen = None, None, None, 0, False, None
    while fields:
        part = fields.number()
        fields.error = _WRONG.get(part, other)
        if part == 0x01:
            chosen = _filter(fields.take(fields.number(2)))
        elif part == 0x02:
            tid = (fields.number(), fields.number())
        elif part == 0x03:
            fields.take(1 if gb else 0)  # the user area of a GB tag has parts
            user = (fields.number(2), fields.number())
        elif part == 0x05:
            password = fields.number(4)
        elif part == 0x06 and gb:
            safe = bool(fields.number())
        elif part == 0x09 and not gb:
            code = (fields.number(2), fields.number())
        else:
            raise Refusal(other)
    return _Order(
        protocol, antennas, endless, chosen, tid[1] if tid else None, bool(tid and tid[0]), user, code, password, safe
    )  # fmt: skip


def _filter(data: bytes) -> Callable[[Tag], bool]:
    """Area (1 EPC, 2 TID, 3 user), first bit, bits, pattern."""
    fields = _Fields(data, BAD_FILTER)
    area, bit, length = fields.number(), fields.number(2), fields.number()
    pattern = fields.take((length + 7) // 8)
    if fields or area not in (1, 2, 3):
        raise Refusal(BAD_FILTER)
    return lambda tag: matches(tag, area, bit, length, pattern)
