"""The sandbox's authority seals all that says something of vehicles: what a device and a web server have of it."""

from __future__ import annotations

import json
import re
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
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.regions import region_of
from scripts.sandbox.server import serve
from verifier.cache.schema import CURRENT
from verifier.cache.sealing import BOX
from verifier.cache.tables import Table
from verifier.clock import system_clock
from verifier.codec.hot import open_rows
from verifier.codec.index import SEALED_CLIENT, decode_index
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
    assert office.run("publish", "--scale", "600", "--seed", "5") == 0
    office.sync()
    vehicle = next(office.good())
    assert office.verdict(vehicle, capsys) == "VALID"
    authority = office.home.open(clock=system_clock)
    for one in islice(office.good(), 30):
        event = {"event": "status", "plate": one.plate.text, "kind": one.plate.kind, "letters": "E"}
        office.home.record(authority, event)
    assert office.run("publish") == 0
    assert "delta of" in capsys.readouterr().err
    office.sync()
    assert office.verdict(vehicle, capsys) == "DEREGISTERED"
    base, changes = office.tables()
    for path in (base, changes):
        plain, blocks = office.plain_blocks(path)
        assert (plain, blocks > 0) == (0, True), path.name
    assert office.home.epoch_key_file.read_bytes().strip() not in base.read_bytes()


def test_an_authority_that_published_plain_before_is_sealed_from_its_next_night_on(office, capsys):
    office.home.create(clock=system_clock, scale=500, seed=5)
    authority = office.home.open(clock=system_clock)
    authority.publisher = Publisher(
        authority.store, system_clock, keys=PublisherKeys.load(office.home.private / "tuf"), sealed=False
    )
    authority.publish()
    office.sync()
    plain, blocks = office.plain_blocks(office.tables()[0])
    assert plain == blocks > 0
    assert office.run("publish") == 0
    assert "sealed otherwise than before" in capsys.readouterr().err
    assert office.run("publish") == 0
    assert "delta of" in capsys.readouterr().err
    office.sync()
    assert office.plain_blocks(office.tables()[0])[0] == 0
    assert office.verdict(next(office.good()), capsys) == "VALID"


def test_regions_deltas_and_hot_lists_are_sealed_too_for_whoever_reads_the_web_server(office, capsys):
    assert office.run("publish", "--scale", "600", "--seed", "5") == 0
    vehicle = next(office.good())
    province = region_of(vehicle.plate.text[0])
    for region in (province.name, "national"):
        assert office.run("publish", "--region", region) == 0
    event = ("event", "status", "--plate", vehicle.plate.text, "--kind", "02", "--letters")
    assert office.run(*event, "C") == 0
    assert office.run("publish", "--hot") == 0
    assert re.search(r": [13] rows", capsys.readouterr().err), "its number is told, a card and a tag count too"
    authority = office.home.open(clock=system_clock)
    hot = authority.publisher.hot()
    assert hot is not None
    assert (hot.sealed is not None, hot.rows, hot.exact) == (True, {}, {})
    assert open_rows(hot, authority.epoch_key).count == hot.count > 0
    authority.publisher.renew_hot()
    renewed = authority.publisher.hot()
    assert renewed is not None
    assert open_rows(renewed, authority.epoch_key).rows == open_rows(hot, authority.epoch_key).rows
    assert office.run(*event, "A") == 0
    assert office.run("publish") == 0
    deltas = [path.read_bytes() for path in (office.home.public / "delta").rglob("*") if path.is_file()]
    assert len(deltas) >= 2
    assert all(data.startswith(BOX) for data in deltas)
    assert authority.publish(region=province, accept_large=True).snapshot is None
    index = decode_index(next((office.home.public / "targets" / "nightly" / "national").glob("*")).read_bytes())
    assert index.min_client == SEALED_CLIENT, "an older program says so, and keeps what it has"


def test_serving_seals_too(office, capsys):
    line = ["serve", "--scale", "500", "--seed", "5", "--port", "0", "--seconds", "0"]
    assert office.run(*line) == 0
    office.sync()
    plain, blocks = office.plain_blocks(office.tables()[0])
    assert (plain, blocks > 0) == (0, True)
