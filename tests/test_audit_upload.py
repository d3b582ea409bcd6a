"""The audit log reaches the centre whole and once, and what was cut off a device is missed there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from scripts.sandbox.audit_keys import open_log
from tests.sealed_logs import KEY, NOW, PLATE, PRIVATE, record, sealed_log
from tests.status_world import World, make_world
from verifier.audit import AuditLog
from verifier.audit_file import log_head, read_lines, start_of
from verifier.audit_upload import AcknowledgedHead, AuditUploader, check_passes, purge
from verifier.codec.device import AuditHead, encode_audit_head
from verifier.errors import AuditError, FetchError, StatusError
from verifier.heartbeat import Heartbeat, LogWord, Vitals, send_heartbeat
from verifier.online import boottime_ms
from verifier.online_http import HttpPoster

BEAT = Heartbeat(software="0.1.0", uptime_s=5, region="national", vitals=Vitals(at=NOW, counters={"scans": 3}))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("centre")).serving() as world:
        yield world


class Device:
    """An enrolled handheld with a log."""

    def __init__(self, world: World, folder: Path, name: str) -> None:
        self.world, self.name, self.log = world, name, folder / "audit.jsonl"
        handheld = world.handheld(name)
        (folder / "pair.pem").write_bytes(handheld.pair())
        (folder / "ca.pem").write_text(world.ca.root_pem, encoding="ascii")
        pair = (str(folder / "pair.pem"), str(folder / "pair.pem"))
        self.poster = Counting(
            HttpPoster(
                f"https://localhost:{world.port}/", ca_file=str(folder / "ca.pem"), client_certificate=pair,
                monotonic_ms=boottime_ms, connect_ms=5000, total_ms=30_000,
            )
        )  # fmt: skip
        self.acknowledged = AcknowledgedHead(folder / "audit-sent.json")

    def upload(self):
        return AuditUploader(self.log, self.acknowledged, self.poster).run()

    def tell(self) -> LogWord:
        return send_heartbeat(self.poster, replace(BEAT, audit=log_head(self.log)))

    def kept(self) -> list[bytes]:
        return self.world.store.audit_records(self.name)

    def alarms(self) -> int:
        return next(d["audit_alarms"] for d in self.world.store.devices() if d["device"] == self.name)


class Counting:
    """A poster that notes what went out, and fails when it is told to."""

    def __init__(self, poster: HttpPoster) -> None:
        self._poster = poster
        self.sent: list[bytes] = []
        self.fail_at: int | None = None
        self.lose_answers = False

    def post(self, path: str, body: bytes, content_type: str, answer_type: str, max_length: int) -> bytes:
        if self.fail_at == len(self.sent):
            raise FetchError(path, "cut off")
        self.sent.append(body)
        answer = self._poster.post(path, body, content_type, answer_type, max_length)
        if self.lose_answers:
            raise FetchError(path, "cut off")
        return answer


@pytest.fixture
def device(world, tmp_path) -> Device:
    return Device(world, tmp_path, f"h-{len(world.store.devices())}")


def test_a_sealed_log_reaches_the_centre_as_it_lies_in_the_file(device):
    sealed_log(device.log, 5)
    done = device.upload()
    assert (done.sent, done.acknowledged) == (6, log_head(device.log))
    assert b"".join(line + b"\n" for line in device.kept()) == device.log.read_bytes()
    assert not any(PLATE.encode() in body for body in device.poster.sent)


def test_what_the_centre_has_is_opened_with_the_authoritys_key_alone(device, tmp_path):
    sealed_log(device.log, 3)
    device.upload()
    (tmp_path / "received").write_bytes(b"".join(line + b"\n" for line in device.kept()))
    opened = [one.record for one in open_log(tmp_path / "received", PRIVATE) if one.record]
    assert opened == [record(number) for number in range(3)]


def test_an_upload_goes_on_where_it_was_left_and_sends_nothing_twice(device):
    sealed_log(device.log, 250)
    device.poster.fail_at = 1
    with pytest.raises(FetchError):
        device.upload()
    assert len(device.kept()) == 200
    device.poster.fail_at = None
    assert device.upload().sent == 51
    sealed_log(device.log, 1)
    assert device.upload().sent == 2
    assert device.upload().sent == 0
    assert len(device.kept()) == 253
    assert len(device.poster.sent) == 3


def test_an_upload_whose_answer_was_lost_is_sent_again_and_kept_once(device):
    sealed_log(device.log, 4)
    device.poster.lose_answers = True
    for _ in range(2):
        with pytest.raises(FetchError):
            device.upload()
    device.poster.lose_answers = False
    assert device.upload().sent == 5
    assert len(device.kept()) == 5
    assert device.alarms() == 0


def test_two_programs_that_upload_at_once_do_no_harm(device):
    """The timer's, and a technician's by hand."""
    sealed_log(device.log, 450)
    with ThreadPoolExecutor(2) as both:
        done = [one.result() for one in [both.submit(device.upload) for _ in range(2)]]
    assert [one.acknowledged for one in done] == [log_head(device.log)] * 2
    assert b"".join(line + b"\n" for line in device.kept()) == device.log.read_bytes()
    assert device.acknowledged.load() == log_head(device.log)
    assert device.alarms() == 0


def test_a_device_that_lost_its_note_sends_from_the_start_and_nothing_is_kept_twice(device, tmp_path):
    sealed_log(device.log, 4)
    device.upload()
    (tmp_path / "audit-sent.json").unlink()
    assert device.upload().acknowledged.seq == 5
    assert len(device.kept()) == 5


def test_a_purged_log_whose_note_is_lost_goes_on_behind_what_was_purged(device, tmp_path):
    heads = a_log_of_days(device.log, 4)
    device.upload()
    purge(device.log, heads[1], TODAY, 0)
    (tmp_path / "audit-sent.json").unlink()
    sealed_log(device.log, 1)
    assert device.upload().acknowledged == log_head(device.log)
    assert (len(device.kept()), device.alarms()) == (log_head(device.log).seq, 0)


@pytest.mark.parametrize("content", ["", "[]", '{"seq": -1, "head": ""}', '{"seq": 1, "head": "zz"}', '{"seq": "1"}'])
def test_a_note_that_is_damaged_is_refused_by_name(tmp_path, content):
    (tmp_path / "sent").write_text(content, encoding="ascii")
    with pytest.raises(AuditError, match="acknowledged head: its file is damaged"):
        AcknowledgedHead(tmp_path / "sent").load()


def test_the_note_only_ever_grows(tmp_path):
    known = AcknowledgedHead(tmp_path / "sent")
    known.save(AuditHead(5, bytes(range(32))))
    known.save(AuditHead(3, bytes(32)))
    assert known.load() == AuditHead(5, bytes(range(32)))


def test_a_line_that_a_power_cut_left_unfinished_is_sent_when_it_has_an_end(device):
    sealed_log(device.log, 1)
    with device.log.open("ab") as file:
        file.write(b'{"prev": "half')
    assert device.upload().sent == 2
    sealed_log(device.log, 1)
    assert device.upload().sent == 3
    assert device.kept()[2] == b'{"prev": "half'
    assert device.tell() is LogWord.CONTINUES


def test_lines_that_do_not_fit_one_upload_go_in_several(device):
    log = AuditLog(device.log, key=KEY)
    for _ in range(8):
        log.append({"kind": "check", "text": "x" * 150_000})
    assert device.upload().sent == 9
    assert len(device.poster.sent) == 2
    assert all(len(body) <= 1 << 20 for body in device.poster.sent)


def test_a_tail_that_was_cut_after_the_upload_is_found_on_the_device_and_at_the_centre(device):
    sealed_log(device.log, 6)
    device.upload()
    lines = device.log.read_bytes().splitlines(keepends=True)
    device.log.write_bytes(b"".join(lines[:4]))
    with pytest.raises(AuditError, match="ends at line 4, and the centre has acknowledged line 7"):
        device.upload()
    assert device.tell() is LogWord.BROKEN
    assert device.alarms() == 1


def test_a_tail_that_was_cut_before_any_upload_is_found_by_the_head_that_was_told(device):
    sealed_log(device.log, 6)
    assert device.tell() is LogWord.CONTINUES
    lines = device.log.read_bytes().splitlines(keepends=True)
    device.log.write_bytes(b"".join(lines[:4]))
    sealed_log(device.log, 5)  # and the log went on
    with pytest.raises(AuditError, match="the centre has another log"):
        device.upload()
    assert device.alarms() >= 1


def test_a_log_that_was_made_anew_in_place_of_the_old_one_is_found(device, tmp_path):
    """Whoever has the device has the public key, and can seal a log of his own: what was told before gives him away."""
    sealed_log(device.log, 6)
    device.upload()
    device.log.unlink()
    (tmp_path / "audit-sent.json").unlink()
    sealed_log(device.log, 9)
    with pytest.raises(AuditError, match="the centre has another log"):
        device.upload()
    assert device.alarms() >= 1


def test_a_line_that_was_changed_after_its_upload_is_found_on_the_device(device):
    log = AuditLog(device.log)
    for number in range(3):
        log.append(record(number))
    device.upload()
    lines = device.log.read_bytes().splitlines()
    lines[2] = lines[2].replace(b"VALID", b"WRONG")
    device.log.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(AuditError, match="line 3 is not the one that the centre acknowledged"):
        device.upload()


class Answers:
    """A centre that answers what it is told to."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)

    def post(self, *_: object) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "receipt"),
        (encode_audit_head(AuditHead()), "less than was sent"),
        (encode_audit_head(AuditHead(9, bytes(32))), "ends at line 4, and the centre has acknowledged line 9"),
        (encode_audit_head(AuditHead(4, bytes(32))), "line 4 is not the one"),
    ],
)
def test_a_receipt_that_cannot_be_is_refused_and_nothing_counts_as_acknowledged(tmp_path, answer, problem):
    sealed_log(tmp_path / "log", 3)
    known = AcknowledgedHead(tmp_path / "sent")
    with pytest.raises(AuditError, match=problem):
        AuditUploader(tmp_path / "log", known, Answers(answer)).run()
    assert known.load() == AuditHead()


