"""What a device does for itself at its centre: certificate, epoch key, orders. Not for the officer's thread.

`keep` may be called at every occasion: it does what is due, and says what could not be done.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from firmware.config import ConfigError, Home, OnlineSettings, load_online
from verifier.cache import schema
from verifier.cache.keys import KEY_LENGTH, KeyHasher
from verifier.cache.selftest import read_base_meta
from verifier.cache.store import StatusStore
from verifier.check import Verifier
from verifier.clock import Clock
from verifier.durable import replace_file, unfinished
from verifier.epoch_key import (
    EpochKey,
    Moment,
    WrapFiles,
    check_pin,
    fetch_epoch_key,
    held,
    hold,
    is_in_memory,
    memory_file,
    moment,
    unwrap,
    wrap,
)
from verifier.errors import CacheError, EpochKeyError, SyncBusyError, TrustListError, VerifierError
from verifier.identity import Certificate, Client, Identity, IdentityError, IdentityFiles, Why, check_ca
from verifier.link import Ask, Mode
from verifier.online import Centre, boottime_ms
from verifier.recheck import Rechecker, Upkeep
from verifier.secret_files import destroy, read_secret
from verifier.trust import load_trust_list
from verifier.trusted_time import TrustedTime
from verifier.types import OnlineState
from verifier.wipe import OrderError, WipeFiles, Wiper, WipeRecord

OTHER_EPOCH = "the data here are of another epoch than the key: they cannot be used until 'markcheck shift begin'"
ERASED = "this device was erased: enrol it anew, then sync and begin a shift"

DOCKED_AFTER = timedelta(hours=1)  # the age from which a certificate is renewed at the dock, where that costs nothing
KEEP_EVERY_MS = 60_000

MakeClient = Callable[[bool], Client]


def save_online(home: Home, url: str) -> OnlineSettings:
    """Write an online.toml for this address that names the home's own files; ask and mode stay as they are.

    ConfigError for settings that cannot be read, OSError.
    """
    before = load_online(home)
    ask, mode = (Ask.WHEN_NEEDED, Mode.AUTO) if before is None else (before.ask, before.mode)
    named = {"url": url, "ca": home.ca.name, "certificate": home.certificate.name, "key": home.device_key.name}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in {**named, "ask": ask, "mode": mode}.items()]
    replace_file(home.online, "".join(lines).encode())
    return OnlineSettings(
        url=url, ca=home.ca, certificate=home.certificate, key=home.device_key, ask=ask, mode=mode
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ the epoch key's places


def default_run(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder in memory for what must not outlive the power; None where nothing is in memory.

    $MARKCHECK_RUN, whatever it is; else one in the session's or the system's folder for such things.
    """
    if named := environment.get("MARKCHECK_RUN"):
        return Path(named)
    session = environment.get("XDG_RUNTIME_DIR")
    places = (*([Path(session)] if session else []), Path("/run"), Path("/dev/shm"))  # noqa: S108 - see is_in_memory
    fit = (place for place in places if os.access(place, os.W_OK) and is_in_memory(place))
    return next((place / f"markcheck-{os.getuid()}" for place in fit), None)


def wrap_files(home: Home) -> WrapFiles:
    """The wrapped key and its tries."""
    return WrapFiles(home.wrapped_key, home.wrapped_key.with_suffix(".tries"))


def held_file(home: Home, run: Path | None) -> Path | None:
    """Where the key of a shift is held in memory; None where there is no such place."""
    return None if run is None else memory_file(run, home.folder)


def is_of_other_epoch(home: Home, key: bytes) -> bool:
    """Whether the data in use were made under another key; False without data."""
    try:
        meta = read_base_meta(home.cache / schema.CURRENT / schema.BASE)
    except CacheError:
        return False
    return meta.key_check != KeyHasher(key).check_value


# --------------------------------------------------------------------------------------------------- erasing


