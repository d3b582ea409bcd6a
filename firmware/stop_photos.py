"""Photos for stop verdicts: of the frame in which the code was read, else of what is before the camera.

A frame waits in memory until its code is judged, and is dropped with every verdict but a stop. Only a stop brings it to
the card, sealed like the audit log, in whose record its digest stands.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from firmware.build import audit_log
from firmware.config import ConfigError, Home, load_audit
from firmware.fault_frames import FaultFrames
from firmware.machine.events import Alarm, Event, PartFault
from verifier.audit import AuditLog
from verifier.check import CheckResult, Observation
from verifier.clock import Clock
from verifier.errors import AuditError
from verifier.photos import NoPhoto, PhotoOf, PhotoStore, keep_photo, no_photo_json
from verifier.record_level import Capture, level_of
from verifier.seal import seal_photo
from verifier.verdict import Tone

PART = "photos"
HELD = 2  # frames: an accident has two cars
HELD_S = 300.0  # for which a frame waits for its verdict
_MOST_WAITING = 4  # photos that the card has not taken yet
_MOST_MISSED = 1_000  # stops whose photo was given up meanwhile, and is yet to be recorded as such
SCENE_S = 3.0  # after which another car may be before the camera
_END_S = 3.0  # for which photos under way are waited at the end


class _Held(NamedTuple):
    payloads: frozenset[bytes]
    photo: bytes
    at_s: float


class HeldPhotos:
    """The newest frames whose codes are not judged yet, in memory alone. For several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._held: deque[_Held] = deque(maxlen=HELD)

    def put(self, payloads: frozenset[bytes], photo: bytes) -> None:
        """A frame, with the payloads of all codes that are new in it."""
        with self._lock:
            self._keep(lambda held: not held.payloads & payloads)
            if photo:
                self._held.append(_Held(payloads, photo, self._clock()))

    def photo(self, payload: bytes | None) -> bytes:
        """The frame in which this code was read; empty without one."""
        with self._lock:
            return next((held.photo for held in self._held if payload in held.payloads), b"")

    def drop(self, payload: bytes | None) -> None:
        """Forget it."""
        with self._lock:
            self._keep(lambda held: payload not in held.payloads)

    def expire(self) -> None:
        """Drop what nobody has judged."""
        with self._lock:
            now_s = self._clock()
            self._keep(lambda held: now_s - held.at_s < HELD_S)

    def _keep(self, wanted: Callable[[_Held], bool]) -> None:
        self._held = deque(filter(wanted, self._held), maxlen=HELD)


class _Asked(NamedTuple):
    check_id: str
    photo: bytes  # empty: of the scene
    at_s: float
    here: bool = True  # the car is before the camera still


