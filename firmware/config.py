"""Where a device keeps its files, and how it reaches its centre."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from verifier.link import Ask, Mode
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
    def online(self) -> Path:
        """The settings of the online look-up; without this file nothing is ever asked."""
        return self.folder / "online.toml"

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
    try:
        with home.online.open("rb") as file:
            raw: dict[str, Any] = tomllib.loads(file.read(MAX_SETTINGS).decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError("online: cannot be read, or is no TOML") from exc
    for name, value in raw.items():
        if name not in (_REQUIRED, *_FILES, "ask", "mode"):
            raise ConfigError(f"online.{name[:20]!r}: no such setting")
        if not isinstance(value, str):
            raise ConfigError(f"online.{name}: not a text")
    if _REQUIRED not in raw:
        raise ConfigError("online.url: missing")
    if raw["url"].startswith("https:") and (missing := [name for name in _FILES if name not in raw]):
        raise ConfigError(f"online.{missing[0]}: missing")
    files = {name: home.folder / raw[name] for name in _FILES if name in raw}
    return OnlineSettings(
        url=raw["url"],
        ask=_one_of(Ask, raw, "ask", Ask.WHEN_NEEDED),
        mode=_one_of(Mode, raw, "mode", Mode.AUTO),
        **files,
    )


def _one_of(kind: type[E], raw: dict[str, Any], name: str, usual: E) -> E:
    try:
        return kind(raw.get(name, usual))
    except ValueError as exc:
        raise ConfigError(f"online.{name}: none of {', '.join(kind)}") from exc


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """$MARKCHECK_HOME, else a folder of the user's own."""
    if named := environment.get("MARKCHECK_HOME"):
        return Path(named)
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "markcheck"
