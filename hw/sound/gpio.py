"""Passive buzzer, two-colour LED and vibration motor on GPIO pins."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from gpiozero import DigitalOutputDevice, Factory, PWMOutputDevice

from hw.errors import HardwareError
from hw.pins import pin_errors
from hw.sound.patterns import Beat, Colour

_GREEN = frozenset({Colour.GREEN, Colour.AMBER})
_RED = frozenset({Colour.RED, Colour.AMBER})


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundPins:
    """GPIO numbers (BCM)."""

    buzzer: int = 12  # a pin with hardware PWM
    green: int = 23
    red: int = 22
    motor: int = 27


class GpioOutputs:
    """The real outputs."""

    def __init__(self, pins: SoundPins = SoundPins(), factory: Factory | None = None) -> None:
        """HardwareError when the machine has no such pins or another program holds them."""
        try:
            with ExitStack() as stack:
                self._buzzer = stack.enter_context(PWMOutputDevice(pins.buzzer, pin_factory=factory))
                self._green, self._red, self._motor = (
                    stack.enter_context(DigitalOutputDevice(pin, pin_factory=factory))
                    for pin in (pins.green, pins.red, pins.motor)
                )
                stack.pop_all()  # all four are there; else none is held
        except pin_errors() as exc:
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
        except pin_errors() as exc:
            raise HardwareError("sound", str(exc)) from exc

    def close(self) -> None:
        """Silent and dark."""
        for device in (self._buzzer, self._green, self._red, self._motor):
            device.close()
