"""The update: a signed release made beside the one in use, tried, taken into use on trial, confirmed or left again.

`current` leads to the release in use, `confirmed` to the last that has proven itself; `libexec/release` moves them,
one rename each. Where the two differ, the next boot goes back (docs/decisions/a-release-as-a-target.md).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from firmware.bundle import (
    MAX_BUNDLE,
    RELEASE_TARGET,
    ROOM,
    BundleError,
    Offer,
    check_version,
    fetch,
    read_offer,
    unpack,
)
from hw.power.sysfs import PowerReading
from verifier.clock import Clock
from verifier.durable import replace_file
from verifier.errors import SyncBusyError, VerifierError
from verifier.net import Fetcher
from verifier.repository import NotSignedError, SignedRepository
from verifier.snapshot import check_space
from verifier.sync import free_bytes
from verifier.types import Code

TRIES = 2  # of one bundle: after so many times that it was left again, it is not tried by itself
WATCH_S = 60.0  # of the new program; it is fed a watchdog every 3 s, and ended when that stops for 10 s
LOOK_S = 5.0
LONGEST_S = 1800.0  # for the making of a release on a slow card
SERVICE = "markcheck.service"
TIMERS = "timers.target"  # with those that are new
CONSOLES = "markcheck-console@*.service"  # they run for months, and their release goes with the next update

_NAME = re.compile(r"([0-9][0-9A-Za-z.]*)-[0-9a-f]{12}", re.ASCII)
_MAX_REFUSALS = 100  # lines that are kept


class UpdateError(VerifierError):
    """No update; the release before is in use."""


class Outcome(Code):
    """How an update ended that did not fail."""

    NONE = "NONE"  # nothing is offered
    FRESH = "FRESH"  # what is offered is in use
    UPDATED = "UPDATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """What an update did: the releases by name, before and now."""

    outcome: Outcome
    before: str
    after: str


class Releases:
    """The folder of releases below `tree`, which is the root of the file system."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.folder = tree / "opt" / "markcheck"
        self.root = self.folder / "root.json"
        self.trust = self.folder / "trust"
        self.stage = self.folder / "update"
        self.refused = self.folder / "refused"

    def named(self, link: str) -> str:
        """The release that `current` or `confirmed` leads to; "" without one."""
        try:
            return (self.folder / link).readlink().name
        except OSError:
            return ""

    def path(self, name: str) -> Path:
        """The folder of a release."""
        return self.folder / "releases" / name

    def bundle(self, name: str) -> str:
        """The digest (hex) of the bundle that a release was made from; "" for one that was installed by hand."""
        try:
            return (self.path(name) / "bundle").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""

    def times_refused(self, sha256: str) -> int:
        """How often this bundle was left again, or did not pass its health check."""
        return sum(line.split()[1:2] == [sha256] for line in self._refusals())

    def drop_refused(self, keep: str) -> None:
        """Remove the releases that did not work here, but the one in use."""
        for line in self._refusals():
            name = (line.split()[2:3] or [""])[0].removesuffix(":")
            if version_of(name) and name != keep:
                shutil.rmtree(self.path(name), ignore_errors=True)

    def refuse(self, name: str, why: str, clock: Clock) -> None:
        """Note that this release did not work. OSError."""
        line = f"{clock():%Y-%m-%dT%H:%M:%SZ} {self.bundle(name) or '-'} {name}: {why}\n"
        replace_file(self.refused, "".join([*self._refusals(), line]).encode())

    def _refusals(self) -> list[str]:
        try:
            return self.refused.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-_MAX_REFUSALS:]
        except FileNotFoundError:
            return []

    def sweep_unfinished(self, keep: str) -> None:
        """Remove what a failed update leaves on the card, but the bundle: it need not be fetched again."""
        shutil.rmtree(self.stage / "sources", ignore_errors=True)
        for path in self.path("").glob("*"):
            if path.name != keep and not (path / "complete").exists():
                shutil.rmtree(path, ignore_errors=True)

    def sweep(self, keep: Sequence[str]) -> None:
        """Remove what was staged, and every release but these."""
        shutil.rmtree(self.stage, ignore_errors=True)
        for path in self.path("").glob("*"):
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def version_of(name: str) -> str:
    """The version in a release's name; "" for a name that is none."""
    match = _NAME.fullmatch(name)
    return match[1] if match else ""