def wipe_files(home: Home, run: Path | None) -> WipeFiles:
    """All that a device has which is secret or personal. Its root metadata, CA and settings are neither."""
    wrapped, memory, identity = wrap_files(home), held_file(home, run), _identity_files(home)
    keys = [
        *([memory] if memory is not None else []), home.epoch_key, wrapped.wrapped, wrapped.tries,
        *(path for files in identity for path in (files.key, files.next_key)), home.folder / "console-keys",
    ]  # fmt: skip
    queue = [home.rechecks.with_name(home.rechecks.name + more) for more in ("", "-journal")]
    data = [
        *queue, home.rechecks.with_suffix(".bad"), home.audit, home.audit_sent, home.vitals, home.photos, home.lookups,
        home.officers, home.folder / "fault-frames", home.folder / "console-tries.json", home.folder / "log.jsonl",
        home.folder / "log.jsonl.old", home.folder / "export", *(files.certificate for files in identity),
    ]  # fmt: skip
    return WipeFiles(
        record=home.wiped, keys=(*keys, *map(unfinished, keys)), cache=home.cache,
        data=(*data, *map(unfinished, data)),
    )  # fmt: skip


def _identity_files(home: Home) -> list[IdentityFiles]:
    """The home's own, and those that the settings name in their place."""
    own = IdentityFiles(home.ca, home.certificate, home.device_key)
    with suppress(ConfigError):
        named = load_online(home)
        if named is not None and named.ca and named.certificate and named.key:
            files = IdentityFiles(named.ca, named.certificate, named.key)
            return [own] if files == own else [own, files]
    return [own]


def finish_wipe(home: Home, clock: Clock, run: Path | None) -> str:
    """Finish a wipe that was cut off, before anything is used; what to tell about it, "" for nothing. OSError."""
    wiper = Wiper(wipe_files(home, run), clock)
    if wiper.record() is None:
        return ""
    try:
        wiper.resume()
    except (OSError, SyncBusyError) as exc:
        return f"this device is being erased, and that could not be finished: {exc}"
    return "" if _has_keys(home) else ERASED


def wipe_once_more(home: Home, clock: Clock, run: Path | None) -> Callable[[], None]:
    """What a program calls when it has ended: if the device was erased in its lifetime, what it wrote since goes too,
    as a queue that was open or a note of how it is. Nothing goes of a device that was enrolled anew meanwhile, or whose
    wipe of before the program's start only finished it."""
    wiper = Wiper(wipe_files(home, run), clock)

    def last() -> WipeRecord | None:
        record = wiper.record()
        return None if record is None else replace(record, done=True)

    before = last()

    def ended() -> None:
        with suppress(OSError, SyncBusyError):  # the start that follows finishes it
            if last() != before and not _has_keys(home):
                wiper.again()

    return ended


def _has_keys(home: Home) -> bool:
    return home.device_key.exists() or home.epoch_key.exists()


# ------------------------------------------------------------------------------------------------------- keeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one call did: `remarks` are for people, `why` is the reason where the certificate was not renewed."""

    certificate: Certificate | None
    renewed: bool = False
    key_changed: bool = False
    wiped: WipeRecord | None = None
    why: Why | None = None
    remarks: tuple[str, ...] = ()


