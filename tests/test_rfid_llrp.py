"""Gantry readers in the network: the driver on an emulated reader that has an encoder of its own."""

from __future__ import annotations

import inspect
import json
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.errors import (
    DeviceNotFoundError,
    LinkLostError,
    ReaderTimeoutError,
    RegionRefusedError,
    RejectedError,
    UnsupportedError,
)
from hw.interfaces import TagReader
from hw.rfid.emulator import llrp_messages as m
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.llrp import CHINA, FOREIGN, Llrp
from hw.rfid.emulator.port import PortEmulator, running
from hw.rfid.emulator.scene import Passage, ReaderSetup, Scene, Tag
from hw.rfid.emulator.tcp_port import TcpPort
from hw.rfid.framing import Refusal, Splitter
from hw.rfid.llrp import PORT, LlrpDriver, llrp_line
from hw.rfid.llrp_codec import CAP, EVENT, LlrpCodec
from hw.rfid.packets import Answer, End, Packet, Refused, Report, Sighting
from hw.rfid.packets import Fault as ToldFault
from hw.rfid.tcp import address_of
from hw.rfid.types import (
    AirProtocol,
    Bank,
    Event,
    Gap,
    GapReason,
    Health,
    Integrity,
    InventoryConfig,
    RadioConfig,
    Region,
    RoundEnd,
    Selector,
    TagRead,
)
from scripts.cli.main import main
from tests.reader_lines import Clock, EmulatedLine
from tests.test_rfid_contract import is_read, until

pytest.importorskip("pyllrp.pyllrp", reason="the optional extra llrp is not installed")

EPCS = [b"\xa0" * 12, b"\x04" * 12, b"\x5a" * 16]
TAGS = tuple(Tag(epc=epc, tid=b"\xe2\x80\x11\x60" + bytes(8)) for epc in EPCS)
ADD, START, SET_CONFIG, GET_CONFIG, ACKNOWLEDGE = 20, 22, 3, 2, 72


def scene_of(tags=TAGS, faults=(), **setup) -> Scene:
    passages = tuple(Passage(tag=tag, rssi_dbm=-50.0) for tag in tags)
    return Scene(passages=passages, faults=tuple(faults), reader=ReaderSetup(**setup))


class GreetedLine(EmulatedLine):
    """A connection under a clock that jumps; the reader greets whoever comes."""

    greeting = m.greeting(0)

    def connect(self, received, lost):
        super().connect(received, lost)
        received(self.greeting)
        return self


class World:
    """A driver, its emulated reader, and their clock."""

    def __init__(self, scene: Scene | None = None, **options) -> None:
        self.clock = Clock()
        self.line = GreetedLine(EmulatedReader("llrp", scene or scene_of(), paced=False), self.clock)
        engine = self.line.reader.engine
        assert isinstance(engine, Llrp)
        self.engine = engine
        self.driver = LlrpDriver(
            self.line.connect, monotonic_ns=self.clock.monotonic_ns, clock=self.clock.now, wait=self.clock.wait,
            **options,
        )  # fmt: skip

    def events(self, seconds: float, config: InventoryConfig | None = None) -> list[Event]:
        """What a scan of so many seconds tells, with what came until it stopped."""
        end = self.clock.ns + int(seconds * 1e9)
        with self.driver.inventory(config) as scan:
            polled = [scan.poll(0.1) for _ in iter(lambda: self.clock.ns < end, False)]
        return [event for event in polled if event is not None] + list(scan)


def reads_of(events: list[Event]) -> list[TagRead]:
    return [event for event in events if isinstance(event, TagRead)]


