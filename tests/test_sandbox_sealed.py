"""`--sealed`: what a device has of an authority that seals its blocks, and that it stays so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from firmware.config import Home
from scripts.cli.main import main
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.regions import region_of
from scripts.sandbox.server import serve
from verifier.cache.schema import CURRENT
from verifier.cache.tables import Table
from verifier.clock import system_clock
from verifier.types import Month, StatusLetter


@dataclass
class Office:
    """An authority in a folder, and a device that syncs from it; both by the commands alone."""

    home: AuthorityFolder
    device: Home

    def run(self, *line: str) -> int:
        return main(["sandbox", *line, "--folder", str(self.home.folder)])

    def good(self) -> Iterator[Vehicle]:
        month = Month.at(system_clock()).plus(3)
        for v in self.home.open(clock=system_clock).registry.vehicles.values():
            if v.status == {StatusLetter.NORMAL} and v.valid_until > month and v.plate.kind == "02":
                yield v

    def sync(self) -> None:
        with serve(self.home.open(clock=system_clock).store) as server:
            root, key = str(self.home.root_file), str(self.home.epoch_key_file)
            assert main(["sync", "--from", server.url, "--root", root, "--epoch-key", key]) == 0

    def verdict(self, vehicle: Vehicle, capsys: pytest.CaptureFixture[str]) -> str:
        capsys.readouterr()
        assert main(["check", "--plate", vehicle.plate.text, "--kind", "02", "--json"]) == 0
        return str(json.loads(capsys.readouterr().out)["verdict"])

    def tables(self) -> list[Path]:
        """The files of the device's newest generation that hold values."""
        newest = (self.device.cache / CURRENT).resolve()
        return [newest / name for name in ("base.db", "changes.db") if (newest / name).exists()]

    def plain_blocks(self, path: Path) -> tuple[int, int]:
        """How many of a file's blocks stand in it as they are once decrypted, and how many there are."""
        with closing(Table(path, bytes.fromhex(self.home.epoch_key_file.read_text()))) as table:
            bodies = [body for name in ("seg", "exact", "replated") for _, body in table.rows(name) if len(body) >= 8]
        data = path.read_bytes()
        return sum(body in data for body in bodies), len(bodies)


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    return Office(AuthorityFolder(tmp_path / "sandbox"), Home(tmp_path / "home"))


def test_a_device_of_a_sealed_authority_answers_and_its_cache_holds_no_plain_value(office, capsys):
    assert office.run("publish", "--scale", "2000", "--seed", "5", "--sealed") == 0
    office.sync()
    vehicle = next(office.good())
    assert office.verdict(vehicle, capsys) == "VALID"
    authority = office.home.open(clock=system_clock)
    for one in islice(office.good(), 30):
        event = {"event": "status", "plate": one.plate.text, "kind": one.plate.kind, "letters": "E"}
        office.home.record(authority, event)
    assert office.run("publish") == 0
    assert "delta of" in capsys.readouterr().err, "sealed as before, with no other word about it"
    office.sync()
    assert office.verdict(vehicle, capsys) == "DEREGISTERED"
    base, changes = office.tables()
    for path in (base, changes):
        plain, blocks = office.plain_blocks(path)
        assert (plain, blocks > 0) == (0, True), path.name
    assert office.home.epoch_key_file.read_bytes().strip() not in base.read_bytes()


def test_an_authority_is_plain_until_it_is_sealed_and_sealed_from_then_on(office, capsys):
    assert office.run("publish", "--scale", "2000", "--seed", "5") == 0
    office.sync()
    plain, blocks = office.plain_blocks(office.tables()[0])
    assert plain == blocks > 0
    assert office.run("publish", "--sealed") == 0
    assert "sealed otherwise than before" in capsys.readouterr().err
    for options in ((), ("--snapshot",), ("--sealed",)):
        assert office.run("publish", *options) == 0
        assert "sealed otherwise than before" not in capsys.readouterr().err
    office.sync()
    assert office.plain_blocks(office.tables()[0])[0] == 0
    assert office.verdict(next(office.good()), capsys) == "VALID"


def test_a_sealed_authority_seals_its_regions_and_still_makes_hot_lists(office, capsys):
    assert office.run("publish", "--scale", "2000", "--seed", "5", "--sealed") == 0
    vehicle = next(office.good())
    province = region_of(vehicle.plate.text[0])
    assert office.run("publish", "--region", province.name) == 0
    assert office.run("event", "status", "--plate", vehicle.plate.text, "--kind", "02", "--letters", "C") == 0
    assert office.run("publish", "--hot") == 0
    assert ": 1 rows" in capsys.readouterr().err or vehicle.tid is not None
    authority = office.home.open(clock=system_clock)
    assert authority.publish(region=province, accept_large=True).snapshot is None, "the region was sealed already"


def test_what_is_published_between_two_nights_takes_no_seal(office, capsys):
    assert office.run("publish", "--scale", "16", "--seed", "5") == 0
    for option in ("--hot", "--trust-only"):
        assert office.run("publish", option, "--sealed") == 2
        assert f"{option} goes with none of the other options given" in capsys.readouterr().err
    assert json.loads((office.home.private / "authority.json").read_text())["sealed"] is False


def test_a_folder_from_before_there_was_a_seal_is_plain(office):
    office.home.create(clock=system_clock, scale=500, seed=5)
    state = json.loads((office.home.private / "authority.json").read_text())
    del state["sealed"]
    (office.home.private / "authority.json").write_text(json.dumps(state))
    assert office.run("publish") == 0
    office.sync()
    plain, blocks = office.plain_blocks(office.tables()[0])
    assert plain == blocks > 0


def test_serving_seals_too(office, capsys):
    line = ["serve", "--scale", "500", "--seed", "5", "--sealed", "--port", "0", "--seconds", "0"]
    assert office.run(*line) == 0
    office.sync()
    plain, blocks = office.plain_blocks(office.tables()[0])
    assert (plain, blocks > 0) == (0, True)
