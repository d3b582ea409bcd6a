"""`markcheck doctor`: every part is told for itself, and a dead one hides no other."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import segno

from firmware import scan_process
from firmware.build import NO_EPOCH_KEY
from firmware.config import REGION, Home
from scripts.cli import doctor
from scripts.cli.main import main
from scripts.sandbox.authority import new_authority
from scripts.sandbox.folder_store import MemoryFetcher
from verifier.policy import Policy
from verifier.secret_files import write_secret
from verifier.sync import SyncClient

NAMES = ["software", "libraries", "decoders", "scanner", "sm2", "data"]
NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def sections(home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    status = main(["doctor", "--json", "--home", str(home)])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [section["section"] for section in found] == NAMES
    return status, {section["section"]: section for section in found}


def test_each_part_is_told_and_missing_data_is_a_failure(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = sections(home, capsys)
    assert status == 1
    assert found["data"]["state"] == "FAIL"
    assert found["scanner"]["state"] == "PASS", found["scanner"]
    assert found["decoders"]["ladder"][0] in ("zxing frame", "zbar half")
    assert any(decoder["works"] for decoder in found["decoders"]["decoders"])
    assert found["libraries"]["versions"]["numpy"]
    assert found["software"]["python"] == sys.version.split()[0]
    assert not home.exists()


def test_people_get_a_line_for_each_part_and_the_sum(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--home", str(home)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == NAMES
    assert lines[-1] == "FAILED 1 of 6"


def test_a_dead_part_hides_no_other(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    monkeypatch.setitem(sys.modules, "pyzbar", None)
    monkeypatch.setattr(doctor, "libcrypto", lambda: None)
    monkeypatch.setattr(scan_process.sys, "executable", "/nowhere/python")
    home.mkdir()
    (home / "cache").write_text("not a folder")
    status, found = sections(home, capsys)
    assert status == 1
    assert {name: section["state"] for name, section in found.items()} == {
        "software": "PASS",
        "libraries": "PASS",
        "decoders": "FAIL",
        "scanner": "FAIL",
        "sm2": "NOTE",
        "data": "FAIL",
    }
    assert found["decoders"]["detail"] == "zxing not installed, zbar not installed"


def test_one_decoder_alone_has_a_ladder_of_its_own(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    section = doctor._decoders(Home(home))
    assert section.state == "NOTE"
    assert section.facts["ladder"][0] == "zbar half"
    assert all(stage.startswith("zbar ") for stage in section.facts["ladder"])


def test_the_age_of_the_data_is_told(home: Path) -> None:
    store: dict[str, bytes] = {}
    authority = new_authority(store, clock=lambda: NOW, scale=200, seed=3)
    authority.publish()
    device = Home(home)
    SyncClient(device.cache, MemoryFetcher(store), lambda: NOW, authority.publisher.root_bytes(), REGION).refresh()
    without_key = doctor._data(device, lambda: NOW)
    assert (without_key.state, without_key.facts["remarks"]) == ("NOTE", [NO_EPOCH_KEY])
    write_secret(device.epoch_key, authority.epoch_key.hex().encode())
    policy = Policy()
    as_of = datetime.fromisoformat(doctor._data(device, lambda: NOW).facts["as_of"])
    ages = {
        timedelta(0): "PASS",
        policy.fresh: "PASS",
        policy.fresh + timedelta(seconds=1): "NOTE",
        policy.stale + timedelta(seconds=1): "NOTE",
        -policy.clock_skew - timedelta(seconds=1): "NOTE",
    }
    for age, state in ages.items():
        section = doctor._data(device, lambda age=age: as_of + age)
        assert (section.state, section.facts["age_s"]) == (state, int(age.total_seconds())), section.detail
    assert "behind" in section.detail


def test_the_age_of_the_data_is_judged_by_the_policy_that_was_published_with_them(home: Path) -> None:
    store: dict[str, bytes] = {}
    strict = Policy(name="strict", fresh=timedelta(hours=12), stale=timedelta(hours=48))
    authority = new_authority(store, clock=lambda: NOW, scale=200, seed=3, policy=strict)
    authority.publish()
    device = Home(home)
    SyncClient(device.cache, MemoryFetcher(store), lambda: NOW, authority.publisher.root_bytes(), REGION).refresh()
    as_of = datetime.fromisoformat(doctor._data(device, lambda: NOW).facts["as_of"])
    assert "older than 12 hours" in doctor._data(device, lambda: as_of + timedelta(hours=13)).facts["remarks"]
    late = doctor._data(device, lambda: as_of + timedelta(hours=49)).facts["remarks"]
    assert "older than 2 days: verdicts are limited" in late


@pytest.mark.parametrize(("border", "state"), [(4, "PASS"), (1, "NOTE")])
def test_how_a_code_is_made_is_told_and_a_narrow_quiet_zone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], border: int, state: str
) -> None:
    segno.make("VM0:A CODE THAT IS NOT REPEATED", version=7).save(tmp_path / "code.png", scale=8, border=border)
    assert main(["doctor", "--picture", str(tmp_path / "code.png"), "--json"]) == 0
    told = capsys.readouterr().out
    section = json.loads(told)
    assert (section["state"], section["codes"][0]["version"]) == (state, 7)
    assert section["codes"][0]["quiet_zone_missing"] is (border == 1)
    assert "NOT REPEATED" not in told


def test_a_picture_without_a_code_or_that_is_none_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.png").write_bytes(b"no picture")
    assert main(["doctor", "--picture", str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().out
