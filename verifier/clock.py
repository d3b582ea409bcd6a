"""The clock as an argument, and what runs beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

Clock = Callable[[], datetime]
"""Returns the present moment as an aware datetime."""


class Ticks(NamedTuple):
    """Counters that go on when somebody sets the clock.

    `boot` names this start of the machine, `elapsed` the seconds since then with those asleep; `rtc` is the
    battery-backed clock in POSIX seconds, None without one. It may be wrong, but it goes on while the power is off.
    """

    boot: str
    elapsed: float
    rtc: float | None = None


Witness = Callable[[], Ticks]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RTC = Path("/sys/class/rtc/rtc0/since_epoch")


def system_clock() -> datetime:
    """The machine's clock, in UTC."""
    return datetime.now(UTC)


def system_witness(boot_id: Path = _BOOT_ID, rtc: Path = _RTC) -> Ticks:
    """The machine's counters (Linux: proc(5), clock_gettime(2), the rtc class of sysfs).

    A machine that cannot name its boot has an empty `boot`, which agrees with no other.
    """
    seconds = _line(rtc)
    return Ticks(
        boot=_line(boot_id)[:64],
        elapsed=time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
        rtc=int(seconds) if seconds.isascii() and seconds.isdigit() else None,
    )


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""
