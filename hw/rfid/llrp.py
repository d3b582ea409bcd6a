"""Gantry readers that speak LLRP 1.0.1 over TCP (Impinj, Zebra, ThingMagic and others); Gen2 only.

LLRP has no word for a region: a reader tells the frequencies it uses, and they decide. Specs that another client left
on the reader are deleted before ours runs, also those that would write to tags; ours only read.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from hw.errors import (
    DeviceNotFoundError,
    HardwareError,
    LinkLostError,
    ReaderTimeoutError,
    RegionRefusedError,
    RejectedError,
    TagError,
    TagProblem,
    UnsupportedError,
    one_line,
)
from hw.rfid.driver import COMPONENT, READ_TIMEOUT_S, Driver, DriverOptions
from hw.rfid.llrp_access import ACCESS_SPEC, PROBLEMS, MemoryPart, access_spec, along_with
from hw.rfid.llrp_codec import (
    ADD_ACCESS_RESPONSE,
    ADD_RESPONSE,
    ANTENNA_EVENT,
    CAPABILITIES_RESPONSE,
    CLOSE_EVENT,
    CONFIG_RESPONSE,
    DELETE_ACCESS_RESPONSE,
    DELETE_RESPONSE,
    DONE,
    ENABLE_ACCESS_RESPONSE,
    ENABLE_RESPONSE,
    ERROR,
    EVENT,
    KEEPALIVE,
    NO_RESPONSE,
    ROSPEC_EVENT,
    SET_CONFIG_RESPONSE,
    START_RESPONSE,
    TID_PART,
    USER_PART,
    LlrpCodec,
    library,
)
from hw.rfid.packets import Answer, Codec, End, Fault, Packet, Report, Sighting
from hw.rfid.session import Session, Wait
from hw.rfid.tcp import tcp_line
from hw.rfid.transport import Connect, Tap
from hw.rfid.types import (
    BAND_KHZ,
    AirProtocol,
    Bank,
    Caps,
    Event,
    Gap,
    GapReason,
    Health,
    Integrity,
    InventoryConfig,
    MemoryRead,
    RadioConfig,
    Region,
    RoundEnd,
    Selector,
)

PORT = 5084
ANSWER_TIMEOUT_S = 2.0  # a reader that is reset to its defaults takes its time
KEEPALIVE_MS = 500
ROSPEC = 1
LOOK_MS = 500  # for which one tag's memory is tried to be read: the reader ends that by itself
ALL_ANTENNAS = (0,)
OPERATIONS_ALONG = 4  # in one spec, at least: the TID, and 96 words of user memory
_ACKNOWLEDGE = bytes.fromhex("0448 0000000a")  # KEEPALIVE_ACK; the id follows
_TAKEN = {1, 2}  # states of a connection attempt: there is another client
_COMMUNICATION = (2, 4, 8)  # notifications: ROSpec, reader exception, antenna


class Tables(NamedTuple):
    """What a reader may transmit: levels (index: dBm), and the way to stay in the band, None when there is none."""

    levels: dict[int, float]
    hopping: bool = True
    hop_table: int = 1  # counts where it hops
    channel: int = 1  # counts where it does not
    frequencies: tuple[int, ...] | None = None  # kHz


class LlrpSession(Session):
    """A connection that the reader has greeted; its keepalives are acknowledged at once, from the line's thread."""

    def __init__(
        self,
        connect: Connect,
        codec: Codec,
        health: Health,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wait: Wait = threading.Condition.wait,
    ) -> None:
        """DeviceNotFoundError when the reader has another client, ReaderTimeoutError when it does not greet."""
        self._greeting: int | None = None
        super().__init__(connect, codec, health, monotonic_ns=monotonic_ns, wait=wait)
        try:
            with self._changed:
                if not self._wait(lambda: self._greeting is not None, ANSWER_TIMEOUT_S):
                    raise ReaderTimeoutError(COMPONENT, "no greeting in time")
            if self._greeting != 0:
                why = "in use by another program" if self._greeting in _TAKEN else "connection refused"
                raise DeviceNotFoundError(COMPONENT, why)
        except HardwareError:
            self.close()
            raise

    def forget(self) -> None:
        """As every session does, but for what was told of antennas: a reader tells that once."""
        with self._changed:
            kept = [heard for heard in self._notices if _of_antenna(heard[0])]
            self._notices.clear()
            self._notices.extend(kept)

    def _route(self, packet: Packet, now: int) -> None:
        if isinstance(packet, Report):
            for part in packet.parts:
                super()._route(part, now)
        elif isinstance(packet, Answer) and packet.command == EVENT:
            if self._greeting is None:
                self._greeting = int.from_bytes(packet.data, "big")
        else:
            if isinstance(packet, End) and packet.command == KEEPALIVE:
                self._acknowledge()
            super()._route(packet, now)

    def _acknowledge(self) -> None:
        if not hasattr(self, "_link"):
            return  # it comes from the line's thread before the line is ours; the next one is acknowledged
        try:
            self._link.write(_ACKNOWLEDGE + bytes(4))
        except LinkLostError as exc:
            self._on_lost(exc)


