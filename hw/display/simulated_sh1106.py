"""A panel without hardware: an SH1106 controller (Sino Wealth, data sheet 2.3) down to its bytes.

It has 132 columns of RAM behind 128 columns of glass, and an address counter that stays in its page. luma begins with
commands of the SSD1306 that this data sheet leaves undefined; modules pass over them, and so does this one.
"""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from hw.display.simulator import HEIGHT, PAGES, RAM_AT_POWER_UP, WIDTH, Module, PanelProtocolError, byte

COLUMNS = 132
_FIRST = 2  # column of the RAM behind the left edge of the glass

_ARGUMENTS = frozenset({0x81, 0xA8, 0xAD, 0xD3, 0xD5, 0xD9, 0xDA, 0xDB})
_UNDEFINED = frozenset({0x20, 0x8D})  # sent by luma
_IN_ORDER = {0xA8: 63, 0xD3: 0}  # other rows or another offset would be another module


class SimulatedSh1106(Module):
    """A 128 x 64 module whose glass is mounted as usual: upright with A1h and C8h. Its pump runs after a reset."""

    def command(self, *values: int) -> None:
        """Bytes sent with A0 low; a command may arrive in several calls."""
        self._check_bus()
        for value in values:
            self.commands += 1
            self._pending.append(byte(value))
            opcode, *arguments = self._pending
            if len(arguments) == (opcode in _ARGUMENTS):
                self._pending.clear()
                self._obey(opcode, arguments[0] if arguments else 0)

    def data(self, values: Iterable[int]) -> None:
        """Bytes sent with A0 high: columns of eight pixels, lowest bit on top."""
        self._check_bus()
        if self._pending:
            raise PanelProtocolError(f"data in the middle of command {self._pending[0]:02X}h")
        for value in values:
            if self._column >= COLUMNS:
                raise PanelProtocolError("data beyond the last column")
            self._ram[self._page * COLUMNS + self._column] = byte(value)
            self.data_bytes += 1
            self._column += 1
            self.frames += self._page == PAGES - 1 and self._column == _FIRST + WIDTH

    @property
    def on(self) -> bool:
        """Whether the panel gives light at all."""
        return self._plugged and self._lit

    def image(self) -> Image.Image:
        """What the glass shows: mode "1", 255 where a pixel gives light."""
        glass = Image.new("1", (WIDTH, HEIGHT))
        if self.on:
            glass.putdata([255 * self._pixel(x, y) for y in range(HEIGHT) for x in range(WIDTH)])
        return glass

    # ---------------------------------------------------------------------------------------- inside

    def _power_up(self) -> None:
        self._ram = bytearray([RAM_AT_POWER_UP]) * (COLUMNS * PAGES)
        self._pending: list[int] = []
        self._page = self._column = self._start_line = 0
        self.contrast = 0x80
        self._lit = self._inverted = self._all_lit = self._columns_reversed = self._rows_reversed = False

    def _obey(self, opcode: int, argument: int) -> None:
        if opcode <= 0x0F:
            self._column = self._column & 0xF0 | opcode
        elif opcode <= 0x1F:
            self._column = self._column & 0x0F | (opcode & 0x0F) << 4
        elif 0x40 <= opcode <= 0x7F:
            self._start_line = opcode & 0x3F
        elif 0xB0 <= opcode <= 0xB7:
            self._page = opcode & 0x07
        elif opcode == 0x81:
            self.contrast = argument
        elif opcode in (0xA0, 0xA1):
            self._columns_reversed = opcode == 0xA1
        elif opcode in (0xA4, 0xA5):
            self._all_lit = opcode == 0xA5
        elif opcode in (0xA6, 0xA7):
            self._inverted = opcode == 0xA7
        elif opcode in (0xAE, 0xAF):
            self._lit = opcode == 0xAF
        elif opcode in (0xC0, 0xC8):
            self._rows_reversed = opcode == 0xC8
        elif opcode in _IN_ORDER and argument != _IN_ORDER[opcode]:
            raise PanelProtocolError(f"command {opcode:02X}h with {argument}")
        elif opcode not in _ARGUMENTS | _UNDEFINED | {0xE3}:
            raise PanelProtocolError(f"unknown command {opcode:02X}h")

    def _pixel(self, x: int, y: int) -> bool:
        if self._all_lit:
            return True
        # Segment re-mapping acts when the RAM is shown; A1h and C8h are how the glass is mounted.
        column = _FIRST + x if self._columns_reversed else COLUMNS - 1 - _FIRST - x
        row = ((y if self._rows_reversed else HEIGHT - 1 - y) + self._start_line) % HEIGHT
        bit = self._ram[row // 8 * COLUMNS + column] >> row % 8 & 1
        return bool(bit) != self._inverted
