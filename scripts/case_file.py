"""What a case file gets of one check: its records with their place in the log, and a slip in Chinese to print.

The slip is one HTML page without scripts and outside resources. It states facts: amounts and articles are not its
matter.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from verifier.audit import checks_of
from verifier.audit_file import Line
from verifier.errors import AuditError
from verifier.plates import PLATE_KINDS
from verifier.types import SHANGHAI
from verifier.verdict import Action, Reason, VerdictCode
from verifier.wording import ACTIONS, REASONS, VERDICTS

FORMAT = 1
PURPOSES = {
    "enforcement": "执法检查", "checkpoint": "卡口检查", "accident": "事故处理", "report": "群众举报", "other": "其他",
}  # fmt: skip
_STEPS = {"check": "现场判定", "accident": "现场判定", "upgrade": "联网复核"}
MODES = {"roadside": "路面", "checkpoint": "卡口", "accident": "事故", "lookup": "查询"}
_PHOTO_OF = {"code": "读码时的画面", "scene": "判定时镜头前的画面（未读到码）"}
_NO_PHOTO = {"no camera": "无（没有相机）", "no frame": "无（相机未给出画面）", "not kept": "无（未能存入）"}
_UNKNOWN = "未记录"
_NONE = "无"
_CODE = ' class="code"'

_STYLE = """
@page { size: A5; margin: 12mm }
body { font: 10.5pt/1.5 "Noto Sans CJK SC", "Source Han Sans SC", SimSun, sans-serif; color: #000; margin: 0 }
h1 { font-size: 15pt; text-align: center; margin: 0 0 4mm }
h2 { font-size: 11pt; margin: 4mm 0 1mm }
table { width: 100%; border-collapse: collapse }
th, td { border: 0.3mm solid #000; padding: 1mm 2mm; text-align: left; vertical-align: top }
th { width: 26%; font-weight: normal }
td.code { font-family: monospace; font-size: 8pt; overflow-wrap: anywhere }
img { max-width: 100%; max-height: 80mm; display: block; margin: 2mm auto }
p.sign { margin-top: 8mm; display: flex; justify-content: space-between }
section, tr, img { break-inside: avoid }
""".strip()


@dataclass(frozen=True, slots=True)
class Place:
    """A record with the line it has in the log."""

    line: Line
    record: dict[str, Any]
    sealed: bool


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the check, as its record names it; `matches` its digest there."""

    name: str
    picture: bytes
    matches: bool


def places_of(check_id: str, places: Iterable[Place]) -> list[Place]:
    """The records of one check, those of its photos and of later words on it included; AuditError without any."""
    found = [place for place in places if check_id in _ids(place.record)]
    if not any(checks_of(place.record) for place in found):
        raise AuditError("no check of this number in the log")
    return found


def _ids(record: dict[str, Any]) -> list[object]:
    return [record.get("id"), *(check.get("id") for check in checks_of(record))]


def case_json(check_id: str, places: Sequence[Place], photos: Sequence[Photo]) -> dict[str, Any]:
    """All of it for machines: each record with its line's number, hash and predecessor."""
    return {
        "v": FORMAT,
        "check": check_id,
        "records": [
            {
                "line": place.line.number,
                "sha256": place.line.head.head.hex(),
                "prev": (place.line.entry or {}).get("prev"),
                "sealed": place.sealed,
                "record": place.record,
            }
            for place in places
        ],
        "photos": [{"name": photo.name, "matches": photo.matches} for photo in photos],
    }


def slip(check_id: str, places: Sequence[Place], photos: Sequence[Photo]) -> str:
    """The page to print."""
    parts = [_section(place, check) for place in places for check in checks_of(place.record)]
    shown = {photo.name: photo for photo in photos}
    parts += [_photo(place, shown) for place in places if place.record.get("kind") == "photo"]
    return (
        f'<!DOCTYPE html>\n<html lang="zh-CN">\n<head>\n<meta charset="utf-8">\n<title>核查记录单</title>\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<h1>机动车检验标志核查记录单</h1>\n"
        f"{_table([('核查编号', check_id, True)])}\n" + "\n".join(parts) + "\n<p>本单由核查记录生成，以记录为准。</p>\n"
        '<p class="sign"><span>民警：____________</span><span>审核：____________</span>'
        "<span>日期：____________</span></p>\n</body>\n</html>\n"
    )


def _section(place: Place, check: dict[str, Any]) -> str:
    verdict, evidence, by = (object_in(check, name) for name in ("verdict", "evidence", "by"))
    title = _STEPS.get(str(place.record.get("kind")), _UNKNOWN)
    kind = PLATE_KINDS.get(str(verdict.get("plate_kind")))
    rows = [
        ("核查时间", _moment(evidence.get("now")), False),
        ("号牌号码", verdict.get("plate"), False),
        ("号牌种类", kind, False),
        ("判定", _words(VERDICTS, VerdictCode, [verdict.get("verdict")]), False),
        ("等级", verdict.get("grade"), False),
        ("依据", _words(REASONS, Reason, verdict.get("reasons")), False),
        ("处置建议", _words(ACTIONS, Action, verdict.get("actions")), False),
        ("检验有效期止", verdict.get("valid_until"), False),
        ("数据时间", _moment(verdict.get("as_of")), False),
        ("民警", by.get("officer"), False),
        ("设备", by.get("device"), False),
        ("地点", by.get("place"), False),
        ("模式", MODES.get(str(by.get("mode")), by.get("mode")), False),
        ("用途", PURPOSES.get(str(evidence.get("purpose"))), False),
        ("规则", verdict.get("policy"), False),
        ("软件", check.get("software"), False),
        ("记录序号", place.line.number, False),
        ("记录摘要", place.line.head.head.hex(), True),
    ]
    return f"<section>\n<h2>{title}</h2>\n{_table(rows)}\n</section>"


def _table(rows: Sequence[tuple[str, object, bool]]) -> str:
    cells = (
        f"<tr><th>{name}</th><td{_CODE if code else ''}>{escape(_shown(value))}</td></tr>" for name, value, code in rows
    )
    return "<table>\n" + "\n".join(cells) + "\n</table>"


def _shown(value: object) -> str:
    return _UNKNOWN if value is None or value == "" else str(value)


def object_in(check: dict[str, Any], name: str) -> dict[str, Any]:
    """A field that is an object; an empty one in the place of anything else."""
    value = check.get(name)
    return value if isinstance(value, dict) else {}


def _words(table: Any, kind: Any, codes: object) -> str:
    """The officers' words for codes; a code that this version does not know stands for itself."""
    words = []
    for code in codes if isinstance(codes, list) else ():
        known = code in tuple(kind)
        entry = table[kind(code)] if known else None
        words.append(getattr(entry, "text", entry).zh if entry is not None else str(code))
    return "、".join(words) or _NONE


def _moment(text: object) -> str | None:
    try:
        return f"{datetime.fromisoformat(str(text)).astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}" if text else None
    except ValueError:
        return None


def _photo(place: Place, photos: Mapping[str, Photo]) -> str:
    """What a photo's record says, and the photo where it is at hand."""
    record = place.record
    photo = photos.get(str(record.get("name")))
    told = "" if photo is None or photo.matches else "（与记录不符）"
    if record.get("name") is None:
        rows: list[tuple[str, object, bool]] = [("照片", _NO_PHOTO.get(str(record.get("why")), _NONE), False)]
    else:
        rows = [
            ("内容", _PHOTO_OF.get(str(record.get("of"))), False),
            ("照片文件", record["name"], True),
            ("照片摘要", record.get("sha256"), True),
        ]
    table = _table([*rows, ("记录序号", place.line.number, False)])
    return f"<section>\n<h2>照片{told}</h2>\n{table}\n{_picture(photo)}</section>"


def _picture(photo: Photo | None) -> str:
    if photo is None:
        return ""
    data = base64.b64encode(photo.picture).decode("ascii")
    return f'<img alt="{escape(photo.name)}" src="data:image/jpeg;base64,{data}">\n'
