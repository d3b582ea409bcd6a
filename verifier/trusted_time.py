"""Whether the clock can be believed: signed times, and the counters that run beside it, as its witnesses.

A signed time is a floor and never a ceiling. A server's unsigned date is a hint: it raises no floor and vouches for
no clock. A clock under suspicion withholds what depends on the date (rule R5 of docs/decision.md) and nothing else.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from verifier.cache import schema
from verifier.cache.marks import LARGEST_TIME, ClockMarks, GoodTime, read_clock, update_clock
from verifier.clock import Clock, Ticks, Witness

TOLERANCE = timedelta(seconds=300)
LONGEST_SILENCE = timedelta(days=400)  # without any signed time; behind that a clock is more likely wrong than not
SEEN_EVERY = timedelta(minutes=5)  # how often checks may write to the card
DRIFT = 1e-4  # of the elapsed time, by which two healthy clocks may drift apart: 100 ppm, 9 s a day


class Doubt(StrEnum):
    """Why the clock is not believed."""

    BEHIND_SIGNED = "it is behind the newest signed time"
    BEHIND_SEEN = "it is behind a time that this device has seen before"
    FAR_AHEAD = "it is more than 400 days ahead of the newest signed time"
    MOVED = "it was set since it last agreed with a signed time"
    AHEAD = "it ran ahead at the last sync: signed metadata had expired by it and not by the server's date"


class TrustedTime:
    """What a device knows of the time, kept in its state.db; `witness` None where nothing runs beside the clock."""

    def __init__(self, state: Path, clock: Clock, witness: Witness | None = None) -> None:
        self._state, self._clock = state, clock
        self._witness = witness or (lambda: Ticks("", 0.0))
        self._known = ClockMarks()
        self._heard: tuple[datetime, datetime, Ticks] | None = None  # a server's date; clock and counters at the time

    def doubts(self, now: datetime) -> tuple[Doubt, ...]:
        """Why the clock that shows `now` at this moment is not believed; nothing when it is.

        Reads state.db, and writes to it when the suspicion changed or the last seen time is old. Never raises: what
        cannot be read counts as last read, and what cannot be written is tried again by the next check.
        """
        self._known = read_clock(self._state) or self._known
        ticks = self._witness()
        found = judge(self._known, now, ticks)
        if _noted(self._known, now, ticks) != self._known:
            with suppress(sqlite3.Error):
                self._known = update_clock(self._state, lambda marks: _noted(marks, now, ticks))
        return found

    def earliest(self, now: datetime) -> datetime:
        """The earliest that it can be while the clock, which shows `now`, is under suspicion: a time known to be past.

        Ages are told by it as "at least". By what `doubts` has read; `now` where nothing else is known.
        """
        return _earliest(self._known, now)

    def heard(self, server_date: datetime) -> None:
        """Take note of the unsigned date in a server's answer that has just come; it serves the next signed time."""
        self._heard = server_date, self._clock(), self._witness()

    def signed(self, moment: datetime) -> tuple[str, ...]:
        """Take note of a verified statement made at `moment` that is in force by this clock; remarks for people.

        One newer than all before, and not contradicted by the server's date, repairs a clock under suspicion: to
        replay an old one beside a clock that was set back is not enough. sqlite3.Error.
        """
        now, ticks = self._clock(), self._witness()
        offset = self._offset(now, ticks)
        self._known = update_clock(self._state, lambda marks: _after_signed(marks, moment, now, ticks, offset))
        return _remarks(judge(self._known, now, ticks), offset)

    def expired(self) -> tuple[str, ...]:
        """Take note that signed metadata have expired by this clock; remarks for people. sqlite3.Error.

        The publisher is silent, or this clock runs ahead. The server's date is believed so far as to suspect the
        clock, unless a witness vouches for it.
        """
        now, ticks = self._clock(), self._witness()
        offset = self._offset(now, ticks)
        self._known = update_clock(self._state, lambda marks: _after_expiry(marks, now, ticks, offset))
        return _remarks(judge(self._known, now, ticks), offset)

    def _offset(self, now: datetime, ticks: Ticks) -> timedelta | None:
        """By how much the server's date, which went on since it was heard, is later than the clock; then forgets it."""
        if self._heard is None:
            return None
        (date, wall, began), self._heard = self._heard, None
        if ticks.boot and ticks.boot == began.boot:  # counted, because the clock may have been set meanwhile
            return date + timedelta(seconds=ticks.elapsed - began.elapsed) - now
        return date - wall


def _earliest(marks: ClockMarks, now: datetime) -> datetime:
    return max((moment for moment in (marks.floor, marks.seen) if moment is not None), default=now)


def _remarks(found: tuple[Doubt, ...], offset: timedelta | None) -> tuple[str, ...]:
    hint = _hint(offset)
    return (*(f"clock: {doubt}" for doubt in found), *(() if hint is None else (hint,)))


def judge(marks: ClockMarks, now: datetime, ticks: Ticks) -> tuple[Doubt, ...]:
    """Every doubt about a clock that shows `now` while the counters beside it stand at `ticks`."""
    agrees = _agrees(marks.good, now, ticks)
    found = {
        Doubt.BEHIND_SIGNED: marks.floor is not None and now < marks.floor - TOLERANCE,
        Doubt.BEHIND_SEEN: marks.seen is not None and now < marks.seen - TOLERANCE,
        Doubt.FAR_AHEAD: marks.floor is not None and now > marks.floor + LONGEST_SILENCE,
        Doubt.MOVED: agrees is False or (agrees is None and marks.moved),
        Doubt.AHEAD: marks.ahead and agrees is not True,
    }
    return tuple(doubt for doubt, holds in found.items() if holds)


