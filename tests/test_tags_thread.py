"""The thread that reads tags: lists for the officer, a checkpoint, and a reader that goes and comes back."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from firmware.app import TagField
from firmware.checkpoint import Checkpoint
from firmware.machine.events import Alarm, PartFault, Passed, TagsSeen
from firmware.readers import start_reader
from firmware.settings import ReaderSettings
from firmware.tags import FETCHED, LISTED, PART, TC1_WORDS, TRIES, Field, Memories, TagThread
from hw.errors import DeviceNotFoundError
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.engine import Refusal as EmulatedRefusal
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.port import running
from hw.rfid.emulator.scene import AirProtocol as EmulatedAir
from hw.rfid.emulator.scene import Authentication, Passage, ReaderSetup, Scene, Tag
from hw.rfid.models import MODELS
from hw.rfid.transport import serial_line
from hw.rfid.types import AirProtocol
from scripts.sandbox.tags import PersonalisedTag, TagForm
from tests.reader_lines import SERIAL, Clock, EmulatedLine
from tests.test_tags import World, on_the_car
from verifier.audit import read_log
from verifier.check import CheckResult, Observation
from verifier.types import TagAuth, TagLevel, TagSeen, TagSuspicion
from verifier.verdict import Reason, Tone, VerdictCode


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.device.store.close()


class Bench:
    """A tag thread without a thread of its own, on an emulated reader, under a clock that jumps."""

    def __init__(self, world: World, protocol: str, scene: Scene, **options) -> None:
        self.clock = Clock()
        self.line = EmulatedLine(EmulatedReader(protocol, scene), self.clock)
        self.posted: list[object] = []
        self._end_ns = 0
        self.driver_protocol = options.pop("driver", protocol)
        turn = self.line.turn

        def turned() -> bool:
            if self.clock.ns >= self._end_ns:
                self.thread.close()
            return turn()

        self.clock.turn = turned
        verifier = world.device.verifier
        self.made = 0
        self.thread = TagThread(
            self._make, self.posted.append, verifier.look_at,
            lambda with_memory: Checkpoint(verifier.check, verifier.look_at, with_memory=with_memory),
            monotonic_ns=self.clock.monotonic_ns, wait=self.clock.wait, **options,
        )  # fmt: skip

    def _make(self):
        self.made += 1
        clock = self.clock
        return MODELS[self.driver_protocol].driver(
            self.line.connect, monotonic_ns=clock.monotonic_ns, clock=clock.now, wait=clock.wait
        )

    def read(self, seconds: float) -> Bench:
        return self._run(seconds, self.thread.read)

    def watch(self, seconds: float) -> Bench:
        return self._run(seconds, self.thread.watch)

    def _run(self, seconds: float, job) -> Bench:
        self._end_ns = self.clock.ns + int(seconds * 1e9)
        job(on=True)
        self.thread.run()
        return self

    @property
    def lists(self) -> list[TagsSeen]:
        return [event for event in self.posted if isinstance(event, TagsSeen)]

    @property
    def faults(self) -> list[str]:
        assert all(event.part == PART for event in self.posted if isinstance(event, PartFault))
        return [event.problem for event in self.posted if isinstance(event, PartFault)]


def standing(tag: PersonalisedTag, dbm: float = -50.0, **options) -> Passage:
    given = {"tid": tag.tid, "epc": tag.epc, "user": tag.user, **options}
    return Passage(tag=Tag(**given), rssi_dbm=dbm)


def scene(*passages: Passage, faults=(), **setup) -> Scene:
    return Scene(passages=passages, faults=tuple(faults), reader=ReaderSetup(**setup))


# ------------------------------------------------------------------------------------------------ what is there


def test_the_thread_is_what_the_program_wants_of_a_tag_field(world):
    field: TagField = Bench(world, "m100", scene()).thread
    assert field.read
    assert field.watch


@pytest.mark.parametrize("protocol", SERIAL)
@pytest.mark.parametrize("form", TagForm)
def test_a_tag_in_the_field_is_read_with_its_certificate(world, protocol, form):
    vehicle = world.tagged[0]
    bench = Bench(world, protocol, scene(standing(world.tag(vehicle, form)))).read(3.0)
    (seen,) = bench.lists[-1].tags
    assert (seen.evidence.plate, seen.evidence.level) == (vehicle.plate, TagLevel.CERTIFIED)
    assert bench.faults == []
    assert len(bench.lists) >= 3  # reading memory costs rounds, not the list


def test_the_list_holds_the_strongest_tags_and_no_more(world):
    tags = [standing(PersonalisedTag(bytes((0xE2, n)) * 6, bytes((0x30, n)) * 6, b""), -40.0 - n) for n in range(12)]
    listed = Bench(world, "gx", scene(*tags)).read(3.0).lists[-1].tags
    assert len(listed) == LISTED
    assert Bench(world, "gx", scene(*tags[:3])).read(3.0).lists[-1].tags.__len__() == 3


def test_an_empty_field_is_an_empty_list(world):
    assert {event.tags for event in Bench(world, "m100", scene()).read(2.0).lists} == {()}


def test_the_bar_follows_the_strength_and_a_tag_that_left_goes_from_the_list(world):
    tag = world.tag(world.tagged[0], TagForm.TC0)
    gone = replace(standing(tag), for_s=1.5, at_s=0.0)
    lists = Bench(world, "m100", scene(gone)).read(6.0).lists
    assert lists[2].tags[0].rssi_dbm == -50.0
    assert lists[-1].tags == ()


def test_a_chosen_tag_of_the_list_is_checked_by_what_was_read_of_it(world):
    vehicle = world.tagged[0]
    (seen,) = Bench(world, "m100", scene(standing(world.tag(vehicle)))).read(3.0).lists[-1].tags
    verdict = world.device.verifier.check(Observation(tag=seen.evidence)).verdict
    assert (verdict.code, verdict.tone, verdict.plate) == (VerdictCode.VALID, Tone.NOTE, vehicle.plate)


def test_a_reader_with_a_security_module_is_asked_and_its_word_is_told_as_its_word(world):
    vehicle = world.tagged[0]
    passage = standing(world.tag(vehicle), protocol=EmulatedAir.GB29768)
    setup = {"security_module": True}
    field = Field(air=AirProtocol.GB29768)
    (seen,) = Bench(world, "gx", scene(passage, **setup), field=field).read(4.0).lists[-1].tags
    assert (seen.evidence.auth, seen.evidence.level) == (TagAuth.OK, TagLevel.AUTHENTICATED)


def test_a_tag_that_cannot_prove_itself_is_never_taken_for_proven(world):
    passage = standing(
        world.tag(world.tagged[0]), protocol=EmulatedAir.GB29768, authentication=Authentication.FAILS
    )  # fmt: skip
    field = Field(air=AirProtocol.GB29768)
    (seen,) = Bench(world, "gx", scene(passage, security_module=True), field=field).read(4.0).lists[-1].tags
    assert (seen.evidence.auth, seen.evidence.level) == (TagAuth.FAIL, TagLevel.CERTIFIED)
    verdict = world.device.verifier.check(Observation(tag=seen.evidence)).verdict
    assert (verdict.tone, Reason.TAG_AUTH_FAILED in verdict.reasons) == (Tone.CAUTION, True)


@pytest.mark.parametrize("form", TagForm)
def test_a_statutory_tag_that_answers_only_after_its_proof_is_listed_with_its_certificate(world, form):
    vehicle = world.tagged[0]
    given = {"protocol": EmulatedAir.GB29768, "authentication": Authentication.REQUIRED}
    held = scene(standing(world.tag(vehicle, form), **given), security_module=True)
    (seen,) = Bench(world, "gx", held, field=Field(air=AirProtocol.GB29768)).read(4.0).lists[-1].tags
    assert (seen.evidence.level, seen.evidence.plate) == (TagLevel.AUTHENTICATED, vehicle.plate)
    verdict = world.device.verifier.check(Observation(tag=seen.evidence)).verdict
    assert (verdict.code, verdict.tone) == (VerdictCode.VALID, Tone.PASS)


def test_without_a_security_module_nothing_is_taken_for_proven(world):
    held = scene(standing(world.tag(world.tagged[0]), protocol=EmulatedAir.GB29768))
    bench = Bench(world, "gx", held, field=Field(air=AirProtocol.GB29768)).read(4.0)
    (seen,) = bench.lists[-1].tags
    assert (seen.evidence.auth, seen.evidence.level, bench.faults) == (TagAuth.UNSUPPORTED, TagLevel.CERTIFIED, [])


def test_a_tag_that_gives_nothing_is_asked_a_few_times_and_then_left_alone(world):
    mute = standing(PersonalisedTag(b"\xe2\x00" * 6, b"\x30" * 12, b""))
    bench = Bench(world, "m100", scene(mute)).read(8.0)
    asked = bench.line.reader.engine.heard[0x39]
    assert 0 < asked <= 30
    assert bench.lists[-1].tags[0].evidence.plate is None


def test_memory_of_no_more_than_a_few_tags_is_read_at_once():
    assert FETCHED <= LISTED


NO_ROOM = bytes.fromhex("e28011050000000000000001")  # TID of a chip that is the copy of another one's EPC


@pytest.mark.parametrize("protocol", SERIAL)
def test_a_copy_of_the_epc_that_comes_when_its_original_has_left_inherits_nothing_of_it(world, protocol):
    tag = world.tag(world.tagged[0])
    original = standing(tag)
    copy = standing(tag._replace(tid=NO_ROOM, user=b""))
    bench = Bench(world, protocol, scene(replace(original, for_s=3.0), replace(copy, at_s=8.0))).read(13.0)
    levels = [seen.evidence.level for listed in bench.lists for seen in listed.tags]
    assert TagLevel.CERTIFIED in levels
    (seen,) = bench.lists[-1].tags
    assert (seen.evidence.plate, seen.evidence.level, seen.evidence.tid) == (None, TagLevel.READ, NO_ROOM.hex().upper())


def test_a_chip_that_tells_another_tid_at_once_has_nothing_of_the_one_before(world):
    tag = world.tag(world.tagged[0])
    blank = standing(tag._replace(tid=NO_ROOM, user=b""))
    bench = Bench(world, "gx", scene(replace(standing(tag), for_s=4.0), replace(blank, at_s=4.1))).read(8.0)
    assert TagLevel.CERTIFIED in {seen.evidence.level for listed in bench.lists for seen in listed.tags}
    (seen,) = bench.lists[-1].tags
    assert (seen.evidence.level, seen.evidence.fault, seen.evidence.suspicions) == (TagLevel.READ, None, ())


def test_a_copy_of_the_epc_that_takes_its_originals_place_at_once_inherits_neither_bank_nor_proof(world):
    tag = world.tag(world.tagged[0])
    original = standing(tag, protocol=EmulatedAir.GB29768)
    blank = tag._replace(tid=NO_ROOM, user=b"")
    copy = standing(blank, protocol=EmulatedAir.GB29768, authentication=Authentication.FAILS)
    swapped = scene(replace(original, for_s=4.0), replace(copy, at_s=4.1), security_module=True)
    bench = Bench(world, "gx", swapped, field=Field(air=AirProtocol.GB29768)).read(9.0)
    assert TagAuth.OK in {seen.evidence.auth for listed in bench.lists for seen in listed.tags}
    (seen,) = bench.lists[-1].tags
    evidence = seen.evidence
    assert (evidence.auth, evidence.level, evidence.fault) == (TagAuth.FAIL, TagLevel.READ, None)


def test_the_time_in_which_memory_is_read_makes_no_tag_leave(world):
    """What is read of a tag is read once, although the scan rests for seconds while other tags keep silent."""
    good = standing(world.tag(world.tagged[0]), -40.0)
    mute = [standing(PersonalisedTag(b"", bytes((0x30, n)) * 6, b""), -50.0 - n) for n in range(3)]
    bench = Bench(world, "m100", scene(good, *mute))
    reader = bench.line.reader.engine
    send = reader.send

    def late(frame: bytes, after_s: float = 0.0) -> None:
        refused = frame[2] == 0xFF and frame[5] != 0x15  # and no heartbeat of an empty round
        send(frame, after_s + (0.8 if refused else 0.0))

    reader.send = late
    bench.read(20.0)
    assert bench.faults == []
    assert reader.heard[0x39] == 3 + len(mute) * TRIES  # of the good one the TID once, and the bank in two parts
    levels = [{seen.evidence.level for seen in listed.tags} for listed in bench.lists]
    assert all(TagLevel.CERTIFIED in level for level in levels[3:])


def damaged_once(bench: Bench, within: bytes) -> None:
    """The next answer that holds these bytes comes damaged, in a frame whose checksum fits."""
    reader = bench.line.reader.engine
    answered, left = reader.answer, [1]

    def damaged(code: int, data: bytes) -> bytes:
        if within in data and left:
            left.pop()
            data = data.replace(within, bytes((within[0] ^ 1,)) + within[1:])
        return answered(code, data)

    reader.answer = damaged


@pytest.mark.parametrize("part", ["tid", "body", "signature"])
def test_one_damaged_frame_whose_checksum_fits_makes_no_copy_of_a_lawful_tag(world, part):
    tag = world.tag(world.tagged[0])
    bench = Bench(world, "m100", scene(standing(tag)))
    damaged_once(bench, {"tid": tag.tid, "body": tag.user[:20], "signature": tag.user[40:60]}[part])
    bench.read(4.0)
    told = [seen.evidence for listed in bench.lists for seen in listed.tags]
    assert {(evidence.fault, evidence.suspicions) for evidence in told} == {(None, ())}
    assert told[-1].level is TagLevel.CERTIFIED


def test_a_bank_that_is_of_another_tag_is_told_when_it_was_read_once_more(world):
    copied = world.tag(world.tagged[0])._replace(tid=NO_ROOM)
    bench = Bench(world, "m100", scene(standing(copied))).read(4.0)
    (seen,) = bench.lists[-1].tags
    assert seen.evidence.suspicions == (TagSuspicion.OTHER_TAG,)
    assert bench.line.reader.engine.heard[0x39] == 6  # TID and two parts of the bank, twice


def test_a_reader_that_reads_no_memory_is_no_failing_reader(world):
    """Real drivers say Unsupported where their protocol has no command for it: here A0 of another air interface."""
    bench = Bench(world, "a0", scene(standing(world.tag(world.tagged[0]))))
    with bench._make() as driver:
        (read,) = driver.read_once(2.0)
        foreign = read._replace(protocol=AirProtocol.GB29768)
        memories = Memories(authenticates=True, tid_along=False, doubted=lambda _: False)
        assert memories.wanting(foreign)
        memories.fetch(driver, foreign)
        assert memories.seen(foreign) == TagSeen(epc=read.epc)
        assert not memories.wanting(foreign)  # asking again would interrupt the scan for nothing
        memories.fetch(driver, read)
        assert memories.seen(read).user is not None


@pytest.mark.parametrize("protocol", SERIAL)
@pytest.mark.parametrize("refused", [False, True], ids=["does not answer", "refuses"])
def test_a_reader_that_gives_no_memory_still_tells_the_tags(world, protocol, refused):
    """Asked a few times, then no more: who asked again for ever would listen to nobody."""
    tags = [world.tag(vehicle, TagForm.TC0) for vehicle in world.tagged[:2]]
    bench = Bench(world, protocol, scene(*(standing(tag) for tag in tags)))
    silenced = no_memory(bench, refused=refused)
    bench.read(15.0)
    assert bench.faults == []
    assert (bench.made, 1 <= len(silenced) <= 2 * TRIES) == (1, True)
    late = bench.lists[len(bench.lists) // 2 :]
    assert {frozenset(seen.evidence.plate for seen in listed.tags) for listed in late} == {
        frozenset(vehicle.plate for vehicle in world.tagged[:2])
    }


def test_a_tag_that_was_not_heard_in_time_is_asked_again_and_others_are_read(world):
    bench = Bench(world, "m100", scene(*(standing(world.tag(vehicle)) for vehicle in world.tagged[:2])))
    silenced = no_memory(bench, times=2)  # both times that the first READ is sent
    bench.read(12.0)
    assert (bench.faults, bench.made, len(silenced)) == ([], 1, 2)
    assert {seen.evidence.level for seen in bench.lists[-1].tags} == {TagLevel.CERTIFIED}


def test_a_reader_that_falls_silent_while_it_is_asked_for_memory_is_a_named_fault_and_is_opened_again(world):
    bench = Bench(world, "m100", scene(standing(world.tag(world.tagged[0]))))
    asked, clock = no_memory(bench, times=1), bench.clock
    reader = bench.line.reader.engine
    handler, dead_ns = reader.handler, []

    def deaf(command):
        answer = handler(command)
        dead_ns.extend([clock.ns] if asked and not dead_ns else [])
        return (lambda _: None) if dead_ns and clock.ns < dead_ns[0] + 9_000_000_000 else answer

    reader.handler = deaf
    bench.read(25.0)
    assert bench.faults[0] == "no answer"
    assert bench.faults[-1] == ""
    assert bench.lists[-1].tags[0].evidence.level is TagLevel.CERTIFIED


REFUSALS = {"m100": 0x17, "a0": 0x41, "gx": 0x06}
READS = {  # commands for memory: number, and what else
    "m100": (0x39, lambda data: True),
    "a0": (0x81, lambda data: True),
    "gx": (0x10, lambda data: data[4] == 0 and len(data) > 5),
}


@pytest.mark.parametrize("table", [REFUSALS, READS], ids=["REFUSALS", "READS"])
def test_every_reader_on_a_serial_line_has_its_numbers_here(table):
    assert table.keys() == set(SERIAL), f"add {set(SERIAL) - table.keys()} to REFUSALS and READS"


def no_memory(bench: Bench, *, refused: bool = False, times: int | None = None) -> list[bytes]:
    """A reader that leaves commands for memory (so many of them) unanswered, or refuses them; what was asked."""
    protocol, reader, asked = bench.line.reader.protocol, bench.line.reader.engine, []
    handler, (code, of_memory) = reader.handler, READS[protocol]

    def handled(command):
        if command.code != code or not of_memory(command.data) or len(asked) == times:
            return handler(command)
        asked.append(command.data)
        handler(command)  # which command an answer is to
        return refuse if refused else lambda _: None

    def refuse(_: bytes) -> bytes:
        raise EmulatedRefusal(REFUSALS[protocol])

    reader.handler = handled
    return asked


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("protocol", SERIAL)
def test_a_pulled_plug_is_a_named_fault_and_the_reader_comes_back_by_itself(world, protocol):
    unplug = Fault(kind=FaultKind.UNPLUG, at_s=2.0, seconds=2.0)
    tag = standing(world.tag(world.tagged[0], TagForm.TC0))
    bench = Bench(world, protocol, scene(tag, faults=[unplug])).read(12.0)
    assert bench.faults == ["line lost", ""]
    assert bench.lists[-1].tags[0].evidence.plate == world.tagged[0].plate


def test_while_the_reader_is_gone_a_plate_and_a_code_are_checked_as_ever(world):
    unplug = Fault(kind=FaultKind.UNPLUG, at_s=1.5, seconds=100.0)
    bench = Bench(world, "m100", scene(faults=[unplug])).watch(6.0)
    assert bench.faults == ["line lost"]
    vehicle = world.tagged[0]
    result = world.check(code=world.code(vehicle), plate_seen=on_the_car(vehicle))
    assert (result.verdict.code, result.verdict.tone) == (VerdictCode.VALID, Tone.PASS)


@pytest.mark.parametrize(("driver", "reader"), [("a0", "m100"), ("m100", "a0"), ("gx", "a0"), ("m100", "gx")])
def test_a_reader_of_another_family_is_a_named_fault_told_once_and_tried_again(world, driver, reader):
    bench = Bench(world, reader, scene(), driver=driver).watch(12.0)
    (fault,) = bench.faults
    assert fault == "no answer in time"
    assert bench.made >= 3


def test_a_port_that_is_not_there_is_tried_again_with_patience(world):
    bench = Bench(world, "m100", scene())
    bench.line.unplugged_until = bench.clock.ns + 20_000_000_000
    bench.read(30.0)
    assert bench.faults == ["port cannot be opened (errno 2)", ""]
    assert bench.made <= 12  # not again and again without a pause
    assert bench.lists


def test_antennas_that_the_reader_has_not_are_a_named_fault(world):
    bench = Bench(world, "m100", scene(), field=Field(antennas=(1, 2))).watch(3.0)
    assert bench.faults
    assert bench.faults[0]


def test_a_missing_antenna_is_named_and_the_others_go_on(world):
    tag = standing(world.tag(world.tagged[0], TagForm.TC0))
    setup = {"missing_antennas": frozenset({3})}
    bench = Bench(world, "a0", scene(tag, **setup), field=Field(antennas=(1, 2, 3))).watch(4.0)
    assert bench.faults == ["antenna missing"]
    assert Passed(1) in bench.posted


def test_a_reader_that_was_silent_for_a_moment_does_not_end_the_banner_of_an_antenna_that_is_missing(world):
    reset = Fault(kind=FaultKind.RESET, at_s=2.0, seconds=0.6)
    setup = {"missing_antennas": frozenset({3})}
    bench = Bench(world, "a0", scene(faults=[reset], **setup), field=Field(antennas=(1, 2, 3))).watch(6.0)
    assert bench.faults == ["antenna missing"]


def test_an_antenna_that_is_plugged_in_again_ends_its_banner(world):
    lost = Fault(kind=FaultKind.ANTENNA_MISSING, at_s=1.0, for_s=1.0, antenna=2)
    bench = Bench(world, "a0", scene(faults=[lost]), field=Field(antennas=(1, 2, 3))).watch(4.0)
    assert bench.faults == ["antenna missing", ""]


@pytest.mark.parametrize("protocol", SERIAL)
@pytest.mark.parametrize(
    "tag",
    [
        Tag(epc=b"", tid=b"\xe2\x00" * 6),
        Tag(epc=b"\xee" * 62, tid=b"\xe2\x00" * 6),
        Tag(epc=b"\x30" * 12, tid=b"\xe2\x00" * 6, user=bytes(range(128))),
        Tag(epc=bytes(12), tid=b"", user=b"\xff" * 64),
    ],
    ids=["an epc of no length", "an epc of 496 bits", "a bank full of noise", "no tid"],
)
def test_a_strange_tag_is_listed_without_a_plate_and_takes_nothing_down(world, protocol, tag):
    good = standing(world.tag(world.tagged[0], TagForm.TC0), -45.0)
    bench = Bench(world, protocol, scene(Passage(tag=tag, rssi_dbm=-40.0), good)).read(4.0)
    plates = {seen.evidence.plate for seen in bench.lists[-1].tags}
    assert plates <= {None, world.tagged[0].plate}
    assert world.tagged[0].plate in plates
    assert bench.faults == []


# ---------------------------------------------------------------------------------------------- the checkpoint


@pytest.mark.parametrize("protocol", SERIAL)
def test_watching_posts_a_silent_car_and_an_alarm(tmp_path, protocol):
    world = World(tmp_path, lambda world: world.authority.registry.set_status(world.tagged[1].plate, "C"))
    good, stolen = (world.tag(vehicle, TagForm.TC0) for vehicle in world.tagged[:2])
    bench = Bench(world, protocol, scene(standing(good), standing(stolen))).watch(2.0)
    assert [event for event in bench.posted if isinstance(event, Passed)] == [Passed(1)]
    (alarm,) = [event for event in bench.posted if isinstance(event, Alarm)]
    assert alarm.result.verdict.plate == world.tagged[1].plate
    assert not bench.lists
    world.device.store.close()


def test_a_checkpoint_hears_statutory_tags_and_what_the_readers_security_module_says_of_them(world):
    lawful, copied = (
        standing(world.tag(vehicle), protocol=EmulatedAir.GB29768, authentication=makes)
        for vehicle, makes in zip(world.tagged, (Authentication.REQUIRED, Authentication.FAILS), strict=False)
    )
    field = Field(air=AirProtocol.GB29768, user_words=TC1_WORDS)
    bench = Bench(world, "gx", scene(lawful, copied, security_module=True), field=field).watch(2.0)
    assert [event for event in bench.posted if isinstance(event, Passed)] == [Passed(1)]
    (alarm,) = [event for event in bench.posted if isinstance(event, Alarm)]
    assert (alarm.result.evidence.tag.auth, alarm.result.verdict.tone) == (TagAuth.FAIL, Tone.CAUTION)
    (passed, _) = read_log(world.home.audit)
    assert (passed["verdict"]["verdict"], passed["evidence"]["tag"]["auth"]) == (VerdictCode.VALID, TagAuth.OK)


@pytest.mark.parametrize("protocol", SERIAL)
def test_an_empty_road_and_a_lost_line_are_no_vehicles(world, protocol):
    unplug = Fault(kind=FaultKind.UNPLUG, at_s=1.0, seconds=0.5)
    bench = Bench(world, protocol, scene(faults=[unplug])).watch(4.0)
    assert [type(event) for event in bench.posted] == [PartFault, PartFault]


def test_memory_that_was_heard_in_time_counts_though_a_slow_disk_lets_it_be_looked_at_late(world):
    """A lawful car whose memory comes with its second read, behind one whose record takes half a second to write."""
    late, other = (standing(world.tag(vehicle)) for vehicle in world.tagged[:2])
    bench = Bench(world, "gx", scene(late, other), field=Field(user_words=TC1_WORDS))
    reader, verifier, clock = bench.line.reader.engine, world.device.verifier, bench.clock
    read_with, refused = reader._read_with, [late.tag]
    reader._read_with = lambda order, tag: (
        b"\x02\x04" if tag in refused and not refused.remove(tag) else read_with(order, tag)
    )

    def slow(seen: Observation) -> CheckResult:
        end_ns = clock.ns + 500_000_000
        while clock.ns < end_ns:
            clock.wait(threading.Condition(), 0.5)
        return verifier.check(seen)

    bench.thread._checkpoint = lambda with_memory: Checkpoint(slow, verifier.look_at, with_memory=with_memory)
    bench.watch(3.0)
    assert refused == []
    assert [event for event in bench.posted if isinstance(event, Alarm | Passed)] == [Passed(1), Passed(1)]


def test_alarms_are_numbered_apart_from_the_officers_checks(tmp_path):
    world = World(tmp_path, lambda world: [world.authority.registry.set_status(v.plate, "C") for v in world.tagged[:2]])
    tags = [standing(world.tag(vehicle, TagForm.TC0)) for vehicle in world.tagged[:2]]
    numbers = [e.number for e in Bench(world, "m100", scene(*tags)).watch(2.0).posted if isinstance(e, Alarm)]
    assert sorted(numbers) == [-2, -1]
    world.device.store.close()


SCENE = """
[[tag]]
name = "car"
epc = "{epc}"
tid = "{tid}"
user = "{user}"
protocol = "{air}"

