"""`markcheck bench credential`: what it measures really runs, and each figure has its baseline."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from scripts.bench import credential as bench
from scripts.bench.everything import PARTS, QUICK
from scripts.cli import bench as command
from scripts.cli.main import main
from scripts.sandbox.issuer import Issuer, issuing_keys
from verifier.sm2 import libcrypto
from verifier.trust import load_trust_list
from verifier.types import Algorithm, PresentationMode
from verifier.verify import verify_text


@pytest.fixture
def short(monkeypatch):
    """Few rounds: this is about the command, not about figures."""
    monkeypatch.setattr(command, "bench_credential", lambda: bench.bench_credential(rounds=2))
    monkeypatch.setattr(command, "bench_import", lambda: bench.bench_import(runs=1))


def test_every_kind_of_code_stands_beside_its_bare_verifications(short, capsys):
    assert main(["bench", "credential", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    started = rows.pop("cold import")
    issue = rows.pop("ES256 issue")
    sm2 = {"SM2 stored"} if libcrypto() else set()
    assert set(rows) == {"ES256 stored", "EDDSA stored", "ES256 live", "foreign code refused"} | sm2
    for name, row in rows.items():
        assert row["ours_us"] > 0, name
        assert row["baseline_us"] > 0, name
        assert row["ratio"] > 0, name
        assert row["target"] == (None if name == "foreign code refused" else 2.5)
    assert (issue["baseline"], issue["target"]) == ("bare ES256 signature", None)
    assert issue["ratio"] > 0
    assert issue["a_second"] * issue["ours_us"] == pytest.approx(1e6)
    assert issue["a_second"] * issue["fleet_days"] * 24 * 3600 == pytest.approx(42_250_000)
    assert min(started["bare_ms"], started["loaded_ms"]) > 0


def test_the_figures_are_printed_with_their_targets(short, capsys):
    assert main(["bench", "credential"]) == 0
    out = capsys.readouterr().out
    assert "ES256 live" in out
    assert "two bare ES256" in out
    assert re.search(r"\n +[\d,]+/s, [\d.e-]+ days for 42.25 million on one core\n", out)
    assert "ms CPU over" in out
    assert "target 2.5:" in out
    assert "target 60:" in out


def test_what_the_rate_counts_is_a_code_that_verifies_and_each_call_signs_anew():
    issuer = Issuer(issuing_keys(bench.NOW))
    found = bench._registered(issuer, Algorithm.ES256)
    texts = {bench._issue(issuer, *found, PresentationMode.STORED) for _ in range(3)}
    assert len(texts) == 3, "ECDSA draws a number for each signature"
    for text in texts:
        assert verify_text(text, load_trust_list(issuer.trust_entries()), bench.NOW).fault is None


def test_the_rate_stands_in_the_run_of_everything_too(tmp_path):
    figures = {f.name: f for f in PARTS["credential"][1](replace(QUICK, rounds=2), tmp_path, lambda *_: None)}
    figure = figures["ES256 issue / bare ES256 signature"]
    assert re.fullmatch(r"[\d.]+x \(\d+ µs, [\d,]+/s, [\d.e-]+ days for 42.25 million on one core\)", figure.measured)
    assert "days" not in figures["ES256 stored / bare ES256"].measured


def test_a_measurement_of_a_refused_code_stops(monkeypatch):
    monkeypatch.setattr(bench, "NOW", bench.NOW.replace(year=2036))
    honest = bench._text

    def late(issuer, alg, mode):
        with monkeypatch.context() as then:
            then.setattr(bench, "NOW", bench.NOW.replace(year=2035))
            return honest(issuer, alg, mode)

    monkeypatch.setattr(bench, "_text", late)
    with pytest.raises(RuntimeError, match="refused: EXPIRED"):
        next(bench.bench_credential(rounds=1))
