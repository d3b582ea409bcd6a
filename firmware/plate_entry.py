"""Typing a plate, or a card's number, with five keys: every press takes one of at most five groups, until one character
is left.

The keys stand for their places on the panel: up, left, middle, right, down. A character takes two presses, a rare one
three, the device's own province one; moving a cursor over 34 characters would take four and more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw.buttons.keys import Key
from verifier.cache.keys import CARD_DIGITS
from verifier.plates import PROVINCES, kinds_of

PLACES = (Key.UP, Key.LEFT, Key.OK, Key.RIGHT, Key.DOWN)
LONGEST = 9  # characters: 川XS1234应急

DONE = "\n"  # the choice that ends the entry; no character of a plate


@dataclass(frozen=True, slots=True)
class Group:
    """What one press takes: five places, each a text that is appended, a further group, or nothing."""

    places: tuple[str | Group | None, ...]

    @property
    def label(self) -> str:
        """All characters in it, in order."""
        return "".join(p.label if isinstance(p, Group) else p or "" for p in self.places)


@dataclass(frozen=True, slots=True)
class Entry:
    """A plate as far as it is typed; `path` holds the groups taken for the next character, `done` the officer's OK.

    `card`: the number on the card of a tag instead, which has a fixed length and no check digit.
    """

    province: str
    text: str = ""
    path: tuple[int, ...] = ()
    done: bool = False
    card: bool = False

    @property
    def complete(self) -> bool:
        """The text is one that a plate can have."""
        return bool(kinds_of(self.text))


def choices(entry: Entry) -> Group:
    """What the five keys stand for now."""
    group = _choices_at(entry)
    for place in entry.path:
        inner = group.places[place]
        if not isinstance(inner, Group):
            break
        group = inner
    return group


def ends(choice: str | Group | None) -> bool:
    """Whether this choice is the officer's "that is the plate"."""
    return choice == DONE


def pressed(entry: Entry, key: Key) -> Entry:
    """The entry after one key; BACK takes the last group or character away; a key without a choice does nothing."""
    if key is Key.BACK:
        if entry.path:
            return replace(entry, path=entry.path[:-1])
        return replace(entry, text=entry.text[:-1])
    place = PLACES.index(key)
    choice = choices(entry).places[place]
    if choice is None:
        return entry
    if isinstance(choice, Group):
        return replace(entry, path=(*entry.path, place))
    if choice == DONE:
        return replace(entry, done=True)
    return replace(entry, text=entry.text + choice, path=())


# ------------------------------------------------------------------------------------- what stands in each place


def _five(*choices: str | Group | None) -> Group:
    return Group(choices + (None,) * (len(PLACES) - len(choices)))


def _row(characters: str) -> Group:
    return _five(*characters)


_DIGITS = (_row("01234"), _row("56789"))
_EARLY, _LATE = (_row("ABCDE"), _row("FGHJK")), (_row("LMNPQ"), _row("RSTUV"), _row("WXYZ"))
_OFFICE = _five(*_EARLY, *_LATE[:2], _five("W", "X", "Y", "Z", _five(*_DIGITS)))
_SERIAL = _five(_DIGITS[0], _DIGITS[1], _five(*_LATE), *_EARLY)
_LAST = _five(_DIGITS[0], _DIGITS[1], _five(*_LATE, _row("挂学警港澳"), _row("使领")), *_EARLY)
_NUMBER = _five(_DIGITS[0], _DIGITS[1])
_EMERGENCY = _five("应急")
_END = _five(None, None, DONE)
_CARD = _five(*_DIGITS, None, _row("ABC"), _row("DEF"))


def _choices_at(entry: Entry) -> Group:
    at = len(entry.text)
    if entry.card:
        return _CARD if at < CARD_DIGITS else _END
    if at == 0:
        return _provinces(entry.province)
    if entry.text.startswith("使"):
        return _NUMBER if at < 7 else _END
    if at == 7 and entry.text[1:3] == "XS":
        return _EMERGENCY
    if at == 7:
        return _eighth(entry)
    if at > 7:
        return _END
    return _OFFICE if at == 1 else _LAST if at == 6 else _SERIAL


def _eighth(entry: Entry) -> Group:
    """After seven characters: the eighth of a new-energy plate, or the end where the seven are a plate."""
    longer = [_only(entry.text, group) for group in (*_DIGITS, *_EARLY)]
    return Group((longer[0], longer[1], DONE if entry.complete else None, longer[2], longer[3]))


def _only(text: str, group: Group) -> Group | None:
    """The group without the characters that make no plate."""
    kept = tuple(c if isinstance(c, str) and kinds_of(text + c) else None for c in group.places)
    return Group(kept) if any(kept) else None


def _provinces(own: str) -> Group:
    """The device's own province in the middle, the others and the embassies around it, in the usual order."""
    others = [p for p in PROVINCES if p != own] + ["使"]
    quarter = -(-len(others) // 4)
    up, left, right, down = (_spread(others[at * quarter : (at + 1) * quarter]) for at in range(4))
    return Group((up, left, own, right, down))


def _spread(characters: list[str]) -> Group:
    """At most ten characters over five places."""
    pairs = [characters[at : at + 2] for at in range(0, len(characters), 2)]
    return _five(*(pair[0] if len(pair) == 1 else _five(*pair) for pair in pairs))
