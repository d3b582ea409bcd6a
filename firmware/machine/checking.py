"""From the trigger to the verdict: codes, checks, late answers, and the sheets of a verdict."""

from __future__ import annotations

from dataclasses import replace

from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import Aid, Check, Effect, Missed, Play, Signal
from firmware.machine.going import Step, aim_roadside, back, home, lit, purpose, resting, to
from firmware.machine.states import Light, Mode, Outcome, State
from firmware.views import LISTED, headline_of
from hw.buttons.keys import Key, KeyEvent
from verifier.adapters import NOTHING_READ
from verifier.check import CheckResult, Observation
from verifier.recheck_queue import News
from verifier.roles import Duty, LimitedAnswer, limited_answer
from verifier.types import Hint, PlateSeen
from verifier.vehicle_words import vehicle_words
from verifier.verdict import Tone, VerdictCode, View
from verifier.wording import Text

TRIGGER_MS = 3_000  # from the press to a verdict or a named reason
AIM_MS = 60_000  # then the camera rests
FOREIGN_MS = 500  # for which a mark is looked for once a foreign code was read
CHECK_MS = 5_000  # a check that takes longer has failed
CONFIRM_MS = 400  # a press before that was meant for what stood there before
WARNINGS = (Tone.CAUTION, Tone.STOP)
ANSWER_MS = 15_000  # for which a limited answer is shown
SHOWN_MS: dict[Tone, int | None] = {Tone.PASS: 5_000, Tone.NOTE: 15_000, Tone.CAUTION: 15_000, Tone.STOP: None}
PART = "check"  # of the banner that a check had no answer
TURNS = {Key.UP: -1, Key.DOWN: 1, Key.LEFT: -1, Key.RIGHT: 1}

# ------------------------------------------------------------------------------------------- a code is read


def codes_seen(state: State, page: st.Aim, event: ev.CodesSeen, now_ms: int) -> Step:
    """Our marks at once; a foreign code waits a moment for a mark beside it."""
    if event.triggered:
        return triggered(state, event, now_ms)
    marks = tuple(code for code in event.codes if code.is_mark)
    if len(marks) == 1:
        return seen(state, _of_code(state, marks[0]), now_ms, Play(Signal.DECODED))
    if marks:
        return to(state, st.Choose(codes=marks), Play(Signal.DECODED))
    if page.foreign is None and event.codes:
        page = replace(page, foreign=event.codes[0], foreign_ms=now_ms)
    return replace(state, page=page), ()


def triggered(state: State, event: ev.CodesSeen, now_ms: int) -> Step:
    """What an engine reads is what the officer pointed it at: mark or not, nothing else is waited for."""
    if not event.codes:
        return state, ()
    return seen(state, _of_code(state, event.codes[0]), now_ms, Play(Signal.DECODED))


def hint_seen(state: State, page: st.Aim, event: ev.HintSeen, now_ms: int) -> Step:
    """Why nothing is read, for the officer and for the camera."""
    if event.hint is page.hint:
        return state, ()
    return replace(state, page=replace(page, hint=event.hint)), (Aid(event.hint),)


def aiming(state: State, page: st.Aim, event: ev.Tick, now_ms: int) -> Step:
    """A foreign code is a verdict; a trigger that saw nothing ends in a reason, and the camera goes on looking."""
    if page.foreign is not None and now_ms - page.foreign_ms >= FOREIGN_MS:
        return seen(state, _of_code(state, page.foreign), now_ms, Play(Signal.DECODED))
    if now_ms - page.since_ms >= AIM_MS:
        return back(state)
    if not page.named and now_ms - page.since_ms >= TRIGGER_MS:
        named = replace(page, named=True, hint=page.hint or Hint.NO_CODE)
        return replace(state, page=named), (Play(Signal.REFUSED),)
    return resting(state, now_ms)


def give_up(state: State, page: st.Aim, event: object, now_ms: int) -> Step:
    """OK while nothing can be read: that the code is unreadable is a finding too, and is recorded."""
    if not page.named:
        return state, ()
    return seen(state, Observation(code=NOTHING_READ, purpose=purpose(state)), now_ms)


def chosen(state: State, page: st.Choose, event: object, now_ms: int) -> Step:
    """The officer said which of several marks."""
    return seen(state, _of_code(state, page.codes[page.cursor]), now_ms)


def _of_code(state: State, code: ev.SeenCode) -> Observation:
    return Observation(code=code.payload, purpose=purpose(state))


# --------------------------------------------------------------------------------------------------- checks


def seen(state: State, observation: Observation, now_ms: int, *effects: Effect) -> Step:
    """Something of a car was seen: check it, or in an accident keep it until the other car is seen too."""
    if state.mode is not Mode.ACCIDENT:
        return _check(state, (observation,), now_ms, *effects)
    if state.first_car is None:
        return to(replace(state, first_car=observation), st.Accident(), *effects)
    both = (state.first_car, observation)
    return _check(replace(state, first_car=None), both, now_ms, *effects)


