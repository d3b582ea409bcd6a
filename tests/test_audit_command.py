"""`markcheck audit`, as somebody at the device and somebody at the centre use it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scripts.cli.audit import COMMANDS, audit
from scripts.cli.main import main
from scripts.sandbox.audit_keys import load_private_key, open_or_make_key
from tests.conftest import DATA, ROOT
from tests.sealed_logs import NOW, PRIVATE, sealed_log, write_key
from tests.status_world import Handheld, World, make_world
from tests.test_audit_photos import jpeg
from verifier.audit import AuditLog, CheckContext, CheckRecord, verdict_to_json
from verifier.audit_file import FIRST, dump, log_head
from verifier.audit_upload import AcknowledgedHead
from verifier.decide import decide
from verifier.evidence import evidence_from_json
from verifier.photos import NoPhoto, PhotoOf, PhotoStore, keep_photo, no_photo_json
from verifier.policy import Policy
from verifier.seal import audit_key, seal_photo
from verifier.types import SHANGHAI

CHECK = "0f0e0d0c0b0a09080706050403020100"


@pytest.fixture
def key(tmp_path) -> Path:
    """The authority's private key as a file."""
    path = tmp_path / "audit.key"
    path.write_bytes(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def a_check(check_id: str = CHECK, now: str = "2026-11-22T10:00:00+08:00") -> CheckRecord:
    """A stolen car, as an officer at a checkpoint met it."""
    evidence, at = evidence_from_json(
        {
            "now": now,
            "purpose": "checkpoint",
            "plate_seen": {"text": "京A12345", "plate_kind": "02", "confirmed": True},
            "cache": {
                "state": "ok", "as_of": "2026-11-22T02:00:00+08:00", "scope": "national", "covers": True,
                "record": {
                    "plate": "京A12345", "plate_kind": "02", "status": "C", "inspection_valid_until": "2027-08",
                    "ecred_issued": True,
                },
            },
        }
    )  # fmt: skip
    return CheckRecord(
        check_id=check_id, evidence=evidence, now=at, policy=Policy(), verdict=decide(evidence, Policy(), at),
        inputs={}, sources={"cache": None, "remarks": []}, software="markcheck 0.1.0",
        context=CheckContext(officer="110001", device="handheld-7", place="京密路<1>", mode="checkpoint"),
    )  # fmt: skip


@pytest.fixture
def home(tmp_path) -> Path:
    """A sealed device with two checks, one of them with a photo."""
    folder = tmp_path / "home"
    folder.mkdir()
    write_key(folder / "audit-key.pem")
    log = AuditLog(folder / "audit.jsonl", key=audit_key(PRIVATE.public_key()), clock=lambda: NOW)
    log.append(a_check("00" * 16).to_json())
    log.append(a_check().to_json())
    keep_photo(log, PhotoStore(folder / "photos", key=log.key), CHECK, jpeg(), evidence=True)
    return folder


def run(*words: object) -> int:
    return main(["audit", *map(str, words)])


def test_a_sealed_log_is_verified_on_the_device_and_opened_at_the_authority(home, key, capsys):
    assert run("verify", "--home", home) == 0
    out, err = capsys.readouterr()
    assert out == "3 records in one chain of 4 lines\n"
    assert "sealed" in err
    assert run("verify", home / "audit.jsonl", "--key", key, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["sealed"], found["lines"], found["unfinished"]) == (3, 3, 4, [])


def test_a_changed_line_is_named_and_the_exit_status_says_so(home, key, capsys):
    lines = (home / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (home / "audit.jsonl").write_bytes(b"".join([lines[0], *lines[2:]]))
    assert run("verify", "--home", home) == 1
    assert "line 2 does not follow line 1" in capsys.readouterr().err
    entry = json.loads(lines[3])
    entry["codes"] = ["VALID"]
    (home / "audit.jsonl").write_bytes(b"".join([*lines[:3], json.dumps(entry).encode() + b"\n"]))
    assert run("verify", "--home", home) == 0, "without the key the last line cannot be told"
    assert run("verify", "--home", home, "--key", key) == 1
    assert "line 4 is not as it was sealed" in capsys.readouterr().err


def test_a_log_shorter_than_what_was_acknowledged_is_told_on_the_device(home, capsys):
    AcknowledgedHead(home / "audit-sent.json").save(log_head(home / "audit.jsonl"))
    lines = (home / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (home / "audit.jsonl").write_bytes(b"".join(lines[:2]))
    assert run("verify", "--home", home) == 1
    assert "ends at line 2, and the centre has acknowledged line 4" in capsys.readouterr().err


def test_what_a_power_cut_left_and_what_is_not_sealed_is_told(home, tmp_path, capsys):
    with (home / "audit.jsonl").open("ab") as file:
        file.write(b"half")
    sealed_log(home / "audit.jsonl", 1)
    assert run("verify", "--home", home) == 0
    assert "line 5 is no record" in capsys.readouterr().err
    AuditLog(tmp_path / "plain").append(a_check().to_json())
    assert run("verify", tmp_path / "plain") == 0
    assert "1 records are not sealed" in capsys.readouterr().err


def test_the_device_shows_days_and_verdicts_and_the_authority_the_rest(home, key, capsys):
    assert run("show", "--home", home) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["2", "2026-11-22", "sealed", "WANTED"]
    assert "京A12345" not in out
    assert run("show", home / "audit.jsonl", "--key", key, "--last", "2") == 0
    out = capsys.readouterr().out
    assert "京A12345" in out
    assert len(out.splitlines()) == 2
    assert run("show", home / "audit.jsonl", "--key", key, "--check", CHECK, "--json") == 0
    assert [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()] == ["check", "photo"]


def test_control_characters_of_a_record_are_not_printed(tmp_path, capsys):
    AuditLog(tmp_path / "plain").append({"kind": "check", "id": "\x1b[2J", "verdict": {"plate": "\x07京"}})
    assert run("show", tmp_path / "plain") == 0
    assert not set("\x1b\x07") & set(capsys.readouterr().out)


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "check", "verdict": "x", "evidence": [], "id": []},
        {"kind": [], "id": {}},
        {"box": 1, "codes": "x\x1b", "s": [], "day": 5},
        {"box": "", "kind": "session", "s": [], "to": {}},
        {"box": "", "codes": ["\x1b[2J"], "s": "a"},
        {"kind": "accident", "a": 1},
        {"kind": "photo", "name": ["x"], "id": CHECK},
    ],
)
def test_a_hostile_line_ends_no_command_with_a_mistake_of_ours(tmp_path, key, entry, capsys):
    home = tmp_path / "home"
    home.mkdir()
    (home / "audit.jsonl").write_bytes(dump(FIRST, entry) + b"\n")
    AcknowledgedHead(home / "audit-sent.json").save(log_head(home / "audit.jsonl"))
    for words in (("verify",), ("show",), ("replay",), ("purge",), ("show", "--check", CHECK)):
        for more in ((), ("--key", key)) if words[0] != "purge" else ((),):
            assert run(*words, *more, "--home", home) in (0, 1)
    out, err = capsys.readouterr()
    assert "our mistake" not in err
    assert "\x1b" not in out + err


