"""What the drivers of all serial readers have in common: opening, band and power, single reads, memory.

Nothing is transmitted before the reader itself has told that it is set to 920-925 MHz and to the configured power.
A driver knows no command that writes, locks or destroys a tag.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypedDict

from hw.errors import (
    HardwareError,
    LinkLostError,
    ReaderTimeoutError,
    RegionRefusedError,
    TagError,
    TagProblem,
    UnsupportedError,
    one_line,
)
from hw.rfid.inventory import Inventory
from hw.rfid.packets import Codec, End, Fault, Packet, Sighting
from hw.rfid.session import Session, Wait
from hw.rfid.transport import Connect
from hw.rfid.types import (
    AuthResult,
    Bank,
    Caps,
    Event,
    Gap,
    GapReason,
    Health,
    InventoryConfig,
    MemoryRead,
    RadioConfig,
    Region,
    Selector,
    TagRead,
    Unsupported,
)

ANSWER_TIMEOUT_S = 0.5
READ_TIMEOUT_S = 1.0  # of a command that waits for a tag
STOP_TRIES = 3
STOP_LONGEST_S = 0.6  # of one try under full stream
READ_TRIES = 3
SETTLE_S = 0.2  # without a new tag, a single read is done
COMPONENT = "tag reader"
_GONE = {GapReason.LINK_LOST: LinkLostError, GapReason.SILENT: ReaderTimeoutError}


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


class DriverOptions(TypedDict, total=False):
    """What every driver takes; see `Driver`."""

    reader_id: str
    clock: Callable[[], datetime]
    monotonic_ns: Callable[[], int]
    wait: Wait
    answer_timeout: float


class Driver(ABC):
    """A reader on a serial line. One thread uses it; `health` and `close` may come from any."""

    # What a reader on an empty road does: without a sign of life, silence alone is no fault.
    speaks_when_empty = True
    rounds = False  # whether every round must be asked for
    watchdog_s = 2.0  # without a frame while scanning: stop, identify, begin again
    session_type: type[Session] = Session
    wake = b""  # sent before the first command: the byte that a sleeping module eats

    def __init__(
        self,
        connect: Connect,
        codec: Codec,
        radio: RadioConfig | None = None,
        *,
        reader_id: str = "reader",
        clock: Callable[[], datetime] = utc_now,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wait: Wait = threading.Condition.wait,
        answer_timeout: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """`radio` None is 920-925 MHz at 20 dBm."""
        self.radio = radio or RadioConfig()
        self.codec = codec
        self.monotonic_ns = monotonic_ns
        self._connect = connect
        self._clock = clock
        self._wait = wait
        self._answer_timeout = answer_timeout
        self._reader_id = reader_id
        self._health = Health()
        self._seq = 0
        self._session: Session | None = None
        self.scanning = False
        self._ending = threading.Condition()
        self.closed = False

    # Opening

    def open(self) -> Caps:
        """Open the line, ask who is there, set band and power and read them back; harmless twice.

        DeviceNotFoundError, LinkLostError, ReaderTimeoutError, RejectedError, RegionRefusedError; the line is then
        closed again.
        """
        self.closed = False
        return self.connect()

    def connect(self) -> Caps:
        """Open the line (again), as `open` does; not after `close`."""
        self.disconnect()
        self._session = self.session_type(
            self._connect, self.codec, self._health, monotonic_ns=self.monotonic_ns, wait=self._wait
        )
        try:
            return self.prepare()
        except HardwareError:
            self.disconnect()
            raise

    def prepare(self) -> Caps:
        """End what runs, make sure of the reader and of its radio: after opening, and again after every silence."""
        if self.wake:
            self.session.send(self.wake)
        if not self.stop():
            raise ReaderTimeoutError(COMPONENT, "talks on and answers nothing: another protocol or speed?")
        caps = self._identified()
        self._set_radio(caps)
        return caps

    def close(self) -> None:
        """Stop what runs and let go of the line; harmless twice."""
        with self._ending:
            self.closed = True
            self._ending.notify_all()
        try:
            if self.scanning and self._session:
                self.stop()
        except HardwareError:
            pass  # the line is let go of all the same
        finally:
            self.disconnect()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond `close`."""
        with self._ending:
            if not self.closed:
                self._wait(self._ending, seconds)

    def disconnect(self) -> None:
        """Let go of the line only."""
        session, self._session = self._session, None
        self.scanning = False
        if session:
            session.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def session(self) -> Session:
        """The open line; LinkLostError."""
        if self._session is None:
            raise LinkLostError(COMPONENT, "not open")
        return self._session

    def _identified(self) -> Caps:
        """The first answer; a module that wakes up or still talks may miss a command or two."""
        for _ in range(STOP_TRIES - 1):
            try:
                return self.identify()
            except ReaderTimeoutError:
                self.stop()
        return self.identify()

    def _set_radio(self, caps: Caps) -> None:
        low, high = caps.power_range_dbm
        if not low <= self.radio.power_dbm <= high:
            raise RegionRefusedError(COMPONENT, f"configured power is not what the reader can ({low:g}-{high:g} dBm)")
        self.set_region(Region.CHINA_920)
        self.set_power(self.radio.power_dbm)

    # Band and power

    def set_region(self, region: Region) -> None:
        """Set the band and read it back; RegionRefusedError for any but China's and when the reader tells another."""
        if region is not Region.CHINA_920:
            raise RegionRefusedError(COMPONENT, "only 920-925 MHz may be used")
        self._set_region()
        if self.get_region() is not region:
            raise RegionRefusedError(COMPONENT, "reader does not confirm 920-925 MHz")

    def set_power(self, dbm: float) -> None:
        """Set the power of all antennas and read it back; RegionRefusedError."""
        replace(self.radio, power_dbm=dbm)  # holds it against the limit
        self._set_power(dbm)
        if self.get_power() != dbm:
            raise RegionRefusedError(COMPONENT, "reader does not confirm the power")

    @abstractmethod
    def identify(self) -> Caps:
        """Who is there and what it can; ReaderTimeoutError, RejectedError, LinkLostError."""

    @abstractmethod
    def get_region(self) -> Region:
        """The band the reader is set to."""

    @abstractmethod
    def get_power(self) -> float:
        """The power in dBm, the highest of all antennas."""

    @abstractmethod
    def _set_region(self) -> None: ...

    @abstractmethod
    def _set_power(self, dbm: float) -> None: ...

    # Looking for tags

    def inventory(self, config: InventoryConfig | None = None) -> Inventory:
        """A context manager that scans while it is entered; iterate it for TagRead, RoundEnd and Gap."""
        return Inventory(self, config or InventoryConfig())

    def read_once(self, timeout: float, config: InventoryConfig | None = None) -> list[TagRead]:
        """The tags in the field, each with its strongest read; empty when there is none.

        Ends when no new tag came for 0.2 s, or after `timeout` seconds. Where a read is protected by a checksum only,
        a tag counts after two equal reads. ReaderTimeoutError when the reader itself was silent; LinkLostError.
        """
        found: dict[object, tuple[int, TagRead]] = {}
        end = self.monotonic_ns() + int(timeout * 1e9)
        settled = end
        with closing(self.inventory(config)) as inventory:
            inventory.start()
            while (left := min(end, settled) - self.monotonic_ns()) > 0:
                event = inventory.poll(left / 1e9)
                if isinstance(event, Gap) and not event.over and event.reason in _GONE:
                    raise _GONE[event.reason](COMPONENT, "gone while reading")
                if isinstance(event, TagRead) and _kept(found, event):
                    certain = all(count >= read.integrity.reads_needed for count, read in found.values())
                    settled = self.monotonic_ns() + int(SETTLE_S * 1e9) if certain else end
        return [read for count, read in found.values() if count >= read.integrity.reads_needed]

    def inventory_cap(self, config: InventoryConfig) -> int:
        """The longest length field of a notice, in the protocol's own count."""
        return self.codec.inventory_cap

    @abstractmethod
    def begin(self, config: InventoryConfig) -> None:
        """Send what starts a scan; UnsupportedError when the reader cannot do what is configured."""

    def again(self, config: InventoryConfig) -> None:  # noqa: B027 - most readers go on by themselves
        """Ask for the next round, where `rounds` says that every one must be asked for."""

    def stop(self) -> bool:
        """End a scan: ask, drain until the answer or 0.3 s of silence, up to three times; whether it ended.

        What the reader tells meanwhile can still be taken.
        """
        request, wants = self._stop_request()
        ended = any(self.session.drain(request, wants, STOP_LONGEST_S) for _ in range(STOP_TRIES))
        self.scanning = not ended
        self.session.splitter.cap = self.codec.cap
        return ended

    @abstractmethod
    def _stop_request(self) -> tuple[bytes, Callable[[Packet], bool]]:
        """What is sent to stop (empty: nothing, the round ends by itself), and the packet that confirms it."""

    def event(self, packet: Packet, mono_ns: int) -> Event | None:
        """What a packet that came while scanning means."""
        if isinstance(packet, Sighting):
            return self.tag_read(packet, mono_ns)
        if isinstance(packet, End):
            return packet.end
        return self._fault_event(packet) if isinstance(packet, Fault) else None

    @abstractmethod
    def _fault_event(self, fault: Fault) -> Event | None:
        """What a fault that came while scanning means."""

    def tag_read(self, sighting: Sighting, mono_ns: int) -> TagRead:
        """The sighting with our time and number."""
        self._seq += 1
        return TagRead(
            sighting.protocol, sighting.epc, sighting.pc, sighting.tid, sighting.user, sighting.antenna,
            sighting.rssi_dbm, sighting.rssi_raw, sighting.freq_khz, mono_ns, self._clock(), self._reader_id,
            self._seq, sighting.integrity,
        )  # fmt: skip

    # One tag's memory

    def read_memory(
        self, selector: Selector, bank: Bank, word: int, count: int, access_password: bytes = bytes(4)
    ) -> MemoryRead:
        """`count` words (1-64) of a bank from `word` on, in two commands above 32.

        TagError, ReaderTimeoutError, RejectedError, UnsupportedError, LinkLostError. An answer of another tag than the
        selected one is thrown away and the reading repeated.
        """
        if not (1 <= count <= 64 and 0 <= word <= 0xFFFF - count and len(access_password) == 4):
            raise ValueError("1-64 words, and a password of 4 bytes")
        data = b""
        for start in range(word, word + count, 32):
            words = min(32, word + count - start)
            data += self._repeated(selector, bank, start, words, access_password)
        return MemoryRead(data, selector.epc)

    def _repeated(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> bytes:
        problem = TagProblem.NOT_FOUND
        for _ in range(READ_TRIES):
            try:
                read = self._read(selector, bank, word, count, password)
            except TagError as exc:
                if exc.tag_problem is not TagProblem.NOT_FOUND:
                    raise
                continue
            if read.epc_echo == selector.epc and len(read.data) == 2 * count:
                return read.data
            problem = TagProblem.OTHER if read.epc_echo == selector.epc else problem
        raise TagError(COMPONENT, problem)

    @abstractmethod
    def _read(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> MemoryRead:
        """One reading of up to 32 words by whatever tag answered; TagError."""

    def authenticate(self, selector: Selector, method: str, challenge: bytes) -> AuthResult | Unsupported:
        """Have the tag prove itself by `method` with the reader's keys; Unsupported says nothing about the tag."""
        return Unsupported(f"{self.codec.name} has no command for it")

    # Asking

    def ask(self, frame: bytes, wants: Callable[[Packet], bool], timeout: float | None = None) -> Packet:
        """Send a command that may be sent twice, and wait for its answer; ReaderTimeoutError, LinkLostError."""
        self.idle()
        try:
            return self.session.ask(frame, wants, timeout or self._answer_timeout)
        except ReaderTimeoutError:
            return self.session.ask(frame, wants, timeout or self._answer_timeout)

    def idle(self) -> None:
        """UnsupportedError while a scan runs: only stopping is answered then."""
        if self.scanning:
            raise UnsupportedError(COMPONENT, "a scan is running")

    # How it goes

    def health(self) -> Health:
        """A copy of the counters."""
        session = self._session
        age = session.last_frame_age if session else None
        return replace(self._health, last_frame_age=age, antenna_faults=dict(self._health.antenna_faults))

    @property
    def counters(self) -> Health:
        """The counters themselves, for the parts of the driver."""
        return self._health


def whole_dbm(dbm: float) -> int:
    """The power for a protocol that knows whole dBm only; UnsupportedError."""
    if dbm != int(dbm):
        raise UnsupportedError(COMPONENT, "power in whole dBm only")
    return int(dbm)


def text_of(data: bytes) -> str:
    """What a reader calls itself: bounded, printable."""
    return one_line(data.decode("ascii", "replace"))[:64].strip()


def _kept(found: dict[object, tuple[int, TagRead]], read: TagRead) -> bool:
    """Count a read; whether its tag is new or just became certain."""
    count, best = found.get(read.key, (0, read))
    found[read.key] = count + 1, max(best, read, key=lambda r: (r.rssi_dbm or -999.0, r.rssi_raw))
    return count + 1 <= read.integrity.reads_needed
