"""Writes what the documents take from the code: tables, the example of a credential, the picture of the packages.

python -m scripts.make_docs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from math import cos, hypot, pi, sin
from pathlib import Path

import grimp

from firmware.machine import modes
from firmware.machine.checking import SHOWN_MS
from firmware.pages import MENU, PARTS
from hw.sound.patterns import PATTERNS, Colour
from scripts.credential_example import PARTS as EXAMPLE
from verifier import decide, facts
from verifier.adapters import READINGS, SIGNATURES
from verifier.policy import Policy
from verifier.types import CodeFault, StatusLetter
from verifier.verdict import Action, Reason, Tone, VerdictCode
from verifier.wording import ACTIONS, PURPOSES, REASONS, STATUS_LETTERS, VERDICTS

_DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = tuple(_DOCS / name for name in ("decision.md", "credential-format.md", "officers.md", "developers.md"))
PICTURE = _DOCS / "images" / "architecture.svg"
_SECTION = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
V, R = VerdictCode, Reason


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _verdicts() -> str:
    rows = []
    for number, (code, _) in enumerate(decide.PRECEDENCE, 1):
        words = VERDICTS[code]
        clock = code is VerdictCode.UNDECIDED and number < len(decide.PRECEDENCE)
        actions = ", ".join(decide.ACTIONS[code]) or "–"
        rows.append((number, f"{code} (clock)" if clock else code, words.text.zh, words.text.en, words.tone, actions))
    return _table(("#", "code", "zh", "en", "tone", "actions"), rows)


def _policy() -> str:
    """Every age of it, in its own order."""
    defaults = ((field.name, field.default) for field in fields(Policy))
    return _table(("setting", "default"), ((name, age) for name, age in defaults if isinstance(age, timedelta)))


def _reasons() -> str:
    def effect(reason: Reason) -> str:
        if reason in decide.CAUTION_REASONS:
            return "caution"
        return "note" if reason in decide.NOTE_REASONS else ""

    return _table(
        ("code", "zh", "en", "tone", "brings"),
        ((r, REASONS[r].zh, REASONS[r].en, effect(r), decide.REASON_ACTIONS.get(r, "")) for r in Reason),
    )


def _actions() -> str:
    return _table(("code", "zh", "en"), ((a, ACTIONS[a].zh, ACTIONS[a].en) for a in Action))


def _letters() -> str:
    effects = {
        "watch": facts.WATCH_LETTERS,
        "deregistered": facts.DEREGISTERED_LETTERS,
        "restricted": facts.RESTRICTED_LETTERS,
        "note": facts.NOTE_LETTERS,
        "overdue": {StatusLetter.OVERDUE},
    }

    def effect(letter: StatusLetter) -> str:
        return next((name for name, letters in effects.items() if letter in letters), "none")

    return _table(
        ("letter", "zh", "en", "effect"),
        ((s.value, STATUS_LETTERS[s].zh, STATUS_LETTERS[s].en, effect(s)) for s in StatusLetter),
    )


def _faults() -> str:
    rows: list[tuple[str, str, str]] = []
    for fault in CodeFault:
        if fault in READINGS:
            rows.append((fault, READINGS[fault], "–"))
        else:
            rows.append((fault, "ok", SIGNATURES.get(fault, "valid, the fault kept as a finding")))
    return _table(("fault", "code", "signature"), rows)


# ------------------------------------------------------------------------------------------- the officers' page

_MEANINGS: dict[VerdictCode, str] = {
    V.WANTED: "车辆在布控名单内，身份可信。先核牌，再联系中心，注意自身安全",
    V.FORGED: "码的签名不对，内容可能被改过。车辆本身是否有效，手输号牌再查",
    V.MISMATCH: "码、标识、号牌、车架号指向不同的车。先核对号牌，再核对车架号",
    V.WATCH_CONFIRM: "可能是布控车辆，但号牌未确认、种类不明或数据较旧。先核牌，未核实前不得当作布控车辆处理",
    V.DEREGISTERED: "登记为注销、报废或牌证作废。核对车架号，防止套牌",
    V.RESTRICTED: "登记为查封、扣留或停驶。可能刚解除，联系中心核实后再处理",
    V.OUT_OF_SCOPE: "军队、武警等号牌，本机不核查",
    V.EXPIRED: "登记的检验有效期已过，数据够新，身份可信。仍要核对号牌，再依法处理",
    V.REVOKED: "这张凭证已撤销。撤销的是凭证，不是车辆；看原因页里车辆是否有效",
    V.SUPERSEDED: "出示的是旧凭证，车辆在检验有效期内。放行，请车主更新凭证",
    V.NOT_YET_VALID: "凭证的生效时间还没到。手输号牌查车辆",
    V.EXPIRED_UNCONFIRMED: "数据较旧，或号牌未确认，可能已经检验。联网复核，未核实前不按逾期处理",
    V.NOT_FOUND: "登记里没有这副号牌。先看是否输错（原因页列出近似号牌），再联系中心",
    V.VALID: "车辆在检验有效期内。核对号牌后放行",
    V.VALID_STALE: "按较旧的数据，车辆在检验有效期内。核对号牌后放行，有网络时复核",
    V.SIGNED_ONLY: "签名有效，但本机没有这辆车的可用登记数据。核牌，按处置页办理",
    V.UNTRUSTED_ISSUER: "不认识签发密钥，或密钥已停用，多半是本机数据旧。不等于伪造。同步，或手输号牌",
    V.UNREADABLE: "没有读出内容。擦净、拿平、避反光再扫，或手输号牌",
    V.NOT_A_MARK: "这是别的二维码。本机不打开其中的网址",
    V.UNSUPPORTED_VERSION: "码的版本比本机新。先同步，手输号牌；程序由技术员更新",
    V.UNDECIDED: "数据、时钟或密钥不够用，不能下结论。不等于车辆有问题",
}
_REASON_MEANINGS: dict[Reason, str] = {
    R.CLOCK_CORRECTED: "本机时钟不准，已用中心的时间判定",
    R.CLOCK_SUSPECT: "本机时钟不可信，与日期有关的判定不作",
    R.QR_UNREADABLE: "码没有读出",
    R.QR_MALFORMED: "码读出了，内容不完整",
    R.QR_FOREIGN: "不是检验标志的码",
    R.QR_VERSION: "码比本机程序新",
    R.QR_NOT_LIVE: "出示的动态码不是刚生成的；转发、截图都允许，不是违法",
    R.QR_ISSUER_UNKNOWN: "本机信任名单里没有这把密钥",
    R.QR_KEY_REVOKED: "签发密钥已停用，或无权签发此号牌",
    R.TAG_AUTH_FAILED: "标识没有通过核验，或登记在别的车上，或疑似复制",
    R.ID_UNCONFIRMED_MISMATCH: "未经证实的读数与已确认的号牌不一致，请核牌",
    R.ID_WEAK: "号牌只来自未经证实的读数，请核牌",
    R.REPLATED: "车辆换过号牌，旧凭证不是伪造",
    R.WATCH_STALE: "布控数据较旧，可能已撤控",
    R.WATCH_UNCONFIRMED: "没有人目视核对过号牌",
    R.WATCH_LEAD: "码里写的号牌涉及布控，但码未经证实",
    R.WATCH_KIND: "同一号码有不同种类的号牌，请确认种类",
    R.STATUS_NOTE: "登记里另有事项，不影响检验有效",
    R.CTP_LAPSED: "登记的交强险已到期",
    R.CREDENTIAL_NEWER_THAN_CACHE: "凭证比本机数据新，以凭证为准",
    R.NEWLY_ISSUED: "刚核发，数据还没到本机",
    R.NO_STATUS_DATA: "本机没有可用的登记数据",
    R.STATUS_TOO_OLD: "登记数据太旧，只验了签名",
    R.DATA_STALE: "数据过了更新期，请同步",
    R.CREDENTIAL_REVOKED: "凭证另外也被撤销",
    R.VEHICLE_VALID: "凭证有问题，但车辆在检验有效期内",
    R.CREDENTIAL_OUTDATED: "凭证上的日期比登记的旧，请车主更新",
    R.ONLINE_DENIED: "中心拒绝本机联网查询，与车辆无关；报技术员",
    R.ONLINE_REJECTED: "联网收到的应答不可信，没有采用",
    R.ONLINE_TIMEOUT: "中心没有及时应答",
    R.ONLINE_UNREACHABLE: "连不上中心",
    R.CACHE_REJECTED: "本机数据损坏，没有采用；请同步",
    R.TRUST_LIST_OLD: "信任名单太旧，只凭码不够",
    R.VIN_MISMATCH: "车架号与凭证不符，或登记在别的号牌上",
    R.VIN_CONFIRMED: "车架号与凭证相符，或登记在这副号牌上",
    R.VIN_NOT_FOUND: "中心没有登记这个车架号，请重新核对",
    R.VIN_WANTED: "这个车架号登记的车涉及布控，联系中心",
}
_BANNERS: dict[str, str] = {
    "camera": "手输号牌，或用扫码器",
    "reader": "标识和卡口不能用，扫码、手输照常",
    "panel": "显示会自行恢复；看不清时以声音为准，不凭旧画面处理",
    "sound": "看屏幕",
    "keys": "不能操作时交技术员",
    "barcode": "用相机扫码",
    "check": "这次没有结果，再查一次",
    "cache": "多为未开班或无数据，查询结果是“无法判定”；交技术员",
    "audit": "核查照常，但没有记录；尽快交技术员",
    "clock": "联网校时；按日期的判定会是“无法判定”",
    "settings": "本机用上次的设置，核查照常",
    "mode": "规定的模式要用读写器，本机没有，所以停在路检；扫码、手输照常，请告知技术员",
}
_TONES: dict[Tone, tuple[str, str]] = {
    Tone.PASS: ("通过", "圆内打勾"),
    Tone.NOTE: ("提示", "圆圈内 i"),
    Tone.CAUTION: ("注意", "三角惊叹号，“未判定”是方框问号"),
    Tone.STOP: ("停", "方块叉，整屏反白"),
}
_COLOURS = {Colour.GREEN: "绿", Colour.AMBER: "黄", Colour.RED: "红"}
_PLACES = {"ok": "中（确认）", "left": "左", "right": "右", "down": "下"}


def _tones() -> str:
    def signal(tone: Tone) -> str:
        sounding = [beat for beat in PATTERNS[tone] if beat.hz]
        length = "长" if sounding[0].ms >= 500 else "短"  # ms; the ear's, and there are two kinds only
        return f"{len(sounding)} 声{length}音，{_COLOURS[sounding[0].colour]}灯{'，振动' * sounding[0].motor}"

    def stays(ms: int | None) -> str:
        return "一直，按键才走" if ms is None else f"{ms // 1000} 秒"

    rows = ((*_TONES[tone], signal(tone), stays(SHOWN_MS[tone])) for tone in Tone)
    return _table(("提示", "图标", "声、灯", "停留"), rows)


def _officers_verdicts() -> str:
    rows = (
        (VERDICTS[c].headline.zh, VERDICTS[c].text.zh, _TONES[VERDICTS[c].tone][0], _MEANINGS[c], _usual(c))
        for c in VerdictCode
    )
    return _table(("大字", "判定", "提示", "意思", "通常的处置"), rows)


def _usual(code: VerdictCode) -> str:
    """What the verdict brings by itself; nobody is let go before the plate was compared."""
    actions = list(decide.ACTIONS[code])
    if Action.RELEASE in actions:
        actions.insert(0, Action.CONFIRM_PLATE)
    return "、".join(ACTIONS[action].zh for action in actions) or "–"


def _officers_reasons() -> str:
    return _table(("原因", "意思"), ((REASONS[reason].zh, _REASON_MEANINGS[reason]) for reason in Reason))


def _officers_banners() -> str:
    return _table(("屏幕底部", "怎么办"), ((text.zh, _BANNERS[part]) for part, text in PARTS.items()))


def _officers_menu() -> str:
    return " · ".join(text.zh for text in MENU.values()) + "\n"


def _officers_purposes() -> str:
    return _table(("键", "用途"), ((_PLACES[key.value], PURPOSES[why].zh) for key, why in modes.PURPOSES.items()))


# ---------------------------------------------------------------------------------------------- the packages

PACKAGES = ("scripts", "firmware", "hw", "verifier")
_WIDTH, _BOX_WIDTH, _BOX_HEIGHT = 1000, 94, 26  # pixels
_RING = 6  # boxes, so that no straight line between two goes through a third
Point = tuple[float, float]

# Left, top, width, height of each package's frame.
_FRAMES = {
    "scripts": (10, 60, 300, 270), "firmware": (350, 60, 240, 270), "hw": (630, 60, 360, 270),
    "verifier": (10, 400, 980, 130),
}  # fmt: skip
_ROADS: dict[tuple[str, str], tuple[Point, Point, float]] = {  # of the arrows between frames, and how far they bow
    ("scripts", "firmware"): ((310, 195), (350, 195), 0), ("firmware", "hw"): ((590, 195), (630, 195), 0),
    ("scripts", "hw"): ((160, 60), (810, 60), 50), ("scripts", "verifier"): ((160, 330), (160, 400), 0),
    ("firmware", "verifier"): ((470, 330), (470, 400), 0), ("hw", "verifier"): ((810, 330), (810, 400), 0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Imports:
    """Who imports whom: between parts (a package's own modules, and each of its folders), and which modules between
    packages."""

    parts: dict[str, frozenset[str]]
    modules: dict[tuple[str, str], frozenset[str]]


@cache
def imports() -> Imports:
    """As the code has it."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    parts: dict[str, set[str]] = {}
    modules: dict[tuple[str, str], set[str]] = {}
    for module in graph.modules:
        own = parts.setdefault(_part(graph, module), set())
        for other in graph.find_modules_directly_imported_by(module):
            own.add(_part(graph, other))
            if _package(other) != _package(module):
                modules.setdefault((_package(module), _package(other)), set()).add(other)
    return Imports(
        {part: frozenset(found - {part}) for part, found in sorted(parts.items())},
        {pair: frozenset(found) for pair, found in modules.items()},
    )


def _part(graph: grimp.ImportGraph, module: str) -> str:
    first, *rest = module.split(".")
    inner = len(rest) > 1 or (rest and graph.find_children(module))
    return f"{first}.{rest[0]}" if inner else first


def _package(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def _imports() -> str:
    """The table under the picture: each part, and all that it imports."""
    order = sorted(imports().parts, key=lambda part: (PACKAGES.index(_package(part)), part))
    named = ((f"`{part}`", ", ".join(f"`{other}`" for other in sorted(imports().parts[part])) or "–") for part in order)
    return _table(("part", "imports"), named)


def picture() -> str:
    """The packages as SVG: a frame each, its parts as boxes, an arrow for each import; no text depends on a font."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} 540" font-family="sans-serif" font-size="12">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        '<path d="M0 0 8 4 0 8z" fill="#357"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for package in PACKAGES:
        lines += _frame(package)
    for (one, other), found in sorted(imports().modules.items()):
        start, end, bow = _ROADS[one, other]
        lines.append(_arrow(start, end, bow, both=False, width=2.5))
        if len(found) == 1:  # the one module that may be known
            lines.append(f'<text x="{end[0] + 8}" y="{end[1] - 30}">{min(found)} only</text>')
    return "\n".join([*lines, "</svg>\n"])


def _frame(package: str) -> Iterator[str]:
    left, top, width, height = _FRAMES[package]
    yield f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8" fill="#eef3f8" stroke="#357"/>'
    yield f'<text x="{left + 10}" y="{top + 18}" font-weight="bold">{package}/</text>'
    places = _places(package)
    drawn: set[frozenset[str]] = set()
    for part in places:
        for other in sorted(imports().parts[part] & places.keys()):
            if frozenset((part, other)) not in drawn:
                drawn.add(frozenset((part, other)))
                yield _between(part, other, places, both=part in imports().parts[other])
    for part, (x, y) in places.items():
        name = part.partition(".")[2] + "/" if "." in part else "*.py"
        box = f'x="{x - _BOX_WIDTH / 2:g}" y="{y - _BOX_HEIGHT / 2:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}"'
        yield f'<rect {box} rx="4" fill="#fff" stroke="#357"/>'
        yield f'<text x="{x:g}" y="{y + 4:g}" text-anchor="middle">{name}</text>'


def _places(package: str) -> dict[str, Point]:
    """The middle of each box, on a ring; where there are many, a package's own modules in the middle of it."""
    left, top, width, height = _FRAMES[package]
    x, y = left + width / 2, top + height / 2 + 8
    ring = [part for part in imports().parts if _package(part) == package]
    middle = {package: (x, y)} if len(ring) > _RING else {}
    ring = [part for part in ring if part not in middle]
    a, b = (width - _BOX_WIDTH) / 2 - 8, (height - _BOX_HEIGHT) / 2 - 16
    turns = [2 * pi * at / len(ring) - pi / 2 for at in range(len(ring))]
    around = [(round(x + a * cos(turn)), round(y + b * sin(turn))) for turn in turns]
    return {**middle, **dict(zip(ring, around, strict=True))}


def _between(part: str, other: str, places: dict[str, Point], *, both: bool) -> str:
    """An arrow that goes through no other box."""
    others = [place for name, place in places.items() if name not in (part, other)]
    ends = places[part], places[other]
    bows = (0, 25, -25, 50, -50, 75, -75, 100, -100)
    bow = next((bow for bow in bows if not any(_hits(*ends, bow, box) for box in others)), 0)
    middle = _bowed(*ends, bow)
    return _arrow(_edge(places[part], middle), _edge(places[other], middle), bow, both=both, width=1.2)


def _bowed(start: Point, end: Point, bow: float) -> Point:
    """The control point of a curve that bows so far to the left of its way."""
    (x0, y0), (x1, y1) = start, end
    length = hypot(x1 - x0, y1 - y0)
    return (x0 + x1) / 2 + 2 * bow * (y1 - y0) / length, (y0 + y1) / 2 - 2 * bow * (x1 - x0) / length


def _hits(start: Point, end: Point, bow: float, box: Point) -> bool:
    x, y = _bowed(start, end, bow)
    for step in range(21):
        t = step / 20
        at_x = (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * x + t**2 * end[0]
        at_y = (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * y + t**2 * end[1]
        if abs(at_x - box[0]) < _BOX_WIDTH / 2 + 4 and abs(at_y - box[1]) < _BOX_HEIGHT / 2 + 4:
            return True
    return False


def _edge(box: Point, towards: Point) -> Point:
    """Where the way from a box's middle leaves it."""
    dx, dy = towards[0] - box[0], towards[1] - box[1]
    share = min(_BOX_WIDTH / 2 / abs(dx) if dx else 99, _BOX_HEIGHT / 2 / abs(dy) if dy else 99)
    return box[0] + dx * share, box[1] + dy * share


def _arrow(start: Point, end: Point, bow: float, *, both: bool, width: float) -> str:
    x, y = _bowed(start, end, bow)
    path = f"M{start[0]:.0f} {start[1]:.0f}Q{x:.0f} {y:.0f} {end[0]:.0f} {end[1]:.0f}"
    tips = ' marker-start="url(#tip)"' if both else ""
    return f'<path d="{path}" fill="none" stroke="#357" stroke-width="{width}" marker-end="url(#tip)"{tips}/>'


# --------------------------------------------------------------------------------------------------- the pages

TABLES: dict[str, Callable[[], str]] = {
    "verdicts": _verdicts,
    "policy": _policy,
    "reasons": _reasons,
    "actions": _actions,
    "letters": _letters,
    "faults": _faults,
    "tones": _tones,
    "officers_verdicts": _officers_verdicts,
    "officers_reasons": _officers_reasons,
    "officers_banners": _officers_banners,
    "officers_menu": _officers_menu,
    "officers_purposes": _officers_purposes,
    "imports": _imports,
    **EXAMPLE,
}


def with_tables(page: str) -> str:
    """The page with every table made anew."""
    return _SECTION.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], page)


def main() -> None:
    """Write the pages and the picture."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
