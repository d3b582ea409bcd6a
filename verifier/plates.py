"""Plate numbers: canonical form, classes, kinds (号牌种类, GA/T 16.7).

The regular expressions follow GA 36-2018 as the project's domain tables give it; new-energy letters are A-H, J
and K (A to E pure electric). O and I are never silently changed to 0 and 1.
"""

from __future__ import annotations

import re
import unicodedata

from verifier.errors import PlateError
from verifier.types import Plate

PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O
ENERGY_LETTERS = "ABCDEFGHJK"
MAX_INPUT = 24  # characters, before normalising

_P, _L, _S = f"[{PROVINCES}]", "[A-HJ-NP-Z]", "[A-HJ-NP-Z0-9]"

# class, pattern, plate kinds that may carry it; the first kind is what is meant when none is given
_CLASSES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("nev_small", f"{_P}{_L}[A-HJK]{_S}[0-9]{{4}}", ("52",)),
    ("nev_large", f"{_P}{_L}[0-9]{{5}}[A-HJK]", ("51",)),
    ("emergency", f"{_P}[XS]{_S}{{4}}应急", ("33",)),
    ("police", f"{_P}[A-HJ-NP-ZO]{_S}{{4}}警", ("23", "24")),
    ("coach", f"{_P}{_L}{_S}{{4}}学", ("16", "17")),
    ("trailer", f"{_P}{_L}{_S}{{4}}挂", ("15",)),
    ("hk_macau", f"粤Z{_S}{{4}}[港澳]", ("26", "27")),
    ("embassy", "[0-9]{6}使|使[0-9]{6}", ("03", "09")),
    ("consulate", f"{_P}[0-9]{{5}}领|{_P}领[0-9]{{5}}|{_P}{_L}[0-9]{{4}}领", ("04", "10")),
    ("armed_police", f"WJ{_P}?[0-9]{{4}}[0-9A-Z]", ("31",)),
    ("military", f"{_L}{{2}}[0-9]{{5}}", ("32",)),
    ("ordinary", f"{_P}{_L}{_S}{{5}}", ("02", "01", "05", "06", "07", "08", "13")),
)
_PATTERNS = tuple((name, re.compile(pattern), kinds) for name, pattern, kinds in _CLASSES)

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


def plate_class(text: str) -> str | None:
    """The class of a canonical plate text, or None when no class matches."""
    return next((name for name, pattern, _ in _PATTERNS if pattern.fullmatch(text)), None)


def parse_plate(text: str, kind: str | None = None) -> Plate:
    """Read a typed plate. Without a kind, the commonest kind of its class is meant (02 for an ordinary plate)."""
    plain = canonical(text)
    usual = next((kinds[0] for _, pattern, kinds in _PATTERNS if pattern.fullmatch(plain)), None)
    if usual is None:
        raise PlateError("plate: not a plate number (example: 京A12345)")
    if kind is None:
        kind = usual
    elif kind not in PLATE_KINDS:
        raise PlateError("plate kind: not a two-digit code of GA/T 16.7 (example: 02)")
    return Plate(plain, kind)


def display_text(plate: Plate) -> str:
    """The plate as it is printed on the car, with the dot after province and letter where plates have one."""
    text = plate.text
    if len(text) in (7, 8) and text[0] in PROVINCES and text[1] in LETTERS:
        return f"{text[:2]}·{text[2:]}"
    return text