def test_a_centre_that_has_less_than_it_acknowledged_is_sent_all_again(tmp_path):
    """As after its books were put back to those of last week."""
    sealed_log(tmp_path / "log", 3)
    heads = [line.head for line in read_lines(tmp_path / "log")]
    known = AcknowledgedHead(tmp_path / "sent")
    known.save(heads[2])
    centre = Answers(StatusError("v1/audit", 409), encode_audit_head(heads[3]))
    assert AuditUploader(tmp_path / "log", known, centre).run().acknowledged == heads[3]


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503])
def test_a_refusal_that_is_not_about_the_log_is_no_other_log(tmp_path, code):
    sealed_log(tmp_path / "log", 3)
    with pytest.raises(StatusError):
        AuditUploader(
            tmp_path / "log", AcknowledgedHead(tmp_path / "sent"), Answers(StatusError("v1/audit", code))
        ).run()


def test_nothing_to_send_sends_nothing(tmp_path):
    done = AuditUploader(tmp_path / "log", AcknowledgedHead(tmp_path / "sent"), Answers()).run()
    assert (done.sent, done.acknowledged) == (0, AuditHead())


# ------------------------------------------------------------------------------------------------- retention


def a_log_of_days(path: Path, days: int, each: int = 2) -> list[AuditHead]:
    """A sealed log that began so many days ago; the head at the end of each day, today's last."""
    heads = []
    for back in range(days - 1, -1, -1):
        log = AuditLog(path, key=KEY, clock=lambda back=back: NOW - timedelta(days=back))
        for number in range(each):
            log.append(record(number))
        heads.append(log_head(path))
    return heads


