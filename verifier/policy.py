"""The ages and limits by which a verdict is graded: data with a name and a version, never constants in rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from verifier.errors import PolicyError

MAX_POLICY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of the decision; the defaults are those of docs/decision.md."""

    name: str = "default"
    version: int = 1
    fresh: timedelta = timedelta(hours=26)  # grade B up to this age of the cache, inclusive
    stale: timedelta = timedelta(hours=168)  # grade C up to this age, inclusive
    watch_stale: timedelta = timedelta(days=7)  # an older watch hit only asks to confirm
    propagation: timedelta = timedelta(hours=24)  # issue to cache, at the latest
    live_code_max_age: timedelta = timedelta(seconds=300)
    clock_skew: timedelta = timedelta(seconds=300)

    @property
    def label(self) -> str:
        """Name and version, as recorded with every verdict."""
        return f"{self.name}/{self.version}"


# name in the JSON file -> (field, unit)
_AGES = {
    "fresh_h": ("fresh", "hours"),
    "stale_h": ("stale", "hours"),
    "watch_stale_h": ("watch_stale", "hours"),
    "propagation_h": ("propagation", "hours"),
    "live_code_max_age_s": ("live_code_max_age", "seconds"),
    "clock_skew_s": ("clock_skew", "seconds"),
}
_MAX_SECONDS = 366 * 86400


def load_policy(data: bytes) -> Policy:
    """Read a policy file: JSON with name, version and all ages; PolicyError names the setting that is wrong."""
    if len(data) > MAX_POLICY_BYTES:
        raise PolicyError(f"policy: longer than {MAX_POLICY_BYTES} bytes")
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise PolicyError("policy: not JSON") from exc
    if not isinstance(raw, dict):
        raise PolicyError("policy: not an object")
    if unknown := sorted(set(raw) - set(_AGES) - {"name", "version"}):
        raise PolicyError(f"policy: unknown setting {unknown[0][:40]!r}")
    name, version = raw.get("name"), raw.get("version")
    if not (isinstance(name, str) and 1 <= len(name) <= 40 and name.isascii() and name.isprintable()):
        raise PolicyError("policy.name: not a short ASCII text")
    if type(version) is not int or version < 1:
        raise PolicyError("policy.version: not a positive whole number")
    ages: dict[str, Any] = {}
    for setting, (field, unit) in _AGES.items():
        value = raw.get(setting)
        if type(value) is not int or value < 0:
            raise PolicyError(f"policy.{setting}: missing or not a whole number of {unit}")
        if value * (3600 if unit == "hours" else 1) > _MAX_SECONDS:
            raise PolicyError(f"policy.{setting}: more than a year")
        ages[field] = timedelta(**{unit: value})
    policy = Policy(name=name, version=version, **ages)
    if policy.fresh > policy.stale:
        raise PolicyError("policy.fresh_h: longer than stale_h")
    return policy


def dump_policy(policy: Policy) -> bytes:
    """The policy as the file that `load_policy` reads."""
    out: dict[str, object] = {"name": policy.name, "version": policy.version}
    for setting, (field, unit) in _AGES.items():
        out[setting] = int(getattr(policy, field).total_seconds()) // (3600 if unit == "hours" else 1)
    assert len(out) == len(fields(policy))  # noqa: S101 - a setting forgotten in _AGES is our own mistake
    return json.dumps(out, indent=1).encode() + b"\n"
