"""`markcheck officers`, as a technician uses it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scripts.cli.main import main
from scripts.cli.officers import officers
from verifier.officers import LoginError, OfficerFile
from verifier.verdict import Role

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
PIN = "274951"


def run(home: Path, *words: str, typed: str = "") -> Result:
    return CliRunner().invoke(officers, [*words, "--home", str(home)], input=typed)


def test_somebody_is_entered_listed_lets_himself_in_and_is_taken_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    entered = run(home, "add", "110001", typed=f"{PIN}\n{PIN}\n")
    assert entered.exit_code == 0
    assert PIN not in entered.output
    assert run(home, "add", "110007", "--role", "auditor", "--pin-stdin", typed=f"{PIN}\n").exit_code == 0
    told = [json.loads(line) for line in run(home, "list", "--json").output.splitlines()]
    assert told == [{"number": "110001", "role": "officer"}, {"number": "110007", "role": "auditor"}]
    file = OfficerFile(home / "officers.json")
    assert file.login("110007", PIN, NOW).role is Role.AUDITOR
    removed = run(home, "remove", "110007")
    assert (removed.exit_code, removed.output) == (0, "110007: removed\n")
    with pytest.raises(LoginError):
        file.login("110007", PIN, NOW)


@pytest.mark.parametrize(("number", "pin"), [("110001", "12345"), ("110001", "111111"), ("A1", PIN), ("1" * 13, PIN)])
def test_a_poor_pin_and_a_number_that_no_key_types_are_refused_without_being_told(
    tmp_path: Path, number: str, pin: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pin").write_text(f"{pin}\n")
    with (tmp_path / "pin").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert main(["officers", "add", number, "--pin-stdin", "--home", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert pin not in told.out + told.err
    assert not (tmp_path / "officers.json").exists()


def test_a_number_that_is_not_here_and_a_list_of_nobody_are_told(tmp_path: Path) -> None:
    assert "nobody was entered" in run(tmp_path, "list").output
    assert main(["officers", "remove", "110001", "--home", str(tmp_path)]) == 1
