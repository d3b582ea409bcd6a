"""The commands as a user runs them."""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import sys
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path

import click
import pytest
from PIL import Image

from firmware.scanner import Scanner
from scripts.cli.main import COMMANDS, EXPECTED, cli, main
from scripts.demonstration import batch
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.codes import any_qr_picture
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.server import serve
from tests.conftest import DATA, ROOT, load_data
from verifier.clock import system_clock
from verifier.plates import confusable_plates
from verifier.types import SHANGHAI, Month, Plate, StatusLetter


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sandbox")
    AuthorityFolder(folder).create(clock=system_clock, scale=500, seed=5).publish()
    return folder


@pytest.fixture
def server(sandbox):
    with serve(FolderStore(sandbox / "public")) as running:
        yield running


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def synced(home, server, sandbox) -> Path:
    assert sync(server.url, sandbox) == 0
    return home


def sync(url: str, sandbox: Path, *more: str) -> int:
    root, key = sandbox / "root.json", sandbox / "private" / "epoch.key"
    return main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key), *more])


def good_vehicle(sandbox: Path, nth: int = 0):
    authority = AuthorityFolder(sandbox).open(clock=system_clock)
    good = [
        v
        for v in authority.registry.vehicles.values()
        if v.status == {StatusLetter.NORMAL} and v.valid_until > Month.at(system_clock()) and v.plate.kind == "02"
    ]
    return good[nth]


def issue(sandbox: Path, out: Path, *more: str) -> Path:
    assert main(["sandbox", "issue", "--folder", str(sandbox), "--out", str(out), *more]) == 0
    return out


# -------------------------------------------------------------------------------------------------- help