TODAY = date(2026, 11, 22)


def test_retention_removes_what_is_old_and_acknowledged_and_the_log_goes_on(device):
    heads = a_log_of_days(device.log, 10)
    device.upload()
    assert purge(device.log, device.acknowledged.load(), TODAY, 3) == heads[5].seq
    assert start_of(device.log) == heads[5]
    assert len([one for one in open_log(device.log, PRIVATE) if one.record]) == 8
    sealed_log(device.log, 1)
    assert device.upload().sent == 2
    assert device.tell() is LogWord.CONTINUES
    assert len(device.kept()) == log_head(device.log).seq


def test_what_was_not_acknowledged_is_never_removed(tmp_path):
    log = tmp_path / "log"
    heads = a_log_of_days(log, 10)
    assert purge(log, AuditHead(), TODAY, 0) == 0
    assert purge(log, heads[2], TODAY, 0) == heads[2].seq
    assert purge(log, heads[2], TODAY, 0) == 0
    assert log_head(log) == heads[-1]


def test_a_session_goes_as_a_whole_so_that_what_stays_can_be_opened(tmp_path):
    path = tmp_path / "log"
    yesterday = AuditLog(path, key=KEY, clock=lambda: NOW - timedelta(days=1))
    yesterday.append(record(0))
    sealed_log(path, 1)
    yesterday.append(record(2))  # a program whose clock is a day behind
    purge(path, log_head(path), TODAY, 0)
    assert len([one for one in open_log(path, PRIVATE) if one.record]) == 3
    assert start_of(path) == AuditHead()


