"""Checkpoint: silent when valid, one alarm otherwise, and every vehicle in the record."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from firmware.checkpoint import LEARNT, MEMORIES, PATIENCE_S, TWO_PLACES_S, Checkpoint
from firmware.machine.events import Alarm, Passed
from hw.rfid.emulator.port import running
from hw.rfid.tracker import HOLD_OFF_S
from hw.rfid.transport import serial_line
from hw.rfid.types import AirProtocol, Integrity, TagRead
from scripts.bench.figures import Verdict
from scripts.bench.lane import (
    BAUD,
    FORMS,
    Planted,
    Run,
    Traffic,
    build_lane,
    driver,
    emulated,
    figures,
    simulate,
    watching,
)
from scripts.cli.main import main
from scripts.sandbox.tags import PersonalisedTag, TagForm, certificate, replace_tag
from tests.test_tags import NEW_TID, NOW, World
from verifier.audit import read_log, replay
from verifier.codec.tag import tc0_epc
from verifier.types import Plate, Purpose, Source, TagAuth, TagLevel, TagSuspicion, WatchHit
from verifier.verdict import Reason, Tone, VerdictCode

SECOND = 1_000_000_000


def read_of(
    tag: PersonalisedTag,
    at_s: float,
    antenna: int = 1,
    dbm: float | None = -65.0,
    *,
    memory: bool = False,
    integrity: Integrity = Integrity.LINK_CRC,
) -> TagRead:
    tid, user = (tag.tid, tag.user) if memory else (None, None)
    raw = 0 if dbm is None else round(2 * (dbm + 100))
    wall = datetime(2026, 11, 22, tzinfo=UTC)
    return TagRead(
        AirProtocol.GEN2, tag.epc, 0x3000, tid, user, antenna, dbm, raw, None, int(at_s * SECOND), wall, "t", 0,
        integrity,
    )  # fmt: skip


class Lanes:
    """A checkpoint over a device's real checks."""

    def __init__(self, world: World, **options) -> None:
        self.checks = []
        verifier = world.device.verifier

        def check(seen):
            self.checks.append(seen)
            return verifier.check(seen)

        self.checkpoint = Checkpoint(check, verifier.look_at, **options)

    def see(self, *reads: TagRead) -> list[Alarm | Passed]:
        return [told for read in reads for told in self.checkpoint.see(read)]

    def pass_time(self, until_s: float) -> list[Alarm | Passed]:
        return list(self.checkpoint.tick(int(until_s * SECOND)))

    def learn(self, tags: list[PersonalisedTag], vehicles: int = LEARNT + 1) -> float:
        """So many vehicles by which it is known how loud one is; the moment afterwards."""
        for number in range(vehicles):
            tag = tags[number % len(tags)]
            own = PersonalisedTag(tag.tid, bytes((0xF0, number)) + bytes(10), b"")
            self.see(*(read_of(own, number + place / 10, dbm=-65 - place % 2 - number % 3) for place in range(3)))
        self.pass_time(LEARNT + 10)
        return LEARNT + 10.0


def of_no_vehicle(world: World) -> PersonalisedTag:
    """A tag whose EPC claims a plate that no vehicle has."""
    claims = certificate(world.tagged[0], world.authority.registry.credential(world.tagged[0].plate), NOW)
    return PersonalisedTag(b"", tc0_epc(replace(claims, plate=Plate("京A00000", "02")), bytes(8)), b"")


def alarms(told: list[Alarm | Passed]) -> list[Alarm]:
    return [event for event in told if isinstance(event, Alarm)]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.device.store.close()


# ------------------------------------------------------------------------------------------------- one vehicle


