"""The program's side of the scanner process: starts it, watches it, ends it, and says what it has read.

The process is one of its own program (`firmware.scan_worker`), started with pipes. multiprocessing would import the
main module a second time and unpickle what the child sends; a child that reads hostile pictures must not have that.
This module loads neither OpenCV nor numpy.

The process reads one frame for each grant, so nothing waits in the pipe: who comes back after a minute is not told
what stood before the camera a minute ago, and while nobody asks, nothing is read.

Codes that stay in view are told apart from new ones here and not in the process: it may be ended at any frame, and
its successor would offer the same code once more.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from firmware.fault_frames import FaultFrames
from firmware.scan_process import EXPECTED, ScanProcess, Spawn, State, photo_in, spawn_worker
from firmware.scan_protocol import Begin, Done, End, Failed, Job, Message, Missing, ProtocolError, Ready, Unusable
from hw.interfaces import CameraSettings
from hw.qr.deduplicator import Deduplicator
from verifier.types import Code, CodeSeen, Hint

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm"})  # hw.camera.video would load OpenCV
TRIGGER_S = 2.5  # of the three seconds after a press of the key; the rest is for ending a process and for the check
DECODERS = "hw.qr.decoders:available_decoders"

_FOREIGN_S = 0.5  # for which a mark is still looked for once a foreign code was read
_TICK_S = 0.1  # longest wait in one go
_ALARM_FACTOR = 4  # of the frame's limit; after that the process ends itself, whoever else is late
_DELAYS_S = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0)  # before a new process, by the number of faults in a row
_MISSING_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # for a camera that is not there: a new process cannot mend that
_GOOD_FRAMES = 10  # in a row, after which a fault is the first again
_GIVE_UP = 10  # faults in one recording
_PAUSE_S = 1.0  # between two calls: what a camera saw before is not what it sees now


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds after which a process that says nothing is ended: while it starts, opens its source for the first frame
    (if that may take longer than a frame), takes a frame, reads a frame."""

    start_s: float = 20.0
    open_s: float = 0.0
    capture_s: float = 2.0
    frame_s: float = 0.8


_RECORDED = Limits(capture_s=10.0)
_STILL = Limits(capture_s=10.0, frame_s=2.5)  # all stages, and a stage that has begun is not cut short


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSource:
    """Where the frames come from: the importable name "module:class" of a `FrameSource`, and what it is given.

    `still`: each picture is a scene of its own, worth all stages. `live`: the source never ends and keeps no old frame
    for the next one that asks; what it saw before a request or a pause is of no use.
    """

    make: str
    path: Path
    more: tuple[Path, ...] = ()  # paths behind the first, for a source that takes several
    still: bool = False
    live: bool = False
    limits: Limits = Limits()


def pictures(path: Path, *more: Path) -> ScanSource:
    """Picture files and folders of them, in this order."""
    return ScanSource(make="firmware.scan_files:PictureFiles", path=path, more=more, still=True, limits=_STILL)


def video(path: Path) -> ScanSource:
    """A video file."""
    return ScanSource(make="hw.camera.video:VideoSource", path=path, limits=_RECORDED)


class FaultReason(Code):
    """Why the scanner does not read, as far as the frames are not to blame."""

    HANG = "HANG"  # no answer within the limit
    CRASH = "CRASH"  # the process ended
    BABBLE = "BABBLE"  # it said what it never says
    NO_START = "NO_START"  # no process could be made
    MISSING = "MISSING"  # a part or library is not there
    UNUSABLE = "UNUSABLE"  # a frame or file that cannot be used; the scanner itself is well
    NO_FRAMES = "NO_FRAMES"  # nothing was seen within the time of a request
    ENDED = "ENDED"  # the source has no more frames


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeEvent:
    """A code came into view. `first_seen_s` is on the scanner's clock, for a recording seconds since its beginning."""

    code: CodeSeen
    is_mark: bool  # begins like one of ours, of whatever version
    first_seen_s: float
    frame: str  # the frame's name
    photo: bytes = field(default=b"", repr=False, compare=False)  # the frame as JPEG, where that is wanted


