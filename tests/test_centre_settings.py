"""Settings that the centre sends to a device in service: signed, counted, taken whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, TargetFile  # type: ignore[attr-defined]

from firmware import syncjob
from firmware.app import Program
from firmware.config import Home
from firmware.console import open_session
from firmware.console_commands import COMMANDS, _flat
from firmware.console_line import Terminal
from firmware.console_link import SOCKET, ConsoleLink, program_requests
from firmware.jobs import sync_lines
from firmware.machine.states import Info, Ready, State, Status
from firmware.pages import page_view
from firmware.probes import vitals
from firmware.settings import (
    CENTRE_FILE,
    CENTRE_SETS,
    LAST_GOOD,
    MAX_BYTES,
    CentreSettings,
    Settings,
    SettingsError,
    load_settings,
    read_centre_settings,
    read_settings,
)
from firmware.start import start
from firmware.wiring import Closer, Inputs
from scripts.cli.main import main
from scripts.sandbox.folder_store import FolderStore, MemoryFetcher
from scripts.sandbox.nightly import PublicationError
from tests.hand import NOON
from tests.nightly import Device, Night
from tests.syncing import first_night, publish_seed, seed_in_use
from tests.test_modes import LANE
from verifier.errors import SyncError
from verifier.heartbeat import load_vitals
from verifier.policy import dump_policy
from verifier.repository import MAX_SETTINGS, SETTINGS_TARGET
from verifier.types import SHANGHAI

GOOD = b"""version = 5
[device]
language = "en"
[officers]
lock_minutes = 5
[reader]
power_dbm = 26
"""
OWN = """
[device]
name = "MC-0001"
switch_off = "program"
[panel]
bus = "simulated"
[keys]
source = "none"
[sound]
source = "none"
[camera]
kind = "none"
"""
TAKEN = "settings of the centre, version 5: from the next start they count over older ones"


def version(number: int, more: str = "") -> bytes:
    return f"version = {number}\n{more}".encode()


class Field:
    """A publisher, a device that syncs from it, and the device's settings."""

    def __init__(self, folder: Path) -> None:
        self.home, self.config = folder / "home", folder / "markcheck.toml"
        self.home.mkdir()
        self.config.write_text(OWN)
        self.settings = CentreSettings(self.home)
        self.night: Night = first_night()
        self.device: Device = self.night.device(self.home / "cache", settings=self.settings)

    def sync(self, **options: Any) -> tuple[str, ...]:
        """What is told of the settings by a sync that brings the data; nothing that is wrong with them stops that."""
        told = self.device.client(**options).refresh().notes
        return tuple(note for note in told if "settings" in note)

    def sign(self, data: bytes) -> None:
        """As the publisher signs it, without his own look at it."""
        publisher = self.night.publisher
        files = publisher._metadata.targets()
        files[SETTINGS_TARGET] = publisher._metadata.target(SETTINGS_TARGET, data, {"version": 1})
        publisher._metadata.sign_targets(files, self.night.region)
        publisher._sign()

    def in_force(self) -> tuple[Settings, str]:
        """As the next start takes them."""
        return self.settings.over(*load_settings(self.config, self.home / LAST_GOOD))


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return Field(tmp_path)


# ------------------------------------------------------------------------------------------------ what is taken


def test_settings_that_the_centre_signs_count_from_the_next_start_over_the_devices_own(field: Field) -> None:
    before = field.in_force()[0]
    assert before.version == 0
    assert field.night.publisher.publish_settings(GOOD) == 5
    assert field.sync() == (TAKEN,)
    assert field.sync() == ()  # and is not fetched again
    after, remark = field.in_force()
    assert remark == ""
    assert after == replace(
        before, version=5, device=replace(before.device, language="en"),
        officers=replace(before.officers, lock_minutes=5), reader=replace(before.reader, power_dbm=26.0),
    )  # fmt: skip
    assert (after.device.name, after.panel.bus) == ("MC-0001", "simulated")


def test_settings_that_are_held_are_not_fetched_again(field: Field) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    before = field.device.client().refresh()
    assert (before.requests, before.notes) == (2, ())


