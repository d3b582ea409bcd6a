"""The regions that the sandbox publishes, and which vehicles belong to each.

A province goes by the sound of its plate character, or by its own name where two characters sound alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.codec.index import EVERYWHERE
from verifier.facts import WATCH_LETTERS
from verifier.types import VehicleRecord

PROVINCES = {
    "jing": "京", "tianjin": "津", "hu": "沪", "chongqing": "渝", "hebei": "冀", "henan": "豫",
    "yun": "云", "liao": "辽", "hei": "黑", "xiang": "湘", "wan": "皖", "lu": "鲁",
    "xin": "新", "su": "苏", "zhe": "浙", "jiangxi": "赣", "e": "鄂", "guangxi": "桂",
    "gansu": "甘", "shanxi": "晋", "meng": "蒙", "shaanxi": "陕", "jilin": "吉", "min": "闽",
    "guizhou": "贵", "yue": "粤", "qing": "青", "zang": "藏", "chuan": "川", "ning": "宁",
    "qiong": "琼",
}  # fmt: skip
NOWHERE = "-"  # as a plate prefix: no plate begins so, and absence from such a set says nothing


@dataclass(frozen=True, slots=True)
class Region:
    """What one nightly role publishes: name in paths, declared scope, plate prefixes for which it is complete."""

    name: str
    scope: str
    covers: tuple[str, ...]

    def holds(self, record: VehicleRecord) -> bool:
        """Whether this vehicle is in the region's set."""
        if self.covers == (NOWHERE,):
            return not record.status.isdisjoint(WATCH_LETTERS)
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
    raise ValueError("no such region: national, watch, or a province such as yue or 粤")
