"""A running scan: what the reader tells, and how it comes back after silence and after the plug was pulled.

Silence of 2 s, or noise alone, while the reader should talk: stop, identify, set the radio anew, begin again. A lost
line: open it again after 0.2 s, then after twice as long each time, up to 5 s. Both are told as a Gap, because for that
time the absence of a read says nothing.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from hw.errors import HardwareError, LinkLostError, RegionRefusedError, UnsupportedError
from hw.rfid.packets import End, Fault, Packet, Sighting
from hw.rfid.types import Event, Gap, GapReason, InventoryConfig, RoundEnd, TagRead

if TYPE_CHECKING:
    from hw.rfid.driver import Driver
    from hw.rfid.session import Heard

AFTER_FAULT_S = 0.1  # until the next round is asked for
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 5.0
_STEP_S = 0.5  # how long the iterator waits for one event before it looks whether it was ended


class Inventory:
    """Context manager and iterator; `poll` for those who cannot wait. Used by one thread."""

    def __init__(self, driver: Driver, config: InventoryConfig) -> None:
        self._driver = driver
        self._config = config
        self._running = False
        self._down: GapReason | None = None
        self._down_ns = 0
        self._try_ns = 0  # when the line is opened again
        self._delay = FIRST_DELAY_S
        self._last: Packet | None = None
        self._asked_ns = 0
        self._again_ns: int | None = None  # when the next round is asked for
        self._ended_ns: int | None = None  # when a reader that could not be stopped was given up

    def start(self) -> None:
        """Begin to scan; UnsupportedError when a scan runs or the reader cannot do what is configured."""
        driver = self._driver
        driver.idle()
        driver.session.forget()
        self._begin()
        self._running = True

    def close(self) -> None:
        """End the scan; harmless twice. What came until its end can still be polled."""
        if not self._running:
            return
        self._running = False
        if self._down is None:
            try:
                self._ended_ns = None if self._driver.stop() else self._driver.monotonic_ns()
            except HardwareError:
                self._down = GapReason.LINK_LOST

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while True:
            event = self.poll(_STEP_S)
            if event is not None:
                return event
            if not self._running or self._driver.closed:
                raise StopIteration

    def poll(self, timeout: float) -> Event | None:
        """The next event, None when there is none within `timeout` seconds.

        RegionRefusedError when a reader that came back does not confirm band and power, or is heard outside the band:
        it does not transmit then, and the scan is over.
        """
        if not self._running:
            return self._rest()
        try:
            return self._recover(timeout) if self._down else self._heard(timeout)
        except LinkLostError:
            return self._lost()
        except RegionRefusedError:
            self._running = False
            raise

    def _rest(self) -> Event | None:
        """What came until the scan was ended: a reader that cannot be stopped goes on for ever."""
        end = self._ended_ns
        try:
            while (heard := self._driver.session.take(0.0)) is not None and (end is None or heard[1] <= end):
                if (event := self._event(heard)) is not None:
                    return event
        except LinkLostError:
            return None
        return None

    def _heard(self, timeout: float) -> Event | None:
        driver = self._driver
        end = driver.monotonic_ns() + int(timeout * 1e9)
        while True:
            left = (end - driver.monotonic_ns()) / 1e9
            event = self._taken(max(0.0, min(left, self._patience())))
            if event is not None:
                return event
            if self._again_ns is not None and driver.monotonic_ns() >= self._again_ns:
                self._ask_again()
            if self._silence() >= driver.watchdog_s:
                return self._restart(self._silence())
            if left <= 0:
                return None

    def _begin(self) -> None:
        driver = self._driver
        driver.session.splitter.cap = driver.inventory_cap(self._config)
        self._asked_ns, self._again_ns = driver.monotonic_ns(), None
        try:
            driver.begin(self._config)
        except UnsupportedError:
            driver.session.splitter.cap = driver.codec.cap
            raise
        except HardwareError:
            driver.stop()  # the answer may have been lost, not the command
            raise
        driver.scanning = True

    def _ask_again(self) -> None:
        self._asked_ns, self._again_ns = self._driver.monotonic_ns(), None
        self._driver.again(self._config)

    def _silence(self) -> float:
        """Seconds without a frame since the reader was last asked to scan: noise is no sign of life."""
        return min(self._driver.session.last_frame_age, (self._driver.monotonic_ns() - self._asked_ns) / 1e9)

    def _patience(self) -> float:
        """Seconds until something must be done, at least one millisecond."""
        due = self._driver.watchdog_s - self._silence()
        if self._again_ns is not None:
            due = min(due, (self._again_ns - self._driver.monotonic_ns()) / 1e9)
        return max(0.001, due)

    def _taken(self, timeout: float) -> Event | None:
        """The event of the next notice, if it has one."""
        heard = self._driver.session.take(timeout)
        return self._event(heard) if heard else None

    def _event(self, heard: Heard) -> Event | None:
        driver, (packet, mono_ns) = self._driver, heard
        driver.counters.dup += isinstance(packet, Sighting) and packet == self._last
        self._last = packet
        if driver.rounds and self._running:
            self._plan_round(packet)
        event = driver.event(packet, mono_ns)
        return None if isinstance(event, TagRead) and self._too_weak(event) else event

    def _plan_round(self, packet: Packet) -> None:
        """The next round follows the end of one at once; a fault that may repeat itself, a little later."""
        if isinstance(packet, End):
            self._ask_again()
        elif isinstance(packet, Fault):
            self._again_ns = self._driver.monotonic_ns() + int(AFTER_FAULT_S * 1e9)

    def _too_weak(self, read: TagRead) -> bool:
        floor = self._config.rssi_floor
        return floor is not None and read.rssi_dbm is not None and read.rssi_dbm < floor

    def _restart(self, silence: float) -> Event:
        """The watchdog."""
        driver = self._driver
        driver.counters.restarts += 1
        try:
            driver.prepare()
            self._begin()
        except LinkLostError:
            return self._lost()
        except RegionRefusedError:
            raise
        except HardwareError:
            return self._lost(GapReason.SILENT, silence)
        return Gap(GapReason.SILENT, silence, over=True) if driver.speaks_when_empty else RoundEnd(reads=0)

    def _lost(self, reason: GapReason = GapReason.LINK_LOST, since: float = 0.0) -> Gap:
        driver = self._driver
        driver.disconnect()
        self._down = reason
        self._down_ns = driver.monotonic_ns() - int(since * 1e9)
        self._delay = FIRST_DELAY_S
        self._try_ns = driver.monotonic_ns() + int(self._delay * 1e9)
        return Gap(reason, since)

    def _recover(self, timeout: float) -> Event | None:
        """Wait for the next attempt and make it; a Gap for each, None when it is not yet due."""
        driver = self._driver
        left = (self._try_ns - driver.monotonic_ns()) / 1e9
        if left > 0:
            driver.pause(min(left, timeout))
        if driver.closed or driver.monotonic_ns() < self._try_ns:
            return None
        reason = self._down or GapReason.LINK_LOST
        try:
            driver.connect()
            if not driver.closed:
                self._begin()
        except RegionRefusedError:
            raise
        except HardwareError:
            driver.disconnect()
            self._delay = min(2 * self._delay, LONGEST_DELAY_S)
            self._try_ns = driver.monotonic_ns() + int(self._delay * 1e9)
            return Gap(reason, self._gone())
        if driver.closed:
            driver.close()
            return None
        driver.counters.reconnects += 1
        self._down = None
        return Gap(reason, self._gone(), over=True)

    def _gone(self) -> float:
        return (self._driver.monotonic_ns() - self._down_ns) / 1e9
