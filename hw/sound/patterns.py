"""What is heard, seen on the LED and felt for each signal: each of the three tells the signals apart by itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HIGH_HZ, MIDDLE_HZ, LOW_HZ = 2_400, 1_600, 500


class Colour(StrEnum):
    """The LED: two diodes, red and green."""

    OFF = "off"
    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Beat:
    """For so many milliseconds: a pitch in hertz (0: silence), a colour, and whether the motor runs."""

    ms: int
    hz: int = 0
    colour: Colour = Colour.OFF
    motor: bool = False


def _beats(count: int, on_ms: int, hz: int, colour: Colour, motor: bool = False) -> tuple[Beat, ...]:
    """`count` beats with a pause of 80 ms after each."""
    return (Beat(on_ms, hz, colour, motor), Beat(80)) * count


PATTERNS: dict[str, tuple[Beat, ...]] = {
    "pass": _beats(1, 120, HIGH_HZ, Colour.GREEN),
    "note": _beats(2, 120, HIGH_HZ, Colour.GREEN),
    "caution": _beats(1, 600, MIDDLE_HZ, Colour.AMBER, motor=True),
    "stop": _beats(3, 250, LOW_HZ, Colour.RED, motor=True),
    "decoded": (Beat(15, MIDDLE_HZ),),
    "refused": _beats(1, 60, LOW_HZ, Colour.AMBER),
}
"""By the name of the signal: the four tones of a verdict, a code read, and nothing read."""
