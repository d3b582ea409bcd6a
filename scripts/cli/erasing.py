"""What a command that runs for long owes to an order that erases the device meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firmware.config import Home
from firmware.keeper import ERASED, default_run, finish_wipe, wipe_files, wipe_once_more
from firmware.probes import EVERY_S, erased
from verifier.clock import system_clock
from verifier.errors import VerifierError
from verifier.wipe import Wiper


class ErasedError(VerifierError):
    """The device was erased while the command ran."""


@contextmanager
def unless_erased(home: Home) -> Iterator[Callable[[], None]]:
    """For a command that records checks: entered before it opens the device, left when it writes nothing any more.

    What it gives is called before each check, and as often as one likes: ErasedError once the device was erased, by
    whichever process. What the command wrote since goes too.
    """
    run, found = default_run(), list[bool]()
    finish_wipe(home, system_clock, run)  # one of before is not one of meanwhile
    ended = wipe_once_more(home, system_clock, run)
    probe = erased(Wiper(wipe_files(home, run), system_clock).record, lambda: found.append(True))
    probe()
    looked_s = time.monotonic()

    def look() -> None:
        nonlocal looked_s
        if time.monotonic() - looked_s >= EVERY_S:
            looked_s = time.monotonic()
            probe()
        if found:
            raise ErasedError(ERASED)

    try:
        yield look
    finally:
        ended()
