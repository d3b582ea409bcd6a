"""The device's one configuration file: TOML into frozen dataclasses, every unit in its name.

A mistake is named by its path in the file. A file that cannot be used leaves the last good one in force, and says so.
A few settings the centre may send to a device in service (`CENTRE_SETS`); they stand in a file of their own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from verifier.durable import replace_file
from verifier.plates import PROVINCES

LAST_GOOD, CENTRE_FILE = "last-good.toml", "centre-settings.toml"  # in the device's home
MAX_BYTES = 64 * 1024
MAX_VERSION = (1 << 31) - 1
MAX_LINE = 1000  # characters: the time of a dotted key grows with the square of its length


CENTRE_SETS = frozenset({"device.language", "device.province", "officers.lock_minutes", "reader.power_dbm"})
"""What a centre may set from afar: nothing that says who the device is, where its parts and files are, whom it trusts,
or whether an officer must log in: that neither opens a device to everybody nor locks out those who are on the road."""


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
    """The panel; `bus` simulated: its glass is a picture in memory. `dc` and `reset`: GPIO numbers (BCM), on SPI."""

    model: Literal["ssd1309", "ssd1306", "sh1106", "ssd1322", "ssd1351"] = "ssd1309"
    bus: Literal["spi", "i2c", "simulated"] = "spi"
    dc: int = 24
    reset: int = 25


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
    red: int = 22
    motor: int = 27


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
    """Where the signed distribution lies.

    `region`: national, a province such as yue, or the list of a place such as overdue_chuan_a: its overdue vehicles
    and all wanted ones, for a checkpoint there.
    """

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
    """The whole file. `version` counts them, where somebody does: of two files the higher one holds; 0: not counted."""

    version: int = 0
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
    return _settings_of(_table(text))


def read_centre_settings(data: bytes) -> tuple[Settings, tuple[str, ...]]:
    """A file that a centre sends, and the names of what it sets; SettingsError refuses the whole."""
    table = _table(_decoded(data))
    settings = _settings_of(table)
    sections = ((name, section) for name, section in table.items() if isinstance(section, dict))
    places = tuple(f"{name}.{setting}" for name, section in sections for setting in section)
    if forbidden := sorted(set(places) - CENTRE_SETS):
        raise SettingsError(f"{forbidden[0]}: not for a centre to set")
    if not settings.version:
        raise SettingsError("version: a whole number above 0 is needed")
    return settings, places


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
        _keep(last_good, text.encode())
    return settings, ""


def _text(path: Path) -> str:
    return _decoded(_bytes(path))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise SettingsError(f"cannot be read: {exc.strerror}") from exc


def _decoded(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise SettingsError(f"larger than {MAX_BYTES // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise SettingsError(f"not UTF-8 at byte {exc.start}") from exc


def _table(text: str) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise SettingsError(f"line {number}: longer than {MAX_LINE} characters")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # not TOML, or a number of thousands of digits
        raise SettingsError(f"not TOML: {exc}") from exc


def _settings_of(table: Mapping[str, Any]) -> Settings:
    settings: Settings = _read(Settings, table, "")
    _check(settings)
    return settings


def _keep(path: Path, data: bytes) -> None:
    """Replace the copy as a whole; a disk that is full costs the copy and not the program."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            replace_file(path, data)


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
    if hint is float and type(value) is int and abs(value) <= MAX_WHOLE:  # Python's are of any size
        return float(value)
    if type(value) is not hint:
        raise SettingsError(f"{place}: {_NAMES[hint]} is needed")
    return value


MAX_WHOLE = 1 << 53  # beyond it not every whole number has a floating one
_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:40])


_KEY_NAMES, _SOUND_NAMES = ("up", "left", "ok", "right", "down", "back"), ("buzzer", "green", "red", "motor")
_BUS_PINS = {"spi": range(7, 12), "i2c": range(2, 4), "simulated": range(0)}  # SPI0 with both its selects, I2C1


