"""Puts the parts of a device together. Nothing else constructs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from firmware.config import ConfigError, Home, OnlineSettings, load_audit, load_online
from firmware.keeper import (
    OTHER_EPOCH,
    DeviceUpkeep,
    Keeper,
    default_run,
    finish_wipe,
    held_file,
    is_of_other_epoch,
    open_keeper,
)
from verifier.audit import AuditLog, CheckContext, NoAuditLog, RecordLog
from verifier.cache import schema
from verifier.cache.keys import KEY_LENGTH, KeyHasher, load_epoch_key
from verifier.cache.store import StatusStore
from verifier.check import Verifier
from verifier.clock import Clock, Witness, system_clock, system_witness
from verifier.epoch_key import held, moment
from verifier.errors import AuditError, EpochKeyError, FetchError
from verifier.hot_follow import HintingPoster
from verifier.identity import Client, Identity, IdentityError, IdentityFiles, Why
from verifier.late import LateAnswers, Show, Start
from verifier.link import Ask
from verifier.lookups import LookupCount, Lookups
from verifier.online import CONNECT_MS, TOTAL_MS, Centre, DeferredPoster, Poster, boottime_ms, in_background
from verifier.recheck import Rechecker, Upkeep
from verifier.recheck_queue import RecheckQueue
from verifier.seal import load_audit_key
from verifier.trusted_time import TrustedTime

SOFTWARE = "markcheck"
PLAIN_LOG = "the audit log is not sealed, and whoever has this device can read it: for demos only"
EPOCH_KEY_IN_A_FILE = "the epoch key lies in a file beside the data: for demos only"
NO_EPOCH_KEY = "there is no epoch key here: vehicles cannot be looked up in the cache"
KEY_IS_WRAPPED = "the epoch key is locked: 'markcheck shift unlock' opens it with the PIN"


@dataclass(frozen=True, slots=True)
class Online:
    """What asks the centre."""

    centre: Centre
    poster: DeferredPoster
    queue: RecheckQueue
    ask: Ask
    verifier: Verifier
    upkeep: Upkeep  # `run` is for a thread of its own
    rechecker: Rechecker
    keeper: Keeper | None = None  # without a certificate and its CA there is nothing to keep

    @property
    def changed(self) -> threading.Event | None:
        """Set when the device is to be put together anew; None without a keeper, which nobody tells."""
        return self.upkeep.changed if isinstance(self.upkeep, DeviceUpkeep) else None

    def prepare(self) -> None:
        """Load the library for it, in the background: that takes longer than an officer waits for an answer."""
        in_background(self._load)

    def _load(self) -> None:
        with suppress(FetchError):  # told by each look-up
            self.poster.prepare()

    def late(self, show: Show, *, start: Start = in_background, missed: Show = lambda result: None) -> LateAnswers:
        """The checks of one screen; see there."""
        return LateAnswers(
            self.verifier, self.centre, show, queue=self.queue, ask=self.ask, start=start, missed=missed
        )  # fmt: skip


class Device(NamedTuple):
    """A device's parts, and what somebody should know about them."""

    store: StatusStore
    verifier: Verifier
    warnings: tuple[str, ...]
    online: Online | None = None  # without settings or without an epoch key there is nobody to ask


def software_version() -> str:
    """Name and version, as every audit record carries them."""
    return f"{SOFTWARE} {version(SOFTWARE)}"


def build_device(
    home: Home,
    clock: Clock,
    witness: Witness | None = None,
    *,
    run: Path | None = None,
    hot_hint: Callable[[int], None] | None = None,
    context: Callable[[], CheckContext] | None = None,
    counted: Callable[[LookupCount], None] = lambda count: None,
) -> Device:
    """The device whose files lie in this home; `witness` as for `trusted_time`, `run` as for `epoch_key`.

    `context` says who checks, as each record has it; by default the device alone is known. `counted` hears of each
    typed plate, in the thread of its check.
    A wipe that was cut off is finished first. `hot_hint` is told the hot list's number in each answer of the centre.
    """
    run = run or default_run()
    erased = finish_wipe(home, clock, run)
    time = trusted_time(home, clock, witness)
    key, warning = epoch_key(home, clock, time, run)
    other = OTHER_EPOCH if key is not None and is_of_other_epoch(home, key) else ""
    warnings = tuple(text for text in (erased, warning, other) if text)
    store = _store(home, key)
    audit, told = audit_log(home, clock)
    warnings = (*warnings, *told)
    verifier = Verifier(
        store, clock=clock, audit=audit, software=software_version(), time=time,
        context=context or device_context(home, clock), lookups=Lookups(home.lookups, counted),
    )  # fmt: skip
    try:
        settings = load_online(home)
        keeper = open_keeper(home, clock, time=time, run=run, forget=store.close)
    except ConfigError as exc:
        return Device(store, verifier, (*warnings, f"{exc}; the centre is not asked"))
    if settings is None or key is None:
        return Device(store, verifier, warnings)
    return Device(store, verifier, warnings, _online(settings, home, key, verifier, clock, time, keeper, hot_hint))


