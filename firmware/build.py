"""Puts the parts of a device together. Nothing else constructs them."""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

from firmware.config import Home
from verifier.audit import AuditLog
from verifier.cache import schema
from verifier.cache.keys import KEY_LENGTH, load_epoch_key
from verifier.cache.store import StatusStore
from verifier.check import Verifier
from verifier.clock import Clock, Witness, system_clock, system_witness
from verifier.errors import EpochKeyError
from verifier.trusted_time import TrustedTime

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


def build_device(home: Home, clock: Clock, witness: Witness | None = None) -> Device:
    """The device whose files lie in this home; `witness` as for `trusted_time`."""
    store, warning = open_store(home)
    verifier = Verifier(
        store, clock=clock, audit=AuditLog(home.audit), software=software_version(),
        time=trusted_time(home, clock, witness),
    )  # fmt: skip
    return Device(store, verifier, (warning,))


def trusted_time(home: Home, clock: Clock, witness: Witness | None = None) -> TrustedTime:
    """What the device knows of the time. The machine's own counters witness for the machine's own clock only."""
    if witness is None and clock is system_clock:
        witness = system_witness
    return TrustedTime(home.cache / schema.STATE, clock, witness)


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