@dataclass(frozen=True, slots=True)
class PhotoEvent:
    """The frame that was asked for as photo `number`, or a later one; empty where it could not be made small."""

    number: int
    photo: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HintEvent:
    """Nothing was read in a frame. None: a code seems to be there, and nothing measured tells why it is not read.

    `frame` is the frame's name, empty where the hint sums up several.
    """

    hint: Hint | None
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One more frame was read, in `ms` milliseconds; `total` frames there are, where the source tells."""

    frames: int
    ms: float
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultEvent:
    """Something other than the picture keeps the scanner from reading.

    `picture` is the kept frame on which it happened. In `retry_s` seconds a new process starts; None: there is no
    need, or no use.
    """

    reason: FaultReason
    component: str
    problem: str
    picture: Path | None = None
    retry_s: float | None = None


Event = CodeEvent | HintEvent | Heartbeat | FaultEvent | PhotoEvent
Answer = tuple[CodeEvent, ...] | HintEvent | FaultEvent


class Scanner:
    """Reads codes from a source in a process of its own. Call it from one thread."""

    def __init__(
        self,
        source: ScanSource,
        *,
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = spawn_worker,
        decoders: str = DECODERS,
        fault_frames: FaultFrames | None = None,
        spare: bool = False,
        photos: bool = False,
    ) -> None:
        """`clock` gives seconds that never go back. Nothing starts before the first call.

        `spare`: of a live source, keep a second process at hand with its libraries loaded, for machines on which that
        takes long. The source is made in it too, and opened when its turn comes.
        `photos`: each code comes with its frame.
        """
        self._source, self._decoders = source, decoders
        self._clock, self._spawn = clock, spawn
        self._fault_frames = fault_frames
        self._seen_s = 0.0
        self._seen = Deduplicator(lambda: self._seen_s)  # on a recording's own time
        self._slot = _frame_slot()
        self._child: ScanProcess | None = None
        self._spare: ScanProcess | None = None
        self._wants_spare = spare and source.live
        self._restart_at = clock()
        self._finished = 0  # frames of the source that need not be read again
        self._frames = 0
        self._faults = self._faults_in_a_row = self._good_frames = 0
        self._opened = False  # the process has given a frame
        self._stale = False  # the frame under way is not to be reported
        self._looks = self._looked = 0  # asked for, and begun; two numbers, because another thread may ask
        self._asked = CameraSettings()
        self._with_photos = photos
        self._photos = self._photos_granted = 0  # asked for, and granted; two numbers for the same reason
        self._left_s = clock()  # when the last call ended
        self._standing: FaultEvent | None = None  # since which nothing has been read
        self.over = False  # nothing more will come

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process; harmless twice."""
        self.over = True
        self._end_child()
        if self._spare is not None:
            self._spare.end()
            self._spare = None
        if self._slot >= 0:
            os.close(self._slot)
            self._slot = -1

    def events(self) -> Iterator[Event]:
        """Everything until the source has no more frames; for ever, where it is live.

        Who pauses over the first code of a live frame is not told of a second one, but of what is then in view.
        """
        while not self.over:
            for event in self.poll(_TICK_S):
                if isinstance(event, CodeEvent | HintEvent) and self._has_paused():
                    self._seen.forget()
                else:
                    yield event

    def request(self, timeout_s: float = TRIGGER_S) -> Answer:
        """The officer asks: the marks of the first frame that shows one, else what else was read, else why nothing was.

        Ends within `timeout_s` seconds of the clock, at once where no process will read until then. A code that is
        still in view counts as new.
        """
        self.resume()
        until = self._clock() + timeout_s
        foreign: list[CodeEvent] = []
        hints: Counter[Hint | None] = Counter()
        fault: FaultEvent | None = None
        while not self.over and not self._waits_until(until) and (left := until - self._clock()) > 0:
            events = self.poll(min(left, _TICK_S))
            codes = [event for event in events if isinstance(event, CodeEvent)]
            if marks := tuple(code for code in codes if code.is_mark):
                return marks
            if codes and not foreign:
                until = min(until, self._clock() + _FOREIGN_S)
            foreign += codes
            hints.update(event.hint for event in events if isinstance(event, HintEvent))
            fault = next((event for event in events if isinstance(event, FaultEvent)), fault)
        return tuple(foreign) or fault or usual(hints) or self._silence(timeout_s)

    def _waits_until(self, moment_s: float) -> bool:
        return self._child is None and self._restart_at >= moment_s

    def _silence(self, timeout_s: float) -> FaultEvent:
        if fault := self._standing:
            wait_s = None if fault.retry_s is None else max(0.0, self._restart_at - self._clock())
            return replace(fault, retry_s=wait_s)
        if self.over:
            return FaultEvent(reason=FaultReason.ENDED, component="scanner", problem="no more frames")
        problem = f"no frame was read within {timeout_s:g} s"
        return FaultEvent(reason=FaultReason.NO_FRAMES, component="scanner", problem=problem)

    def poll(self, timeout_s: float = 0.0) -> list[Event]:
        """What has happened; waits at most so many seconds, and no longer than for the first thing.

        Of a live source, who calls after more than a second is told nothing that was seen before the call.
        """
        looks = self._looks
        if is_new := looks != self._looked:
            self._seen.forget()
        if is_new or self._has_paused():
            self._stale = self._source.live and self._child is not None and self._child.state is not State.STARTING
        self._looked = looks
        events = self._poll(timeout_s)
        self._left_s = self._clock()
        if self._looks != self._looked and self._source.live:
            events = [event for event in events if not isinstance(event, CodeEvent | HintEvent)]
        return events

    def resume(self) -> None:
        """Look anew: every code counts as new, and of a live source nothing is told that was seen before.

        Another thread may call this, at any time.
        """
        self._looks += 1

    def adjust(self, settings: CameraSettings) -> None:
        """Ask this of the camera, with the next frame, on top of what its process does by itself about light.

        It holds until another is asked, and for the processes that follow. A source that is no camera that can be
        adjusted takes no notice. Another thread may call this, at any time.
        """
        self._asked = settings

    def photograph(self) -> int:
        """Ask for a photo of the next frame: the number of the `PhotoEvent` that brings it; 0 where none will come.

        Only a live source has one: a frame of a recording is not what is to be seen now. Another thread may call this;
        two at once may get the same photo.
        """
        if not self._source.live or self.over:
            return 0
        self._photos += 1
        return self._photos

    def _has_paused(self) -> bool:
        return self._source.live and self._clock() - self._left_s > _PAUSE_S

    def _poll(self, timeout_s: float) -> list[Event]:
        if self.over:
            return []
        if self._child is None:
            return self._restart(timeout_s)
        deadline = self._child.since + self._limit_s(self._child.state)
        events: list[Event] = []
        try:
            messages = self._child.read(min(timeout_s, deadline - self._clock()))
            for message in messages:
                events += self._take(message)
        except ProtocolError as exc:
            return events + self._fault(FaultReason.BABBLE, str(exc))
        except EOFError:
            return self._fault(FaultReason.CRASH)  # how it ended is known when it has
        if not messages and self._clock() >= deadline:
            return self._fault(FaultReason.HANG, self._delay_of(self._child.state))
        return events

    def _limit_s(self, state: State) -> float:
        limits = self._source.limits
        return {
            State.STARTING: limits.start_s,
            State.CAPTURING: limits.capture_s if self._opened else max(limits.open_s, limits.capture_s),
            State.DECODING: limits.frame_s,
        }[state]

    def _delay_of(self, state: State) -> str:
        what = {State.STARTING: "starting", State.CAPTURING: "taking a frame", State.DECODING: "reading a frame"}
        return f"{what[state]} took longer than {self._limit_s(state):g} s"

    def _restart(self, timeout_s: float) -> list[Event]:
        wait_s = self._restart_at - self._clock()
        if wait_s > 0:
            time.sleep(max(0.0, min(timeout_s, wait_s)))
            return []
        try:
            self._child, self._spare = self._spare or self._start(), None
        except OSError as exc:
            return self._fault(FaultReason.NO_START, exc.strerror or "no process could be made")
        self._child.enter(State.STARTING, self._clock())
        self._opened = False
        return []

    def _start(self) -> ScanProcess:
        job = Job(
            source=self._source.make,
            paths=tuple(map(str, (self._source.path, *self._source.more))),
            decoders=self._decoders,
            still=self._source.still,
            skip=0 if self._source.live else self._finished,
            alarm_s=self._source.limits.frame_s * _ALARM_FACTOR,
            photos=self._with_photos,
        )
        return ScanProcess(self._spawn, job, self._slot, self._clock())

    def _start_spare(self) -> None:
        with suppress(OSError):  # there is none, then
            self._spare = self._start()

    def _take(self, message: Message) -> list[Event]:
        child = self._child
        if child is None:  # it has said its last
            return []
        if not isinstance(message, EXPECTED[child.state]):
            raise ProtocolError("a message out of turn")
        if isinstance(message, Failed):
            return self._fault(FaultReason.CRASH, message.problem)
        if isinstance(message, Begin):
            self._opened = True
            child.frame = message.name
            child.enter(State.DECODING, self._clock())
            return []
        if isinstance(message, Done | Missing):
            return self._no_more(message)
        stale, self._stale = self._stale, False
        number = child.photo
        wanted = isinstance(message, End) and (number > 0 or (self._with_photos and bool(message.codes)))
        photo = photo_in(self._slot) if wanted else b""
        self._grant(child)
        if isinstance(message, Ready):
            return []
        self._finished += 1
        if self._wants_spare and self._spare is None:
            self._start_spare()
        if isinstance(message, Unusable):
            return [FaultEvent(reason=FaultReason.UNUSABLE, component=message.name, problem=message.problem)]
        asked = [PhotoEvent(number, photo)] if number else []
        return asked + self._read(message, child.frame, stale, photo)

    def _grant(self, child: ScanProcess) -> None:
        photos = self._photos
        child.grant(self._clock(), self._asked, photos if photos != self._photos_granted else 0)
        self._photos_granted = photos

    def _no_more(self, message: Done | Missing) -> list[Event]:
        self.over = not self._source.live
        if isinstance(message, Missing):
            return self._fault(FaultReason.MISSING, message.problem, message.component)
        if self._source.live:
            return self._fault(FaultReason.ENDED, "the source has no more frames")
        self._end_child()
        return []

    def _read(self, end: End, frame: str, stale: bool, photo: bytes) -> list[Event]:
        self._standing = None
        self._frames += 1
        self._good_frames += 1
        if self._good_frames >= _GOOD_FRAMES:
            self._faults_in_a_row = 0
        events: list[Event] = [Heartbeat(self._frames, end.ms, end.total)]
        if stale:
            return events
        if not end.codes:
            return [*events, HintEvent(end.hint, frame)]
        self._seen_s = self._clock() if end.at_s is None else end.at_s
        if self._source.still:
            self._seen.forget()
        events += [
            CodeEvent(code=code, is_mark=end.are_marks, first_seen_s=self._seen_s, frame=frame, photo=photo)
            for code in self._seen.new(end.codes)
        ]
        return events

    def _fault(self, reason: FaultReason, problem: str = "", component: str = "scanner") -> list[Event]:
        """End the process, keep the frame it was reading, and set the time of the next one."""
        state, frame = (None, "") if self._child is None else (self._child.state, self._child.frame)
        status = self._end_child()
        if not problem:
            reason, problem = _reason_of(status)
        if state is State.DECODING:
            problem = f"{problem} ({frame})"
        picture = None
        if state is State.DECODING and self._fault_frames is not None:
            picture = self._fault_frames.save(self._slot, reason)
        self._finished += state in (State.CAPTURING, State.DECODING)
        retry_s = None if self.over else self._count_fault(reason)
        if retry_s is None and self._faults >= _GIVE_UP:
            problem = f"{problem}; given up after {self._faults} faults, the rest was not read"
        self._standing = FaultEvent(
            reason=reason, component=component, problem=problem, picture=picture, retry_s=retry_s
        )
        return [self._standing]

    def _count_fault(self, reason: FaultReason) -> float | None:
        """Seconds until the next process may start: most faults are one bad frame, some will not go away."""
        delays = _MISSING_DELAYS_S if reason is FaultReason.MISSING else _DELAYS_S
        delay_s = delays[min(self._faults_in_a_row, len(delays) - 1)]
        self._faults += 1
        self._faults_in_a_row += 1
        self._good_frames = 0
        self._restart_at = self._clock() + delay_s
        self.over = not self._source.live and self._faults >= _GIVE_UP
        return None if self.over else delay_s

    def _end_child(self) -> int | None:
        child, self._child = self._child, None
        self._stale = False
        return None if child is None else child.end()


def _reason_of(status: int | None) -> tuple[FaultReason, str]:
    if status == -signal.SIGALRM:
        return FaultReason.HANG, "the process ended itself: reading a frame took too long"
    if status is not None and status < 0:
        return FaultReason.CRASH, f"the process was ended by signal {-status}"
    return FaultReason.CRASH, f"the process ended with status {status}"


def usual(hints: Counter[Hint | None]) -> HintEvent | None:
    """The hint of most frames; one that tells what to do before one that does not."""
    named = Counter({hint: count for hint, count in hints.items() if hint is not None})
    for counted in (named, hints):
        if counted:
            return HintEvent(counted.most_common(1)[0][0])
    return None


def _frame_slot() -> int:
    """An open file without a name that holds one frame, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("scan-frame")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