def gaps_of(events: list[Event]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


# Band and power


def test_band_and_power_are_set_and_read_back_before_anything_is_transmitted():
    world = World()
    caps = world.driver.open()
    assert (caps.antennas, caps.power_range_dbm, caps.integrity) == (4, (10.0, 33.0), Integrity.LINK_CRC)
    assert caps.regions == (Region.CHINA_920,)
    heard = list(world.engine.heard)
    assert heard.index(SET_CONFIG) < heard.index(GET_CONFIG)
    assert not {ADD, START} & set(heard)
    assert (world.driver.get_region(), world.driver.get_power()) == (Region.CHINA_920, 20.0)


@pytest.mark.parametrize(
    "tables", [{1: FOREIGN}, {2: (*CHINA, 925_250)}, {2: (919_875, *CHINA)}, {2: (840_625, 844_375)}, {2: ()}]
)
def test_a_reader_that_lists_no_frequencies_of_the_band_is_never_set_nor_started(tables):
    world = World()
    world.engine.tables = tables
    with pytest.raises(RegionRefusedError, match="920-925 MHz"):
        world.driver.open()
    with pytest.raises(LinkLostError):
        world.driver.inventory().start()
    assert not {ADD, START, SET_CONFIG} & set(world.engine.heard)


def test_a_reader_that_does_not_hop_is_held_to_one_channel_in_the_band():
    world = World()
    world.engine.hopping = False
    world.driver.open()
    assert world.driver.get_region() is Region.CHINA_920
    (khz,) = {read.freq_khz for read in reads_of(world.events(0.5))}
    assert 920_000 <= khz <= 925_000


def test_a_reader_that_does_not_confirm_its_hop_table_never_transmits(monkeypatch):
    world = World()
    monkeypatch.setattr(world.engine, "_configure", lambda body: None)  # says yes and does nothing
    with pytest.raises(RegionRefusedError, match="confirm 920-925"):
        world.driver.open()
    assert not {ADD, START} & set(world.engine.heard)


def test_a_reader_that_changes_its_tables_is_in_the_band_no_more():
    world = World()
    world.driver.open()
    world.engine.tables = {2: FOREIGN}
    assert world.driver.get_region() is Region.OTHER


def test_a_reader_that_does_not_confirm_the_power_never_transmits(monkeypatch):
    world = World()
    world.driver.open()
    monkeypatch.setattr(world.engine, "_configure", lambda body: None)
    with pytest.raises(RegionRefusedError, match="confirm the power"):
        world.driver.set_power(30.0)


def test_the_power_is_the_highest_level_of_the_readers_table_that_is_not_above_the_configured():
    world = World(radio=RadioConfig(power_dbm=20.4))
    world.driver.open()
    assert world.driver.get_power() == 20.0
    with pytest.raises(RegionRefusedError):
        world.driver.set_power(9.9)
    with pytest.raises(RegionRefusedError):
        world.driver.set_power(33.5)


@pytest.mark.parametrize("region", [Region.US, Region.EUROPE, Region.CHINA_840])
def test_another_region_is_refused_without_asking_the_reader(region):
    world = World()
    world.driver.open()
    written = world.line.written
    with pytest.raises(RegionRefusedError):
        world.driver.set_region(region)
    assert world.line.written == written


def test_a_reader_heard_outside_the_band_is_stopped_whatever_it_confirmed():
    world = World()
    world.engine.hopping, world.engine.tables = False, {1: FOREIGN, 2: CHINA}
    world.driver.open()
    world.engine._radio = dict.fromkeys(world.engine._radio, (1, 1, 1))
    with pytest.raises(RegionRefusedError, match="outside 920-925"):
        world.events(1.0)
    assert not world.engine.scanning


def test_specs_that_another_client_left_are_deleted_before_ours_runs():
    world = World()
    world.driver.open()
    delete_access = 41
    assert world.engine.heard[delete_access] == 1
    world.driver.inventory().start()
    assert world.driver.connect().antennas == 4  # the spec before is still running there
    assert not world.engine.scanning
    assert reads_of(world.events(0.5))


def test_nothing_is_ever_sent_that_could_change_a_tag():
    world = World()
    world.driver.open()
    world.events(1.0)
    with pytest.raises(UnsupportedError):
        world.driver.read_memory(Selector(EPCS[0]), Bank.TID, 0, 4)
    assert set(world.engine.heard) == {1, 2, 3, 20, 21, 22, 23, 24, 41, ACKNOWLEDGE}  # 40 adds an access spec
    names = {name for name, _ in inspect.getmembers(LlrpDriver)}
    assert not {name for name in names if any(word in name for word in ("write", "lock", "kill", "destroy"))}


# Scanning


def test_every_tag_in_the_field_is_read_again_and_again():
    world = World()
    world.driver.open()
    reads = reads_of(world.events(2.0))
    assert {read.epc for read in reads} == set(EPCS)
    assert min(sum(read.epc == epc for read in reads) for epc in EPCS) >= 20
    assert {(read.protocol, read.antenna, read.rssi_dbm) for read in reads} == {(AirProtocol.GEN2, 1, -50.0)}
    assert {read.pc for read in reads} == {0x3000, 0x4000}
    assert world.engine.reads - len(reads) < len(EPCS)  # of the round in which it was stopped
    assert {read.freq_khz for read in reads} <= set(CHINA)


def test_every_antenna_tells_its_own_lane():
    passages = tuple(Passage(tag=tag, lane=lane, rssi_dbm=-50.0) for lane, tag in enumerate(TAGS, 1))
    world = World(Scene(passages=passages))
    world.driver.open()
    reads = reads_of(world.events(1.0, InventoryConfig(antennas=(1, 2, 3))))
    assert {(read.epc, read.antenna) for read in reads} == set(zip(EPCS, (1, 2, 3), strict=True))


def test_an_empty_road_is_no_fault_and_every_keepalive_is_acknowledged():
    world = World(scene_of(()))
    world.driver.open()
    events = world.events(7.0)
    assert len(events) >= 13
    assert all(isinstance(event, RoundEnd) for event in events)
    assert world.engine.heard[ACKNOWLEDGE] >= 13
    health = world.driver.health()
    assert (health.timeouts, health.refused, health.reconnects, health.restarts) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "config",
    [
        InventoryConfig(protocol=AirProtocol.GB29768), InventoryConfig(tid=6), InventoryConfig(user=4),
        InventoryConfig(target=1), InventoryConfig(antennas=(5,)),
    ],
)  # fmt: skip
def test_what_the_reader_cannot_do_is_unsupported(config):
    world = World()
    world.driver.open()
    with pytest.raises(UnsupportedError):
        world.driver.inventory(config).start()
    assert ADD not in world.engine.heard