def test_a_vehicle_in_order_is_counted_recorded_and_silent(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    assert lanes.see(read_of(tag, 1.0), read_of(tag, 1.1), read_of(tag, 1.2)) == [Passed(1)]
    (record,) = read_log(world.home.audit)
    assert record["evidence"]["purpose"] == Purpose.CHECKPOINT
    assert (record["verdict"]["verdict"], replay(record)[1]) == (VerdictCode.VALID, True)


def test_an_alarm_names_plate_reason_and_lane_and_is_recorded_before_it_is_told(tmp_path):
    world = World(tmp_path, lambda world: world.authority.registry.set_status(world.tagged[0].plate, "C"))
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    (alarm,) = lanes.see(read_of(tag, 1.0, antenna=3))
    assert (alarm.lane, alarm.result.verdict.plate) == (3, world.tagged[0].plate)
    assert alarm.result.verdict.code is VerdictCode.WATCH_CONFIRM
    (record,) = read_log(world.home.audit)
    assert record["id"] == alarm.result.check_id
    world.device.store.close()


def test_a_checksum_of_one_byte_needs_a_second_equal_read(world):
    lanes = Lanes(world)
    tag = of_no_vehicle(world)
    assert lanes.see(read_of(tag, 1.0, integrity=Integrity.CHECKSUM8)) == []
    assert len(alarms(lanes.see(read_of(tag, 1.1, integrity=Integrity.CHECKSUM8)))) == 1


def test_one_vehicle_is_one_check_however_often_it_is_read(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    lanes.see(*(read_of(tag, 1.0 + place / 100) for place in range(500)))
    assert len(lanes.checks) == 1
    assert lanes.checkpoint.counts.vehicles == 1


def test_a_car_in_a_jam_alarms_once_and_once_more_after_the_hold_off(world):
    lanes = Lanes(world)
    tag = of_no_vehicle(world)
    jam = [read_of(tag, second) for second in range(100)]
    assert len(alarms(lanes.see(*jam))) == 1  # read all the time
    gone_a_while = lanes.see(read_of(tag, 103.0))
    assert len(alarms(gone_a_while)) == 1
    assert lanes.see(read_of(tag, 103.0 + HOLD_OFF_S / 2)) == []  # back too soon
    assert len(alarms(lanes.see(read_of(tag, 104.0 + 2 * HOLD_OFF_S)))) == 1


def test_data_that_say_nothing_make_no_alarm_but_are_counted(world):
    lanes = Lanes(world)
    world.now = NOW + timedelta(days=9)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    assert lanes.see(read_of(tag, 1.0)) == [Passed(1)]
    assert (lanes.checkpoint.counts.unchecked, lanes.checkpoint.counts.alarms) == (1, 0)


# ------------------------------------------------------------------------------------- memory that comes along


def test_a_tag_that_names_no_plate_yet_is_given_a_moment(world):
    lanes = Lanes(world, with_memory=True)
    tag = world.tag(world.tagged[0])
    assert lanes.see(read_of(tag, 1.0)) == []
    assert lanes.see(read_of(tag, 1.05, memory=True)) == [Passed(1)]
    assert lanes.checks[0].tag.seen.user == tag.user
    assert world.device.verifier.look_at(lanes.checks[0].tag.seen).level is TagLevel.CERTIFIED


def test_the_moment_is_short_and_then_it_is_an_unknown_tag(world):
    lanes = Lanes(world, with_memory=True)
    lanes.see(read_of(world.tag(world.tagged[0]), 1.0))
    assert lanes.pass_time(1.1) == []
    (alarm,) = lanes.pass_time(1.001 + PATIENCE_S)
    assert alarm.result.verdict.code is VerdictCode.UNDECIDED


def test_a_reader_without_memory_makes_no_alarm_of_a_lawful_tag_whose_plate_is_in_its_memory(world):
    lanes = Lanes(world)
    assert lanes.see(read_of(world.tag(world.tagged[0]), 1.0)) == [Passed(1)]
    counts = lanes.checkpoint.counts
    assert (counts.vehicles, counts.alarms, counts.unchecked) == (1, 0, 1)
    (record,) = read_log(world.home.audit)
    assert record["verdict"]["verdict"] == VerdictCode.UNDECIDED


def test_every_time_that_such_a_tag_passes_it_is_counted(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0])
    for passing in range(3):
        lanes.see(*(read_of(tag, 1.0 + 20 * passing + n) for n in range(14)))
    assert (lanes.checkpoint.counts.vehicles, lanes.checkpoint.counts.unchecked) == (2, 2)  # one within the hold-off


def test_without_memory_a_wanted_or_a_suspicious_tag_is_an_alarm_though_it_names_no_plate(tmp_path):
    world = World(tmp_path, lambda world: world.authority.registry.set_status(world.tagged[0].plate, "C"))
    lanes = Lanes(world)
    wanted, twice = world.tag(world.tagged[0]), world.tag(world.tagged[1])._replace(user=None)
    (alarm,) = lanes.see(read_of(wanted._replace(user=None), 1.0, memory=True))  # its TID came along
    assert Reason.WATCH_LEAD in alarm.result.verdict.reasons
    reads = [read_of(tag, 2.0 + n, memory=True) for n, tag in enumerate([twice, twice._replace(epc=b"\x31" * 12)])]
    passed, alarm = lanes.see(*reads)
    assert (passed, TagSuspicion.TWO_EPCS in alarm.result.evidence.tag.suspicions) == (Passed(1), True)
    world.device.store.close()


def test_a_tag_that_names_its_plate_is_not_passed_before_it_has_shown_its_memory(world):
    lanes = Lanes(world, with_memory=True)
    copy = world.tag(world.tagged[0], TagForm.TC0)._replace(tid=bytes.fromhex(NEW_TID))
    assert lanes.see(read_of(copy, 1.0)) == []
    (alarm,) = lanes.see(read_of(copy, 1.05, memory=True))
    assert TagSuspicion.OTHER_TAG in alarm.result.evidence.tag.suspicions
    assert len(lanes.checks) == 1


@pytest.mark.parametrize("with_memory", [True, False])
@pytest.mark.parametrize("user", [True, False], ids=["with its bank", "its TID alone"])
def test_memory_that_comes_late_is_checked_once_more_and_once_only(world, with_memory, user):
    lanes = Lanes(world, with_memory=with_memory)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    copy = tag._replace(tid=bytes.fromhex(NEW_TID), user=tag.user if user else None)
    told = lanes.see(read_of(copy, 1.0)) + lanes.pass_time(1.001 + PATIENCE_S)
    assert told == [Passed(1)]  # by its EPC alone
    (alarm,) = lanes.see(*(read_of(copy, 1.2 + n / 10, memory=True) for n in range(5)))
    assert Reason.TAG_AUTH_FAILED in alarm.result.verdict.reasons
    assert (len(lanes.checks), lanes.checkpoint.counts.vehicles) == (2, 1)


def test_memory_that_comes_late_from_a_lawful_tag_ends_in_silence_and_takes_the_unchecked_back(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0])
    assert lanes.see(read_of(tag, 1.0), read_of(tag, 1.3, memory=True)) == [Passed(1)]
    counts = lanes.checkpoint.counts
    assert (counts.vehicles, counts.alarms, counts.unchecked) == (1, 0, 0)


