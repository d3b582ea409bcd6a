"""When a failed sync is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.nightly import BEGAN, FakeClock
from verifier.backoff import delay, until_done
from verifier.errors import FetchError, SyncError


def test_the_delay_doubles_from_one_minute_to_sixty() -> None:
    assert [delay(n, 0.0) // timedelta(minutes=1) for n in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert delay(10**9, 0.0) == timedelta(minutes=60)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.999])
def test_jitter_spreads_the_devices_and_never_shortens_the_delay(draw: float) -> None:
    for n in range(1, 9):
        assert delay(n, 0.0) <= delay(n, draw) <= delay(n, 0.0) * 1.25
    assert delay(3, 0.2) != delay(3, 0.8)


def test_an_attempt_is_repeated_until_it_is_done() -> None:
    clock, told, results = FakeClock(), list[tuple[str, datetime]](), iter([False, False, True])

    def attempt() -> str:
        if not next(results):
            raise FetchError("x", "no connection")
        return "done"

    answer = until_done(
        attempt, failures=0, clock=clock, sleep=lambda s: clock.move(seconds=s), draw=lambda: 0.5,
        told=lambda error, again: told.append((str(error), again)),
    )  # fmt: skip
    assert answer == "done"
    assert [again - BEGAN for _, again in told] == [timedelta(seconds=67.5), timedelta(seconds=67.5 + 135)]
    assert clock() == told[-1][1]


def test_failures_of_an_earlier_run_are_counted() -> None:
    slept: list[float] = []
    results = iter([SyncError("bad"), None])

    def attempt() -> None:
        if (error := next(results)) is not None:
            raise error

    until_done(attempt, failures=4, clock=FakeClock(), sleep=slept.append, draw=lambda: 0.0, told=lambda *_: None)
    assert slept == [16 * 60]


def test_what_is_no_failed_sync_is_not_repeated() -> None:
    def attempt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until_done(attempt, failures=0, clock=FakeClock(), sleep=pytest.fail, draw=lambda: 0.0, told=lambda *_: None)