[[pass]]
tag = "car"
rssi_dbm = -50.0
"""


@pytest.mark.parametrize(
    ("protocol", "air", "unchecked"),
    [("gx", "gen2", False), ("gx", "gb29768", False), ("a0", "gen2", True), ("m100", "gen2", True)],
)
def test_the_appliances_own_checkpoint_is_silent_about_a_car_whose_plate_is_in_its_certificate(
    world, tmp_path, protocol, air, unchecked
):
    tag, told, came = world.tag(world.tagged[0]), [], threading.Event()
    banks = {name: data.hex() for name, data in tag._asdict().items()}
    (tmp_path / "scene.toml").write_text(SCENE.format(**banks, air=air))

    def post(event):
        told.append(event)
        if isinstance(event, Passed | Alarm):
            came.set()

    with ExitStack() as stack:
        settings = ReaderSettings(protocol=protocol, air=air, scene="scene.toml")
        thread = start_reader(
            settings, post, lambda: world.device.verifier, file=lambda name: tmp_path / name, stack=stack
        )  # fmt: skip
        thread.watch(on=True)
        assert came.wait(20)
    assert [event for event in told if isinstance(event, Passed | Alarm | PartFault)] == [Passed(1)]
    (record,) = read_log(world.home.audit)
    assert record["verdict"]["verdict"] == (VerdictCode.UNDECIDED if unchecked else VerdictCode.VALID)


# ------------------------------------------------------------------------------------------------- as a thread


def test_what_is_wanted_last_counts_and_nothing_wanted_closes_the_reader(world):
    bench = Bench(world, "m100", scene())
    bench.thread.read(on=True)
    bench.thread.watch(on=True)
    bench.thread.read(on=False)  # of what is over already
    bench._end_ns = bench.clock.ns + 1_000_000_000
    bench.thread.run()
    assert not bench.lists
    assert bench.thread.opened == 1


def test_over_a_real_port_the_thread_starts_lists_and_ends(world, tmp_path):
    vehicle, link, came = world.tagged[0], tmp_path / "port", threading.Event()
    posted, before = [], set(threading.enumerate())

    def post(event):
        posted.append(event)
        if isinstance(event, TagsSeen) and event.tags and event.tags[0].evidence.level is TagLevel.CERTIFIED:
            came.set()

    emulator = EmulatedReader("gx", scene(standing(world.tag(vehicle))))
    with running(emulator, time.monotonic, link):
        verifier = world.device.verifier
        thread = TagThread(
            lambda: MODELS["gx"].driver(serial_line(link, 115_200)), post, verifier.look_at,
            lambda _: Checkpoint(verifier.check, verifier.look_at),
        )  # fmt: skip
        thread.start()
        thread.read(on=True)
        assert came.wait(20)
        thread.close()
        thread.close()
    assert not [event for event in posted if isinstance(event, PartFault)]
    assert set(threading.enumerate()) <= before


def test_the_reader_is_let_go_of_while_nobody_wants_it(world):
    def nobody():
        raise DeviceNotFoundError("tag reader", "must not be opened")

    thread = TagThread(nobody, lambda _: None, world.device.verifier.look_at, lambda _: None)
    thread.start()
    thread.close()
    assert thread.opened == 0
