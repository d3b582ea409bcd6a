"""From reads to passings; time comes with the reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.rfid.tracker import Arrived, Left, Tracker
from hw.rfid.types import AirProtocol, Integrity, TagRead

WALL = datetime(2026, 11, 22, tzinfo=UTC)


def read(
    seconds: float,
    epc: bytes = b"\x01\x02",
    *,
    tid: bytes | None = None,
    antenna: int = 1,
    dbm: float | None = -60.0,
    integrity: Integrity = Integrity.TAG_CRC,
    protocol: AirProtocol = AirProtocol.GEN2,
) -> TagRead:
    return TagRead(
        protocol, epc, 0, tid, None, antenna, dbm, 0, None, round(seconds * 1e9), WALL, "r", 1, integrity
    )  # fmt: skip


def kinds(events: list) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_tag_arrives_once_and_leaves_two_seconds_after_its_last_read():
    tracker = Tracker()
    assert kinds(tracker.see(read(0))) == ["Arrived"]
    assert [tracker.see(read(t / 10)) for t in range(1, 40)] == [[]] * 39
    assert tracker.tick(round(5.9e9)) == []
    (left,) = tracker.tick(round(5.901e9))
    assert (left.passing.count, left.passing.seconds) == (40, 3.9)
    assert tracker.present == []


def test_a_car_in_a_jam_does_not_arrive_again():
    tracker = Tracker()
    events = [event for t in range(600) for event in tracker.see(read(t * 1.9))]
    assert kinds(events) == ["Arrived"]


def test_a_checksum_alone_needs_two_equal_reads_to_arrive():
    tracker = Tracker()
    assert tracker.see(read(0, integrity=Integrity.CHECKSUM8)) == []
    assert tracker.see(read(0.1, b"\x09\x09", integrity=Integrity.CHECKSUM8)) == []
    assert kinds(tracker.see(read(0.2, integrity=Integrity.CHECKSUM8))) == ["Arrived"]
    assert kinds(tracker.tick(round(9e9))) == ["Left"]  # what never arrived does not leave


def test_a_tag_below_the_floor_arrives_when_it_comes_nearer():
    tracker = Tracker(floor_dbm=-65.0)
    assert tracker.see(read(0, dbm=-70.0)) == []
    assert kinds(tracker.see(read(0.1, dbm=-64.0))) == ["Arrived"]
    assert kinds(Tracker(floor_dbm=-65.0).see(read(0, dbm=None))) == ["Arrived"]


def test_the_same_tag_alarms_again_only_after_thirty_seconds():
    tracker = Tracker()
    alerts = []
    for t in (0, 10, 20, 27.9, 30.1, 40, 70):
        alerts += [event.alert for event in tracker.see(read(t)) if isinstance(event, Arrived)]
    assert alerts == [True, False, False, False, True, False, True]


def test_the_lane_is_the_antenna_with_most_reads_and_of_equals_the_loudest():
    tracker = Tracker()
    tracker.see(read(0, antenna=1, dbm=-40.0))
    tracker.see(read(0.1, antenna=2, dbm=-60.0))
    tracker.see(read(0.2, antenna=2, dbm=-61.0))
    tracker.see(read(0.3, antenna=3, dbm=-55.0))
    (passing,) = tracker.present
    assert (passing.lane, passing.peak_dbm) == (2, -40.0)
    tracker.see(read(0.4, antenna=3, dbm=-58.0))
    assert passing.lane == 3


def test_a_tag_is_known_by_its_tid_where_it_was_read_and_by_its_air_protocol():
    tracker = Tracker()
    tracker.see(read(0, b"\x01", tid=b"\xe2"))
    assert tracker.see(read(0.1, b"\x02", tid=b"\xe2")) == []
    assert kinds(tracker.see(read(0.2, b"\x01", tid=b"\xe3"))) == ["Arrived"]
    assert kinds(tracker.see(read(0.3, b"\xe2", protocol=AirProtocol.GB29768))) == ["Arrived"]
    assert len(tracker.present) == 3


def test_a_read_after_the_gap_ends_the_old_passing_and_begins_a_new_one():
    tracker = Tracker()
    tracker.see(read(0))
    assert kinds(tracker.see(read(2.5))) == ["Left", "Arrived"]


def test_a_flood_of_made_up_tags_grows_nothing_beyond_its_cap():
    tracker = Tracker(cap=16)
    events = [event for n in range(5000) for event in tracker.see(read(n / 1e4, n.to_bytes(4, "big")))]
    assert len(tracker.present) == len(tracker._alerts) == 16
    assert sum(isinstance(event, Left) for event in events) == 5000 - 16


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 3), st.integers(1, 4), st.sampled_from(list(Integrity))), max_size=60
    )
)
def test_every_arrival_is_left_exactly_once_whatever_the_order_of_tags(steps):
    tracker, now, events = Tracker(cap=3), 0.0, []
    for step, epc, antenna, integrity in steps:
        now += step
        events += tracker.see(read(now, bytes((epc,)), antenna=antenna, integrity=integrity))
    events += tracker.tick(round((now + 2.1) * 1e9))
    arrived = [id(event.passing) for event in events if isinstance(event, Arrived)]
    assert sorted(arrived) == sorted(id(event.passing) for event in events if isinstance(event, Left))
    assert len(set(arrived)) == len(arrived)


def test_a_cap_of_the_default_size_is_kept():
    tracker = Tracker()
    for n in range(4200):
        tracker.see(read(n / 1e5, n.to_bytes(4, "big")))
    assert len(tracker.present) == 4096


@pytest.mark.parametrize("gap", [0.5, 10.0])
def test_the_gap_can_be_configured(gap):
    tracker = Tracker(gap_s=gap)
    tracker.see(read(0))
    assert tracker.tick(round(gap * 1e9)) == []
    assert kinds(tracker.tick(round(gap * 1e9) + 1)) == ["Left"]
