"""Gantry readers in the network: the driver on an emulated reader that has an encoder of its own."""

from __future__ import annotations

import inspect
import json
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
)
from hw.rfid.emulator import llrp_messages as m
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.llrp import CHINA, FOREIGN, Llrp
from hw.rfid.emulator.llrp_access import parsed
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
    MAX_ANTENNA,
    AirProtocol,
    Bank,
    Event,
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
from tests.reader_lines import Clock, EmulatedLine, gaps_of, reads_of, scanned

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
        return scanned(self.driver, self.clock, seconds, config)


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
    world.engine._access = parsed(OTHER_HOSTS_SPEC)
    assert world.driver.connect().antennas == 4
    assert world.engine._access is None
    world.driver.inventory().start()
    assert world.driver.connect().antennas == 4  # the spec before is still running there
    assert not world.engine.scanning
    assert reads_of(world.events(0.5))


def test_nothing_is_ever_sent_that_could_change_a_tag():
    world = World()
    world.driver.open()
    world.events(1.0, InventoryConfig(tid=6, user=51))
    for bank in Bank:
        with suppress(TagError):
            world.driver.read_memory(Selector(EPCS[0]), bank, 0, 4)
    assert set(world.engine.heard) == {1, 2, 3, 20, 21, 22, 23, 24, ADD_ACCESS, 41, 42, ACKNOWLEDGE}
    tag_spec, read = 338, 341  # a write is 342, a kill 343, a lock 344
    assert operations(world.line.written) == {tag_spec, read}
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
        InventoryConfig(protocol=AirProtocol.GB29768), InventoryConfig(user=255, tid=6), InventoryConfig(target=1),
        InventoryConfig(antennas=(5,)),
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


def test_an_antenna_that_is_there_again_ends_its_gap():
    lost = [Fault(kind=FaultKind.ANTENNA_MISSING, at_s=2.0, for_s=1.0, antenna=2)]
    world = World(scene_of(faults=lost))
    world.driver.open()
    gone, back = gaps_of(world.events(5.0, InventoryConfig(antennas=(1, 2))))
    assert (gone.reason, gone.over) == (back.reason, not back.over) == (GapReason.ANTENNA_MISSING, False)
    assert 0.8 <= back.seconds <= 1.2


def test_a_gap_of_two_antennas_is_over_when_both_are_there_again():
    lost = [
        Fault(kind=FaultKind.ANTENNA_MISSING, at_s=2.0, for_s=1.0, antenna=1),
        Fault(kind=FaultKind.ANTENNA_MISSING, at_s=2.0, for_s=2.0, antenna=2),
    ]
    world = World(scene_of(faults=lost))
    world.driver.open()
    gaps = gaps_of(world.events(6.0, InventoryConfig(antennas=(1, 2))))
    assert [gap.over for gap in gaps] == [False, False, True]
    assert gaps[-1].seconds > 1.8


def test_an_antenna_that_comes_back_between_two_scans_is_told_in_the_second():
    world = World(scene_of(missing_antennas=frozenset({1})))
    world.driver.open()
    assert [gap.over for gap in gaps_of(world.events(0.5))] == [False]
    assert world.line._received
    world.line._received(m.event(9.0, m.tlv(255, b"\x01\x00\x01")))
    world.line._received(report(EPCS[0]))  # what else is heard between scans is forgotten
    with world.driver.inventory() as scan:
        found = [scan.poll(0.0) for _ in range(3)]
    (back,) = gaps_of([event for event in found if event])
    assert back.over
    assert not reads_of([event for event in found if event])


def test_a_port_without_an_antenna_that_nobody_scans_is_no_fault():
    world = World()
    world.driver.open()
    with world.driver.inventory() as scan:
        assert world.line._received
        world.line._received(m.event(1.0, m.tlv(255, b"\x00\x00\x04")))
        world.line._received(m.event(1.0, m.tlv(255, b"\x01\x00\x03")))
        found = [scan.poll(0.0) for _ in range(2)]
    assert found == [RoundEnd(), RoundEnd()]


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


# Memory

USER = bytes(range(102))  # of a tag with a certificate (TC1): two reads
SIGNATURE = bytes(range(64))  # of a tag with its fields in the EPC (TC0): exactly one
LOCKED = Tag(epc=b"\x11" * 12, tid=b"\xe2" * 12, user=USER, locked=frozenset({"user"}), access_password=7)
HOLDERS = (
    Tag(epc=EPCS[0], tid=b"\xe2\x80" + bytes(10), user=USER),
    Tag(epc=EPCS[1], tid=b"\xe2\x81" + bytes(10), user=SIGNATURE),
    Tag(epc=EPCS[2], tid=b"\xe2\x82" + bytes(10)), LOCKED,
)  # fmt: skip
ADD_ACCESS = 40


