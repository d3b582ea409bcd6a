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
from verifier.capture import Capture, level_of
from verifier.check import CheckResult, Observation
from verifier.clock import Clock
from verifier.errors import AuditError
from verifier.photos import NoPhoto, PhotoOf, PhotoStore, keep_photo, no_photo_json
from verifier.seal import seal_photo
from verifier.verdict import Tone

PART = "photos"
HELD = 2  # frames: an accident has two cars
HELD_S = 300.0  # for which a frame waits for its verdict
_MOST_WAITING = 4  # photos that the card has not taken yet
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


class StopPhotos:
    """Keeps the photo of each stop, in a thread of its own: neither the verdict nor the next car waits for the card."""

    def __init__(
        self,
        home: Home,
        clock: Clock,
        held: HeldPhotos,
        photograph: Callable[[], bytes] | None,
        post: Callable[[Event], None],
    ) -> None:
        """`photograph` gives a frame of now, empty when none comes; None where there is no camera."""
        self._home, self._clock, self._held = home, clock, held
        self._photograph, self._post = photograph, post
        self._open: tuple[str, bytes | None] = "", None  # the check that the centre may still call a stop, and its code
        self._problem = ""
        self._asked: queue.Queue[_Asked | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="photos", daemon=True)
        self._thread.start()

    def judged(self, seen: Observation, result: CheckResult, *, settled: bool) -> None:
        """A check has its verdict; with `settled` no other is to come. Does not wait.

        The frame of a stop stays at hand for a while: with the plate confirmed the same code is checked once more.
        """
        if result.verdict.tone is Tone.STOP:
            self._keep(result.check_id, self._held.photo(seen.code))
        elif settled:
            self._held.drop(seen.code)
        else:
            self._open = result.check_id, seen.code

    def late(self, result: CheckResult, *, on_screen: bool) -> None:
        """The centre has answered for the last check. Does not wait.

        Once the officer has left its screen, what is before the camera has nothing to do with it any more.
        """
        check_id, code = self._open
        if result.check_id != check_id:
            return
        self._open = "", None
        photo = self._held.photo(code)
        if result.verdict.tone is not Tone.STOP:
            self._held.drop(code)
        elif photo or on_screen:
            self._keep(check_id, photo)

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

    def _keep(self, check_id: str, photo: bytes) -> None:
        try:
            self._asked.put_nowait(_Asked(check_id, photo))
        except queue.Full:
            self._told("the card is too slow")

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            try:
                self._store(asked)
            except AuditError as exc:
                self._told(str(exc))
            else:
                self._told("")

    def _store(self, asked: _Asked) -> None:
        """Keep it and record it, or record why there is none; nothing at a level below full. AuditError."""
        log = self._log()
        if log is None:
            return
        photo = asked.photo or (self._photograph() if self._photograph is not None else b"")
        if not photo:
            log.append(
                no_photo_json(asked.check_id, NoPhoto.NO_CAMERA if self._photograph is None else NoPhoto.NO_FRAME)
            )
            return
        of = PhotoOf.CODE if asked.photo else PhotoOf.SCENE
        try:  # what the code was read in proves something; the scene may have to make room for such a photo
            keep_photo(
                log, PhotoStore(self._home.photos, key=log.key), asked.check_id, photo,
                evidence=of is PhotoOf.CODE, of=of,
            )  # fmt: skip
        except AuditError:
            log.append(no_photo_json(asked.check_id, NoPhoto.NOT_KEPT))
            raise

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
