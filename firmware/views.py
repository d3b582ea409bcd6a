"""What the officer reads, in words: a verdict becomes a `VerdictView`, and a view becomes a card for a terminal.

Nothing is decided here. A word that the panel must always show is a field of its own, with the shorter forms
that a narrow place needs.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from verifier.check import CheckResult
from verifier.decide import CAUTION_REASONS
from verifier.plates import display_text
from verifier.types import Credential, Month, Plate, PresentationMode, TagEvidence
from verifier.vehicle_words import vehicle_words
from verifier.verdict import Action, Age, Grade, Tone, Verdict, VerdictCode
from verifier.wording import ACTIONS, REASONS, VERDICTS, Language, Text

LINE_COLUMNS = 16  # of a Latin character; a Chinese character takes two
PLATE_COLUMNS = 12  # 川X·1234应急, the longest there is
LIST_COLUMNS = 20  # of a line on the pages with reasons, actions and the vehicle
LISTED = 3  # lines on one such page

CARS = (Text("甲车", "CAR A"), Text("乙车", "CAR B"))  # of an accident
_NO_PLATE = "--·-----"
_UNKNOWN = "--"

# Data may seem to come from the future by this much: the decision allows the clock the same (rule R5).
_CLOCK_TOLERANCE = timedelta(seconds=300)

_ONLINE, _OFFLINE = Text("在线", "ONLINE"), Text("离线", "OFFLINE")
_ON, _OFF = Text("在线", "ON"), Text("离线", "OFF")
_NOW, _NO_DATA = Text("刚刚", "NOW"), Text("无数据", "NO DATA")
_AGES = {"h": Text("{}小时前", "{}h AGO"), "d": Text("{}天前", "{}d AGO"), "y": Text("{}年前", "{}y AGO")}
_SHORT_AGES = {"h": Text("{}时", "{}h"), "d": Text("{}天", "{}d"), "y": Text("{}年", "{}y")}
_AT_LEAST = ">"  # no time that a suspect clock has left is the whole of it
_MONTH = Text("至{0.year:04d}年{0.month:02d}月", "TO {0.year:04d}-{0.month:02d}")
_UNTIL = Text("至{}", "TO {}")
_NO_MONTH, _NO_MONTH_SHORT = Text("有效期未知", "NO DATE"), Text("期限未知", "NO DATE")
_COMPARE = (Text("核对号牌", "CHK PLATE"), Text("核牌", "PLATE?"), Text("核", "CHK"))
_SIMILAR = Text("近似 {}", "LIKE {}")
_DOUBTFUL, _DOUBT = Text("存疑请核实", "IN DOUBT: CHECK"), Text("存疑", "DOUBT")
_REASONS_TITLE, _ACTIONS_TITLE, _VEHICLE_TITLE = Text("原因", "WHY"), Text("处置", "DO"), Text("证载", "CAR")

# The first action in the fourth line: at most 4 Chinese or 9 Latin characters, so that age and grade fit beside.
SHORT_ACTIONS: dict[Action, Text] = {
    Action.RELEASE: Text("放行", "RELEASE"),
    Action.NO_PENALTY_NOT_SHOWN: Text("未示不罚", "NOT SHOWN"),
    Action.NO_PENALTY_NOT_DISPLAYED: Text("未贴不罚", "NO PAPER"),
    Action.FOLLOW_LOCAL_DISPLAY_RULE: Text("当地规定", "LOC. RULE"),
    Action.CONFIRM_PLATE: Text("核对号牌", "CHK PLATE"),
    Action.CONFIRM_CENTRE: Text("联系中心", "CALL CTR"),
    Action.ONLINE_RECHECK: Text("联网复核", "RECHECK"),
    Action.SYNC_NOW: Text("立即同步", "SYNC NOW"),
    Action.RESCAN: Text("重新扫码", "RESCAN"),
    Action.ENTER_PLATE: Text("手输号牌", "KEY PLATE"),
    Action.CHECK_VIN: Text("核车架号", "CHECK VIN"),
    Action.HANDLE_OVERDUE: Text("处理逾期", "HANDLE IT"),
    Action.PRESERVE_EVIDENCE: Text("固定证据", "EVIDENCE"),
    Action.ASK_OWNER_REFRESH: Text("提示更新", "REFRESH"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictView:
    """One verdict in the officer's language; every text is printable and of bounded length."""

    code: VerdictCode
    tone: Tone
    headline: str
    text: str
    plate: str
    months: tuple[str, ...]  # until when it is valid, from the long form to the shortest
    source: str
    source_short: str
    age: str
    age_short: str
    grade: str
    first_action: str  # short
    reasons_title: str
    reasons: tuple[str, ...]
    actions_title: str
    actions: tuple[str, ...]
    vehicle_title: str
    vehicle: tuple[str, ...]  # what is proven of the car's looks, to compare, and how the code was shown
    similar: tuple[str, ...] = ()  # plates in the data that a typed one may be mistaken for
    compare: tuple[str, ...] = ()  # long and short, where the plate has to be compared with the car's

    @property
    def lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Title and lines of the pages after the verdict, at most `LISTED` lines to a page."""
        sections = (
            (self.reasons_title, self.reasons + self.similar),
            (self.actions_title, self.actions),
            (self.vehicle_title, self.vehicle),
        )
        return tuple(
            (title, lines[at : at + LISTED]) for title, lines in sections for at in range(0, len(lines), LISTED)
        )

    @property
    def lines(self) -> tuple[str, str, str, str]:
        """Verdict, plate, month, and first action with age and grade: four lines of `LINE_COLUMNS`."""
        return self.text, self.plate, self.months[0], self._fourth_line()

    def _fourth_line(self) -> str:
        """An online answer of this moment says so; otherwise the longest form of the age that fits."""
        online = (self.source,) if self.grade == Grade.ONLINE and self.age in _NOW else ()
        for age in (*online, self.age, self.age_short):
            line = f"{self.first_action} {age} {self.grade}"
            if columns(line) <= LINE_COLUMNS:
                break
        return line


def verdict_view(
    verdict: Verdict,
    *,
    now: datetime,
    language: Language,
    credential: Credential | None = None,
    mode: PresentationMode | None = None,
    tag: TagEvidence | None = None,
    similar: tuple[Plate, ...] = (),
) -> VerdictView:
    """The words for a verdict. `now` is an aware datetime and makes the age of the data.

    Where the verdict says that the clock is under suspicion, `now` is the earliest that it can be, and the age is shown
    as the least.

    `credential` is the proven one that was shown, and no other: what it says of the car is shown to be compared.
    `mode` is how that one was shown, None when not known. `tag` is the one that was read: what its proven certificate
    says of the car is shown likewise.
    `similar` are the plates that the data have in place of one that was not found.
    """
    age, age_short = age_words(verdict.age(now), language)
    source, short = (_ONLINE, _ON) if verdict.grade is Grade.ONLINE else (_OFFLINE, _OFF)
    first = SHORT_ACTIONS[verdict.actions[0]].in_(language) if verdict.actions else _UNKNOWN
    return VerdictView(
        code=verdict.code,
        tone=verdict.tone,
        headline=headline_of(verdict.code, verdict.tone).in_(language),
        text=text_of(verdict).in_(language),
        plate=_NO_PLATE if verdict.plate is None else printable(display_text(verdict.plate), PLATE_COLUMNS),
        months=_months(verdict.valid_until, language),
        source=source.in_(language),
        source_short=short.in_(language),
        age=age,
        age_short=age_short,
        grade=verdict.grade.value,
        first_action=first,
        reasons_title=_REASONS_TITLE.in_(language),
        reasons=tuple(REASONS[reason].in_(language) for reason in verdict.reasons),
        actions_title=_ACTIONS_TITLE.in_(language),
        actions=tuple(ACTIONS[action].in_(language) for action in verdict.actions),
        vehicle_title=_VEHICLE_TITLE.in_(language),
        vehicle=_vehicle(vehicle_words(credential, mode, tag), language),
        similar=tuple(_SIMILAR.in_(language).format(printable(display_text(p), PLATE_COLUMNS)) for p in similar),
        compare=tuple(t.in_(language) for t in _COMPARE) if Action.CONFIRM_PLATE in verdict.actions else (),
    )


def result_view(result: CheckResult, language: Language) -> VerdictView:
    """The words for a finished check: grade and age are those that it had then."""
    view = verdict_view(
        result.verdict,
        now=result.earliest,
        language=language,
        credential=result.credential,
        mode=result.mode,
        tag=result.evidence.tag,
        similar=result.similar,
    )
    return view if result.plate_to_confirm is not None else replace(view, compare=())


def is_raised(code: VerdictCode, tone: Tone) -> bool:
    """Whether something else than the verdict's own words makes it loud (R16), as the suspicion of a copy does."""
    return tone in (Tone.CAUTION, Tone.STOP) and VERDICTS[code].tone in (Tone.PASS, Tone.NOTE)


