"""Following the hot list: once a minute while that can be done, and at once when the centre hints at more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from verifier.codec import cbor
from verifier.codec import online as codec
from verifier.codec.cose import TYP_ONLINE, parse_sign1
from verifier.codec.index import MAX_NUMBER
from verifier.errors import CodeError, SyncError
from verifier.online import Poster

EVERY_MS = 60_000
LEAST_MS = 5_000  # between two fetches, whatever anybody hints
MOST_MS = 300_000  # the longest wait after failures in a row


class Fetched(Protocol):
    """What came of a fetch, as `verifier.sync_report.HotReport`, of which no more than this is needed."""

    @property
    def seq_after(self) -> int:
        """The number of the hot list that counts now."""
        ...


F_co = TypeVar("F_co", bound=Fetched, covariant=True)


class HotFollower(Generic[F_co]):
    """Calls `refresh` (as `SyncClient.refresh_hot`) when that is due. Hints may come from other threads.

    After failures in a row it waits twice as long each time, up to 5 minutes: a minute's delay matters, a publisher
    that is down must not be hammered by a province's devices.
    """

    def __init__(
        self, refresh: Callable[[], F_co], monotonic_ms: Callable[[], int], *, every_ms: int = EVERY_MS
    ) -> None:
        self._refresh, self._now, self._every = refresh, monotonic_ms, every_ms
        self._lock = threading.Lock()
        self._due: int | None = None  # at once
        self._asked: int | None = None
        self._failures = 0
        self._seq = 0  # of a list that was verified
        self._tried = 0  # what was hinted at last when a fetch was hastened
        self._runs = False
        self._hinted = 0  # while a fetch runs

    def hint(self, hot_seq: int) -> None:
        """The centre knows a hot list of this number. A claim: it hastens a fetch, and no more than one in 5 s."""
        with self._lock:
            # One number hastens once: it may be that of another region's list, or a lie.
            if hot_seq <= self._seq or hot_seq == self._tried:
                return
            if self._runs:  # which may have been answered before
                self._hinted = max(self._hinted, hot_seq)
            elif self._due is not None:
                self._hasten(hot_seq, self._due)

    def _hasten(self, hot_seq: int, due: int) -> None:
        self._tried = hot_seq
        self._due = min(due, max(self._now(), (self._asked or 0) + LEAST_MS))

    def due_in_ms(self) -> int:
        """How long until the next fetch is due."""
        with self._lock:
            return 0 if self._due is None else max(0, self._due - self._now())

    def step(self) -> F_co | None:
        """Fetch when it is due, None when not; waits for the network. SyncError, and it will be tried again."""
        if self.due_in_ms() > 0:
            return None
        with self._lock:
            self._asked, self._runs, self._hinted = self._now(), True, 0
        try:
            report = self._refresh()
        except SyncError:
            self._ended(None)
            raise
        self._ended(report)
        return report

    def _ended(self, report: Fetched | None) -> None:
        with self._lock:
            self._failures = 0 if report is not None else min(self._failures + 1, 10)
            self._seq = self._seq if report is None else max(self._seq, report.seq_after)
            wait = min(self._every << max(0, self._failures - 1), max(self._every, MOST_MS))
            self._due, self._runs = self._now() + wait, False
            if self._hinted > self._seq:
                self._hasten(self._hinted, self._due)


class HintingPoster:
    """A poster that tells the hot list's number in each answer of the look-up.

    The number is read before anybody has verified the answer: it may hasten a fetch and nothing else.
    """

    def __init__(self, poster: Poster, hint: Callable[[int], None]) -> None:
        self._poster, self._hint = poster, hint

    def post(self, path: str, body: bytes, content_type: str, answer_type: str, max_length: int) -> bytes:
        """As `Poster.post`."""
        data = self._poster.post(path, body, content_type, answer_type, max_length)
        if path == codec.STATUS_PATH and (seq := _hot_seq(data)) is not None:
            self._hint(seq)
        return data


def _hot_seq(answer: bytes) -> int | None:
    try:
        payload = cbor.decode(parse_sign1(answer, (TYP_ONLINE,)).payload)
    except CodeError:
        return None
    seq = payload.get("hot_seq") if type(payload) is dict else None
    return seq if type(seq) is int and 0 <= seq <= MAX_NUMBER else None