def test_a_proof_that_fails_later_is_checked_once_more_and_a_proof_after_it_takes_nothing_back(world):
    lanes = Lanes(world, with_memory=True)
    read = read_of(world.tag(world.tagged[0]), 1.0, memory=True)
    said = [TagAuth.OK, TagAuth.FAIL, TagAuth.OK, TagAuth.FAIL]
    told = lanes.see(*(read._replace(auth=auth, mono_ns=read.mono_ns + n * 1000) for n, auth in enumerate(said)))
    assert [type(event) for event in told] == [Passed, Alarm]
    assert Reason.TAG_AUTH_FAILED in told[1].result.verdict.reasons
    assert [check.tag.seen.auth for check in lanes.checks] == [TagAuth.OK, TagAuth.FAIL]
    lanes.see(read._replace(tid=bytes.fromhex(NEW_TID), auth=TagAuth.OK, mono_ns=2 * SECOND))
    assert [check.tag.seen.auth for check in lanes.checks][2:] == [TagAuth.FAIL]


# ------------------------------------------------------------------------------------ one damaged frame in a good line


@pytest.mark.parametrize("damaged", [0, 1, 3], ids=["the first", "the second", "a late one"])
@pytest.mark.parametrize("bank", ["tid", "user", "epc"])
def test_one_damaged_frame_that_passes_a_checksum_of_one_byte_accuses_nobody(world, damaged, bank):
    lanes = Lanes(world, with_memory=True)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    content = getattr(tag, bank)
    bad = tag._replace(**{bank: content[:-1] + bytes((content[-1] ^ 1,))})
    reads = [
        read_of(bad if n == damaged else tag, 1.0 + n / 50, memory=True, integrity=Integrity.CHECKSUM8)
        for n in range(6)
    ]  # fmt: skip
    assert lanes.see(*reads) == [Passed(1)]
    assert all(not check.tag.seen.suspicions for check in lanes.checks)


