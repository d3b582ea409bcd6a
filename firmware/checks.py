"""Runs the checks that the machine asks for, in a thread of its own, and posts their verdicts under their numbers.

A check sees its record to the disk, and a card may take its time: the panel and the keys do not wait for it.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmware.machine.effects import Check, Dispute, Missed, Told
from firmware.machine.events import Checked, Event, NewsRead, Reported
from firmware.machine.states import MenuItem, Network
from firmware.stop_photos import StopPhotos
from verifier.check import CheckResult, Observation, Verifier
from verifier.late import LateAnswers, wants_centre
from verifier.link import Ask, Mode
from verifier.online import Centre
from verifier.recheck import dispute_of
from verifier.recheck_queue import News, RecheckQueue
from verifier.wording import Language, Text

if TYPE_CHECKING:
    from firmware.build import Online

NOTED = Text("已记下 将报中心", "WILL BE REPORTED")
NOT_NOTED = Text("未能记下", "NOT NOTED")
_REMEMBERED = 100  # checks whose late answer is still told apart
_MODES = {Network.AUTO: Mode.AUTO, Network.OFF: Mode.OFFLINE}
_END_S = 5.0  # for which a check under way is waited at the end: its record is to reach the disk


@dataclass(frozen=True, slots=True)
class _Use:
    """From now on by these."""

    verifier: Verifier
    online: Online | None


class RunChecks:
    """One check after the other. `close` lets those that were asked for reach the disk."""

    def __init__(self, verifier: Verifier, post: Callable[[Event], None], photos: StopPhotos | None = None) -> None:
        self._verifier, self._post, self._photos = verifier, post, photos
        self._late: LateAnswers | None = None
        self._ask = Ask.WHEN_NEEDED
        self._seen: tuple[Observation, ...] = ()
        self._queue: RecheckQueue | None = None
        self._lock = threading.Lock()
        self._centre: Centre | None = None
        self._network: Network | None = None  # as the officer chose
        self._number = self._left = 0
        self._numbers: OrderedDict[str, int] = OrderedDict()  # by check id
        self._asked: queue.SimpleQueue[Check | Missed | Told | Dispute | _Use | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="checks", daemon=True)
        self._thread.start()

    def use(self, verifier: Verifier, online: Online | None = None) -> None:
        """From the next check on this verifier; the centre is asked where its verdict leaves something open.

        The officer's word on the network holds for a new centre at once.
        """
        with self._lock:
            self._centre = None if online is None else online.centre
            if self._centre is not None and self._network is not None:
                self._centre.choose(_MODES[self._network])
        if online is not None:
            online.rechecker.tells(self._settled)
        self._asked.put(_Use(verifier, online))

    def run(self, number: int, seen: tuple[Observation, ...]) -> None:
        """Begin a check: its local verdict is posted, and perhaps a late answer under the same number."""
        self._asked.put(Check(number=number, seen=seen))

    def left(self, number: int) -> None:
        """The officer has gone on from this check: what is before the camera now is another car. From one thread."""
        self._left = max(self._left, number)

    def use_network(self, network: Network) -> None:
        """Follow the network and try at once, or keep off it."""
        with self._lock:
            self._network = network
            if self._centre is not None:
                self._centre.choose(_MODES[network])

    def news(self) -> tuple[NewsRead]:
        """What the officer has not been told yet, from the disk; from any thread."""
        queue = self._queue
        return (NewsRead(() if queue is None else tuple(queue.news())),)

    def missed(self, news: News) -> None:
        """The centre has changed a verdict that was not on the panel any more: it is news, also after a restart."""
        self._asked.put(Missed(news))

    def told(self, check_id: str) -> None:
        """The officer has seen what became of this check: it is no news any more."""
        self._asked.put(Told(check_id))

    def dispute(self, result: CheckResult, language: Language) -> None:
        """The officer holds the record behind this check for wrong: into the outbox, then `Reported`."""
        self._asked.put(Dispute(result, language))

    def close(self) -> None:
        """Finish what was asked for, unless the disk holds it."""
        self._asked.put(None)
        self._thread.join(_END_S)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            match asked:
                case Check():
                    self._check(asked.number, asked.seen)
                case Missed(news):
                    if self._queue is not None:
                        self._queue.tell(news)
                case Told(check_id):
                    if self._queue is not None:
                        self._queue.told(check_id)
                case Dispute(result, language):
                    told = NOTED if self._dispute(result) else NOT_NOTED
                    self._post(Reported((told.in_(language),), MenuItem.DISPUTE))
                case _Use(verifier, online):
                    self._verifier = verifier
                    self._queue = None if online is None else online.queue
                    self._late = None if online is None else online.late(self._show, missed=self._settled)
                    self._ask = Ask.WHEN_NEEDED if online is None else online.ask

    def _dispute(self, result: CheckResult) -> bool:
        with self._lock:
            queue, centre, standing = self._queue, self._centre, self._verifier.standing()
        if queue is None or centre is None or standing is None:
            return False
        report = dispute_of(result, standing, centre.hasher)
        return report is not None and queue.post(report)

    def _check(self, number: int, seen: tuple[Observation, ...]) -> None:
        self._number, self._seen = number, seen
        if len(seen) == 2:
            results = self._verifier.check_pair(*seen)
            here = self._is_here(number)
            self._post(Checked(number=number, results=results, seen=seen))
            self._judged(seen[0], results[0], settled=True, here=False)  # the officer has gone on to the second car
            self._judged(seen[1], results[1], settled=True, here=here)
        elif self._late is not None:
            self._late.check(seen[0])
        else:
            self._show(self._verifier.check(seen[0]))

    def _show(self, result: CheckResult) -> None:
        """Called with the local verdict by `_check`, and perhaps once more from the thread of the look-up."""
        number = self._numbers.get(result.check_id)
        late = number is not None
        if number is None:
            number = self._numbers[result.check_id] = self._number
            if len(self._numbers) > _REMEMBERED:
                self._numbers.popitem(last=False)
        here = self._is_here(number)  # before the officer can answer to what is posted
        self._post(Checked(number=number, results=(result,), late=late, seen=() if late else self._seen))
        if not late:
            settled = self._late is None or not wants_centre(result, self._ask)
            self._judged(self._seen[0], result, settled=settled, here=here)
        elif self._photos is not None:
            self._photos.late(result, here=here)

    def _is_here(self, number: int) -> bool:
        """Whether the car of this check is before the camera still. Numbers only grow: who has gone on from one has
        gone on from those before it, and looks at them in the history at most."""
        return number > self._left

    def _judged(self, seen: Observation, result: CheckResult, *, settled: bool, here: bool) -> None:
        if self._photos is not None:
            self._photos.judged(seen, result, settled=settled, here=here)

    def _settled(self, result: CheckResult) -> None:
        """Called by another thread with a check of earlier that the centre has spoken of since."""
        number = self._numbers.get(result.check_id)
        if number is not None:
            self._post(Checked(number=number, results=(result,), late=True))
            if self._photos is not None:
                self._photos.late(result, here=False)
