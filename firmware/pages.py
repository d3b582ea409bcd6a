"""What stands on every page but the verdict's, in words: a state becomes a `PageView`. No pixels here.

A page has a status bar, some rows, and perhaps a line at its foot with the mode, one fault and the mark of test data.
What may stand shorter where room is short has several forms, the long one first. A text from outside is made printable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from firmware.digit_entry import digit_choices
from firmware.login_pages import answer_rows, login_rows
from firmware.machine import states as st
from firmware.machine.modes import PURPOSES as PURPOSE_KEYS
from firmware.machine.modes import takes_card
from firmware.machine.states import MenuItem, Mode, Network, State
from firmware.parts import LOW_BATTERY
from firmware.plate_entry import PLACES, Group, choices, ends
from firmware.rows import Row
from firmware.views import CARS, LIST_COLUMNS, age_words, headline_of, printable, text_of
from verifier.cache.keys import CARD_DIGITS
from verifier.plates import PLATE_KINDS, display_text
from verifier.roles import Duty
from verifier.types import SHANGHAI, Hint, Plate
from verifier.verdict import Age, Tone
from verifier.wording import AIM_AGAIN, HINTS, PURPOSES, TAG_LEVELS, VERDICTS, Text

ROW_COLUMNS = LIST_COLUMNS
ROWS = 3  # that every panel has room for

MODES: dict[Mode, Text] = {
    Mode.ROADSIDE: Text("路检", "ROADSIDE"),
    Mode.LOOKUP: Text("查牌", "LOOKUP"),
    Mode.TAGS: Text("标识", "TAGS"),
    Mode.CHECKPOINT: Text("卡口", "CHECKPT"),
    Mode.ACCIDENT: Text("事故", "ACCIDENT"),
}

MODES_SHORT: dict[Mode, Text] = {
    Mode.ROADSIDE: Text("路", "ROAD"),
    Mode.LOOKUP: Text("查", "FIND"),
    Mode.TAGS: Text("标", "TAGS"),
    Mode.CHECKPOINT: Text("卡", "LANE"),
    Mode.ACCIDENT: Text("事", "ACC."),
}

MENU: dict[MenuItem, Text] = {
    MenuItem.LOOKUP: Text("输入号牌", "ENTER PLATE"),
    MenuItem.TAGS: Text("读取标识", "READ TAGS"),
    MenuItem.CHECKPOINT: Text("卡口模式", "CHECKPOINT"),
    MenuItem.ACCIDENT: Text("事故模式", "ACCIDENT"),
    MenuItem.HISTORY: Text("核查记录", "HISTORY"),
    MenuItem.DISPUTE: Text("记录有误", "DISPUTE"),
    MenuItem.SYNC: Text("立即同步", "SYNC NOW"),
    MenuItem.NETWORK: Text("联网", "NETWORK"),
    MenuItem.LANGUAGE: Text("语言", "LANGUAGE"),
    MenuItem.BRIGHTNESS: Text("亮度", "BRIGHTNESS"),
    MenuItem.SELF_TEST: Text("自检", "SELF-TEST"),
    MenuItem.INFO: Text("本机信息", "ABOUT"),
    MenuItem.POWER_OFF: Text("关机", "POWER OFF"),
    MenuItem.LOCK: Text("锁定", "LOCK"),
}

TITLES: dict[MenuItem, Text] = {
    MenuItem.DISPUTE: Text("报告", "REPORT"),
    MenuItem.SYNC: Text("同步", "SYNC"),
    MenuItem.SELF_TEST: Text("自检", "SELF"),
    MenuItem.INFO: Text("本机", "ABOUT"),
}

PARTS: dict[str, Text] = {
    "camera": Text("相机故障", "CAMERA FAIL"),
    "reader": Text("读写器故障", "READER FAIL"),
    "panel": Text("显示屏故障", "PANEL FAIL"),
    "sound": Text("声音故障", "SOUND FAIL"),
    "keys": Text("按键故障", "KEYS FAIL"),
    "barcode": Text("扫码器故障", "SCAN FAIL"),
    "check": Text("核查未完成", "NOT CHECKED"),
    "cache": Text("缓存故障", "CACHE FAIL"),
    "audit": Text("记录故障", "AUDIT FAIL"),
    "clock": Text("时钟可疑", "CLOCK WRONG"),
    "settings": Text("配置有误", "BAD CONFIG"),
    "mode": Text("缺少读写器", "NO READER"),
}
_OTHER_PART = Text("部件故障", "PART FAIL")
_FAULT = Text("故障", "FAULT")  # where there is room for no more

_ONLINE, _OFFLINE, _HELD_OFF = Text("在线", "ON"), Text("离线", "OFF"), Text("禁网", "HELD")
_STARTING = Text("正在启动", "STARTING")
_TO_SCAN = (Text("按确认键扫码", "OK: SCAN"), Text("上:输号牌 左:标识", "UP PLATE  < TAGS"))
_TO_TYPE = Text("上:输号牌", "UP PLATE")  # where the policy offers no tags
_TODAY = Text("今日{}次", "TODAY {}")
_SCANNING, _RECORD = Text("正在扫码", "SCANNING"), Text("再按确认:记无法识读", "OK: UNREADABLE")
_WHICH = Text("有多个码,请选择", "WHICH CODE?")
_CHECKING = Text("正在核查", "CHECKING")
_KIND, _ANY_KIND = Text("种类{}", "KIND {}"), Text("种类不明", "KIND UNKNOWN")
_KIND_KEYS = Text("左右:种类 确认:核查", "< > KIND   OK: GO")
_KIND_OR_CARD = Text("^卡号 <>种类 OK核查", "^CARD <>KIND OK:GO")
_CARD, _CARD_KEYS = Text("卡号", "CARD"), Text("卡号 确认:核查", "CARD   OK: GO")
_NO_TAG, _TAG = Text("未读到标识", "NO TAG"), Text("{}个标识", "{} TAGS")
_PASSED, _ALARMS = Text("已通过{}", "CARS {}"), Text("报警{}", "ALARM {}")
_WATCHING, _LANE = Text("持续读取中", "READING"), Text("{}车道", "LANE {}")
CARS_SHORT = (Text("甲", "A"), Text("乙", "B"))
_SEEN, _MISSING, _NOW_SCAN = (
    Text("已采集", "DONE"),
    Text("待采集", "MISSING"),
    Text("确认:扫码 上:号牌", "OK SCAN  UP PLATE"),
)
_NONE_YET, _BUSY = Text("暂无记录", "NO CHECKS YET"), Text("进行中", "WORKING")
_AUTO, _OFF = Text("自动", "AUTO"), Text("关", "OFF")
TEST = (Text("测试数据", "TEST DATA"), Text("测试数据", "TEST"))
_MENU_TITLE, _HISTORY_TITLE = Text("菜单", "MENU"), Text("记录", "LOG")
_NEWS_TITLE, _CHANGED, _CHANGED_SHORT = Text("变更", "NEWS"), Text("{}项判定有变", "{} CHANGED"), Text("变{}", "NEW{}")
_NEWS_KEY, _FROM_TO = Text("下:看判定变更", "DOWN: NEWS"), "{}->{}"
_COMPARED, _COMPARED_SHORT = Text("比对此车", "SAME CAR"), Text("此车", "CAR")
_NUMBER, _PIN, _PURPOSE = Text("警号", "NO."), Text("密码", "PIN"), Text("用途", "FOR")
_LOCKED = Text("已锁定 按键登录", "LOCKED: LOG IN")
_FLAGGED, _FLAGGED_SHORT = Text("查询过多已标记", "MANY LOOKUPS"), Text("标记", "MANY")
_SWITCHING_OFF = Text("正在关机", "SWITCHING OFF")
_OFF_NOW, _FLAT = Text("可以断电", "SAFE TO UNPLUG"), Text("电量耗尽已关机", "BATTERY EMPTY")
_LOW, _LOW_SHORT = Text("电量低 {}%", "BATTERY {}%"), Text("{}%!", "{}%!")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """A page in the officer's language; a tuple of texts is one text in its forms, the long one first.

    `mode` where the title is another; `keys` are the labels of the five keys where a plate is typed; a `bare` page has
    no bar, because what it would say does not stay true.
    """

    title: tuple[str, ...]
    mode: tuple[str, ...]
    network: str
    online: bool
    held_off: bool
    age: str
    battery: int | None
    charging: bool
    clock_doubted: bool
    rows: tuple[Row, ...]
    banner: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    tone: Tone | None = None
    demo: tuple[str, ...] = ()
    bare: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is written on it, for tests and for those who cannot see the panel."""
        battery = () if self.battery is None else (f"{self.battery}%",)
        top = (*self.title[:1], *self.mode[:1], self.network, self.age, *battery)
        rows = [text for row in self.rows for text in (row.text, row.right) if text]
        return (*top, *rows, *filter(None, self.keys), *self.banner[:1], *self.demo[:1])


