"""The breaker: when the centre is asked, when it is tried again, and whose word counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.link import (
    FIRST_MS,
    JITTER,
    LONGEST_MS,
    Link,
    Mode,
    chosen,
    delay_ms,
    failed,
    retried,
    succeeded,
)
from verifier.types import OnlineState

DOWN = OnlineState.UNREACHABLE


def opened(now: int = 0) -> Link:
    return failed(failed(Link(), DOWN, now, 0.0), DOWN, now, 0.0)


def test_one_failure_is_forgiven_and_two_in_a_row_open_the_link():
    once = failed(Link(), DOWN, 0, 0.0)
    assert once.asks
    assert failed(succeeded(once), DOWN, 0, 0.0).asks
    assert not failed(once, DOWN, 0, 0.0).asks


def test_an_open_link_is_probed_after_15_seconds_doubling_to_5_minutes():
    link, now, waits = opened(), 0, []
    for _ in range(8):
        wait = link.next_try_ms(now)
        waits.append(wait // 1000)
        assert not link.probe_due(now + wait - 1)
        now += wait
        assert link.probe_due(now)
        link = failed(link, DOWN, now, 0.0)
    assert waits == [15, 30, 60, 120, 240, 300, 300, 300]


@given(st.integers(0, 50), st.floats(0, 1))
def test_the_delay_has_bounds_whatever_is_drawn(trips, draw):
    assert FIRST_MS <= delay_ms(trips, draw) <= LONGEST_MS * (1 + JITTER)


def test_one_answer_closes_the_link_and_a_flapping_one_waits_longer_each_time():
    link = opened()
    for seconds in (15, 30, 60):
        assert link.next_try_ms(0) == seconds * 1000
        link = succeeded(link)
        assert link.asks
        link = failed(failed(link, DOWN, 0, 0.0), DOWN, 0, 0.0)
    steady = succeeded(succeeded(link))
    assert failed(failed(steady, DOWN, 0, 0.0), DOWN, 0, 0.0).next_try_ms(0) == 15_000


def test_a_manual_retry_closes_the_link_and_forgets_the_delays():
    link = retried(failed(opened(), DOWN, 20_000, 0.0))
    assert link.asks
    assert link.next_try_ms(20_000) is None
    assert opened().next_try_ms(0) == 15_000


def test_the_officers_choice_wins_over_what_happens():
    offline = chosen(Link(), Mode.OFFLINE)
    assert not succeeded(offline).asks
    assert not offline.probe_due(10**9)
    assert offline.next_try_ms(0) is None
    online = chosen(opened(), Mode.ONLINE)
    assert online.asks
    assert failed(online, DOWN, 0, 0.0).asks
    assert chosen(online, Mode.AUTO) == Link()
    assert retried(offline).mode is Mode.OFFLINE


def test_what_was_still_under_way_when_the_link_opened_does_not_double_the_delay():
    assert failed(opened(), DOWN, 100, 0.0).next_try_ms(100) == 14_900


@pytest.mark.parametrize(("asked", "waits"), [(1000, 15_000), (120_000, 120_000), (10**9, LONGEST_MS)])
def test_a_centre_that_asks_to_be_left_alone_is_left_alone_within_bounds(asked, waits):
    link = failed(Link(), DOWN, 0, 0.0, retry_after_ms=asked)
    assert (link.asks, link.next_try_ms(0)) == (False, waits)


EVENTS = st.sampled_from(["ok", "down", "retry", "auto", "offline", "online", "wait"])


@given(st.lists(EVENTS, max_size=40))
def test_the_link_is_never_stuck_offline(events):
    """In automatic mode it asks, or it is known when it will be tried again, within the longest delay."""
    link, now = Link(), 0
    for event in events:
        now += 1000
        if event == "ok":
            link = succeeded(link)
        elif event == "down":
            link = failed(link, DOWN, now, 1.0)
        elif event == "retry":
            link = retried(link)
        elif event == "wait":
            now += 400_000
        else:
            link = chosen(link, Mode(event))
        wait = link.next_try_ms(now)
        assert link.asks or link.mode is Mode.OFFLINE or (wait is not None and wait <= LONGEST_MS * (1 + JITTER))
        assert link.mode is not Mode.OFFLINE or not (link.asks or link.probe_due(now))