def headline_of(code: VerdictCode, tone: Tone) -> Text:
    """The verdict's word; never a good one over a car that is not to be let go."""
    return _DOUBT if is_raised(code, tone) else VERDICTS[code].headline


def text_of(verdict: Verdict) -> Text:
    """The verdict's text; of one that was made louder, what makes it so."""
    if not is_raised(verdict.code, verdict.tone):
        return VERDICTS[verdict.code].text
    loud = next((reason for reason in verdict.reasons if reason in CAUTION_REASONS), None)
    return _DOUBTFUL if loud is None else REASONS[loud]


def _vehicle(said: tuple[tuple[Text, Text], ...], language: Language) -> tuple[str, ...]:
    """One line for each thing; where it would be too long its words speak for themselves."""
    lines = []
    for label, words in said:
        line = f"{label.in_(language)} {words.in_(language)}"
        lines.append(printable(line if columns(line) <= LIST_COLUMNS else words.in_(language), LIST_COLUMNS))
    return tuple(lines)


def _months(month: Month | None, language: Language) -> tuple[str, ...]:
    """Long form, "2027-08" with and without its preposition, and "27-08" for beside the longest plates."""
    if month is None:
        return _NO_MONTH.in_(language), _NO_MONTH_SHORT.in_(language), _UNKNOWN
    long, short = _MONTH.in_(language).format(month), _UNTIL.in_(language).format(month)
    return long, short, str(month), str(month)[2:]


