"""A barcode engine as a second source of codes: it tells what the scanner tells, without frames or a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from firmware.scanner import TRIGGER_S, Answer, CodeEvent, Event, FaultEvent, FaultReason
from hw.barcode import NAME, BarcodeEngine
from hw.errors import HardwareError
from hw.qr.deduplicator import Deduplicator
from hw.qr.marks import marks

_TICK_S = 0.1  # longest wait in one go


class EngineScanner:
    """The codes of a `BarcodeEngine` as the events of `firmware.scanner.Scanner`. Call it from one thread."""

    def __init__(self, engine: BarcodeEngine, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._engine, self._clock = engine, clock
        self._seen = Deduplicator(clock)
        self._looks = self._looked = 0  # asked for, and begun
        self._standing: FaultEvent | None = None  # since which the line was not open

    def __enter__(self) -> EngineScanner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the line; harmless twice."""
        self._engine.close()

    def poll(self, timeout_s: float = 0.0) -> list[Event]:
        """What has happened; waits at most so many seconds, and no longer than for the first thing."""
        if (looks := self._looks) != self._looked:
            self._looked = looks
            self._seen.forget()
        try:
            codes = self._engine.poll(timeout_s)
        except HardwareError as exc:
            self._standing = FaultEvent(
                reason=FaultReason.MISSING,
                component=exc.component,
                problem=exc.problem,
                retry_s=self._engine.retry_s,
            )
            return [self._standing]
        if not self._engine.retry_s:
            self._standing = None
        return [
            CodeEvent(code=code, is_mark=bool(marks([code])), first_seen_s=self._clock(), frame=NAME)
            for code in self._seen.new(codes)
        ]

    @property
    def well(self) -> bool:
        """Whether the line is open."""
        return self._standing is None

    def resume(self) -> None:
        """Take every code for new. Another thread may call this, at any time."""
        self._looks += 1

    def request(self, timeout_s: float = TRIGGER_S) -> Answer:
        """The next code that the engine reads, known or not; else why there is none. Of several at once, the marks."""
        self.resume()
        until = self._clock() + timeout_s
        while (left := until - self._clock()) > self._engine.retry_s:
            codes = tuple(event for event in self.poll(min(left, _TICK_S)) if isinstance(event, CodeEvent))
            if codes:
                return tuple(code for code in codes if code.is_mark) or codes
        if self._standing is not None:
            return replace(self._standing, retry_s=self._engine.retry_s)
        problem = f"no code was read within {timeout_s:g} s"
        return FaultEvent(reason=FaultReason.NO_FRAMES, component=NAME, problem=problem)