class LlrpDriver(Driver):
    """A reader in the network."""

    session_type = LlrpSession

    def __init__(self, connect: Connect, radio: RadioConfig | None = None, **options: Unpack[DriverOptions]) -> None:
        """DeviceNotFoundError without the library."""
        options.setdefault("answer_timeout", ANSWER_TIMEOUT_S)
        self._messages = LlrpCodec()
        super().__init__(connect, self._messages, radio, **options)
        self._begun_ns = 0
        self._lib = library()
        self._ids = itertools.count(1)
        self._series = itertools.cycle(range(1, 0x1000))
        self._tables = Tables({})
        self._antennas = 1
        self._operations = 0  # that one access spec may have
        self._field: tuple[int, ...] = ALL_ANTENNAS  # of the last scan
        self._gone_ns: dict[int, int] = {}  # antennas that are missing, and since when

    def identify(self) -> Caps:
        """What the reader tells of itself; its maker and model are numbers."""
        reply = self._command(self._lib.GET_READER_CAPABILITIES_Message(RequestedData=0), CAPABILITIES_RESPONSE)
        general = self._part(reply, self._lib.GeneralDeviceCapabilities_Parameter)
        self._tables = self._told_tables(reply)
        self._antennas = general.MaxNumberOfAntennaSupported
        self._operations = self._told_operations(reply)
        levels = self._tables.levels.values()
        return Caps(
            model=f"LLRP {general.DeviceManufacturerName}.{general.ModelName}",
            firmware=one_line(general.ReaderFirmwareVersion)[:64], protocols=(AirProtocol.GEN2,),
            antennas=self._antennas, power_range_dbm=(min(levels), max(levels)),
            regions=(Region.CHINA_920 if self._tables.frequencies else Region.OTHER,),
            tid_in_inventory=self._operations >= OPERATIONS_ALONG, can_authenticate=False, integrity=Integrity.LINK_CRC,
        )  # fmt: skip

    def disconnect(self) -> None:
        """As every driver does; a reader that is reached again tells of its antennas anew."""
        super().disconnect()
        self._gone_ns.clear()

    # Band and power

    def get_region(self) -> Region:
        """China's band when all antennas keep to frequencies in it, as the reader tells now."""
        reply = self._command(self._lib.GET_READER_CAPABILITIES_Message(RequestedData=3), CAPABILITIES_RESPONSE)
        tables = self._told_tables(reply)
        if tables.frequencies is None or tables != self._tables:
            return Region.OTHER
        kept = all(
            told.HopTableID == tables.hop_table if tables.hopping else told.ChannelIndex == tables.channel
            for told in self._transmitters()
        )
        return Region.CHINA_920 if kept else Region.OTHER

    def get_power(self) -> float:
        """The power in dBm, the highest of all antennas; RegionRefusedError for a level the reader never named."""
        levels = self._tables.levels
        indices = [told.TransmitPower for told in self._transmitters()]
        if not all(index in levels for index in indices):
            raise RegionRefusedError(COMPONENT, "reader tells a power that is not in its table")
        return max(levels[index] for index in indices)

    def set_power(self, dbm: float) -> None:
        """Set the highest level not above `dbm` for all antennas and read it back; RegionRefusedError."""
        RadioConfig(power_dbm=dbm)  # holds it against the limit
        self._set_power(dbm)
        if self.get_power() != self._tables.levels[self._level(dbm)]:
            raise RegionRefusedError(COMPONENT, "reader does not confirm the power")

    def _level(self, dbm: float) -> int:
        fitting = {index: level for index, level in self._tables.levels.items() if level <= dbm}
        if not fitting:
            raise RegionRefusedError(COMPONENT, "no power level as low as configured")
        return max(fitting, key=lambda index: fitting[index])

    def _set_region(self) -> None:
        """Back to defaults first: filters and specs of another client would hide tags, or write to them."""
        lib, tables = self._lib, self._tables
        if tables.frequencies is None:
            raise RegionRefusedError(COMPONENT, "reader lists no set of frequencies within 920-925 MHz")
        self._command(lib.DELETE_ACCESSSPEC_Message(AccessSpecID=0), DELETE_ACCESS_RESPONSE)
        states = [lib.EventNotificationState_Parameter(EventType=n, NotificationState=True) for n in _COMMUNICATION]
        parts = [
            lib.ReaderEventNotificationSpec_Parameter(Parameters=states),
            self._antenna_configuration(min(tables.levels, key=lambda index: tables.levels[index])),
            lib.KeepaliveSpec_Parameter(KeepaliveTriggerType=1, PeriodicTriggerValue=KEEPALIVE_MS),
            lib.EventsAndReports_Parameter(HoldEventsAndReportsUponReconnect=False),
        ]
        message = lib.SET_READER_CONFIG_Message(ResetToFactoryDefault=True, Parameters=parts)
        self._command(message, SET_CONFIG_RESPONSE)
        self._messages.channels = tables.frequencies

    def _set_power(self, dbm: float) -> None:
        parts = [self._antenna_configuration(self._level(dbm))]
        self._command(self._lib.SET_READER_CONFIG_Message(Parameters=parts), SET_CONFIG_RESPONSE)

    def _antenna_configuration(self, level: int) -> Any:
        """The same for all antennas (number 0)."""
        transmitter = self._lib.RFTransmitter_Parameter(
            HopTableID=self._tables.hop_table, ChannelIndex=self._tables.channel, TransmitPower=level
        )
        return self._lib.AntennaConfiguration_Parameter(AntennaID=0, Parameters=[transmitter])

    def _transmitters(self) -> list[Any]:
        """What every antenna is set to, at least one; RejectedError when the reader does not tell."""
        lib = self._lib
        reply = self._command(lib.GET_READER_CONFIG_Message(AntennaID=0, RequestedData=3), CONFIG_RESPONSE)
        antennas = list(reply.getAllParametersByClass(lib.AntennaConfiguration_Parameter))
        found = [part for antenna in antennas for part in antenna.getAllParametersByClass(lib.RFTransmitter_Parameter)]
        if not found or len(found) != len(antennas):
            raise RejectedError(COMPONENT, "reader does not tell its transmitters", CONFIG_RESPONSE)
        return found

    def _told_operations(self, reply: Any) -> int:
        """How many reads one access spec may hold; 0 when the reader takes no such spec, or tells no number."""
        told = reply.getFirstParameterByClass(self._lib.LLRPCapabilities_Parameter)
        return told.MaxNumOpSpecsPerAccessSpec if told is not None and told.MaxNumAccessSpecs else 0

    def _told_tables(self, reply: Any) -> Tables:
        lib, (low, high) = self._lib, self.radio.band_khz
        band = self._part(reply, lib.UHFBandCapabilities_Parameter)
        entries = band.getAllParametersByClass(lib.TransmitPowerLevelTableEntry_Parameter)
        levels = {entry.Index: entry.TransmitPowerValue / 100 for entry in entries}
        frequencies = self._part(band, lib.FrequencyInformation_Parameter)
        if not levels:
            raise RejectedError(COMPONENT, "reader lists no power", CAPABILITIES_RESPONSE)
        if frequencies.Hopping:
            for table in frequencies.getAllParametersByClass(lib.FrequencyHopTable_Parameter):
                if table.HopTableID and table.Frequency and all(low <= khz <= high for khz in table.Frequency):
                    return Tables(levels, hop_table=table.HopTableID, frequencies=tuple(table.Frequency))
            return Tables(levels)
        for table in frequencies.getAllParametersByClass(lib.FixedFrequencyTable_Parameter):
            for number, khz in enumerate(table.Frequency, 1):
                if low <= khz <= high:
                    return Tables(levels, hopping=False, channel=number, frequencies=tuple(table.Frequency))
        return Tables(levels)

    # Looking for tags

    def begin(self, config: InventoryConfig) -> None:
        """Add, enable and start our spec, and the one that reads memory along where that is configured."""
        if config.protocol is not AirProtocol.GEN2 or config.target:
            raise UnsupportedError(COMPONENT, "Gen2, target A")
        if max(config.antennas) > self._antennas:
            raise UnsupportedError(COMPONENT, f"antennas 1-{self._antennas}")
        parts = along_with(config)
        if len(parts) > self._operations:
            raise UnsupportedError(COMPONENT, f"reads of memory along with a tag: {self._operations}")
        self._begun_ns, self._field = self.monotonic_ns(), config.antennas
        if parts:
            self._add_reads(parts)
        self._add_inventory(config.session)
        self._command(self._lib.START_ROSPEC_Message(ROSpecID=ROSPEC), START_RESPONSE)

    def _add_inventory(self, session: int, for_ms: int = 0) -> None:
        spec = self._spec(session, for_ms)
        self._command(self._lib.ADD_ROSPEC_Message(Parameters=[spec]), ADD_RESPONSE)
        self._command(self._lib.ENABLE_ROSPEC_Message(ROSpecID=ROSPEC), ENABLE_RESPONSE)

    def _add_reads(self, parts: list[MemoryPart], epc: bytes = b"") -> None:
        self._messages.series = next(self._series)
        spec = access_spec(self._lib, ROSPEC, self._messages.series, parts, epc)
        self._command(self._lib.ADD_ACCESSSPEC_Message(Parameters=[spec]), ADD_ACCESS_RESPONSE)
        self._command(self._lib.ENABLE_ACCESSSPEC_Message(AccessSpecID=ACCESS_SPEC), ENABLE_ACCESS_RESPONSE)

    def _spec(self, session: int, for_ms: int) -> Any:
        """Reporting every tag at once: EPC, PC, antenna, channel, RSSI and the reader's time. 0 ms: without an end."""
        lib = self._lib
        boundary = [
            lib.ROSpecStartTrigger_Parameter(ROSpecStartTriggerType=0),
            lib.ROSpecStopTrigger_Parameter(ROSpecStopTriggerType=1 if for_ms else 0, DurationTriggerValue=for_ms),
        ]
        singulation = lib.C1G2SingulationControl_Parameter(Session=session, TagPopulation=32)
        command = lib.C1G2InventoryCommand_Parameter(Parameters=[singulation])
        antenna = lib.AntennaConfiguration_Parameter(AntennaID=0, Parameters=[command])
        inventory = lib.InventoryParameterSpec_Parameter(InventoryParameterSpecID=1, ProtocolID=1, Parameters=[antenna])
        content = lib.TagReportContentSelector_Parameter(
            EnableAntennaID=True, EnableChannelIndex=True, EnablePeakRSSI=True, EnableFirstSeenTimestamp=True,
            Parameters=[lib.C1G2EPCMemorySelector_Parameter(EnablePCBits=True)],
        )  # fmt: skip
        parts = [
            lib.ROBoundarySpec_Parameter(Parameters=boundary),
            lib.AISpec_Parameter(
                AntennaIDs=list(self._field), Parameters=[lib.AISpecStopTrigger_Parameter(), inventory]
            ),
            lib.ROReportSpec_Parameter(ROReportTrigger=1, N=1, Parameters=[content]),
        ]
        return lib.ROSpec_Parameter(ROSpecID=ROSPEC, Parameters=parts)

    def _stop_request(self) -> tuple[bytes, Callable[[Packet], bool]]:
        """Stop ours, and delete whatever there is: then nothing transmits any more."""
        lib = self._lib
        stop = self._packed(lib.STOP_ROSPEC_Message(ROSpecID=ROSPEC))
        forget = self._packed(lib.DELETE_ACCESSSPEC_Message(AccessSpecID=0))
        delete = self._packed(lib.DELETE_ROSPEC_Message(ROSpecID=0))
        return stop + forget + delete, _answers(delete, DELETE_RESPONSE)

    def event(self, packet: Packet, mono_ns: int) -> Event | None:
        """As every driver does; RegionRefusedError when a read tells a frequency outside the band."""
        if isinstance(packet, Sighting) and _outside(packet):
            self.stop()
            raise RegionRefusedError(COMPONENT, "reader transmits outside 920-925 MHz")
        if isinstance(packet, Fault) and packet.code == ROSPEC_EVENT and mono_ns <= self._begun_ns:
            return None  # the end of a scan before this one
        if _of_antenna(packet):
            return self._antenna_event(packet, mono_ns)
        return super().event(packet, mono_ns)

    def _antenna_event(self, packet: Packet, mono_ns: int) -> Event:
        """A gap begins with the first antenna of the scan that is missing and is over when none is any more."""
        if isinstance(packet, Fault) and packet.antenna is not None:
            self.counters.antenna_faults[packet.antenna] = packet.code
            self._gone_ns.setdefault(packet.antenna, mono_ns)
            missed = packet.antenna in self._field
            return Gap(GapReason.ANTENNA_MISSING, 0.0, packet.code) if missed else RoundEnd()
        antenna = packet.end.antenna if isinstance(packet, End) else None
        since = None if antenna is None else self._gone_ns.pop(antenna, None)
        if since is None or antenna not in self._field or self._gone_ns.keys() & set(self._field):
            return RoundEnd()
        return Gap(GapReason.ANTENNA_MISSING, (mono_ns - since) / 1e9, ANTENNA_EVENT, over=True)

    def _fault_event(self, fault: Fault) -> Event | None:
        """LinkLostError when the reader ended the scan or the connection by itself: all is to be set anew."""
        if fault.code in (ROSPEC_EVENT, CLOSE_EVENT):
            if self.scanning:
                raise LinkLostError(COMPONENT, "reader ended the scan")
            return RoundEnd()
        return Gap(GapReason.READER_FAULT, 0.0, fault.code)

    # One tag's memory

    def _read(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> MemoryRead:
        """A short inventory on the antennas of the last scan, with one read of the tags whose EPC begins so.

        RegionRefusedError when any tag is heard outside the band; nothing transmits then.
        """
        self.idle()
        if selector.protocol is not AirProtocol.GEN2 or not self._operations:
            raise UnsupportedError(COMPONENT, "reading memory: Gen2 only, and a reader that takes an access spec")
        part = TID_PART if bank is Bank.TID else USER_PART
        try:
            self._add_reads([MemoryPart(part, bank, word, count, password)], selector.epc)
            self._add_inventory(session=0, for_ms=LOOK_MS)
            found = self._looked(selector.epc)
        finally:
            ended = self.stop()
        if not ended:
            raise ReaderTimeoutError(COMPONENT, "reader does not end a read")
        if found is None:
            raise TagError(COMPONENT, TagProblem.NOT_FOUND)
        if found.result != DONE:
            raise TagError(COMPONENT, PROBLEMS.get(found.result or 0, TagProblem.OTHER))
        return MemoryRead((found.tid if bank is Bank.TID else found.user) or b"", found.epc)

    def _looked(self, epc: bytes) -> Sighting | None:
        """What this tag answered, once the spec was started; None when the spec ended before it answered."""
        start = self._packed(self._lib.START_ROSPEC_Message(ROSpecID=ROSPEC))
        started = _answers(start, START_RESPONSE)

        def wants(packet: Packet) -> bool:
            if isinstance(packet, Sighting):  # one that faded before its memory was read may answer in the next round
                return _outside(packet) or (packet.epc == epc and packet.result not in (None, NO_RESPONSE))
            return started(packet) or (isinstance(packet, Fault) and packet.code == ROSPEC_EVENT)

        def last(packet: Packet) -> bool:
            return not isinstance(packet, Answer) or self._status(packet)[1] != 0

        packet = self.session.collect(start, wants, last, READ_TIMEOUT_S)[-1]
        if isinstance(packet, Answer):
            raise RejectedError(COMPONENT, "command refused", self._status(packet)[1])
        if isinstance(packet, Sighting) and _outside(packet):
            raise RegionRefusedError(COMPONENT, "reader transmits outside 920-925 MHz")
        return packet if isinstance(packet, Sighting) else None

    # Asking

    def _command(self, message: Any, kind: int) -> Any:
        """The reader's answer. Sent once: TCP loses nothing. RejectedError, ReaderTimeoutError, LinkLostError."""
        self.idle()
        frame = self._packed(message)
        packet = self.session.ask(frame, _answers(frame, kind), self._answer_timeout)
        reply, code = self._status(packet)
        if code:
            raise RejectedError(COMPONENT, "command refused", code)
        return reply

    def _status(self, packet: Packet) -> tuple[Any, int]:
        """An answer and its status: 0 accepted, ERROR where it tells none."""
        reply = self._messages.parsed(packet.data) if isinstance(packet, Answer) else None
        status = None if reply is None else reply.getFirstParameterByClass(self._lib.LLRPStatus_Parameter)
        if reply is None or status is None:
            return None, ERROR
        return reply, status.StatusCode or (ERROR if reply.TypeCode == ERROR else 0)

    def _packed(self, message: Any) -> bytes:
        message.MessageID = next(self._ids)
        packed: bytes = self._lib.PackMessage(message).tobytes()
        return packed

    def _part(self, of: Any, kind: Any) -> Any:
        """The parameter of this kind; RejectedError when the reader left it out."""
        part = of.getFirstParameterByClass(kind)
        if part is None:
            raise RejectedError(COMPONENT, "answer is incomplete", CAPABILITIES_RESPONSE)
        return part


def llrp_line(address: Path, _baudrate: int, tap: Tap | None = None) -> Connect:
    """How to reach the reader at `address`, HOST or HOST:PORT; no speed is set there."""
    return tcp_line(address, PORT, tap)


def _outside(read: Sighting) -> bool:
    """Whether a read tells a frequency that is not in the band."""
    return read.freq_khz is not None and not BAND_KHZ[0] <= read.freq_khz <= BAND_KHZ[1]


def _of_antenna(packet: Packet) -> bool:
    """Whether a packet tells that an antenna is gone or there."""
    return isinstance(packet, Fault | End) and packet.code == ANTENNA_EVENT


def _answers(frame: bytes, kind: int) -> Callable[[Packet], bool]:
    """Whether a packet answers this message: by its type, or an error, with the same id."""
    return lambda packet: (
        isinstance(packet, Answer) and packet.command in (kind, ERROR) and packet.data[6:10] == frame[6:10]
    )