ALL_TAGS = m.tlv(338, m.tlv(339, bytes.fromhex("600020") + bytes(4)))
OTHER_HOSTS_SPEC = (
    struct.pack(">IHBBI", 9, 0, 1, 0, 0) + m.tlv(208, bytes(3))
    + m.tlv(209, ALL_TAGS + m.tlv(341, struct.pack(">HIBHH", 1, 0, 0xC0, 0, 1))) + m.tlv(239, b"\x00")
)  # fmt: skip


def operations(written: bytes) -> set[int]:
    """The kinds of parameters in the commands of all access specs that were sent."""
    found: set[int] = set()
    while written:
        length = int.from_bytes(written[2:6])
        if written[1] == ADD_ACCESS:
            spec = m.part(m.parts(written[10:length]), 207)
            found |= {kind for kind, _ in m.parts(m.part(m.parts(spec[12:]), 209))}
        written = written[length:]
    return found


def test_tid_and_user_memory_come_along_with_every_read_where_that_is_wanted():
    world = World(scene_of(HOLDERS))
    assert world.driver.open().tid_in_inventory
    reads = reads_of(world.events(2.0, InventoryConfig(tid=6, user=51)))
    assert min(sum(read.epc == tag.epc for read in reads) for tag in HOLDERS) >= 5
    assert {(read.epc, read.tid) for read in reads} == {(tag.epc, tag.tid) for tag in HOLDERS}
    users = {read.epc: read.user for read in reads}
    assert users == {EPCS[0]: USER, EPCS[1]: SIGNATURE, EPCS[2]: None, LOCKED.epc: None}
    assert world.engine._access is None


def test_a_memory_is_read_of_the_tag_that_is_meant_and_of_no_longer_one_that_begins_alike():
    alike = Tag(epc=EPCS[0] + b"\x01\x02", tid=b"\xe2" + b"\x99" * 11)
    world = World(scene_of((alike, *HOLDERS)))
    world.driver.open()
    for tag in HOLDERS[:3]:
        assert world.driver.read_memory(Selector(tag.epc), Bank.TID, 0, 6) == (tag.tid, tag.epc)
    assert world.driver.read_memory(Selector(EPCS[0]), Bank.EPC, 2, 6).data == EPCS[0]
    assert world.driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, 51).data == USER


def test_after_a_read_nothing_transmits_and_no_spec_is_left_behind():
    world = World(scene_of(HOLDERS))
    world.driver.open()
    for epc in (EPCS[0], b"\x77" * 12):
        with suppress(TagError):
            world.driver.read_memory(Selector(epc), Bank.TID, 0, 4)
        assert not world.engine.scanning
        assert (world.engine._spec, world.engine._access) == (None, None)
    assert world.driver.health().timeouts == 0


def test_a_reader_heard_outside_the_band_reads_no_memory_and_transmits_no_longer():
    world = World(scene_of(HOLDERS))
    world.engine.hopping, world.engine.tables = False, {1: FOREIGN, 2: CHINA}
    world.driver.open()
    world.engine._radio = dict.fromkeys(world.engine._radio, (1, 1, 1))
    for epc in (EPCS[0], b"\x77" * 12):  # whichever tag it is that tells
        with pytest.raises(RegionRefusedError, match="outside 920-925"):
            world.driver.read_memory(Selector(epc), Bank.TID, 0, 4)
        assert not world.engine.scanning


def test_a_reader_ends_a_read_by_itself_when_its_host_is_gone(monkeypatch):
    world = World(scene_of(()))
    world.driver.open()
    monkeypatch.setattr(world.driver, "stop", lambda: True)  # the cable is cut here
    with pytest.raises(HardwareError):
        world.driver.read_memory(Selector(EPCS[0]), Bank.TID, 0, 4)
    assert not world.engine.scanning


