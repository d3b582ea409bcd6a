"""Where a device keeps its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REGION = "national"


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


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """$MARKCHECK_HOME, else a folder of the user's own."""
    if named := environment.get("MARKCHECK_HOME"):
        return Path(named)
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "markcheck"