def test_a_day_of_a_clock_that_was_years_ahead_holds_nothing_back(tmp_path):
    path = tmp_path / "log"
    for days in (-9, 4000, -8, 0):
        AuditLog(path, key=KEY, clock=lambda days=days: NOW + timedelta(days=days)).append(record(0))
    assert purge(path, log_head(path), TODAY, 3) == 6
    assert len([one for one in open_log(path, PRIVATE) if one.record]) == 1


def test_a_log_that_was_tampered_with_is_not_purged(tmp_path):
    log = tmp_path / "log"
    heads = a_log_of_days(log, 4)
    with pytest.raises(AuditError, match="not the one that the centre acknowledged"):
        purge(log, AuditHead(heads[1].seq, bytes(32)), TODAY, 0)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[1:]))
    with pytest.raises(AuditError, match="line 1 does not follow"):
        purge(log, heads[1], TODAY, 0)


def test_a_plain_log_is_purged_by_the_same_days(tmp_path):
    log = tmp_path / "log"
    for back in (5, 4, 0):
        AuditLog(log, clock=lambda back=back: NOW - timedelta(days=back)).append(record(back))
    assert purge(log, log_head(log), TODAY, 4) == 1
    assert [json.loads(line).get("id") for line in log.read_bytes().splitlines()[1:]] == [
        record(n)["id"] for n in (4, 0)
    ]


def test_a_power_cut_in_a_purge_leaves_the_old_log_or_the_new_one(tmp_path, monkeypatch):
    log = tmp_path / "log"
    heads = a_log_of_days(log, 4)
    before = log.read_bytes()

    def cut(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(AuditError, match="cannot be purged"):
        purge(log, heads[-1], TODAY, 0)
    monkeypatch.undo()
    assert log.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert purge(log, heads[-1], TODAY, 0) == heads[2].seq


def test_an_append_that_waits_for_a_purge_goes_to_the_new_file(tmp_path):
    log = tmp_path / "log"
    a_log_of_days(log, 3)
    writer = AuditLog(log, key=KEY, clock=lambda: NOW)
    writer.append(record(7))
    purge(log, log_head(log), TODAY, 0)
    writer.append(record(8))
    ids = [one.record["id"] for one in open_log(log, PRIVATE) if one.record]
    assert ids[-2:] == [record(7)["id"], record(8)["id"]]


def test_a_head_that_lies_before_the_beginning_does_not_pass(tmp_path):
    log = tmp_path / "log"
    heads = a_log_of_days(log, 3)
    purge(log, heads[1], TODAY, 0)
    check_passes(log, heads[1])
    with pytest.raises(AuditError, match="begins after line"):
        check_passes(log, heads[0])


def test_an_upload_of_two_hundred_lines_is_one_that_the_centre_takes(tmp_path):
    sealed_log(tmp_path / "log", 300)
    head = [line.head for line in read_lines(tmp_path / "log")][-1]
    centre = Answers(encode_audit_head(AuditHead(200, [line.head for line in read_lines(tmp_path / "log")][199].head)))
    centre.answers.append(encode_audit_head(head))
    assert AuditUploader(tmp_path / "log", AcknowledgedHead(tmp_path / "sent"), centre).run().sent == 301


def test_a_heartbeat_is_within_the_schema(device):
    sealed_log(device.log, 1)
    assert device.tell() is LogWord.CONTINUES
    told = next(d for d in device.world.store.devices() if d["device"] == device.name)
    assert told["heartbeat"]["counters"] == {"scans": 3}
    assert told["audit_told"] == 2
