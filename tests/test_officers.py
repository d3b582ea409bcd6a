"""Officers log in with a PIN; wrong ones cost time, and cutting the power saves none of it."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

import verifier.officers as module
from verifier.officers import (
    FIRST_DELAY,
    FREE_TRIES,
    LONGEST_DELAY,
    LoginError,
    LoginFault,
    OfficerError,
    OfficerFile,
)
from verifier.verdict import Role

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
PIN, WRONG = "274951", "000123"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The same hash at a lower cost: the hash itself has a test of its own."""
    monkeypatch.setattr("verifier.officers._N", 2)


@pytest.fixture
def officers(tmp_path) -> OfficerFile:
    file = OfficerFile(tmp_path / "officers.json")
    file.put("110001", Role.OFFICER, PIN)
    return file


def refused(officers: OfficerFile, now: datetime = NOW, pin: str = WRONG, who: str = "110001") -> LoginError:
    with pytest.raises(LoginError) as caught:
        officers.login(who, pin, now)
    return caught.value


def test_the_right_pin_lets_in_with_the_role(officers):
    officers.put("110002", Role.AUDITOR, "395172")
    assert officers.login("110001", PIN, NOW).role is Role.OFFICER
    assert officers.login("110002", "395172", NOW).role is Role.AUDITOR
    assert [officer.officer_id for officer in officers.officers()] == ["110001", "110002"]


def test_five_wrong_pins_are_free_and_each_further_one_doubles_the_wait(officers):
    now = NOW
    for _ in range(FREE_TRIES - 1):
        assert refused(officers, now).wait == timedelta(0)
    for doubling in range(4):
        assert refused(officers, now).wait == FIRST_DELAY * 2**doubling
        assert refused(officers, now, PIN).fault is LoginFault.WAIT, "the right PIN waits too"
        now += FIRST_DELAY * 2**doubling
    assert officers.login("110001", PIN, now)
    assert refused(officers, now).wait == timedelta(0), "the count begins anew"


def test_the_wait_has_an_end(officers):
    now = NOW
    for _ in range(40):
        error = refused(officers, now)
        assert error.wait <= LONGEST_DELAY
        now += error.wait
    assert officers.login("110001", PIN, now)


