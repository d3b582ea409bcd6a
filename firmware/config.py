"""Where a device keeps its files, and how it reaches its centre."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from verifier.link import Ask, Mode
from verifier.record_level import Capture
from verifier.types import Code

E = TypeVar("E", bound=Code)

REGION = "national"
MAX_SETTINGS = 16 * 1024  # bytes


class ConfigError(Exception):
    """A setting that cannot be used; the text begins with its path."""


@dataclass(frozen=True, slots=True)
class Home:
    """One device's folder."""

    folder: Path

    @property
    def cache(self) -> Path:
        """The status cache: generations, state.db, the trust metadata."""
        return self.folder / "cache"

    @property
    def root(self) -> Path:
        """The root metadata that the device was given once."""
        return self.folder / "root.json"

    @property
    def epoch_key(self) -> Path:
        """The key under which identities are hashed. A file of it is for demos only."""
        return self.folder / "epoch.key"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.folder / "audit.jsonl"

    @property
    def audit_key(self) -> Path:
        """The authority's public key, to which the audit log is sealed; without it the log is plain, for demos."""
        return self.folder / "audit-key.pem"

    @property
    def audit_settings(self) -> Path:
        """What the audit log keeps, and for how long."""
        return self.folder / "audit.toml"

    @property
    def audit_sent(self) -> Path:
        """How far the centre has the audit log."""
        return self.folder / "audit-sent.json"

    @property
    def vitals(self) -> Path:
        """How the running program is, as it noted last."""
        return self.folder / "vitals.json"

    @property
    def photos(self) -> Path:
        """Photos of code and plate."""
        return self.folder / "photos"

    @property
    def officers(self) -> Path:
        """Officers with the hashes of their PINs."""
        return self.folder / "officers.json"

    @property
    def lookups(self) -> Path:
        """When plates were typed within the last hour."""
        return self.folder / "lookups.json"

    @property
    def online(self) -> Path:
        """The settings of the online look-up; without this file nothing is ever asked."""
        return self.folder / "online.toml"

    @property
    def ca(self) -> Path:
        """The one CA by which the centre is known."""
        return self.folder / "centre-ca.pem"

    @property
    def certificate(self) -> Path:
        """The device's certificate."""
        return self.folder / "device.pem"

    @property
    def device_key(self) -> Path:
        """The device's private key: made here, and never leaves."""
        return self.folder / "device-key.pem"

    @property
    def wrapped_key(self) -> Path:
        """The epoch key under a PIN, for a reboot during a shift; beside it the tries (`.tries`)."""
        return self.folder / "epoch-key.wrapped"

    @property
    def wiped(self) -> Path:
        """What is kept of the last wipe."""
        return self.folder / "wiped.json"

    @property
    def rechecks(self) -> Path:
        """The checks to look at again when the centre can be asked."""
        return self.folder / "rechecks.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSettings:
    """How the centre is reached: its address, the CA it is known by, this device's certificate and key (PEM files)."""

    url: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    ask: Ask = Ask.WHEN_NEEDED
    mode: Mode = Mode.AUTO


_REQUIRED, _FILES = "url", ("ca", "certificate", "key")


def load_online(home: Home) -> OnlineSettings | None:
    """The settings in online.toml, None without that file; ConfigError. Files are named relative to the folder.

    The three files are left out for a centre on this machine itself only, and named for every other.
    """
    raw = _toml(home.online, "online")
    if raw is None:
        return None
    for name, value in raw.items():
        if name not in (_REQUIRED, *_FILES, "ask", "mode"):
            raise ConfigError(f"online.{name[:20]!r}: no such setting")
        if not isinstance(value, str):
            raise ConfigError(f"online.{name}: not a text")
    if _REQUIRED not in raw:
        raise ConfigError("online.url: missing")
    if raw["url"].lower().startswith("https:") and (missing := [name for name in _FILES if name not in raw]):
        raise ConfigError(f"online.{missing[0]}: missing")
    files = {name: home.folder / raw[name] for name in _FILES if name in raw}
    return OnlineSettings(
        url=raw["url"],
        ask=_one_of(Ask, raw, "ask", Ask.WHEN_NEEDED),
        mode=_one_of(Mode, raw, "mode", Mode.AUTO),
        **files,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What is kept of a check: `usual` of one that found nothing, `stop` of one that did.

    `device` and `place` stand in each record. `retention_days` is for what the centre has acknowledged.
    """

    device: str | None = None
    place: str | None = None
    usual: Capture = Capture.IDENTITIES
    stop: Capture = Capture.FULL
    retention_days: int = 30


_MAX_TEXT = 40  # characters of device and place
_MAX_DAYS = 3650


def load_audit(home: Home) -> AuditSettings:
    """The settings in audit.toml, the usual ones without that file; ConfigError."""
    raw = _toml(home.audit_settings, "audit") or {}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name in ("usual", "stop"):
            values[name] = _one_of(Capture, raw, name, Capture.FULL, "audit")
        elif name == "retention_days":
            if type(value) is not int or not 0 <= value <= _MAX_DAYS:
                raise ConfigError(f"audit.{name}: 0 to {_MAX_DAYS}")
            values[name] = value
        elif name in ("device", "place"):
            if not isinstance(value, str) or not 1 <= len(value) <= _MAX_TEXT or not value.isprintable():
                raise ConfigError(f"audit.{name}: not a short text")
            values[name] = value
        else:
            raise ConfigError(f"audit.{name[:20]!r}: no such setting")
    return AuditSettings(**values)


def _toml(path: Path, name: str) -> dict[str, Any] | None:
    """What a file of settings says, None without it; ConfigError."""
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(MAX_SETTINGS).decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{name}: cannot be read, or is no TOML") from exc


def _one_of(kind: type[E], raw: dict[str, Any], name: str, usual: E, table: str = "online") -> E:
    try:
        return kind(raw.get(name, usual))
    except ValueError as exc:
        raise ConfigError(f"{table}.{name}: none of {', '.join(kind)}") from exc


def file_finder(beside: Path, home: Home) -> Callable[[str], Path]:
    """Where a file is that the settings name, unless by its whole path: in their folder, else in the home."""
    return lambda name: beside / name if (beside / name).exists() else home.folder / name


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """$MARKCHECK_HOME, else a folder of the user's own."""
    if named := environment.get("MARKCHECK_HOME"):
        return Path(named)
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "markcheck"