def test_the_session_of_the_scan_is_the_configured_one():
    world = World()
    world.driver.open()
    reads = reads_of(world.events(3.5, InventoryConfig(session=2)))
    assert len(reads) == len(EPCS)  # in session 2 a tag that stays in the field answers once


def test_a_missing_antenna_is_told_and_counted():
    world = World(scene_of(missing_antennas=frozenset({2})))
    world.driver.open()
    events = world.events(1.0, InventoryConfig(antennas=(1, 2)))
    assert {gap.reason for gap in gaps_of(events)} == {GapReason.ANTENNA_MISSING}
    assert list(world.driver.health().antenna_faults) == [2]
    assert reads_of(events)


def test_a_reader_that_ends_the_scan_by_itself_is_not_taken_for_an_empty_road():
    world = World()
    world.driver.open()
    with world.driver.inventory() as scan:
        assert scan.poll(1.0)
        world.engine.end_scan()
        found = [scan.poll(0.1) for _ in range(20)]
    gaps = gaps_of([event for event in found if event])
    assert [gap.over for gap in gaps] == [False, True]
    assert gaps[-1].seconds < 0.5
    assert isinstance(found[-1], TagRead)


def test_a_silent_reader_is_started_anew():
    world = World(scene_of(faults=[Fault(kind=FaultKind.RESET, at_s=3.0, seconds=0.3)]))
    world.driver.open()
    events = world.events(9.0)
    assert [gap.reason for gap in gaps_of(events) if gap.over] == [GapReason.SILENT]
    assert reads_of(events)[-1].mono_ns > 9e9
    assert world.driver.get_region() is Region.CHINA_920


def test_the_end_of_a_scan_before_does_not_end_the_one_after_it():
    world = World()
    world.driver.open()
    with world.driver.inventory() as scan:
        world.driver.stop()  # as after a silence: the reader tells the end of what it ends
        world.driver.begin(InventoryConfig())
        world.driver.scanning = True
        found = [scan.poll(0.1) for _ in range(20)]
    assert gaps_of([event for event in found if event]) == []
    assert reads_of(found)


