"""The state machine: `(state, event, now) -> (state, effects)`, as tables of who answers what.

`ON_PAGE` answers an event on one page, `ON_EVENT` on every other, `ON_KEY` a key on one page. Nothing here does
anything: what is to be done is an effect. Times are integer milliseconds that never go back.
"""

from __future__ import annotations

from dataclasses import replace

from firmware.machine import checking, login, modes, news
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import Play, PowerOff, Signal
from firmware.machine.going import Handler, Step, aim, aim_roadside, back, home, lit, lock, resting, to, typing
from firmware.machine.states import Light, Mode, State
from hw.buttons.keys import Key, KeyEvent, Touch

FLAT = 4  # percent: everything on the disk, and off
_TYPED_ON = st.Typing | st.PurposeChoice | st.Login


def step(state: State, event: ev.Event, now_ms: int) -> Step:
    """The next state, and what is to be done. A page that is not for who holds the device is refused, and a mode that
    the policy does not offer."""
    after, effects = _answered(login.note_ends(state, now_ms), event, now_ms)
    offered = after.mode is state.mode or after.mode in state.offered
    if offered and (type(after.page) is type(state.page) or login.admitted(after)):
        return _warned(state, _on_its_line(state, after), now_ms), effects
    touched = replace(state, touched_ms=after.touched_ms, acted_ms=after.acted_ms, swallowed=after.swallowed)
    return touched, (Play(Signal.REFUSED),)


def _on_its_line(before: State, after: State) -> State:
    """Lines come into the open menu and go: its cursor stays on its own, else it is on the first."""
    page = after.page
    if not isinstance(page, st.Menu) or page != before.page or after.menu == before.menu:
        return after
    chosen, menu = before.menu[page.cursor], after.menu
    return replace(after, page=replace(page, cursor=menu.index(chosen) if chosen in menu else 0))


def _warned(before: State, after: State, now_ms: int) -> State:
    """Another warning came up, be it in the place of a verdict, or as the next alarm."""
    shown = checking.warning(after.page)
    return replace(after, warned_ms=now_ms) if shown and shown != checking.warning(before.page) else after


def _answered(state: State, event: ev.Event, now_ms: int) -> Step:
    if isinstance(state.page, st.Off):
        return (replace(state, page=replace(state.page, kept=True)) if isinstance(event, ev.Kept) else state), ()
    if isinstance(event, ev.Tick) and login.idle(state, now_ms):
        return lock(state)
    if isinstance(event, KeyEvent):
        return _touched(state, event, now_ms)
    handler = ON_PAGE.get((type(state.page), type(event))) or ON_EVENT.get(type(event))
    return handler(state, state.page, event, now_ms) if handler else (state, ())


# ------------------------------------------------------------------------------------------------- keys


def _touched(state: State, event: KeyEvent, now_ms: int) -> Step:
    """A key that wakes the panel does nothing else, however long it is held; nor does one that comes too soon after a
    warning. A checkpoint can always be left by a held key: alarms may come without end."""
    state = replace(state, touched_ms=now_ms, acted_ms=now_ms)
    if event.touch is Touch.PRESS:
        woken = state.light is not Light.ON
        state = replace(state, swallowed=event.key if woken else None)
        if woken:
            return lit(state, Light.ON)
    if state.swallowed is event.key or event.touch is Touch.RELEASE:
        return state, ()
    held = event.touch is Touch.HOLD
    if checking.too_soon(state, now_ms) and not (held and isinstance(state.page, st.Checkpoint)):
        return state, ()
    if held:
        return _held(state, event.key)
    if event.touch is Touch.REPEAT and event.key not in checking.TURNS:
        return state, ()
    handler = ON_KEY.get((type(state.page), event.key))
    return handler(state, state.page, event, now_ms) if handler else (state, ())


def _held(state: State, key: Key) -> Step:
    """OK held is the menu, at a checkpoint the lock; BACK held leaves whatever it is, an empty login to switch off."""
    if key is Key.OK and isinstance(state.page, st.Ready | st.Aim):
        return to(state, st.Menu())
    if key is Key.OK and isinstance(state.page, st.Checkpoint):
        return lock(state)
    if key is Key.BACK and isinstance(state.page, st.Login) and login.untouched(state.page):
        return to(state, st.Menu(behind=state.page.behind))
    if key is Key.BACK and not isinstance(state.page, st.Boot):
        return home(state)
    return state, ()


def _triggered(state: State, page: st.Page, event: ev.CodesSeen, now_ms: int) -> Step:
    """The trigger of a barcode engine is one more OK, with the code in view already. While a check runs it begins that
    of the next car: no verdict is taken for that of a car whose code was read later."""
    if not event.triggered or isinstance(page, _TYPED_ON | st.Boot | st.Checkpoint) or _is_checked(page, event):
        return state, ()
    if checking.too_soon(state, now_ms):
        return state, (Play(Signal.REFUSED),)  # the engine has chirped: its car is not that of the warning
    state, effects = lit(replace(state, touched_ms=now_ms, acted_ms=now_ms), Light.ON)
    if state.mode is not Mode.ACCIDENT:
        state = replace(state, mode=Mode.ROADSIDE)
    state, asked = checking.triggered(state, event, now_ms)
    return state, (*effects, *asked)


def _is_checked(page: st.Page, event: ev.CodesSeen) -> bool:
    """Whether the check that runs is that of this code, or of the two cars of an accident."""
    if not isinstance(page, st.Checking):
        return False
    return len(page.seen) > 1 or any(code.payload == page.seen[0].code for code in event.codes)