def _pins(settings: Settings) -> list[tuple[str, int]]:
    """Each pin that the settings name, with its place in the file."""
    return [
        *((f"panel.{name}", getattr(settings.panel, name)) for name in ("dc", "reset")),
        *((f"keys.{name}", getattr(settings.keys, name)) for name in _KEY_NAMES),
        *((f"sound.{name}", getattr(settings.sound, name)) for name in _SOUND_NAMES),
    ]


def _collision(settings: Settings) -> str:
    """Two parts that are in use on one GPIO, "" for none."""
    bus = settings.panel.bus
    in_use = {"panel": bus == "spi", "keys": settings.keys.source == "gpio", "sound": settings.sound.source == "gpio"}
    taken = dict.fromkeys(_BUS_PINS[bus], f"the panel's {bus}")
    for place, pin in _pins(settings):
        if not in_use[place.partition(".")[0]]:
            continue
        if pin in taken:
            return f"{place}: two parts on one GPIO, {pin} is {taken[pin]} too"
        taken[pin] = place
    return ""


def _check(settings: Settings) -> None:
    """What a type cannot say."""
    rules = (
        (0 <= settings.version <= MAX_VERSION, f"version: 0 to {MAX_VERSION}"),
        (settings.device.province in tuple(PROVINCES), "device.province: no province of a plate"),
        (all(0 <= pin <= 27 for _, pin in _pins(settings)), "panel, keys, sound: GPIO numbers are 0 to 27"),
        (settings.panel.dc != 0, "panel.dc: 1 to 27"),  # luma takes 0 for no line
        (0 <= settings.reader.power_dbm <= 33, "reader.power_dbm: 0 to 33"),
        (1 <= settings.reader.antennas <= 8, "reader.antennas: 1 to 8"),
        (
            settings.reader.air == "gen2" or settings.reader.protocol == "gx",
            "reader.air: gx is needed for any but gen2",
        ),
        (_reachable(settings.reader), "reader.port: HOST or HOST:PORT is needed for llrp"),
        (1 <= settings.officers.lock_minutes <= 60, "officers.lock_minutes: 1 to 60"),
    )
    for holds, problem in (*rules, (not (collision := _collision(settings)), collision)):
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


# ---------------------------------------------------------------------------------------- what the centre sends


class CentreSettings:
    """The settings that the centre has sent to this device, in its home (see `verifier.sync.SettingsFile`)."""

    def __init__(self, home: Path) -> None:
        self._path = home / CENTRE_FILE

    @property
    def held(self) -> bytes | None:
        """The file as it came, None without one that can be read."""
        with suppress(SettingsError):
            return _bytes(self._path)
        return None

    @property
    def version(self) -> int:
        """Of the file; 0 without one that can be used."""
        with suppress(SettingsError):
            return read_centre_settings(self.held or b"")[0].version
        return 0

    def take(self, data: bytes) -> str:
        """Keep a signed file for the next start, or refuse the whole: what is to be told, "" for nothing. OSError."""
        held, refused = self.held, "settings of the centre refused, those in force stay: "
        if data == held:
            return ""
        try:
            version = read_centre_settings(data)[0].version
        except SettingsError as exc:
            return f"{refused}{exc}"
        if version < self.version:
            return f"{refused}version {version} is older than {self.version}"
        # One that came before with other contents was altered on the card: what is signed now is right.
        replace_file(self._path, data)
        return f"settings of the centre, version {version}: from the next start they count over older ones"

    def over(self, own: Settings, remark: str) -> tuple[Settings, str]:
        """The settings in force: the device's own and over them the centre's, where these are of a higher version.

        With a remark more where the centre's cannot be used.
        """
        try:
            sent, places = read_centre_settings(_bytes(self._path))
        except SettingsError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                return own, remark
            told = f"{CENTRE_FILE}: {exc}; the device's own settings hold"
            return own, f"{remark}; {told}" if remark else told
        if sent.version <= own.version:
            return own, remark
        merged = replace(own, version=sent.version)
        for section, name in (place.split(".") for place in places):
            changed = replace(getattr(merged, section), **{name: getattr(getattr(sent, section), name)})
            merged = replace(merged, **{section: changed})
        return merged, remark

    def forget(self) -> None:
        """Remove them: the device is given settings anew. OSError."""
        self._path.unlink(missing_ok=True)