def test_the_next_version_takes_the_place_of_the_whole_one_before(field: Field) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    field.night.publisher.publish_settings(version(6, "[officers]\nlock_minutes = 20\n"))
    assert field.sync() == (TAKEN.replace("5", "6"),)
    after, _ = field.in_force()
    assert (after.version, after.officers.lock_minutes) == (6, 20)
    assert after.device.language == "zh"


def test_nights_and_trust_lists_leave_the_settings_in_the_distribution_and_old_ones_are_pruned(field: Field) -> None:
    field.night.publisher.publish_settings(version(4))
    field.night.publisher.publish_settings(GOOD)
    field.night.clock.move(days=20)
    for seed in (1, 2, 3):
        field.night.clock.move(days=1)
        publish_seed(field.night, seed)
    field.night.clock.move(days=20)
    field.night.publisher.renew()
    publish_seed(field.night, 4)
    field.night.publisher.prune()
    assert field.sync() == (TAKEN,)
    assert seed_in_use(field.device) == 4
    assert len([path for path in field.night.store if "settings" in path]) == 1


def test_of_two_files_the_one_with_the_higher_version_holds(field: Field) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    field.config.write_text(f"version = 7\n{OWN}[reader]\npower_dbm = 10\n")
    own, _ = field.in_force()
    assert (own.version, own.reader.power_dbm, own.device.language) == (7, 10, "zh")
    field.night.publisher.publish_settings(version(6))
    field.sync()
    assert field.in_force()[0].reader.power_dbm == 10
    field.night.publisher.publish_settings(version(7, "[reader]\npower_dbm = 20\n"))
    field.sync()
    assert field.in_force()[0].reader.power_dbm == 10
    field.night.publisher.publish_settings(version(8, "[reader]\npower_dbm = 20\n"))
    field.sync()
    assert field.in_force()[0].reader.power_dbm == 20


# ------------------------------------------------------------------------------------------------ what is refused


