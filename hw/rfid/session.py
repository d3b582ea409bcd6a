"""Requests and answers over one open line, and what the reader tells unasked.

The line's thread splits and decodes what comes. A packet that the waiting request asked for goes to it; every other
one goes into a bounded queue, the oldest dropped first. Nothing received is ever thrown away to send a command.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from hw.errors import LinkLostError, ReaderTimeoutError
from hw.rfid.framing import Refusal, Splitter
from hw.rfid.packets import Codec, Packet, Refused
from hw.rfid.transport import Connect
from hw.rfid.types import Health

KEEP = 4096  # notices; 8 s of a reader at full speed
QUIET_S = 0.3  # a line so long without a byte has stopped
_STEP_S = 0.01  # how often silence is looked at

Wants = Callable[[Packet], bool]
Wait = Callable[[threading.Condition, float], object]


Heard = tuple[Packet, int]
"""A packet nobody asked for, and when its bytes were read (ns)."""


class Session:
    """One open line; made anew after the line was lost. One thread at a time may ask."""

    def __init__(
        self,
        connect: Connect,
        codec: Codec,
        health: Health,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wait: Wait = threading.Condition.wait,
    ) -> None:
        """DeviceNotFoundError. `wait` waits on a held condition for so many seconds."""
        self.splitter = Splitter(codec.layout, codec.cap, health)
        self._decode = codec.decode
        self._health = health
        self._monotonic_ns = monotonic_ns
        self._wait_on = wait
        self._changed = threading.Condition()
        self._notices: deque[Heard] = deque(maxlen=KEEP)
        self._wants: Wants | None = None
        self._until: Wants | None = None
        self._answers: list[Packet] = []
        self._complete = False
        self._lost: LinkLostError | None = None
        self._heard_ns = self._frame_ns = self._sent_ns = monotonic_ns()
        self._link = connect(self._received, self._on_lost)

    def close(self) -> None:
        """Let go of the line; harmless twice."""
        self._link.close()

    @property
    def last_frame_age(self) -> float:
        """Seconds since the last good frame came, or since the line was opened."""
        return (self._monotonic_ns() - self._frame_ns) / 1e9

    def send(self, data: bytes) -> None:
        """Send without waiting for an answer; LinkLostError."""
        self._sent_ns = self._monotonic_ns()
        self._link.write(data)

    def ask(self, data: bytes, wants: Wants, timeout: float) -> Packet:
        """Send, and wait for the first wanted packet; ReaderTimeoutError, LinkLostError."""
        return self.collect(data, wants, lambda _: True, timeout)[0]

    def collect(self, data: bytes, wants: Wants, until: Wants, timeout: float) -> list[Packet]:
        """Send, and gather the wanted packets up to the one that ends them; ReaderTimeoutError, LinkLostError."""
        with self._changed:
            self._expect(wants, until)
            try:
                self.send(data)
                if not self._wait(lambda: self._complete, timeout):
                    self._health.timeouts += 1
                    raise ReaderTimeoutError("tag reader", "no answer in time")
                return self._answers
            finally:
                self._wants = None

    def drain(self, data: bytes, wants: Wants, longest: float) -> bool:
        """Send (nothing when empty), and wait for the wanted packet or for QUIET_S without a byte.

        False when the reader talked on for `longest` seconds. What it says meanwhile stays among the notices.
        """
        with self._changed:
            self._expect(wants, lambda _: True)
            quiet = int(QUIET_S * 1e9)
            try:
                if data:
                    self.send(data)
                return self._wait(
                    lambda: self._complete or self._monotonic_ns() - max(self._sent_ns, self._heard_ns) >= quiet,
                    longest,
                    step=_STEP_S,
                )
            finally:
                self._wants = None

    def take(self, timeout: float) -> Heard | None:
        """The oldest notice, None when there is none in time; LinkLostError when none can come any more."""
        if self._notices:
            return self._notices.popleft()
        with self._changed:
            self._wait(lambda: bool(self._notices), timeout)
            return self._notices.popleft() if self._notices else None

    def forget(self) -> None:
        """Drop the notices that nobody took, because a new inventory begins."""
        with self._changed:
            self._notices.clear()

    def _expect(self, wants: Wants, until: Wants) -> None:
        self._wants, self._until, self._answers, self._complete = wants, until, [], False

    def _wait(self, done: Callable[[], bool], timeout: float, step: float = 3600.0) -> bool:
        deadline = self._monotonic_ns() + int(timeout * 1e9)
        while not done():
            if self._lost:
                raise self._lost
            left = (deadline - self._monotonic_ns()) / 1e9
            if left <= 0:
                return False
            self._wait_on(self._changed, min(left, step))
        return True

    def _received(self, data: bytes) -> None:
        """From the line's thread."""
        now = self._monotonic_ns()
        frames = self.splitter.feed(data, now / 1e9)
        packets = [self._decode(frame) for frame in frames]
        if data:
            self._heard_ns = now
        if not packets:
            return
        with self._changed:
            self._frame_ns = now
            for packet in packets:
                self._route(packet, now)
            self._changed.notify_all()

    def _route(self, packet: Packet, now: int) -> None:
        if isinstance(packet, Refused):
            self._health.refused += 1
            self._health.tag_crc_fail += packet.refusal is Refusal.TAG_CRC
        elif self._wants is None or self._complete or not self._wants(packet):
            notices = self._notices
            if len(notices) == KEEP:
                self._health.overruns += 1
            notices.append((packet, now))
        elif len(self._answers) < KEEP:
            self._answers.append(packet)
            self._complete = self._until is None or self._until(packet)

    def _on_lost(self, error: LinkLostError) -> None:
        with self._changed:
            self._lost = error
            self._changed.notify_all()
