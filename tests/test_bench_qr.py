"""`markcheck bench qr`: decoders side by side, each in a process that can be ended."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.bench import qr_report
from scripts.bench.figures import Verdict
from scripts.bench.guarded import Attempt, Decode, GuardedDecoder
from scripts.bench.picture_sets import FolderSet, PictureSetError, RoadsideSet, Sample
from scripts.bench.qr import ALL, FITTED, FULL, NATIVE, QrResult, Tally, fitted, measure, targets
from scripts.bench.rivals import CARD, Rival, card, full, pyzbar
from scripts.bench.video import VideoTimes
from scripts.cli.main import main
from tests.conftest import ROOT
from tests.drawn import draw

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BLANK = np.full((50, 60), 255, np.uint8)
RIVALS = (Rival(FULL, full), Rival(CARD, card), Rival("pyzbar", pyzbar))


def quiet(step: str, done: int, total: int) -> None:
    """No bar."""


# ------------------------------------------------------------------------------------------ the killable child


def endless_on_blank() -> Decode:
    def decode(gray):
        while gray.shape == BLANK.shape and gray.min() == 255:
            pass
        return [b"read"]

    return decode


def dies_on_blank() -> Decode:
    def decode(gray):
        if gray.shape == BLANK.shape and gray.min() == 255:
            os.abort()
        return [b"read"]

    return decode


def not_installed() -> Decode:
    raise ImportError("no such library")


@pytest.mark.parametrize("make", [endless_on_blank, dies_on_blank], ids=["endless", "crash"])
def test_a_decoder_that_does_not_come_back_costs_one_frame(make):
    guarded = GuardedDecoder(make, limit_s=0.3)
    try:
        stopped, after = guarded.read(BLANK), guarded.read(np.zeros_like(BLANK))
    finally:
        guarded.close()
    assert stopped == ((), 300, True)
    assert (after.payloads, after.stopped) == ((b"read",), False)


def sleeps_on_blank() -> Decode:
    def decode(gray):
        while gray.shape == BLANK.shape and gray.min() == 255:
            time.sleep(0.01)
        return [b"read"]

    return decode


def test_the_limit_is_one_of_processor_time_and_one_that_sleeps_for_ever_is_ended_too():
    guarded = GuardedDecoder(sleeps_on_blank, limit_s=0.1)
    began = time.monotonic()
    try:
        assert guarded.read(BLANK) == ((), 100, True)
    finally:
        guarded.close()
    assert time.monotonic() - began > 1.0


# --------------------------------------------------------------------------------------------------- manifests


def folder_with(path: Path, rows: list[dict[str, str]], pictures: Callable[[str], str | None] = lambda name: name):
    for row in rows:
        if text := pictures(row["file"]):
            Image.fromarray(draw(text)).save(path / row["file"])
    with (path / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_manifest_names_texts_and_categories(tmp_path):
    rows = [
        {"file": "a.png", "expected": "A", "all_expected_json": '["A", "B"]', "category": "x", "more": "1"},
        {"file": "b.png", "expected": "C, \n D", "all_expected_json": "", "category": "", "more": ""},
        {"file": "c.png", "expected": "", "all_expected_json": "[]", "category": "none", "more": ""},
    ]
    pictures = FolderSet(folder_with(tmp_path, rows))
    assert len(pictures) == 3
    assert [(sample.category, sample.expected) for sample in pictures] == [
        ("x", {"A", "B"}),
        ("all", {"C, \n D"}),
        ("none", frozenset()),
    ]


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        (None, "holds no manifest.csv"),
        ("name,text\na.png,A\n", "needs the columns"),
        ("file,expected\n", "lists no pictures"),
        ("file,expected\nmissing.png,A\n", "picture 1: no such file in the folder"),
        ("file,expected\na.png,A\n../outside.png,A\n", "picture 2: no such file in the folder"),
        ("file,all_expected_json\na.png,[\n", "picture 1: all_expected_json is not JSON"),
        ('file,all_expected_json\na.png,"[1]"\n', "picture 1: all_expected_json is not a list of texts"),
        (b"file,expected\na.png,\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path, capsys, manifest, problem):
    folder = tmp_path / "set"
    folder.mkdir()
    for path in (folder / "a.png", tmp_path / "outside.png"):
        Image.fromarray(BLANK).save(path)
    if manifest is not None:
        (folder / "manifest.csv").write_bytes(manifest if isinstance(manifest, bytes) else manifest.encode())
    with pytest.raises(PictureSetError, match=problem):
        FolderSet(folder)
    assert main(["bench", "qr", "--set", str(folder)]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_is_not_there_is_one_error(tmp_path, capsys):
    assert main(["bench", "qr", "--set", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("no such folder") == 1


@pytest.mark.parametrize("words", [["--per-condition", "0"], ["--seed", "x"], ["--what"]])
def test_wrong_usage_is_status_2(words):
    assert main(["bench", "qr", *words]) == 2


# ---------------------------------------------------------------------------------------------------- counting


@pytest.fixture(scope="module")
def result() -> QrResult:
    rivals = (*RIVALS, Rival("absent", not_installed))
    return measure(RoadsideSet(1, 1, ("size", "motion")), quiet, rivals=rivals)


def test_a_tiny_set_gives_a_complete_table(result):
    assert result.names == tuple(rival.name for rival in RIVALS)
    assert result.missing == ("absent",)
    assert result.categories == ("size", "motion", "no code")
    for name in result.names:
        assert [len(result.tally(name, category).ms) for category in (*result.categories, ALL)] == [1, 1, 1, 3]
        assert result.tally(name, "no code").success is None
        assert result.tally(name).with_code == 2
    assert result.tally(FULL, "size").success == 100
    rows = qr_report.success_table(result)
    assert [row[0] for row in rows[1:]] == [*result.categories, ALL, "false decodes", "stopped after 2 s"]
    assert {len(row) for row in rows} == {2 + len(result.names)}


def test_the_json_holds_every_decoder_category_and_target(result):
    found = json.loads(json.dumps(qr_report.json_report(result, {"set": "roadside"})))
    assert set(found["decoders"]) == set(result.names)
    assert set(found["decoders"][FULL][NATIVE]) == {*result.categories, ALL}
    assert found["decoders"][FULL][NATIVE]["size"]["success_percent"] == 100
    assert found["not_installed"] == ["absent"]
    assert {target["verdict"] for target in found["targets"]} <= {"met", "missed"}


def test_the_page_stands_with_its_pictures_and_names_no_machine(result, tmp_path):
    timed = QrResult(True, result.tallies, result.names, result.missing, VideoTimes(2.0, 1.6, 1.25, 30.0))
    written = qr_report.write_page(timed, tmp_path, "markcheck bench qr --seed 1", 1, NOW)
    page = written[0].read_text(encoding="utf-8")
    assert {path.name for path in written} == {"qr.md", "qr.png", "roadside.png"}
    for piece in ("markcheck bench qr --seed 1", "2026-11-22", "](qr.png)", "](roadside.png)", "| motion |", "1.25"):
        assert piece in page
    assert os.uname().nodename not in page
    assert str(tmp_path) not in page
    with Image.open(written[2]) as sheet:
        assert sheet.width > 800
    with Image.open(written[1]) as plot:
        green = np.asarray(plot.convert("RGB")) == (0x1B, 0x6E, 0x3C)
    assert green.all(axis=-1).any()


def test_pictures_of_others_are_read_at_two_sizes_and_false_texts_are_counted(tmp_path):
    rows = [{"file": f"{name}.png", "expected": name, "category": "c"} for name in ("right", "wrong", "none")]
    rows[2]["expected"] = ""
    shown = {"right.png": "right", "wrong.png": "another text", "none.png": "phantom"}
    result = measure(FolderSet(folder_with(tmp_path, rows, shown.get)), quiet, rivals=RIVALS)
    for size in (NATIVE, FITTED):
        tally = result.tally(FULL, "c", size)
        assert (tally.with_code, tally.read, tally.false, len(tally.ms)) == (2, 1, 2, 3)
        assert (tally.missed, tally.misread) == (["wrong.png"], ["wrong.png", "none.png"])
    assert {target.name: target.verdict for target in targets(result)} == dict.fromkeys(
        (f"{FULL}: read", f"{CARD}: read", f"{FULL}: false decodes", f"{CARD}: false decodes"), Verdict.MISSED
    )


@pytest.mark.parametrize(
    "payload", ["茶".encode(), "茶".encode("shift_jis"), "茶".encode().decode("shift_jis").encode()]
)
def test_an_encoding_that_was_guessed_is_no_false_decode(payload):
    tally = Tally()
    tally.add(Sample("a.png", "c", frozenset(["茶"]), BLANK), Attempt((payload,), 1.0, False))
    tally.add(Sample("b.png", "c", frozenset(["水"]), BLANK), Attempt((payload,), 1.0, False))
    assert (tally.read, tally.false, tally.misread) == (1, 1, ["b.png"])


def test_a_yen_sign_may_be_a_backslash():
    tally = Tally()
    tally.add(Sample("a.png", "c", frozenset(["http\\://a"]), BLANK), Attempt(("http¥://a".encode(),), 1.0, False))
    assert (tally.read, tally.false) == (1, 0)


def test_nothing_read_is_neither_right_nor_false():
    tally = Tally()
    tally.add(Sample("a.png", "c", frozenset(), BLANK), Attempt((), 1.0, False))
    assert (tally.read, tally.false, tally.with_code) == (0, 0, 0)


@pytest.mark.parametrize(
    ("ours", "single", "margin_met", "condition_met"),
    [(50, 42, True, True), (50, 43, False, True), (50, 50, False, False), (100, 100, False, True)],
)
def test_roadside_targets_ask_to_be_ahead(ours, single, margin_met, condition_met):
    def tally(read: int) -> Tally:
        return Tally(with_code=100, read=read, ms=[1.0])

    tallies = {(NATIVE, c, n): tally(r) for c in ("glare", ALL) for n, r in ((FULL, ours), ("zxing-cpp", single))}
    found = targets(QrResult(True, tallies, (FULL, "zxing-cpp"), ()))
    assert [target.verdict is Verdict.MET for target in found] == [condition_met, margin_met, True]


def test_a_condition_that_no_single_decoder_reads_has_no_target():
    tallies = {(NATIVE, c, n): Tally(with_code=9, ms=[1.0]) for c in ("dirt", ALL) for n in (FULL, "pyzbar")}
    names = [target.name for target in targets(QrResult(True, tallies, (FULL, "pyzbar"), ()))]
    assert not any(name.startswith("dirt") for name in names)


def test_the_camera_s_times_stand_beside_their_targets():
    tallies = {(NATIVE, ALL, FULL): Tally(with_code=1, read=1, ms=[1.0])}
    video = VideoTimes(2.0, 1.0, 2.0, 30.0)
    *_, ratio, empty = targets(QrResult(True, tallies, (FULL,), (), video))
    assert (ratio.verdict, empty.verdict) == (Verdict.MISSED, Verdict.MET)


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 100), (720, 720)), ((3000, 1500), (720, 360)), ((9, 1280), (9, 1280))]
)
def test_a_picture_is_fitted_into_a_camera_s_frame(shape, expected):
    assert fitted(np.zeros(shape, np.uint8)).shape == expected


def test_the_contact_sheet_in_the_documents_stays_small():
    assert (ROOT / "docs/benchmarks/roadside.png").stat().st_size <= 300_000
