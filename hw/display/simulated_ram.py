"""Panels without hardware whose RAM holds whole pixels: SSD1322 (four bits of grey) and SSD1351 (16 bits of colour).

Both (Solomon Systech, SSD1322 data sheet 1.2, SSD1351 data sheet 1.5) take a command with D/C# low and its arguments
as data. What the real controller would misread, and how else a module could be mounted, is refused: a picture that
ignores it would be a wrong picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from PIL import Image

from hw.display.simulator import RAM_AT_POWER_UP, Module, PanelProtocolError, byte

_COLUMNS, _ROWS, _WRITE, _LOCK = 0x15, 0x75, 0x5C, 0xFD
_ALL_OFF, _ALL_ON, _NORMAL, _INVERSE = 0xA4, 0xA5, 0xA6, 0xA7


class _RamModule(Module):
    """A window of the RAM, filled pixel by pixel; a command waits for its arguments."""

    size: tuple[int, int]
    arguments: Mapping[int, int]  # command to number of arguments
    only: Mapping[int, tuple[int, ...]]  # arguments as this module is mounted
    columns: tuple[int, int]  # of the RAM behind the glass, in units of the column address
    pixels_per_column: int
    bytes_per_pixel: float
    keyed: frozenset[int] = frozenset()  # commands that a second key has to open
    _got: list[int]
    _lit: bool
    _open: bool

    def command(self, *values: int) -> None:
        """A byte sent with D/C# low."""
        self._check_bus()
        for value in values:
            self.commands += 1
            self._finish()
            opcode = byte(value)
            if opcode not in self.arguments:
                raise PanelProtocolError(f"unknown command {opcode:02X}h")
            if opcode in self.keyed and not self._open:
                raise PanelProtocolError(f"command {opcode:02X}h is locked")
            self._opcode, self._got = opcode, []
            if not self.arguments[opcode]:
                self._obey()

    def data(self, values: Iterable[int]) -> None:
        """Bytes sent with D/C# high: arguments, or pixels after 5Ch."""
        self._check_bus()
        for value in values:
            if self._opcode == _WRITE:
                self._write(byte(value))
                continue
            self.commands += 1
            self._got.append(byte(value))
            if len(self._got) > self.arguments[self._opcode]:
                raise PanelProtocolError(f"too many arguments for command {self._opcode:02X}h")
            if len(self._got) == self.arguments[self._opcode]:
                self._obey()

    @property
    def on(self) -> bool:
        """Whether the panel gives light at all."""
        return self._plugged and self._lit

    # ---------------------------------------------------------------------------------------- inside

    def _power_up(self) -> None:
        pixels = self.size[0] * self.size[1]
        self._ram = bytearray([RAM_AT_POWER_UP]) * int(pixels * self.bytes_per_pixel)
        self._opcode = 0xE3
        self._got = []
        self._window = {_COLUMNS: self.columns, _ROWS: (0, self.size[1] - 1)}
        self._at = 0  # byte in the window
        self._lit = False
        self._open = False
        self._shows = _NORMAL
        self.contrast = 0x7F

    def _finish(self) -> None:
        if self._opcode != _WRITE and len(self._got) != self.arguments.get(self._opcode, 0):
            raise PanelProtocolError(f"a command in the middle of command {self._opcode:02X}h")

    def _obey(self) -> None:
        opcode, got = self._opcode, tuple(self._got)
        if opcode in self.only and got != self.only[opcode]:
            raise PanelProtocolError(f"command {opcode:02X}h with {got}")
        if opcode in self._window:
            first, last = self.columns if opcode == _COLUMNS else (0, self.size[1] - 1)
            if not first <= got[0] <= got[1] <= last:
                raise PanelProtocolError(f"window {got}")
            self._window[opcode] = (got[0], got[1])
        elif opcode == _WRITE:
            self._at = 0
        elif opcode in (0xAE, 0xAF):
            self._lit = opcode == 0xAF
        elif opcode in (_ALL_OFF, _ALL_ON, _NORMAL, _INVERSE):
            self._shows = opcode
        elif opcode == 0xC1:
            self.contrast = got[0]
        elif opcode == _LOCK and got[0] in (0xB0, 0xB1):
            self._open = got[0] == 0xB1

    def _write(self, value: int) -> None:
        """The next byte of the window, row by row; after the last it begins anew."""
        (left, right), (top, bottom) = self._window[_COLUMNS], self._window[_ROWS]
        width = int((right - left + 1) * self.pixels_per_column * self.bytes_per_pixel)
        row, offset = divmod(self._at, width)
        start = int((left - self.columns[0]) * self.pixels_per_column * self.bytes_per_pixel)
        self._ram[int((top + row) * self.size[0] * self.bytes_per_pixel) + start + offset] = value
        self.data_bytes += 1
        self._at += 1
        if self._at == width * (bottom - top + 1):
            self._at = 0
            self.frames += 1