class Keeper:
    """One device's dealings with its centre, from any thread: one after the other.

    So no shift that ends is given its key back by a request that was on its way; but its end may wait for that.

    `forget` is called when the device is erased, so that a running program drops what it has open.
    """

    def __init__(
        self,
        home: Home,
        make_client: MakeClient,
        files: IdentityFiles,
        clock: Clock,
        *,
        time: TrustedTime | None = None,
        run: Path | None = None,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self.identity = Identity(files, make_client, clock)
        self._lock = threading.RLock()
        self._home, self._clock, self._run = home, clock, run
        self._time = time or TrustedTime(home.cache / schema.STATE, clock)
        self.wiper = Wiper(wipe_files(home, run), clock, forget=forget)

    # --------------------------------------------------------------------------------------------- what is due

    def keep(self, *, at_dock: bool = False, denied: bool = False) -> Kept:
        """Renew when that is due, fetch the key of another epoch when the data need it, obey an order.

        At the dock a certificate is renewed when it is an hour old, and in any case after the centre refused this
        device: the refusal says why. OSError; SyncBusyError while a sync delays a wipe; EpochKeyError of `hold`.
        """
        with self._lock:
            try:
                certificate, renewed = self._renew(at_dock=at_dock, denied=denied)
                changed, remarks = self._follow_epoch()
            except IdentityError as exc:
                wiped, told = self._order(exc)
                return Kept(
                    certificate=self.identity.certificate(), wiped=wiped, why=exc.why, remarks=(str(exc), *told)
                )  # fmt: skip
        return Kept(certificate=certificate, renewed=renewed, key_changed=changed, remarks=remarks)

    def _renew(self, *, at_dock: bool, denied: bool) -> tuple[Certificate | None, bool]:
        certificate = self.identity.certificate()
        if certificate is None:
            return None, False
        due = certificate.not_before + DOCKED_AFTER if at_dock else certificate.renew_from
        if not denied and certificate.not_before <= self._clock() < due:
            return certificate, False
        return self.identity.renew(), True

    def _order(self, refusal: IdentityError) -> tuple[WipeRecord | None, tuple[str, ...]]:
        """Obey the order that came with a refusal, if it is a good one."""
        certificate = self.identity.certificate()
        if refusal.order is None or certificate is None:
            return None, ()
        try:
            with closing(StatusStore(self._home.cache, bytes(KEY_LENGTH))) as store:
                trust = load_trust_list(store.trust_entries())
            return self.wiper.obey(refusal.order, certificate.device, trust), (ERASED,)
        except OrderError as exc:
            return None, (str(exc),)
        except (CacheError, TrustListError):
            return None, ("an order came that cannot be verified: there is no trust list here",)

    def enrol(self, code: str) -> Certificate:
        """As `Identity.enrol`; a key that was wrapped under the device's key before goes with that. OSError."""
        with self._lock:
            certificate = self.identity.enrol(code)
            wrap_files(self._home).destroy()
        return certificate

    # ---------------------------------------------------------------------------------------------- the shift

    def key_is_gone(self) -> bool:
        """Whether no key may be used any more, because its time or the shift is over or the device was erased."""
        return self.held_key() is None and not self._home.epoch_key.exists()

    def begin_shift(self, pin: str | None = None) -> EpochKey:
        """Fetch the key of the present epoch and hold it in memory; with a PIN also wrap it for a reboot.

        IdentityError, with an order obeyed that came with it; EpochKeyError for a poor PIN, before anything is
        fetched, or where nothing in memory can hold it; OSError.
        """
        if pin is not None:
            check_pin(pin)
        with self._lock:
            key = self.fetched_epoch()
            self._hold(key)
            files = wrap_files(self._home)
            files.destroy()
            if pin is not None:
                wrap(files, key, pin, self._device_secret(), self._clock())
        return key

    def unlock(self, pin: str) -> EpochKey:
        """After a reboot: the wrapped key into memory. As `verifier.epoch_key.unwrap`."""
        with self._lock:
            key = unwrap(wrap_files(self._home), pin, self._device_secret(), self.moment())
            self._hold(key)
        return key

    def end_shift(self) -> bool:
        """Destroy the key in memory and the wrapped one; whether there was either. OSError."""
        with self._lock:
            path, files = held_file(self._home, self._run), wrap_files(self._home)
            was_one = files.wrapped.exists() or (path is not None and path.exists())
            files.destroy()
            if path is not None:
                destroy(path)
        return was_one

    def moment(self) -> Moment:
        """The present, by what the device knows of the time."""
        return moment(self._time, self._clock)

    def held_key(self) -> EpochKey | None:
        """The key of the shift, None without one. OSError."""
        path = held_file(self._home, self._run)
        return None if path is None else held(path, self.moment())

    def fetched_epoch(self) -> EpochKey:
        """The key of the present epoch, from the centre. IdentityError, with an order obeyed that came with it."""
        with self._lock:
            try:
                return fetch_epoch_key(self.identity, self._clock())
            except IdentityError as exc:
                self._order(exc)
                raise

    def _hold(self, key: EpochKey) -> None:
        path = held_file(self._home, self._run)
        if path is None:
            raise EpochKeyError("epoch key: there is no file system in memory to hold it (MARKCHECK_RUN)")
        hold(path, key)

    def _device_secret(self) -> bytes:
        secret = read_secret(self.identity.files.key)
        if secret is None:
            raise IdentityError(Why.NOT_ENROLLED)
        return secret

    def _follow_epoch(self) -> tuple[bool, tuple[str, ...]]:
        """During a shift: fetch the key that the data in use need, where it is another one."""
        key = self.held_key()
        if key is None or not is_of_other_epoch(self._home, key.key):
            return False, ()
        fresh = self.fetched_epoch()
        if fresh.key == key.key:
            return False, ("the data here are of another epoch than the centre's: sync first",)
        self._hold(fresh)
        files = wrap_files(self._home)
        had_pin = files.wrapped.exists()
        files.destroy()  # it opens nothing any more
        again = "; 'markcheck shift begin --pin' wraps it again for a reboot" if had_pin else ""
        return True, (f"a new epoch has begun, and its key is here{again}",)


def open_keeper(
    home: Home,
    clock: Clock,
    *,
    time: TrustedTime | None = None,
    run: Path | None = None,
    forget: Callable[[], None] = lambda: None,
) -> Keeper | None:
    """The keeper of a device whose settings name a centre and its files; None without. ConfigError."""
    settings = load_online(home)
    if settings is None or settings.ca is None or settings.certificate is None or settings.key is None:
        return None
    files = IdentityFiles(settings.ca, settings.certificate, settings.key)
    return Keeper(
        home, device_client(settings.url, files), files, clock, time=time, run=run or default_run(), forget=forget
    )


def centre_key(home: Home, clock: Clock, time: TrustedTime) -> bytes | None:
    """The epoch key of now, for one sync of sealed data without a shift; None where the centre gives none.

    It stays in the caller's memory. An order to erase the device that comes with a refusal waits for the sync's end.
    """
    try:
        keeper = open_keeper(home, clock, time=time)
        return None if keeper is None else keeper.fetched_epoch().key
    except (ConfigError, VerifierError, OSError):
        return None  # the sync says that it has no key


def enrol_at(home: Home, url: str, ca: bytes, code: str, clock: Clock, run: Path | None) -> Certificate:
    """Enrol; where there was a centre before, this one takes its place only when that was successful.

    IdentityError, ConfigError, OSError.
    """
    check_ca(ca)
    home.folder.mkdir(parents=True, exist_ok=True)
    first = not home.online.exists()
    known_by = home.ca if first else home.ca.with_name(f"{home.ca.name}.next")
    if first:  # on the card before the code is used up
        settle_on(home, url, ca)
    else:
        replace_file(known_by, ca)
    files = IdentityFiles(known_by, home.certificate, home.device_key)
    try:
        certificate = Keeper(home, device_client(url, files), files, clock, run=run).enrol(code)
    finally:
        if not first:
            known_by.unlink(missing_ok=True)
    if not first:
        settle_on(home, url, ca)
    return certificate


def settle_on(home: Home, url: str, ca: bytes) -> None:
    """Keep this address and this CA as those of the device's centre. ConfigError, OSError."""
    replace_file(home.ca, ca)
    save_online(home, url)


def device_client(url: str, files: IdentityFiles) -> MakeClient:
    """What asks the centre at this address, with the certificate or without."""

    def make(certified: bool) -> Client:
        from verifier.device_http import DeviceClient  # noqa: PLC0415 - slow to load

        pair = (str(files.certificate), str(files.key)) if certified else None
        return DeviceClient(url, ca_file=str(files.ca), client_certificate=pair, monotonic_ms=boottime_ms)

    return make


class DeviceUpkeep(Upkeep):
    """The upkeep of a device with a certificate; `keep` is called each minute, and never in offline mode.

    `changed` is set when the device is to be put together anew: its epoch key is another one or gone.
    """

    def __init__(self, centre: Centre, verifier: Verifier, rechecker: Rechecker, keeper: Keeper) -> None:
        super().__init__(centre, verifier, rechecker)
        self._link, self._keeper = centre, keeper
        self._keep_due = 0
        self.changed = threading.Event()

    def step(self) -> None:
        """What is due now; waits for the network, and asks nobody in offline mode."""
        self.outlive(super().step)  # what re-checks fail of keeps no certificate from being renewed
        link, now = self._link.link, boottime_ms()
        if now < self._keep_due:
            return
        self._keep_due = now + KEEP_EVERY_MS
        with suppress(OSError, VerifierError):  # tried again
            if self._keeper.key_is_gone():
                self.changed.set()
            if link.mode is not Mode.OFFLINE:
                kept = self._keeper.keep(denied=link.reason is OnlineState.DENIED)
                if kept.key_changed or kept.wiped is not None:
                    self.changed.set()
