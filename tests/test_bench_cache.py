"""`markcheck bench cache`: every promised figure is really measured, beside its target, and a wrong answer ends it."""

from __future__ import annotations

import io
import json
import math
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest

from scripts.bench import cache, cache_cuts, cache_sync
from scripts.bench.cache_distribution import status_list
from scripts.bench.cache_figures import CacheResult, text_report, write_page
from scripts.bench.cache_lookups import PASSES, WrongAnswerError, in_turn
from scripts.bench.cache_nights import floor_bytes, key_bits
from scripts.bench.figures import Figure, Verdict
from scripts.cli.main import main
from scripts.sandbox.national import National
from tests.nightly import BEGAN
from verifier.cache.store import StatusStore
from verifier.codec.status import ListedStatus, unpack

CUTS = "power cuts: wrong answers"
FIGURES = {
    CUTS, "officer's path with a dead server", "local answer beside a dead server",
    "delta apply / bare rewrite, first night", "delta apply / bare rewrite, night 3",
    "base look-up p50 / bare", "whole look-up p50 / bare p50", "whole look-up p99 / bare p99", "bytes per vehicle",
    "bytes per vehicle / information floor", "bytes read per cold look-up", "base build", "delta bytes per row",
    "delta bytes / information floor", "delta apply / bare upsert, first night", "delta apply / bare upsert, night 3",
    "bytes written, first night", "bytes written, night 3", "2 missed nights",
    "look-ups during the apply: p99 / idle p99", "look-ups during the apply: errors",
    "install after download / sha256 of the file", "resume after a broken link", "status list on the wire",
    "requests when nothing is new", "bytes when nothing is new", "hot list of 14 rows: commit",
    "sealed base look-up p50 / plain",
}  # fmt: skip
ARGUMENTS = ["bench", "cache", "--scale", "2e4", "--nights", "2"]


