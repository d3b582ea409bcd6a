"""Who holds the device: the login, the lock, and which pages are for whom. Without a login everything is for everybody.

A locked device shows no plate and no history. A checkpoint is the exception: it goes on and gives its alarms, each
with the plate of the car that is to be stopped; to leave it, or to see more, takes the PIN. Switching off never does.
"""

from __future__ import annotations

from dataclasses import replace

from firmware.digit_entry import Digits, digit_pressed
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import LogIn, Play, Signal
from firmware.machine.going import Handler, Step, home, resting, shut, to, typing
from firmware.machine.modes import accident, alarm, alarm_taken, checkpoint, passed, tags
from firmware.machine.states import Mode, State
from hw.buttons.keys import Key, KeyEvent
from verifier.lookups import WINDOW
from verifier.officers import LoginFault
from verifier.roles import Duty

ANSWER_MS = 20_000  # a login that takes longer has failed
TYPING_MS = 30_000  # then what was typed is gone
FLAGGED_MS = int(WINDOW.total_seconds() * 1000)

NEEDS: dict[type[st.Page], Duty] = {
    st.Ready: Duty.CHECK, st.Aim: Duty.CHECK, st.Choose: Duty.CHECK, st.Typing: Duty.CHECK, st.Tags: Duty.CHECK,
    st.PurposeChoice: Duty.CHECK, st.Checking: Duty.CHECK, st.Answer: Duty.CHECK, st.Shown: Duty.VERDICT,
    st.Accident: Duty.ACCIDENT, st.Checkpoint: Duty.CHECKPOINT, st.HistoryList: Duty.HISTORY,
    st.NewsList: Duty.HISTORY,
}  # fmt: skip
"""What a page is for; the others are for everybody who has logged in."""
WHILE_LOCKED = (st.Boot, st.Login, st.Checkpoint, st.Menu, st.Off)


def admitted(state: State) -> bool:
    """Whether the page is for whoever holds the device."""
    if state.locked:
        return isinstance(state.page, WHILE_LOCKED)
    duty = NEEDS.get(type(state.page))
    return duty is None or state.may(duty)


# ------------------------------------------------------------------------------------------------ where it opens

OPENS: dict[Mode, Handler] = {
    Mode.ROADSIDE: home, Mode.LOOKUP: typing, Mode.TAGS: tags, Mode.CHECKPOINT: checkpoint, Mode.ACCIDENT: accident,
}  # fmt: skip


def opening(state: State, now_ms: int) -> Step:
    """The page of the mode that the policy names, where that is for who holds the device; else the one for the trigger,
    or the login."""
    at_home, effects = home(state)
    if at_home.locked:
        return at_home, effects
    after, begun = OPENS[state.opens](at_home, at_home.page, None, now_ms)
    return (after, (*effects, *begun)) if admitted(after) else (at_home, effects)


def modes_read(state: State, page: st.Page, event: ev.ModesRead, now_ms: int) -> Step:
    """Another policy: its modes are offered from now on; nobody is taken out of what he is at."""
    return replace(state, opens=event.opens, offered=event.offered), ()


# ---------------------------------------------------------------------------------------------------- the lock


def idle(state: State, now_ms: int) -> bool:
    """Whether it is time to lock: not while a check runs, and a verdict is given as long as a key."""
    page = state.page
    if state.lock_ms is None or state.locked or isinstance(page, st.Boot | st.Checking | st.Off):
        return False
    came_ms = page.since_ms if isinstance(page, st.Shown | st.Answer) else 0
    return now_ms - max(state.acted_ms, came_ms) >= state.lock_ms


def lane_key(state: State, page: st.Checkpoint, event: KeyEvent, now_ms: int) -> Step:
    """OK acknowledges an alarm, BACK leaves; where the device is locked, whatever else asks for the PIN."""
    if event.key is Key.OK and (page.waiting or not state.locked):
        return alarm_taken(state, page, event, now_ms)
    return home(state) if state.locked or event.key is Key.BACK else (state, ())


def passed_behind(state: State, page: st.Login | st.Menu, event: ev.Passed, now_ms: int) -> Step:
    """The checkpoint counts on."""
    if page.behind is None:
        return state, ()
    state, effects = passed(state, page.behind, event, now_ms)
    behind = state.page if isinstance(state.page, st.Checkpoint) else None
    return replace(state, page=replace(page, behind=behind)), effects


def alarm_behind(state: State, page: st.Login | st.Menu, event: ev.Alarm, now_ms: int) -> Step:
    """An alarm goes before what is typed; while a PIN is tried it is heard, and seen after that."""
    if page.behind is None:
        return state, ()
    state, effects = alarm(replace(state, page=page.behind), page.behind, event, now_ms)
    if isinstance(page, st.Login) and page.attempt is not None and isinstance(state.page, st.Checkpoint):
        state = replace(state, page=replace(page, behind=state.page))
    return state, effects


