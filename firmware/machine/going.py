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
    stop = stops.get(type(state.page))
    stopped = () if stop is None or type(page) is type(state.page) else (stop,)
    return replace(state, page=page), (*stopped, *effects)


def home(state: State, *_: object) -> Step:
    """Waiting for the trigger; an accident that was begun is left."""
    return to(replace(state, mode=Mode.ROADSIDE, first_car=None), st.Ready())


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
    return Purpose.ACCIDENT if state.mode is Mode.ACCIDENT else Purpose.ENFORCEMENT


def lit(state: State, light: Light, *effects: Effect) -> Step:
    """The panel on, dimmed or off."""
    return replace(state, light=light), (SetLight(light, state.brightness), *effects)


def resting(state: State, now_ms: int) -> Step:
    """Darker when nobody touches it."""
    idle = now_ms - state.touched_ms
    light = Light.SLEEP if idle >= SLEEP_MS else Light.DIM if idle >= DIM_MS else Light.ON
    return (state, ()) if light is state.light else lit(state, light)
