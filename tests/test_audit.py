"""The sealed audit log: nobody on the device reads it back, and no line is changed without being found."""

from __future__ import annotations

import base64
import json
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware.probes import Tally
from scripts.sandbox.audit_keys import open_log, open_or_make_key, opened_lines
from tests.sealed_logs import KEY, NOW, PLATE, PRIVATE, a_clock, record, sealed_log, write_key
from tests.test_check import World as CheckWorld
from tests.test_check import seen_plate
from verifier.audit import AuditLog, CheckContext, read_log, replay, verdict_to_json
from verifier.audit_file import FIRST, digest, log_head, read_lines, remove_up_to, start_of
from verifier.check import Observation, Verifier
from verifier.codec.device import MAX_RECORD
from verifier.errors import AuditError
from verifier.record_level import Capture, captured
from verifier.seal import NONCE, Ratchet, associated, load_audit_key
from verifier.types import SHANGHAI, Month, Plate, PresentationMode
from verifier.verdict import VerdictCode


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def write_lines(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def records(path: Path) -> list[dict]:
    return [one.record for one in open_log(path, PRIVATE) if one.record is not None]


def rechained(lines: list[bytes]) -> list[bytes]:
    """The lines with each `prev` made to fit: what an attacker does who knows the format."""
    out, previous = [], FIRST
    for line in lines:
        entry = {**json.loads(line), "prev": previous}
        out.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode())
        previous = digest(out[-1])
    return out


# ---------------------------------------------------------------------------------------------------- sealing


def test_what_was_recorded_opens_with_the_authoritys_key_and_with_no_other(tmp_path):
    sealed_log(tmp_path / "log", 5)
    assert records(tmp_path / "log") == [record(number) for number in range(5)]
    with pytest.raises(AuditError, match="another key"):
        list(open_log(tmp_path / "log", X25519PrivateKey.generate()))


def test_a_sealed_log_holds_no_plate_and_is_its_owners_alone(tmp_path):
    sealed_log(tmp_path / "log", 5)
    data = (tmp_path / "log").read_bytes()
    for form in (PLATE, PLATE[1:]):
        for text in (form.encode(), json.dumps(form).strip('"').encode(), base64.b64encode(form.encode())):
            assert text not in data
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_day_and_verdicts_alone_stay_readable(tmp_path):
    sealed_log(tmp_path / "log", 1)
    opening, line = (json.loads(line) for line in lines_of(tmp_path / "log"))
    assert set(opening) == {"prev", "day", "kind", "v", "s", "to", "box"}
    assert set(line) == {"prev", "day", "codes", "s", "n", "box"}
    assert (line["day"], line["codes"]) == ("2026-11-22", ["VALID"])


def test_two_programs_may_append_to_one_sealed_log(tmp_path):
    one, other = (AuditLog(tmp_path / "log", key=KEY, clock=a_clock) for _ in range(2))
    for number in range(6):
        (one if number % 2 else other).append(record(number))
    assert records(tmp_path / "log") == [record(number) for number in range(6)]


def test_threads_of_one_program_append_one_after_the_other(tmp_path):
    log = AuditLog(tmp_path / "log", key=KEY, clock=a_clock)
    threads = [
        threading.Thread(target=lambda base=base: [log.append(record(base + number)) for number in range(20)])
        for base in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records(tmp_path / "log")) == 60


def test_each_day_begins_a_session_so_that_days_can_be_removed_one_by_one(tmp_path):
    days = iter((NOW, NOW, NOW + timedelta(days=1)))
    log = AuditLog(tmp_path / "log", key=KEY, clock=lambda: next(days))
    for number in range(3):
        log.append(record(number))
    kinds = [json.loads(line).get("kind") for line in lines_of(tmp_path / "log")]
    assert kinds == ["session", None, None, "session", None]


def test_a_full_disk_is_told_and_the_log_goes_on_behind_it(tmp_path, monkeypatch):
    log = sealed_log(tmp_path / "log", 2)
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:10]))
    with pytest.raises(AuditError, match="No space left"):
        log.append(record(2))
    monkeypatch.undo()
    log.append(record(3))
    assert [entry["id"] for entry in records(tmp_path / "log")] == [record(n)["id"] for n in (0, 1, 3)]


