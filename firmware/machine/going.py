"""Going from page to page, and the panel's light: what the other steps are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from firmware.machine import states as st
from firmware.machine.effects import Effect, ReadTags, Scan, SetLight, Watch
from firmware.machine.states import Light, Mode, State
from firmware.plate_entry import Entry
from verifier.check import Observation
from verifier.roles import Duty
from verifier.types import Purpose

DIM_MS, SLEEP_MS = 60_000, 300_000

Step = tuple[State, tuple[Effect, ...]]
Handler = Callable[[State, Any, Any, int], Step]
"""Answers an event: state, its page, the event, and now in milliseconds."""


def to(state: State, page: st.Page, *effects: Effect) -> Step:
    """Another page; what the page left behind keeps running, is stopped."""
    stops: dict[type[st.Page], Effect] = {
        st.Aim: Scan(on=False), st.Tags: ReadTags(on=False), st.Checkpoint: Watch(on=False),
    }  # fmt: skip
    stop = stops.get(_runs(state.page))
    stopped = () if stop is None or _runs(page) is _runs(state.page) else (stop,)
    return replace(state, page=page), (*stopped, *effects)


def _runs(page: st.Page) -> type[st.Page]:
    """The page whose part is at work: a checkpoint goes on behind the login."""
    return type(page.behind) if isinstance(page, st.Login | st.Menu) and page.behind is not None else type(page)


def home(state: State, *_: object) -> Step:
    """Waiting for the trigger, or for whoever has none the menu; an accident that was begun is left."""
    if state.locked:
        return shut(state)
    state = replace(state, mode=Mode.ROADSIDE, first_car=None)
    return to(state, st.Ready() if state.may(Duty.CHECK) else st.Menu())


def lock(state: State, *_: object) -> Step:
    """From now on the PIN is needed, at a checkpoint to leave it; nothing where nobody has to log in."""
    if state.lock_ms is None:
        return state, ()
    state = replace(state, locked=True)
    return (state, ()) if isinstance(state.page, st.Checkpoint) else shut(state)


def shut(state: State) -> Step:
    """The login of a locked device, with the number of who was here last; only a checkpoint goes on behind it."""
    page, officer = state.page, state.officer
    behind = page.behind if isinstance(page, st.Login | st.Menu) else page if isinstance(page, st.Checkpoint) else None
    login = st.Login(behind=behind)
    if officer is not None:
        login = replace(login, number=replace(login.number, text=officer.officer_id, done=True))
    mode = Mode.ROADSIDE if behind is None else state.mode
    return to(replace(state, mode=mode, first_car=None), login)


def back(state: State, *_: object) -> Step:
    """One page back: an accident that was begun goes on."""
    return to(state, st.Accident()) if state.mode is Mode.ACCIDENT else home(state)


def aim(state: State, page: st.Page, event: object, now_ms: int) -> Step:
    """The trigger: always a new look, with nothing left of the one before."""
    return to(state, st.Aim(since_ms=now_ms), Scan(on=True))


def aim_roadside(state: State, page: st.Page, event: object, now_ms: int) -> Step:
    """The trigger, whatever the officer was at."""
    return aim(replace(state, mode=Mode.ROADSIDE), page, event, now_ms)


def typing(state: State, page: st.Page, *_: object) -> Step:
    """Type a plate: alone, or to be compared with what is on the panel."""
    seen = page.outcome.seen if isinstance(page, st.Shown) else Observation(purpose=purpose(state))
    mode = Mode.LOOKUP if state.mode is Mode.ROADSIDE and not isinstance(page, st.Shown) else state.mode
    return to(replace(state, mode=mode), st.Typing(entry=Entry(state.province), seen=seen))


def purpose(state: State) -> Purpose:
    """What a check is for, as its record says."""
    if not state.may(Duty.VERDICT):
        return Purpose.OTHER  # who is not the police enforces nothing
    return Purpose.ACCIDENT if state.mode is Mode.ACCIDENT else Purpose.ENFORCEMENT


def lit(state: State, light: Light, *effects: Effect) -> Step:
    """The panel on, dimmed or off."""
    return replace(state, light=light), (SetLight(light, state.brightness), *effects)


def resting(state: State, now_ms: int) -> Step:
    """Darker when nobody touches it."""
    idle = now_ms - state.touched_ms
    light = Light.SLEEP if idle >= SLEEP_MS else Light.DIM if idle >= DIM_MS else Light.ON
    return (state, ()) if light is state.light else lit(state, light)
