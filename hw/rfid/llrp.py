"""Gantry readers that speak LLRP 1.0.1 over TCP (Impinj, Zebra, ThingMagic and others); Gen2 only.

LLRP has no word for a region: a reader tells the frequencies it uses, and they decide. Specs that another client left
on the reader are deleted before ours runs, also those that would write to tags.
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
    UnsupportedError,
    one_line,
)
from hw.rfid.driver import COMPONENT, Driver, DriverOptions
from hw.rfid.llrp_codec import (
    ADD_RESPONSE,
    ANTENNA_EVENT,
    CAPABILITIES_RESPONSE,
    CLOSE_EVENT,
    CONFIG_RESPONSE,
    DELETE_ACCESS_RESPONSE,
    DELETE_RESPONSE,
    ENABLE_RESPONSE,
    ERROR,
    EVENT,
    KEEPALIVE,
    ROSPEC_EVENT,
    SET_CONFIG_RESPONSE,
    START_RESPONSE,
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
        self._tables = Tables({})
        self._antennas = 1

    def identify(self) -> Caps:
        """What the reader tells of itself; its maker and model are numbers."""
        reply = self._command(self._lib.GET_READER_CAPABILITIES_Message(RequestedData=0), CAPABILITIES_RESPONSE)
        general = self._part(reply, self._lib.GeneralDeviceCapabilities_Parameter)
        self._tables = self._told_tables(reply)
        self._antennas = general.MaxNumberOfAntennaSupported
        levels = self._tables.levels.values()
        return Caps(
            model=f"LLRP {general.DeviceManufacturerName}.{general.ModelName}",
            firmware=one_line(general.ReaderFirmwareVersion)[:64], protocols=(AirProtocol.GEN2,),
            antennas=self._antennas, power_range_dbm=(min(levels), max(levels)),
            regions=(Region.CHINA_920 if self._tables.frequencies else Region.OTHER,), tid_in_inventory=False,
            can_authenticate=False, integrity=Integrity.LINK_CRC,
        )  # fmt: skip

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
        """Add, enable and start our spec."""
        if config.protocol is not AirProtocol.GEN2 or config.tid or config.user or config.target:
            raise UnsupportedError(COMPONENT, "Gen2, EPC only, target A")
        if max(config.antennas) > self._antennas:
            raise UnsupportedError(COMPONENT, f"antennas 1-{self._antennas}")
        lib, self._begun_ns = self._lib, self.monotonic_ns()
        self._command(lib.ADD_ROSPEC_Message(Parameters=[self._spec(config)]), ADD_RESPONSE)
        self._command(lib.ENABLE_ROSPEC_Message(ROSpecID=ROSPEC), ENABLE_RESPONSE)
        self._command(lib.START_ROSPEC_Message(ROSpecID=ROSPEC), START_RESPONSE)

    def _spec(self, config: InventoryConfig) -> Any:
        """Without an end, reporting every tag at once: EPC, PC, antenna, channel, RSSI and the reader's time."""
        lib = self._lib
        boundary = [
            lib.ROSpecStartTrigger_Parameter(ROSpecStartTriggerType=0),
            lib.ROSpecStopTrigger_Parameter(ROSpecStopTriggerType=0),
        ]
        singulation = lib.C1G2SingulationControl_Parameter(Session=config.session, TagPopulation=32)
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
                AntennaIDs=list(config.antennas), Parameters=[lib.AISpecStopTrigger_Parameter(), inventory]
            ),
            lib.ROReportSpec_Parameter(ROReportTrigger=1, N=1, Parameters=[content]),
        ]
        return lib.ROSpec_Parameter(ROSpecID=ROSPEC, Parameters=parts)

    def _stop_request(self) -> tuple[bytes, Callable[[Packet], bool]]:
        """Stop ours, and delete whatever there is: then nothing transmits any more."""
        stop = self._packed(self._lib.STOP_ROSPEC_Message(ROSpecID=ROSPEC))
        delete = self._packed(self._lib.DELETE_ROSPEC_Message(ROSpecID=0))
        return stop + delete, _answers(delete, DELETE_RESPONSE)

    def event(self, packet: Packet, mono_ns: int) -> Event | None:
        """As every driver does; RegionRefusedError when a read tells a frequency outside the band."""
        if isinstance(packet, Sighting) and packet.freq_khz and not BAND_KHZ[0] <= packet.freq_khz <= BAND_KHZ[1]:
            self.stop()
            raise RegionRefusedError(COMPONENT, "reader transmits outside 920-925 MHz")
        if isinstance(packet, Fault) and packet.code == ROSPEC_EVENT and mono_ns <= self._begun_ns:
            return None  # the end of a scan before this one
        return super().event(packet, mono_ns)

    def _fault_event(self, fault: Fault) -> Event | None:
        """LinkLostError when the reader ended the scan or the connection by itself: all is to be set anew."""
        if fault.code in (ROSPEC_EVENT, CLOSE_EVENT):
            if self.scanning:
                raise LinkLostError(COMPONENT, "reader ended the scan")
            return RoundEnd()
        if fault.code == ANTENNA_EVENT and fault.antenna is not None:
            self.counters.antenna_faults[fault.antenna] = fault.code
            return Gap(GapReason.ANTENNA_MISSING, 0.0, fault.code)
        return Gap(GapReason.READER_FAULT, 0.0, fault.code)

    def _read(self, selector: Selector, bank: Bank, word: int, count: int, password: bytes) -> MemoryRead:
        raise UnsupportedError(COMPONENT, "reading memory")

    # Asking

    def _command(self, message: Any, kind: int) -> Any:
        """The reader's answer. Sent once: TCP loses nothing. RejectedError, ReaderTimeoutError, LinkLostError."""
        self.idle()
        frame = self._packed(message)
        packet = self.session.ask(frame, _answers(frame, kind), self._answer_timeout)
        reply = self._messages.parsed(packet.data) if isinstance(packet, Answer) else None
        status = None if reply is None else reply.getFirstParameterByClass(self._lib.LLRPStatus_Parameter)
        if reply is None or status is None or status.StatusCode != 0 or reply.TypeCode == ERROR:
            raise RejectedError(COMPONENT, "command refused", status.StatusCode if status else ERROR)
        return reply

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


def _answers(frame: bytes, kind: int) -> Callable[[Packet], bool]:
    """Whether a packet answers this message: by its type, or an error, with the same id."""
    return lambda packet: (
        isinstance(packet, Answer) and packet.command in (kind, ERROR) and packet.data[6:10] == frame[6:10]
    )