def test_the_authority_reaches_the_same_verdicts_from_the_log_it_opens(home, key, tmp_path, capsys):
    assert run("replay", home / "audit.jsonl", "--key", key) == 0
    assert capsys.readouterr().out == "2 checks, 2 with the same verdict\n"
    assert run("open", home / "audit.jsonl", "--key", key, "--out", tmp_path / "opened.jsonl") == 0
    assert main(["replay", str(tmp_path / "opened.jsonl")]) == 0
    assert "2 with the same verdict" in capsys.readouterr().out
    assert (tmp_path / "opened.jsonl").stat().st_mode & 0o777 == 0o600
    assert run("open", home / "audit.jsonl", "--key", key) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("words", [["audit", "replay"], ["replay"]])
def test_a_sealed_log_without_its_key_is_said_to_be_sealed(home, words, capsys):
    assert main([*words, str(home / "audit.jsonl")]) == 1
    assert "sealed" in capsys.readouterr().err


def test_a_verdict_that_was_written_otherwise_is_found_by_the_replay(tmp_path, capsys):
    record = a_check().to_json()
    record["verdict"]["verdict"] = "VALID"
    AuditLog(tmp_path / "plain").append(record)
    assert run("replay", tmp_path / "plain") == 1
    assert "WANTED" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ case files


def test_the_case_file_is_the_one_in_the_repository(tmp_path):
    """The golden file: a plain log, because what is sealed differs each time."""
    AuditLog(tmp_path / "plain", clock=lambda: NOW).append(a_check().to_json())
    assert run("export", tmp_path / "plain", "--check", CHECK, "--out", tmp_path / "case") == 0
    for suffix in ("json", "html"):
        made = (tmp_path / "case" / f"check-{CHECK}.{suffix}").read_text(encoding="utf-8")
        assert made == (DATA / f"audit_case.{suffix}").read_text(encoding="utf-8"), suffix


