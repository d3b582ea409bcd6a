"""A gantry that speaks LLRP, over a real connection: both programs read tag certificates (TC1) through it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.config import Home
from firmware.console_parts import own_tags, own_tests, reports
from firmware.machine import states as st
from firmware.self_tests import Ended
from firmware.settings import read_settings
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.llrp_messages import greeting
from hw.rfid.emulator.port import PortEmulator, running
from hw.rfid.emulator.scene import Passage, Scene, Tag
from hw.rfid.emulator.tcp_port import TcpPort
from scripts.cli.main import main
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.tags import PersonalisedTag, TagForm
from tests.centres import OnlineWorld
from tests.officer import Officer, home_of
from tests.test_appliance import NO_CAMERA
from verifier.audit import read_log
from verifier.clock import system_clock
from verifier.types import Month, StatusLetter, TagLevel, TagSuspicion

pytest.importorskip("pyllrp.pyllrp", reason="the optional extra llrp is not installed")


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld(now=system_clock().replace(microsecond=0))


@pytest.fixture(scope="module")
def cars(world: OnlineWorld) -> list[PersonalisedTag]:
    """Certificates of cars with nothing against them."""

    def in_order(car: Vehicle) -> bool:
        lasting = car.valid_until > Month.at(world.now) and car.ctp_until > world.now.date()
        return lasting and car.plate.kind == "02" and car.tid is not None and car.status == {StatusLetter.NORMAL}

    found = [car for car in world.authority.registry.vehicles.values() if in_order(car)]
    return [world.authority.tag(car.plate, TagForm.TC1, world.now - timedelta(days=9)) for car in found[:4]]


@contextmanager
def gantry(*tags: PersonalisedTag, faults: tuple[Fault, ...] = ()) -> Iterator[PortEmulator]:
    """An emulated gantry over these cars, one in each lane; it listens where nobody else does."""
    passages = tuple(
        Passage(tag=Tag(epc=tag.epc, tid=tag.tid, user=tag.user), lane=lane, rssi_dbm=-55.0)
        for lane, tag in enumerate(tags, 1)
    )
    reader = EmulatedReader("llrp", Scene(passages=passages, faults=faults), paced=False)
    with running(reader, time.monotonic, port=TcpPort("127.0.0.1", 0, greeting)) as emulator:
        yield emulator


def settings_of(emulator: PortEmulator, antennas: int) -> str:
    return f'{NO_CAMERA}[reader]\nport = "{emulator.port.path}"\nprotocol = "llrp"\nantennas = {antennas}\n'


def levels(records: list[dict]) -> list[int]:
    return [record["evidence"]["tag"]["level"] for record in records if record["kind"] == "check"]


def test_a_checkpoint_reads_certificates_through_a_gantry_and_alarms_at_a_copied_one_only(
    world: OnlineWorld, cars: list[PersonalisedTag], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_of(world, tmp_path / "home")
    copied = replace_bank(cars[2], cars[3])
    with gantry(cars[0], cars[1], copied) as emulator:
        antennas = ["--antenna", "1", "--antenna", "2", "--antenna", "3"]
        line = ["checkpoint", "--protocol", "llrp", "--port", emulator.port.path, *antennas]
        assert main([*line, "--seconds", "2", "--json", "--home", str(home)]) == 0
        assert emulator.reader.engine.heard[40] >= 1
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    (counts,) = [told for told in lines if told["event"] == "counts"]
    (alarm,) = [told for told in lines if told["event"] == "alarm"]
    assert (counts["vehicles"], counts["unchecked"]) == (3, 0)
    assert (alarm["lane"], alarm["suspicions"]) == (3, [TagSuspicion.OTHER_TAG.value])
    certified = [level for level in levels(list(read_log(home / "audit.jsonl"))) if level >= TagLevel.CERTIFIED]
    assert len(certified) >= 2


def replace_bank(tag: PersonalisedTag, other: PersonalisedTag) -> PersonalisedTag:
    """The chip of one car with the certificate of another."""
    return tag._replace(user=other.user)


def test_without_a_program_the_console_tests_a_gantry_and_reads_tags_on_all_its_antennas(
    cars: list[PersonalisedTag], tmp_path: Path
) -> None:
    with gantry(*cars[:3]) as emulator:
        settings = read_settings(settings_of(emulator, 2))
        tests = own_tests(settings, Home(tmp_path), system_clock, tmp_path)
        (found,) = reports(tests, ["reader"])
        assert (found.state, found.detail.split()[0]) == (Ended.PASS, "llrp"), found
        seen = own_tags(settings)
    assert sorted(tag["antenna"] for tag in seen["tags"]) == [1, 2]


def test_a_handheld_with_a_gantry_lists_its_tags_with_their_certificates(
    world: OnlineWorld, cars: list[PersonalisedTag], tmp_path: Path
) -> None:
    with gantry(*cars[:2]) as emulator:
        officer = Officer(world, home_of(world, tmp_path / "home"), settings_of(emulator, 2))
        try:
            officer.press("left").until(lambda: certified(officer.page) == 2)
            assert not officer.state.faults
        finally:
            officer.close()
        assert not emulator.reader.engine.scanning


def certified(page: st.Page) -> int:
    found = page.tags if isinstance(page, st.Tags) else ()
    return sum(seen.evidence.level >= TagLevel.CERTIFIED for seen in found)


def test_an_antenna_that_is_plugged_in_again_ends_its_banner(
    world: OnlineWorld, cars: list[PersonalisedTag], tmp_path: Path
) -> None:
    lost = Fault(kind=FaultKind.ANTENNA_MISSING, at_s=0.0, for_s=3.0, antenna=2)
    with gantry(cars[0], faults=(lost,)) as emulator:
        officer = Officer(world, home_of(world, tmp_path / "home"), settings_of(emulator, 2))
        try:
            officer.press("left").until(lambda: officer.state.faults.get("reader") == "antenna missing")
            officer.until(lambda: "reader" not in officer.state.faults)
            officer.until(lambda: certified(officer.page) == 1)
        finally:
            officer.close()


def test_a_handheld_at_a_checkpoint_under_a_gantry_counts_cars_in_order_and_says_nothing(
    world: OnlineWorld, cars: list[PersonalisedTag], tmp_path: Path
) -> None:
    with gantry(*cars[:2]) as emulator:
        officer = Officer(world, home_of(world, tmp_path / "home"), settings_of(emulator, 2))
        try:
            officer.hold("ok").press("down", "down", "ok").until(lambda: passed(officer.page) == 2)
            assert (officer.heard, officer.page.alarms) == ([], 0)  # type: ignore[union-attr]
            assert min(levels(officer.records())) >= TagLevel.CERTIFIED
        finally:
            officer.close()


def passed(page: st.Page) -> int:
    return page.passed if isinstance(page, st.Checkpoint) else 0


def test_a_gantry_that_plays_a_scene_of_the_settings_needs_no_address(world: OnlineWorld, tmp_path: Path) -> None:
    home = home_of(world, tmp_path / "home")
    scene = '[[pass]]\ntag = "a"\nrssi_dbm = -55\n[[tag]]\nname = "a"\nepc = "300000000000000000000001"\n'
    (home / "scene.toml").write_text(scene + 'tid = "e28011052000000000000001"\n', encoding="utf-8")
    officer = Officer(world, home, f'{NO_CAMERA}[reader]\nscene = "scene.toml"\nprotocol = "llrp"\n')
    try:
        officer.press("left").until(lambda: isinstance(officer.page, st.Tags) and bool(officer.page.tags))
    finally:
        officer.close()


def test_a_gantry_that_is_not_there_is_a_banner_without_its_address(world: OnlineWorld, tmp_path: Path) -> None:
    with gantry() as emulator:
        settings = settings_of(emulator, 1)
    officer = Officer(world, home_of(world, tmp_path / "home"), settings)
    try:
        officer.press("left").until(lambda: "reader" in officer.state.faults)
        assert "127.0.0.1" not in officer.state.faults["reader"]
    finally:
        officer.close()