def test_a_copy_beside_its_original_is_found_through_a_checksum_of_one_byte_too(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    both = [tag, tag._replace(tid=bytes.fromhex(NEW_TID))] * 3
    told = lanes.see(
        *(read_of(t, 1.0 + n / 50, memory=True, integrity=Integrity.CHECKSUM8) for n, t in enumerate(both))
    )  # fmt: skip
    (alarm,) = alarms(told)
    assert TagSuspicion.TWO_TAGS in alarm.result.evidence.tag.suspicions


def test_a_tag_that_tells_another_tid_each_time_grows_nothing(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    for n in range(100):
        lanes.see(read_of(tag._replace(tid=n.to_bytes(12)), 1.0 + n / 100, memory=True, integrity=Integrity.CHECKSUM8))
    known = lanes.checkpoint._known.get((AirProtocol.GEN2, tag.epc))
    assert len(known.heard) == MEMORIES


def test_with_and_without_its_tid_a_tag_is_one_vehicle(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    lanes.see(read_of(tag, 1.0), read_of(tag, 1.1, memory=True), read_of(tag, 1.2))
    assert lanes.checkpoint.counts.vehicles == 1


# ------------------------------------------------------------------------------------------------------ copies


def test_one_tid_with_two_epcs_is_suspect(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0])
    assert lanes.see(read_of(tag, 1.0, memory=True)) == [Passed(1)]
    (alarm,) = lanes.see(read_of(tag._replace(epc=b"\x30" + bytes(11)), 20.0, memory=True))
    assert TagSuspicion.TWO_EPCS in alarm.result.evidence.tag.suspicions


def test_one_plate_on_two_tags_is_suspect(tmp_path):
    old = []

    def renew(world):
        old.append(world.tag(world.tagged[0]))
        replace_tag(world.authority.registry, world.tagged[0].plate, NEW_TID)

    world = World(tmp_path, renew)
    lanes = Lanes(world)
    assert lanes.see(read_of(world.tag(world.tagged[0]), 1.0, memory=True)) == [Passed(1)]
    (alarm,) = lanes.see(read_of(old[0], 5.0, memory=True))
    assert TagSuspicion.TWO_TAGS in alarm.result.evidence.tag.suspicions
    assert alarm.result.verdict.tone is Tone.CAUTION
    world.device.store.close()


def test_one_epc_with_two_tids_is_suspect(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    lanes.see(read_of(tag, 1.0, memory=True))
    (alarm,) = lanes.see(read_of(tag._replace(tid=bytes.fromhex(NEW_TID)), 1.2, memory=True))
    assert TagSuspicion.TWO_TAGS in alarm.result.evidence.tag.suspicions
    assert Reason.TAG_AUTH_FAILED in alarm.result.verdict.reasons


@pytest.mark.parametrize("dbm", [True, False], ids=["in dBm", "in the reader's own numbers"])
def test_one_tag_strong_in_two_lanes_that_are_no_neighbours_is_suspect_once(world, dbm):
    lanes = Lanes(world)
    tags = [world.tag(v, TagForm.TC0) for v in world.tagged[:8]]
    start = lanes.learn(tags)
    tag = tags[0]
    seen = [read_of(tag, start + n / 50, antenna=1 + 2 * (n % 2)) for n in range(20)]
    if not dbm:
        seen = [read._replace(rssi_dbm=None, rssi_raw=round(read.rssi_dbm)) for read in seen]
    told = lanes.see(*seen)
    assert [type(event) for event in told] == [Passed, Alarm]
    assert told[1].result.evidence.tag.suspicions == (TagSuspicion.TWO_PLACES,)
    assert told[1].result.verdict.code is VerdictCode.VALID
    assert told[1].result.verdict.tone is Tone.CAUTION


@pytest.mark.parametrize(
    "heard",
    [
        {1: -76.0, 2: -65.0, 3: -76.0},  # in the middle lane, its neighbours hear it too
        {1: -65.0, 2: -65.0},  # on the line between two lanes
        {1: -65.0, 2: -75.0, 3: -85.0},
        {1: -66.0, 2: -60.0, 3: -66.0},  # a loud one
    ],
)
def test_a_car_that_several_antennas_hear_as_they_must_is_no_copy(world, heard):
    lanes = Lanes(world)
    tags = [world.tag(v, TagForm.TC0) for v in world.tagged[:8]]
    start = lanes.learn(tags)
    order = sorted(heard, key=lambda antenna: -heard[antenna]) * 20
    reads = [read_of(tags[0], start + n / 100, antenna=on, dbm=heard[on]) for n, on in enumerate(order)]
    assert lanes.see(*reads) == [Passed(1)]


def test_a_car_that_comes_back_on_another_lane_later_is_no_copy(world):
    lanes = Lanes(world)
    tags = [world.tag(v, TagForm.TC0) for v in world.tagged[:8]]
    start = lanes.learn(tags)
    lanes.see(*(read_of(tags[0], start + n / 50) for n in range(5)))
    back = lanes.see(*(read_of(tags[0], start + 2 * HOLD_OFF_S + TWO_PLACES_S + n / 50, antenna=3) for n in range(5)))
    assert back == [Passed(1)]


@pytest.mark.parametrize("vehicles", [0, 1, LEARNT // 2])
def test_before_it_is_known_how_loud_a_car_is_nobody_is_suspected_for_it(world, vehicles):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    start = lanes.learn([tag], vehicles)
    assert lanes.see(*(read_of(tag, start + n / 50, antenna=1 + 2 * (n % 2)) for n in range(20))) == [Passed(1)]


@pytest.mark.parametrize(("apart_s", "suspect"), [(4.0, True), (HOLD_OFF_S + 1, False)])
def test_one_plate_on_two_epcs_is_suspect_within_the_hold_off(world, apart_s, suspect):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    other = tag._replace(epc=tag.epc[:-1] + bytes((tag.epc[-1] ^ 1,)))  # the same plate, another place in the list
    told = lanes.see(read_of(tag, 1.0), read_of(other, 1.0 + apart_s))
    assert [bool(alarms([event])) for event in told] == [False, suspect]


def test_a_new_suspicion_of_a_car_that_has_just_alarmed_is_recorded_and_not_told_again(tmp_path):
    world = World(tmp_path, lambda world: world.authority.registry.set_status(world.tagged[0].plate, "C"))
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    assert len(alarms(lanes.see(read_of(tag, 1.0, memory=True)))) == 1
    assert lanes.see(read_of(tag._replace(tid=bytes.fromhex(NEW_TID)), 1.2, memory=True)) == []
    assert len(list(read_log(world.home.audit))) == 2
    world.device.store.close()


def test_a_copied_certificate_is_an_alarm_also_where_the_data_say_nothing(world):
    lanes = Lanes(world)
    world.now = NOW + timedelta(days=9)
    copy = world.tag(world.tagged[0])._replace(tid=bytes.fromhex(NEW_TID))
    (alarm,) = lanes.see(read_of(copy, 1.0, memory=True))
    assert (alarm.result.verdict.code, alarm.result.verdict.tone) == (VerdictCode.UNDECIDED, Tone.CAUTION)


def test_a_suspicion_of_this_morning_is_none_in_the_evening(world):
    lanes = Lanes(world)
    tag = world.tag(world.tagged[0], TagForm.TC0)
    lanes.see(read_of(tag, 1.0, memory=True), read_of(tag._replace(tid=bytes.fromhex(NEW_TID)), 1.2, memory=True))
    assert lanes.see(read_of(tag, 36_000.0, memory=True)) == [Passed(1)]


# ------------------------------------------------------------------------------------------ a list of this place


def test_a_plate_on_the_list_of_this_place_is_an_alarm_that_asks_for_the_plate_first(world):
    wanted = world.tagged[0].plate
    hit = WatchHit(basis=Source.TAG, kind="tonight", as_of=NOW)
    lanes = Lanes(world, watch_list=lambda plate: (hit,) if plate == wanted else ())
    (alarm,) = lanes.see(read_of(world.tag(world.tagged[0], TagForm.TC0), 1.0))
    assert alarm.result.verdict.code is VerdictCode.WATCH_CONFIRM
    assert lanes.see(read_of(world.tag(world.tagged[1], TagForm.TC0), 2.0)) == [Passed(1)]


# --------------------------------------------------------------------------------------------- the whole lane

SOME = Traffic(vehicles=240, seed=4)


@pytest.mark.parametrize("protocol", FORMS)
def test_in_dense_traffic_exactly_the_planted_vehicles_alarm_in_time(tmp_path, protocol):
    lane = build_lane(tmp_path, SOME, FORMS[protocol])
    kinds = set(Planted) - ({Planted.BANK_COPIED, Planted.UNKNOWN_TAG} if protocol == "a0" else set())
    assert set(lane.planted.values()) == kinds
    run = simulate(lane, protocol)
    assert set(run.alarms) == set(lane.planted)
    assert run.counts.unchecked == len(lane.nameless) == (1 if protocol == "a0" else 0)
    assert all(lane.leaves_s[epc] > at_s for epc, at_s in run.alarms.items())
    assert len(run.checked) == len(lane.leaves_s)
    assert Verdict.MISSED not in {figure.verdict for figure in figures(lane, run)}
    records = [record for record in read_log(lane.home.audit) if record["kind"] == "check"]
    assert len(records) >= len(run.checked)
    assert all(replay(record)[1] for record in records[:50])


def test_the_report_tells_what_was_missed(tmp_path):
    lane = build_lane(tmp_path, replace(SOME, vehicles=80), TagForm.TC0)
    run = simulate(lane, "a0")
    epc = next(iter(run.alarms))
    late = replace(lane, leaves_s={**lane.leaves_s, epc: run.alarms[epc] - 0.01})
    missed = {figure.name for figure in figures(late, run) if figure.verdict is Verdict.MISSED}
    assert missed == {"latest alarm before its car left the zone"}
    del run.alarms[epc]
    assert "planted vehicles without an alarm" in {
        figure.name for figure in figures(lane, run) if figure.verdict is Verdict.MISSED
    }


@pytest.mark.long
@pytest.mark.parametrize("protocol", FORMS)
def test_over_a_real_port_exactly_the_planted_vehicles_alarm(tmp_path, protocol):
    # Emulator and handheld share one interpreter here, so the cars drive half as fast as under the other clock.
    lane = build_lane(tmp_path / "home", replace(SOME, vehicles=160, speed_kmh=60.0), FORMS[protocol])
    run, link = Run(), tmp_path / "port"
    with running(emulated(lane, protocol), time.monotonic, link):
        make = driver(protocol, serial_line(link, BAUD[protocol]))
        with watching(lane, run, make) as thread:
            thread.start()
            thread.watch(on=True)
            time.sleep(lane.scene.ends_s + 2.0)
    assert set(run.alarms) == set(lane.planted)
    assert len(run.checked) >= 0.99 * len(lane.leaves_s)
    assert run.faults == []


# --------------------------------------------------------------------------------------------------- the command


def test_the_command_simulates_a_lane_and_tells_what_it_cost(capsys):
    assert main(["checkpoint", "--protocol", "a0", "--simulate", "--vehicles", "80"]) == 0
    out = capsys.readouterr().out
    assert "80 vehicles, 4 lanes, 120 km/h" in out
    assert "processor" in out
    assert "missed" not in out


def test_the_command_speaks_json(capsys):
    assert main(["checkpoint", "--protocol", "a0", "--simulate", "--vehicles", "80", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"alarms for a vehicle in order", "processor"} <= {line["name"] for line in lines}


def test_a_port_that_is_not_there_is_named_and_ends_with_status_1(tmp_path, capsys):
    path = tmp_path / "none"
    line = ["checkpoint", "--protocol", "a0", "--port", str(path), "--seconds", "0.3", "--home", str(tmp_path)]
    assert main(line) == 1
    told = capsys.readouterr()
    assert "port cannot be opened" in told.err
    assert "0 vehicles" in told.out


@pytest.mark.parametrize(
    "text",
    [
        "no json", "[]", "{}", '{"plates": 3}', '{"as_of": "2026-11-22", "plates": [{"plate": "京A12345"}]}',
        '{"as_of": "2026-11-22T02:00:00+00:00", "plates": [{}]}',
        '{"as_of": "2026-11-22T02:00:00+00:00", "plates": ["京A12345"]}',
        '{"as_of": "2026-11-22T02:00:00+00:00", "plates": [{"plate": "X"}]}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_watch_list_that_cannot_be_used_is_refused(tmp_path, text, capsys):
    path = tmp_path / "list.json"
    path.write_text(text)
    line = ["checkpoint", "--protocol", "a0", "--port", str(tmp_path / "none"), "--watch-list", str(path)]
    assert main([*line, "--seconds", "0.2", "--home", str(tmp_path)]) == 2
    assert "--watch-list" in capsys.readouterr().err


def test_neither_port_nor_simulation_is_wrong_usage(capsys):
    assert main(["checkpoint", "--protocol", "a0"]) == 2
    assert main(["checkpoint", "--protocol", "m100", "--simulate"]) == 2