def test_a_case_file_of_a_sealed_log_has_records_lines_and_the_photo(home, key, tmp_path, capsys):
    words = ("export", home / "audit.jsonl", "--key", key, "--photos", home / "photos", "--out", tmp_path / "case")
    assert run(*words, "--check", CHECK, "--json") == 0
    written = [Path(path) for path in json.loads(capsys.readouterr().out)["written"]]
    case = json.loads(written[0].read_bytes())
    lines = (home / "audit.jsonl").read_bytes().splitlines()
    assert [record["line"] for record in case["records"]] == [3, 4]
    assert [record["sha256"] for record in case["records"]] == [hashlib.sha256(lines[i]).hexdigest() for i in (2, 3)]
    assert case["records"][0]["record"]["verdict"] == verdict_to_json(a_check().verdict)
    assert case["photos"] == [{"name": f"00000001-e-{CHECK}.box", "matches": True}]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written)
    assert "data:image/jpeg;base64," in written[1].read_text(encoding="utf-8")
    assert run(*words, "--check", "ff" * 16) == 1
    assert "no check of this number" in capsys.readouterr().err


def test_a_photo_that_was_exchanged_does_not_match_its_record(home, key, tmp_path, capsys):
    name = f"00000001-e-{CHECK}.box"
    other = seal_photo(audit_key(load_private_key(key).public_key()), name, jpeg(5000))
    (home / "photos" / name).write_bytes(other)
    words = ("export", home / "audit.jsonl", "--key", key, "--photos", home / "photos", "--out", tmp_path / "case")
    assert run(*words, "--check", CHECK) == 0
    assert "（与记录不符）" in (tmp_path / "case" / f"check-{CHECK}.html").read_text(encoding="utf-8")
    (home / "photos" / name).unlink()
    assert run(*words, "--check", CHECK) == 0
    assert "is not in the folder" in capsys.readouterr().err


def test_the_slip_says_of_what_a_photo_is_and_why_there_is_none(home, key, tmp_path, capsys):
    log = AuditLog(home / "audit.jsonl", key=audit_key(PRIVATE.public_key()), clock=lambda: NOW)
    other = "11" * 16
    log.append(a_check(other).to_json())
    keep_photo(log, PhotoStore(home / "photos", key=log.key), other, jpeg(), evidence=False, of=PhotoOf.SCENE)
    log.append(no_photo_json(other, NoPhoto.NO_CAMERA))
    words = ("export", home / "audit.jsonl", "--key", key, "--photos", home / "photos", "--out", tmp_path / "case")
    slips = []
    for check in (CHECK, other):
        assert run(*words, "--check", check) == 0
        slips.append((tmp_path / "case" / f"check-{check}.html").read_text(encoding="utf-8"))
    assert capsys.readouterr().err == ""
    assert "读码时的画面" in slips[0]
    assert hashlib.sha256(jpeg()).hexdigest() in slips[0]
    assert "判定时镜头前的画面（未读到码）" in slips[1]
    assert "无（没有相机）" in slips[1]
    assert slips[1].count("data:image/jpeg;base64,") == 1
    case = json.loads((tmp_path / "case" / f"check-{other}.json").read_bytes())
    assert [one["record"].get("why") for one in case["records"]] == [None, None, "no camera"]


def test_a_sealed_picture_is_opened_at_the_authority_under_its_own_name_alone(home, key, tmp_path, capsys):
    name = f"00000001-e-{CHECK}.box"
    out = tmp_path / "photo.jpg"
    assert run("open", home / "photos" / name, "--key", key, "--out", out) == 0
    assert out.read_bytes() == jpeg()
    assert out.stat().st_mode & 0o777 == 0o600
    (home / "photos" / name).rename(tmp_path / "other.box")
    assert run("open", tmp_path / "other.box", "--key", key, "--out", out) == 1
    assert "not as it was sealed" in capsys.readouterr().err
    assert run("open", tmp_path / "other.box", "--key", key) == 2


