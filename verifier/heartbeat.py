"""The sign of life: what a device tells its centre of itself, with the head of its audit log (docs/openapi.json).

The running program notes how it is, one note in place of the other; another process sends the newest when it can. There
is no plate in it, no officer and no secret: a word that is none of ours does not get in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from verifier.codec.device import HEARTBEAT_PATH, AuditHead
from verifier.codec.index import MAX_NUMBER
from verifier.durable import replace_file
from verifier.errors import RejectedError
from verifier.online import Poster
from verifier.trusted_time import Doubt
from verifier.types import Code

JSON = "application/json"
MAX_ANSWER = 1024  # bytes
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # of a counter or a part
MAX_COUNTERS, MAX_FAULTS = 80, 20
_LONGEST = 1 << 32  # seconds, as the schema has it
_MAX_NOTE = 16 * 1024  # bytes


class LogWord(Code):
    """What the centre says of the log's head."""

    CONTINUES = "continues"
    BROKEN = "broken"  # it is shorter than it was, or another one
    NOT_TOLD = "not told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How the running program is at a moment of its clock; None for what is not known.

    `counters`: today's verdicts, and how often each part failed since the start. `faults`: the parts that fail now.
    ValueError for what the schema does not take.
    """

    at: datetime
    battery_percent: int | None = None
    charging: bool | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        percent, counts = self.battery_percent, self.counters.values()
        sound = (
            self.at.tzinfo is not None,
            percent is None or (type(percent) is int and 0 <= percent <= 100),
            self.charging is None or type(self.charging) is bool,
            len(self.counters) <= MAX_COUNTERS and len(self.faults) <= MAX_FAULTS,
            all(type(name) is str and NAME.fullmatch(name) for name in (*self.counters, *self.faults)),
            all(type(count) is int and 0 <= count <= MAX_NUMBER for count in counts),
        )
        if not all(sound):
            raise ValueError("vitals: not of the form")


def save_vitals(path: Path, vitals: Vitals) -> None:
    """Note them in place of the ones before. OSError."""
    raw = {
        "at": vitals.at.isoformat(), "percent": vitals.battery_percent, "charging": vitals.charging,
        "counters": dict(vitals.counters), "faults": list(vitals.faults),
    }  # fmt: skip
    replace_file(path, json.dumps(raw).encode() + b"\n")


def load_vitals(path: Path) -> Vitals | None:
    """The newest; None without any that can be read: a sign of life without them is one, too."""
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(_MAX_NOTE))
        return Vitals(
            at=datetime.fromisoformat(raw["at"]), battery_percent=raw["percent"], charging=raw["charging"],
            counters=dict(raw["counters"]), faults=tuple(raw["faults"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life; None for what is not known. `clock` is the device's, and `doubts` why it is not believed."""

    software: str  # the version
    uptime_s: int
    region: str
    seq: int = 0
    hot_seq: int = 0
    data_age_s: int | None = None
    vitals: Vitals | None = None  # of a program that has run here
    clock: datetime | None = None
    doubts: tuple[Doubt, ...] = ()
    audit: AuditHead | None = None

    def to_json(self) -> dict[str, Any]:
        """The body of the request."""
        age, vitals = self.data_age_s, self.vitals
        body: dict[str, Any] = {
            "software": self.software,
            "uptime_s": min(self.uptime_s, _LONGEST),
            "data": {
                "region": self.region, "seq": self.seq, "hot_seq": self.hot_seq,
                "age_s": None if age is None else max(0, min(age, _LONGEST)),
            },
            "battery": {
                "percent": vitals.battery_percent if vitals else None, "charging": vitals.charging if vitals else None,
            },
            "counters": dict(vitals.counters) if vitals else {},
            "program": {"at": _text(vitals.at), "faults": list(vitals.faults)} if vitals else None,
        }  # fmt: skip
        if self.clock is not None:
            body["clock"] = {"at": _text(self.clock), "doubts": [doubt.name.lower() for doubt in self.doubts]}
        if self.audit is not None:
            body["audit"] = {"seq": self.audit.seq, "head": self.audit.head.hex()}
        return body


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def send_heartbeat(poster: Poster, beat: Heartbeat) -> LogWord:
    """Tell it; what the centre says of the log. FetchError."""
    answer = poster.post(HEARTBEAT_PATH, json.dumps(beat.to_json()).encode(), JSON, JSON, MAX_ANSWER)
    try:
        return LogWord(json.loads(answer)["audit"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise RejectedError(HEARTBEAT_PATH, "an answer that says nothing of the log") from exc