def page_view(state: State, wall: datetime, rows: int = ROWS) -> PageView:
    """The words of a page that is no verdict (`states.Shown` has a view of its own); lists show so many rows."""
    page = state.page
    status = state.status
    held_off = state.network is Network.OFF
    network = _HELD_OFF if held_off else _ONLINE if status.online else _OFFLINE
    title = _title(state)
    return PageView(
        title=title or mode_forms(state),
        mode=mode_forms(state) if title and not isinstance(page, st.Login | st.PurposeChoice | st.Typing) else (),
        network=network.in_(state.language),
        online=status.online,
        held_off=held_off,
        age=_age(state, wall),
        battery=status.battery,
        charging=status.charging,
        clock_doubted=status.clock_doubted,
        rows=_ROWS[type(page)](state, page, rows),
        banner=_banner(state),
        keys=_keys(state, page),
        tone=_tone(page),
        demo=demo_forms(state),
        bare=isinstance(page, st.Off),
    )


def mode_forms(state: State) -> tuple[str, ...]:
    """What the officer is at."""
    return MODES[state.mode].in_(state.language), MODES_SHORT[state.mode].in_(state.language)


def demo_forms(state: State) -> tuple[str, ...]:
    """The mark of test data; nothing on a device in service."""
    return tuple(text.in_(state.language) for text in TEST) if state.status.demo else ()