REFUSED = {
    "a key that is not the centre's": (version(6, '[sync]\nsource = "https://evil"\n'), "sync.source: not for a"),
    "one such key among good ones": (
        GOOD.replace(b"version = 5", b"version = 6").replace(b"[reader]", b'[reader]\nport = "/dev/mem"'),
        "reader.port: not for a centre to set",
    ),
    "a whole section": (version(6, '[paths]\nhome = "/tmp"\n'), "paths.home: not for a centre to set"),
    "the mark of test data": (version(6, "[device]\ndemo = true\n"), "device.demo: not for a centre to set"),
    "a name of the device": (version(6, '[device]\nname = "x"\n'), "device.name: not for a centre to set"),
    "no such key": (version(6, "[officers]\nlock = 5\n"), "officers.lock: no such setting"),
    "no such section": (version(6, "[root]\nkey = 1\n"), "root: no such setting"),
    "a value of another type": (version(6, "[officers]\nlock_minutes = '5'\n"), "officers.lock_minutes: a whole"),
    "a value out of its range": (version(6, "[officers]\nlock_minutes = 61\n"), "officers.lock_minutes: 1 to 60"),
    "one bad value among good ones": (
        GOOD.replace(b"version = 5", b"version = 6").replace(b"26", b"99"), "reader.power_dbm: 0 to 33",
    ),
    "no version": (GOOD.replace(b"version = 5", b""), "version: a whole number above 0 is needed"),
    "a version that is no number": (GOOD.replace(b"5", b'"9"', 1), "version: a whole number is needed"),
    "a version below 0": (version(-1), "version: 0 to"),
    "a version without end": (version(10**30), "version: 0 to"),
    "a value in place of a section": (version(6, "device = 1\n"), "device: a table is needed"),
    "a table in place of a value": (version(6, "[device.language]\nx = 1\n"), "device.language: one of zh, en"),
    "no TOML": (b"[[[", "not TOML"),
    "no text": (b"\xff\xfe", "not UTF-8 at byte 0"),
    "nothing": (b"", "version: a whole number above 0 is needed"),
    "a control character": (version(6, '[device]\n"\\u001b[31m" = 1\n'), r"device.?[31m: no such setting"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_as_a_whole_with_one_line_and_the_last_good_one_goes_on(
    field: Field, name: str
) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    good = field.in_force()
    data, told = REFUSED[name]
    field.sign(data)
    publish_seed(field.night, 1)
    (line,) = field.sync()
    assert line.startswith(f"settings of the centre refused, those in force stay: {told}")
    assert line.isprintable()
    assert seed_in_use(field.device) == 1
    assert field.in_force() == good
    with pytest.raises(PublicationError, match="not published: settings"):
        field.night.publisher.publish_settings(data)


@pytest.mark.parametrize("place", [place for place, _ in _flat(asdict(Settings())) if place not in CENTRE_SETS])
def test_every_setting_but_those_of_the_centre_is_refused_even_with_the_value_that_it_has(place: str) -> None:
    if place == "version":
        return
    section, name = place.split(".")
    value = json.dumps(getattr(getattr(Settings(), section), name))
    with pytest.raises(SettingsError, match=f"^{place}: not for a centre to set$"):
        read_centre_settings(f"version = 1\n[{section}]\n{name} = {value}\n".encode())


def test_what_a_centre_may_set_are_settings_that_there_are_and_none_of_them_names_a_place_or_a_secret() -> None:
    assert {place for place, _ in _flat(asdict(Settings()))} >= CENTRE_SETS
    for place in CENTRE_SETS:
        section, name = place.split(".")
        assert section not in ("paths", "sync", "panel", "keys", "sound", "camera", "barcode")
        assert name not in ("name", "port", "path", "home", "source", "scene", "demo")


def test_a_version_that_goes_down_is_not_taken_nor_is_one_published_twice(field: Field) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    good = field.in_force()
    for data in (version(4), GOOD):
        with pytest.raises(PublicationError, match="not published: settings: version 5 is out already"):
            field.night.publisher.publish_settings(data)
    field.sign(version(4))
    assert field.sync() == ("settings of the centre refused, those in force stay: version 4 is older than 5",)
    assert field.in_force() == good


def test_an_older_distribution_brings_no_older_settings_back(field: Field) -> None:
    field.night.publisher.publish_settings(GOOD)
    old = dict(field.night.store)
    field.night.publisher.publish_settings(version(6))
    publish_seed(field.night, 1)
    field.sync()
    with pytest.raises(SyncError):
        field.device.client(fetcher=MemoryFetcher(old)).refresh()
    assert field.in_force()[0].version == 6


def test_a_file_that_is_too_large_is_not_even_fetched_and_the_data_come_all_the_same(field: Field) -> None:
    assert MAX_SETTINGS == MAX_BYTES
    field.sign(GOOD + b"#" * MAX_SETTINGS)
    publish_seed(field.night, 1)
    (line,) = field.sync()
    assert line.startswith("settings of the centre not taken: ")
    assert line.endswith(f"longer than {MAX_SETTINGS} bytes")
    assert seed_in_use(field.device) == 1
    assert field.settings.held is None


def test_settings_that_another_key_signed_are_not_believed(field: Field) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    evil, store = version(9, "[officers]\nlock_minutes = 30\n"), dict(field.night.store)
    newest = max(path for path in store if path.endswith(".targets.json"))
    metadata: Metadata[Any] = Metadata.from_bytes(store[newest])
    metadata.signed.version += 1
    metadata.signed.targets[SETTINGS_TARGET] = TargetFile.from_data(SETTINGS_TARGET, evil, ["sha256"])
    metadata.sign(field.night.publisher._keys["nightly-national"])
    store[f"metadata/{metadata.signed.version}.targets.json"] = metadata.to_bytes()
    field.night.store.update(store)
    field.night.publisher._sign()  # whoever has the keys of snapshot and time stamp has not that of the targets
    with pytest.raises(SyncError, match="signature"):
        field.device.client().refresh()
    assert field.in_force()[0].version == 5


def test_the_key_of_the_night_signs_no_settings(field: Field) -> None:
    metadata, evil = field.night.publisher._metadata, version(9)
    (index,) = metadata._latest("nightly-national").targets.values()
    nightly: Metadata[Any] = Metadata(metadata._latest("nightly-national"))
    nightly.signed.version += 1
    nightly.signed.targets = {
        index.path: index,
        SETTINGS_TARGET: metadata.target(SETTINGS_TARGET, evil, {"version": 9}),
    }
    nightly.sign(field.night.publisher._keys["nightly-national"])
    field.night.store[f"metadata/{nightly.signed.version}.nightly-national.json"] = nightly.to_bytes()
    field.night.publisher._sign()
    assert field.sync() == ()
    assert field.settings.held is None


@pytest.mark.parametrize("data", [GOOD.replace(b"26", b"30"), GOOD[:-1], None])
def test_a_file_that_the_server_altered_or_has_lost_costs_neither_data_nor_settings(
    field: Field, data: bytes | None
) -> None:
    field.night.publisher.publish_settings(GOOD)
    publish_seed(field.night, 1)
    store = dict(field.night.store)
    (path,) = (path for path in store if path.startswith("targets/settings/"))
    if data is None:
        del store[path]
    else:
        store[path] = data
    (line,) = field.sync(fetcher=MemoryFetcher(store))
    assert line.startswith("settings of the centre not taken: ")
    assert seed_in_use(field.device) == 1
    assert field.settings.held is None
    assert field.sync() == (TAKEN,)


# --------------------------------------------------------------------------------------------------- on the device


def test_a_card_that_does_not_take_them_costs_no_data(field: Field) -> None:
    (field.home / CENTRE_FILE).mkdir()
    field.night.publisher.publish_settings(GOOD)
    publish_seed(field.night, 1)
    (line,) = field.sync()
    assert line.startswith("settings of the centre not taken: card: ")
    assert seed_in_use(field.device) == 1


@pytest.mark.parametrize("damage", [b"", b"\xff", GOOD[:30], GOOD + b"[sync]\nregion = 'x'\n", b"#" * (MAX_BYTES + 1)])
def test_damaged_on_the_card_they_leave_the_devices_own_in_force_until_the_next_sync(
    field: Field, damage: bytes
) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    (field.home / CENTRE_FILE).write_bytes(damage)
    settings, remark = field.in_force()
    assert settings == read_settings(OWN)
    assert remark.startswith(f"{CENTRE_FILE}: ")
    assert remark.endswith("; the device's own settings hold")
    assert field.sync() == (TAKEN,)
    assert field.in_force()[0].version == 5


@pytest.mark.parametrize("altered", [GOOD[:20], GOOD.replace(b"26", b"16")])
def test_what_the_card_altered_and_can_still_be_read_is_mended_by_the_next_sync(field: Field, altered: bytes) -> None:
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    (field.home / CENTRE_FILE).write_bytes(altered)
    assert field.sync() == (TAKEN,)
    assert field.settings.held == GOOD


def test_beside_a_bad_file_of_its_own_the_last_good_one_goes_on_with_those_of_the_centre(field: Field) -> None:
    field.in_force()
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    field.config.write_text("[officers]\nlock_minutes = 0\n")
    settings, remark = field.in_force()
    assert (settings.version, settings.device.name, settings.officers.lock_minutes) == (5, "MC-0001", 5)
    assert "the last good settings stay in force" in remark


class Glass:
    """A panel that takes pictures and keeps none."""

    size = (128, 64)

    def show(self, image: object) -> None:
        pass

    def contrast(self, level: int) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self, *, keep_picture: bool = False) -> None:
        pass


def started(field: Field) -> State:
    """The state in which the device's program begins; it ends at once."""
    began: list[State] = []

    def attach(program: Program) -> Closer:
        began.append(program.state)
        program.stop()
        return lambda: None

    assert start(field.config, field.home, panel=Glass(), inputs=Inputs(attach=attach, notified={})) == 0
    return began[0]


def test_the_program_starts_with_them_and_tells_their_version_on_the_panel(field: Field) -> None:
    before = started(field)
    field.night.publisher.publish_settings(GOOD)
    field.sync()
    after = started(field)
    assert [(state.language, state.status.settings) for state in (before, after)] == [("zh", 0), ("en", 5)]
    assert after.status.about[1:] == ("MC-0001", "settings 5")
    assert set(after.status.about) < set(page_view(replace(after, page=Info(), locked=False), NOON).texts)


def test_the_console_tells_the_version_in_force_and_the_one_that_waits_for_the_next_start(
    field: Field, tmp_path: Path
) -> None:
    field.settings.take(GOOD)
    (tmp_path / "run").mkdir()
    running = [4, 5]
    state = State(page=Ready())
    asked = program_requests(lambda: replace(state, status=Status(settings=running[0])), {})
    link = ConsoleLink(tmp_path / "run" / SOCKET, asked)
    source, sink = os.pipe()
    try:
        session = open_session(field.config, field.home, Terminal(source, sink), run=tmp_path / "run")
        told = [dict(row.facts) for row in COMMANDS["status"].run(session, [])]
        assert told[0]["settings_version"] == 4
        assert {"settings": "version 5 of the centre counts from the next start"} in told
        del running[0]
        assert not [row for row in COMMANDS["status"].run(session, []) if "settings" in row.facts]
        assert {"version": 5} in [dict(row.facts) for row in COMMANDS["config"].run(session, [])]
    finally:
        link.close()
        os.close(source)
        os.close(sink)


def test_the_sign_of_life_tells_their_version(tmp_path: Path) -> None:
    state = State(status=Status(settings=5))
    probe = vitals(tmp_path / "vitals.json", lambda: state, lambda: NOON, iter((0, 60_000, 120_000)).__next__)
    probe()
    noted = load_vitals(tmp_path / "vitals.json")
    assert noted is not None
    assert noted.counters == {"settings_version": 5}


def test_the_sync_of_the_menu_says_on_the_panel_that_they_count_from_the_next_start() -> None:
    outcome = {"kind": "done", "as_of": NOON.isoformat(), "settings": "6"}
    day = f"{NOON.astimezone(SHANGHAI):%m-%d %H:%M}"
    assert sync_lines(outcome, "zh") == ("同步完成", f"数据{day}", "新配置重启后生效")
    assert sync_lines(outcome | {"settings": ""}, "en") == ("SYNC DONE", f"DATA {day}")


# ----------------------------------------------------------------------------------------------------- by hand


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("centre") / "sandbox"
    assert main(["sandbox", "publish", "--folder", str(folder), "--scale", "64"]) == 0
    return folder


def test_the_sandbox_publishes_settings_and_policy_and_a_device_takes_both(
    authority: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.toml").write_bytes(GOOD)
    policy = json.loads(policy_file(tmp_path))
    files = ["--settings", str(tmp_path / "settings.toml"), "--policy", str(tmp_path / "policy.json")]
    assert main(["sandbox", "publish", "--folder", str(authority), *files]) == 0
    assert "published policy lane/2\npublished settings version 5\n" in capsys.readouterr().err
    home = Home(tmp_path / "home")
    words = ["--from", str(authority / "public"), "--home", str(home.folder)]
    assert main(["sync", *words, "--root", str(authority / "root.json")]) == 0
    assert TAKEN in capsys.readouterr().out
    assert CentreSettings(home.folder).version == 5
    (in_use,) = (home.cache / "gen").glob("*/policy.json")
    assert json.loads(in_use.read_bytes()) == policy
    for again in files[:2], files[2:]:
        assert main(["sandbox", "publish", "--folder", str(authority), *again]) == 1
    (tmp_path / "settings.toml").write_bytes(version(6))
    assert main(["sandbox", "publish", "--folder", str(authority), *files[:2]]) == 0
    capsys.readouterr()
    assert syncjob.main(words) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == "6"


def policy_file(folder: Path) -> bytes:
    (folder / "policy.json").write_bytes(dump_policy(LANE))
    return dump_policy(LANE)


def test_a_policy_that_was_published_stays_in_later_nights(authority: Path, tmp_path: Path) -> None:
    folder = FolderStore(authority / "public")
    before = [path for path in folder if path.startswith("targets/policy/")]
    assert main(["sandbox", "publish", "--folder", str(authority)]) == 0
    assert [path for path in folder if path.startswith("targets/policy/")] == before
