"""`markcheck bench credential`: what it measures really runs, and each figure has its baseline."""

from __future__ import annotations

import json

import pytest

from scripts.bench import credential as bench
from scripts.cli import bench as command
from scripts.cli.main import main
from verifier.sm2 import libcrypto


@pytest.fixture
def short(monkeypatch):
    """Few rounds: this is about the command, not about figures."""
    monkeypatch.setattr(command, "bench_credential", lambda: bench.bench_credential(rounds=2))
    monkeypatch.setattr(command, "bench_import", lambda: bench.bench_import(runs=1))


def test_every_kind_of_code_stands_beside_its_bare_verifications(short, capsys):
    assert main(["bench", "credential", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    started = rows.pop("cold import")
    sm2 = {"SM2 stored"} if libcrypto() else set()
    assert set(rows) == {"ES256 stored", "EDDSA stored", "ES256 live", "foreign code refused"} | sm2
    for name, row in rows.items():
        assert row["ours_us"] > 0, name
        assert row["baseline_us"] > 0, name
        assert (row["ratio"] < 1) == (name == "foreign code refused"), name
        assert row["target"] == (None if name == "foreign code refused" else 2.5)
    assert 0 < started["bare_ms"] < started["loaded_ms"]


def test_the_figures_are_printed_with_their_targets(short, capsys):
    assert main(["bench", "credential"]) == 0
    out = capsys.readouterr().out
    assert "ES256 live" in out
    assert "two bare ES256" in out
    assert "ms CPU over" in out
    assert "target 2.5:" in out
    assert "target 60:" in out


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