# ---------------------------------------------------------------------------------------- the device itself


def _tick(state: State, page: st.Page, event: ev.Tick, now_ms: int) -> Step:
    return resting(state, now_ms)


def _awake(state: State, *_: object) -> Step:
    """On these pages the panel stays on: nobody touches it, and it is looked at."""
    return state, ()


def _started(state: State, page: st.Boot, event: ev.Started, now_ms: int) -> Step:
    return login.opening(replace(state, touched_ms=now_ms), now_ms)


def _part(state: State, page: st.Page, event: ev.PartFault, now_ms: int) -> Step:
    """A fault is a banner, never a block."""
    others = {part: problem for part, problem in state.faults.items() if part != event.part}
    return replace(state, faults={**others, event.part: event.problem} if event.problem else others), ()


def _power(state: State, page: st.Page, event: ev.PowerRead, now_ms: int) -> Step:
    status = replace(state.status, battery=event.percent, charging=event.charging)
    state = replace(state, status=status)
    if event.percent is not None and event.percent <= FLAT and not event.charging:
        return to(state, st.Off(flat=True), PowerOff())
    return state, ()


def _reached(state: State, page: st.Page, event: ev.NetworkRead, now_ms: int) -> Step:
    return replace(state, status=replace(state.status, online=event.online, retry_ms=event.retry_ms)), ()


def _data(state: State, page: st.Page, event: ev.DataRead, now_ms: int) -> Step:
    status = replace(state.status, data_as_of=event.as_of, clock_doubted=event.clock_doubted)
    return replace(state, status=status), ()


def _counted(state: State, page: st.Page, event: ev.Counted, now_ms: int) -> Step:
    return replace(state, day=event.day, counts=event.counts), ()


# ------------------------------------------------------------------------------------------------ the tables

ON_EVENT: dict[type[ev.Event], Handler] = {
    ev.Tick: _tick,
    ev.CodesSeen: _triggered,
    ev.Checked: checking.checked,
    ev.PartFault: _part,
    ev.PowerRead: _power,
    ev.NetworkRead: _reached,
    ev.DataRead: _data,
    ev.ModesRead: login.modes_read,
    ev.Counted: _counted,
    ev.NewsRead: news.news_read,
    ev.LookedUp: login.counted,
}

ON_PAGE: dict[tuple[type[st.Page], type[ev.Event]], Handler] = {
    (st.Boot, ev.Started): _started,
    (st.Boot, ev.Tick): _awake,
    (st.Ready, ev.Tick): news.announced,
    (st.Aim, ev.CodesSeen): checking.codes_seen,
    (st.Aim, ev.HintSeen): checking.hint_seen,
    (st.Aim, ev.Tick): checking.aiming,
    (st.Checking, ev.Tick): checking.waiting,
    (st.Shown, ev.Tick): checking.showing,
    (st.Tags, ev.TagsSeen): modes.tags_seen,
    (st.Tags, ev.Tick): _awake,
    (st.Checkpoint, ev.Passed): modes.passed,
    (st.Checkpoint, ev.Alarm): modes.alarm,
    (st.Checkpoint, ev.Tick): news.announced,
    (st.NewsList, ev.Tick): news.shown,
    (st.Info, ev.Reported): modes.reported,
    (st.Answer, ev.Tick): checking.answer_showing,
    (st.Login, ev.Tick): login.waiting,
    (st.Login, ev.LoggedIn): login.logged_in,
    (st.Login, ev.NotLetIn): login.refused,
    (st.Login, ev.Passed): login.passed_behind,
    (st.Login, ev.Alarm): login.alarm_behind,
    (st.Menu, ev.Tick): login.menu_open,
    (st.Menu, ev.Passed): login.passed_behind,
    (st.Menu, ev.Alarm): login.alarm_behind,
}


def _keys(page: type[st.Page], **handlers: Handler) -> dict[tuple[type[st.Page], Key], Handler]:
    return {(page, Key(key)): handler for key, handler in handlers.items()}


ON_KEY: dict[tuple[type[st.Page], Key], Handler] = {
    **_keys(st.Ready, ok=aim_roadside, up=typing, down=news.opened, left=modes.tags, right=modes.accident),
    **_keys(st.Aim, ok=checking.give_up, up=typing, back=back),
    **_keys(st.Choose, ok=checking.chosen, up=modes.turned, down=modes.turned, back=back),
    **_keys(st.Shown, ok=checking.shown_ok, up=typing, back=home),
    **_keys(st.Shown, left=checking.shown_turn, right=checking.shown_turn, down=checking.shown_turn),
    **_keys(st.Typing, **dict.fromkeys(Key, modes.typed)),
    **_keys(st.PurposeChoice, **dict.fromkeys(Key, modes.purpose_chosen)),
    **_keys(st.Answer, ok=aim_roadside, up=typing, back=home),
    **_keys(st.Login, **dict.fromkeys(Key, login.keyed)),
    **_keys(st.Tags, ok=modes.tag_chosen, up=modes.turned, down=modes.turned, back=home),
    **_keys(st.Checkpoint, **dict.fromkeys(Key, login.lane_key)),
    **_keys(st.Accident, ok=aim, up=typing, back=home),
    **_keys(st.HistoryList, ok=modes.looked_up, up=modes.turned, down=modes.turned, back=home),
    **_keys(st.NewsList, ok=news.last_checks, up=news.turned, down=news.turned, back=home),
    **_keys(st.Menu, ok=modes.menu_ok, up=modes.turned, down=modes.turned, back=home),
    **_keys(st.Info, ok=home, back=home),
}
