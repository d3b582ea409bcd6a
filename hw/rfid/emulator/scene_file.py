"""Scenes as TOML files; `docs/examples/scene-roadside.toml` shows every table.

A mistake is a `SceneError` that names the place: `fault 2: rate: not a number from 0 to 1`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw.errors import one_line
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.scene import (
    MAX_ANTENNAS,
    AirProtocol,
    Authentication,
    Passage,
    Radio,
    ReaderSetup,
    Scene,
    SceneError,
    Tag,
    lane_scene,
)

MAX_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 100_000  # tags, or passages
_BANKS = ("user", "reserved")
_DAY = 86_400.0

Convert = Callable[[Any], Any]  # a value of the file to one of ours; ValueError says what it should be


def load_scene(path: Path) -> Scene:
    """Read a scene file; SceneError for what is wrong with it, OSError when it cannot be read."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SceneError(f"more than {MAX_BYTES} bytes")
    try:
        return parse_scene(data.decode())
    except UnicodeDecodeError as exc:
        raise SceneError("not UTF-8") from exc


def parse_scene(text: str) -> Scene:
    """The text of a scene file to a scene; SceneError."""
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise SceneError(one_line(f"not TOML: {exc}")) from exc
    top = _convert(tables, "", _TOP)
    setup = {
        "seed": top.get("seed", 1),
        "reader": ReaderSetup(**_convert(top.get("reader", {}), "reader", _READER)),
        "radio": Radio(**_convert(top.get("radio", {}), "radio", _RADIO)),
        "faults": tuple(fault_from(table, f"fault {n}") for n, table in enumerate(top.get("fault", []), 1)),
    }
    tags = _tags(top.get("tag", []))
    passages = [_passage(table, f"pass {n}", tags) for n, table in enumerate(top.get("pass", []), 1)]
    if "traffic" in top:
        passages += _traffic(top["traffic"], setup, tags, passages)
    return Scene(passages=tuple(passages), **setup)


def fault_from(table: Mapping[str, Any], where: str) -> Fault:
    """One fault from its settings; SceneError."""
    values = _convert(table, where, _FAULT)
    if "kind" not in values:
        raise SceneError(f"{where}: kind: missing")
    return Fault(**values)


def fault_from_text(text: str) -> Fault:
    """One fault in short form, `KIND[@SECONDS][,NAME=VALUE...]`, as `bit_flip@2,rate=0.01`; SceneError."""
    head, *settings = text.split(",")
    kind, at, moment = head.partition("@")
    table: dict[str, Any] = {"kind": kind, **({"at_s": _literal(moment)} if at else {})}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise SceneError(one_line(f"fault: {setting!r}: not NAME=VALUE"))
        table[name.strip()] = _literal(value)
    return fault_from(table, "fault")


def _literal(text: str) -> int | float | str:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


# ---------------------------------------------------------------------------------------------- the tables


def _tags(tables: list[Any]) -> dict[str, Tag]:
    tags: dict[str, Tag] = {}
    for number, table in enumerate(tables, 1):
        where = f"tag {number}"
        values = _convert(table, where, _TAG)
        name = values.pop("name", str(number))
        if name in tags:
            raise SceneError(f"{where}: name: stands twice")
        if not {"epc", "tid"} <= set(values):
            raise SceneError(f"{where}: epc and tid are needed")
        try:
            tags[name] = Tag(**values)
        except SceneError as exc:
            raise SceneError(f"{where}: {exc.problem}") from exc
    return tags


def _passage(table: Any, where: str, tags: Mapping[str, Tag]) -> Passage:
    values = _convert(table, where, _PASS)
    name = values.pop("tag", None)
    if name not in tags:
        raise SceneError(f"{where}: tag: no such tag")
    speed_kmh = values.pop("speed_kmh", 0.0)
    return Passage(tag=tags[name], speed_mps=speed_kmh / 3.6, **values)


def _traffic(table: Any, setup: Mapping[str, Any], tags: Mapping[str, Tag], passages: list[Passage]) -> list[Passage]:
    """Every tag that stands in no pass drives by once."""
    standing = {id(passage.tag) for passage in passages}
    moving = [tag for tag in tags.values() if id(tag) not in standing]
    values = _convert(table, "traffic", _TRAFFIC)
    identities = [(tag.tid, tag.epc, tag.user) for tag in moving]
    scene = lane_scene(identities, vehicles=len(moving), seed=setup["seed"], **values)
    return [
        Passage(tag=tag, lane=p.lane, at_s=p.at_s, speed_mps=p.speed_mps, offset_m=p.offset_m)
        for tag, p in zip(moving, scene.passages, strict=True)
    ]


