"""What a finger does, from the levels of the keys' contacts: debounce, hold and repeat, with the clock as an argument.

gpiozero's own `bounce_time` and `hold_time` run on threads of their own and are ignored by its mock pins, so what an
officer feels would never have been tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hw.buttons.keys import Key, KeyEvent, Touch

STABLE_MS = 20  # a level counts once it has stayed so long: contacts bounce for 5 to 15 ms
HOLD_MS = 1_500
REPEAT_AFTER_MS, REPEAT_MS = 500, 150


@dataclass(slots=True)
class _Contact:
    """One key. `closed` and `since_ms` are of the wire, `down` and `pressed_ms` of the finger."""

    closed: bool = False
    since_ms: int = 0
    down: bool = False
    pressed_ms: int = 0
    repeat_ms: int = 0
    held: bool = False


class Touches:
    """Turns edges of contacts into key events. Times are integer milliseconds that never go back."""

    def __init__(self) -> None:
        self._contacts = {key: _Contact() for key in Key}

    def edge(self, key: Key, closed: bool, now_ms: int) -> None:
        """The contact of a key has closed or opened."""
        contact = self._contacts[key]
        if contact.closed != closed:
            contact.closed, contact.since_ms = closed, now_ms

    def poll(self, now_ms: int) -> list[KeyEvent]:
        """What the fingers have done since the last call."""
        return [KeyEvent(key, touch) for key, contact in self._contacts.items() for touch in _touches(contact, now_ms)]

    def due_ms(self) -> int | None:
        """When `poll` will have something to say; None while no key is touched."""
        return min((due for contact in self._contacts.values() if (due := _due(contact)) is not None), default=None)


def _touches(contact: _Contact, now_ms: int) -> Iterator[Touch]:
    if contact.closed != contact.down and now_ms - contact.since_ms >= STABLE_MS:
        contact.down, contact.held = contact.closed, False
        contact.pressed_ms, contact.repeat_ms = now_ms, now_ms + REPEAT_AFTER_MS
        yield Touch.PRESS if contact.down else Touch.RELEASE
    if not contact.down:
        return
    if not contact.held and now_ms - contact.pressed_ms >= HOLD_MS:
        contact.held = True
        yield Touch.HOLD
    if now_ms >= contact.repeat_ms:  # a late poll makes one repeat, not as many as were missed
        contact.repeat_ms = now_ms + REPEAT_MS
        yield Touch.REPEAT


def _due(contact: _Contact) -> int | None:
    if contact.closed != contact.down:
        return contact.since_ms + STABLE_MS
    if not contact.down:
        return None
    return contact.repeat_ms if contact.held else min(contact.repeat_ms, contact.pressed_ms + HOLD_MS)
