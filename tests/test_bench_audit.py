"""`markcheck bench audit`: what it measures really runs, and each figure has its baseline."""

from __future__ import annotations

import json

from scripts.bench.audit import bench_audit
from scripts.cli.main import main


def test_a_sealed_and_a_plain_record_are_measured_beside_a_bare_append(tmp_path):
    found = bench_audit(tmp_path, rounds=2)
    assert set(found) == {"sealed", "plain"}
    assert all(pair.ours_us > 0 and pair.baseline_us > 0 for pair in found.values())
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_figures_with_their_target(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("scripts.cli.bench.bench_audit", lambda folder: bench_audit(folder, rounds=2))
    assert main(["bench", "audit", "--folder", str(tmp_path), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["sealed record", "plain record"]
    assert all(row["target"] == 2 for row in rows)
    assert main(["bench", "audit", "--folder", str(tmp_path)]) == 0
    assert "target 2" in capsys.readouterr().out
