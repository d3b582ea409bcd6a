"""Puts the parts of a device together. Nothing else constructs them."""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

from firmware.config import Home
from verifier.audit import AuditLog
from verifier.cache.keys import KEY_LENGTH, load_epoch_key
from verifier.cache.store import StatusStore
from verifier.check import Verifier
from verifier.clock import Clock
from verifier.errors import EpochKeyError

SOFTWARE = "markcheck"
EPOCH_KEY_IN_A_FILE = "the epoch key lies in a file beside the data: for demos only"
NO_EPOCH_KEY = "there is no epoch key here: vehicles cannot be looked up in the cache"


class Device(NamedTuple):
    """A device's parts, and what somebody should know about them."""

    store: StatusStore
    verifier: Verifier
    warnings: tuple[str, ...]


def software_version() -> str:
    """Name and version, as every audit record carries them."""
    return f"{SOFTWARE} {version(SOFTWARE)}"


def build_device(home: Home, clock: Clock) -> Device:
    """The device whose files lie in this home."""
    store, warning = open_store(home)
    verifier = Verifier(store, clock=clock, audit=AuditLog(home.audit), software=software_version())
    return Device(store, verifier, (warning,))


def open_store(home: Home) -> tuple[StatusStore, str]:
    """The status cache, with a warning about its key."""
    warning = NO_EPOCH_KEY
    if home.epoch_key.exists():
        try:
            return StatusStore(home.cache, load_epoch_key(home.epoch_key)), EPOCH_KEY_IN_A_FILE
        except EpochKeyError as exc:
            warning = f"{exc}: vehicles cannot be looked up in the cache"
    # No set is made under this key, so every look-up answers "cannot say".
    return StatusStore(home.cache, bytes(KEY_LENGTH)), warning