def _check(state: State, cars: tuple[Observation, ...], now_ms: int, *effects: Effect) -> Step:
    number = state.numbers + 1
    behind = state.page.behind if isinstance(state.page, st.Checking) else state.page
    page = st.Checking(number=number, since_ms=now_ms, seen=cars, behind=behind)
    return to(replace(state, numbers=number), page, *effects, Check(number=number, seen=cars))


def checked(state: State, page: st.Page, event: ev.Checked, now_ms: int) -> Step:
    """A verdict belongs to its own check: on the panel only where that check still is, in the history always."""
    if isinstance(page, st.Checking) and page.number == event.number and len(page.seen) == len(event.results):
        pairs = zip(page.seen, event.results, strict=True)
        outcomes = tuple(Outcome(number=event.number, seen=car, result=result) for car, result in pairs)
        return _answered(remembered(_without_banner(state), outcomes), outcomes, now_ms)
    if not event.late and all(one.number != event.number for one in state.history):
        return _unwaited(state, page, event, now_ms)
    before, state = state.history, replace(state, history=_renewed(state.history, event))
    if isinstance(page, st.Answer) and page.number == event.number:
        return replace(state, page=replace(page, answer=_limited(event.results[0]))), ()
    if not isinstance(page, st.Shown) or page.outcome.number != event.number:
        return state, _missed(before, state.history)
    outcomes = _renewed(page.outcomes, event)
    if not any(_differs(a, b) for a, b in zip(page.outcomes, outcomes, strict=True)):
        sheet = min(page.sheet, sheets(outcomes[page.car].result) - 1)  # the answer may have fewer reasons
        return replace(state, page=replace(page, outcomes=outcomes, sheet=sheet)), ()
    shown = replace(page, outcomes=outcomes, since_ms=now_ms, sheet=0)
    return lit(replace(state, page=shown, touched_ms=now_ms), Light.ON, Play(_tone(event.results)))


def _unwaited(state: State, page: st.Page, event: ev.Checked, now_ms: int) -> Step:
    """A verdict after the time for it. A warning comes up where the officer was just told that nothing was checked and
    has begun nothing else; elsewhere it is news. All others are in the history and nowhere else."""
    pairs = zip(event.seen or (Observation(),) * len(event.results), event.results, strict=True)
    outcomes = tuple(Outcome(number=event.number, seen=car, result=result) for car, result in pairs)
    is_last, told = event.number == state.numbers, PART in state.faults
    state = remembered(_without_banner(state) if is_last else state, outcomes)
    warnings = [one.result for one in outcomes if one.result.verdict.tone in WARNINGS]
    if not warnings:
        return state, ()
    stands = isinstance(page, st.Ready) and is_last and told and now_ms - state.touched_ms < ANSWER_MS
    if not stands or not event.seen or view_of(state, event.results) is not View.FULL:
        return state, tuple(Missed(_news(VerdictCode.UNDECIDED, result)) for result in warnings)
    state, effects = _answered(state, outcomes, now_ms)
    return lit(replace(state, touched_ms=now_ms), Light.ON, *effects)


def _without_banner(state: State) -> State:
    """The state without the banner of a check that had no answer."""
    return replace(state, faults={part: problem for part, problem in state.faults.items() if part != PART})


def _answered(state: State, outcomes: tuple[Outcome, ...], now_ms: int) -> Step:
    """The verdict, for who may see it; for others what their role gets, always with the same sound."""
    results = tuple(outcome.result for outcome in outcomes)
    view = view_of(state, results)
    if view is View.FULL:
        return to(state, st.Shown(outcomes=outcomes, since_ms=now_ms), Play(_tone(results)))
    if view is View.NONE or len(results) > 1:
        state, effects = home(state)
        return state, (*effects, Play(Signal.REFUSED))
    number, answer = outcomes[0].number, _limited(results[0])
    return to(state, st.Answer(number=number, answer=answer, since_ms=now_ms), Play(Tone.NOTE))


def view_of(state: State, results: tuple[CheckResult, ...]) -> View:
    """How much of these whoever holds the device may see, by the policy in force and by the duties of the role."""
    if state.lock_ms is None or state.officer is None:
        return View.FULL
    views = {result.policy.view(state.officer.role) for result in results}
    if View.NONE in views:
        return View.NONE
    return View.FULL if views == {View.FULL} and state.may(Duty.VERDICT) else View.LIMITED


def _limited(result: CheckResult) -> LimitedAnswer:
    return limited_answer(result.evidence, result.policy, result.now, earliest=result.earliest)


def _renewed(outcomes: tuple[Outcome, ...], event: ev.Checked) -> tuple[Outcome, ...]:
    """The same checks with the results of a late answer; a check is known by its id."""
    later = {result.check_id: result for result in event.results}
    return tuple(replace(one, result=later.get(one.result.check_id, one.result)) for one in outcomes)


