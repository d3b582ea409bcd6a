"""The panel's SPI bus: luma's own, with its lines D/C and reset on pins of gpiozero.

Left to itself luma takes them by RPi.GPIO: one library more for the pins of which keys and sound have one already, and
in its first form one that knows no Pi 5 and wants a device (/dev/gpiomem) that the program is not given.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from typing import Any

from gpiozero import DigitalOutputDevice, Factory
from luma.core.interface import serial

from hw.errors import DeviceNotFoundError
from hw.pins import pin_errors


class SpiBus:
    """Stands where luma's serial interface stands."""

    def __init__(self, *, dc: int, reset: int, factory: Factory | None = None, port: Any = None) -> None:
        """GPIO numbers (BCM). `port` is like a `spidev.SpiDev` and stands in its place.

        DeviceNotFoundError without the pins; OSError, ImportError or luma's Error without the bus. Then all is let go:
        the next try needs the pins again.
        """
        with ExitStack() as stack:
            self._lines = _Lines(factory)
            stack.callback(self._lines.close)
            self._spi = serial.spi(spi=port, gpio=self._lines, gpio_DC=dc, gpio_RST=reset)
            stack.pop_all()

    def command(self, *values: int) -> None:
        """Bytes for the controller; OSError."""
        self._spi.command(*values)

    def data(self, values: Any) -> None:
        """Bytes for its RAM; OSError."""
        self._spi.data(values)

    def cleanup(self) -> None:
        """Let go of bus and lines; harmless twice."""
        self._lines.close()
        self._spi.cleanup()


class _Lines:
    """As much of RPi.GPIO as luma uses."""

    OUT, LOW, HIGH = "out", False, True

    def __init__(self, factory: Factory | None) -> None:
        self._factory = factory
        self._devices: dict[int, DigitalOutputDevice] = {}

    def setup(self, pin: int, _: str) -> None:
        try:
            self._devices[pin] = DigitalOutputDevice(pin, pin_factory=self._factory)
        except pin_errors() as exc:
            raise DeviceNotFoundError("panel", f"pin {pin}: {exc}") from exc

    def output(self, pin: int, level: bool) -> None:
        try:
            self._devices[pin].value = level
        except pin_errors() as exc:
            raise OSError(errno.EIO, f"pin {pin}: {exc}") from exc

    def close(self) -> None:
        for device in self._devices.values():
            device.close()
        self._devices = {}