@pytest.fixture(scope="module")
def short():
    """Few look-ups and cuts: this is about the command, not about figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "LOOKUPS", 800)
        patch.setattr(cache_cuts, "CUTS", 20)
        patch.setattr(cache_sync, "_IDLE_S", 0.05)
        yield


@pytest.fixture(scope="module")
def run(short, tmp_path_factory):
    """One small run: what it printed for machines, and the folder with its files and its page."""
    folder, out = tmp_path_factory.mktemp("bench"), io.StringIO()
    with redirect_stdout(out):
        work, page = str(folder / "work"), str(folder / "page")
        assert main([*ARGUMENTS, "--json", "--folder", work, "--write", page]) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()], folder


def test_every_promised_figure_is_measured_once(run):
    first, *rows = run[0]
    assert first == {"vehicles": 20_000, "nights": 2, "nightly_rows": 94}
    assert sorted(row["name"] for row in rows) == sorted(FIGURES)
    for row in rows:
        elsewhere = row["value"] is None
        assert elsewhere == (row["verdict"] == Verdict.ELSEWHERE), row
        assert not elsewhere or (row["name"] == CUTS and "strace" in row["note"]), row
        assert elsewhere or math.isfinite(row["value"]), row
        assert row["note"] or row["name"] == "bytes when nothing is new"


def test_what_does_not_depend_on_the_machine_is_met(run):
    rows = {row["name"]: row for row in run[0][1:]}
    for name in (
        "look-ups during the apply: errors", "resume after a broken link", "requests when nothing is new",
        "bytes when nothing is new",
    ):  # fmt: skip
        assert rows[name]["verdict"] == Verdict.MET, rows[name]
    assert not rows[CUTS]["value"], rows[CUTS]
    assert rows["bytes per vehicle"]["verdict"] == Verdict.OTHER_SCALE
    assert rows["delta bytes per row"]["verdict"] == Verdict.OTHER_SCALE
    assert 1 < rows["bytes per vehicle / information floor"]["value"] < 6
    assert 1 < rows["delta bytes / information floor"]["value"] < 2
    assert rows["status list on the wire"]["value"] > 0


def test_a_given_folder_keeps_the_files_and_is_never_written_over(run, capsys):
    work = run[1] / "work"
    assert (work / "base.db").stat().st_size > 100_000
    assert (work / "device" / "current").is_symlink()
    assert main([*ARGUMENTS, "--folder", str(work)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_page_holds_command_date_machine_and_every_figure_but_no_names_or_places(run):
    page = (run[1] / "page" / "cache-20000.md").read_text(encoding="utf-8")
    assert "markcheck bench cache --scale 20000 --nights 2 --write DIR" in page
    assert "20,000 vehicles, 2 nights of 94 changed rows" in page
    assert all(f"| {name} |" in page for name in FIGURES)
    assert str(run[1]) not in page
    for line in page.splitlines():
        assert line.count("|") in (0, 5), line


def test_without_a_folder_nothing_is_left_behind(short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "LOOKUPS", 50)
    monkeypatch.setattr("shutil.which", lambda _: None)  # no cuts: they are another test's
    assert main(["bench", "cache", "--scale", "1000", "--nights", "1"]) == 0
    assert not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    assert "1,000 vehicles" in out
    assert "SQLite" in out
    assert "not at this scale" in out


def test_an_answer_that_differs_from_the_register_ends_the_run(short, tmp_path, monkeypatch):
    honest, asked = StatusStore.vehicle, []

    def forgetful(self, plate):
        asked.append(plate)
        return None if len(asked) == 20 else honest(self, plate)

    monkeypatch.setattr(StatusStore, "vehicle", forgetful)
    with pytest.raises(WrongAnswerError, match="1 of"):
        cache.bench_cache(1000, 1, tmp_path, lambda *_: None)


@pytest.mark.parametrize("scale", ["0", "999", "1e9", "many", "inf", "nan"])
def test_a_scale_out_of_bounds_is_wrong_usage(scale, capsys):
    assert main(["bench", "cache", "--scale", scale]) == 2
    assert "--scale" in capsys.readouterr().err


def test_a_disk_without_room_is_said_before_the_work(monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
    assert main(ARGUMENTS) == 2
    assert "not enough room" in capsys.readouterr().err


def test_a_missed_target_is_printed_as_missed(tmp_path):
    figures = (
        Figure(name="slow", measured="4x", value=4.0, at_most=3),
        Figure(name="fast", measured="3x", value=3.0, at_most=3),
        Figure(name="little", measured="1 a second", value=1.0, at_least=2, unit="a second"),
        Figure(name="small", measured="9 B", value=9.0, at_most=7, comparable=False),
        Figure(name="elsewhere", measured="-", at_most=0),
        Figure(name="plain", measured="5", value=5.0),
    )
    verdicts = [figure.verdict for figure in figures]
    assert verdicts == ["missed", "met", "missed", "not at this scale", "not measured here", "-"]
    result = CacheResult(vehicles=1, nights=1, nightly=1, figures=figures)
    lines = {line.split()[0]: line for line in text_report(result).splitlines() if line}
    assert lines["slow"].endswith("missed")
    assert "<= 3 x" in lines["slow"]
    assert ">= 2 a second" in lines["little"]
    page = write_page(result, tmp_path, "markcheck bench cache", BEGAN).read_text(encoding="utf-8")
    assert "| slow | <= 3 x | 4x | missed |" in page


def test_each_scale_has_a_page_of_its_own(tmp_path):
    for vehicles, name in ((1_000_000, "cache.md"), (42_250_000, "cache-42250000.md")):
        result = CacheResult(vehicles=vehicles, nights=1, nightly=1, figures=())
        assert write_page(result, tmp_path, "markcheck bench cache", BEGAN) == tmp_path / name


def test_without_strace_cuts_are_not_measured_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    figure = cache_cuts.cuts_figure(National(1000, 1, cache.TODAY, cache.EPOCH_KEY), tmp_path / "cuts", lambda *_: None)
    assert figure.verdict == Verdict.ELSEWHERE
    assert "strace" in figure.note


def test_a_crashed_disk_that_answers_otherwise_counts_as_wrong(tmp_path, monkeypatch):
    """The cut is real and the answers are spoiled: the row must not be one that can only be met."""
    if shutil.which("strace") is None:
        pytest.skip("recording system calls needs strace")
    honest, asked = StatusStore.vehicle, []

    def forgetful(self, plate):
        asked.append(plate)
        return honest(self, plate) if len(asked) < 5000 else None

    monkeypatch.setattr(StatusStore, "vehicle", forgetful)
    figure = cache_cuts.cuts_figure(National(1000, 1, cache.TODAY, cache.EPOCH_KEY), tmp_path / "cuts", lambda *_: None)
    assert figure.verdict in (Verdict.MISSED, Verdict.ELSEWHERE)
    assert figure.value is None or figure.value > cache_cuts.CUTS / 2


def test_times_are_those_of_the_functions_that_were_given():
    calls: list[str] = []
    times = in_turn(lambda i: [calls.append("ours"), sum(range(3000))], lambda i: calls.append("bare"), 40)
    assert calls == ["ours", "bare"] * 40 * PASSES
    assert times.p50.ratio > 3
    assert times.p99.ours_us >= times.p50.ours_us


def test_the_information_floor_is_that_of_small_sets():
    assert key_bits(1) == pytest.approx(48 + math.log2(math.e))
    assert key_bits(1 << 20) == pytest.approx(28 + math.log2(math.e))
    assert floor_bytes(1024, np.arange(1024) % 4) == pytest.approx(1024 * (key_bits(1024) + 2) / 8)


def test_the_status_list_has_the_states_in_their_shares():
    raw = status_list(100_001, 1)
    assert len(raw) == 25_001
    states = [unpack(raw, 2, index) for index in range(100_000)]
    for state, share in ((ListedStatus.REVOKED, 4), (ListedStatus.SUSPENDED, 1), (ListedStatus.SUPERSEDED, 12)):
        assert states.count(state) == pytest.approx(share * 100, rel=0.35)
