"""Passive buzzer, two-colour LED and vibration motor on GPIO pins."""

from __future__ import annotations

from dataclasses import dataclass

from gpiozero import DigitalOutputDevice, Factory, PWMOutputDevice
from gpiozero.exc import GPIOZeroError

from hw.errors import HardwareError
from hw.sound.patterns import Beat, Colour

_GREEN = frozenset({Colour.GREEN, Colour.AMBER})
_RED = frozenset({Colour.RED, Colour.AMBER})


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundPins:
    """GPIO numbers (BCM)."""

    buzzer: int = 12  # a pin with hardware PWM
    green: int = 23
    red: int = 24
    motor: int = 25


class GpioOutputs:
    """The real outputs."""

    def __init__(self, pins: SoundPins = SoundPins(), factory: Factory | None = None) -> None:
        """HardwareError when the machine has no such pins or another program holds them."""
        try:
            self._buzzer = PWMOutputDevice(pins.buzzer, pin_factory=factory)
            self._green, self._red, self._motor = (
                DigitalOutputDevice(pin, pin_factory=factory) for pin in (pins.green, pins.red, pins.motor)
            )
        except (GPIOZeroError, ImportError, OSError) as exc:
            raise HardwareError("sound", str(exc)) from exc

    def put(self, beat: Beat) -> None:
        """Sound, light and motor as the beat says."""
        try:
            if beat.hz:
                self._buzzer.frequency = beat.hz
            self._buzzer.value = 0.5 if beat.hz else 0
            self._green.value = beat.colour in _GREEN
            self._red.value = beat.colour in _RED
            self._motor.value = beat.motor
        except (GPIOZeroError, OSError) as exc:
            raise HardwareError("sound", str(exc)) from exc

    def close(self) -> None:
        """Silent and dark."""
        for device in (self._buzzer, self._green, self._red, self._motor):
            device.close()