def test_a_lost_connection_is_told_and_the_scan_goes_on_when_it_is_back():
    world = World(scene_of(faults=[Fault(kind=FaultKind.UNPLUG, at_s=3.0, seconds=12.0)]))
    world.driver.open()
    events = world.events(24.0)
    gaps = [gap for gap in gaps_of(events) if gap.reason is GapReason.LINK_LOST]
    assert (gaps[0].seconds, gaps[0].over, gaps[-1].over) == (0.0, False, True)
    assert [round(gap.seconds, 1) for gap in gaps[1:-1]] == [0.2, 0.6, 1.4, 3.0, 6.2, 11.2]
    assert reads_of(events)[-1].mono_ns > 24e9
    assert world.driver.health().reconnects == 1


@pytest.mark.parametrize("hello", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", m.message(m.KEEPALIVE, bytes(4))])
def test_who_does_not_greet_as_a_reader_is_given_up(hello):
    world = World()
    world.line.greeting = hello
    with pytest.raises(ReaderTimeoutError):
        world.driver.open()
    assert world.line.written == b""


def test_a_reader_that_has_another_host_says_so():
    world = World()
    world.line.greeting = m.greeting(2)
    with pytest.raises(DeviceNotFoundError, match="another program"):
        world.driver.open()
    assert world.line.written == b""


def test_a_refused_command_tells_the_readers_code():
    world = World()
    world.driver.open()
    world.engine._spec = object()
    with pytest.raises(RejectedError) as caught:
        world.driver.begin(InventoryConfig())
    assert caught.value.code == m.FIELD_ERROR


# Bytes


def report(*epcs: bytes, antenna: int = 1, **changed: int) -> bytes:
    told = {"pc": None, "rssi": -50} | changed
    tags = []
    for epc in epcs:
        pc = len(epc) // 2 << 11 if told["pc"] is None else told["pc"]
        parts = [m.tv(1, "H", antenna), m.tv(6, "b", told["rssi"]), m.tv(7, "H", 3), m.tv(3, "Q", 1), m.tv(12, "H", pc)]
        tags.append(m.tag_report(epc, parts))
    return m.message(m.REPORT, bytes(4), b"".join(tags))


class Stream:
    """A splitter and a codec."""

    def __init__(self) -> None:
        self.health, self.codec = Health(), LlrpCodec()
        self.splitter = Splitter(LlrpCodec.layout, CAP, self.health)

    def __call__(self, data: bytes) -> list[Packet]:
        return [self.codec.decode(frame) for frame in self.splitter.feed(data, 0.0)]


def epcs_of(packets: list[Packet]) -> list[bytes]:
    parts = [part for packet in packets if isinstance(packet, Report) for part in packet.parts]
    return [part.epc for part in parts if isinstance(part, Sighting)]


STREAM = m.greeting(0) + report(*EPCS) + m.message(m.KEEPALIVE, bytes(4)) + report(EPCS[1]) + report(EPCS[2], antenna=4)


def test_a_stream_cut_anywhere_gives_the_same_reports():
    whole = Stream()(STREAM)
    assert epcs_of(whole) == [*EPCS, EPCS[1], EPCS[2]]
    for cut in range(len(STREAM)):
        stream = Stream()
        assert stream(STREAM[:cut]) + stream(STREAM[cut:]) == whole
    stream = Stream()
    assert [packet for at in range(len(STREAM)) for packet in stream(STREAM[at : at + 1])] == whole


def test_every_tag_of_a_report_is_a_read_of_its_own():
    world = World(scene_of(()))
    world.driver.open()
    with world.driver.inventory() as scan:
        assert world.line._received
        world.line._received(report(*EPCS))
        found = [scan.poll(0.0) for _ in range(2 * len(EPCS))]
    assert [read.epc for read in reads_of(found)] == EPCS


def test_what_a_report_leaves_out_is_as_in_the_report_before():
    world = World(Scene(passages=(Passage(tag=TAGS[0], lane=3, rssi_dbm=-61.0),)))
    world.engine.terse = True
    world.driver.open()
    reads = reads_of(world.events(0.5, InventoryConfig(antennas=(3,))))
    assert len(reads) > 20
    assert {(read.antenna, read.rssi_dbm) for read in reads} == {(3, -61.0)}


def test_a_report_that_never_told_its_antenna_is_refused():
    (packet,) = Stream()(m.message(m.REPORT, bytes(4), m.tag_report(EPCS[0], [])))
    assert packet == Report((Refused(Refusal.SHAPE),))


@pytest.mark.parametrize("pc", [0x2800, 0x3800, 0x0000])
def test_a_tag_whose_length_is_not_that_of_its_control_word_is_refused_alone(pc):
    (packet,) = Stream()(report(EPCS[0], pc=pc))
    assert packet == Report((Refused(Refusal.PC_LENGTH),))
    assert epcs_of([packet]) == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 40, b"\xff" * 7, b"HTTP/1.1 200 OK\r\n\r\n",
        struct.pack(">HII", 0x043D, CAP + 1, 0), struct.pack(">HII", 0x043D, 0xFFFFFFFF, 0),
        struct.pack(">HII", 0x043D, 9, 0), struct.pack(">HII", 0x0450, 20, 0), struct.pack(">HII", 0x083D, 20, 0),
    ],
)  # fmt: skip
def test_garbage_and_lengths_beyond_belief_cost_nothing_of_what_follows(garbage):
    stream = Stream()
    assert epcs_of(stream(garbage + report(EPCS[0]))) == [EPCS[0]]
    assert stream.health.junk_bytes + stream.health.bad_length == len(garbage)
    assert stream.splitter.pending == 0


