"""The six keys of the handheld, and what a finger does with one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Key(StrEnum):
    """A key by its place: OK, the trigger, lies in the middle of the cross; BACK beside it."""

    UP = "up"
    LEFT = "left"
    OK = "ok"
    RIGHT = "right"
    DOWN = "down"
    BACK = "back"


class Touch(StrEnum):
    """PRESS comes once for each finger; HOLD once, when it stays; REPEAT while it stays longer; RELEASE at the end."""

    PRESS = "press"
    HOLD = "hold"
    REPEAT = "repeat"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """One thing a finger did."""

    key: Key
    touch: Touch = Touch.PRESS
