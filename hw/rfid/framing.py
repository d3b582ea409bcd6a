"""Bytes in, frames out: finds frames by head, length and check value in a stream that may be damaged anywhere.

A frame ends where its length says, never at a byte that looks like an end. After a damaged frame ONE byte is dropped
and the search goes on behind it, because the next good frame may begin inside the damaged one. The length is held
against a cap, so that one bad byte cannot swallow what follows, and so the buffer stays below the longest frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hw.rfid.types import Health
from verifier.types import Code

PARTIAL_TIMEOUT_S = 0.05
MORE = 0  # from Layout.measure: not enough bytes to tell


class Refusal(Code):
    """Why bytes are no frame, or a frame is no message."""

    JUNK = "junk"
    LENGTH = "length"
    CHECKSUM = "checksum"
    INCOMPLETE = "incomplete"
    TYPE = "type"
    SHAPE = "shape"
    PC_LENGTH = "pc_length"
    TAG_CRC = "tag_crc"


@dataclass(frozen=True, slots=True)
class Layout:
    """The frame of a protocol.

    `heads` are the bytes a frame may begin with, `head` finds them. `measure(buffer, at, cap)` gives the length of the
    frame that begins at `at`, MORE when too few bytes are there to tell, or a negative number when no frame begins so.
    `sound(frame)` checks its check value.
    """

    heads: frozenset[int]
    head: re.Pattern[bytes]
    measure: Callable[[bytearray, int, int], int]
    sound: Callable[[bytes], bool]


Trace = Callable[[int, Refusal | None, bytes], None]
"""Gets offset, refusal (None for a good frame) and the bytes."""


class Splitter:
    """The frames in a byte stream, cut anywhere. Knows no port and no clock of its own."""

    def __init__(self, layout: Layout, cap: int, health: Health | None = None, trace: Trace | None = None) -> None:
        """`cap` is the largest length field that is believed, in its protocol's own count; it may change any time."""
        self.cap = cap
        self._layout = layout
        self._health = health or Health()
        self._trace = trace
        self._buffer = bytearray()
        self._offset = 0  # of the buffer's first byte in the stream
        self._last = 0.0

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes, now: float) -> list[bytes]:
        """The frames that are complete with `data`; `now` in seconds that never go back.

        Empty `data` says that the line is silent. A frame that did not go on for 50 ms is given up then, and only
        then: bytes that wait in the system's buffer for a busy program are late, not missing.
        """
        if data:
            self._last = now
            self._buffer += data
            return self._scan()
        if self._buffer and now - self._last >= PARTIAL_TIMEOUT_S:
            return self.flush()
        return []

    def flush(self) -> list[bytes]:
        """Give up the frame that has begun; the good ones that stand inside it."""
        frames: list[bytes] = []
        while self._buffer:
            self._health.stalled += 1
            self._refuse(Refusal.INCOMPLETE, 0, len(self._buffer))
            self._drop(1)
            frames += self._scan()
        return frames

    def _scan(self) -> list[bytes]:
        buffer, layout, cap, trace = self._buffer, self._layout, self.cap, self._trace
        heads, search, measure, sound = layout.heads, layout.head.search, layout.measure, layout.sound
        frames: list[bytes] = []
        at, end = 0, len(buffer)
        while at < end:
            if buffer[at] not in heads:
                found = search(buffer, at)
                head = found.start() if found else end
                self._junk(at, head)
                at = head
            if at == end or (length := measure(buffer, at, cap)) == MORE or at + length > end:
                break
            if length < 0:
                self._health.bad_length += 1
                self._refuse(Refusal.LENGTH, at, 1)
                at += 1
                continue
            frame = bytes(buffer[at : at + length])
            if not sound(frame):
                self._health.bad_checksum += 1
                self._refuse(Refusal.CHECKSUM, at, length)
                at += 1
                continue
            if trace:
                trace(self._offset + at, None, frame)
            frames.append(frame)
            at += length
        self._health.frames += len(frames)
        self._drop(at)
        return frames

    def _junk(self, start: int, end: int) -> None:
        self._health.junk_bytes += end - start
        self._refuse(Refusal.JUNK, start, end - start)

    def _refuse(self, refusal: Refusal, at: int, length: int) -> None:
        if self._trace:
            self._trace(self._offset + at, refusal, bytes(self._buffer[at : at + length]))

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._offset += count
