"""The regions that the sandbox publishes, and which vehicles belong to each.

A province goes by the sound of its plate character, or by its own name where two characters sound alike. The list of
a place holds what a checkpoint there looks for: the overdue vehicles with its plates, and all wanted ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.codec.index import EVERYWHERE
from verifier.facts import WATCH_LETTERS
from verifier.plates import LETTERS
from verifier.types import Month, StatusLetter, VehicleRecord

PROVINCES = {
    "jing": "京", "tianjin": "津", "hu": "沪", "chongqing": "渝", "hebei": "冀", "henan": "豫",
    "yun": "云", "liao": "辽", "hei": "黑", "xiang": "湘", "wan": "皖", "lu": "鲁",
    "xin": "新", "su": "苏", "zhe": "浙", "jiangxi": "赣", "e": "鄂", "guangxi": "桂",
    "gansu": "甘", "shanxi": "晋", "meng": "蒙", "shaanxi": "陕", "jilin": "吉", "min": "闽",
    "guizhou": "贵", "yue": "粤", "qing": "青", "zang": "藏", "chuan": "川", "ning": "宁",
    "qiong": "琼",
}  # fmt: skip
NOWHERE = "-"  # as a plate prefix: no plate begins so, and absence from such a set says nothing
OVERDUE = "overdue"  # how the name of a place's list begins


@dataclass(frozen=True, slots=True)
class Region:
    """What one nightly role publishes: name in paths, declared scope, plate prefixes for which it is complete.

    `overdue`: plates that begin so are in the set when their vehicle is overdue.
    """

    name: str
    scope: str
    covers: tuple[str, ...]
    overdue: str | None = None

    def holds(self, record: VehicleRecord, month: Month) -> bool:
        """Whether this vehicle is in the region's set in this month."""
        if self.covers == (NOWHERE,):
            sought = self.overdue is not None and record.plate.text.startswith(self.overdue)
            return (sought and is_overdue(record, month)) or not record.status.isdisjoint(WATCH_LETTERS)
        return any(prefix == EVERYWHERE or record.plate.text.startswith(prefix) for prefix in self.covers)


NATIONAL = Region("national", "national", (EVERYWHERE,))
WATCH = Region("watch", "watch", (NOWHERE,))


def region_of(text: str) -> Region:
    """The region of this name, or of this plate character; ValueError when there is none."""
    for region in (NATIONAL, WATCH):
        if text == region.name:
            return region
    for name, character in PROVINCES.items():
        if text in (name, character):
            return Region(name, "province", (character,))
    if text.startswith(f"{OVERDUE}_"):
        return _list_of(text.removeprefix(f"{OVERDUE}_"))
    raise ValueError("no such region: national, watch, a province such as yue or 粤, or overdue_ and a place")


def _list_of(place: str) -> Region:
    """The list of a place: a plate's province and city such as 川A or chuan_a, or a whole province. ValueError."""
    for name, character in PROVINCES.items():
        for letter in ("", *LETTERS):
            region = "_".join(filter(None, (OVERDUE, name, letter.lower())))
            if place == character + letter or f"{OVERDUE}_{place}" == region:
                return Region(region, OVERDUE, (NOWHERE,), character + letter)
    raise ValueError("no such place: a province and the letter of a city, such as overdue_chuan_a or overdue_川A")


def is_overdue(record: VehicleRecord, month: Month) -> bool:
    """By letter Q or by the month, as the verdict takes it (docs/decision.md)."""
    until = record.inspection_valid_until
    return StatusLetter.OVERDUE in record.status or (until is not None and until < month)
