"""Typing digits with five keys, as in a plate: one press takes five of them, a second one of these."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from firmware.plate_entry import DONE, PLACES, Group
from hw.buttons.keys import Key

DIGITS = (Group(tuple("01234")), Group(tuple("56789")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Digits as far as they are typed, `shortest` to `longest` of them; `half` of the ten was taken for the next one.

    They may be a PIN, and stand in no text that is made of this.
    """

    shortest: int
    longest: int
    text: str = field(default="", repr=False)
    half: int | None = field(default=None, repr=False)
    done: bool = False


def digit_choices(entry: Digits) -> Group:
    """What the five keys stand for now."""
    if entry.half is not None:
        return DIGITS[entry.half]
    more = DIGITS if len(entry.text) < entry.longest else (None, None)
    return Group((*more, DONE if len(entry.text) >= entry.shortest else None, None, None))


def digit_pressed(entry: Digits, key: Key) -> Digits:
    """The entry after one key; BACK takes the last press or digit away; a key without a choice does nothing."""
    if key is Key.BACK:
        return replace(entry, half=None) if entry.half is not None else replace(entry, text=entry.text[:-1])
    place = PLACES.index(key)
    choice = digit_choices(entry).places[place]
    if choice is None:
        return entry
    if isinstance(choice, Group):
        return replace(entry, half=place)
    if choice == DONE:
        return replace(entry, done=True)
    return replace(entry, text=entry.text + choice, half=None)