def test_a_line_that_a_power_cut_left_unfinished_costs_no_other(tmp_path):
    sealed_log(tmp_path / "log", 2)
    with (tmp_path / "log").open("ab") as file:
        file.write(lines_of(tmp_path / "log")[1][:40])
    sealed_log(tmp_path / "log", 1)
    assert len(records(tmp_path / "log")) == 3
    assert [line.number for line in read_lines(tmp_path / "log") if line.entry is None] == [4]


def test_without_its_key_a_sealed_log_takes_no_plain_record(tmp_path):
    sealed_log(tmp_path / "log", 1)
    with pytest.raises(AuditError, match="sealed one, and its key is missing"):
        AuditLog(tmp_path / "log").append(record(1))
    with (tmp_path / "log").open("ab") as file:
        file.write(b"half")
    with pytest.raises(AuditError, match="its key is missing"):
        AuditLog(tmp_path / "log").append(record(1))
    assert PLATE.encode() not in (tmp_path / "log").read_bytes()


def test_a_record_longer_than_the_centre_takes_is_refused_and_the_log_goes_on(tmp_path):
    log = sealed_log(tmp_path / "log", 1)
    with pytest.raises(AuditError, match="256 KiB"):
        log.append({"kind": "check", "text": "x" * MAX_RECORD})
    log.append(record(1))
    assert len(records(tmp_path / "log")) == 2


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(AuditError, match="not a public key"):
        load_audit_key(tmp_path / "key")


def test_a_key_of_another_kind_or_a_missing_one_is_refused(tmp_path):
    pem = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(pem)
    with pytest.raises(AuditError, match="X25519"):
        load_audit_key(tmp_path / "key")
    with pytest.raises(AuditError, match="cannot be read"):
        load_audit_key(tmp_path / "none")


def test_the_authoritys_private_key_is_made_once_and_the_public_half_is_a_file_to_give(tmp_path):
    private = tmp_path / "private"
    private.mkdir()
    made = open_or_make_key(private, tmp_path)
    again = open_or_make_key(private, tmp_path)
    assert made.private_bytes_raw() == again.private_bytes_raw()
    assert load_audit_key(tmp_path / "audit-key.pem").public == made.public_key()
    assert (private / "audit.key").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (tmp_path / "audit-key.pem").read_bytes()


# ------------------------------------------------------------------------------------------------- tampering


def flipped(lines: list[bytes], at: int, draw: random.Random) -> list[bytes]:
    line = bytearray(lines[at])
    place = draw.randrange(len(line))
    line[place] ^= 1 << draw.randrange(7)
    return [*lines[:at], bytes(line), *lines[at + 1 :]]


def swapped(lines: list[bytes], at: int, draw: random.Random) -> list[bytes]:
    other = draw.choice([i for i in range(len(lines)) if i != at])
    out = list(lines)
    out[at], out[other] = out[other], out[at]
    return out


def deleted(lines: list[bytes], at: int, draw: random.Random) -> list[bytes]:
    return lines[:at] + lines[at + 1 :]


def duplicated(lines: list[bytes], at: int, draw: random.Random) -> list[bytes]:
    return lines[: at + 1] + lines[at:]


