"""The other ways of looking at a car, and the lists: typing a plate, tags, the checkpoint, history and menu."""

from __future__ import annotations

from dataclasses import replace

from firmware.choices import BRIGHTNESSES
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.checking import CONFIRM_MS, TURNS, remembered, seen, view_of
from firmware.machine.effects import Dispute, Play, PowerOff, ReadTags, SelfTest, Signal, Sync, UseNetwork, Watch
from firmware.machine.going import Handler, Step, back, lit, lock, purpose, to, typing
from firmware.machine.news import opened
from firmware.machine.states import Light, MenuItem, Mode, Network, Outcome, State
from firmware.plate_entry import Entry, pressed
from hw.buttons.keys import Key, KeyEvent
from verifier.adapters import NOTHING_READ
from verifier.check import Observation
from verifier.plates import kinds_of, parse_plate
from verifier.roles import Duty
from verifier.types import PlateSeen, Purpose, TagEvidence
from verifier.verdict import View

# --------------------------------------------------------------------------------------------- typing a plate


def typed(state: State, page: st.Typing, event: KeyEvent, now_ms: int) -> Step:
    """A key while a plate or a card is typed; BACK with nothing typed leaves, or goes back to the card's plate."""
    if page.entry.done:
        whole = _whole_card if page.entry.card else _whole_plate
        return whole(state, page, event.key, now_ms)
    if event.key is Key.BACK and not page.entry.text and not page.entry.path:
        return (replace(state, page=_plate_before(page)), ()) if page.entry.card else back(state)
    entry = pressed(page.entry, event.key)
    kinds = kinds_of(entry.text) if entry.done and not entry.card else ()
    kind = kinds[0] if len(kinds) == 1 else None
    return replace(state, page=replace(page, entry=entry, kind=kind)), ()


def _whole_plate(state: State, page: st.Typing, key: Key, now_ms: int) -> Step:
    """The whole plate is on the panel: LEFT and RIGHT choose its kind, UP adds the card, OK checks, BACK corrects."""
    car = replace(page.seen, plate_seen=PlateSeen(plate=parse_plate(page.entry.text, page.kind), confirmed=True))
    if key is Key.OK:
        return _looked_for(state, page, car, now_ms)
    if key is Key.UP and takes_card(page):
        return replace(state, page=st.Typing(entry=Entry(state.province, card=True), seen=car)), ()
    if key is Key.BACK:
        return replace(state, page=replace(page, entry=replace(page.entry, done=False), kind=None)), ()
    if key in (Key.LEFT, Key.RIGHT):
        kinds: tuple[str | None, ...] = (None, *kinds_of(page.entry.text))
        kind = kinds[(kinds.index(page.kind) + TURNS[key]) % len(kinds)]
        return replace(state, page=replace(page, kind=kind)), ()
    return state, ()


def takes_card(page: st.Typing) -> bool:
    """Whether the card of the car's tag helps: where its code was read, or the tag itself, that tells more."""
    return page.seen.tag is None and page.seen.code in (None, NOTHING_READ)


def _plate_before(page: st.Typing) -> st.Typing:
    """The page of the plate that the card was to be added to."""
    plate = page.seen.plate_seen
    assert plate is not None  # noqa: S101 - a card is typed after its plate
    entry = Entry(page.entry.province, plate.plate.text, done=True)
    return st.Typing(entry=entry, seen=replace(page.seen, plate_seen=None), kind=plate.plate.kind)


def _whole_card(state: State, page: st.Typing, key: Key, now_ms: int) -> Step:
    """The whole number is on the panel: OK checks it with its plate, BACK corrects."""
    if key is Key.OK:
        return _looked_for(state, page, replace(page.seen, card=page.entry.text), now_ms)
    if key is Key.BACK:
        return replace(state, page=replace(page, entry=replace(page.entry, done=False))), ()
    return state, ()


