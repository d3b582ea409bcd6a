"""What a sync tells of itself, and whom it gives the centre's settings. Loads no TUF and no HTTP library."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from verifier.errors import SyncError
from verifier.snapshot import Plan

SyncOutcome = Plan  # what a sync did is the plan that it carried out


class StorageError(SyncError):
    """The card or its file system failed."""


class KeyNeededError(SyncError):
    """Sealed data, and neither a shift nor the centre has given their epoch key."""


class SettingsFile(Protocol):
    """Where a device keeps the settings that its centre publishes; what they say is no matter of the sync."""

    @property
    def held(self) -> bytes | None:
        """The file as it came; None without one."""
        ...

    def take(self, data: bytes) -> str:
        """Keep this signed file, or refuse it: what is to be told, "" for nothing. OSError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """A sync that ended well; `as_of` is the moment that the data in use describe.

    `vehicles` are those of the base, `changed_rows` (of plates and tags) those of all nights since: rows under hashed
    keys do not tell how many vehicles came or went.
    """

    outcome: SyncOutcome
    region: str
    seq_before: int | None  # None when nothing of this region was in use
    seq_after: int
    vehicles: int
    changed_rows: int
    bytes_fetched: int
    requests: int
    seconds: float
    as_of: datetime
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HotReport:
    """A refresh of the hot list that ended well; `fresh` says that the one in use was the current one already."""

    fresh: bool
    region: str
    seq_before: int | None  # None when none was accepted before
    seq_after: int
    rows: int
    bytes_fetched: int
    seconds: float
    as_of: datetime
    next_update: datetime
    notes: tuple[str, ...]
