"""The roadside with a network: the local verdict at once, and what the centre says of it when that comes.

The officer may be looking at the next car by then. What comes late is decided and recorded under the number of its own
check, and shown only while that check is still the one on the screen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from verifier.check import CheckResult, Observation, Verifier
from verifier.facts import GOOD_GRADES
from verifier.link import Ask
from verifier.online import Centre, Inquiry, in_background
from verifier.recheck import names_a_vehicle
from verifier.recheck_queue import RecheckQueue
from verifier.verdict import Tone, VerdictCode

Show = Callable[[CheckResult], None]
"""Puts a result on the screen. It is called under a lock, so it must be quick: hand the result over and return."""

Start = Callable[[Callable[[], None]], bool]
"""Begins work that waits for the network; whether it could."""


# Nothing that the centre could say of these would change what the officer does.
_SETTLED = frozenset({VerdictCode.VALID, VerdictCode.SUPERSEDED})


def wants_centre(result: CheckResult, ask: Ask = Ask.WHEN_NEEDED, *, vin: bool = False) -> bool:
    """Whether a local verdict is one to ask the centre about: all but a good one on fresh data (R4, R8).

    A `vin` that was typed is a question of its own.
    """
    verdict = result.verdict
    if verdict.code is VerdictCode.OUT_OF_SCOPE or not names_a_vehicle(result):
        return False
    fresh = verdict.grade in GOOD_GRADES and verdict.tone in (Tone.PASS, Tone.NOTE)
    return vin or ask is Ask.ALWAYS or not (fresh and verdict.code in _SETTLED)


def rests_on_old_data(result: CheckResult) -> bool:
    """Whether a verdict is to be looked at again later (E8): no source of today stands behind it."""
    return wants_centre(result) and result.verdict.grade not in GOOD_GRADES


class LateAnswers:
    """Runs checks for one screen. `show` gets each local verdict, then perhaps the same check once more.

    `missed` gets what came when the officer had gone on to another car: for a list, never for the screen.
    `check` and `left` are called from one thread; the other two may be called from another one for a late answer.
    """

    def __init__(
        self,
        verifier: Verifier,
        centre: Centre,
        show: Show,
        *,
        queue: RecheckQueue | None = None,
        ask: Ask = Ask.WHEN_NEEDED,
        start: Start = in_background,
        missed: Show = lambda result: None,
    ) -> None:
        self._verifier, self._centre, self._show = verifier, centre, show
        self._queue, self._ask, self._start, self._missed = queue, ask, start, missed
        self._lock = threading.Lock()
        self._on_screen: str | None = None

    def check(self, seen: Observation, *, fresh: bool = False) -> CheckResult:
        """One check: its local verdict, which `show` has got too.

        `fresh` is the officer's wish to ask again: of a centre that failed too, and with no answer from before.
        """
        self.left()  # from now on the officer waits for this car
        if fresh:
            self._centre.retry()
        result = self._verifier.check(seen)
        with self._lock:
            self._on_screen = result.check_id
            self._show(result)
        wanted = wants_centre(result, self._ask, vin=seen.vin is not None)
        standing = self._verifier.standing() if wanted else None
        if standing is not None:
            serial = result.credential.serial if result.credential is not None else None
            inquiry = Inquiry(plates=result.plates, serial=serial, standing=standing, vin=seen.vin)
            if not self._start(lambda: self._follow_up(result, inquiry, fresh=fresh)):
                self._put_off(result)
        return result

    def left(self) -> None:
        """The officer left the screen: nothing that comes late is shown on it any more."""
        with self._lock:
            self._on_screen = None

    def _follow_up(self, result: CheckResult, inquiry: Inquiry, *, fresh: bool) -> None:
        queued = self._put_off(result)  # first: the power may go while the answer is on its way
        outcome = self._centre.answer(inquiry, fresh=fresh)
        if not outcome.asked:
            return
        late = self._verifier.upgrade(result, outcome.evidence, outcome.sources)
        with self._lock:
            (self._show if self._on_screen == late.check_id else self._missed)(late)
        if queued and self._queue is not None:
            if outcome.answered:
                self._queue.drop(late.check_id)
            elif outcome.evidence.vin is not None:
                self._queue.add(late)  # a VIN is asked for once: what was said of it is kept for the look-up to come

    def _put_off(self, result: CheckResult) -> bool:
        """Queue a verdict on old data, to be looked at again; whether it was one, and is safely queued."""
        return self._queue is not None and rests_on_old_data(result) and self._queue.add(result)
