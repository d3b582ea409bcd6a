"""scripts/torture: that it tells right from wrong, and a small helping of what it does in hours."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.machine import checking, modes
from firmware.settings import SettingsError, read_settings
from hw.buttons.keys import Key
from tests import torture_stand_ins
from tests.conftest import ROOT
from tests.fuzz_credential import world
from tests.golden import CASES, NOW
from tests.test_clock import GOOD, Handheld, Machine
from tests.torture import clocks, disk_faults, inputs, mirrors, parts, screens, targets
from tests.torture.__main__ import main
from tests.torture.cards import forms
from tests.torture.gates import committed, secrets_in
from tests.torture.promises import PROMISES
from tests.torture.run import NotHereError, Promise, Run
from tests.torture.runner import prove
from verifier.types import Plate
from verifier.verdict import Grade, Tone, VerdictCode


def small_run(folder: Path, seed: int = 1, **figures: int) -> Run:
    """One round of everything."""
    return Run(seed=seed, folder=folder, seconds=0.0, figures=figures)


# ------------------------------------------------------------------------------------------------ the machinery


def tortured(out: Path, *words: str) -> tuple[int, list[dict]]:
    status = main(["--minutes", "0.001", "--out", str(out), *words], torture_stand_ins)
    return status, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_each_promise_gets_its_line_with_seed_counts_and_time_and_a_broken_one_is_told(tmp_path, capsys):
    status, lines = tortured(tmp_path / "results", "--only", "1,2,3,4,5", "--seed", "7")
    head, *results = lines
    assert status == 1
    assert (head["kind"], head["seed"]) == ("run", 7)
    assert {"cores", "processor", "python", "sqlite"} <= set(head["machine"])
    assert [one["result"] for one in results] == ["PASS", "FAIL", "FAIL", "SKIP", "FAIL"]
    assert all(one["seed"] == 7 and one["seconds"] >= 0 for one in results)
    assert results[0]["counts"]["throws"] in (1, 2)  # as many as there is time for, and no more than the figure
    assert "a mixture" in results[1]["reason"]
    assert any("a mixture" in line for line in results[1]["log"])
    assert (results[1]["counts"], results[1]["notes"]) == ({"throws": 2}, ["the second throw was it"])
    assert "-6" in results[2]["reason"]
    assert results[3]["reason"] == "there is no card here"
    assert "nothing was tried" in results[4]["reason"]
    table = capsys.readouterr().out
    assert table.count("FAIL") == 3
    assert "there is no card here" in table
    assert "the second throw was it" in table


def test_what_holds_is_no_failure_and_the_same_seed_draws_the_same(tmp_path, capsys):
    runs = [
        tortured(tmp_path / name, "--only", "1", "--seed", seed) for name, seed in (("a", "7"), ("b", "7"), ("c", "8"))
    ]
    assert [status for status, _ in runs] == [0, 0, 0]
    a, b, c = (lines[1]["notes"][0] for _, lines in runs)
    assert a == b != c


def test_the_full_run_goes_on_until_the_figure_is_reached():
    run = Run(seed=1, folder=Path("/nowhere"), seconds=None, figures={"throws": 5})
    torture_stand_ins.kept(run)
    assert run.counts["throws"] == 5
    assert len(set(run.notes)) == 5


def test_an_interrupted_run_leaves_what_stands_and_no_process(tmp_path):
    code = "import sys; from tests import torture_stand_ins as t; from tests.torture.__main__ import main;"
    words = ["--minutes", "5", "--only", "1,6", "--out", str(tmp_path / "results")]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code} sys.exit(main({words!r}, t))"], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stderr is not None
    while "endless" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [json.loads(line) for line in (tmp_path / "results").read_text(encoding="utf-8").splitlines()]
    assert [line.get("result", line["kind"]) for line in lines] == ["run", "PASS", "STOPPED", "interrupted"]
    assert not list(tmp_path.glob("torture-*")), "a folder stayed"


def test_the_sixteen_promises_are_there_and_listed_with_their_figures(capsys):
    assert [promise.number for promise in PROMISES] == list(range(1, 17))
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(promise.title in listed and promise.figures for promise in PROMISES)


@pytest.mark.parametrize("words", [["--only", "17"], ["--only", "x"], ["--minutes", "0"], ["--minutes", "5", "--full"]])
def test_words_that_mean_nothing_are_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_the_help_begins_with_what_one_types(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "scripts/torture --minutes 10" in capsys.readouterr().out


def test_the_page_has_a_row_for_each_promise():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert all(f"| {promise.number} | {promise.title} |" in page for promise in PROMISES)


# ------------------------------------------------------------------------------------------------ hostile inputs


@pytest.fixture(scope="module")
def watch() -> targets.Watch:
    return targets.Watch()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_input_of_the_corpus_keeps_the_promises(name, watch):
    assert len(targets.corpus(name)) >= 5
    for data in targets.corpus(name):
        targets.hold(name, data, watch)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_changed_inputs_keep_the_promises(name, watch):
    draw, known = random.Random(name), targets.corpus(name)
    for _ in range(60 if name == "settings" else 300):
        targets.hold(name, targets.mutated(known, draw), watch)


def test_a_code_that_is_called_up_or_stored_or_never_ends_is_noticed(watch, monkeypatch, tmp_path, capsys):
    def calls(_: bytes) -> None:
        with socket.socket() as line:
            line.settimeout(0.01)
            line.connect_ex(("127.0.0.1", 9))

    def stores(data: bytes) -> None:
        (tmp_path / "stolen").write_bytes(data)

    def lasts(_: bytes) -> None:
        end = time.thread_time() + 2 * targets.HANG_S
        while time.thread_time() < end:
            pass

    for harm, told in ((calls, "socket.connect"), (stores, "open"), (lasts, "ms")):
        monkeypatch.setitem(targets.TARGETS, "qr", harm)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match=told):
            targets.hold("qr", b"\x01\x02", watch)
        assert "qr: the input was bytes.fromhex('0102')" in capsys.readouterr().err


def test_a_picture_of_a_hostile_code_is_read_or_not_and_nothing_else(tmp_path, watch):
    run = small_run(tmp_path)
    for _ in range(3):
        inputs._pictures(run, watch, 0.0)
    assert run.counts["pictures"] == 3


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "9" * 900,
        "\n".join(["x = [", *["9" * 900 + ","] * 6, "]"]),
        "x = 0x" + "f" * 5000,
        "a" + ".a" * 30000 + " = 1",
    ],
    ids=["great number", "great numbers", "endless number", "endless name"],
)
def test_a_settings_file_that_no_person_wrote_is_a_settings_error(text):
    with pytest.raises(SettingsError):
        read_settings(text)


def test_no_flipped_bit_and_no_piece_of_a_credential_is_accepted(tmp_path):
    run = small_run(tmp_path)
    inputs.bits_of(run, CASES["stored-es256"]["text"], world().trust, NOW)
    assert run.counts["bits"] > 1000
    assert run.counts["truncations"] > 200


def test_an_accepted_flipped_bit_would_be_noticed():
    with pytest.raises(AssertionError, match="accepted"):
        inputs.refused(CASES["stored-es256"]["text"], world().trust, NOW, "bit 0")


# ---------------------------------------------------------------------------------------- disk, network, parts


def test_every_failing_disk_call_leaves_old_or_new_and_the_next_try_succeeds(tmp_path):
    try:
        counts = list(disk_faults.failing(Run(seed=1, folder=tmp_path, seconds=2.0, figures={}), ["hot list"]))[-1]
    except NotHereError as exc:
        pytest.skip(str(exc))
    assert counts.pop("possible") > 100
    assert sum(counts.values()) >= 1


def test_a_log_that_takes_a_record_for_written_when_it_is_not_is_noticed(tmp_path, monkeypatch):
    """With a library that fails every write, a log that swallows errors is found out: the test is not blind."""
    source = tmp_path / "sitecustomize.py"
    source.write_text("import os\nos.fdatasync = os.fsync = lambda handle: None\nreal = os.write\n"
                      "def write(handle, data):\n    try:\n        return real(handle, data)\n"
                      "    except OSError:\n        return len(data)\nos.write = write\n")  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    run = Run(seed=3, folder=tmp_path, seconds=30.0, figures={})
    try:
        with pytest.raises(AssertionError, match="acknowledged, and not there"):
            list(disk_faults.failing(run, ["audit log"]))
    except NotHereError as exc:
        pytest.skip(str(exc))


def test_whatever_a_mirror_does_one_whole_publication_is_in_use_and_no_older_one():
    mirrors.run_machine(mirrors.Mirrors, 1, 1, steps=15)


@pytest.mark.parametrize("fault", ["truncated", "captive portal", "reset at once"])
def test_a_bad_connection_costs_little_and_changes_nothing(tmp_path, fault, monkeypatch):
    monkeypatch.setattr(mirrors, "CONNECTIONS", {fault})
    run = small_run(tmp_path)
    mirrors._over_http(run)
    assert run.counts["bad connections"] == 1


def test_the_verdict_shown_is_that_of_the_scan_and_nobody_is_stuck():
    mirrors.run_machine(screens.Screens, 1, 25, steps=50)


def test_a_verdict_that_never_goes_is_noticed(monkeypatch, capsys):
    monkeypatch.setitem(checking.SHOWN_MS, Tone.CAUTION, 10**9)
    with pytest.raises(AssertionError):
        mirrors.run_machine(screens.Screens, 1, 200, steps=50, shortest=False)


def test_a_key_that_takes_a_warning_away_unseen_is_noticed(monkeypatch):
    monkeypatch.setattr(checking, "CONFIRM_MS", 0)
    hand = screens.Screens()
    hand.press(Key.OK)
    hand.codes(1, mark=True, triggered=False)
    hand.answer(0, VerdictCode.FORGED, confirm=False, late=False, grade=Grade.ONLINE)
    with pytest.raises(AssertionError, match="unseen"):
        hand.press(Key.BACK)


def test_a_cursor_that_moves_to_another_tag_by_itself_is_noticed(monkeypatch):
    monkeypatch.setattr(modes, "_is_tag", lambda before, now: False)
    hand = screens.Screens()
    hand.press(Key.LEFT)
    hand.tags({0: (-40, False), 1: (-50, False)})
    hand.press(Key.DOWN)
    with pytest.raises(AssertionError, match="by itself"):
        hand.tags({0: (-40, False), 1: (-50, True)})


def test_nobody_unknown_gets_anything_done_at_the_console():
    mirrors.run_machine(screens.ConsoleLines, 1, 1, steps=15)


def test_a_camera_that_gives_nothing_is_replaced_within_three_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert parts._stuck_camera(tmp_path) <= parts.SCANNER_S + parts.SLACK_S


@pytest.mark.parametrize("protocol", parts.PROTOCOLS)
def test_a_reader_that_is_plugged_in_again_is_served_again(protocol):
    assert 0 < parts._replug(protocol, random.Random(1)) <= parts.REPLUG_S


def test_no_wrong_clock_turns_a_verdict(tmp_path):
    run = small_run(tmp_path)
    assert clocks._a_life(tmp_path, random.Random(4), run) > 20


def test_a_verdict_that_a_wrong_clock_turned_would_be_noticed(tmp_path):
    handheld = Handheld(tmp_path, Machine())
    handheld.sync()
    began = handheld.machine.true
    with closing(handheld.store):
        for days, car, colour in ((900, GOOD, "green"), (-900, clocks.CARS[-1], "red")):
            handheld.machine.true = began + timedelta(days=days)  # and no clock or counter tells
            with pytest.raises(AssertionError, match=f"is {colour}"):
                clocks._judged(handheld, car, small_run(tmp_path))


# ------------------------------------------------------------------------------------------------ what leaks


@pytest.mark.parametrize("place", range(6))
def test_a_plate_is_found_however_it_is_written(place):
    plate = Plate("京A12345", "02")
    before = b"seen: "[:place]
    for code in ("utf-8", "utf-16-le", "utf-16-be", "gb18030"):
        data = before + plate.text.encode(code) + b" today"
        assert any(form in data for form in forms(plate)), code
    text = before + plate.text.encode() + b" today"
    for data in (base64.b64encode(text), text.hex().encode(), json.dumps(text.decode()).encode()):
        assert any(form in data for form in forms(plate))
    other = Plate("京A12346", "02")
    assert not any(form in text for form in forms(other))


def test_no_file_of_the_tree_holds_a_secret_and_one_would_be_noticed():
    key = b"-----BEGIN EC PRIVATE " + b"KEY-----\n" + base64.b64encode(bytes(90)) + b"\n"
    assert secrets_in(key) == ["a private key"]
    assert secrets_in(b"pass" + b'word = "correct-horse-battery"') == ["a word to log in with"]
    assert secrets_in(b"https://somebody:hunter22" + b"@example.org/") == ["an address with a password"]
    files = [path for path in committed() if secrets_in(path.read_bytes())]
    assert files == []


# ---------------------------------------------------------------------------------------------------- hours


@pytest.mark.long
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise.number))
def test_every_promise_holds_for_a_minute(promise: Promise):
    result = prove(promise, seed=random.SystemRandom().randrange(1 << 32), seconds=60.0)
    print(result)
    if result.result == "SKIP":
        pytest.skip(result.reason)
    assert result.result == "PASS", result
