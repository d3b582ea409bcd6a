"""What the device notes of itself, and that nothing which leaves it names a car, a tag, a document or a key."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.console import KEYS, open_session
from firmware.console_commands import FAILURES, RING, log_bundle
from firmware.console_line import Terminal
from firmware.console_login import ConsoleKey, KeyKind
from firmware.logs import LONGEST, LogRing, bundle, fault_notes, masked, tail
from hw.display.sizes import SIZES
from tests.conftest import load_data
from tests.test_console import SETTINGS
from verifier.plates import LETTERS, PROVINCES

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TABLES = load_data("domain_tables.json")
PLATES = [plate["text"] for plate in TABLES["plate_valid"]] + [plate["canonical"] for plate in TABLES["plate_valid"]]
VINS = [vin["vin"] for vin in TABLES["vin"]["vectors"]]
NAMED = [
    "E2801160600002041234ABCD", "a1b2c3d4e5f60718", "A1:B2:C3:D4:E5:F6", "VM1:6BFOXN*TS0BI$ZD.P9UOCX 2",
    "bWFya2NoZWNrIGVwb2NoIGtleSAxMjM0NTY3ODkwYWI=", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n",
    "110101199003078515", "13800138000", "11010119900307851X",
    "1000 0000 abcd", "1000 0000 A1B2 C3D4", "1020-3040-5060",
]  # fmt: skip
HARMLESS = [
    "ssd1309 on simulated took a picture", "picamera2 imx708, a frame read in 38 ms", "sh1106",
    "picamera2 ov5647, a frame read in 41 ms", "no mode of ov64a40",
    "no answer within 2.0 s",
    "2026-11-22T20:48:01+00:00 markcheck.service watchdog core-dump/6", "no. 42 of 2026-11-22T20:48",
    "cannot be read: No such file or directory", "75325 MiB free", "4 records in one chain", "m100 M100 V2.3.5",
    "1536 2048 pixels", "HANG scanner: taking a frame took longer than 1.8 s", "well again",
]  # fmt: skip


def names_in(text: str, name: str) -> bool:
    """Whether any five characters in a row of a name are left."""
    plain = "".join(name.split())
    pieces = {plain[at : at + 5] for at in range(len(plain) - 4)} - {"00000"}  # which every archive holds
    return any(piece in text for piece in pieces)


@pytest.mark.parametrize("name", [*PLATES, *VINS, *NAMED])
@pytest.mark.parametrize("around", ["{}", "reader: {} seen twice", "a={},b", "({})", "x\u200b{}\u202e!", "第{}号"])
def test_nothing_that_names_a_car_a_tag_a_document_a_person_or_a_key_is_left(name: str, around: str) -> None:
    told = masked(around.format(name))
    assert not names_in(told, name), told
    assert "[masked]" in told


@given(
    st.sampled_from(PROVINCES), st.sampled_from(LETTERS), st.text(LETTERS + "0123456789", min_size=5, max_size=6),
    st.sampled_from(["", " ", "·", "-", " · "]),
)  # fmt: skip
def test_no_plate_of_the_usual_form_is_left_however_it_is_written(
    province: str, letter: str, rest: str, gap: str
) -> None:
    assert rest not in masked(f"x {province}{gap}{letter}{gap}{rest} y")
    assert rest.lower() not in masked(f"x {province}{gap}{letter}{gap}{rest} y".lower())


@pytest.mark.parametrize("text", HARMLESS)
def test_what_a_technician_needs_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("model", SIZES)
def test_the_name_of_every_panel_stays(model: str) -> None:
    text = f"{model} on spi took a picture"
    assert masked(text) == text


def test_a_part_named_like_a_plate_stays_but_never_behind_a_province() -> None:
    for text in ("京SH1106", "京 sh1106", "京-sh1106", "京·SH1106"):
        assert "1106" not in masked(text)


@given(st.text(max_size=3000))
def test_masked_text_is_one_short_line_whatever_it_was(text: str) -> None:
    told = masked(text)
    assert len(told) <= LONGEST
    assert told.isprintable()


def test_a_name_that_was_cut_in_two_by_the_bound_is_not_told_in_part() -> None:
    for filler in ("Q7" * 2000, "x " * 2000):
        for more in range(20):
            text = filler[: 1600 - more] + "京A12345 LSVAA49J4E2000001"
            assert not names_in(masked(text), "京A12345"), more


@pytest.mark.parametrize("piece", ["1", "A ", "京", "京A", "a1-", "0A:", "VM1:", "1 ", "京 A - ", "W J 京 1"])
def test_no_text_takes_long_to_mask(piece: str) -> None:
    began = time.process_time()
    for _ in range(20):
        masked("reader: no answer within 2.0 s, line 17 of 200, at 2026-11-22T20:48" * 8)
    usual = time.process_time() - began
    began = time.process_time()
    masked(piece * (1600 // len(piece)))
    assert time.process_time() - began < 10 * usual + 0.05


# ------------------------------------------------------------------------------------------------- the ring


def test_notes_are_kept_in_order_and_masked_when_they_are_written(tmp_path: Path) -> None:
    ring = LogRing(tmp_path / "ring", lambda: NOON)
    for number in range(30):
        ring.note("reader", f"fault {number} at 京A12345")
    assert [note["text"] for note in ring.lines(2)] == ["fault 28 at [masked]", "fault 29 at [masked]"]
    assert ring.lines(0) == []
    assert "12345" not in (tmp_path / "ring").read_text()


def test_the_ring_never_grows_beyond_its_two_files_and_the_newest_notes_stay(tmp_path: Path) -> None:
    ring = LogRing(tmp_path / "ring", lambda: NOON, most=4096)
    for number in range(500):
        ring.note("reader", f"fault {number}")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * (4096 + 1024)
    assert ring.lines(1)[0]["text"] == "fault 499"
    assert len(ring.lines(1000)) > 40


def test_several_threads_and_rings_write_whole_lines(tmp_path: Path) -> None:
    rings = [LogRing(tmp_path / "ring", lambda: NOON) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda ring=ring: [ring.note("part", "x" * 50) for _ in range(50)]) for ring in rings
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rings[0].lines(1000)) == 200


def test_a_card_that_takes_no_note_stops_nobody(tmp_path: Path) -> None:
    ring = LogRing(tmp_path / "nowhere" / "ring", lambda: NOON)
    ring.note("reader", "fault")
    assert (ring.lost, ring.lines(5)) == (1, [])


def test_what_somebody_else_wrote_into_the_ring_is_passed_over_or_masked(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(
        b'\xff\xfe\n{"at":1}\n' + b"[" * 9000 + b'\n{"at":"x","part":"\\u001b[31m","text":"VA12345"}\n'
    )
    assert LogRing(tmp_path / "ring", lambda: NOON).lines(9) == [{"at": "x", "part": " [31m", "text": "[masked]"}]


def test_faults_are_noted_as_they_come_and_go_and_once_each(tmp_path: Path) -> None:
    ring = LogRing(tmp_path / "ring", lambda: NOON)
    faults: dict[str, str] = {}
    probe = fault_notes(ring, lambda: faults)
    for change in ({}, {"reader": "gone"}, {"reader": "gone"}, {"reader": "gone", "audit": "full"}, {"audit": "full"}):
        faults.clear()
        faults.update(change)
        assert probe() == ()
    assert [(note["part"], note["text"]) for note in ring.lines(9)] == [
        ("reader", "gone"), ("audit", "full"), ("reader", "well again"),
    ]  # fmt: skip


def test_the_tail_of_a_long_file_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(1000)))
    assert tail(tmp_path / "log", 100)[-1] == "line 999"
    assert all(line.startswith("line 9") for line in tail(tmp_path / "log", 100))
    assert tail(tmp_path / "none") == []


# ------------------------------------------------------------------------------------------------- the bundle


def unpacked(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return {entry.name: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]


def test_the_bundle_of_a_device_full_of_names_holds_none_of_them(tmp_path: Path) -> None:
    names = [*PLATES, *VINS, *NAMED]
    secret = bytes(range(32))
    home = tmp_path / "home"
    home.mkdir()
    (home / KEYS).write_text(ConsoleKey("field-3", KeyKind.HMAC, secret).line())
    (home / "epoch.key").write_text(secret.hex())
    (home / FAILURES).write_text("\n".join(f"2026-11-22T20:48:01Z unit {name}" for name in names))
    (home / RING).write_text("".join(json.dumps({"at": "t", "part": name, "text": name}) + "\n" for name in names))
    (home / "audit.jsonl").write_text(json.dumps({"kind": "check", "plate": "京A12345"}) + "\n")
    settings = SETTINGS.replace("MC-0001", "Li Lei 京A12345") + '[reader]\nscene = "粤BF12345"\n'
    (tmp_path / "device.toml").write_text(settings)
    session = open_session(tmp_path / "device.toml", home, Terminal(0, 1), run=tmp_path / "run")
    data = log_bundle(session)
    files = unpacked(data)
    assert set(files) == {
        "clock.json", "failures.log", "notes.json", "selftest.json", "settings.json", "status.json", "version.json",
    }  # fmt: skip
    for name in [*names, secret.hex(), "field-3"]:
        assert not any(names_in(text, name) for text in files.values()), name
    assert not any("Li Lei" in text for text in files.values())
    assert "2026-11-22T20:48:01Z unit [masked]" in files["failures.log"]
    assert any(row.get("part") == "disk" for row in json.loads(files["selftest.json"]))
    assert json.loads(files["settings.json"])["panel.model"] == "ssd1309"


def test_whatever_is_given_to_the_bundle_is_masked_in_it() -> None:
    files = unpacked(bundle({"a": ["京A12345"]}, {"b": ["at 京A12345", "well"]}, lambda: NOON))
    assert files == {"a.json": '["[masked]"]\n', "b.log": "at [masked]\nwell\n"}


def test_what_is_nested_without_end_or_of_no_known_kind_is_masked_whole() -> None:
    deep: object = "京A12345"
    for _ in range(50):
        deep = [deep]
    text = unpacked(bundle({"a": {"deep": deep, "京A12345": b"12345", "n": 5}}, {}, lambda: NOON))["a.json"]
    assert "12345" not in text
    assert json.loads(text)["n"] == 5