def _missed(before: tuple[Outcome, ...], after: tuple[Outcome, ...]) -> tuple[Effect, ...]:
    """What the officer would go on believing: verdicts that have another word now."""
    pairs = zip(before, after, strict=True)
    return tuple(Missed(_news(_code(old), new.result)) for old, new in pairs if _word(old) != _word(new))


def _word(outcome: Outcome) -> Text:
    return headline_of(outcome.result.verdict.code, outcome.result.verdict.tone)


def _code(outcome: Outcome) -> VerdictCode:
    return outcome.result.verdict.code


def _news(then: VerdictCode, result: CheckResult) -> News:
    verdict = result.verdict
    return News(
        check_id=result.check_id, at=result.now, then=then, now=verdict.code, tone=verdict.tone, plate=verdict.plate
    )  # fmt: skip


def _differs(old: Outcome, new: Outcome) -> bool:
    a, b = old.result.verdict, new.result.verdict
    return (a.code, a.tone, a.grade) != (b.code, b.tone, b.grade)


def _tone(results: tuple[CheckResult, ...]) -> Tone:
    """The loudest."""
    return max((result.verdict.tone for result in results), key=list(Tone).index)


def remembered(state: State, outcomes: tuple[Outcome, ...]) -> State:
    """The state with these checks in the history, whose cursor stays on its check; the day's counts come from the audit
    log."""
    history = (*outcomes, *state.history)[: st.HISTORY]
    if isinstance(page := state.page, st.HistoryList) and state.history:
        state = replace(state, page=replace(page, cursor=min(page.cursor + len(outcomes), len(history) - 1)))
    return replace(state, history=history)


def waiting(state: State, page: st.Checking, event: ev.Tick, now_ms: int) -> Step:
    """The program answers a check or says why not; should it do neither, the officer is not left waiting."""
    if now_ms - page.since_ms < CHECK_MS:
        return state, ()
    state, effects = home(replace(state, faults={**state.faults, PART: "no answer"}, touched_ms=now_ms))
    return state, (*effects, Play(Signal.REFUSED))


# ------------------------------------------------------------------------------------------------- a verdict


def warning(page: st.Page) -> tuple[object, ...]:
    """What no key may take away, or answer, that was meant for what stood there before: a stop, a caution, a plate to
    confirm, the alarm of a lane. Empty without any."""
    if isinstance(page, st.Checkpoint):
        return page.waiting[:1]
    results = [one.result for one in page.outcomes] if isinstance(page, st.Shown) else []
    return tuple(
        (result.check_id, result.verdict.code, result.verdict.tone, result.plate_to_confirm)
        for result in results
        if result.verdict.tone in WARNINGS or result.plate_to_confirm is not None
    )


def too_soon(state: State, now_ms: int) -> bool:
    """Whether a key was meant for what stood there before the warning."""
    came_ms = state.warned_ms if warning(state.page) else None
    return came_ms is not None and now_ms - came_ms < CONFIRM_MS


def shown_ok(state: State, page: st.Shown, event: object, now_ms: int) -> Step:
    """Confirm the plate where that is asked for, else the next car."""
    plate = page.outcome.result.plate_to_confirm
    if len(page.outcomes) == 1 and plate is not None:
        confirmed = PlateSeen(plate=plate, confirmed=True)
        return _check(state, (replace(page.outcome.seen, plate_seen=confirmed),), now_ms)
    if state.mode is Mode.ACCIDENT:
        return back(state)
    return aim_roadside(state, page, event, now_ms)


def shown_turn(state: State, page: st.Shown, event: KeyEvent, now_ms: int) -> Step:
    """The sheets of one car, then those of the other."""
    places = [(car, sheet) for car, one in enumerate(page.outcomes) for sheet in range(sheets(one.result))]
    car, sheet = places[(places.index((page.car, page.sheet)) + TURNS[event.key]) % len(places)]
    return replace(state, page=replace(page, car=car, sheet=sheet, since_ms=now_ms)), ()


def sheets(result: CheckResult) -> int:
    """How many sheets a verdict has: itself, then those of its reasons, its actions, and what is proven of the car."""
    verdict = result.verdict
    listed = (
        len(verdict.reasons) + len(result.similar),
        len(verdict.actions),
        len(vehicle_words(result.credential, result.mode, result.evidence.tag)),
    )
    return 1 + sum(-(-lines // LISTED) for lines in listed)


def answer_showing(state: State, page: st.Answer, event: ev.Tick, now_ms: int) -> Step:
    """Every limited answer stays as long as any other."""
    return home(state) if now_ms - page.since_ms >= ANSWER_MS else resting(state, now_ms)


def showing(state: State, page: st.Shown, event: ev.Tick, now_ms: int) -> Step:
    """Good news goes by itself; a stop stays until a key."""
    limits = [SHOWN_MS[outcome.result.verdict.tone] for outcome in page.outcomes]
    stays = [limit for limit in limits if limit is not None]
    if len(stays) == len(limits) and now_ms - page.since_ms >= max(stays):
        return home(state)
    return resting(state, now_ms)