def test_parameters_nested_without_end_are_refused():
    nested = b""
    for _ in range(15_000):
        nested = struct.pack(">HH", 144, len(nested) + 4) + nested
    assert Stream()(m.message(m.EVENT, bytes(4), nested)) == [Refused(Refusal.SHAPE)]


def test_no_text_of_a_reader_is_believed_to_be_text():
    exception = m.tlv(252, struct.pack(">H", 3) + b"\xff\xfe\x1b")
    assert Stream()(m.event(1.0, exception)) == [Refused(Refusal.SHAPE)]
    assert Stream()(m.event(1.0, m.tlv(252, struct.pack(">H", 2) + b"no"))) == [ToldFault(EVENT, 252)]


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 2_000), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_damaged_messages_are_refused_or_understood_and_never_an_error(at, value, cut):
    capabilities = m.message(11, bytes(4), m.status() + m.general(4) + m.regulatory({1: 20.0}, {2: CHINA}, True))
    for message in (report(*EPCS), m.event(1.0, m.tlv(255, b"\x00\x00\x01")), capabilities):
        damaged = bytearray(message)
        damaged[10 + at % (len(message) - 10)] = value
        body = bytes(damaged[10 : len(message) - cut % (len(message) - 10)])
        codec, whole = LlrpCodec(), m.message(damaged[1], bytes(4), body)
        assert isinstance(codec.decode(whole), Report | Refused | ToldFault | End | Answer)
        codec.parsed(whole)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", ("192.0.2.7", PORT)), ("gantry.example:6000", ("gantry.example", 6000)),
        ("[2001:db8::1]", ("2001:db8::1", PORT)), ("[::1]:5085", ("::1", 5085)),
    ],
)  # fmt: skip
def test_an_address_is_a_host_with_or_without_a_port(text, address):
    assert address_of(text, PORT) == address


@pytest.mark.parametrize("text", ["", ":5084", "host:", "host:99999", "a:b:c", "/dev/ttyUSB0", "2001:db8::1"])
def test_what_is_no_address_is_refused_without_being_told(text):
    with pytest.raises(ValueError, match="HOST"):
        address_of(text, PORT)
    with pytest.raises(DeviceNotFoundError) as caught:
        LlrpDriver(llrp_line(Path(text or "/"), 0)).open()
    assert "ttyUSB0" not in str(caught.value)


def test_without_the_library_it_is_told_and_nothing_else_is_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyllrp.pyllrp", None)
    with pytest.raises(DeviceNotFoundError, match="pyllrp is not installed"):
        LlrpDriver(llrp_line(Path("192.0.2.7"), 0))


# Over TCP


@contextmanager
def gantry(*faults: Fault) -> Iterator[PortEmulator]:
    port = TcpPort("127.0.0.1", 0, m.greeting)
    with running(EmulatedReader("llrp", scene_of(faults=faults), paced=False), time.monotonic, port=port) as emulator:
        yield emulator


