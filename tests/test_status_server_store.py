"""The books of the status server, on SQLite and on PostgreSQL: codes, certificates, reports, audit logs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.sandbox.database import Database, DatabaseError, open_database, sqlite_database
from scripts.sandbox.device_ca import DeviceCertificate
from scripts.sandbox.status_store import (
    CODE_LIFE,
    MAX_ALARMS,
    MAX_CERTIFICATES,
    MAX_REPORTS,
    DeviceError,
    DeviceState,
    RefusedError,
    StatusStore,
)
from tests.status_world import emptied, postgresql, postgresql_missing
from verifier.audit import AuditLog
from verifier.codec.device import NO_HEAD, AuditHead, AuditUpload, Refusal

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
KEY_A, KEY_B = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    if missing := postgresql_missing():
        pytest.skip(f"PostgreSQL: {missing}")
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> Iterator[Database]:
    if request.param == "sqlite":
        made = sqlite_database(tmp_path / "status.db")
        yield made
        made.close()
        return
    with emptied(request.getfixturevalue("server_url")) as made:
        yield made


@pytest.fixture
def store(database) -> StatusStore:
    return StatusStore(database)


def certificate(serial: str, key: str = KEY_A, days: float = 3) -> DeviceCertificate:
    return DeviceCertificate(pem="", serial=serial, key=key, not_after=NOW + timedelta(days=days))


def enrol(store: StatusStore, name: str = "h-1", serial: str = "1", key: str = KEY_A, *, new_log: bool = False) -> str:
    code = store.enrolment_code(name, NOW, new_log=new_log)
    assert store.device_of_code(code, key, NOW) == name
    store.enrolled(name, code, certificate(serial, key))
    return code


def refused(call, *args) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        call(*args)
    return caught.value.reason


# --------------------------------------------------------------------------------------- codes, certificates


def test_a_code_serves_one_key_alone_however_often_it_is_sent(store):
    code = store.enrolment_code("h-1", NOW)
    assert store.device_of_code(code, KEY_A, NOW) == "h-1"
    assert store.device_of_code(code.lower().replace("-", ""), KEY_A, NOW) == "h-1"
    assert refused(store.device_of_code, code, KEY_B, NOW) is Refusal.CODE_REFUSED


def test_a_code_ends_after_a_day_and_with_the_next_one(store):
    code = store.enrolment_code("h-1", NOW)
    assert refused(store.device_of_code, code, KEY_A, NOW + CODE_LIFE + timedelta(seconds=1)) is Refusal.CODE_REFUSED
    store.enrolment_code("h-1", NOW)
    assert refused(store.device_of_code, code, KEY_A, NOW) is Refusal.CODE_REFUSED


def test_a_code_that_two_send_at_once_serves_one_of_them(store):
    code, won = store.enrolment_code("h-1", NOW), []
    barrier = threading.Barrier(8)

    def send(number: int) -> None:
        barrier.wait()
        try:
            store.device_of_code(code, f"{number:064x}", NOW)
        except RefusedError:
            return
        won.append(number)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_code_is_not_kept_in_clear(store, database):
    code = store.enrolment_code("h-1", NOW)
    with database.transaction() as run:
        kept = str(run("SELECT * FROM codes"))
    assert code not in kept
    assert code.replace("-", "") not in kept


def test_an_enrolment_ends_the_certificates_before_it_and_a_renewal_does_not(store):
    enrol(store, serial="1", key=KEY_A)
    store.renewed("h-1", certificate("2", KEY_A))
    assert [store.standing(serial, NOW).device for serial in ("1", "2")] == ["h-1", "h-1"]
    enrol(store, serial="3", key=KEY_B)
    assert store.standing("3", NOW).device == "h-1"
    assert [refused(store.standing, serial, NOW) for serial in ("1", "2")] == [Refusal.CERTIFICATE_UNKNOWN] * 2


def test_a_device_that_renews_without_end_has_its_newest_certificates_alone(store):
    enrol(store, serial="0")
    for number in range(1, 2 * MAX_CERTIFICATES):
        store.renewed("h-1", certificate(str(number), days=3 + number / 1000))
    assert refused(store.standing, "0", NOW) is Refusal.CERTIFICATE_UNKNOWN
    for number in range(MAX_CERTIFICATES, 2 * MAX_CERTIFICATES):
        assert store.standing(str(number), NOW).device == "h-1"


def test_a_certificate_ends_on_a_connection_that_lasts(store):
    enrol(store)
    assert refused(store.standing, "1", NOW + timedelta(days=3, seconds=1)) is Refusal.CERTIFICATE_UNKNOWN


def test_a_lost_device_gets_its_order_with_any_certificate_it_had(store):
    enrol(store, serial="1", key=KEY_A)
    enrol(store, serial="2", key=KEY_B)
    store.set_state("h-1", DeviceState.LOST, wipe=True)
    for serial in ("1", "2"):
        standing = store.standing(serial, NOW)
        assert (standing.state, standing.wipe) == (DeviceState.LOST, 1)


def test_each_order_to_wipe_has_a_higher_number_and_a_restored_device_has_none(store):
    enrol(store)
    numbers = []
    for _ in range(2):
        store.set_state("h-1", DeviceState.LOST, wipe=True)
        numbers.append(store.standing("1", NOW).wipe)
        store.set_state("h-1", DeviceState.ACTIVE)
        assert store.standing("1", NOW).wipe == 0
    assert numbers == [1, 2]


@pytest.mark.parametrize("state", [DeviceState.HELD, DeviceState.LOST])
def test_a_device_that_is_held_or_lost_gets_no_code_and_its_code_ends(state, store):
    code = store.enrolment_code("h-1", NOW)
    store.set_state("h-1", state)
    assert refused(store.device_of_code, code, KEY_A, NOW) is Refusal.CODE_REFUSED
    with pytest.raises(DeviceError, match="restore it first"):
        store.enrolment_code("h-1", NOW)


def test_names_that_are_none_and_devices_that_are_not_there_are_refused(store):
    for name in ("", "H-1", "-a", "a-", "a b", "a\n", "京", "a" * 41):
        with pytest.raises(DeviceError, match="device id"):
            store.enrolment_code(name, NOW)
    with pytest.raises(DeviceError, match="no such device"):
        store.set_state("nobody", DeviceState.LOST)


# ------------------------------------------------------------------------------------------------- reports


def test_a_report_that_is_sent_twice_stands_once_in_the_queue(store):
    enrol(store)
    for _ in range(2):
        store.keep_report("h-1", b"\x01" * 16, b"body", NOW)
    assert store.reports() == [("h-1", NOW, b"body")]
    assert refused(store.keep_report, "h-1", b"\x01" * 16, b"other", NOW) is Refusal.REPORT_DIFFERS
    assert store.reports() == [("h-1", NOW, b"body")]


def test_a_device_cannot_fill_the_queue_for_the_others(store, database):
    enrol(store)
    with database.transaction() as run:
        for number in range(MAX_REPORTS):
            run("INSERT INTO reports VALUES (?, ?, 0, ?)", "h-1", number.to_bytes(16), b"")
    assert refused(store.keep_report, "h-1", bytes([255] * 16), b"", NOW) is Refusal.TOO_MANY_REQUESTS
    store.keep_report("h-1", bytes(16), b"", NOW)  # one that waits there already
    enrol(store, "h-2", "2")
    store.keep_report("h-2", bytes(16), b"", NOW)
    assert len(store.reports()) == MAX_REPORTS + 1


def test_the_books_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "status.db"
    enrol(StatusStore(sqlite_database(path)))
    assert [file.stat().st_mode & 0o077 for file in tmp_path.iterdir()] == [0] * len(list(tmp_path.iterdir()))


# --------------------------------------------------------------------------------------------------- audit


def lines(count: int, start: bytes = NO_HEAD, word: str = "check") -> list[bytes]:
    """Lines of an audit log as the device writes them."""
    made: list[bytes] = []
    head = start
    for number in range(count):
        made.append(json.dumps({"prev": head.hex(), "kind": word, "n": number}).encode())
        head = hashlib.sha256(made[-1]).digest()
    return made


def head_of(log: list[bytes], seq: int | None = None) -> AuditHead:
    seq = len(log) if seq is None else seq
    return AuditHead(seq, hashlib.sha256(log[seq - 1]).digest()) if seq else AuditHead()


def part(log: list[bytes], start: int, end: int) -> AuditUpload:
    return AuditUpload(head_of(log, start), tuple(log[start:end]))


def alarms(store: StatusStore) -> int:
    return int(store.devices()[0]["audit_alarms"])


def test_an_upload_that_is_sent_twice_gives_one_row_a_line(store):
    enrol(store)
    log = lines(5)
    for start, end in ((0, 3), (0, 3), (1, 5), (0, 5), (2, 4)):
        known = store.keep_audit("h-1", part(log, start, end), NOW)
        assert known.seq == max(3, store.devices()[0]["audit_seq"])
    assert known == head_of(log)
    assert store.audit_records("h-1") == log
    assert alarms(store) == 0


def test_the_lines_of_a_real_audit_log_are_taken_as_they_lie_in_the_file(store, tmp_path):
    enrol(store)
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.append({"kind": "check", "plate": "京A12345"})
    with path.open("ab") as file:
        file.write(b'{"prev": "half a li')  # a power cut
    log.append({"kind": "check", "plate": "京A54321"})
    kept = path.read_bytes().splitlines()
    assert len(kept) == 3
    assert store.keep_audit("h-1", part(kept, 0, 3), NOW) == head_of(kept)


def test_a_cut_log_that_goes_on_is_found(store):
    enrol(store)
    log = lines(6)
    store.keep_audit("h-1", part(log, 0, 6), NOW)
    shorter = [*log[:4], *lines(3, head_of(log, 4).head, "later")]
    assert refused(store.keep_audit, "h-1", part(shorter, 4, 7), NOW) is Refusal.AUDIT_BROKEN
    assert alarms(store) == 1
    assert store.audit_records("h-1") == log, "what was there stays"


def test_a_log_that_was_replaced_as_a_whole_is_found(store):
    enrol(store)
    store.keep_audit("h-1", part(lines(3), 0, 3), NOW)
    other = lines(6, word="invented")
    assert refused(store.keep_audit, "h-1", part(other, 0, 6), NOW) is Refusal.AUDIT_BROKEN
    assert refused(store.keep_audit, "h-1", part(other, 3, 6), NOW) is Refusal.AUDIT_BROKEN
    assert alarms(store) == 2


def test_a_line_that_does_not_name_the_one_before_it_is_found(store):
    enrol(store)
    log = lines(4)
    forged = [log[0], log[2], log[3]]
    for bad in (forged, [log[0], b"{}"], [b"[1]"], [b'{"prev": null}']):
        assert refused(store.keep_audit, "h-1", AuditUpload(AuditHead(), tuple(bad)), NOW) is Refusal.AUDIT_BROKEN
    assert store.audit_records("h-1") == []


def test_a_gap_says_where_to_send_from_and_is_no_alarm(store):
    enrol(store)
    log = lines(6)
    store.keep_audit("h-1", part(log, 0, 2), NOW)
    with pytest.raises(RefusedError) as caught:
        store.keep_audit("h-1", part(log, 3, 6), NOW)
    assert (caught.value.reason, caught.value.known) == (Refusal.AUDIT_GAP, head_of(log, 2))
    assert alarms(store) == 0


def test_lines_that_were_told_of_and_then_cut_before_their_upload_are_missed(store):
    enrol(store)
    log = lines(5)
    assert store.keep_heartbeat("h-1", {}, head_of(log), NOW)
    cut = [*log[:3], *lines(4, head_of(log, 3).head, "later")]
    assert refused(store.keep_audit, "h-1", part(cut, 0, 7), NOW) is Refusal.AUDIT_BROKEN
    assert alarms(store) == 1
    assert store.keep_audit("h-1", part(log, 0, 5), NOW) == head_of(log)


def test_a_sign_of_life_with_a_shorter_or_another_log_is_an_alarm(store):
    enrol(store)
    log = lines(5)
    store.keep_audit("h-1", part(log, 0, 3), NOW)
    assert store.keep_heartbeat("h-1", {}, head_of(log, 3), NOW)
    assert store.keep_heartbeat("h-1", {}, head_of(log, 5), NOW)
    assert not store.keep_heartbeat("h-1", {}, head_of(log, 4), NOW)
    assert not store.keep_heartbeat("h-1", {}, head_of(lines(5, word="other")), NOW)
    assert alarms(store) == 2


def test_alarms_do_not_grow_without_end(store, database):
    enrol(store)
    store.keep_audit("h-1", part(lines(2), 0, 2), NOW)
    with database.transaction() as run:
        for number in range(MAX_ALARMS - 1):
            run("INSERT INTO alarms VALUES (?, 1, ?, ?, 0)", "h-1", 10 + number, NO_HEAD)
    for seq in (1, 1, 0):
        store.keep_heartbeat("h-1", {}, AuditHead(seq, NO_HEAD), NOW)
    assert alarms(store) == MAX_ALARMS


def test_a_new_log_begins_only_with_a_code_that_says_so(store):
    enrol(store)
    store.keep_audit("h-1", part(lines(3), 0, 3), NOW)
    enrol(store, serial="2", key=KEY_B)
    fresh = lines(2, word="new card")
    assert refused(store.keep_audit, "h-1", part(fresh, 0, 2), NOW) is Refusal.AUDIT_BROKEN
    code = enrol(store, serial="3", key=KEY_A, new_log=True)
    assert store.keep_audit("h-1", part(fresh, 0, 2), NOW) == head_of(fresh)
    store.device_of_code(code, KEY_A, NOW)
    store.enrolled("h-1", code, certificate("4", KEY_A))
    assert store.audit_records("h-1", 2) == fresh, "the same code again does not begin another"
    assert store.keep_audit("h-1", part(fresh, 0, 2), NOW) == head_of(fresh)


@given(steps=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.booleans()), max_size=12))
@settings(max_examples=40)
def test_whatever_is_sent_the_centre_has_the_beginning_of_one_chain(tmp_path_factory, steps):
    store = StatusStore(sqlite_database(tmp_path_factory.mktemp("books") / "status.db"))
    enrol(store)
    true, other = lines(14), lines(14, word="other")
    for start, count, honest in steps:
        try:
            known = store.keep_audit("h-1", part(true if honest else other, start, start + count), NOW)
        except RefusedError as exc:
            known = exc.known
        kept = store.audit_records("h-1")
        assert kept in (true[: len(kept)], other[: len(kept)])
        assert known == head_of(kept)
    store.close()


# ------------------------------------------------------------------------------------------------ database


def test_what_fails_in_the_middle_leaves_nothing(store, database):
    def half(device: str, fail) -> None:
        with database.transaction() as run:
            run("INSERT INTO devices (id, state, head, told_head) VALUES (?, 'active', ?, ?)", device, NO_HEAD, NO_HEAD)
            fail(run)

    with pytest.raises(ZeroDivisionError):
        half("x", lambda _: 1 // 0)
    with pytest.raises(DatabaseError):
        half("y", lambda run: run("INSERT INTO nowhere VALUES (1)"))
    assert store.devices() == []


def test_a_database_that_is_not_there_is_named_by_no_address(tmp_path):
    for url in ("mysql://secret@host/x", "sqlite://", "sqlite:///", "status.db", ""):
        with pytest.raises(DatabaseError, match="sqlite:///PATH") as caught:
            open_database(url)
        assert "secret" not in str(caught.value)
    with pytest.raises(DatabaseError) as caught:
        StatusStore(open_database(f"sqlite:///{tmp_path}/no/such/folder/x.db"))
    assert "folder" not in str(caught.value)


def test_a_database_that_comes_back_is_used_again(server_url):
    def end_the_connection(database: Database) -> None:
        with database.transaction() as run:
            run("SELECT pg_terminate_backend(pg_backend_pid())")

    with emptied(server_url) as database:
        store = StatusStore(database)
        with pytest.raises(DatabaseError):
            end_the_connection(database)
        assert store.devices() == []