@pytest.mark.parametrize(
    ("tag", "password", "problem"),
    [
        (LOCKED, bytes(4), TagProblem.OTHER), (LOCKED, b"\0\0\0\x08", TagProblem.NOT_FOUND),
        (HOLDERS[2], bytes(4), TagProblem.OTHER),
    ],
)  # fmt: skip
def test_a_tag_that_does_not_give_its_memory_is_told_as_such(tag, password, problem):
    world = World(scene_of(HOLDERS))
    world.driver.open()
    with pytest.raises(TagError) as caught:
        world.driver.read_memory(Selector(tag.epc), Bank.USER, 0, 4, password)
    assert caught.value.tag_problem is problem
    assert world.driver.read_memory(Selector(LOCKED.epc), Bank.USER, 0, 4, b"\0\0\0\x07").data == USER[:8]


def test_a_reader_that_takes_no_access_spec_still_tells_the_tags():
    world = World()
    world.engine.access_reads = 0
    assert not world.driver.open().tid_in_inventory
    with pytest.raises(UnsupportedError):
        world.driver.read_memory(Selector(EPCS[0]), Bank.TID, 0, 4)
    with pytest.raises(UnsupportedError):
        world.driver.inventory(InventoryConfig(tid=6)).start()
    assert {read.epc for read in reads_of(world.events(0.5))} == set(EPCS)


def test_a_reader_that_refuses_to_read_is_told_as_such_and_listens_again():
    world = World()
    world.driver.open()
    world.engine._access = parsed(OTHER_HOSTS_SPEC)  # one is all it takes
    with pytest.raises(RejectedError):
        world.driver.read_memory(Selector(EPCS[0]), Bank.TID, 0, 4)
    assert reads_of(world.events(0.5))


def read_result(number: int, words: bytes, result: int = 0) -> bytes:
    return m.tlv(349, struct.pack(">BHH", result, number, len(words) // 2) + words)


def sighting_with(*results: bytes) -> Packet:
    told = [m.tv(1, "H", 1), m.tv(12, "H", 0x3000), *results]
    (packet,) = Stream()(m.message(m.REPORT, bytes(4), m.tag_report(EPCS[0], told)))
    assert isinstance(packet, Report)
    return packet.parts[0]


def test_words_of_a_read_before_are_not_taken_for_those_of_this_one():
    world = World(scene_of(HOLDERS))
    world.driver.open()
    late = read_result(0xFFF << 4 | 2, b"\xee" * 64)
    told = [m.tv(1, "H", 1), m.tv(12, "H", 0x3000), late]
    send = world.engine.send
    stale = m.message(m.REPORT, bytes(4), m.tag_report(EPCS[0], told))
    world.engine.send = lambda frame, after_s=0.0: (send(stale), send(frame, after_s))  # before everything else it says
    assert world.driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, 32).data == USER[:64]


@pytest.mark.parametrize("lost", [2, 3, 9])
def test_a_memory_of_which_a_part_was_lost_on_the_way_is_not_told(lost):
    tid, first = read_result(1, b"\xe2" * 12), read_result(2, USER[:64])
    whole = sighting_with(tid, first, read_result(3, USER[64:]))
    assert (whole.tid, whole.user, whole.result) == (b"\xe2" * 12, USER, 0)
    torn = sighting_with(tid, first, read_result(3, b"", lost))
    assert (torn.tid, torn.user, torn.result) == (b"\xe2" * 12, None, lost)


@pytest.mark.parametrize("end", [1, 4])
def test_a_memory_that_ends_early_is_told_up_to_its_end(end):
    read = sighting_with(read_result(1, b"", end), read_result(2, SIGNATURE), read_result(3, b"", end))
    assert (read.tid, read.user) == (None, SIGNATURE)


@pytest.mark.parametrize("results", [[read_result(2, bytes(66))], [read_result(n, b"\0\0") for n in range(1, 11)]])
def test_more_memory_than_can_have_been_asked_for_is_not_believed(results):
    assert sighting_with(*results) == Refused(Refusal.SHAPE)


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


@pytest.mark.parametrize("antenna", [0, MAX_ANTENNA + 1, 0xFFFF])
def test_an_antenna_that_no_reader_has_is_refused(antenna):
    assert epcs_of(Stream()(report(EPCS[0], antenna=MAX_ANTENNA))) == [EPCS[0]]
    assert Stream()(report(EPCS[0], antenna=antenna)) == [Report((Refused(Refusal.SHAPE),))]
    told = m.tlv(246, m.tlv(128, bytes(8)) + m.tlv(255, b"\x00" + antenna.to_bytes(2)))
    assert Stream()(m.message(m.EVENT, bytes(4), told)) == [Refused(Refusal.SHAPE)]


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
