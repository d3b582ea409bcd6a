"""The drivers on emulated readers under a clock that jumps: nothing here waits for real time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from hw.errors import (
    DeviceNotFoundError,
    LinkLostError,
    ReaderTimeoutError,
    RegionRefusedError,
    RejectedError,
    TagError,
    TagProblem,
    UnsupportedError,
)
from hw.rfid import a0, gx, m100
from hw.rfid.driver import Driver
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.scene import AirProtocol as EmulatedAir
from hw.rfid.emulator.scene import Authentication, Passage, Radio, ReaderSetup, Scene, Tag
from hw.rfid.packets import Sighting, tag_crc
from hw.rfid.session import KEEP, Session
from hw.rfid.types import (
    AirProtocol,
    AuthResult,
    Bank,
    Event,
    GapReason,
    Health,
    InventoryConfig,
    RadioConfig,
    Region,
    RoundEnd,
    Selector,
    TagRead,
    Unsupported,
)
from tests.reader_lines import Clock, EmulatedLine, ScriptedLine, gaps_of, reads_of, scanned
from tests.test_rfid_codec import m100_notice
from verifier.types import TagAuth

DRIVERS: dict[str, type[Driver]] = {"m100": m100.M100Driver, "a0": a0.A0Driver, "gx": gx.GxDriver}
PROTOCOLS = sorted(DRIVERS)
EPCS = [bytes((n,)) * 12 for n in (0xA0, 0xBB, 0x5A)]


def tag(epc: bytes, **options) -> Tag:
    return Tag(epc=epc, tid=b"\xe2\x80\x11\x60" + epc[:8], user=bytes(range(128)), **options)


class World:
    """A driver, its emulated reader, and their clock."""

    def __init__(self, protocol: str, *, tags=(), faults=(), setup: ReaderSetup | None = None, **options) -> None:
        passages = tuple(Passage(tag=t, rssi_dbm=-50.0) for t in tags)
        scene = Scene(passages=passages, faults=tuple(faults), reader=setup or ReaderSetup())
        self.clock = Clock()
        self.line = EmulatedLine(EmulatedReader(protocol, scene), self.clock)
        self.engine = self.line.reader.engine
        self.driver = DRIVERS[protocol](
            self.line.connect, monotonic_ns=self.clock.monotonic_ns, clock=self.clock.now, wait=self.clock.wait,
            **options,
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        return self.clock.ns / 1e9 - 1

    def events(self, seconds: float, config: InventoryConfig | None = None) -> list[Event]:
        return scanned(self.driver, self.clock, seconds, config)


protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


# Band and power


@protocols
def test_band_and_power_are_set_and_read_back_before_anything_is_transmitted(protocol):
    world = World(protocol)
    world.driver.open()
    heard = list(world.engine.heard)
    setting = {"m100": [0x07, 0x08, 0xB6, 0xB7], "a0": [0x78, 0x79, 0x76, 0x77], "gx": [0x03, 0x04, 0x01, 0x02]}
    assert [code for code in heard if code in setting[protocol]] == setting[protocol]
    assert not {0x22, 0x27, 0x89, 0x8A, 0x8B, 0x10, 0x50} & set(heard)
    assert (world.driver.get_region(), world.driver.get_power()) == (Region.CHINA_920, 20.0)


@pytest.mark.parametrize("band", [(902_000, 928_000), (919_999, 925_000), (920_000, 925_001), (840_000, 845_000)])
def test_a_configured_band_outside_920_to_925_mhz_is_refused(band):
    with pytest.raises(RegionRefusedError):
        RadioConfig(band_khz=band)


def test_more_power_than_the_band_allows_is_refused():
    with pytest.raises(RegionRefusedError):
        RadioConfig(power_dbm=33.5)


@protocols
@pytest.mark.parametrize("region", [Region.US, Region.EUROPE, Region.CHINA_840])
def test_another_region_is_refused_without_asking_the_reader(protocol, region):
    world = World(protocol)
    world.driver.open()
    written = world.line.written
    with pytest.raises(RegionRefusedError):
        world.driver.set_region(region)
    assert world.line.written == written


def lying(answers: dict[int, bytes]) -> Callable[[bytes], bytes]:
    """A module that says yes to everything, and has its own answers to some commands."""

    def answer(frame: bytes) -> bytes:
        command = frame[2] if len(frame) > 2 else 0
        return m100.build(command, answers.get(command, b"\x00"), kind=1) if frame[:1] == b"\xbb" else b""

    return answer


@pytest.mark.parametrize("answers", [{0x08: b"\x02", 0xB7: b"\x07\xd0"}, {0x08: b"\x01", 0xB7: b"\x0a\x28"}])
def test_a_reader_that_does_not_confirm_band_and_power_never_transmits(answers):
    line = ScriptedLine(lying(answers))
    driver = m100.M100Driver(line.connect)
    with pytest.raises(RegionRefusedError):
        driver.open()
    with pytest.raises(LinkLostError):
        driver.inventory().start()
    assert {frame[2] for frame in line.written if len(frame) > 2}.isdisjoint({0x22, 0x27, 0x39})


def test_a_lane_reader_whose_channels_leave_the_band_is_not_in_china():
    answers = {0x79: b"\x03\x2b\x36", 0x77: b"\x14"}
    line = ScriptedLine(lambda frame: a0.build(frame[3], answers.get(frame[3], b"\x10")))
    with pytest.raises(RegionRefusedError, match="920-925 MHz"):
        a0.A0Driver(line.connect, wait=Clock().wait).open()


def test_power_that_the_reader_cannot_is_refused():
    world = World("gx", radio=RadioConfig(power_dbm=3.0))
    with pytest.raises(RegionRefusedError):
        world.driver.open()


@protocols
def test_a_reader_that_was_reset_gets_its_band_again_before_it_scans_again(protocol):
    world = World(protocol, tags=[tag(EPCS[0])], faults=[Fault(kind=FaultKind.RESET, at_s=3.0, seconds=0.3)])
    world.driver.open()
    events = world.events(8.0)
    assert reads_of(events)[-1].mono_ns > 8e9
    assert world.driver.get_region() is Region.CHINA_920
    assert world.driver.health().restarts == 1
    setter = {"m100": b"\xbb\x00\x07", "a0": b"\xa0\x06\x01\x78", "gx": b"\x5a\x00\x01\x02\x03"}[protocol]
    assert world.line.written.count(setter) == 2
    gap = [g for g in gaps_of(events) if g.over]
    assert [g.reason for g in gap] == ([GapReason.SILENT] if protocol != "gx" else [])


def test_a_reader_heard_outside_the_band_is_stopped_whatever_it_confirmed():
    world = World("gx", tags=[tag(EPCS[0])])
    world.driver.open()
    world.line.reader = EmulatedReader(
        "gx", Scene(passages=(Passage(tag=tag(EPCS[0]), rssi_dbm=-50.0),), radio=Radio(frequency_khz=915_250))
    )
    world.engine = world.line.reader.engine
    with world.driver.inventory() as inventory:
        with pytest.raises(RegionRefusedError):
            inventory.poll(1.0)
        assert not world.engine.scanning
        assert list(inventory) == []


# Scanning


@protocols
def test_every_tag_in_the_field_is_read_again_and_again(protocol):
    world = World(protocol, tags=[tag(epc) for epc in EPCS])
    world.driver.open()
    reads = reads_of(world.events(2.0))
    assert {read.epc for read in reads} == set(EPCS)
    assert min(sum(read.epc == epc for read in reads) for epc in EPCS) >= 20
    assert [read.seq for read in reads] == list(range(1, len(reads) + 1))
    assert all(a.mono_ns <= b.mono_ns and a.wall <= b.wall for a, b in pairwise(reads))
    assert (gaps_of(world.events(0.5)), world.driver.health().timeouts) == ([], 0)


@protocols
def test_an_empty_road_is_no_fault(protocol):
    world = World(protocol)
    world.driver.open()
    events = world.events(7.0)
    assert events
    assert all(isinstance(event, RoundEnd) for event in events)
    health = world.driver.health()
    assert (health.timeouts, health.refused, health.bad_checksum, health.reconnects) == (0, 0, 0, 0)


@protocols
def test_what_comes_while_a_scan_is_stopped_still_counts(protocol):
    world = World(protocol, tags=[tag(epc) for epc in EPCS])
    world.driver.open()
    inventory = world.driver.inventory()
    inventory.start()
    first = inventory.poll(1.0)
    for _ in range(200):  # nobody takes what comes
        world.clock.ns += 1_000_000
        world.clock.turn()
    waiting = len(world.driver.session._notices)
    began = world.clock.ns
    inventory.close()
    assert world.clock.ns - began <= 0.3e9
    assert isinstance(first, TagRead | RoundEnd)
    assert len(list(inventory)) >= waiting - 2  # round ends that answer the stop


@protocols
def test_a_stop_whose_answer_is_lost_is_asked_again(protocol):
    world = World(protocol, tags=[tag(EPCS[0])], faults=[Fault(kind=FaultKind.LOST_ACK, at_s=2.0)])
    world.driver.open()
    world.events(2.5)
    assert not world.driver.scanning
    assert not world.engine.scanning
    assert world.driver.read_memory(Selector(EPCS[0]), Bank.TID, 0, 4).data[:4] == b"\xe2\x80\x11\x60"


@protocols
def test_only_stopping_is_possible_while_a_scan_runs(protocol):
    world = World(protocol, tags=[tag(EPCS[0])])
    world.driver.open()
    with world.driver.inventory():
        for refused in (world.driver.get_power, world.driver.get_region, world.driver.inventory().start):
            with pytest.raises(UnsupportedError):
                refused()


def test_weak_reads_are_left_out_and_do_not_hold_up_the_caller():
    world = World("m100", tags=[tag(EPCS[0])])
    world.driver.open()
    events = world.events(1.0, InventoryConfig(rssi_floor=-40.0))
    assert (reads_of(events), world.seconds < 3) == ([], True)


def test_lanes_are_told_by_antenna():
    passages = tuple(Passage(tag=tag(epc), lane=lane) for lane, epc in enumerate(EPCS, start=1))
    world = World("a0")
    scene = Scene(passages=passages, reader=ReaderSetup(missing_antennas=frozenset({4})))
    world.line.reader = EmulatedReader("a0", scene)
    world.driver.open()
    events = world.events(4.0, InventoryConfig(antennas=(1, 2, 3, 4)))
    assert {read.antenna for read in reads_of(events)} == {1, 2, 3}
    assert {gap.reason for gap in gaps_of(events)} == {GapReason.ANTENNA_MISSING}
    assert world.driver.health().antenna_faults == {4: 0x22}


def test_a_missing_antenna_is_a_gap_and_the_reader_goes_on_asking():
    fault = Fault(kind=FaultKind.ANTENNA_MISSING, at_s=2.0, for_s=1.0, antenna=1)
    world = World("a0", tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    events = world.events(4.0)
    assert {(gap.reason, gap.fault) for gap in gaps_of(events)} == {(GapReason.ANTENNA_MISSING, 0x22)}
    assert reads_of(events)[-1].mono_ns > 4.5e9


@pytest.mark.parametrize("antennas", [(1,), (1, 2, 3)])
def test_an_antenna_that_is_plugged_in_again_ends_its_gap_once(antennas):
    fault = Fault(kind=FaultKind.ANTENNA_MISSING, at_s=2.0, for_s=1.0, antenna=1)
    world = World("a0", tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    gaps = gaps_of(world.events(4.0, InventoryConfig(antennas=antennas)))
    assert [gap.over for gap in gaps[-2:]] == [False, True]
    assert (sum(gap.over for gap in gaps), 0.8 < gaps[-1].seconds < 1.2) == (1, True)


def test_no_free_channel_is_told_with_the_readers_code():
    world = World("m100", tags=[tag(EPCS[0])], faults=[Fault(kind=FaultKind.FHSS, at_s=1.0, for_s=0.5)])
    world.driver.open()
    events = world.events(3.0)
    assert {(gap.reason, gap.fault) for gap in gaps_of(events)} == {(GapReason.READER_FAULT, 0x20)}


def test_tags_of_the_national_air_interface_are_read_with_their_tid():
    world = World("gx", tags=[tag(EPCS[0], protocol=EmulatedAir.GB29768)])
    world.driver.open()
    read = reads_of(world.events(1.0, InventoryConfig(protocol=AirProtocol.GB29768, tid=4)))[0]
    assert (read.protocol, read.epc, read.tid) == (AirProtocol.GB29768, EPCS[0], b"\xe2\x80\x11\x60" + EPCS[0][:4])


@pytest.mark.parametrize(
    ("protocol", "config"),
    [
        ("m100", InventoryConfig(antennas=(1, 2))),
        ("m100", InventoryConfig(tid=4)),
        ("m100", InventoryConfig(protocol=AirProtocol.GB29768)),
        ("a0", InventoryConfig(protocol=AirProtocol.GB29768)),
        ("a0", InventoryConfig(antennas=(9,))),
        ("a0", InventoryConfig(user=2)),
        ("gx", InventoryConfig(protocol=AirProtocol.GJB7377)),
        ("gx", InventoryConfig(antennas=(1, 5))),
        ("gx", InventoryConfig(session=1)),
    ],
)
def test_what_a_reader_cannot_do_is_refused_before_it_is_sent(protocol, config):
    world = World(protocol)
    world.driver.open()
    written = world.line.written
    with pytest.raises(UnsupportedError):
        world.driver.inventory(config).start()
    assert world.line.written == written
    assert not world.driver.scanning


def test_a_scan_that_cannot_be_leaves_the_reader_as_it_was():
    """Answers to other commands are longer than notices may be while it scans."""
    world = World("m100", tags=[tag(EPCS[0])])
    world.driver.open()
    with pytest.raises(UnsupportedError):
        world.driver.inventory(InventoryConfig(antennas=(2,))).start()
    assert world.driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, 64).data == bytes(range(128))


def test_session_and_target_reach_the_handheld_module():
    world = World("m100", tags=[tag(EPCS[0])])
    world.driver.open()
    events = world.events(3.0, InventoryConfig(session=2))
    assert len(reads_of(events)) < 5  # a tag answers once and keeps still
    assert len(reads_of(world.events(2.0, InventoryConfig(session=0)))) > 20


# A single look


@protocols
def test_a_single_look_gives_each_tag_once_and_is_soon_done(protocol):
    world = World(protocol, tags=[tag(epc) for epc in EPCS])
    world.driver.open()
    began = world.seconds
    reads = world.driver.read_once(2.0)
    assert sorted(read.epc for read in reads) == sorted(EPCS)
    assert world.seconds - began < 1.0
    assert not world.engine.scanning


@protocols
def test_a_single_look_at_an_empty_field_gives_an_empty_list(protocol):
    world = World(protocol)
    world.driver.open()
    assert world.driver.read_once(0.5) == []


def test_a_checksum_alone_needs_two_equal_reads():
    shown = iter([EPCS[0], EPCS[1], EPCS[0], EPCS[2]])

    def reader(frame: bytes) -> bytes:
        if frame[3] != a0.SESSION:
            return a0.build(frame[3], {0x79: b"\x03\x2b\x35", 0x77: b"\x14"}.get(frame[3], b"\x10"))
        epc = next(shown, None)
        notice = a0.build(a0.SESSION, b"\xac\x30\x00" + epc + b"\x3c") if epc else b""
        return notice + a0.build(a0.SESSION, b"\x00\x00\x01\x00\x00\x00\x01")

    clock = Clock()

    def wait(_, seconds: float) -> None:
        clock.ns += int(seconds * 1e9) + 1

    driver = a0.A0Driver(ScriptedLine(reader).connect, monotonic_ns=clock.monotonic_ns, wait=wait)
    driver.open()
    looked: list[TagRead] = []
    with driver.inventory() as inventory:
        looked += reads_of([inventory.poll(0.1) for _ in range(12)])
    assert [read.epc for read in looked] == [EPCS[0], EPCS[1], EPCS[0], EPCS[2]]
    shown = iter([EPCS[0], EPCS[1], EPCS[0], EPCS[2]])
    reader_time = iter(range(10**9))
    clock.monotonic_ns = lambda: clock.ns + next(reader_time) * 1_000_000
    driver.monotonic_ns = clock.monotonic_ns
    assert [read.epc for read in driver.read_once(0.4)] == [EPCS[0]]


# One tag's memory


@protocols
def test_memory_is_read_in_parts_and_from_the_tag_that_is_meant(protocol):
    world = World(protocol, tags=[tag(epc) for epc in EPCS])
    world.driver.open()
    for epc in EPCS:
        read = world.driver.read_memory(Selector(epc), Bank.TID, 0, 6)
        assert read == (b"\xe2\x80\x11\x60" + epc[:8], epc)
    assert world.driver.read_memory(Selector(EPCS[1]), Bank.USER, 3, 51).data == bytes(range(6, 108))


@protocols
def test_the_code_bank_is_read_as_the_tag_holds_it(protocol):
    """CRC, control word and EPC (ISO/IEC 18000-63)."""
    world = World(protocol, tags=[tag(epc) for epc in EPCS])
    world.driver.open()
    held = bytes.fromhex("3400") + EPCS[1]  # with the bit for user memory
    read = world.driver.read_memory(Selector(EPCS[1]), Bank.EPC, 0, 8)
    assert read == (tag_crc(held).to_bytes(2) + held, EPCS[1])
    assert world.driver.read_memory(Selector(EPCS[1]), Bank.EPC, 2, 6).data == EPCS[1]


@protocols
def test_reading_a_tag_that_is_not_there_says_so(protocol):
    world = World(protocol, tags=[tag(EPCS[0])])
    world.driver.open()
    with pytest.raises(TagError) as caught:
        world.driver.read_memory(Selector(EPCS[1]), Bank.TID, 0, 4)
    assert caught.value.tag_problem is TagProblem.NOT_FOUND


@pytest.mark.parametrize("protocol", ["m100", "gx"])
def test_why_a_tag_gives_no_words_is_told_where_the_reader_tells_it(protocol):
    locked = tag(EPCS[0], locked=frozenset({"user"}), access_password=7)
    world = World(protocol, tags=[locked])
    world.driver.open()
    for words, password, problem in (
        (4, bytes(4), TagProblem.LOCKED), (4, b"\0\0\0\x08", TagProblem.ACCESS), (64, b"\0\0\0\x07", None),
    ):  # fmt: skip
        if problem is None:
            assert len(world.driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, words, password).data) == 128
            continue
        with pytest.raises(TagError) as caught:
            world.driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, words, password)
        assert caught.value.tag_problem is problem


@pytest.mark.parametrize("protocol", ["m100", "gx"])
def test_reading_past_the_end_of_a_bank_is_an_overrun(protocol):
    world = World(protocol, tags=[tag(EPCS[0])])
    world.driver.open()
    with pytest.raises(TagError) as caught:
        world.driver.read_memory(Selector(EPCS[0]), Bank.TID, 4, 8)
    assert caught.value.tag_problem is TagProblem.OVERRUN


def test_an_answer_of_another_tag_is_thrown_away_and_asked_again():
    echoes = [EPCS[1], EPCS[1], EPCS[0]]

    def reader(frame: bytes) -> bytes:
        if frame[2:3] != b"\x39":
            return lying({0x08: b"\x01", 0xB7: b"\x07\xd0"})(frame)
        words = bytes((14,)) + b"\x30\x00" + echoes.pop(0) + b"\xbe\xef"
        return m100.build(0x39, words, kind=1)

    driver = m100.M100Driver(ScriptedLine(reader).connect)
    driver.open()
    assert driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, 1) == (b"\xbe\xef", EPCS[0])
    echoes += [EPCS[1]] * 3
    with pytest.raises(TagError):
        driver.read_memory(Selector(EPCS[0]), Bank.USER, 0, 1)


# Authentication


@pytest.mark.parametrize("protocol", ["m100", "a0"])
def test_readers_without_a_command_for_it_say_that_authentication_is_unsupported(protocol):
    world = World(protocol, tags=[tag(EPCS[0])])
    world.driver.open()
    written = world.line.written
    answer = world.driver.authenticate(Selector(EPCS[0], AirProtocol.GB29768), "safe_mark", b"")
    assert (type(answer), world.line.written) == (Unsupported, written)


def test_what_the_readers_security_module_says_is_passed_on_as_its_word():
    tags = [tag(EPCS[0], protocol=EmulatedAir.GB29768, authentication=Authentication.REQUIRED)]
    world = World("gx", tags=tags, setup=ReaderSetup(security_module=True))
    world.driver.open()
    answer = world.driver.authenticate(Selector(EPCS[0], AirProtocol.GB29768), "safe_mark", b"")
    assert answer == AuthResult(TagAuth.OK, "reader says", 0)


def _one_tag_of_gb(told: bytes):
    """A reader whose every inventory of GB/T 29768 gives this one notice."""
    notice = gx.build(gx.BASE << 8 | 0x30, told, flags=gx.FROM_READER)
    over = gx.build(gx.BASE << 8 | 0x31, b"\x00", flags=gx.FROM_READER)
    answers = {0x00: b"\x05\x1e\x01\x00\x01\x00\x00\x01\x02", 0x04: b"\x00", 0x02: b"\x01\x14"}

    def reader(frame: bytes) -> bytes:
        answer = gx.build(frame[3] << 8 | frame[4], answers.get(frame[4], b"\x00"))
        return answer + (notice + over if frame[4] == 0x50 else b"")

    return reader


def test_a_copy_that_cannot_prove_itself_is_never_proven():
    tags = [tag(EPCS[0], protocol=EmulatedAir.GB29768, authentication=Authentication.FAILS)]
    world = World("gx", tags=tags, setup=ReaderSetup(security_module=True))
    world.driver.open()
    answer = world.driver.authenticate(Selector(EPCS[0], AirProtocol.GB29768), "safe_mark", b"")
    assert answer == AuthResult(TagAuth.FAIL, "reader says", 10)  # "identify failure" of the documents


GB = AirProtocol.GB29768
PROVING = InventoryConfig(protocol=GB, tid=4, authenticate=True)


@pytest.mark.parametrize(
    ("makes", "said", "told"),
    [
        (Authentication.REQUIRED, TagAuth.OK, b"\xe2\x80\x11\x60" + EPCS[0][:4]),
        (Authentication.FAILS, TagAuth.FAIL, None),
    ],
)
def test_in_a_scan_every_read_tells_whether_the_tag_proved_itself(makes, said, told):
    tags = [tag(EPCS[0], protocol=EmulatedAir.GB29768, authentication=makes)]
    world = World("gx", tags=tags, setup=ReaderSetup(security_module=True))
    world.driver.open()
    reads = reads_of(world.events(1.0, PROVING))
    assert {(read.auth, read.tid) for read in reads} == {(said, told)}
    assert {read.auth for read in reads_of(world.events(1.0, replace(PROVING, authenticate=False)))} <= {None}


def test_a_statutory_tag_gives_its_memory_to_a_reader_that_proved_itself():
    tags = [tag(EPCS[0], protocol=EmulatedAir.GB29768, authentication=Authentication.REQUIRED)]
    world = World("gx", tags=tags, setup=ReaderSetup(security_module=True))
    world.driver.open()
    assert reads_of(world.events(1.0, replace(PROVING, authenticate=False))) == []
    assert reads_of(world.events(1.0, PROVING))
    assert world.driver.read_memory(Selector(EPCS[0], GB), Bank.USER, 0, 51).data == tags[0].user[:102]


def test_a_reader_without_a_security_module_scans_on_and_proves_nobody():
    world = World("gx", tags=[tag(EPCS[0], protocol=EmulatedAir.GB29768)])
    world.driver.open()
    assert {read.auth for read in reads_of(world.events(1.0, PROVING))} == {None}
    assert isinstance(world.driver.authenticate(Selector(EPCS[0], GB), "safe_mark", b""), Unsupported)


@pytest.mark.parametrize("code", [1, 4, 6, 7, 11, 0xFF])
def test_a_result_that_speaks_of_no_proof_neither_proves_nor_accuses_a_tag(code):
    notice = b"\x00\x0c" + EPCS[0] + b"\x30\x00\x01\x01\x60\x02" + bytes((code,))
    driver = gx.GxDriver(ScriptedLine(_one_tag_of_gb(notice)).connect)
    driver.open()
    with pytest.raises(TagError):
        driver.authenticate(Selector(EPCS[0], AirProtocol.GB29768), "safe_mark", b"")


def test_a_reader_that_keeps_silent_about_the_result_has_not_authenticated():
    silent = b"\x00\x0c" + EPCS[0] + b"\x30\x00\x01\x01\x60"
    driver = gx.GxDriver(ScriptedLine(_one_tag_of_gb(silent)).connect)
    driver.open()
    assert isinstance(driver.authenticate(Selector(EPCS[0], AirProtocol.GB29768), "safe_mark", b""), Unsupported)


# What goes wrong


@protocols
@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=FaultKind.JUNK, size=200),
        Fault(kind=FaultKind.LOST_ACK, count=1),
        Fault(kind=FaultKind.LATE_ACK, seconds=0.2, count=3),
        Fault(kind=FaultKind.WRONG_ACK, count=1),
        Fault(kind=FaultKind.DUPLICATE, count=5),
        Fault(kind=FaultKind.SPLIT, seconds=0.3, count=2),
        Fault(kind=FaultKind.STALL, seconds=0.3, count=1),
        Fault(kind=FaultKind.OVERRUN, size=5),
        Fault(kind=FaultKind.SLEEP),
    ],
    ids=lambda fault: fault.kind.value,
)
def test_opening_survives(protocol, fault):
    world = World(protocol, tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    assert world.seconds < 5
    assert world.driver.get_region() is Region.CHINA_920
    assert reads_of(world.events(1.0))


def test_a_sleeping_module_loses_a_byte_that_means_nothing():
    world = World("m100", faults=[Fault(kind=FaultKind.SLEEP)])
    world.driver.open()
    assert world.driver.health().timeouts == 0
    assert world.seconds < 0.2  # the first command is heard already


def test_the_end_of_a_scan_that_was_stopped_does_not_end_the_reading_after_it():
    over = gx.build(gx.BASE << 8 | 0x01, b"\x01", flags=gx.FROM_READER)
    notice = gx.build(gx.BASE << 8, b"\x00\x02\xa0\xa0\x08\x00\x01\x04\x00\x02\xbe\xef", flags=gx.FROM_READER)
    answers = {0x00: b"\x05\x1e\x01\x00\x01\x00\x00\x01\x00", 0x04: b"\x00", 0x02: b"\x01\x14"}
    asked: list[bytes] = []

    def reader(frame: bytes) -> bytes:
        answer = gx.build(frame[3] << 8 | frame[4], answers.get(frame[4], b"\x00"))
        if frame[4] != 0x10:
            return answer
        asked.append(frame)
        return over + answer + notice + over

    driver = gx.GxDriver(ScriptedLine(reader).connect)
    driver.open()
    assert driver.read_memory(Selector(b"\xa0\xa0"), Bank.USER, 0, 1).data == b"\xbe\xef"
    assert len(asked) == 1


def test_a_module_with_the_other_framing_is_found():
    world = World("m100", tags=[tag(EPCS[0])], setup=ReaderSetup(framing="aa"))
    world.driver.open()
    assert reads_of(world.events(0.5))
    assert world.line.read[:1] == b"\xaa"


@protocols
def test_a_reader_that_never_answers_is_given_up(protocol):
    clock = Clock()
    silent = ScriptedLine(lambda _: b"")
    driver = DRIVERS[protocol](silent.connect, monotonic_ns=clock.monotonic_ns, wait=clock.wait)
    with pytest.raises(ReaderTimeoutError):
        driver.open()
    assert clock.ns < 8e9
    assert silent.received is None


@protocols
def test_a_reader_that_goes_on_talking_is_stopped_or_given_up_and_never_waited_for_for_ever(protocol):
    clock = Clock()
    line = ScriptedLine(lambda _: b"")
    driver = DRIVERS[protocol](line.connect, monotonic_ns=clock.monotonic_ns, wait=clock.wait)

    def babble() -> bool:
        if line.received:
            line.received(m100_notice(EPCS[0]))
        return True

    clock.turn = babble
    with pytest.raises(ReaderTimeoutError, match="another protocol or speed"):
        driver.open()
    assert clock.ns < 20e9


def test_what_is_left_of_a_scan_ends_though_the_reader_cannot_be_stopped():
    world = World("m100", tags=[tag(EPCS[0])])
    world.driver.open()
    inventory = world.driver.inventory()
    inventory.start()
    line, clock = ScriptedLine(lambda _: b""), world.clock
    line.received = world.driver.session._received

    def babble() -> bool:
        line.received(m100_notice(EPCS[0]))
        return True

    clock.turn = babble
    inventory.close()
    assert world.driver.scanning
    rest = []
    for event in inventory:
        rest.append(event)
        clock.ns += 1_000_000
        babble()
        assert len(rest) <= 5000
    assert rest


@protocols
def test_a_pulled_plug_is_told_and_the_scan_goes_on_when_it_is_back(protocol):
    fault = Fault(kind=FaultKind.UNPLUG, at_s=3.0, seconds=12.0)
    world = World(protocol, tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    events = world.events(24.0)
    gaps = [gap for gap in gaps_of(events) if gap.reason is GapReason.LINK_LOST]
    assert (gaps[0].seconds, gaps[0].over, gaps[-1].over) == (0.0, False, True)
    attempts = [round(gap.seconds, 1) for gap in gaps[1:-1]]
    assert attempts == [0.2, 0.6, 1.4, 3.0, 6.2, 11.2]  # 0.2, 0.4 ... 5 s between them
    assert 12 <= gaps[-1].seconds <= 12 + 6
    assert reads_of(events)[-1].mono_ns > 24e9
    assert world.driver.health().reconnects == 1


@protocols
def test_a_silent_reader_that_stays_silent_is_opened_again_until_it_answers(protocol):
    fault = Fault(kind=FaultKind.RESET, at_s=3.0, seconds=15.0)
    world = World(protocol, tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    events = world.events(32.0)
    silent = [gap for gap in gaps_of(events) if gap.reason is GapReason.SILENT]
    assert not silent[0].over
    assert silent[-1].over
    assert reads_of(events)[-1].mono_ns > 31e9
    assert world.line.opened > 1


@protocols
def test_a_line_that_gives_noise_only_is_no_empty_road(protocol):
    fault = Fault(kind=FaultKind.WRONG_BAUD, at_s=2.0, for_s=5.0)
    world = World(protocol, tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    events = world.events(16.0)
    silent = [gap for gap in gaps_of(events) if gap.reason is GapReason.SILENT]
    assert not silent[0].over
    assert silent[-1].over
    assert reads_of(events)[-1].mono_ns > 16e9


def test_a_single_look_at_a_reader_that_is_gone_is_an_error_and_not_an_empty_list():
    world = World("m100", tags=[], faults=[Fault(kind=FaultKind.UNPLUG, at_s=1.0, seconds=60.0)])
    world.driver.open()
    with pytest.raises(LinkLostError):
        world.driver.read_once(3.0)
    with pytest.raises(DeviceNotFoundError):
        world.driver.open()


def test_a_refused_command_tells_the_readers_code():
    world = World("m100", radio=RadioConfig(power_dbm=30.0))  # the emulated module ends at 26
    with pytest.raises(RejectedError) as caught:
        world.driver.open()
    assert caught.value.code == 0x0E


# The session


class Bench:
    """A session on a scripted line."""

    def __init__(self, answer: Callable[[bytes], bytes] = lambda _: b"") -> None:
        self.clock, self.health, self.line = Clock(), Health(), ScriptedLine(answer)
        self.session = Session(
            self.line.connect, m100.M100Codec(), self.health, monotonic_ns=self.clock.monotonic_ns, wait=self.clock.wait
        )


def test_notices_nobody_takes_are_bounded_the_oldest_go_first_and_are_counted():
    bench = Bench()
    for n in range(KEEP + 10):
        bench.line.received(m100_notice(n.to_bytes(4, "big")))
    assert bench.health.overruns == 10
    assert bench.session.take(0.0)[0].epc == (10).to_bytes(4, "big")


def test_what_was_heard_before_and_around_an_answer_is_not_thrown_away():
    stop = m100.build(0x28, b"\x00", kind=1)
    bench = Bench(lambda _: m100_notice(EPCS[1]) + stop + m100_notice(EPCS[2]))
    half = m100_notice(EPCS[0])
    bench.line.received(half[:10])
    bench.line.received(half[10:])
    bench.session.ask(m100.build(0x28), lambda packet: not isinstance(packet, Sighting), 0.1)
    assert [bench.session.take(0.0)[0].epc for _ in range(3)] == EPCS


def test_an_answer_that_does_not_come_ends_at_its_deadline():
    bench = Bench()
    with pytest.raises(ReaderTimeoutError):
        bench.session.ask(b"\xbb", lambda _: True, 0.5)
    assert (bench.clock.ns, bench.health.timeouts) == (1_500_000_000, 1)


def test_the_heartbeat_of_a_scan_answers_no_command():
    beat = m100.build(0xFF, b"\x15", kind=1)
    line = ScriptedLine(lambda f: beat + lying({0x08: b"\x01", 0xB7: b"\x07\xd0"})(f))
    assert m100.M100Driver(line.connect).open().antennas == 1


def test_the_reply_to_a_select_mode_may_name_the_select_command():
    assert m100.ANSWERS[0x12] == {0x12, 0x0C}


def test_the_driver_has_no_method_that_changes_a_tag():
    for driver in DRIVERS.values():
        names = {name for name, _ in inspect.getmembers(driver)}
        assert not {name for name in names if any(word in name for word in ("write", "lock", "kill", "destroy"))}
