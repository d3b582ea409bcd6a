"""The camera's and the barcode engine's side of the program: threads that poll, and post what was read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from firmware.machine.events import CodesSeen, Event, HintSeen, PartFault, SeenCode
from firmware.scanner import CodeEvent, FaultEvent, FaultReason, Heartbeat, HintEvent, PhotoEvent
from firmware.scanner import Event as ScanEvent
from verifier.types import Hint

_POLL_S = 0.05
PHOTO_S = 2.0  # for which a photo is waited
IDLE_S = 5.0  # between two frames while nobody looks: enough to know that the camera lives, and little for the battery
_MOST_HEARD = 1000  # events
CAMERA, ENGINE = "camera", "barcode"


class ScanLine(Protocol):
    """A scanner; see `firmware.scanner.Scanner`."""

    over: bool

    def poll(self, timeout_s: float = 0.0) -> list[ScanEvent]:
        """What has happened."""
        ...

    def resume(self) -> None:
        """Take every code for new; from any thread."""
        ...

    def photograph(self) -> int:
        """Ask for a photo of the next frame: its number, 0 where none will come; from any thread."""
        ...

    def close(self) -> None:
        """End it."""
        ...


Keep = Callable[[frozenset[bytes], bytes], None]
"""Takes the payloads of one frame's codes, and the frame as JPEG."""


class _Line:
    """What both have in common: the part's banner, and codes as the machine takes them."""

    def __init__(self, part: str, post: Callable[[Event], None], label: Callable[[bytes], str]) -> None:
        self._part, self._post, self._label = part, post, label
        self._faulty = False

    def seen(self, event: CodeEvent) -> SeenCode:
        payload = event.code.payload
        return SeenCode(payload, event.is_mark, self._label(payload) if event.is_mark else "")

    def well(self) -> None:
        if self._faulty:
            self._faulty = False
            self._post(PartFault(self._part))

    def fault(self, event: FaultEvent) -> None:
        if not self._faulty:
            self._faulty = True
            self._post(PartFault(self._part, event.reason.value))


def _no_label(payload: bytes) -> str:
    return ""