class SimulatedSsd1322(_RamModule):
    """256 x 64 in 16 greys, mounted as A0h 14h 11h expects; 120 column addresses of four pixels, 64 of them in use."""

    size = (256, 64)
    columns = (0x1C, 0x5B)
    pixels_per_column = 4
    bytes_per_pixel = 0.5
    arguments = {  # noqa: RUF012 - a table
        0x15: 2, 0x5C: 0, 0x75: 2, 0xA0: 2, 0xA1: 1, 0xA2: 1, 0xA4: 0, 0xA5: 0, 0xA6: 0, 0xA7: 0, 0xA9: 0, 0xAB: 1,
        0xAE: 0, 0xAF: 0, 0xB1: 1, 0xB3: 1, 0xB4: 2, 0xB5: 1, 0xB6: 1, 0xB9: 0, 0xBB: 1, 0xBE: 1, 0xC1: 1, 0xC7: 1,
        0xCA: 1, 0xD1: 2, 0xE3: 0, 0xFD: 1,
    }  # fmt: skip
    only = {0xA0: (0x14, 0x11), 0xA1: (0,), 0xA2: (0,), 0xCA: (0x3F,), 0xFD: (0x12,)}  # noqa: RUF012 - a table

    def image(self) -> Image.Image:
        """What the glass shows: mode "L", a grey of 15 is 255."""
        if not self.on or self._shows in (_ALL_OFF, _ALL_ON):
            return Image.new("L", self.size, 255 * (self.on and self._shows == _ALL_ON))
        flip = 15 * (self._shows == _INVERSE)
        greys = [17 * (half ^ flip) for value in self._ram for half in (value >> 4, value & 15)]
        return Image.frombytes("L", self.size, bytes(greys))


class SimulatedSsd1351(_RamModule):
    """128 x 128 in 65,536 colours, red first, mounted as A0h 70h expects."""

    size = (128, 128)
    columns = (0, 127)
    pixels_per_column = 1
    bytes_per_pixel = 2
    arguments = {  # noqa: RUF012 - a table
        0x15: 2, 0x5C: 0, 0x75: 2, 0xA0: 1, 0xA1: 1, 0xA2: 1, 0xA4: 0, 0xA5: 0, 0xA6: 0, 0xA7: 0, 0xAB: 1, 0xAE: 0,
        0xAF: 0, 0xB1: 1, 0xB3: 1, 0xB4: 3, 0xB5: 1, 0xB6: 1, 0xB9: 0, 0xBB: 1, 0xBE: 1, 0xC1: 3, 0xC7: 1, 0xCA: 1,
        0xE3: 0, 0xFD: 1,
    }  # fmt: skip
    only = {0xA0: (0x70,), 0xA1: (0,), 0xA2: (0,), 0xCA: (0x7F,)}  # noqa: RUF012 - a table
    keyed = frozenset({0xA2, 0xB1, 0xB3, 0xBB, 0xBE, 0xC1})

    def image(self) -> Image.Image:
        """What the glass shows: mode "RGB", the most of a colour is 255."""
        if not self.on or self._shows in (_ALL_OFF, _ALL_ON):
            return Image.new("RGB", self.size, (255 * (self.on and self._shows == _ALL_ON),) * 3)
        flip = 0xFFFF * (self._shows == _INVERSE)
        words = (upper << 8 | lower for upper, lower in zip(self._ram[0::2], self._ram[1::2], strict=True))
        return Image.frombytes("RGB", self.size, b"".join(_rgb(word ^ flip) for word in words))


def _rgb(word: int) -> bytes:
    return bytes(((word >> 11) * 255 // 31, (word >> 5 & 63) * 255 // 63, (word & 31) * 255 // 31))