def driver_of(emulator: PortEmulator) -> LlrpDriver:
    return LlrpDriver(llrp_line(Path(emulator.port.path), 0))


@pytest.fixture
def emulator() -> Iterator[PortEmulator]:
    with gantry() as found:
        yield found


@pytest.fixture
def reader(emulator) -> Iterator[LlrpDriver]:
    with driver_of(emulator) as driver:
        yield driver


def test_a_single_look_finds_the_tags_and_a_second_one_finds_them_again(reader):
    asked: TagReader = reader
    for _ in range(2):
        assert {read.epc for read in asked.read_once(3.0)} == set(EPCS)
    assert asked.health().timeouts == 0


def test_a_scan_ends_within_300_ms_and_the_reader_listens_again(reader):
    with reader.inventory() as scan:
        with pytest.raises(UnsupportedError):
            reader.get_power()
        until(scan, is_read)
        began = time.monotonic()
    assert time.monotonic() - began <= 0.3
    assert all(isinstance(event, TagRead | RoundEnd) for event in scan)
    assert reader.get_region() is Region.CHINA_920


def test_a_second_program_does_not_get_the_reader(emulator, reader):
    with pytest.raises(DeviceNotFoundError):
        driver_of(emulator).open()
    assert reader.get_region() is Region.CHINA_920


def test_closing_twice_is_harmless_and_a_closed_reader_can_be_opened_again(emulator):
    threads = threading.active_count()
    driver = driver_of(emulator)
    driver.open()
    driver.inventory().start()
    assert threading.active_count() == threads + 1
    driver.close()
    driver.close()
    assert threading.active_count() == threads
    with pytest.raises(LinkLostError):
        driver.get_power()
    assert driver.open().antennas == 4
    assert driver.read_once(3.0)
    driver.close()


def test_closing_from_another_thread_ends_a_scan(reader):
    with reader.inventory() as scan:
        until(scan, is_read)
        closer = threading.Timer(0.05, reader.close)
        closer.start()
        for _ in scan:
            if reader.closed:
                break
        closer.join()
    assert list(scan) == []


def test_a_reader_that_went_away_is_found_again():
    with gantry(Fault(kind=FaultKind.UNPLUG, at_s=0.3, seconds=0.3)) as emulator, driver_of(emulator) as driver:
        with driver.inventory() as scan:
            assert until(scan, lambda event: isinstance(event, Gap))[-1] == Gap(GapReason.LINK_LOST, 0.0)
            until(scan, lambda event: isinstance(event, Gap) and event.over)
            until(scan, is_read)
        assert driver.health().reconnects == 1


def test_a_reader_that_is_not_there_is_told_without_its_address():
    with gantry() as emulator:
        path = emulator.port.path
    with pytest.raises(DeviceNotFoundError) as caught:
        LlrpDriver(llrp_line(Path(path), 0)).open()
    assert "127.0.0.1" not in str(caught.value)


def test_a_technician_asks_and_scans_it_by_its_address(emulator, capsys, tmp_path):
    options = ["--protocol", "llrp", "--port", emulator.port.path, "--json"]
    assert main(["reader", "identify", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["region"], told["power_dbm"]) == ("china_920_925", 20.0)
    assert main(["reader", "record", *options, "--seconds", "0.2", str(tmp_path / "traffic")]) == 0
    assert json.loads(capsys.readouterr().out)["reads"] > 0
    assert main(["reader", "replay", str(tmp_path / "traffic")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["epc"] for line in lines if line.get("kind") == "tag"} <= {epc.hex() for epc in EPCS}
    assert {"tag", "answer", "request", "end"} <= {line.get("kind") for line in lines}
    assert not [line for line in lines if "refused" in line]


@pytest.mark.parametrize("options", [["--link", "x"], ["--baud", "115200"], ["--listen", "nowhere:99999"]])
def test_an_emulated_gantry_has_an_address_and_no_serial_port(tmp_path, capsys, options):
    scene = tmp_path / "scene.toml"
    scene.write_text("")
    assert main(["reader", "emulate", "--protocol", "llrp", "--scene", str(scene), *options]) == 2
