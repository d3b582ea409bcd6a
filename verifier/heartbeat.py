"""The sign of life: what a device tells its centre of itself, with the head of its audit log (docs/openapi.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verifier.codec.device import HEARTBEAT_PATH, AuditHead
from verifier.errors import RejectedError
from verifier.online import Poster
from verifier.types import Code

JSON = "application/json"
MAX_ANSWER = 1024  # bytes
_LONGEST = 1 << 32  # seconds, as the schema has it


class LogWord(Code):
    """What the centre says of the log's head."""

    CONTINUES = "continues"
    BROKEN = "broken"  # it is shorter than it was, or another one
    NOT_TOLD = "not told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life; None for what is not known. `counters` are named in lower case."""

    software: str  # the version
    uptime_s: int
    region: str
    seq: int = 0
    hot_seq: int = 0
    data_age_s: int | None = None
    battery_percent: int | None = None
    charging: bool | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    audit: AuditHead | None = None

    def to_json(self) -> dict[str, Any]:
        """The body of the request."""
        age = self.data_age_s
        body: dict[str, Any] = {
            "software": self.software,
            "uptime_s": min(self.uptime_s, _LONGEST),
            "data": {
                "region": self.region, "seq": self.seq, "hot_seq": self.hot_seq,
                "age_s": None if age is None else max(0, min(age, _LONGEST)),
            },
            "battery": {"percent": self.battery_percent, "charging": self.charging},
            "counters": dict(self.counters),
        }  # fmt: skip
        if self.audit is not None:
            body["audit"] = {"seq": self.audit.seq, "head": self.audit.head.hex()}
        return body


def send_heartbeat(poster: Poster, beat: Heartbeat) -> LogWord:
    """Tell it; what the centre says of the log. FetchError."""
    answer = poster.post(HEARTBEAT_PATH, json.dumps(beat.to_json()).encode(), JSON, JSON, MAX_ANSWER)
    try:
        return LogWord(json.loads(answer)["audit"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise RejectedError(HEARTBEAT_PATH, "an answer that says nothing of the log") from exc
