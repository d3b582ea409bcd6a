"""A panel without hardware: an SSD1306 or SSD1309 controller (Solomon Systech) down to its bytes.

It stands where luma's serial interface stands, so the real driver runs against it. Clauses and tables are
those of the SSD1306 data sheet, revision 1.5; the SSD1309 has the same commands apart from the
supply. What the real controller would silently misread, and what this product does not use (page and vertical
addressing, scrolling, fading, zoom), is refused: a picture that ignores it would be a wrong picture.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image

WIDTH, HEIGHT, PAGES = 128, 64, 8

RAM_AT_POWER_UP = 0xA5  # the RAM holds anything then; a driver that forgets to clear it shows stripes
_HORIZONTAL, _PAGE_ADDRESSING = 0b00, 0b10  # values of command 20h


class PanelProtocolError(Exception):
    """Bytes that the controller does not understand: a mistake in the driver, not a fault of the panel."""


@dataclass
class _Registers:
    """What the commands set, with the values after reset (clause 8.5)."""

    on: bool = False  # AEh/AFh
    inverted: bool = False  # A6h/A7h
    all_lit: bool = False  # A4h/A5h
    contrast: int = 0x7F  # 81h
    charge_pump: bool = False  # 8Dh
    mode: int = _PAGE_ADDRESSING  # 20h
    columns: tuple[int, int] = (0, WIDTH - 1)  # 21h
    pages: tuple[int, int] = (0, PAGES - 1)  # 22h
    column: int = 0
    page: int = 0
    start_line: int = 0  # 40h-7Fh
    offset: int = 0  # D3h
    rows: int = HEIGHT  # A8h
    columns_reversed: bool = False  # A0h/A1h
    rows_reversed: bool = False  # C0h/C8h

    def change(self, values: dict[str, Any]) -> None:
        """Take over what a command sets."""
        for name, value in values.items():
            setattr(self, name, value)

    def advance(self) -> bool:
        """Move the address counter in horizontal mode (clause 10.1.3); True when the window begins anew."""
        self.column += 1
        if self.column <= self.columns[1]:
            return False
        self.column = self.columns[0]
        self.page += 1
        if self.page <= self.pages[1]:
            return False
        self.page = self.pages[0]
        return True


class Module:
    """What every simulated module has: a bus that can fail, and counters.

    The device side is `command`, `data` and `cleanup`; the world side is `image`, the counters, `unplug` and
    `replug`.
    """

    def __init__(self) -> None:
        self.commands = 0  # command bytes, with their arguments
        self.data_bytes = 0  # of the RAM
        self.frames = 0  # how often the address counter came back to the start of its window
        self.closed = False
        self._plugged = True
        self._power_up()

    def cleanup(self) -> None:
        """The bus is given back."""
        self.closed = True

    def unplug(self) -> None:
        """From now on the bus fails, as with a loose connector."""
        self._plugged = False

    def replug(self) -> None:
        """The connector holds again; the controller has lost everything it was told."""
        self._plugged = True
        self._power_up()

    def image(self) -> Image.Image:
        """What the glass shows; in which mode is the module's own."""
        raise NotImplementedError

    def _power_up(self) -> None:
        raise NotImplementedError

    def _check_bus(self) -> None:
        if self.closed:
            raise PanelProtocolError("the bus was given back")
        if not self._plugged:
            raise OSError(errno.EREMOTEIO, "no acknowledgement")