def _age(state: State, wall: datetime) -> str:
    """Of the data in use, short; the least of it under a suspect clock."""
    as_of, doubted = state.status.data_as_of, state.status.clock_doubted
    age = None if as_of is None else Age(wall - as_of, at_least=doubted)
    return age_words(age, state.language)[1]


def _title(state: State) -> tuple[str, ...]:
    """Of a page that is not the mode's own."""
    match state.page:
        case st.Info(title=item):
            return (TITLES[item].in_(state.language),)
        case st.Menu():
            return (_MENU_TITLE.in_(state.language),)
        case st.HistoryList():
            return (_HISTORY_TITLE.in_(state.language),)
        case st.NewsList():
            return (_NEWS_TITLE.in_(state.language),)
        case st.PurposeChoice():
            return (_PURPOSE.in_(state.language),)
        case st.Typing() as typed if not takes_card(typed):  # else the next car's plate meets this one's code
            return tuple(text.in_(state.language) for text in (_COMPARED, _COMPARED_SHORT))
        case st.Login(number=number):
            return ((_PIN if number.done else _NUMBER).in_(state.language),)
    return ()


def _banner(state: State) -> tuple[str, ...]:
    """One thing at a time: an empty battery before all, news, the newest fault, too many typed plates."""
    battery = state.status.battery
    if battery is not None and battery <= LOW_BATTERY and not state.status.charging:
        return tuple(text.in_(state.language).format(battery) for text in (_LOW, _LOW_SHORT))
    if state.news and not isinstance(state.page, st.NewsList) and state.may(Duty.HISTORY):
        return tuple(text.in_(state.language).format(len(state.news)) for text in (_CHANGED, _CHANGED_SHORT))
    for part in reversed(tuple(state.faults)):
        return PARTS.get(part, _OTHER_PART).in_(state.language), _FAULT.in_(state.language)
    if state.flagged_ms is not None and not state.locked:
        return _FLAGGED.in_(state.language), _FLAGGED_SHORT.in_(state.language)
    return ()