def test_a_try_is_counted_before_it_is_made(officers, monkeypatch):
    """Whoever cuts the power at the moment of the answer has used up a try."""

    def cut(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("verifier.officers._hash", cut)
    for _ in range(FREE_TRIES):
        with pytest.raises(KeyboardInterrupt):
            officers.login("110001", WRONG, NOW)
    assert refused(officers, NOW, PIN).fault is LoginFault.WAIT


def test_a_try_that_cannot_be_counted_is_not_made(officers, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("verifier.officers.write_secret", full)
    with pytest.raises(OfficerError, match="cannot be written"):
        officers.login("110001", PIN, NOW)


def test_a_clock_that_was_set_back_waits_one_whole_delay_and_not_for_ever(officers):
    for _ in range(FREE_TRIES):
        refused(officers)
    assert refused(officers, NOW - timedelta(days=400)).wait == FIRST_DELAY


def test_a_number_that_is_not_here_costs_the_same_work_and_is_told_nothing_else(officers, monkeypatch):
    worked = []
    write, hashed = module.write_secret, module._hash
    monkeypatch.setattr("verifier.officers._hash", lambda *a: (worked.append("hash"), hashed(*a))[1])
    monkeypatch.setattr("verifier.officers.write_secret", lambda *a: (worked.append("disk"), write(*a)))
    told = {}
    for who in ("110001", "999999"):
        officers.put("110001", Role.OFFICER, PIN)  # the tries begin anew
        worked.clear()
        answers = [refused(officers, who=who) for _ in range(8)]
        told[who] = [(error.fault, error.wait, str(error)) for error in answers], list(worked)
    assert told["110001"] == told["999999"]
    faults = [fault for fault, *_ in told["110001"][0]]
    assert faults == [LoginFault.WRONG] * FREE_TRIES + [LoginFault.WAIT] * 3
    assert told["110001"][1] == ["disk", "hash"] * FREE_TRIES


def test_who_logs_in_himself_has_no_more_tries_at_another_officers_pin(officers):
    officers.put("110002", Role.OFFICER, "395172")
    for _ in range(FREE_TRIES - 1):
        refused(officers)
    officers.login("110002", "395172", NOW)
    assert refused(officers).wait == FIRST_DELAY


def test_pulling_the_battery_does_not_shorten_the_wait(officers, tmp_path):
    for _ in range(FREE_TRIES + 1):
        refused(officers)
    again = OfficerFile(tmp_path / "officers.json")
    assert refused(again, NOW, PIN).fault is LoginFault.WAIT
    assert refused(again, NOW, PIN, who="999999").fault is LoginFault.WAIT
    assert again.login("110001", PIN, NOW + FIRST_DELAY)


def test_somebody_entered_while_another_logs_in_is_not_lost(officers, tmp_path, monkeypatch):
    real, beside = module._hash, []

    def slow(pin: str, salt: bytes) -> bytes:
        if not beside:
            other = OfficerFile(tmp_path / "officers.json")
            beside.append(threading.Thread(target=other.put, args=("110002", Role.OFFICER, "395172")))
            beside[0].start()
            beside[0].join(0.2)
        return real(pin, salt)

    monkeypatch.setattr("verifier.officers._hash", slow)
    refused(officers)
    beside[0].join(10)
    assert [officer.officer_id for officer in officers.officers()] == ["110001", "110002"]


def test_the_file_holds_no_pin_and_is_its_owners_alone(officers, tmp_path):
    path = tmp_path / "officers.json"
    assert PIN not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    before = json.loads(path.read_bytes())["officers"]["110001"]
    officers.put("110002", Role.OFFICER, PIN)
    assert json.loads(path.read_bytes())["officers"]["110002"]["hash"] != before["hash"], "a salt of its own"


@pytest.mark.parametrize(
    ("who", "role", "pin"),
    [
        ("", Role.OFFICER, PIN), ("京警1", Role.OFFICER, PIN), ("a" * 21, Role.OFFICER, PIN),
        ("1", Role.OFFICER, "12345"), ("1", Role.OFFICER, "abcdef"), ("1", Role.OFFICER, "111111"),
        ("1", Role.OFFICER, "1" * 13), ("A-1", Role.OFFICER, PIN), ("1" * 13, Role.OFFICER, PIN),
    ],
)  # fmt: skip
def test_poor_pins_and_numbers_that_cannot_be_typed_are_refused(tmp_path, who, role, pin):
    with pytest.raises(OfficerError):
        OfficerFile(tmp_path / "officers.json").put(who, role, pin)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", '{"officers": {}}', '{"officers": {"1": {}}}', '{"officers": {"1": {"role": "gate"}}}',
        '{"officers": {}, "tries": {"failed": 1, "failed_at": NaN}}',
        '{"officers": {}, "tries": {"failed": -1, "failed_at": 0.0}}',
    ],
)  # fmt: skip
def test_a_damaged_file_lets_nobody_in(tmp_path, content):
    (tmp_path / "officers.json").write_text(content, encoding="utf-8")
    with pytest.raises(OfficerError, match="damaged"):
        OfficerFile(tmp_path / "officers.json").login("1", PIN, NOW)


def test_without_officers_nobody_is_let_in(tmp_path):
    assert refused(OfficerFile(tmp_path / "none.json")).fault is LoginFault.NO_OFFICERS


def test_somebody_who_was_taken_out_is_not_let_in(officers):
    officers.put("110002", Role.OFFICER, "395172")
    assert officers.remove("110001")
    assert not officers.remove("110001")
    assert refused(officers, pin=PIN).fault is LoginFault.WRONG


def test_the_hash_is_scrypt_at_a_cost_that_a_person_does_not_notice(monkeypatch):
    """scrypt with 16 MiB (RFC 7914), whatever the other tests use."""
    monkeypatch.undo()
    assert (module._N, module._R, module._P) == (1 << 14, 8, 1)
    expected = hashlib.scrypt(b"274951", salt=bytes(16), n=1 << 14, r=8, p=1, maxmem=64 << 20, dklen=32)
    assert module._hash("274951", bytes(16)) == expected
