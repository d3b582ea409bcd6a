"""Plate numbers: canonical form, classes, kinds (号牌种类, GA/T 16.7).

The classes follow GA 36-2018 as the project's domain tables give it; new-energy letters are A-H, J and K (A to E
pure electric). O and I are never silently changed to 0 and 1.
"""

from __future__ import annotations

import re
import unicodedata
from operator import contains
from typing import NamedTuple

from verifier.errors import PlateError
from verifier.types import Plate

PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O
DIGITS = "0123456789"
ENERGY_LETTERS = "ABCDEFGHJK"
MAX_INPUT = 24  # characters, before normalising

_ANY = DIGITS + LETTERS
_P, _L, _D, _S = (PROVINCES,), (LETTERS,), (DIGITS,), (_ANY,)


class _Class(NamedTuple):
    """A class of plates: what may stand in each place, and which kinds carry it, the usual one first."""

    name: str
    templates: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]


_CLASSES = (
    _Class("nev_small", (_P + _L + (ENERGY_LETTERS,) + _S + _D * 4,), ("52",)),
    _Class("nev_large", (_P + _L + _D * 5 + (ENERGY_LETTERS,),), ("51",)),
    _Class("emergency", (_P + ("XS",) + _S * 4 + ("应", "急"),), ("33",)),
    _Class("police", (_P + (LETTERS + "O",) + _S * 4 + ("警",),), ("23", "24")),
    _Class("coach", (_P + _L + _S * 4 + ("学",),), ("16", "17")),
    _Class("trailer", (_P + _L + _S * 4 + ("挂",),), ("15",)),
    _Class("hk_macau", (("粤", "Z") + _S * 4 + ("港澳",),), ("26", "27")),
    _Class("embassy", (_D * 6 + ("使",), ("使",) + _D * 6), ("03", "09")),
    _Class("consulate", (_P + _D * 5 + ("领",), _P + ("领",) + _D * 5, _P + _L + _D * 4 + ("领",)), ("04", "10")),
    _Class(
        "armed_police",
        tuple(("W", "J") + place + _D * 4 + (DIGITS + LETTERS + "IO",) for place in ((), _P)),
        ("31",),
    ),
    _Class("military", (_L * 2 + _D * 5,), ("32",)),
    _Class("ordinary", (_P + _L + _S * 5,), ("02", "01", "05", "06", "07", "08", "13")),
)

PLATE_KINDS: dict[str, str] = {
    "01": "大型汽车", "02": "小型汽车", "03": "使馆汽车", "04": "领馆汽车", "05": "境外汽车",
    "06": "外籍汽车", "07": "普通摩托车", "08": "轻便摩托车", "09": "使馆摩托车", "10": "领馆摩托车",
    "11": "境外摩托车", "12": "外籍摩托车", "13": "低速车", "14": "拖拉机", "15": "挂车",
    "16": "教练汽车", "17": "教练摩托车", "18": "试验汽车", "19": "试验摩托车", "20": "临时入境汽车",
    "21": "临时入境摩托车", "22": "临时行驶车", "23": "警用汽车", "24": "警用摩托", "25": "原农机号牌",
    "26": "香港入出境车", "27": "澳门入出境车", "31": "武警号牌", "32": "军队号牌", "33": "应急号牌",
    "41": "无号牌", "42": "假号牌", "43": "挪用号牌", "51": "大型新能源汽车", "52": "小型新能源汽车",
    "99": "其他号牌",
}  # fmt: skip

OUT_OF_SCOPE_KINDS = frozenset({"31", "32"})  # armed police and military plates

_SEPARATORS = re.compile(r"[\s·•・.‧∙\-]")


def canonical(text: str) -> str:
    """NFKC, upper case, no separators. PlateError when the text is far too long to be a plate."""
    if len(text) > MAX_INPUT:
        raise PlateError("plate: too long")
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text)).upper()


def _class_of(text: str) -> _Class | None:
    for cls in _CLASSES:
        if any(len(t) == len(text) and all(map(contains, t, text)) for t in cls.templates):
            return cls
    return None


def plate_class(text: str) -> str | None:
    """The class of a canonical plate text, or None when no class matches."""
    cls = _class_of(text)
    return None if cls is None else cls.name


def kinds_of(text: str) -> tuple[str, ...]:
    """The plate kinds that a canonical text may have by its class, the usual one first; empty when no class matches."""
    cls = _class_of(text)
    return () if cls is None else cls.kinds


def usual_kind(text: str) -> str | None:
    """The plate kind that a canonical text usually has, or None when no class matches."""
    return next(iter(kinds_of(text)), None)


def parse_plate(text: str, kind: str | None = None) -> Plate:
    """Read a typed plate. Without a kind it is that of the class where that has one alone, and else stays unknown.

    PlateError for what is no plate, no kind, or the kind of another class; its text does not repeat what was typed.
    """
    plain = canonical(text)
    kinds = kinds_of(plain)
    if not kinds:
        if {"O", "I"} & set(plain[1:]):
            raise PlateError("plate: not a plate number; letters O and I do not occur (0 or 1?)")
        raise PlateError("plate: not a plate number (example: 京A12345)")
    if kind is None:
        return Plate(plain, kinds[0] if len(kinds) == 1 else None)
    if kind not in PLATE_KINDS:
        raise PlateError("plate kind: not a two-digit code of GA/T 16.7 (example: 02)")
    if kind not in kinds and any(kind in cls.kinds for cls in _CLASSES):
        raise PlateError("plate kind: not one that a plate of this form has")
    return Plate(plain, kind)


ALPHABET = PROVINCES + DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "警学挂领使港澳应急临试超"
"""Every character that a plate can have, temporary plates included, provinces first."""

# Characters that are mistaken for one another on a plate or a small keypad.
CONFUSABLE = ("0DQ", "1T7", "8B", "5S", "2Z", "6G", "4A", "UV", "MN", "HN")


def confusable_plates(plate: Plate) -> list[Plate]:
    """Plates that differ in one mistakable character, of the same class and kind: hints when one is not found."""
    cls = plate_class(plate.text)
    found = []
    for place, char in enumerate(plate.text):
        for other in dict.fromkeys("".join(group for group in CONFUSABLE if char in group)):
            text = plate.text[:place] + other + plate.text[place + 1 :]
            if other != char and plate_class(text) == cls:
                found.append(Plate(text, plate.kind))
    return found


def display_text(plate: Plate) -> str:
    """The plate as it is printed on the car, with the dot after province and letter where plates have one."""
    text = plate.text
    if len(text) in (7, 8) and text[0] in PROVINCES and text[1] in LETTERS:
        return f"{text[:2]}·{text[2:]}"
    return text