def _tone(page: st.Page) -> Tone | None:
    return page.waiting[0][0].result.verdict.tone if isinstance(page, st.Checkpoint) and page.waiting else None


def _window(rows: list[Row], cursor: int, room: int) -> tuple[Row, ...]:
    """The rows around the cursor that fit."""
    start = max(0, min(cursor - room // 2, len(rows) - room))
    return tuple(rows[start : start + room])


# ----------------------------------------------------------------------------------------------- page by page


def _boot(state: State, page: st.Boot, room: int) -> tuple[Row, ...]:
    return Row("MARKCHECK", big=True), Row(_STARTING.in_(state.language))


def _ready(state: State, page: st.Ready, room: int) -> tuple[Row, ...]:
    today = _TODAY.in_(state.language).format(sum(state.counts.values()))
    last = _NEWS_KEY.in_(state.language) if state.news and state.may(Duty.HISTORY) else today
    others = _TO_SCAN[1] if Mode.TAGS in state.offered else _TO_TYPE
    return Row(_TO_SCAN[0].in_(state.language), big=True), Row(others.in_(state.language)), Row(last)


def _aim(state: State, page: st.Aim, room: int) -> tuple[Row, ...]:
    hint = None if page.hint is None else HINTS[page.hint]
    if page.hint is None or (page.hint is Hint.NO_CODE and not page.named):
        hint = AIM_AGAIN if page.named else None
    told = () if hint is None else (Row(hint.in_(state.language), big=True),)
    if not told:
        return (Row(_SCANNING.in_(state.language), big=True),)
    return (*told, Row((_RECORD if page.named else _SCANNING).in_(state.language)))


def _choose(state: State, page: st.Choose, room: int) -> tuple[Row, ...]:
    rows = [
        Row(printable(code.label or str(at + 1), ROW_COLUMNS), chosen=at == page.cursor, outside=True)
        for at, code in enumerate(page.codes)
    ]
    return Row(_WHICH.in_(state.language)), *_window(rows, page.cursor, room - 1)


def _checking(state: State, page: st.Checking, room: int) -> tuple[Row, ...]:
    return (Row(_CHECKING.in_(state.language), big=True),)


def _typing(state: State, page: st.Typing, room: int) -> tuple[Row, ...]:
    if page.entry.card:
        return _typing_card(state, page)
    plate = Row(_spaced(page.entry.text) + ("" if page.entry.done else "_"), big=True, left=True)
    if not page.entry.done:
        return (plate,)
    kind = _ANY_KIND.in_(state.language) if page.kind is None else PLATE_KINDS[page.kind]
    if page.kind is not None and state.language == "en":
        kind = _KIND.en.format(page.kind)
    keys = _KIND_OR_CARD if takes_card(page) else _KIND_KEYS
    return plate, Row(kind), Row(keys.in_(state.language))


def _typing_card(state: State, page: st.Typing) -> tuple[Row, ...]:
    """The number in groups of four as it is printed, with a place for every digit that is missing."""
    digits = page.entry.text.ljust(CARD_DIGITS, "_")
    number = Row("·".join(digits[at : at + 4] for at in range(0, CARD_DIGITS, 4)), big=True, left=True)
    if not page.entry.done or page.seen.plate_seen is None:
        return (number,)
    return number, Row(display_text(page.seen.plate_seen.plate)), Row(_CARD_KEYS.in_(state.language))


def _spaced(text: str) -> str:
    """With the dot of a plate after the second character."""
    return f"{text[:2]}·{text[2:]}" if len(text) > 2 else text


def _keys(state: State, page: st.Page) -> tuple[str, ...]:
    """What the five keys stand for: up, left, middle, right, down."""
    match page:
        case st.Typing(entry=entry) if not entry.done:
            named = {2: _CARD.in_(state.language)} if entry.card else {}  # its place has no choice before the end
            return tuple(_label(one) or named.get(at, "") for at, one in enumerate(choices(entry).places))
        case st.Login(attempt=None, refused=None, number=number, pin=pin):
            return tuple(_label(choice) for choice in digit_choices(pin if number.done else number).places)
        case st.PurposeChoice():
            purposes = (PURPOSE_KEYS.get(key) for key in PLACES)
            return tuple("" if one is None else PURPOSES[one].in_(state.language) for one in purposes)
    return ()


def _label(choice: str | Group | None) -> str:
    if choice is None:
        return ""
    if ends(choice):
        return "OK"
    if isinstance(choice, str):
        return choice
    label = choice.label
    return f"{label[0]}-{label[-1]}" if label.isascii() and len(label) > 5 else label


def _tags(state: State, page: st.Tags, room: int) -> tuple[Row, ...]:
    if not page.tags:
        return (Row(_NO_TAG.in_(state.language), big=True),)
    rows = [
        Row(
            _plate(tag.evidence.plate), f"{tag.rssi_dbm:.0f}",
            chosen=at == page.cursor, bars=_bars(tag.rssi_dbm), outside=True,
        )
        for at, tag in enumerate(page.tags)
    ]  # fmt: skip
    # What the tag under the cursor proves so far: a read alone proves nothing.
    proven = Row(
        TAG_LEVELS[page.tags[page.cursor].evidence.level].in_(state.language),
        _TAG.in_(state.language).format(len(page.tags)),
    )  # fmt: skip
    return *_window(rows, page.cursor, room - 1), proven


def _bars(rssi_dbm: float) -> int:
    """How strongly a tag is read: -80 dBm is nothing, -30 dBm is before the antenna."""
    return max(0, min(8, round((rssi_dbm + 80) * 8 / 50)))


def _checkpoint(state: State, page: st.Checkpoint, room: int) -> tuple[Row, ...]:
    passed, alarms = (text.in_(state.language) for text in (_PASSED, _ALARMS))
    counts = Row(passed.format(page.passed), alarms.format(page.alarms), outside=True)  # cut, rather than a dark panel
    if not page.waiting:
        locked = (Row(_LOCKED.in_(state.language)),) if state.locked else ()
        return Row(_WATCHING.in_(state.language), big=True), counts, *locked
    outcome, lane = page.waiting[0]
    verdict = outcome.result.verdict
    words = text_of(verdict).in_(state.language)
    return (
        Row(_plate(verdict.plate), big=True),
        Row(words),
        Row(_LANE.in_(state.language).format(lane), _ALARMS.in_(state.language).format(page.alarms)),
    )


def _accident(state: State, page: st.Accident, room: int) -> tuple[Row, ...]:
    first = state.first_car is not None
    return (
        Row(CARS[0].in_(state.language), (_SEEN if first else _MISSING).in_(state.language), chosen=not first),
        Row(CARS[1].in_(state.language), _MISSING.in_(state.language), chosen=first),
        Row(_NOW_SCAN.in_(state.language)),
    )


def _history(state: State, page: st.HistoryList, room: int) -> tuple[Row, ...]:
    if not state.history:
        return (Row(_NONE_YET.in_(state.language), big=True),)
    rows = []
    for at, outcome in enumerate(state.history):
        verdict = outcome.result.verdict
        word = headline_of(verdict.code, verdict.tone).in_(state.language)
        rows.append(Row(_plate(verdict.plate), word, chosen=at == page.cursor, outside=True))
    today = _TODAY.in_(state.language).format(sum(state.counts.values()))
    bad = sum(count for code, count in state.counts.items() if VERDICTS[code].tone is Tone.STOP)
    return Row(today, _ALARMS.in_(state.language).format(bad)), *_window(rows, page.cursor, room - 1)


def _news(state: State, page: st.NewsList, room: int) -> tuple[Row, ...]:
    """The car, when it was checked, what was said then and what is right now."""
    one, at = page.news[page.cursor], page.news[page.cursor].at.astimezone(SHANGHAI)
    then, now = VERDICTS[one.then].headline, headline_of(one.now, one.tone_now)
    return (
        Row(_plate(one.plate), big=True),
        Row(at.strftime("%H:%M" if at.date() == state.day else "%m-%d %H:%M"), f"{page.cursor + 1}/{len(page.news)}"),
        Row(_FROM_TO.format(then.in_(state.language), now.in_(state.language))),
    )


def _menu(state: State, page: st.Menu, room: int) -> tuple[Row, ...]:
    disputed = state.disputable
    values = {
        MenuItem.DISPUTE: "" if disputed is None else _plate(disputed.result.verdict.plate),
        MenuItem.NETWORK: (_OFF if state.network is Network.OFF else _AUTO).in_(state.language),
        MenuItem.LANGUAGE: "中文" if state.language == "zh" else "EN",
        MenuItem.BRIGHTNESS: str(state.brightness + 1),
        MenuItem.LOCK: "" if state.officer is None else state.officer.officer_id,
    }
    rows = [
        Row(MENU[item].in_(state.language), values.get(item, ""), chosen=at == page.cursor)
        for at, item in enumerate(state.menu)
    ]
    return _window(rows, page.cursor, room)


def _info(state: State, page: st.Info, room: int) -> tuple[Row, ...]:
    if page.busy:
        return (Row(_BUSY.in_(state.language), big=True),)
    if page.lines:
        return tuple(Row(printable(line, 2 * ROW_COLUMNS), outside=True) for line in page.lines[:room])
    about = tuple(Row(printable(line, 2 * ROW_COLUMNS), outside=True) for line in state.status.about[:room])
    return about if len(about) == room else (Row("MARKCHECK", big=True), *about)


def _purpose(state: State, page: st.PurposeChoice, room: int) -> tuple[Row, ...]:
    entry, plate = page.typed.entry, page.seen.plate_seen
    text = plate.plate.text if entry.card and plate is not None else entry.text
    return (Row(_spaced(text), big=True, left=True),)


def _off(state: State, page: st.Off, room: int) -> tuple[Row, ...]:
    text = _SWITCHING_OFF if not page.kept else _FLAT if page.flat else _OFF_NOW
    return (Row(text.in_(state.language), big=True),)


def _plate(plate: Plate | None) -> str:
    return "--" if plate is None else printable(display_text(plate), 12)


_ROWS: dict[type[st.Page], Callable[[State, Any, int], tuple[Row, ...]]] = {
    st.Boot: _boot,
    st.Ready: _ready,
    st.Aim: _aim,
    st.Choose: _choose,
    st.Checking: _checking,
    st.Typing: _typing,
    st.Tags: _tags,
    st.Checkpoint: _checkpoint,
    st.Accident: _accident,
    st.HistoryList: _history,
    st.NewsList: _news,
    st.Menu: _menu,
    st.Info: _info,
    st.Off: _off,
    st.PurposeChoice: _purpose,
    st.Answer: answer_rows,
    st.Login: login_rows,
}
