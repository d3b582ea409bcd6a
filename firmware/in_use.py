"""The device as the running program uses it: put together anew when its epoch key is another one or gone.

A key has its time (72 hours), a shift its end, and an epoch its successor; each may come while the program runs, from
the centre or from a command in another process. And the hot list is followed by a child, which the centre may hasten.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmware.build import Device
from verifier.errors import CacheError, SyncError

if TYPE_CHECKING:
    from firmware.jobs import SyncProcess
    from verifier.hot_follow import Fetched, HotFollower

LOOK_S = 5.0  # between two looks at the key
STEP_S = 1.0
HOT_S = 50.0  # for one fetch of the hot list

Key = Callable[[], bytes | None]


class DeviceInUse:
    """The parts of the device, and the thread that looks after their key. `device` may be read from any thread."""

    def __init__(self, make: Callable[[], Device], key: Key) -> None:
        """`key` tells the epoch key that may be used now; `make` puts the device together under it. OSError."""
        self._make, self._key = make, key
        self._known = _digest(key())  # before: a key that changes meanwhile is noticed by the next look
        self.device = make()
        self._changed: Callable[[Device], None] = lambda device: None
        self._over, self._upkeep_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="key", daemon=True)

    @property
    def has_key(self) -> bool:
        """Whether there was a key at the last look."""
        return self._known is not None

    def start(self, changed: Callable[[Device], None]) -> None:
        """Begin to look after the key; `changed` is called now and with each new device, before it asks anybody."""
        self._changed = changed
        self._begin()
        self._thread.start()

    def close(self) -> None:
        """End the threads and close the store; harmless twice."""
        self._over.set()
        self._upkeep_over.set()
        if self._thread.ident is not None:
            self._thread.join(5)
        self.device.store.close()

    def look(self) -> None:
        """Put the device together anew, if its key is another one or gone."""
        known = _digest(self._key())
        if known == self._known:
            return
        fresh = self._make()
        before, self.device, self._known = self.device, fresh, known
        self._upkeep_over.set()
        self._upkeep_over = threading.Event()
        self._begin()
        before.store.close()

    def _begin(self) -> None:
        self._changed(self.device)
        online = self.device.online
        if online is not None:
            online.prepare()
            threading.Thread(target=online.upkeep.run, args=(self._upkeep_over,), name="upkeep", daemon=True).start()

    def _run(self) -> None:
        waited = 0.0
        while not self._over.wait(STEP_S):
            waited += STEP_S
            if waited >= LOOK_S or self._hastened():
                waited = 0.0
                with suppress(OSError):  # tried again
                    self.look()

    def _hastened(self) -> bool:
        """Whether the upkeep has just said that the key is another one or gone."""
        changed = None if self.device.online is None else self.device.online.changed
        if changed is None or not changed.is_set():
            return False
        changed.clear()
        return True


def _digest(key: bytes | None) -> bytes | None:
    """What tells two keys apart, without keeping either."""
    return None if key is None else hashlib.sha256(key).digest()


# ------------------------------------------------------------------------------------------------ the hot list


@dataclass(frozen=True, slots=True)
class HotFetched:
    """The number of the hot list that counts now, 0 without one."""

    seq_after: int


class FetchHot:
    """One fetch of the hot list, in a child."""

    def __init__(self, process: SyncProcess, in_use: Callable[[], Device | None]) -> None:
        self._process, self._in_use = process, in_use

    def __call__(self) -> HotFetched:
        """Fetch; SyncError with the kind of failure that `firmware.syncjob` tells."""
        kind = self._process.run().get("kind", "broken")
        if kind != "done":
            raise SyncError(f"hot list: {kind}")
        device, seq = self._in_use(), None
        with suppress(CacheError):
            seq = None if device is None else device.store.info().hot_seq
        return HotFetched(seq or 0)


class HotThread:
    """Steps the follower while it may: never off the network, nor before there is a set to change."""

    def __init__(self, follower: HotFollower[Fetched], process: SyncProcess, may: Callable[[], bool]) -> None:
        self._follower, self._process, self._may = follower, process, may
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and its child."""
        self._over.set()
        while self._thread.is_alive():
            self._process.close()
            self._thread.join(0.1)

    def _run(self) -> None:
        while not self._over.wait(STEP_S):
            if self._may():
                with suppress(SyncError):  # tried again
                    self._follower.step()