def _looked_for(state: State, page: st.Typing, car: Observation, now_ms: int) -> Step:
    """Where they log in, an officer who looks up a plate and nothing else says what for (I8)."""
    told = car.code not in (None, NOTHING_READ) or car.tag is not None or state.mode is Mode.ACCIDENT
    if state.lock_ms is None or told or not state.may(Duty.VERDICT):
        return seen(state, car, now_ms)
    return to(state, st.PurposeChoice(seen=car, typed=page))


PURPOSES: dict[Key, Purpose] = {
    Key.OK: Purpose.ENFORCEMENT, Key.LEFT: Purpose.ACCIDENT, Key.RIGHT: Purpose.REPORT, Key.DOWN: Purpose.OTHER,
}  # fmt: skip
"""The usual one lies where the finger is."""


def purpose_chosen(state: State, page: st.PurposeChoice, event: KeyEvent, now_ms: int) -> Step:
    """One key says what for; BACK goes back to the plate."""
    if event.key is Key.BACK:
        return to(state, page.typed)
    if event.key not in PURPOSES:
        return state, ()
    return seen(state, replace(page.seen, purpose=PURPOSES[event.key]), now_ms)


# ------------------------------------------------------------------------------------------- tags and lanes


def tags(state: State, *_: object) -> Step:
    """Show the tags in the field."""
    return to(replace(state, mode=Mode.TAGS), st.Tags(), ReadTags(on=True))


def tags_seen(state: State, page: st.Tags, event: ev.TagsSeen, now_ms: int) -> Step:
    """The strongest first; a cursor that was moved stays on its tag, until that is gone."""
    strongest = tuple(sorted(event.tags, key=lambda tag: -tag.rssi_dbm))
    under = page.tags[page.cursor].evidence if page.tags else None
    places = [at for at, tag in enumerate(strongest) if under is not None and _is_tag(under, tag.evidence)]
    moved = page.moved and len(places) == 1  # of two that may be it, neither is
    cursor = places[0] if moved else 0
    since_ms = page.since_ms if places == [cursor] else now_ms
    return replace(state, page=st.Tags(tags=strongest, cursor=cursor, moved=moved, since_ms=since_ms)), ()


def _is_tag(before: TagEvidence, now: TagEvidence) -> bool:
    """Whether it is the tag of before, whose TID may have been read since; a copy has its EPC and another TID."""
    epcs = [None if tag.seen is None else tag.seen.epc for tag in (before, now)]
    return epcs[0] == epcs[1] and before.tid in ("", now.tid)


def tag_chosen(state: State, page: st.Tags, event: object, now_ms: int) -> Step:
    """Check the car of the tag under the cursor, unless it has only just come there by itself."""
    if not page.tags or (page.since_ms is not None and now_ms - page.since_ms < CONFIRM_MS):
        return state, (Play(Signal.REFUSED),)
    car = Observation(tag=page.tags[page.cursor].evidence, purpose=purpose(state))
    return seen(state, car, now_ms, Play(Signal.DECODED))


def checkpoint(state: State, *_: object) -> Step:
    """Read every lane, and speak up only on a finding."""
    return to(replace(state, mode=Mode.CHECKPOINT), st.Checkpoint(), Watch(on=True))


def passed(state: State, page: st.Checkpoint, event: ev.Passed, now_ms: int) -> Step:
    """Cars in order are counted and make no sound."""
    return replace(state, page=replace(page, passed=page.passed + event.vehicles)), ()


def alarm(state: State, page: st.Checkpoint, event: ev.Alarm, now_ms: int) -> Step:
    """The newest alarm is shown at once: its car is the one that can still be stopped."""
    outcome = Outcome(number=event.number, seen=Observation(), result=event.result)
    queue = ((outcome, event.lane), *page.waiting)[: st.WAITING]
    page = replace(page, passed=page.passed + 1, alarms=page.alarms + 1, waiting=queue)
    state = remembered(replace(state, page=page, touched_ms=now_ms), (outcome,))
    return lit(state, Light.ON, Play(event.result.verdict.tone))


def alarm_taken(state: State, page: st.Checkpoint, event: object, now_ms: int) -> Step:
    """The alarm shown is acknowledged."""
    return replace(state, page=replace(page, waiting=page.waiting[1:])), ()