def age_words(age: Age | None, language: Language) -> tuple[str, str]:
    """Long and short form. Data from the future have no age: the clock or the data are wrong."""
    if age is None:
        return _NO_DATA.in_(language), _UNKNOWN
    hours = max(age.span, timedelta(0)) // timedelta(hours=1)
    if age.span < -_CLOCK_TOLERANCE or (age.at_least and hours == 0):
        return _UNKNOWN, _UNKNOWN
    if hours == 0:
        return _NOW.in_(language), _NOW.in_(language)
    unit, number = _largest_unit(hours)
    least, number = (_AT_LEAST, min(number, 99)) if age.at_least else ("", number)  # no wider than three digits
    return least + _AGES[unit].in_(language).format(number), least + _SHORT_AGES[unit].in_(language).format(number)


def _largest_unit(hours: int) -> tuple[str, int]:
    """Hours for two days, then days of at most three digits, then years."""
    days = hours // 24
    if hours < 48:
        return "h", hours
    return ("d", days) if days < 1000 else ("y", days // 365)


# ----------------------------------------------------------------------------------------- text, made harmless

# Terminal sequences as a whole (ECMA-48): CSI, strings such as OSC up to BEL or ST, and two-character escapes.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\|\x9c|$)|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
# Control, format (bidi marks, zero width), surrogate, private, unassigned; separators; stacking marks.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me"})
_LONGEST_INPUT = 1000  # characters; far more than any line, and a bound on the work


def printable(text: str, limit: int = 80) -> str:
    """The text without anything that steers a terminal or reorders it, cut with "…" to `limit` columns."""
    plain = _ESCAPES.sub("", text[:_LONGEST_INPUT])
    visible = "".join(char for char in plain if unicodedata.category(char) not in _UNPRINTABLE)
    if columns(visible) <= limit:
        return visible
    while columns(visible) > limit - 2:  # the ellipsis is two columns wide in Chinese fonts
        visible = visible[:-1]
    return visible + "…"


def drawable(text: str) -> str:
    """The text with "?" for what fonts may draw wider than it counts: only ASCII and wide characters are sure."""
    return "".join(char if _sure(char) else "?" for char in text)


def _sure(char: str) -> bool:
    return (char.isascii() and char.isprintable()) or char in "·…" or unicodedata.east_asian_width(char) in "WF"


def columns(text: str) -> int:
    """Width in Latin characters: a wide or full-width character counts two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


# --------------------------------------------------------------------------------------------- the terminal

_CARD_COLUMNS = 36
_COLOURS = {Tone.PASS: "32", Tone.NOTE: "36", Tone.CAUTION: "33", Tone.STOP: "1;31"}  # SGR (ECMA-48, 8.3.117)
_MARKS = {Tone.PASS: "[OK]", Tone.NOTE: "[i]", Tone.CAUTION: "[!]", Tone.STOP: "[X]"}


def terminal_card(view: VerdictView, *, colour: bool) -> str:
    """The view as a box of text; without colour its mark still tells the tone."""
    verdict, *facts = view.lines
    head = f"{_MARKS[view.tone]} {view.headline}  {verdict}"
    source = "" if view.source in facts[2] else f"  {view.source}"
    rows = [head, *facts[:2], facts[2] + source]
    lists = [
        (view.reasons_title, view.reasons + view.similar),
        (view.actions_title, view.actions),
        (view.vehicle_title, view.vehicle),
    ]
    parts = [rows, *(_listed(title, texts) for title, texts in lists)]
    bodies = ["\n".join(_row(row) for row in part) for part in parts if part]
    bar = "─" * (_CARD_COLUMNS + 2)
    card = f"┌{bar}┐\n" + f"\n├{bar}┤\n".join(bodies) + f"\n└{bar}┘"
    return _painted(card, _COLOURS[view.tone]) if colour else card


def _listed(title: str, texts: tuple[str, ...]) -> list[str]:
    titles = [title, *[""] * len(texts)]
    return [_padded(left, 9) + right for left, right in zip(titles, texts, strict=False)]


def _row(text: str) -> str:
    return f"│ {_padded(printable(text, _CARD_COLUMNS), _CARD_COLUMNS)} │"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _painted(card: str, sgr: str) -> str:
    return "\n".join(f"\x1b[{sgr}m{line}\x1b[0m" for line in card.split("\n"))