def _online(
    settings: OnlineSettings,
    home: Home,
    key: bytes,
    verifier: Verifier,
    clock: Clock,
    time: TrustedTime,
    keeper: Keeper | None,
    hot_hint: Callable[[int], None] | None,
) -> Online:
    poster = DeferredPoster(lambda: _poster(settings))
    asked = poster if hot_hint is None else HintingPoster(poster, hot_hint)
    centre = Centre(asked, KeyHasher(key), mode=settings.mode)
    queue = RecheckQueue(home.rechecks, key)
    rechecker = Rechecker(queue, centre, verifier, clock, time)
    if keeper is None:
        upkeep = Upkeep(centre, verifier, rechecker)
    else:
        upkeep = DeviceUpkeep(centre, verifier, rechecker, keeper)
    return Online(centre, poster, queue, settings.ask, verifier, upkeep, rechecker, keeper)


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


def audit_log(home: Home, clock: Clock) -> tuple[RecordLog, tuple[str, ...]]:
    """The audit log with warnings about it. One whose key or settings cannot be used keeps nothing, and says so."""
    try:
        settings = load_audit(home)
        key = load_audit_key(home.audit_key) if home.audit_key.exists() else None
    except (ConfigError, AuditError) as exc:
        return NoAuditLog(str(exc)), (f"{exc}: no check is recorded",)
    log = AuditLog(home.audit, key=key, clock=clock, usual=settings.usual, stop=settings.stop)
    return log, () if key is not None else (PLAIN_LOG,)


def device_context(home: Home, clock: Clock) -> Callable[[], CheckContext]:
    """Device and place as the settings name them; a device with a certificate is called as that says."""
    try:
        settings = load_audit(home)
    except ConfigError:
        return CheckContext  # then nothing is recorded, and that is told
    identity = Identity(IdentityFiles(home.ca, home.certificate, home.device_key), _nobody_to_ask, clock)
    certificate = None
    if settings.device is None:
        with suppress(OSError):  # a device without a name checks all the same
            certificate = identity.certificate()
    known = CheckContext(device=certificate.device if certificate else settings.device, place=settings.place)
    return lambda: known


def _nobody_to_ask(certified: bool) -> Client:
    del certified
    raise IdentityError(Why.UNREACHABLE)


def trusted_time(home: Home, clock: Clock, witness: Witness | None = None) -> TrustedTime:
    """What the device knows of the time. The machine's own counters witness for the machine's own clock only."""
    if witness is None and clock is system_clock:
        witness = system_witness
    return TrustedTime(home.cache / schema.STATE, clock, witness)


def open_store(home: Home) -> tuple[StatusStore, str]:
    """The status cache, with a warning about its key."""
    key, warning = epoch_key(home)
    return _store(home, key), warning


def epoch_key(
    home: Home, clock: Clock = system_clock, time: TrustedTime | None = None, run: Path | None = None
) -> tuple[bytes | None, str]:
    """The key under which identities are hashed, None without one, and a warning about it ("" for none).

    That of the shift, which is held in memory below `run` (by default where the commands hold it); else the file.
    """
    path, key = held_file(home, run or default_run()), None
    with suppress(OSError):  # memory that cannot be read is no key
        key = None if path is None else held(path, moment(time or trusted_time(home, clock), clock))
    if key is not None:
        return key.key, ""
    if not home.epoch_key.exists():
        return None, KEY_IS_WRAPPED if home.wrapped_key.exists() else NO_EPOCH_KEY
    try:
        return load_epoch_key(home.epoch_key), EPOCH_KEY_IN_A_FILE
    except EpochKeyError as exc:
        return None, f"{exc}: vehicles cannot be looked up in the cache"


def _store(home: Home, key: bytes | None) -> StatusStore:
    # No set is made under a key of zeros, so every look-up answers "cannot say".
    return StatusStore(home.cache, bytes(KEY_LENGTH) if key is None else key)
