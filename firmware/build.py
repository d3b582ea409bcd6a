"""Puts the parts of a device together. Nothing else constructs them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

from firmware.config import ConfigError, Home, OnlineSettings, load_online
from verifier.audit import AuditLog
from verifier.cache import schema
from verifier.cache.keys import KEY_LENGTH, KeyHasher, load_epoch_key
from verifier.cache.store import StatusStore
from verifier.check import Verifier
from verifier.clock import Clock, Witness, system_clock, system_witness
from verifier.errors import EpochKeyError, FetchError
from verifier.late import LateAnswers, Show, Start
from verifier.link import Ask
from verifier.online import CONNECT_MS, TOTAL_MS, Centre, DeferredPoster, Poster, boottime_ms, in_background
from verifier.recheck import Rechecker, RecheckQueue, Upkeep
from verifier.trusted_time import TrustedTime

SOFTWARE = "markcheck"
EPOCH_KEY_IN_A_FILE = "the epoch key lies in a file beside the data: for demos only"
NO_EPOCH_KEY = "there is no epoch key here: vehicles cannot be looked up in the cache"


@dataclass(frozen=True, slots=True)
class Online:
    """What asks the centre."""

    centre: Centre
    poster: DeferredPoster
    queue: RecheckQueue
    ask: Ask
    verifier: Verifier
    upkeep: Upkeep  # `run` is for a thread of its own

    def prepare(self) -> None:
        """Load the library for it, in the background: that takes longer than an officer waits for an answer."""
        in_background(self._load)

    def _load(self) -> None:
        with suppress(FetchError):  # told by each look-up
            self.poster.prepare()

    def late(self, show: Show, *, start: Start = in_background) -> LateAnswers:
        """The checks of one screen."""
        return LateAnswers(self.verifier, self.centre, show, queue=self.queue, ask=self.ask, start=start)


class Device(NamedTuple):
    """A device's parts, and what somebody should know about them."""

    store: StatusStore
    verifier: Verifier
    warnings: tuple[str, ...]
    online: Online | None = None  # without settings or without an epoch key there is nobody to ask


def software_version() -> str:
    """Name and version, as every audit record carries them."""
    return f"{SOFTWARE} {version(SOFTWARE)}"


def build_device(home: Home, clock: Clock, witness: Witness | None = None) -> Device:
    """The device whose files lie in this home; `witness` as for `trusted_time`."""
    key, warning = epoch_key(home)
    store = _store(home, key)
    verifier = Verifier(
        store, clock=clock, audit=AuditLog(home.audit), software=software_version(),
        time=trusted_time(home, clock, witness),
    )  # fmt: skip
    try:
        settings = load_online(home)
    except ConfigError as exc:
        return Device(store, verifier, (warning, f"{exc}; the centre is not asked"))
    online = None if settings is None or key is None else _online(settings, home, key, verifier, clock)
    return Device(store, verifier, (warning,), online)


def _online(settings: OnlineSettings, home: Home, key: bytes, verifier: Verifier, clock: Clock) -> Online:
    poster = DeferredPoster(lambda: _poster(settings))
    centre = Centre(poster, KeyHasher(key), mode=settings.mode)
    queue = RecheckQueue(home.rechecks)
    upkeep = Upkeep(centre, verifier, Rechecker(queue, centre, verifier, home.audit, clock))
    return Online(centre, poster, queue, settings.ask, verifier, upkeep)


def _poster(settings: OnlineSettings) -> Poster:
    from verifier.online_http import HttpPoster  # noqa: PLC0415 - slow to load, and many devices never need it

    pair = (str(settings.certificate), str(settings.key)) if settings.certificate and settings.key else None
    return HttpPoster(
        settings.url,
        ca_file=str(settings.ca) if settings.ca else None,
        client_certificate=pair,
        monotonic_ms=boottime_ms,
        connect_ms=CONNECT_MS,
        total_ms=TOTAL_MS,
    )


def trusted_time(home: Home, clock: Clock, witness: Witness | None = None) -> TrustedTime:
    """What the device knows of the time. The machine's own counters witness for the machine's own clock only."""
    if witness is None and clock is system_clock:
        witness = system_witness
    return TrustedTime(home.cache / schema.STATE, clock, witness)


def open_store(home: Home) -> tuple[StatusStore, str]:
    """The status cache, with a warning about its key."""
    key, warning = epoch_key(home)
    return _store(home, key), warning


def epoch_key(home: Home) -> tuple[bytes | None, str]:
    """The key under which identities are hashed, None without one, and a warning about it."""
    if not home.epoch_key.exists():
        return None, NO_EPOCH_KEY
    try:
        return load_epoch_key(home.epoch_key), EPOCH_KEY_IN_A_FILE
    except EpochKeyError as exc:
        return None, f"{exc}: vehicles cannot be looked up in the cache"


def _store(home: Home, key: bytes | None) -> StatusStore:
    # No set is made under a key of zeros, so every look-up answers "cannot say".
    return StatusStore(home.cache, bytes(KEY_LENGTH) if key is None else key)