class Slip(HTMLParser):
    """What a page loads, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object"), tag
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_slip_is_chinese_loads_nothing_from_outside_and_names_no_amount():
    page = (DATA / "audit_case.html").read_text(encoding="utf-8")
    slip = Slip()
    slip.feed(page)
    assert slip.loaded == []
    assert "http" not in page
    assert "url(" not in page
    text = "".join(slip.texts)
    for words in (
        "机动车检验标志核查记录单",
        "京A12345",
        "小型汽车",
        "布控车辆",
        "2026-11-22 10:00:00",
        "110001",
        "卡口检查",
    ):
        assert words in text
    assert "京密路<1>" in text, "escaped, and so shown as it was written"
    assert re.search(r"元|罚款|记\d+分|第.{1,3}条", text) is None


# ------------------------------------------------------------------------------------------------- the centre


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("centre")).serving() as world:
        yield world


@pytest.fixture
def enrolled(world, home) -> Path:
    """The device with a certificate of the centre."""
    return enrol(world, home, "handheld-7")


def enrol(world: World, home: Path, name: str) -> Path:
    handheld = world.handheld(name)
    (home / "device.pem").write_bytes(handheld.pair())
    (home / "device-key.pem").write_bytes(handheld.pair())
    (home / "centre-ca.pem").write_text(world.ca.root_pem, encoding="ascii")
    return home


def test_a_log_is_uploaded_received_opened_and_purged(world, enrolled, key, tmp_path, capsys):
    centre = f"https://localhost:{world.port}/"
    assert run("upload", "--centre", centre, "--home", enrolled, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "sent": 4, "acknowledged": 4, "centre": "continues", "problem": None,
    }  # fmt: skip
    assert run("upload", "--centre", centre, "--home", enrolled) == 0
    assert capsys.readouterr().out.startswith("0 lines sent; the centre has 4")
    books = f"sqlite:///{world.folder / 'status.db'}"
    words = ("received", "handheld-7", "--folder", world.home.folder, "--database", books)
    assert run(*words, "--out", tmp_path / "received") == 0
    assert (tmp_path / "received").read_bytes() == (enrolled / "audit.jsonl").read_bytes()
    assert run("replay", tmp_path / "received", "--key", key) == 0
    (enrolled / "audit.toml").write_text("retention_days = 0\n", encoding="ascii")
    assert run("purge", "--home", enrolled, "--json") == 0
    lines = json.loads(capsys.readouterr().out.splitlines()[-1])["lines"]
    assert lines == (4 if datetime.now(SHANGHAI).date() > NOW.date() else 0)


def test_what_a_device_does_with_its_log_loads_nothing_of_the_authority(world, home, tmp_path):
    """In a process of its own, which says at the end what it has loaded."""
    enrol(world, home, "handheld-8")
    plain = tmp_path / "plain.jsonl"
    AuditLog(plain, clock=lambda: NOW).append(a_check().to_json())
    commands = [
        ["audit", *words, "--home", str(home)]
        for words in (
            ["upload", "--centre", f"https://localhost:{world.port}/"], ["verify"], ["show"], ["purge"],
            ["replay", str(plain)], ["export", str(plain), "--check", CHECK, "--out", str(tmp_path / "case")],
        )
    ]  # fmt: skip
    code = (
        "import json, sys; from scripts.cli.main import main;"
        f"done = [main(words) for words in {commands}];"
        "print(json.dumps([done, [name for name in sys.modules if name.startswith('scripts.sandbox')]]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert json.loads(run.stdout.splitlines()[-1]) == [[0] * len(commands), []], run.stderr


def test_the_list_of_sub_commands_says_of_each_what_it_says_of_itself():
    for name in COMMANDS:
        command = audit.get_command(click.Context(audit), name)
        assert (command.name, command.help.splitlines()[0]) == (name, COMMANDS[name][1])


def test_a_cut_log_is_told_to_the_centre_by_the_upload_itself(world, enrolled, capsys):
    centre = f"https://localhost:{world.port}/"
    code = world.store.enrolment_code("handheld-7", datetime.now(UTC), new_log=True)
    handheld = Handheld(world)
    assert handheld.enrol(code).status == 200
    (enrolled / "device.pem").write_bytes(handheld.pair())
    (enrolled / "device-key.pem").write_bytes(handheld.pair())
    assert run("upload", "--centre", centre, "--home", enrolled) == 0
    lines = (enrolled / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (enrolled / "audit.jsonl").write_bytes(b"".join(lines[:3]))
    assert run("upload", "--centre", centre, "--home", enrolled) == 1
    err = capsys.readouterr().err
    assert "the centre has acknowledged line 4" in err
    assert "does not continue what it told before" in err
    assert world.store.devices()[0]["audit_alarms"] == 1


def test_without_a_centre_or_a_log_the_commands_say_so(tmp_path, capsys):
    assert run("upload", "--home", tmp_path) == 2
    assert run("verify", "--home", tmp_path) == 1
    assert "there is no audit log yet" in capsys.readouterr().err
    assert run("key", "--folder", tmp_path) == 1
    assert "no sandbox authority" in capsys.readouterr().err


def test_settings_that_cannot_be_used_are_named_by_their_place(tmp_path, capsys):
    (tmp_path / "online.toml").write_text("url = 5\n", encoding="ascii")
    assert run("upload", "--home", tmp_path) == 1
    assert capsys.readouterr().err == "markcheck: online.url: not a text\n"


def test_the_sandbox_makes_its_key_once(world, capsys):
    assert run("key", "--folder", world.home.folder) == 0
    public = Path(capsys.readouterr().out.strip())
    before = public.read_bytes()
    assert run("key", "--folder", world.home.folder) == 0
    assert public.read_bytes() == before
    assert open_or_make_key(world.home.private, world.home.folder)