def _convert(table: Any, where: str, spec: Mapping[str, Convert]) -> dict[str, Any]:
    """The settings of a table by name; SceneError for an unknown one and for a wrong value."""
    if not isinstance(table, Mapping):
        raise SceneError(f"{where or 'file'}: not a table")
    prefix = f"{where}: " if where else ""
    values = {}
    for name, value in table.items():
        if name not in spec:
            raise SceneError(one_line(f"{prefix}{name!r}: unknown setting"))
        try:
            values[name] = spec[name](value)
        except ValueError as exc:
            raise SceneError(f"{prefix}{name}: {exc}") from exc
    return values


# ------------------------------------------------------------------------------------------------- values


def _number(low: float, high: float) -> Convert:
    def convert(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:  # NaN is in no range
            raise ValueError(f"not a number from {low:g} to {high:g}")
        return float(value)

    return convert


def _whole(low: int, high: int) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"not a whole number from {low} to {high}")
        return value

    return convert


def _choice(*names: str) -> Convert:
    def convert(value: Any) -> str:
        if type(value) is not str or value not in names:
            raise ValueError("not one of " + ", ".join(names))
        return value

    return convert


def _hex(size: int | None = None) -> Convert:
    def convert(value: Any) -> bytes:
        try:
            data = bytes.fromhex(value)
        except (TypeError, ValueError):
            raise ValueError("not hex") from None
        if size is not None and len(data) != size:
            raise ValueError(f"not {size} bytes of hex")
        return data

    return convert


def _set_of(convert: Convert) -> Convert:
    def convert_all(value: Any) -> frozenset[Any]:
        if type(value) is not list:
            raise ValueError("not a list")
        return frozenset(convert(item) for item in value)

    return convert_all


def _password(value: Any) -> int:
    return int.from_bytes(_hex(4)(value))


def _text(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= 64:
        raise ValueError("not a name of 1 to 64 characters")
    return value


def _yes_no(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not true or false")
    return value


def _entries(value: Any) -> list[Any]:
    if type(value) is not list or len(value) > MAX_ENTRIES:
        raise ValueError(f"not at most {MAX_ENTRIES} tables")
    return value


def _any(value: Any) -> Any:
    return value


_ANTENNA = _whole(1, MAX_ANTENNAS)
_SECONDS = _number(0, 365 * _DAY)
_TOP: dict[str, Convert] = {
    "seed": _whole(0, 2**63 - 1), "reader": _any, "radio": _any, "traffic": _any,
    "tag": _entries, "pass": _entries, "fault": _entries,
}  # fmt: skip
_READER: dict[str, Convert] = {
    "antennas": _ANTENNA, "missing_antennas": _set_of(_ANTENNA), "max_power_dbm": _whole(5, 36),
    "address": _whole(0, 254), "framing": _choice("bb", "aa"), "old_round_end": _yes_no,
    "security_module": _yes_no, "temperature_c": _whole(-40, 120),
}  # fmt: skip
_RADIO: dict[str, Convert] = {
    "zone_m": _number(0.1, 200), "height_m": _number(0.1, 20), "rssi_at_1m_dbm": _number(-100, 20),
    "loss_exponent": _number(0, 8), "side_loss_db_per_m": _number(0, 40), "noise_db": _number(0, 20),
    "sensitivity_dbm": _number(-128, 0), "read_probability": _number(0, 1), "tags_per_s": _number(0.1, 2000),
    "frequency_khz": _whole(840_000, 960_000),
}  # fmt: skip
_TAG: dict[str, Convert] = {
    "name": _text, "epc": _hex(), "tid": _hex(), "user": _hex(),
    "protocol": lambda value: AirProtocol(_choice(*AirProtocol)(value)),
    "access_password": _password, "kill_password": _password, "locked": _set_of(_choice(*_BANKS)),
    "authentication": lambda value: Authentication(_choice(*Authentication)(value)),
}  # fmt: skip
_PASS: dict[str, Convert] = {
    "tag": _text, "lane": _ANTENNA, "at_s": _number(-_DAY, 365 * _DAY), "speed_kmh": _number(0, 300),
    "offset_m": _number(-20, 20), "distance_m": _number(-200, 200), "for_s": _number(0, math.inf),
    "rssi_dbm": _number(-128, 0),
}  # fmt: skip
_TRAFFIC: dict[str, Convert] = {
    "lanes": _ANTENNA, "speed_kmh": _number(1, 300), "headway_s": _number(0.01, 3600), "start_s": _SECONDS,
}  # fmt: skip
_FAULT: dict[str, Convert] = {
    "kind": lambda value: FaultKind(_choice(*FaultKind)(value)),
    "at_s": _SECONDS, "after_frames": _whole(0, 10**9), "for_s": _number(0, math.inf), "count": _whole(1, 10**6),
    "rate": _number(0, 1), "seconds": _number(0, 600), "size": _whole(1, 4096), "antenna": _ANTENNA,
}  # fmt: skip
