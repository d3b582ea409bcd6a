"""Verdicts on old data are looked at again when the centre can be asked, and who was told otherwise hears of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from tests import fault_proxy as faults
from tests.centres import OLD, START, Handset, OnlineWorld
from tests.fault_proxy import fault_proxy
from tests.test_late_answers import code_of
from verifier.audit import read_log, replay
from verifier.cache.keys import PLATE, plate_bytes
from verifier.codec.online import MAX_IDS, AskedId, IdKind, ReportReason, decode_request, encode_report
from verifier.link import Mode
from verifier.recheck import LONGEST_WAIT, RECHECK_EVERY_MS, Rechecker, report_of
from verifier.recheck_queue import MAX_WAITING, News, RecheckQueue
from verifier.trusted_time import Doubt, TrustedTime
from verifier.types import Month, Plate
from verifier.verdict import VerdictCode

V = VerdictCode


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture(scope="module")
def url(world: OnlineWorld) -> Iterator[str]:
    with world.serving() as url:
        yield url


@pytest.fixture
def hand(world: OnlineWorld, url: str, tmp_path: Path) -> Iterator[Handset]:
    """Offline, with data of three days ago."""
    world.reports.clear()
    with world.old_data(tmp_path) as folder:
        hand = Handset(world, folder, url, mode=Mode.OFFLINE)
        yield hand
        hand.close()


def run(hand: Handset):
    hand.centre.choose(Mode.AUTO)
    return hand.rechecker.run(hand.verifier.standing())


def test_a_green_on_old_data_that_does_not_hold_is_told_to_officer_and_centre(world, hand):
    good, bad = world.vehicle(), world.vehicle()
    held = hand.check(good.plate)[0]
    fell = hand.check(bad.plate)[0]
    world.authority.registry.lapse(bad.plate, Month(2026, 8))
    world.now += timedelta(hours=2)
    done = run(hand)
    assert {(n.check_id, n.then, n.now) for n in done.settled} == {
        (held.check_id, V.VALID_STALE, V.VALID),
        (fell.check_id, V.VALID_STALE, V.EXPIRED),
    }
    assert (done.waiting, done.gone, done.unreported) == (0, 0, 0)
    assert {n.check_id for n in hand.queue.news() if n.now is V.EXPIRED} == {fell.check_id}
    told = {report.check_id.hex(): report for report in world.reports}
    assert told[fell.check_id].now is V.EXPIRED
    assert told[fell.check_id].reason is ReportReason.CORRECTED
    assert told[fell.check_id].vehicle.key == world.hasher.digest(PLATE, plate_bytes(bad.plate))
    for news in hand.queue.news():
        hand.queue.told(news.check_id)
    assert hand.queue.news() == []
    entries = list(read_log(hand.audit))
    assert [entry["kind"] for entry in entries] == ["check", "check", "upgrade", "upgrade"]
    assert all(replay(entry)[1] for entry in entries)


def test_a_red_on_old_data_that_was_wrong_is_taken_back(world, hand, tmp_path):
    vehicle = world.vehicle()
    world.now = START
    world.authority.registry.lapse(vehicle.plate, Month(2026, 8))
    world.authority.publish()
    world.sync(tmp_path)
    world.now = START + OLD
    world.authority.registry.renew(vehicle.plate, Month(2027, 8))
    (local,) = hand.check(vehicle.plate)
    assert local.verdict.code is V.EXPIRED_UNCONFIRMED
    (news,) = run(hand).settled
    assert (news.then, news.now) == (V.EXPIRED_UNCONFIRMED, V.VALID)


def test_a_credential_that_was_revoked_meanwhile_is_found_again(world, hand):
    vehicle = world.vehicle()
    hand.check(vehicle.plate, code_of(world, vehicle.plate))
    world.authority.registry.revoke(vehicle.plate)
    (news,) = run(hand).settled
    assert news.now is V.REVOKED


def test_the_queue_on_disk_holds_no_plate_no_key_and_no_serial(world, hand, tmp_path):
    vehicle = world.vehicle()
    code = code_of(world, vehicle.plate)
    hand.check(vehicle.plate, code)
    data = (tmp_path / "rechecks.db").read_bytes()
    serial = world.authority.registry.credential(vehicle.plate).serial
    digest = world.hasher.digest(PLATE, plate_bytes(vehicle.plate))
    for secret in (vehicle.plate.text.encode(), serial.encode(), bytes.fromhex(serial), digest, digest.hex().encode()):
        assert secret not in data


def test_the_queue_outlives_a_restart(world, hand, tmp_path, url):
    check_id = hand.check(world.vehicle().plate)[0].check_id
    again = Handset(world, tmp_path, url)
    (news,) = again.rechecker.run(again.verifier.standing()).settled
    again.close()
    assert news.check_id == check_id


def test_what_the_centre_cannot_say_yet_goes_on_waiting_and_fills_no_log(world, hand):
    hand.check(world.vehicle().plate)
    world.unknown = True
    for _ in range(3):
        done = run(hand)
        assert (done.settled, done.waiting) == ((), 1)
    assert len(list(read_log(hand.audit))) == 1
    world.unknown = False
    assert len(run(hand).settled) == 1


@pytest.mark.parametrize(
    "fault", [faults.reset_in_the_middle, faults.captive_portal, faults.answers(403), faults.answers(500)]
)
def test_a_failure_loses_nothing_of_the_queue(world, tmp_path, hand, url, fault):
    hand.check(world.vehicle().plate)
    with fault_proxy(fault, url) as proxy:
        cut_off = Handset(world, tmp_path, proxy.url)
        done = cut_off.rechecker.run(cut_off.verifier.standing())
        assert (done.settled, done.waiting, len(proxy.requests)) == ((), 1, 1)
        cut_off.close()
    assert len(run(hand).settled) == 1


def test_a_report_without_a_receipt_is_sent_again_under_the_same_number(world, tmp_path, hand, url):
    hand.check(world.vehicle().plate)

    def deaf_to_reports(wire: faults.Wire) -> None:
        wire.read_request()
        if wire.path == "/v1/reports":
            wire.forward()
            wire.reset()
            return
        wire.send(faults.http(200, wire.forward().content, "application/cose"))

    with fault_proxy(deaf_to_reports, url) as proxy:
        deaf = Handset(world, tmp_path, proxy.url)
        assert deaf.rechecker.run(deaf.verifier.standing()).unreported == 1
        deaf.close()
    assert run(hand).unreported == 0
    first, second = world.reports
    assert first == second
    assert run(hand).unreported == 0
    assert len(world.reports) == 2


def test_a_report_that_is_never_taken_does_not_hold_up_the_others(world, tmp_path, hand, url):
    for _ in range(2):
        hand.check(world.vehicle().plate)

    def refuses_the_first(wire: faults.Wire) -> None:
        wire.read_request()
        if wire.path == "/v1/reports" and not refused:
            refused.append(wire.body)
            wire.send(faults.http(409, b"{}", "application/problem+json"))
            return
        answer = wire.forward()
        wire.send(faults.http(200, answer.content, answer.headers["Content-Type"]))

    refused: list[bytes] = []
    with fault_proxy(refuses_the_first, url) as proxy:
        other = Handset(world, tmp_path, proxy.url)
        assert other.rechecker.run(other.verifier.standing()).unreported == 0
        other.close()
    assert (len(refused), len(world.reports)) == (1, 1)


def test_a_report_of_another_version_does_not_hold_up_the_others(world, hand, tmp_path):
    hand.check(world.vehicle().plate)
    with closing(sqlite3.connect(tmp_path / "rechecks.db")) as connection, connection:
        connection.execute("INSERT INTO outbox VALUES (?, 1, ?)", (bytes(16), b"of another version"))
    assert run(hand).unreported == 0
    assert len(world.reports) == 1


def test_offline_mode_ends_the_sending_of_reports_at_once(world, tmp_path, hand, url):
    for _ in range(3):
        hand.check(world.vehicle().plate)

    def switches_off(wire: faults.Wire) -> None:
        wire.read_request()
        answer = wire.forward()
        if wire.path == "/v1/reports":
            other.centre.choose(Mode.OFFLINE)
        wire.send(faults.http(200, answer.content, answer.headers["Content-Type"]))

    with fault_proxy(switches_off, url) as proxy:
        other = Handset(world, tmp_path, proxy.url)
        assert other.rechecker.run(other.verifier.standing()).unreported == 2
        other.close()
    assert len(world.reports) == 1


def test_many_checks_are_asked_in_requests_of_fifty(world, tmp_path, hand, url):
    plates = list(world.authority.registry.vehicles)[:65]
    for plate in plates:
        hand.check(plate)
    waiting = len(hand.queue.waiting())
    with fault_proxy(faults.clean, url) as proxy:
        batch = Handset(world, tmp_path, proxy.url, total_ms=60_000)
        proxy.fault = only_status
        done = batch.rechecker.run(batch.verifier.standing())
        batch.close()
        sizes = [len(decode_request(body).ids) for body in proxy.requests[: -(-waiting // MAX_IDS)]]
    assert waiting > MAX_IDS
    assert len(done.settled) == waiting
    assert max(sizes) <= MAX_IDS
    assert len(sizes) == -(-waiting // MAX_IDS)


def only_status(wire: faults.Wire) -> None:
    wire.read_request()
    if wire.path == "/v1/reports":
        wire.send(faults.http(503, b"{}", "application/problem+json"))
        return
    wire.send(faults.http(200, wire.forward().content, "application/cose"))


def test_a_check_of_another_epoch_or_that_is_too_old_is_dropped(world, hand, tmp_path):
    (other,) = hand.check(world.vehicle().plate)
    hand.check(world.vehicle().plate)
    RecheckQueue(tmp_path / "rechecks.db", bytes(32)).add(other)
    done = run(hand)
    assert (len(done.settled), done.gone) == (1, 1)
    hand.centre.choose(Mode.OFFLINE)
    hand.check(world.vehicle().plate)
    world.now += LONGEST_WAIT + timedelta(seconds=1)
    assert run(hand).gone == 1
    assert hand.queue.waiting() == []


def test_a_queue_that_cannot_be_read_for_a_moment_loses_nothing(world, hand, monkeypatch):
    hand.check(world.vehicle().plate)
    monkeypatch.setattr(hand.queue, "records", lambda: None)
    assert (run(hand).waiting, run(hand).gone) == (1, 0)
    monkeypatch.undo()
    assert len(run(hand).settled) == 1


def test_the_queue_is_bounded_and_the_oldest_goes(world, hand, tmp_path):
    result = hand.check(world.vehicle().plate)[0]
    queue = RecheckQueue(tmp_path / "full.db", bytes(32))
    queue.add(result)
    with closing(sqlite3.connect(tmp_path / "full.db")) as connection, connection:
        rows = [(f"{i:032x}", int(START.timestamp()) - i, "VALID_STALE") for i in range(MAX_WAITING + 50)]
        connection.executemany("INSERT INTO waiting VALUES (?, ?, ?)", rows)
    queue.add(result)
    waiting = [number for number, _, _ in queue.waiting()]
    assert len(waiting) == MAX_WAITING
    assert waiting[-1] == result.check_id


@pytest.mark.parametrize("spoil", [b"", b"not a database at all", b"SQLite format 3\x00" + bytes(5000)])
def test_a_damaged_queue_is_set_aside_and_the_next_check_is_queued(world, hand, tmp_path, spoil):
    result = hand.check(world.vehicle().plate)[0]
    path = tmp_path / "rechecks.db"
    path.write_bytes(spoil)
    hand.queue.waiting()
    assert hand.queue.add(result) or hand.queue.add(result)
    assert [number for number, _, _ in hand.queue.waiting()] == [result.check_id]


def test_a_queue_that_cannot_be_written_is_no_error_to_the_officer(world, hand, tmp_path):
    path = tmp_path / "rechecks.db"
    path.unlink(missing_ok=True)
    path.mkdir()
    (result,) = hand.check(world.vehicle().plate)
    assert result.verdict.code is V.VALID_STALE
    assert not hand.queue.add(result)
    assert (hand.queue.waiting(), hand.queue.news(), hand.queue.outbox()) == ([], [], [])


def test_a_clock_of_any_year_is_queued_and_reported_within_the_formats_bounds(world, hand, tmp_path):
    result = hand.check(world.vehicle().plate)[0]
    for year in (1969, 2500):
        queue = RecheckQueue(tmp_path / f"{year}.db", bytes(32))
        queue.add(replace(result, now=result.now.replace(year=year)))
        ((number, at, then),) = queue.waiting()
        news = News(check_id=number, at=at, then=then, now=V.VALID)
        assert encode_report(report_of(news, AskedId(IdKind.PLATE, bytes(16)), bytes(16)))


def test_when_the_centre_is_back_the_queue_runs_without_a_scan(world, tmp_path, hand, url):
    with fault_proxy(faults.answers(500), url) as proxy:
        other = Handset(world, tmp_path, proxy.url)
        for _ in range(2):
            other.check(world.vehicle().plate)
        assert other.rechecker.run(other.verifier.standing()).waiting == 2
        assert proxy.connections == 2  # an open link asks nobody
        proxy.fault = faults.clean
        other.ticks.ms += 15_000
        other.upkeep.step()
        assert other.queue.waiting() == []
        assert {news.now for news in other.queue.news()} == {V.VALID}
        other.close()


def test_the_queue_is_worked_off_once_a_minute_by_a_thread_that_can_be_stopped(world, tmp_path, hand, url):
    other = Handset(world, tmp_path, url)
    hand.check(world.vehicle().plate)
    other.upkeep.step()
    assert hand.queue.waiting() == []
    hand.check(world.vehicle().plate)
    other.ticks.ms += RECHECK_EVERY_MS - 1
    other.upkeep.step()
    assert len(hand.queue.waiting()) == 1
    other.ticks.ms += 1
    other.upkeep.step()
    assert hand.queue.waiting() == []
    stop = threading.Event()
    stop.set()
    other.upkeep.run(stop)  # returns
    other.close()


def test_asking_what_the_device_has_leaves_the_rules_of_a_running_check_alone(world, tmp_path, hand):
    hand.check(world.vehicle().plate)
    rules = hand.verifier._rules
    world.now = START + timedelta(minutes=5)
    world.authority.publish()
    world.sync(tmp_path)
    standing = hand.verifier.standing()
    assert standing.as_of == START + timedelta(minutes=5)
    assert hand.verifier._rules is rules


def test_a_plate_that_nobody_can_hash_is_not_queued_for_ever(world, hand):
    hand.check(Plate("X" * 3, None))
    run(hand)
    assert hand.queue.waiting() == []


# ----------------------------------------------------------------------------------- the time of the check counts


@pytest.fixture
def november(tmp_path: Path) -> Iterator[tuple[OnlineWorld, Handset, Plate]]:
    """Offline on 30 November with data of three days ago, before a car whose month is November."""
    world = OnlineWorld(now=datetime(2026, 11, 27, 10, 0, tzinfo=UTC))
    vehicle = world.vehicle()
    world.authority.registry.vehicles[vehicle.plate] = replace(vehicle, valid_until=Month(2026, 11))
    world.authority.publish()
    world.sync(tmp_path)
    world.now = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
    with world.serving() as url:
        hand = Handset(world, tmp_path, url, mode=Mode.OFFLINE)
        yield world, hand, vehicle.plate
        hand.close()


@pytest.mark.parametrize("letter", [False, True])
def test_who_was_lawful_when_checked_is_told_no_stop_because_the_month_has_ended_since(november, letter):
    world, hand, plate = november
    assert hand.check(plate)[0].verdict.code is V.VALID_STALE
    world.now = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
    if letter:
        world.authority.registry.lapse(plate, Month(2026, 11))
    (news,) = run(hand).settled
    assert (news.then, news.now) == (V.VALID_STALE, V.VALID)
    (report,) = world.reports
    assert report.now is V.VALID
    assert all(replay(entry)[1] for entry in read_log(hand.audit))


@pytest.mark.parametrize("month", [Month(2026, 10), Month(2026, 12)])
def test_an_overdue_that_does_not_come_of_the_months_end_is_told_all_the_same(november, month):
    """Over before the check, or by letter Q of another reason."""
    world, hand, plate = november
    hand.check(plate)
    world.now = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
    world.authority.registry.lapse(plate, month)
    (news,) = run(hand).settled
    assert news.now is V.EXPIRED


def test_a_letter_q_that_the_data_had_at_the_check_does_not_come_of_a_month_that_ended_since(november, tmp_path):
    world, hand, plate = november
    world.authority.registry.lapse(plate, Month(2026, 11))
    world.now = datetime(2026, 11, 27, 11, 0, tzinfo=UTC)
    world.authority.publish()
    world.sync(tmp_path)
    world.now = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
    assert hand.check(plate)[0].verdict.code is V.EXPIRED_UNCONFIRMED
    world.now = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
    (news,) = run(hand).settled
    assert news.now is V.EXPIRED


@pytest.mark.parametrize(
    ("asked", "told"),
    [(datetime(2026, 11, 30, 18, 0, tzinfo=UTC), V.UNDECIDED), (datetime(2026, 11, 30, 14, 0, tzinfo=UTC), V.VALID)],
)
def test_by_a_clock_under_suspicion_a_month_that_may_have_ended_since_the_check_is_left_open(november, asked, told):
    world, hand, plate = november
    hand.verifier._time = Doubted(hand.audit.with_name("state.db"), world.clock)
    assert hand.check(plate)[0].verdict.code is V.UNDECIDED
    world.now = asked
    (news,) = run(hand).settled
    assert news.now is told


class Doubted(TrustedTime):
    """A clock that is under suspicion."""

    def doubts(self, now: datetime) -> tuple[Doubt, ...]:
        return (Doubt.MOVED,)


def test_by_a_clock_under_suspicion_no_check_is_too_old_to_be_asked_about(world, hand, tmp_path):
    check_id = hand.check(world.vehicle().plate)[0].check_id
    good = world.now
    world.now += LONGEST_WAIT + timedelta(days=300)
    world.centre_clock = lambda: good
    doubting = Rechecker(
        hand.queue, hand.centre, hand.verifier, world.clock, Doubted(tmp_path / "state.db", world.clock)
    )
    hand.centre.choose(Mode.AUTO)
    (news,) = doubting.run(hand.verifier.standing()).settled
    assert news.check_id == check_id


def test_a_check_by_a_clock_under_suspicion_is_not_too_old_when_the_clock_is_set_right(world, hand, tmp_path):
    right, world.now = world.now, START - timedelta(days=300)
    hand.verifier._time = Doubted(tmp_path / "state.db", world.clock)
    assert hand.queue.add(hand.check(world.vehicle().plate)[0])
    world.now = right
    done = run(hand)
    assert (len(done.settled), done.gone) == (1, 0)


def test_a_check_that_the_officer_was_answered_meanwhile_is_not_settled_once_more(world, hand, tmp_path, url):
    plate = world.vehicle().plate
    check_id = hand.check(plate)[0].check_id

    def answered_meanwhile(wire: faults.Wire) -> None:
        wire.read_request()
        hand.queue.drop(check_id)
        answer = wire.forward()
        wire.send(faults.http(200, answer.content, answer.headers["Content-Type"]))

    with fault_proxy(answered_meanwhile, url) as proxy:
        other = Handset(world, tmp_path, proxy.url)
        assert other.rechecker.run(other.verifier.standing()).settled == ()
        other.close()
    assert [entry["kind"] for entry in read_log(hand.audit)] == ["check"]
    late = News(check_id=check_id, at=START, then=V.VALID_STALE, now=V.EXPIRED)
    assert not hand.queue.settle(late, report_of(late, AskedId(IdKind.PLATE, bytes(16)), bytes(16)))
    assert (hand.queue.news(), hand.queue.outbox(), world.reports) == ([], [], [])


# ------------------------------------------------------------------------------------------------- a rotten queue


def test_a_flipped_bit_anywhere_in_the_queue_raises_nothing_and_the_next_check_is_queued(world, hand, tmp_path):
    results = [hand.check(world.vehicle().plate)[0] for _ in range(4)]
    key, path = world.authority.epoch_key, tmp_path / "flipped.db"
    queue, next_one = RecheckQueue(path, key), results.pop()
    for result in results:
        queue.add(result)
        news = News(check_id=result.check_id, at=START, then=V.VALID_STALE, now=V.EXPIRED, plate=result.verdict.plate)
        queue.tell(news)
        queue.post(report_of(news, AskedId(IdKind.PLATE, bytes(16)), bytes(16)))
    sound, draw = path.read_bytes(), Random(5)
    written = [place for place, byte in enumerate(sound) if byte]
    for place in draw.sample(written, 120):
        rotten = bytearray(sound)
        rotten[place] ^= 1 << draw.choice((0, 3, 7))
        path.write_bytes(rotten)
        for ask in (queue.waiting, queue.records, queue.news, queue.outbox):
            ask()
        assert queue.add(next_one) or queue.add(next_one), place
        assert next_one.check_id in {number for number, _, _ in queue.waiting()}, place
        assert next_one.check_id in (queue.records() or ()), place
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE seen SET box = 'text'",
        "UPDATE seen SET box = 7",
        "UPDATE about SET box = 7",
        "UPDATE outbox SET report = 7",
        "UPDATE waiting SET code = CAST(X'FF5A' AS TEXT)",
        "UPDATE seen SET id = CAST(X'FF5A' AS TEXT)",
        "ALTER TABLE waiting RENAME COLUMN at TO au",
    ],
)
def test_a_row_of_another_type_or_another_encoding_raises_nothing(world, hand, tmp_path, damage):
    result = hand.check(world.vehicle().plate)[0]
    news = News(check_id=result.check_id, at=START, then=V.VALID_STALE, now=V.EXPIRED)
    hand.queue.tell(news)
    hand.queue.post(report_of(news, AskedId(IdKind.PLATE, bytes(16)), bytes(16)))
    with closing(sqlite3.connect(tmp_path / "rechecks.db")) as connection, connection:
        connection.execute(damage)
    for ask in (hand.queue.waiting, hand.queue.records, hand.queue.news, hand.queue.outbox):
        ask()
    run(hand)
    assert hand.queue.add(result) or hand.queue.add(result)
    assert [number for number, _, _ in hand.queue.waiting()] == [result.check_id]


def test_a_report_under_another_number_is_not_sent_for_ever(world, hand, tmp_path):
    news = News(check_id="00" * 16, at=START, then=V.VALID_STALE, now=V.EXPIRED)
    hand.queue.post(report_of(news, AskedId(IdKind.PLATE, bytes(16)), bytes(16)))
    with closing(sqlite3.connect(tmp_path / "rechecks.db")) as connection, connection:
        connection.execute("UPDATE outbox SET id = ?", (bytes(16),))
    run(hand)
    assert world.reports == []


def test_a_queue_that_another_program_has_locked_is_not_set_aside(world, hand, tmp_path, monkeypatch):
    hand.check(world.vehicle().plate)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0))
    with closing(connect(tmp_path / "rechecks.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert hand.queue.waiting() == []
    assert len(hand.queue.waiting()) == 1


def test_a_mistake_of_ours_ends_no_upkeep_and_is_told_once(hand, capsys):
    def mistaken() -> None:
        raise TypeError("a plate would stand here")

    for _ in range(2):
        hand.upkeep.outlive(mistaken)
    told = capsys.readouterr().err
    assert told.count("our mistake: TypeError in test_recheck.py") == 1
    assert "plate" not in told