def commands(group: click.Group, path: tuple[str, ...] = ()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [(), *commands(cli)], ids=" ".join)
def test_help_gives_examples_before_options(path, capsys):
    assert main([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert 0 < out.index("Examples:") < out.index("Options:")


HEAVY = "cv2 numpy requests PIL luma tuf sqlite_utils sqlite3 cryptography cbor2"


@pytest.mark.parametrize("words", ["", "--help", "--version", "nonsense"])
def test_naming_the_commands_loads_none_of_them(words):
    code = (
        f"import sys; from scripts.cli.main import main; status = main({words.split()}) if {bool(words)} else 0;"
        f"print(status, *sorted({{*{HEAVY.split()}}} & set(sys.modules)),"
        " *(name for name in sys.modules if name.startswith('scripts.cli.') and name.count('.') == 2))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    status, *loaded = run.stdout.splitlines()[-1].split()
    assert set(loaded) == {"scripts.cli.main", "scripts.cli.console"}
    assert status == ("2" if words == "nonsense" else "0")
    if words == "--help":
        assert all(f"  {name} " in run.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_of_each_what_it_says_of_itself(name):
    command = cli.get_command(click.Context(cli), name)
    assert command.name == name
    assert command.help.splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize("name", EXPECTED)
def test_an_error_that_is_expected_is_a_class_of_that_name(name):
    module, attribute = name.split(":")
    assert issubclass(getattr(import_module(module), attribute), Exception)


@pytest.mark.parametrize(
    "line",
    ["check", "check --plate 京", "check --kind 02", "nonsense", "sync", "sync --from http://127.0.0.1:1", "decide"],
)
def test_wrong_usage_is_2_with_a_sentence(line, home, capsys):
    assert main(line.split()) == 2
    assert "Error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "next_step"),
    [
        ("update --config nowhere/markcheck.toml", "nowhere/markcheck.toml: cannot be read"),
        ("check --plate 京A12345 --online", "run 'markcheck enrol', then 'markcheck shift begin'"),
    ],
)
def test_what_is_missing_is_named_with_the_next_step(line, next_step, home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    told = capsys.readouterr().err
    assert next_step in told
    assert "update" not in line or str(tmp_path) in told, "the whole path"


# -------------------------------------------------------------------------------------------- main road


def test_sync_says_what_it_did(home, server, sandbox, capsys):
    assert sync(server.url, sandbox, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["outcome"], report["seq_before"], report["seq_after"]) == ("snapshot", None, 1)
    assert (report["vehicles"], report["bytes"] > 1000) == (500, True)
    assert main(["sync", "--from", server.url]) == 0
    assert "sync done (fresh): 500 vehicles" in capsys.readouterr().out
    assert (home / "root.json").stat().st_mode & 0o777 == 0o600


def test_cache_info(synced, capsys):
    capsys.readouterr()
    assert main(["cache", "info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["region"], info["vehicles"], info["trusted_keys"], info["last_failure"]) == ("national", 500, 33, None)
    assert main(["cache", "info"]) == 0
    shown = capsys.readouterr()
    assert "trusted keys   33" in shown.out  # of 16 cities for credentials and tags, and the platform
    assert "for demos only" in shown.err


def test_check_a_picture_and_a_plate(synced, sandbox, tmp_path, capsys):
    vehicle = good_vehicle(sandbox)
    picture = issue(sandbox, tmp_path / "code.png", "--plate", vehicle.plate.text, "--kind", "02")
    capsys.readouterr()
    assert main(["check", str(picture), "--json", "--screens", str(tmp_path / "panel")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["grade"], found["plate"]) == ("VALID", "B", vehicle.plate.text)
    assert (0 <= found["age_s"] < 600, found["age_at_least"]) == (True, False)
    with Image.open(found["panel"]) as panel:
        assert panel.size == (512, 256)
    assert main(["check", "--plate", vehicle.plate.text, "--kind", "02", "--no-paper", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["actions"][:2] == ["RELEASE", "NO_PENALTY_NOT_SHOWN"]
    assert main(["check", "--plate", vehicle.plate.text, "--lang", "en"]) == 0
    assert "NOT SHOWN: OK" in capsys.readouterr().out
    assert main(["replay", str(synced / "audit.jsonl")]) == 0
    assert "3 checks, 3 with the same verdict" in capsys.readouterr().out


def test_a_folder_of_pictures_gives_a_verdict_each(synced, sandbox, tmp_path, capsys):
    folder = tmp_path / "codes"
    issue(sandbox, folder, "--count", "3", "--mode", "printed")
    capsys.readouterr()
    assert main(["check", str(folder), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_is_drawn_is_found_valid_and_named_with_its_vin(synced, sandbox, tmp_path, capsys):
    authority = AuthorityFolder(sandbox).open(clock=system_clock)
    revoked = good_vehicle(sandbox, 2).plate.text
    main(["sandbox", "event", "revoke", "--folder", str(sandbox), "--plate", revoked])
    capsys.readouterr()
    assert main(["sandbox", "issue", "--folder", str(sandbox), "--count", "40", "--json"]) == 0
    drawn = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(drawn) == 40
    assert revoked not in {one["plate"] for one in drawn}
    for one in drawn:
        assert authority.registry.vehicle(Plate(one["plate"], one["kind"])).vin == one["vin"]
        assert main(["check", "--plate", one["plate"], "--kind", one["kind"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["verdict"] == "VALID", one
    picture = issue(sandbox, tmp_path / "code.png", "--plate", drawn[0]["plate"], "--kind", drawn[0]["kind"])
    assert f"VIN {drawn[0]['vin']}" in capsys.readouterr().err
    assert main(["check", str(picture), "--vin", drawn[0]["vin"], "--json"]) == 0
    assert "VIN_CONFIRMED" in json.loads(capsys.readouterr().out)["reasons"]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("revoke", "publishes it, and then a sync brings it"),
        ("status --letters C", "a running 'serve' does so itself"),
        ("lost-paper", "it changes nothing"),
    ],
)
def test_an_event_says_when_devices_will_know(event, told, sandbox, capsys):
    plate = good_vehicle(sandbox, 1).plate.text
    assert main(["sandbox", "event", *event.split(), "--folder", str(sandbox), "--plate", plate]) == 0
    assert told in capsys.readouterr().err


def test_an_event_is_published_with_the_next_publication(synced, server, sandbox, tmp_path, capsys):
    vehicle = good_vehicle(sandbox, 1)
    picture = issue(sandbox, tmp_path / "code.png", "--plate", vehicle.plate.text, "--mode", "printed")
    assert main(["sandbox", "event", "revoke", "--folder", str(sandbox), "--plate", vehicle.plate.text]) == 0
    assert main(["sandbox", "publish", "--folder", str(sandbox)]) == 0
    assert main(["sync", "--from", server.url]) == 0
    capsys.readouterr()
    assert main(["check", str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "REVOKED"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("event revoke", 2),
        ("event revoke --plate 京Z00000", 1),
        ("event renew --plate 京Z00000 --until 2026-13", 2),
        ("event status --plate 京Z00000 --letters Z", 1),
        ("issue --plate 京Z00000", 1),
        ("issue --out .", 2),
        ("serve --seconds -1", 2),
    ],
)
def test_what_the_register_refuses_changes_nothing(line, status, sandbox, capsys):
    events = sandbox / "private" / "events.jsonl"
    before = events.read_bytes() if events.exists() else None
    assert main(["sandbox", *line.split(), "--folder", str(sandbox)]) == status
    assert "Traceback" not in capsys.readouterr().err
    assert (events.read_bytes() if events.exists() else None) == before


def test_a_sheet_to_print_can_be_read_again(synced, sandbox, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    issuing = ["sandbox", "issue", "--folder", str(sandbox), "--mode", "printed"]
    assert main([*issuing, "--count", "6", "--sheet", str(sheet)]) == 0
    capsys.readouterr()
    assert main(["check", str(sheet), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main([*issuing, "--sheet", str(tmp_path / "sheet.pdf")]) == 0
    assert (tmp_path / "sheet.pdf").read_bytes().startswith(b"%PDF")


def test_no_private_key_is_readable_by_others(sandbox):
    for path in (sandbox / "private").rglob("*"):
        if path.is_file() and path.suffix in (".pem", ".key"):
            assert path.stat().st_mode & 0o077 == 0, path.name


@pytest.mark.parametrize("case", load_data("decision_cases.json")["cases"], ids=lambda c: c["id"])
def test_decide_from_a_file(case, tmp_path, capsys):
    path = tmp_path / "case.json"
    path.write_text(json.dumps(case))
    assert main(["decide", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expect = case["expect"]
    assert (found["verdict"], found["grade"], found["tone"]) == (expect["verdict"], expect["grade"], expect["tone"])


def test_a_limited_role_gets_yes_or_no_and_the_month(synced, sandbox, capsys):
    vehicle = good_vehicle(sandbox)
    check = ["check", "--plate", vehicle.plate.text]
    capsys.readouterr()
    assert main([*check, "--role", "gate", "--lang", "en"]) == 0
    passed, until, dated = capsys.readouterr().out.splitlines()
    assert (passed, until) == ("PASS", f"VALID TO {vehicle.valid_until}")
    assert main([*check, "--role", "insurer", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"picture", "id", "at", "answer", "month", "as_of", "age_s", "age_at_least", "policy"}
    assert dated == f"DATA {datetime.fromisoformat(found['as_of']).astimezone(SHANGHAI):%Y-%m-%d}"
    assert 0 <= found["age_s"] < 600
    assert main([*check, "--role", "technician"]) == 1
    assert capsys.readouterr().out == ""


def test_two_cars_of_an_accident_stand_in_one_record(synced, sandbox, tmp_path, capsys):
    vehicle = good_vehicle(sandbox)
    picture = issue(sandbox, tmp_path / "a.png", "--plate", vehicle.plate.text)
    capsys.readouterr()
    assert main(["accident", str(picture), "京Z00000"]) == 0
    out = capsys.readouterr().out
    assert out.index("甲车") < out.index("检验有效") < out.index("乙车") < out.index("查无记录")
    assert main(["accident", str(picture), "京Z00000", "--json"]) == 0
    a, b = map(json.loads, capsys.readouterr().out.splitlines())
    assert (a["verdict"], b["verdict"]) == ("VALID", "NOT_FOUND")
    lines = (synced / "audit.jsonl").read_bytes().splitlines()
    record = json.loads(lines[-1])
    assert (len(lines), record["kind"]) == (2, "accident")
    assert [record[car]["verdict"]["verdict"] for car in "ab"] == ["VALID", "NOT_FOUND"]
    assert record["a"]["evidence"]["purpose"] == "accident"
    assert main(["replay", str(synced / "audit.jsonl")]) == 0
    assert "4 checks, 4 with the same verdict" in capsys.readouterr().out
    (tmp_path / "b.png").write_bytes(picture.read_bytes())
    assert main(["accident", str(tmp_path), "京A12345"]) == 2


def test_a_typed_plate_that_is_not_found_brings_a_hint(synced, sandbox, capsys):
    vehicle = good_vehicle(sandbox)
    authority = AuthorityFolder(sandbox).open(clock=system_clock)
    typed = next(p for p in confusable_plates(vehicle.plate) if p not in authority.registry.vehicles)
    capsys.readouterr()
    assert main(["check", "--plate", typed.text, "--kind", "02", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], vehicle.plate.text in found["similar"]) == ("NOT_FOUND", True)


def test_a_record_taken_out_of_the_log_is_decided_again(synced, sandbox, tmp_path, capsys):
    for plate in ("京A12345", "京A12346"):
        assert main(["check", "--plate", plate]) == 0
    record = json.loads((synced / "audit.jsonl").read_bytes().splitlines()[1])
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record, indent=1))
    capsys.readouterr()
    assert main(["replay", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(record["policy"]))
    record["policy"] = "default/1"
    path.write_text(json.dumps(record))
    assert main(["replay", str(path)]) == 1
    assert "policy 'default/1' is missing" in one_line(capsys)
    assert main(["replay", str(path), "--policy", str(policy)]) == 0


# -------------------------------------------------------------------------------------------- bad input


def one_line(capsys) -> str:
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    lines = [line for line in shown.err.splitlines() if "note:" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_files_that_are_no_usable_pictures(synced, tmp_path, capsys):
    whole = tmp_path / "whole.png"
    any_qr_picture("https://example.com").save(whole)
    files = {
        "text.png": b"this is a text file\n",
        "cut.png": whole.read_bytes()[: whole.stat().st_size // 2],
        "empty.png": b"",
        "huge.png": bytes(21_000_000),
    }
    capsys.readouterr()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert main(["check", str(tmp_path / name)]) == 1
        assert name in one_line(capsys)
    (tmp_path / "nothing").mkdir()
    assert main(["check", str(tmp_path / "nothing")]) == 1
    one_line(capsys)
    assert main(["check", str(tmp_path / "absent.png")]) == 1
    one_line(capsys)


def test_a_bad_file_does_not_cost_the_good_ones_beside_it(synced, sandbox, tmp_path, capsys):
    folder = tmp_path / "mixed"
    issue(sandbox, folder, "--count", "2")
    (folder / "0.png").write_bytes(b"broken")
    capsys.readouterr()
    assert main(["check", str(folder), "--json"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


LONG = "京" + "A" * 5000


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (["check", LONG], 1, "name too long"),
        (["check", LONG + ".mp4"], 1, "name too long"),
        (["check", "--plate", LONG], 2, "too long"),
        (["accident", LONG, "京A12345"], 2, "too long"),
        (["accident", "京A12345", LONG], 2, "too long"),
        (["decide", LONG], 2, "does not exist"),
        (["check", "--plate", "京A12345", "--home", LONG], 1, "name too long"),
        ([LONG], 2, "No such command"),
    ],
)
def test_an_argument_that_is_far_too_long_is_one_short_error(line, status, said, home, capsys):
    assert main(line) == status
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert said in last
    assert "Errno" not in shown.err
    assert len(shown.out + shown.err) < 800


def test_a_picture_is_checked_without_an_image_library_in_the_officers_process(home, tmp_path):
    any_qr_picture("https://example.com").save(tmp_path / "code.png")
    code = (
        f"import sys; from scripts.cli.main import main; print(main(['check', {str(tmp_path / 'code.png')!r}]),"
        " *{'cv2', 'numpy', 'requests', 'PIL', 'luma', 'zxingcpp', 'pyzbar'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "0"
    assert "非标志" in run.stdout or "重扫" in run.stdout


def test_a_folder_is_no_car(home, tmp_path, capsys):
    any_qr_picture("https://example.com").save(tmp_path / "only.png")
    assert main(["accident", str(tmp_path), "京A12345"]) == 2
    assert "a CAR is one picture" in capsys.readouterr().err


# What a decoder does to its process; the decoders and the process are real.


@pytest.fixture
def trapped(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("scripts.cli.check.Scanner", partial(Scanner, decoders="tests.scan_stand_ins:trapped"))


def test_a_picture_over_which_a_decoder_hangs_or_crashes_is_named_and_costs_no_other_its_verdict(
    trapped, synced, sandbox, tmp_path, capsys
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("HANG", "CRASH"):
        any_qr_picture(name).save(folder / f"{name}.png")
    issue(sandbox, folder / "z.png", "--plate", good_vehicle(sandbox).plate.text)
    capsys.readouterr()
    assert main(["check", str(folder), "--json"]) == 1
    shown = capsys.readouterr()
    assert [json.loads(line)["verdict"] for line in shown.out.splitlines()] == ["VALID"]
    assert [line for line in shown.err.splitlines() if "note:" not in line] == [
        "markcheck: scanner: the process was ended by signal 11 (CRASH.png)",
        "markcheck: scanner: reading a frame took longer than 2.5 s (HANG.png)",
    ]


def test_a_car_over_whose_picture_a_decoder_crashes_is_an_error_and_no_record(trapped, synced, tmp_path, capsys):
    any_qr_picture("CRASH").save(tmp_path / "car.png")
    capsys.readouterr()
    assert main(["accident", str(tmp_path / "car.png"), "京A12345"]) == 1
    assert one_line(capsys) == "markcheck: scanner: the process was ended by signal 11 (car.png)"
    assert not (synced / "audit.jsonl").exists()


@pytest.mark.parametrize("text", ["https://example.com/?a=1", "\x1b[2J\x1b]0;owned\x07", "\u202e逾期", "VM1:<script>"])
def test_hostile_codes_are_named_and_never_opened_or_printed(text, synced, tmp_path, capsys, monkeypatch):
    path = tmp_path / "code.png"
    any_qr_picture(text).save(path)
    capsys.readouterr()

    def no_network(*_):
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert main(["check", str(path)]) == 0
    shown = capsys.readouterr()
    assert "非标志" in shown.out or "重扫" in shown.out
    assert not {"\x1b", "\x07", "\u202e", "example.com", "script"} & {*shown.out, *shown.out.split()}
    assert "example" not in shown.out + shown.err


def test_without_data_a_check_still_answers(home, capsys):
    assert main(["cache", "info"]) == 1
    assert "no data" in one_line(capsys)
    assert main(["check", "--plate", "京A12345", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "UNDECIDED"


def test_a_flipped_bit_in_the_cache_is_a_caution_and_not_an_absence(synced, sandbox, capsys):
    vehicle = good_vehicle(sandbox)
    base = synced / "cache" / "current" / "base.db"
    data = bytearray(base.read_bytes())
    data[4096:] = bytes(byte ^ 0x01 for byte in data[4096:])
    base.chmod(0o644)
    base.write_bytes(data)
    capsys.readouterr()
    assert main(["check", "--plate", vehicle.plate.text, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], "CACHE_REJECTED" in found["reasons"]) == ("UNDECIDED", True)


def test_a_server_that_is_down_leaves_the_old_data(synced, sandbox, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    capsys.readouterr()
    assert main(["sync", "--from", f"http://127.0.0.1:{port}"]) == 1
    one_line(capsys)
    assert main(["cache", "info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["vehicles"], info["last_failure"] is not None) == (500, True)


def test_a_second_sync_at_the_same_time_gives_way(synced, server, sandbox, capsys):
    capsys.readouterr()
    with (synced / "cache" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["sync", "--from", server.url]) == 1
    assert "another sync" in one_line(capsys)


def test_files_that_are_no_case_or_log(tmp_path, capsys):
    bad = tmp_path / "bad.json"
    for text, named in (
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        ('{"now":"2026-08-20T10:00:00"}', "now"),
        ('{"now":"0001-01-01T00:00:00+08:00"}', "now"),
    ):
        bad.write_text(text)
        assert main(["decide", str(bad)]) == 1
        assert named in one_line(capsys)
    assert main(["decide", str(DATA)]) == 2


def test_logs_that_are_none(tmp_path, capsys):
    bad = tmp_path / "audit.jsonl"
    for text in ('{"kind":"accident","a":1,"b":2}', "no log\nat all\n", "[" * 100_000, ""):
        bad.write_text(text)
        assert main(["replay", str(bad)]) == 1
        shown = capsys.readouterr()
        assert "markcheck:" in shown.err
        assert "our mistake" not in shown.err


def test_an_interrupted_creation_can_be_repeated(tmp_path, capsys):
    folder = tmp_path / "sandbox"
    (tmp_path / "sandbox.new" / "public" / "metadata").mkdir(parents=True)
    (tmp_path / "sandbox.new" / "public" / "metadata" / "1.root.json").write_text("{}")
    assert main(["sandbox", "publish", "--folder", str(folder), "--scale", "16"]) == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("not ours")
    assert main(["sandbox", "publish", "--folder", str(tmp_path / "other"), "--scale", "16"]) == 1
    assert (tmp_path / "other" / "thesis.txt").read_text() == "not ours"


def test_a_bad_epoch_key_leaves_codes_readable(synced, sandbox, tmp_path, capsys):
    picture = issue(sandbox, tmp_path / "code.png", "--plate", good_vehicle(sandbox).plate.text)
    (synced / "epoch.key").write_text("garbage")
    capsys.readouterr()
    assert main(["check", str(picture), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["verdict"] == "SIGNED_ONLY"
    assert "cannot be looked up" in shown.err


def test_a_mark_beside_an_advertisement_is_one_check(synced, sandbox, tmp_path, capsys):
    picture = issue(sandbox, tmp_path / "code.png", "--plate", good_vehicle(sandbox).plate.text)
    with Image.open(picture) as mark, any_qr_picture("https://example.com") as other:
        both = Image.new("L", (mark.width + other.width, max(mark.height, other.height)), 255)
        both.paste(other, (0, 0))
        both.paste(mark, (other.width, 0))
        both.save(picture)
    capsys.readouterr()
    assert main(["check", str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "VALID"


# ------------------------------------------------------------------------------------------------- demo


def test_the_demo_ends_as_prepared(tmp_path, capsys):
    assert batch.main(["--batch", "--out", str(tmp_path), "--scale", "500"]) == 0
    out = capsys.readouterr().out
    assert "sync done (snapshot): 500 vehicles" in out
    assert "15 checks, 15 as expected" in out
    assert len(list((tmp_path / "panel").glob("*-zh.png"))) == 15


def test_bench_decide_stands_beside_its_target(capsys):
    assert main(["bench", "decide", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] > 0
    assert found["target"] < 1
