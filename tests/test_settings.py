"""The configuration file: errors by their place, and the last good one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from firmware.settings import MAX_BYTES, ReaderSettings, Settings, SettingsError, load_settings, read_settings
from hw.rfid.models import MODELS
from tests.conftest import ROOT


def test_an_empty_file_is_the_standard_device() -> None:
    assert read_settings("") == Settings()


def test_nobody_has_to_log_in_unless_the_settings_say_so_and_then_it_locks_after_ten_minutes() -> None:
    assert not read_settings("").officers.required
    officers = read_settings("[officers]\nrequired = true\n").officers
    assert (officers.required, officers.lock_minutes) == (True, 10)


def test_settings_are_read_with_their_types() -> None:
    settings = read_settings('[reader]\nport = "/dev/ttyUSB0"\npower_dbm = 18\n[device]\ndemo = true\n')
    assert settings.reader == ReaderSettings(port="/dev/ttyUSB0", power_dbm=18.0)
    assert settings.device.demo


@pytest.mark.parametrize("port", ["192.0.2.7", "gantry.example:6000", "[2001:db8::1]:5084", ""])
def test_a_gantry_has_an_address_in_place_of_a_port(port: str) -> None:
    reader = read_settings(f'[reader]\nprotocol = "llrp"\nport = "{port}"\n').reader
    assert (reader.protocol, reader.port) == ("llrp", port)


@pytest.mark.parametrize("name", MODELS)
def test_a_device_file_is_no_port_of_a_reader_in_the_network_and_of_any_other_it_is(name: str) -> None:
    text = f'[reader]\nprotocol = "{name}"\nport = "/dev/ttyUSB0"\n'
    if MODELS[name].in_network:
        with pytest.raises(SettingsError, match="reader.port"):
            read_settings(text)
    else:
        assert read_settings(text).reader.port == "/dev/ttyUSB0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[camera]\nknd = 'video'", r"camera.knd: no such setting \(kind\?\)"),
        ("[camra]", r"camra: no such setting \(camera\?\)"),
        ("camera = 3", r"camera: a table is needed \(\[camera\]\)"),
        ("[camera]\nkind = 'film'", "camera.kind: one of picamera2, uvc, window, video, files, none is needed"),
        ("[keys]\nup = '5'", "keys.up: a whole number is needed"),
        ("[keys]\nup = true", "keys.up: a whole number is needed"),
        ("[keys]\nup = 99", "GPIO numbers are 0 to 27"),
        ("[keys]\nup = 6", "keys.left: two parts on one GPIO, 6 is keys.up too"),
        ("[sound]\nred = 24", "sound.red: two parts on one GPIO, 24 is panel.dc too"),
        ("[panel]\nreset = 12", "sound.buzzer: two parts on one GPIO, 12 is panel.reset too"),
        ("[sound]\nmotor = 7", "sound.motor: two parts on one GPIO, 7 is the panel's spi too"),
        ("[keys]\nback = 11", "keys.back: two parts on one GPIO, 11 is the panel's spi too"),
        ("[panel]\nbus = 'i2c'\n[keys]\nup = 3", "keys.up: two parts on one GPIO, 3 is the panel's i2c too"),
        ("[panel]\ndc = 28", "GPIO numbers are 0 to 27"),
        ("[panel]\ndc = 0", "panel.dc: 1 to 27"),
        ("[device]\nprovince = 'X'", "device.province: no province"),
        ("[reader]\npower_dbm = 40", "reader.power_dbm: 0 to 33"),
        ("[centre]\nurl = 'https://centre'", r"centre: no such setting"),
        ("[reader]\nband = 915", "reader.band: no such setting"),
        ("[officers]\nlock_minutes = 0", "officers.lock_minutes: 1 to 60"),
        ("[officers]\nlock_minutes = 61", "officers.lock_minutes: 1 to 60"),
        ("[officers]\nrequired = 'no'", "officers.required: true or false is needed"),
        ("[reader]\nprotocol = 'llpr'", "reader.protocol: one of m100, a0, gx, llrp is needed"),
        ("[reader]\nair = 'uhf'", "reader.air: one of gen2, gb29768, gjb7377 is needed"),
        ("[reader]\nprotocol = 'm100'\nair = 'gb29768'", "reader.air: gx is needed for any but gen2"),
        ("[reader]\nprotocol = 'llrp'\nport = '/dev/ttyUSB0'", "reader.port: HOST or HOST:PORT is needed for llrp"),
        ("[reader]\nprotocol = 'llrp'\nport = 'gantry:99999'", "reader.port: HOST or HOST:PORT is needed for llrp"),
        ("[[[", "not TOML"),
        ('"\\u001b[31m" = 1', r"\?\[31m: no such setting"),
    ],
)
def test_a_mistake_is_named_by_its_place(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_settings(text)


@pytest.mark.parametrize(
    "text",
    [
        "[panel]\nbus = 'i2c'\n[sound]\nred = 24\nmotor = 8\n",
        "[panel]\nbus = 'simulated'\n[sound]\nred = 24\nmotor = 2\n",
        "[sound]\nsource = 'none'\nred = 24\n",
        "[keys]\nsource = 'none'\nup = 12\n",
    ],
)
def test_pins_of_what_is_not_in_use_are_free(text: str) -> None:
    read_settings(text)


def test_the_standard_pins_and_those_of_the_example_leave_the_buses_alone() -> None:
    for text in ("", (ROOT / "docs/examples/markcheck.toml").read_text(encoding="utf-8")):
        settings = read_settings(text)
        parts = (asdict(settings.keys), asdict(settings.sound), asdict(settings.panel))
        pins = [value for part in parts for value in part.values() if isinstance(value, int)]
        assert len(pins) == len(set(pins)) == 12
        assert not set(pins) & {0, 1, 2, 3, 7, 8, 9, 10, 11, 14, 15}  # ID EEPROM, I2C1, SPI0, UART


def test_a_bad_file_leaves_the_last_good_one_in_force_and_says_so(tmp_path: Path) -> None:
    file, kept = tmp_path / "markcheck.toml", tmp_path / "last-good.toml"
    file.write_text("[reader]\npower_dbm = 18\n", encoding="utf-8")
    assert load_settings(file, kept)[1] == ""
    file.write_text("[reader]\npower_dbm = 'much'\n", encoding="utf-8")
    settings, remark = load_settings(file, kept)
    assert settings.reader.power_dbm == 18
    assert remark == "markcheck.toml: reader.power_dbm: a number is needed; the last good settings stay in force"
    file.unlink()
    assert load_settings(file, kept)[0] == settings


def test_a_rotten_copy_of_the_last_good_settings_is_written_anew(tmp_path: Path) -> None:
    file, kept = tmp_path / "markcheck.toml", tmp_path / "last-good.toml"
    file.write_text("[reader]\npower_dbm = 18\n", encoding="utf-8")
    kept.write_bytes(b"\xff\xfe")
    assert load_settings(file, kept)[1] == ""
    assert kept.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (MAX_BYTES + 1)])
def test_a_file_that_is_no_text_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "markcheck.toml"
    file.write_bytes(data)
    with pytest.raises(SettingsError, match=r"markcheck\.toml: (not UTF-8 at byte 0|larger than 64 KiB)"):
        load_settings(file)


def test_without_any_file_the_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"markcheck\.toml: cannot be read: No such file"):
        load_settings(tmp_path / "markcheck.toml", tmp_path / "none.toml")