def run(words: Sequence[str | os.PathLike[str]], **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of the system, its output kept. UpdateError when it cannot be started or does not end."""
    try:
        return subprocess.run(  # noqa: S603 - our own words
            words, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False, timeout=LONGEST_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UpdateError(f"update: {Path(words[0]).name} {type(exc).__name__}") from exc


class Updater:
    """One device's updates. `options` are further ones for `scripts/install --release-only`.

    `on_step` is told each step around which a power cut could come; `sleep` and `free_space` replace the system's
    in tests.
    """

    def __init__(
        self,
        releases: Releases,
        fetcher: Fetcher,
        clock: Clock,
        *,
        options: Sequence[str] = (),
        on_step: Callable[[str], None] = lambda name: None,
        sleep: Callable[[float], None] = time.sleep,
        free_space: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._releases, self._fetcher, self._clock, self._options = releases, fetcher, clock, options
        self._step, self._sleep, self._free_space = on_step, sleep, free_space

    def offered(self) -> Offer | None:
        """The release that the signed distribution has, None without one.

        SignatureError, ExpiredError, RollbackError, FetchError; BundleError for one without a version; UpdateError on a
        device that was given no root.
        """
        if not self._releases.root.exists():
            raise UpdateError("update: this device was given no root at its installation: scripts/install --trust-root")
        repository = SignedRepository(
            self._releases.trust, self._fetcher, self._releases.root.read_bytes(), self._clock()
        )
        repository.refresh()
        try:
            return read_offer(repository.find(RELEASE_TARGET, MAX_BUNDLE))
        except NotSignedError:
            return None

    def update(self, power: PowerReading, *, again: bool = False) -> Updated:
        """Take what is offered into use; `again` also what was left before. Whatever fails, the release before stays.

        Errors as `offered`; DigestError, BundleError for a bad bundle, NoSpaceError, SyncBusyError while another
        update runs, UpdateError, OSError.
        """
        with self._alone():
            before = self._settled()
            offer = self.offered()
            if offer is None or offer.sha256 == self._releases.bundle(before):
                return Updated(outcome=Outcome.NONE if offer is None else Outcome.FRESH, before=before, after=before)
            self._check(offer, before, power, again=again)
            self._releases.drop_refused(keep=before)
            try:
                name = self._made(offer)
            except BaseException:
                self._releases.sweep_unfinished(keep=before)
                raise
            if name == before:  # it was installed by hand
                replace_file(self._releases.path(name) / "bundle", f"{offer.sha256}\n".encode())
                return Updated(outcome=Outcome.FRESH, before=before, after=before)
            self._check_health(name)
            self._take(name)
            self._releases.sweep(keep=(name, before))
            self._systemctl("start", TIMERS)
            self._systemctl("try-restart", CONSOLES)
            return Updated(outcome=Outcome.UPDATED, before=before, after=name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._releases.folder / "update.lock").open("ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise SyncBusyError("another update is running") from exc
            yield

    def _settled(self) -> str:
        """The release in use, which has proven itself: one left on trial by a run that was cut off is left for it."""
        if not self._releases.named("confirmed"):
            raise UpdateError("update: no release was installed here by scripts/install")
        self._release("back")
        return self._releases.named("current")

    def _check(self, offer: Offer, before: str, power: PowerReading, *, again: bool) -> None:
        """Whether it may be taken here and now, before anything is fetched."""
        check_version(offer, version_of(before))
        if not again and self._releases.times_refused(offer.sha256) >= TRIES:
            raise UpdateError(f"update: release {offer.version} did not work here {TRIES} times: see --again")
        if power.percent is not None and not power.charging:
            raise UpdateError("update: not on a charger")
        check_space(ROOM * offer.length, self._free_space(self._releases.folder))

    def _made(self, offer: Offer) -> str:
        """The offered release as a folder beside the one in use, by its own script; its name."""
        stage = self._releases.stage
        stage.mkdir(exist_ok=True)
        fetch(offer, stage / "bundle.tar.gz", self._fetcher)
        self._step("fetched")
        shutil.rmtree(stage / "sources", ignore_errors=True)
        unpack(stage / "bundle.tar.gz", stage / "sources")
        self._step("unpacked")
        tree = self._releases.tree
        options = [*(["--root", str(tree)] if tree != Path("/") else []), *self._options]
        made = run([stage / "sources/scripts/install", "--release-only", *options], TMPDIR=str(stage))
        name = (made.stdout.splitlines() or [""])[-1]
        if made.returncode:
            raise UpdateError(f"update: the release could not be made: {_last_line(made.stderr)}")
        if version_of(name) != offer.version or not (self._releases.path(name) / "complete").exists():
            raise BundleError("release: not the version that it was signed as")
        if name != self._releases.named("current"):
            replace_file(self._releases.path(name) / "bundle", f"{offer.sha256}\n".encode())
        self._step("made")
        return name

    def _check_health(self, name: str) -> None:
        tried = self._systemctl("start", f"markcheck-health@{name}.service")
        self._step("healthy")
        if tried.returncode:
            self._releases.refuse(name, "health check", self._clock)
            raise UpdateError(f"update: {name} cannot work here: journalctl -u markcheck-health@{name}")

    def _take(self, name: str) -> None:
        """Into use, on trial, and confirmed when its program keeps running; else the one before is in use again."""
        try:
            self._try(name)
        except UpdateError as exc:
            self._back()
            raise UpdateError(f"{exc}; {self._releases.named('current')} is in use") from exc
        except BaseException:
            self._back()
            raise

    def _try(self, name: str) -> None:
        used = self._release("use", name)
        self._step("used")
        if used.returncode:
            raise UpdateError(f"update: {name} could not be taken into use: {_last_line(used.stderr)}")
        self._systemctl("daemon-reload")
        self._step("reloaded")
        if self._systemctl("restart", SERVICE).returncode:
            raise UpdateError(f"update: {name} does not start")
        self._step("restarted")
        self._watch(name)
        self._step("watched")
        if self._release("confirm").returncode or self._releases.named("confirmed") != name:
            raise UpdateError(f"update: {name} could not be confirmed")
        self._step("confirmed")

    def _back(self) -> None:
        with suppress(UpdateError):  # then the next boot does it
            self._release("back")

    def _watch(self, name: str) -> None:
        """UpdateError unless one process is ready and stays: the service manager ends one that feeds no watchdog."""
        first = self._state()
        looks = int(WATCH_S / LOOK_S)
        for _ in range(looks):
            self._sleep(LOOK_S)
            state = self._state()
            if state != first or state.get("ActiveState") != "active":
                raise UpdateError(f"update: {name} starts, and ends again")

    def _state(self) -> dict[str, str]:
        shown = self._systemctl("show", SERVICE, "--property=ActiveState,MainPID,NRestarts").stdout
        return dict(line.partition("=")[::2] for line in shown.splitlines())

    def _release(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The script of the release that has proven itself."""
        script = self._releases.folder / "confirmed/libexec/release"
        tree = self._releases.tree
        return run([script, *words], MARKCHECK_ROOT="" if tree == Path("/") else str(tree))

    def _systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(["systemctl", *words])


def _last_line(text: str) -> str:
    """What a command said last, short and plain."""
    line = (text.strip().splitlines() or ["no word why"])[-1]
    return "".join(char if char.isprintable() else "?" for char in line[:200])
