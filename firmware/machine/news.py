"""Verdicts of earlier that the centre has changed since: a banner and a sound while no car is dealt with, and a list.

None of it comes over a verdict on the panel. A piece of news counts as told once it has stood on a lit panel.
"""

from __future__ import annotations

from dataclasses import replace

from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.checking import TURNS
from firmware.machine.effects import Effect, Play, Told
from firmware.machine.going import Step, lit, resting, to
from firmware.machine.states import Light, State
from firmware.views import headline_of
from hw.buttons.keys import KeyEvent
from verifier.recheck_queue import News
from verifier.roles import Duty
from verifier.verdict import Tone
from verifier.wording import VERDICTS

READ_MS = 1_000  # for which a piece of news has to stand there


def news_read(state: State, page: st.Page, event: ev.NewsRead, now_ms: int) -> Step:
    """What is on the panel already, or says the same in other words, is told; the rest waits for the officer."""
    told = {one.check_id for one in event.news if _says_the_same(one) or _is_on_the_panel(state, page, one)}
    news = tuple(one for one in event.news if one.check_id not in told)
    if isinstance(page, st.NewsList):
        page = replace(page, news=(*page.news, *(one for one in reversed(news) if one not in page.news)))
    rung = state.rung & {one.check_id for one in event.news}
    effects: tuple[Effect, ...] = tuple(map(Told, sorted(told)))
    return replace(state, page=page, news=news, rung=rung), effects


def _says_the_same(one: News) -> bool:
    """A green on old data that holds is no news."""
    return headline_of(one.now, one.tone_now) == VERDICTS[one.then].headline


def _is_on_the_panel(state: State, page: st.Page, one: News) -> bool:
    """A verdict that was changed in place (E6) was seen."""
    if not isinstance(page, st.Shown) or page.sheet or not _lit(state):
        return False
    result = page.outcome.result
    return (result.check_id, result.verdict.code) == (one.check_id, one.now)


def _lit(state: State) -> bool:
    return state.light is Light.ON and "panel" not in state.faults


def announced(state: State, page: st.Ready | st.Checkpoint, event: ev.Tick, now_ms: int) -> Step:
    """While no car is dealt with: the sound of the loudest, and light on the banner."""
    busy = isinstance(page, st.Checkpoint) and bool(page.waiting)
    new = [one for one in state.news if one.check_id not in state.rung]
    if busy or not new or not state.may(Duty.HISTORY):
        return (state, ()) if isinstance(page, st.Checkpoint) else resting(state, now_ms)
    tone = max((one.tone_now for one in new), key=list(Tone).index)
    state = replace(state, rung=state.rung | {one.check_id for one in new}, touched_ms=now_ms)
    return lit(state, Light.ON, Play(tone))


def opened(state: State, page: st.Page, event: object, now_ms: int) -> Step:
    """The news, newest first; without any the last checks."""
    if not state.news:
        return last_checks(state)
    return to(state, st.NewsList(news=state.news[::-1], since_ms=now_ms))


def last_checks(state: State, *_: object) -> Step:
    """The history."""
    return to(state, st.HistoryList())


def turned(state: State, page: st.NewsList, event: KeyEvent, now_ms: int) -> Step:
    """The next one, round and round."""
    cursor = (page.cursor + TURNS[event.key]) % len(page.news)
    return replace(state, page=replace(page, cursor=cursor, since_ms=now_ms)), ()


def shown(state: State, page: st.NewsList, event: ev.Tick, now_ms: int) -> Step:
    """Told, once the officer can have read it."""
    one = page.news[page.cursor]
    if one not in state.news or not _lit(state) or now_ms - page.since_ms < READ_MS:
        return resting(state, now_ms)
    left = tuple(other for other in state.news if other != one)
    return replace(state, news=left), (Told(one.check_id),)
