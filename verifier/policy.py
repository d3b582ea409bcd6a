"""The ages and limits by which a verdict is graded: data with a name and a version, never constants in rules.

And what a device is for, as far as its centre says: the mode in which it opens, and those that it offers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from verifier.errors import PolicyError
from verifier.types import WorkMode
from verifier.verdict import Role, View

MAX_POLICY_BYTES = 64 * 1024


DEFAULT_ROLES = (
    (Role.OFFICER, View.FULL),
    (Role.TECHNICIAN, View.NONE),
    (Role.AUDITOR, View.FULL),
    (Role.INSURER, View.LIMITED),
    (Role.RENTAL, View.LIMITED),
    (Role.GATE, View.LIMITED),
)
ALWAYS_OFFERED = frozenset({WorkMode.ROADSIDE, WorkMode.LOOKUP})
"""Whoever shows a code, and whoever shows none, can be checked with any device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of the decision; the defaults are those of docs/decision.md."""

    name: str = "default"
    version: int = 1
    fresh: timedelta = timedelta(hours=26)  # grade B up to this age of the cache, inclusive
    stale: timedelta = timedelta(hours=168)  # grade C up to this age, inclusive
    watch_stale: timedelta = timedelta(days=7)  # an older watch hit only asks to confirm
    trust_stale: timedelta = timedelta(days=30)  # the proof of a code under an older trust list degrades
    propagation: timedelta = timedelta(hours=24)  # issue to cache, at the latest
    live_code_max_age: timedelta = timedelta(seconds=300)
    clock_skew: timedelta = timedelta(seconds=300)
    lookups_per_hour: int = 100  # typed plates; more are flagged in the record
    roles: tuple[tuple[Role, View], ...] = DEFAULT_ROLES
    mode: WorkMode = WorkMode.ROADSIDE  # in which a device opens, after its start and after a login
    modes: tuple[WorkMode, ...] = tuple(WorkMode)  # that it offers

    @property
    def label(self) -> str:
        """Name and version, as recorded with every verdict."""
        return f"{self.name}/{self.version}"

    def view(self, role: Role) -> View:
        """How much of a verdict this role may see."""
        return dict(self.roles)[role]


# name in the JSON file -> (field, unit)
_AGES = {
    "fresh_h": ("fresh", "hours"),
    "stale_h": ("stale", "hours"),
    "watch_stale_h": ("watch_stale", "hours"),
    "trust_stale_h": ("trust_stale", "hours"),
    "propagation_h": ("propagation", "hours"),
    "live_code_max_age_s": ("live_code_max_age", "seconds"),
    "clock_skew_s": ("clock_skew", "seconds"),
}
# The ages of the first version, for ever: a later one may be missing, because published policies do not have it.
_REQUIRED = frozenset({"fresh_h", "stale_h", "watch_stale_h", "propagation_h", "live_code_max_age_s", "clock_skew_s"})
_MAX_SECONDS = 366 * 86400


def load_policy(data: bytes) -> Policy:
    """Read a policy file; PolicyError names the setting that is wrong.

    JSON with name, version and the ages of the first version; whatever came later may be left out.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise PolicyError(f"policy: longer than {MAX_POLICY_BYTES} bytes")
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise PolicyError("policy: not JSON") from exc
    if not isinstance(raw, dict):
        raise PolicyError("policy: not an object")
    if unknown := sorted(set(raw) - set(_AGES) - {"name", "version", "lookups_per_hour", "roles", "mode", "modes"}):
        raise PolicyError(f"policy: unknown setting {unknown[0][:40]!r}")
    name, version = raw.get("name"), raw.get("version")
    if not (isinstance(name, str) and 1 <= len(name) <= 40 and name.isascii() and name.isprintable()):
        raise PolicyError("policy.name: not a short ASCII text")
    if type(version) is not int or version < 1:
        raise PolicyError("policy.version: not a positive whole number")
    ages: dict[str, Any] = {
        field: _age(raw.get(setting), setting, unit)
        for setting, (field, unit) in _AGES.items()
        if setting in raw or setting in _REQUIRED
    }
    lookups = raw.get("lookups_per_hour", Policy().lookups_per_hour)
    if type(lookups) is not int or lookups < 1:
        raise PolicyError("policy.lookups_per_hour: not a positive whole number")
    roles = _roles(raw["roles"]) if "roles" in raw else DEFAULT_ROLES
    mode, modes = _modes(raw.get("mode", WorkMode.ROADSIDE), raw.get("modes", list(WorkMode)))
    policy = Policy(
        name=name, version=version, lookups_per_hour=lookups, roles=roles, mode=mode, modes=modes, **ages
    )  # fmt: skip
    if policy.fresh > policy.stale:
        raise PolicyError("policy.fresh_h: longer than stale_h")
    return policy


def _age(value: object, setting: str, unit: str) -> timedelta:
    if type(value) is not int or value < 0:
        raise PolicyError(f"policy.{setting}: missing or not a whole number of {unit}")
    if value * (3600 if unit == "hours" else 1) > _MAX_SECONDS:
        raise PolicyError(f"policy.{setting}: more than a year")
    return timedelta(**{unit: value})


def _roles(raw: object) -> tuple[tuple[Role, View], ...]:
    """Every role with its view; one that is limited by default never gets the full view (J5)."""
    if not isinstance(raw, dict) or set(raw) != set(Role):
        raise PolicyError("policy.roles: not an object that names every role")
    roles = []
    for role, usual in DEFAULT_ROLES:
        if raw[role] not in tuple(View):
            raise PolicyError(f"policy.roles.{role}: neither full, limited nor none")
        if raw[role] == View.FULL and usual is not View.FULL:
            raise PolicyError(f"policy.roles.{role}: never full")
        roles.append((role, View(raw[role])))
    return tuple(roles)


def _modes(mode: object, modes: object) -> tuple[WorkMode, tuple[WorkMode, ...]]:
    """The mode in which a device opens, and those that it offers, in their usual order."""
    opens = next((one for one in WorkMode if one == mode), None)
    if opens is None:
        raise PolicyError(f"policy.mode: none of {', '.join(WorkMode)}")
    if not isinstance(modes, list) or not all(one in tuple(WorkMode) for one in modes):
        raise PolicyError(f"policy.modes: not a list of {', '.join(WorkMode)}")
    offered = tuple(one for one in WorkMode if one in modes)
    if missing := sorted({opens, *ALWAYS_OFFERED} - set(offered)):
        raise PolicyError(f"policy.modes: {missing[0]} has to be among them")
    return opens, offered


def dump_policy(policy: Policy) -> bytes:
    """The policy as the file that `load_policy` reads.

    A mode is only named where it is not the usual one: programs from before there were such settings read the rest.
    """
    out: dict[str, object] = {"name": policy.name, "version": policy.version}
    for setting, (field, unit) in _AGES.items():
        out[setting] = int(getattr(policy, field).total_seconds()) // (3600 if unit == "hours" else 1)
    out |= {"lookups_per_hour": policy.lookups_per_hour, "roles": dict(policy.roles)}
    out |= {"mode": policy.mode, "modes": policy.modes}
    assert len(out) == len(fields(policy))  # noqa: S101 - a setting forgotten in _AGES is our own mistake
    for setting in ("mode", "modes"):
        if getattr(policy, setting) == getattr(Policy(), setting):
            del out[setting]
    return json.dumps(out, indent=1).encode() + b"\n"