class SimulatedPanel(Module):
    """A 128 x 64 module whose glass is mounted as usual: upright with A1h and C8h.

    An SSD1306 makes its voltage itself and stays dark without the charge pump (application note in the data sheet); an
    SSD1309 is fed from outside and luma's charge pump command has no effect on it.
    """

    def __init__(self, *, needs_charge_pump: bool = True) -> None:
        self.needs_charge_pump = needs_charge_pump
        super().__init__()

    # ------------------------------------------------------------------------------------ device side

    def command(self, *values: int) -> None:
        """Bytes sent with D/C# low (clause 8.1.3); a command may arrive in several calls."""
        self._check_bus()
        for value in values:
            self.commands += 1
            self._pending.append(byte(value))
            opcode, *arguments = self._pending
            argument_count, changes = _lookup(opcode)
            if len(arguments) == argument_count:
                self._pending.clear()
                self._registers.change(changes(opcode, arguments))

    def data(self, values: Iterable[int]) -> None:
        """Bytes sent with D/C# high: columns of eight pixels, lowest bit on top (clause 8.7)."""
        self._check_bus()
        if self._pending:
            raise PanelProtocolError(f"data in the middle of command {self._pending[0]:02X}h")
        if self._registers.mode != _HORIZONTAL:
            raise PanelProtocolError("data before horizontal addressing was chosen")
        for value in values:
            self.data_bytes += 1
            self._write(byte(value))

    # ------------------------------------------------------------------------------------- world side

    @property
    def on(self) -> bool:
        """Whether the panel gives light at all."""
        powered = self._registers.charge_pump or not self.needs_charge_pump
        return self._plugged and self._registers.on and powered

    @property
    def contrast(self) -> int:
        """The contrast step, 0 to 255 (command 81h)."""
        return self._registers.contrast

    def image(self) -> Image.Image:
        """What the glass shows: mode "1", 255 where a pixel gives light."""
        glass = Image.new("1", (WIDTH, HEIGHT))
        if self.on:
            glass.putdata([255 * self._lit(x, y) for y in range(HEIGHT) for x in range(WIDTH)])
        return glass

    # ---------------------------------------------------------------------------------------- inside

    def _power_up(self) -> None:
        self._registers = _Registers()
        self._ram = bytearray([RAM_AT_POWER_UP]) * (WIDTH * PAGES)
        self._pending: list[int] = []

    def _write(self, value: int) -> None:
        registers = self._registers
        # Column re-mapping acts when data is written, not when it is shown (table 9-1, A0h/A1h).
        segment = WIDTH - 1 - registers.column if registers.columns_reversed else registers.column
        self._ram[registers.page * WIDTH + segment] = value
        self.frames += registers.advance()

    def _lit(self, x: int, y: int) -> bool:
        registers = self._registers
        line = y if registers.rows_reversed else HEIGHT - 1 - y
        if line >= registers.rows:
            return False
        if registers.all_lit:
            return True
        row = (line + registers.start_line + registers.offset) % HEIGHT
        bit = self._ram[row // 8 * WIDTH + WIDTH - 1 - x] >> row % 8 & 1
        return bool(bit) != registers.inverted


def byte(value: int) -> int:
    """The value, or PanelProtocolError."""
    if not 0 <= value <= 0xFF:
        raise PanelProtocolError(f"not a byte: {value}")
    return value


# ------------------------------------------------------------------------------- commands (tables 9-1 to 9-4)

_Changes = Callable[[int, list[int]], dict[str, Any]]  # opcode and arguments → new values of registers


def _flag(name: str, bit: int = 0x01) -> _Changes:
    """A pair of commands that differ in one bit."""
    return lambda opcode, _: {name: bool(opcode & bit)}


def _window(plural: str, singular: str, size: int) -> _Changes:
    """A window of the RAM; the address counter goes to its start."""

    def changes(_: int, arguments: list[int]) -> dict[str, Any]:
        if not arguments[0] <= arguments[1] < size:
            raise PanelProtocolError(f"{singular} window {arguments}")
        return {plural: tuple(arguments), singular: arguments[0]}

    return changes


def _addressing(_: int, arguments: list[int]) -> dict[str, Any]:
    if arguments[0] != _HORIZONTAL:
        raise PanelProtocolError(f"memory addressing mode {arguments[0]:02X}h")
    return {"mode": arguments[0]}


def _charge_pump(_: int, arguments: list[int]) -> dict[str, Any]:
    if arguments[0] not in (0x10, 0x14):
        raise PanelProtocolError(f"charge pump setting {arguments[0]:02X}h")
    return {"charge_pump": arguments[0] == 0x14}


def _multiplex(_: int, arguments: list[int]) -> dict[str, Any]:
    if not 15 <= arguments[0] <= 63:
        raise PanelProtocolError(f"multiplex ratio {arguments[0]}")
    return {"rows": arguments[0] + 1}


def _unseen(_: int, __: list[int]) -> dict[str, Any]:
    return {}  # timing, voltages, row wiring, "deactivate scroll", NOP: nothing that `image` could show


# first opcode, last opcode, number of arguments, effect
_COMMANDS: tuple[tuple[int, int, int, _Changes], ...] = (
    (0x20, 0x20, 1, _addressing),
    (0x21, 0x21, 2, _window("columns", "column", WIDTH)),
    (0x22, 0x22, 2, _window("pages", "page", PAGES)),
    (0x2E, 0x2E, 0, _unseen),
    (0x40, 0x7F, 0, lambda opcode, _: {"start_line": opcode & 0x3F}),
    (0x81, 0x81, 1, lambda _, arguments: {"contrast": arguments[0]}),
    (0x8D, 0x8D, 1, _charge_pump),
    (0xA0, 0xA1, 0, _flag("columns_reversed")),
    (0xA4, 0xA5, 0, _flag("all_lit")),
    (0xA6, 0xA7, 0, _flag("inverted")),
    (0xA8, 0xA8, 1, _multiplex),
    (0xAE, 0xAF, 0, _flag("on")),
    (0xC0, 0xC0, 0, _flag("rows_reversed", 0x08)),
    (0xC8, 0xC8, 0, _flag("rows_reversed", 0x08)),
    (0xD3, 0xD3, 1, lambda _, arguments: {"offset": arguments[0] & 0x3F}),
    (0xD5, 0xD5, 1, _unseen),
    (0xD9, 0xDB, 1, _unseen),
    (0xE3, 0xE3, 0, _unseen),
)


def _lookup(opcode: int) -> tuple[int, _Changes]:
    for first, last, argument_count, changes in _COMMANDS:
        if first <= opcode <= last:
            return argument_count, changes
    raise PanelProtocolError(f"unknown command {opcode:02X}h")