def menu_open(state: State, page: st.Menu, event: ev.Tick, now_ms: int) -> Step:
    """The menu of a locked device, on which there is nothing but to switch it off, goes by itself."""
    if state.locked and now_ms - state.acted_ms >= TYPING_MS:
        return shut(state) if page.behind is None else to(state, page.behind)
    return (state, ()) if page.behind is not None else resting(state, now_ms)


# --------------------------------------------------------------------------------------------------- the login


def untouched(page: st.Login) -> bool:
    """Whether nothing is typed: then there is nothing to leave but the device."""
    return page == st.Login(behind=page.behind)


def keyed(state: State, page: st.Login, event: KeyEvent, now_ms: int) -> Step:
    """Number and PIN, one digit after the other; nothing while an attempt is under way, or no try counts."""
    if page.attempt is not None or page.until_ms is not None:
        return state, ()
    if page.refused is not None:
        return replace(state, page=replace(page, refused=None)), ()
    if not page.number.done:
        return _number_key(state, page, event.key)
    return _pin_key(state, page, event.key, now_ms)


def _number_key(state: State, page: st.Login, key: Key) -> Step:
    if key is Key.BACK and not page.number.text and page.number.half is None:
        return (state, ()) if page.behind is None else to(state, page.behind)
    return replace(state, page=replace(page, number=digit_pressed(page.number, key))), ()


def _pin_key(state: State, page: st.Login, key: Key, now_ms: int) -> Step:
    if key is Key.BACK and not page.pin.text and page.pin.half is None:
        return replace(state, page=st.Login(behind=page.behind)), ()
    pin = digit_pressed(page.pin, key)
    if not pin.done:
        return replace(state, page=replace(page, pin=pin)), ()
    attempt = state.attempts + 1
    page = replace(page, pin=_without(pin), attempt=attempt, asked_ms=now_ms)
    asked = LogIn(attempt=attempt, number=page.number.text, pin=pin.text)
    return replace(state, page=page, attempts=attempt), (asked,)


def _without(entry: Digits) -> Digits:
    return Digits(shortest=entry.shortest, longest=entry.longest)


def logged_in(state: State, page: st.Login, event: ev.LoggedIn, now_ms: int) -> Step:
    """Somebody is let in; to the checkpoint that was going on, where that is his."""
    if page.attempt != event.attempt:
        return state, ()
    flagged_ms = state.flagged_ms if state.officer == event.officer else None
    state = replace(state, officer=event.officer, locked=False, acted_ms=now_ms, flagged_ms=flagged_ms)
    if page.behind is not None and state.may(Duty.CHECKPOINT):
        return to(state, page.behind)
    return opening(state, now_ms)


def refused(state: State, page: st.Login, event: ev.NotLetIn, now_ms: int) -> Step:
    """Nobody is: the same words for a wrong number and a wrong PIN."""
    if page.attempt != event.attempt:
        return state, ()
    until_ms = now_ms + event.wait_ms if event.wait_ms else None
    page = replace(page, attempt=None, refused=event.why, until_ms=until_ms, wait_s=_told_s(event.wait_ms))
    return replace(state, page=page, touched_ms=now_ms), (Play(Signal.REFUSED),)


def _told_s(wait_ms: int) -> int:
    """A wait in seconds, in steps: each one is a new picture."""
    step_s = 5 if wait_ms <= 60_000 else 60
    return -(-wait_ms // (step_s * 1000)) * step_s


def waiting(state: State, page: st.Login, event: ev.Tick, now_ms: int) -> Step:
    """Waits end, and so does what was typed and left."""
    if page.attempt is not None and now_ms - page.asked_ms >= ANSWER_MS:
        return refused(state, page, ev.NotLetIn(attempt=page.attempt, why=LoginFault.FILE), now_ms)
    if page.until_ms is not None:
        page = _waited(page, page.until_ms - now_ms)
    elif page.attempt is None and now_ms - state.acted_ms >= TYPING_MS:
        if page.behind is not None:
            return to(state, page.behind)
        page = replace(page, number=page.number if page.number.done else st.Login().number, pin=st.Login().pin)
    state = state if page == state.page else replace(state, page=page)
    return (state, ()) if page.behind is not None else resting(state, now_ms)


def _waited(page: st.Login, left_ms: int) -> st.Login:
    if left_ms <= 0:
        return replace(page, until_ms=None, refused=None, wait_s=0)
    return replace(page, wait_s=_told_s(left_ms))


# -------------------------------------------------------------------------------------------------- look-ups


def counted(state: State, page: st.Page, event: ev.LookedUp, now_ms: int) -> Step:
    """Too many typed plates are a note on the panel, and stop nobody."""
    return replace(state, flagged_ms=now_ms if event.flagged else None), ()


def note_ends(state: State, now_ms: int) -> State:
    """The state without a note that has stood there for an hour."""
    over = state.flagged_ms is not None and now_ms - state.flagged_ms >= FLAGGED_MS
    return replace(state, flagged_ms=None) if over else state