EDITS: dict[str, Callable[[list[bytes], int, random.Random], list[bytes]]] = {
    "flip": flipped, "swap": swapped, "delete": deleted, "duplicate": duplicated,
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("chained_anew", [False, True], ids=["as it is", "chained anew"])
def test_every_change_of_a_sealed_line_is_found_and_named(tmp_path, edit, chained_anew):
    tamper_matrix(tmp_path, edit, chained_anew, rounds=40)


@pytest.mark.long
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("chained_anew", [False, True], ids=["as it is", "chained anew"])
def test_every_one_of_a_thousand_changes_is_found_and_named(tmp_path, edit, chained_anew):
    tamper_matrix(tmp_path, edit, chained_anew, rounds=1000)


def tamper_matrix(folder: Path, edit: str, chained_anew: bool, rounds: int, seed: int = 0) -> None:
    """Each of so many changed logs is found, at the place of the change or behind it."""
    draw = random.Random(f"{edit}{chained_anew}{seed or ''}")
    path = folder / "log"
    sealed_log(path, 6)
    sealed_log(path, 5)  # another session
    lines = lines_of(path)
    for _ in range(rounds):
        at = draw.randrange(len(lines) - 1)  # what became of the last one shows at the centre
        changed = EDITS[edit](lines, at, draw)
        if chained_anew:
            try:
                changed = rechained(changed)
            except (ValueError, TypeError):
                continue  # no JSON any more: it cannot be chained anew
        if changed == lines:
            continue
        write_lines(path, changed)
        with pytest.raises(
            AuditError, match=r"line \d+ (does not follow|is not as it was sealed|is sealed to another key)"
        ):
            list(open_log(path, PRIVATE))


def test_a_flipped_bit_of_the_last_line_is_found_with_the_key(tmp_path):
    sealed_log(tmp_path / "log", 3)
    lines = lines_of(tmp_path / "log")
    entry = json.loads(lines[-1])
    for name, value in (
        ("day", "2020-01-01"),
        ("codes", ["FORGED"]),
        ("n", 7),
        ("box", entry["box"][:-8] + "AAAAAAA="),
    ):
        write_lines(tmp_path / "log", [*lines[:-1], json.dumps({**entry, name: value}).encode()])
        with pytest.raises(AuditError, match="line 4 is not as it was sealed"):
            list(open_log(tmp_path / "log", PRIVATE))


def test_the_key_of_now_seals_no_record_of_before(tmp_path):
    """What a program holds at the moment of a theft leads to the records to come, and to none that is there."""
    log = sealed_log(tmp_path / "log", 8)
    stolen = log._session._ratchet
    lines = lines_of(tmp_path / "log")
    for at in range(1, len(lines)):
        entry = json.loads(lines[at])
        for steps in range(12):
            thief = Ratchet(stolen.key)
            for _ in range(steps):
                thief.step()
            forged = {name: value for name, value in entry.items() if name != "box"}
            plain = json.dumps({**record(at), "verdict": {"verdict": "VALID"}, "forged": True}).encode()
            box = ChaCha20Poly1305(thief.step()).encrypt(NONCE, plain, associated(forged, entry["prev"]))
            forged["box"] = base64.b64encode(box).decode()
            write_lines(tmp_path / "log", rechained([*lines[:at], json.dumps(forged).encode(), *lines[at + 1 :]]))
            with pytest.raises(AuditError, match="is not as it was sealed"):
                list(open_log(tmp_path / "log", PRIVATE))


def test_the_ratchet_holds_nothing_of_the_keys_before():
    ratchet = Ratchet(bytes(32))
    used = [ratchet.step() for _ in range(4)]
    assert len(set(used)) == 4
    assert ratchet.number == 4
    assert all(key != ratchet.key for key in used)
    assert "key" not in repr(ratchet)


# ------------------------------------------------------------------------------------------------- real checks


@pytest.fixture
def world(tmp_path):
    """A device with the authority's audit key."""
    home = tmp_path / "home"
    home.mkdir()
    write_key(home / "audit-key.pem")
    world = CheckWorld(home)
    world.sync()
    yield world
    world.device.store.close()


def opened_checks(world: CheckWorld) -> list[dict]:
    return records(world.home.audit)


def test_each_verdict_is_reached_again_from_the_opened_record_alone(world):
    for exhibit in world.showcase.after_sync():
        seen = seen_plate(exhibit.plate) if exhibit.plate else None
        world.device.verifier.check(Observation(code=b"no mark", plate_seen=seen))
    checks = opened_checks(world)
    assert len(checks) > 5
    assert all(replay(check)[1] for check in checks)


def test_an_opened_log_is_a_plain_one_that_names_the_lines_it_was_made_of(world, tmp_path):
    for _ in range(3):
        world.check(plate_seen=seen_plate(world.ordinary().plate))
    plain = tmp_path / "opened"
    plain.write_bytes(b"".join(line + b"\n" for line in opened_lines(open_log(world.home.audit, PRIVATE))))
    entries = list(read_log(plain))
    assert [entry["of"]["line"] for entry in entries] == [2, 3, 4]
    lines = {line.number: line.head.head.hex() for line in read_lines(world.home.audit)}
    assert all(lines[entry["of"]["line"]] == entry["of"]["head"] for entry in entries)
    assert all(replay(entry)[1] for entry in entries)


def test_no_file_of_a_sealed_device_holds_a_plate(world):
    plates = [world.ordinary().plate for _ in range(5)]
    plates.append(world.showcase.after_sync()[0].plate or plates[0])
    for plate in plates:
        world.check(plate_seen=seen_plate(plate))
    world.device.verifier.check_pair(*(Observation(plate_seen=seen_plate(plate)) for plate in plates[:2]))
    for path in (path for path in world.home.folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for plate in plates:
            forms = (plate.text, plate.text[1:], json.dumps(plate.text).strip('"'))
            for form in forms:
                assert form.encode() not in data, path.name
                assert form.encode("utf-16-le") not in data, path.name
                assert form.encode("gb18030") not in data, path.name


def test_an_audit_key_that_cannot_be_used_is_told_and_no_plain_log_is_written(tmp_path):
    (tmp_path / "audit-key.pem").write_bytes(b"broken")
    world = CheckWorld(tmp_path)
    world.sync()
    result = world.device.verifier.check(Observation(plate_seen=seen_plate(world.ordinary().plate)))
    assert any("no check is recorded" in text for text in world.device.warnings)
    assert any("this check is not recorded" in remark for remark in result.remarks)
    assert not world.home.audit.exists()
    world.device.store.close()


def test_a_plain_log_is_said_to_be_for_demos(tmp_path):
    world = CheckWorld(tmp_path)
    assert any("not sealed" in text and "demos only" in text for text in world.device.warnings)
    world.device.store.close()


def test_a_record_has_officer_device_place_mode_time_and_purpose(world):
    by = CheckContext(officer="110001", device="handheld-7", place="北京朝阳", mode="roadside")
    log = AuditLog(world.home.audit, key=KEY, clock=world.clock)
    verifier = Verifier(world.device.store, clock=world.clock, audit=log, software="t", context=lambda: by)
    verifier.check(Observation(plate_seen=seen_plate(world.ordinary().plate)))
    (check,) = opened_checks(world)
    assert check["by"] == {"officer": "110001", "device": "handheld-7", "place": "北京朝阳", "mode": "roadside"}
    assert (check["evidence"]["now"], check["evidence"]["purpose"]) == (world.now.isoformat(), "enforcement")


def test_fields_of_a_record_that_are_not_known_are_there_all_the_same(world):
    world.check(plate_seen=seen_plate(world.ordinary().plate))
    (check,) = opened_checks(world)
    assert check["by"] == {"officer": None, "device": None, "place": None, "mode": None}
    assert check["lookups"] == 1


def test_device_and_place_come_from_the_settings(tmp_path):
    (tmp_path / "audit.toml").write_text('device = "handheld-7"\nplace = "北京朝阳"\n', encoding="utf-8")
    world = CheckWorld(tmp_path)
    world.sync()
    world.check(plate_seen=seen_plate(world.ordinary().plate))
    (check,) = read_log(world.home.audit)
    assert (check["by"]["device"], check["by"]["place"]) == ("handheld-7", "北京朝阳")
    world.device.store.close()


@pytest.mark.parametrize("text", ["usual = 1", 'usual = "all"', "retention_days = -1", "x = 1", "device = ''", "= ="])
def test_audit_settings_that_cannot_be_used_are_told_by_their_path(tmp_path, text):
    (tmp_path / "audit.toml").write_text(text, encoding="utf-8")
    world = CheckWorld(tmp_path)
    assert any(warning.startswith("audit") and "no check is recorded" in warning for warning in world.device.warnings)
    world.device.store.close()


def test_undecided_and_unreadable_checks_are_recorded_too(world):
    for code in (b"", b"no mark"):
        world.device.verifier.check(Observation(code=code))
    assert len(opened_checks(world)) == 2


def test_the_hundred_and_first_typed_plate_within_an_hour_is_flagged_in_its_record(world):
    for _ in range(101):
        world.check(plate_seen=seen_plate(world.ordinary().plate))
    vehicle = world.ordinary()
    mark = world.authority.text(vehicle.plate, PresentationMode.STORED, world.now).encode()
    world.check(code=mark, plate_seen=seen_plate(vehicle.plate))  # its mark: no look-up
    world.check(code=b"no mark", plate_seen=seen_plate(vehicle.plate))  # whatever code is at hand
    checks = opened_checks(world)
    assert [check["lookups"] for check in checks] == [*range(1, 102), None, 102]
    assert [check["flagged"] for check in checks] == [False] * 100 + [True, False, True]


def test_a_late_word_of_the_centre_is_recorded_for_who_checked_and_not_for_who_holds_the_device_now(world):
    by = ["110001"]
    log = AuditLog(world.home.audit, key=KEY, clock=world.clock)
    verifier = Verifier(
        world.device.store, clock=world.clock, audit=log, software="t", context=lambda: CheckContext(officer=by[0])
    )
    result = verifier.check(Observation(plate_seen=seen_plate(world.ordinary().plate)))
    by[0] = "110002"
    verifier.upgrade(result, result.evidence.online, {})
    assert [check["by"]["officer"] for check in opened_checks(world)] == ["110001", "110001"]


def test_the_days_counts_are_the_rows_of_a_sealed_log(world):
    """F7: day and codes of a sealed record stay readable, and later words on a check do not count again."""
    world.device.verifier.check(Observation(code=b"no mark"))
    result = world.device.verifier.check(Observation(plate_seen=seen_plate(world.ordinary().plate)))
    world.device.verifier.upgrade(result, result.evidence.online, {})
    world.device.verifier.check_pair(*(Observation(plate_seen=seen_plate(world.ordinary().plate)) for _ in range(2)))
    counts = Tally(world.home.audit).of(world.now.astimezone(SHANGHAI).date())
    assert counts == {VerdictCode.NOT_A_MARK: 1, VerdictCode.VALID: 3}
    assert Tally(world.home.audit).of(world.now.astimezone(SHANGHAI).date() + timedelta(days=1)) == {}


OWNER_WORDS = ("owner", "name", "phone", "address", "id_card", "vin", "holder", "person", "姓名", "电话", "住址")


def test_no_field_of_a_record_is_the_owners(world):
    """J2: the names of all fields at any depth; `vin_matches` is a yes or no, `vin_answer` a word; no VIN."""
    for exhibit in world.showcase.after_sync():
        seen = seen_plate(exhibit.plate) if exhibit.plate else None
        world.device.verifier.check(Observation(code=b"no mark", plate_seen=seen))
    names = set().union(*(set(_names(check)) for check in opened_checks(world))) - {"vin_matches", "vin_answer"}
    policy = {"name"}  # of the policy
    assert {name for name in names - policy if any(word in name.lower() for word in OWNER_WORDS)} == set()


def _names(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


# -------------------------------------------------------------------------------------------- capture levels


def test_a_masked_record_names_no_vehicle_and_decides_to_the_same_verdict(world):
    log = AuditLog(world.home.audit, key=KEY, clock=world.clock, usual=Capture.MASKED, stop=Capture.MASKED)
    verifier = Verifier(world.device.store, clock=world.clock, audit=log, software="t")
    overdue, stolen = world.ordinary().plate, world.ordinary().plate
    world.authority.registry.lapse(overdue, Month(2026, 8))
    world.authority.registry.set_status(stolen, "C")
    world.authority.publish()
    world.sync()
    text = world.authority.text(world.ordinary().plate, PresentationMode.PRINTED, world.now).encode()
    seen, verdicts = [], []
    for plate in (overdue, stolen, world.ordinary().plate, Plate("京Z00000", "02")):
        seen.append(plate.text)
        for code in (None, text):
            result = verifier.check(Observation(code=code, plate_seen=seen_plate(plate)))
            verdicts.append(verdict_to_json(result.verdict))
    checks = opened_checks(world)
    assert len({verdict["verdict"] for verdict in verdicts}) > 3
    for check, verdict in zip(checks, verdicts, strict=True):
        assert replay(check)[1]
        for name in ("verdict", "grade", "tone", "reasons", "actions", "valid_until"):
            assert check["verdict"][name] == verdict[name]
        text = json.dumps(check, ensure_ascii=False)
        assert not any(plate in text or plate[2:] in text for plate in seen)
        assert check["inputs"] == {}


def test_a_stop_is_kept_in_full_where_other_checks_are_masked():
    stop = {"kind": "check", "evidence": {"plate_seen": {"text": PLATE}}, "verdict": {"tone": "stop", "plate": PLATE}}
    usual = {**stop, "verdict": {"tone": "pass", "plate": PLATE}}
    pair = {"kind": "accident", "a": usual, "b": stop}
    assert captured(stop, Capture.MASKED, Capture.FULL) == stop
    assert captured(pair, Capture.MASKED, Capture.FULL) == pair
    assert PLATE not in json.dumps(captured(usual, Capture.MASKED, Capture.FULL), ensure_ascii=False)
    assert captured(usual, Capture.IDENTITIES, Capture.FULL) == usual


def test_stand_ins_differ_where_identities_differ():
    record = {
        "kind": "check", "verdict": {"tone": "pass", "plate": PLATE},
        "evidence": {
            "tag": {"plate": PLATE, "tid": "E280"}, "plate_seen": {"text": "京A54321"},
            "qr": {"credential": {"serial": "aa", "plate": PLATE}}, "cache": {"record": {"credential_serial": "bb"}},
        },
    }  # fmt: skip
    masked = captured(record, Capture.MASKED, Capture.MASKED)
    evidence = masked["evidence"]
    assert masked["verdict"]["plate"] == evidence["tag"]["plate"] == evidence["qr"]["credential"]["plate"]
    assert evidence["plate_seen"]["text"] != evidence["tag"]["plate"]
    assert evidence["plate_seen"]["text"].startswith("京A")
    assert evidence["qr"]["credential"]["serial"] != evidence["cache"]["record"]["credential_serial"]


# -------------------------------------------------------------------------------------------------- purging


def test_what_was_removed_from_the_beginning_leaves_its_number_and_hash(tmp_path):
    path = tmp_path / "log"
    sealed_log(path, 2)
    log = sealed_log(path, 2)
    heads = [line.head for line in read_lines(path)]
    remove_up_to(path, heads[2])
    assert start_of(path) == heads[2]
    assert [line.head for line in read_lines(path)] == heads[3:]
    log.append(record(9))
    assert log_head(path).seq == 7
    assert len(records(path)) == 3
    remove_up_to(path, log_head(path))
    assert (list(read_lines(path)), log_head(path).seq) == ([], 7)
    with pytest.raises(AuditError, match="its key is missing"):
        AuditLog(path).append(record(1))
    log.append(record(10))
    assert [line.number for line in read_lines(path)] == [8]


def test_a_log_that_does_not_pass_through_what_is_to_be_removed_stays_as_it_is(tmp_path):
    path = tmp_path / "log"
    sealed_log(path, 3)
    before = path.read_bytes()
    for head in (replace(log_head(path), head=bytes(32)), replace(log_head(path), seq=9)):
        with pytest.raises(AuditError, match="does not pass through"):
            remove_up_to(path, head)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]


def test_a_line_without_end_is_refused_and_fills_no_memory(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * (3 * MAX_RECORD))
    with pytest.raises(AuditError, match="longer than a record"):
        list(read_lines(tmp_path / "log"))


@pytest.mark.parametrize(
    "marker", [b'{"purged":0,"head":"00"}', b'{"purged":"1"}', b'{"purged":1,"head":"' + b"z" * 64 + b'"}']
)
def test_a_beginning_that_cannot_be_read_is_refused(tmp_path, marker):
    (tmp_path / "log").write_bytes(marker + b"\n")
    with pytest.raises(AuditError, match="what was purged"):
        list(read_lines(tmp_path / "log"))