class StopPhotos:
    """Keeps the photo of each stop, in a thread of its own: neither the verdict nor the next car waits for the card."""

    def __init__(
        self,
        home: Home,
        clock: Clock,
        held: HeldPhotos,
        photograph: Callable[[], bytes] | None,
        post: Callable[[Event], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`photograph` gives a frame of now, empty when none comes; None where there is no camera.

        `now_s` gives seconds that never go back.
        """
        self._now_s = now_s
        self._home, self._clock, self._held = home, clock, held
        self._photograph, self._post = photograph, post
        self._open: dict[str, bytes | None] = {}  # the codes of the checks that the centre may still call stops
        self._problem = ""
        self._asked: queue.Queue[_Asked | None] = queue.Queue(_MOST_WAITING)
        self._missed: deque[str] = deque(maxlen=_MOST_MISSED)
        self._thread = threading.Thread(target=self._work, name="photos", daemon=True)
        self._thread.start()

    def judged(self, seen: Observation, result: CheckResult, *, settled: bool, here: bool = True) -> None:
        """A check has its verdict; with `settled` no other is to come, with `here` its car is before the camera still.

        Does not wait. The frame of a stop stays at hand for a while: with the plate confirmed the same code is checked
        once more.
        """
        if result.verdict.tone is Tone.STOP:
            self._keep(result.check_id, self._held.photo(seen.code), here=here)
        elif settled:
            self._held.drop(seen.code)
        else:
            self._open[result.check_id] = seen.code
            for oldest in list(self._open)[:-HELD]:  # of as many as there are frames
                self._open.pop(oldest, None)

    def late(self, result: CheckResult, *, here: bool) -> None:
        """The centre has answered for a check; `here` as in `judged`. Does not wait.

        Once the officer has left its screen, what is before the camera has nothing to do with it any more.
        """
        if result.check_id not in self._open:
            return
        code = self._open.pop(result.check_id)
        if result.verdict.tone is not Tone.STOP:
            self._held.drop(code)
        else:
            self._keep(result.check_id, self._held.photo(code), here=here)

    def of_alarms(self, post: Callable[[Event], None]) -> Callable[[Event], None]:
        """The same way for events, on which a stop at a checkpoint gets its photo too."""

        def posted(event: Event) -> None:
            post(event)
            if isinstance(event, Alarm):
                self.judged(Observation(), event.result, settled=True)

        return posted

    def close(self) -> None:
        """Finish what was asked for, unless the card holds it."""
        with suppress(queue.Full):
            self._asked.put_nowait(None)
        self._thread.join(_END_S)

    def _keep(self, check_id: str, photo: bytes, *, here: bool) -> None:
        try:
            self._asked.put_nowait(_Asked(check_id, photo, self._now_s(), here))
        except queue.Full:
            self._missed.append(check_id)
            self._told("the card is too slow")

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            try:
                self._store(asked)
                self._record_missed()
            except AuditError as exc:
                self._told(str(exc))
            else:
                self._told("")

    def _record_missed(self) -> None:
        """Of those for which there was no room. AuditError."""
        while self._missed:
            self._none(self._missed.popleft(), NoPhoto.NOT_KEPT)

    def _none(self, check_id: str, why: NoPhoto) -> None:
        """Record that a stop has no photo, and why. AuditError."""
        if (log := self._log()) is not None:
            log.append(no_photo_json(check_id, why))

    def _store(self, asked: _Asked) -> None:
        """Keep it and record it, or record why there is none; nothing at a level below full. AuditError."""
        log = self._log()
        if log is None:
            return
        photo = asked.photo or self._scene(asked)
        if not photo:
            self._none(asked.check_id, NoPhoto.NO_CAMERA if self._photograph is None else NoPhoto.NO_FRAME)
            return
        of = PhotoOf.CODE if asked.photo else PhotoOf.SCENE
        try:  # what the code was read in proves something; the scene may have to make room for such a photo
            keep_photo(
                log, PhotoStore(self._home.photos, key=log.key), asked.check_id, photo,
                evidence=of is PhotoOf.CODE, of=of,
            )  # fmt: skip
        except AuditError:
            self._none(asked.check_id, NoPhoto.NOT_KEPT)
            raise

    def _scene(self, asked: _Asked) -> bytes:
        """What is before the camera, if that is the car of the stop still: never the one that came after it."""
        if self._photograph is None or not asked.here or self._now_s() - asked.at_s > SCENE_S:
            return b""
        photo = self._photograph()
        return photo if self._now_s() - asked.at_s <= SCENE_S else b""

    def _log(self) -> AuditLog | None:
        """Made anew for each photo: stops are rare, and key and settings may be others since. None to keep no photo."""
        try:
            settings = load_audit(self._home)
        except ConfigError:  # told as a fault of the log
            return None
        log, _ = audit_log(self._home, self._clock)
        full = level_of(Tone.STOP, settings.usual, settings.stop) is Capture.FULL
        return log if full and isinstance(log, AuditLog) else None

    def _told(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._post(PartFault(PART, problem))


def fault_frames(home: Home, clock: Clock) -> FaultFrames | None:
    """The folder of the frames on which the scanner died, sealed like photos; None where nothing can be sealed."""
    log, _ = audit_log(home, clock)
    if not isinstance(log, AuditLog):
        return None
    frames = FaultFrames(home.folder / "fault-frames", seal=None if log.key is None else partial(seal_photo, log.key))
    frames.forget_plain()
    return frames
