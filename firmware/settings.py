"""The device's one configuration file: TOML into frozen dataclasses, every unit in its name.

A mistake is named by its path in the file. A file that cannot be used leaves the last good one in force, and says so.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from verifier.plates import PROVINCES

MAX_BYTES = 64 * 1024
MAX_LINE = 1000  # characters: the time of a dotted key grows with the square of its length


class SettingsError(Exception):
    """A configuration that cannot be used: where in the file, and what is the matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """Who this device is. `demo` puts the watermark on every page; `switch_off`: what the officer's word ends."""

    name: str = ""
    province: str = "京"
    language: Literal["zh", "en"] = "zh"
    demo: bool = False
    switch_off: Literal["program", "machine"] = "program"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSettings:
    """The panel; `bus` simulated: its glass is a picture in memory."""

    model: Literal["ssd1309", "ssd1306", "sh1106", "ssd1322", "ssd1351"] = "ssd1309"
    bus: Literal["spi", "i2c", "simulated"] = "spi"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """GPIO numbers (BCM); `source` none: keys come from the demo page or the terminal."""

    source: Literal["gpio", "none"] = "gpio"
    up: int = 5
    left: int = 6
    ok: int = 13
    right: int = 19
    down: int = 26
    back: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundSettings:
    """GPIO numbers (BCM) of buzzer, LED and motor."""

    source: Literal["gpio", "none"] = "gpio"
    buzzer: int = 12
    green: int = 23
    red: int = 24
    motor: int = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """Where pictures come from; `path` and `lamp` as in `firmware.cameras`."""

    kind: Literal["picamera2", "uvc", "window", "video", "files", "none"] = "picamera2"
    path: str = ""
    lamp: str = ""
    spare: bool = False  # a second scanner process at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class BarcodeSettings:
    """A barcode engine on a serial port as a second source of codes; no port, no engine."""

    port: str = ""
    baud: int = 9600


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSettings:
    """The UHF reader; no port, no reader. The band is the national one and no setting (GB/T 29768: 920 to 925 MHz).

    `port`: a serial one, or of a gantry that speaks LLRP its HOST or HOST:PORT; `baud` is for serial ones.
    `air`: the air protocol of the tags that it reads; statutory ones speak GB/T 29768, which a gx reader can.
    `scene`: an emulated reader in place of a port, and what comes before it (a scene file).
    """

    port: str = ""
    scene: str = ""
    protocol: Literal["m100", "a0", "gx", "llrp"] = "m100"
    air: Literal["gen2", "gb29768", "gjb7377"] = "gen2"
    baud: int = 115_200
    power_dbm: float = 20.0
    antennas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """Where the signed distribution lies."""

    source: str = ""
    region: str = "national"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficerSettings:
    """Whether somebody must log in before anything is checked, and after how long without a key the device locks."""

    required: bool = False
    lock_minutes: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSettings:
    """Folders; `home` empty: as for the commands. Relative files are looked for beside this file, then in the home."""

    home: str = ""
    sysfs: str = "/sys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    panel: PanelSettings = field(default_factory=PanelSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    sound: SoundSettings = field(default_factory=SoundSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)
    barcode: BarcodeSettings = field(default_factory=BarcodeSettings)
    reader: ReaderSettings = field(default_factory=ReaderSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    officers: OfficerSettings = field(default_factory=OfficerSettings)
    paths: PathSettings = field(default_factory=PathSettings)


# ------------------------------------------------------------------------------------------------- reading


def read_settings(text: str) -> Settings:
    """The settings in a TOML text; SettingsError names the place."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise SettingsError(f"line {number}: longer than {MAX_LINE} characters")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # not TOML, or a number of thousands of digits
        raise SettingsError(f"not TOML: {exc}") from exc
    settings: Settings = _read(Settings, table, "")
    _check(settings)
    return settings


def load_settings(path: Path, last_good: Path | None = None) -> tuple[Settings, str]:
    """The settings in a file, and a remark when it could not be used and the last good one stands in.

    A good file is kept as the last good one. SettingsError when neither can be used.
    """
    try:
        text = _text(path)
        settings = read_settings(text)
    except SettingsError as exc:
        if last_good is None or not last_good.exists():
            raise SettingsError(f"{path.name}: {exc}") from exc
        return read_settings(_text(last_good)), f"{path.name}: {exc}; the last good settings stay in force"
    if last_good is not None:
        _keep(last_good, text)
    return settings, ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SettingsError(f"larger than {MAX_BYTES // 1024} KiB")
        return data.decode()
    except OSError as exc:
        raise SettingsError(f"cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"not UTF-8 at byte {exc.start}") from exc


def _keep(path: Path, text: str) -> None:
    """Replace the copy as a whole; a disk that is full costs the copy and not the program."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _read(kind: type[Any], table: Mapping[str, Any], place: str) -> Any:
    known = {f.name for f in fields(kind)}
    for name in table:
        if name not in known:
            from difflib import get_close_matches  # noqa: PLC0415 - the first picture waits for what is loaded here

            near = get_close_matches(name, known, 1)
            raise SettingsError(f"{place}{_shown(name)}: no such setting{f' ({near[0]}?)' if near else ''}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, place + name) for name, value in table.items()})


def _value(hint: Any, value: Any, place: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise SettingsError(f"{place}: a table is needed ([{place}])")
        return _read(hint, value, f"{place}.")  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint) or isinstance(value, bool):
            raise SettingsError(f"{place}: one of {', '.join(get_args(hint))} is needed")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise SettingsError(f"{place}: {_NAMES[hint]} is needed")
    return value


_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:40])


def _check(settings: Settings) -> None:
    """What a type cannot say."""
    pins = [
        *(getattr(settings.keys, name) for name in ("up", "left", "ok", "right", "down", "back")),
        *(getattr(settings.sound, name) for name in ("buzzer", "green", "red", "motor")),
    ]
    rules = (
        (settings.device.province in tuple(PROVINCES), "device.province: no province of a plate"),
        (all(0 <= pin <= 27 for pin in pins), "keys, sound: GPIO numbers are 0 to 27"),
        (len(set(pins)) == len(pins), "keys, sound: two parts on one GPIO"),
        (0 <= settings.reader.power_dbm <= 33, "reader.power_dbm: 0 to 33"),
        (1 <= settings.reader.antennas <= 8, "reader.antennas: 1 to 8"),
        (
            settings.reader.air == "gen2" or settings.reader.protocol == "gx",
            "reader.air: gx is needed for any but gen2",
        ),
        (_reachable(settings.reader), "reader.port: HOST or HOST:PORT is needed for llrp"),
        (1 <= settings.officers.lock_minutes <= 60, "officers.lock_minutes: 1 to 60"),
    )
    for holds, problem in rules:
        if not holds:
            raise SettingsError(problem)


def _reachable(reader: ReaderSettings) -> bool:
    """Whether the port is one that the protocol can have, as far as its text tells."""
    if reader.protocol != "llrp" or not reader.port:
        return True
    from hw.rfid.llrp import PORT  # noqa: PLC0415 - loads the driver, where there is such a reader
    from hw.rfid.tcp import address_of  # noqa: PLC0415

    try:
        address_of(reader.port, PORT)
    except ValueError:
        return False
    return True