def clock_report(root: Path, now: datetime, ticks: Ticks | None = None) -> dict[str, Any]:
    """What the device whose cache lies under `root` knows of the time, for `cache info`: JSON-ready, never raises.

    `trusted` None when state.db cannot be read; `earliest` is `now`, or under suspicion the newest time known to be
    past, by which ages are told as "at least". Offsets are in seconds, positive where the other clock is later.
    """
    marks = read_clock(root / schema.STATE)
    found = () if marks is None else judge(marks, now, ticks or Ticks("", 0.0))
    known = marks or ClockMarks()
    rtc = None if ticks is None or ticks.rtc is None else int(ticks.rtc - now.timestamp())
    offset = None if known.server_offset is None else timedelta(seconds=known.server_offset)
    return {
        "trusted": None if marks is None else not found,
        "doubts": [str(doubt) for doubt in found],
        "earliest": _iso(_earliest(known, now) if found else now),
        "newest_signed": _iso(known.floor),
        "last_seen": _iso(known.seen),
        "last_good": _iso(known.good.wall if known.good else None),
        "server_offset_s": known.server_offset,
        "server_at": _iso(known.server_at),
        "rtc_offset_s": rtc,
        "hint": _hint(offset),
    }


# IMF-fixdate, the one form of a date that servers send (RFC 9110 clause 5.6.7).
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(text: str) -> datetime | None:
    """The moment in an HTTP Date header, None for anything else."""
    match = _DATE.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[i]) for i in (1, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


# ---------------------------------------------------------------------------------------- how the marks change


def _agrees(good: GoodTime | None, now: datetime, ticks: Ticks) -> bool | None:
    """Whether the clock went as far as the counters did since it was right; None when no counter can tell."""
    if good is None:
        return None
    passed = _passed(good, ticks)
    if passed is None:
        return None
    tolerance = TOLERANCE + timedelta(seconds=passed * DRIFT)
    if abs(now - good.wall - timedelta(seconds=passed)) <= tolerance:
        return True
    # A battery-backed clock that shows the same as this one was put right meanwhile, together with it.
    together = ticks.boot != good.boot and ticks.rtc is not None and abs(now.timestamp() - ticks.rtc) <= 300
    return None if together else False


def _passed(good: GoodTime, ticks: Ticks) -> float | None:
    """Seconds since that moment by a counter that nobody sets; None when there is none that went on."""
    if ticks.boot and ticks.boot == good.boot:
        return max(0.0, ticks.elapsed - good.elapsed)
    if ticks.rtc is None or good.rtc is None or ticks.rtc < good.rtc:  # behind itself: its battery was empty
        return None
    return ticks.rtc - good.rtc


def _noted(marks: ClockMarks, now: datetime, ticks: Ticks) -> ClockMarks:
    """After a check: a suspicion outlives the boot in which it arose, and a clock in good standing is seen."""
    agrees = _agrees(marks.good, now, ticks)
    if agrees is not None:
        marks = replace(marks, moved=not agrees)
    if not judge(marks, now, ticks) and (marks.seen is None or now >= marks.seen + SEEN_EVERY):
        marks = replace(marks, seen=now.replace(microsecond=0))
    return marks


def _after_signed(
    marks: ClockMarks, moment: datetime, now: datetime, ticks: Ticks, offset: timedelta | None
) -> ClockMarks:
    newer = marks.signed is None or moment > marks.signed
    floor = max(marks.floor or moment, moment)
    marks = replace(_with_offset(marks, now, offset), floor=floor, signed=max(marks.signed or moment, moment))
    if now < floor - TOLERANCE:
        return marks
    now = now.replace(microsecond=0)
    marks = replace(marks, ahead=False)  # the statement is in force by this clock too
    if newer and (offset is None or abs(offset) <= TOLERANCE):
        rtc = None if ticks.rtc is None else int(ticks.rtc)
        good = GoodTime(wall=now, boot=ticks.boot, elapsed=int(ticks.elapsed), rtc=rtc)
        return replace(marks, good=good, seen=now, moved=False)
    if not judge(marks, now, ticks):
        marks = replace(marks, seen=max(marks.seen or now, now))
    return marks


def _after_expiry(marks: ClockMarks, now: datetime, ticks: Ticks, offset: timedelta | None) -> ClockMarks:
    marks = _with_offset(marks, now, offset)
    vouched = _agrees(marks.good, now, ticks) is True
    if offset is not None and offset < -TOLERANCE and not vouched:
        marks = replace(marks, ahead=True)
    return marks


def _with_offset(marks: ClockMarks, now: datetime, offset: timedelta | None) -> ClockMarks:
    if offset is None:
        return marks
    # A server may send any date; one that state.db does not take as sound would cost all its marks.
    seconds = max(-LARGEST_TIME, min(int(offset.total_seconds()), LARGEST_TIME))
    return replace(marks, server_offset=seconds, server_at=now.replace(microsecond=0))


def _hint(offset: timedelta | None) -> str | None:
    if offset is None or abs(offset) <= TOLERANCE:
        return None
    side = "behind" if offset > timedelta(0) else "ahead"
    span = timedelta(seconds=int(abs(offset).total_seconds()))
    return f"clock: this one seems to be {span} {side}, by the server's unsigned date"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