def accident(state: State, *_: object) -> Step:
    """Two cars (自行协商), one record."""
    return to(replace(state, mode=Mode.ACCIDENT, first_car=None), st.Accident())


# ------------------------------------------------------------------------------------------ history and menu


def looked_up(state: State, page: st.HistoryList, event: object, now_ms: int) -> Step:
    """A verdict of the history once more."""
    if not state.history:
        return state, ()
    outcome = state.history[page.cursor]
    if view_of(state, (outcome.result,)) is not View.FULL:
        return state, (Play(Signal.REFUSED),)
    return to(state, st.Shown(outcomes=(outcome,), since_ms=now_ms))


def turned(state: State, page: st.Menu | st.HistoryList | st.Tags | st.Choose, event: KeyEvent, now_ms: int) -> Step:
    """The cursor of a list, round and round."""
    cursor = (page.cursor + TURNS[event.key]) % max(_length(state, page), 1)
    if isinstance(page, st.Tags):
        return replace(state, page=replace(page, cursor=cursor, moved=True, since_ms=None)), ()
    return replace(state, page=replace(page, cursor=cursor)), ()


def _length(state: State, page: st.Menu | st.HistoryList | st.Tags | st.Choose) -> int:
    match page:
        case st.Menu():
            return len(state.menu)
        case st.HistoryList():
            return len(state.history)
        case st.Tags():
            return len(page.tags)
        case st.Choose():
            return len(page.codes)


def menu_ok(state: State, page: st.Menu, event: object, now_ms: int) -> Step:
    """The line under the cursor."""
    return MENU[state.menu[page.cursor]](state, page, event, now_ms)


def _language(state: State, *_: object) -> Step:
    return replace(state, language="en" if state.language == "zh" else "zh"), ()


def _brighter(state: State, *_: object) -> Step:
    return lit(replace(state, brightness=(state.brightness + 1) % BRIGHTNESSES), Light.ON)


def _network(state: State, *_: object) -> Step:
    network = Network.OFF if state.network is Network.AUTO else Network.AUTO
    return replace(state, network=network), (UseNetwork(network),)


def _dispute(state: State, *_: object) -> Step:
    """The record behind the last verdict is wrong: the centre is to hear of it."""
    outcome = state.disputable
    if outcome is None:
        return state, (Play(Signal.REFUSED),)
    return to(state, st.Info(title=MenuItem.DISPUTE, busy=True), Dispute(outcome.result, state.language))


def _sync(state: State, *_: object) -> Step:
    return to(state, st.Info(title=MenuItem.SYNC, busy=True), Sync())


def _self_test(state: State, *_: object) -> Step:
    return to(state, st.Info(title=MenuItem.SELF_TEST, busy=True), SelfTest())


def _info(state: State, *_: object) -> Step:
    return to(state, st.Info())


def _power_off(state: State, *_: object) -> Step:
    return to(state, st.Off(), PowerOff())


def reported(state: State, page: st.Info, event: ev.Reported, now_ms: int) -> Step:
    """The sync or the self-test has ended; nothing where the officer has gone on to something else."""
    if not page.busy or event.job != page.title:
        return state, ()
    return replace(state, page=replace(page, lines=event.lines, busy=False)), ()


MENU: dict[MenuItem, Handler] = {
    MenuItem.LOOKUP: typing,
    MenuItem.TAGS: tags,
    MenuItem.CHECKPOINT: checkpoint,
    MenuItem.ACCIDENT: accident,
    MenuItem.HISTORY: opened,
    MenuItem.DISPUTE: _dispute,
    MenuItem.SYNC: _sync,
    MenuItem.NETWORK: _network,
    MenuItem.LANGUAGE: _language,
    MenuItem.BRIGHTNESS: _brighter,
    MenuItem.SELF_TEST: _self_test,
    MenuItem.INFO: _info,
    MenuItem.POWER_OFF: _power_off,
    MenuItem.LOCK: lock,
}