class Eyes:
    """Looks while it is asked to, and posts what it sees. While nobody looks, now and then a frame is read and dropped:
    the process stays ready, and a camera that is gone is known before it is needed."""

    def __init__(
        self,
        scanner: ScanLine,
        post: Callable[[Event], None],
        *,
        label: Callable[[bytes], str] = _no_label,
        zoom: Callable[[bool], None] = lambda on: None,
        keep: Keep = lambda payloads, photo: None,
        alive: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`label` names a mark for choosing; `zoom` is the camera's part; `keep` is handed the frame of each code
        that is posted; `alive` is called in every round."""
        self._scanner, self._post, self._zoom, self._alive, self._clock = scanner, post, zoom, alive, clock
        self._line = _Line(CAMERA, post, label)
        self._keep = keep
        self._looks = False
        self._wanted = PhotoEvent(0, b"")  # the newest photo that was asked for
        self._waiting = 0  # who wait for one, or listen
        self._heard: list[ScanEvent] | None = None  # by who listens
        self._changed = threading.Condition()
        self._busy = threading.Event()  # somebody looks, or waits for a photo
        self._over, self._warm = threading.Event(), False
        self.frame_s: float | None = None  # when the last frame was read
        self._thread = threading.Thread(target=self._run, name="eyes", daemon=True)
        self._thread.start()

    def look(self, on: bool) -> None:
        """Begin or end looking; what was in view before counts as new."""
        if on:
            self._zoom(False)
            self._scanner.resume()
        with self._changed:
            self._looks = on
            self._hurry()

    def aid(self, hint: Hint | None) -> None:
        """Look closer at what is small; about light the camera's process does what it can by itself."""
        if hint in (Hint.TOO_SMALL, Hint.CUT_OFF):
            self._zoom(hint is Hint.TOO_SMALL)

    def photograph(self, timeout_s: float = PHOTO_S) -> bytes:
        """A frame of now as JPEG; empty when none comes. From any thread but the one that posts."""
        with self._changed:
            number = self._scanner.photograph() if self._warm else 0
            if not number:
                return b""
            self._waiting += 1
            self._hurry()
            self._changed.wait_for(lambda: self._wanted.number >= number, timeout_s)
            self._waiting -= 1
            self._hurry()
            photo = self._wanted.photo if self._wanted.number >= number else b""
            if not self._waiting:
                self._wanted = PhotoEvent(self._wanted.number, b"")
            return photo

    def overhear(self, limit_s: float) -> list[ScanEvent]:
        """What is seen from now on, up to the first code and for so many seconds at most; nothing of it is posted for
        that. One may listen at a time: another gets nothing."""
        heard: list[ScanEvent] = []
        with self._changed:
            if self._heard is not None:
                return []
            if not self._looks:
                self._scanner.resume()
            self._heard = heard
            self._waiting += 1
            self._hurry()
            self._changed.wait_for(lambda: any(isinstance(event, CodeEvent) for event in heard), limit_s)
            self._heard = None
            self._waiting -= 1
            self._hurry()
        return heard

    def _hurry(self) -> None:
        if self._looks or self._waiting:
            self._busy.set()
        else:
            self._busy.clear()

    def close(self) -> None:
        """End the thread and the scanner process."""
        self._over.set()
        self._busy.set()
        self._thread.join(5)
        self._scanner.close()

    def _run(self) -> None:
        while not self._over.is_set():
            self._alive()
            if self._scanner.over:  # a recording has ended
                self._over.wait(IDLE_S)
            elif self._busy.wait(IDLE_S if self._warm else 0) or not self._warm:
                self._take(self._scanner.poll(_POLL_S))
            else:
                self._take(self._scanner.poll(0))

    def _take(self, events: Iterable[ScanEvent]) -> None:
        codes: list[CodeEvent] = []
        for event in events:
            self._tell(event)
            match event:
                case CodeEvent():
                    codes.append(event)
                case PhotoEvent():
                    self._photo(event)
                case HintEvent():
                    self._hint(event)
                case Heartbeat():
                    self._beat()
                case FaultEvent():
                    self._fault(event)
        if codes and self._looks:
            self._keep(frozenset(event.code.payload for event in codes), codes[0].photo)  # of one frame, all of them
            self._post(CodesSeen(tuple(map(self._line.seen, codes))))

    def _tell(self, event: ScanEvent) -> None:
        with self._changed:
            if self._heard is not None and len(self._heard) < _MOST_HEARD:
                self._heard.append(replace(event, photo=b"") if isinstance(event, CodeEvent) else event)
                self._changed.notify_all()

    def _photo(self, event: PhotoEvent) -> None:
        with self._changed:
            self._wanted = event if self._waiting else PhotoEvent(event.number, b"")
            self._changed.notify_all()

    def _hint(self, event: HintEvent) -> None:
        if self._looks:
            self._post(HintSeen(event.hint))

    def _beat(self) -> None:
        self._warm, self.frame_s = True, self._clock()
        self._line.well()

    def _fault(self, event: FaultEvent) -> None:
        """A picture that cannot be used is no fault of the part. What has failed is made ready again at once."""
        if event.reason is not FaultReason.UNUSABLE:
            self._warm = False
            self._line.fault(event)


class EngineLine(Protocol):
    """A barcode engine; see `firmware.scan_engine.EngineScanner`."""

    @property
    def well(self) -> bool:
        """Whether its line is open."""
        ...

    def poll(self, timeout_s: float = 0.0) -> list[ScanEvent]:
        """What has happened."""
        ...

    def close(self) -> None:
        """Let go of the line."""
        ...


class Trigger:
    """A barcode engine: it has a trigger of its own, so what it reads is posted whenever it comes."""

    def __init__(
        self, engine: EngineLine, post: Callable[[Event], None], *, label: Callable[[bytes], str] = _no_label
    ) -> None:
        self._engine, self._post = engine, post
        self._line = _Line(ENGINE, post, label)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and let go of the line."""
        self._over = True
        self._thread.join(5)
        self._engine.close()

    def _run(self) -> None:
        while not self._over:
            for event in self._engine.poll(_POLL_S):
                if isinstance(event, CodeEvent):
                    self._post(CodesSeen((self._line.seen(event),), triggered=True))
                elif isinstance(event, FaultEvent):
                    self._line.fault(event)
            if self._engine.well:
                self._line.well()
