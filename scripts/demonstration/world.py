"""The world around the demo's handheld: authority, distribution, status server, and the roads to them.

All of it is real but for the vehicles. The device's folder is made twice: one with the data of now, one with those of
some days ago, as on a device that lay in a drawer.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from firmware.config import REGION, Home
from scripts.demonstration.clock import MovableClock
from scripts.demonstration.road import Fault, Road
from scripts.sandbox.authority import Authority, AuthorityFolder, Progress
from scripts.sandbox.database import sqlite_database
from scripts.sandbox.device_ca import DeviceCa, make_csr, requested_key_hash
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.republish import Republisher
from scripts.sandbox.server import serve
from scripts.sandbox.status_http import serve_https
from scripts.sandbox.status_server import ROUTES, StatusService
from scripts.sandbox.status_store import StatusStore
from verifier.net import HttpFetcher
from verifier.secret_files import write_secret
from verifier.sync import SyncClient

OLD = timedelta(days=5)  # of the data of the device from the drawer: past fresh, not past stale
DEVICE = "demo-handheld"

Happen = Callable[..., None]
"""Records an event by its name and values, and carries it out."""


@dataclass(frozen=True)
class World:
    """What the switches act on. `fresh` and `drawer` are the device's two folders."""

    live: LiveAuthority
    folder: AuthorityFolder
    clock: MovableClock
    republisher: Republisher
    files: Road
    centre: Road
    fresh: Home
    drawer: Home
    kept: Path  # the cache of the drawer as it was found there

    @property
    def authority(self) -> Authority:
        """Register, issuer and publisher."""
        return self.live.authority

    @property
    def source(self) -> str:
        """Where the device fetches its data."""
        return f"http://127.0.0.1:{self.files.port}"

    def happen(self, **event: Any) -> list[str]:
        """Let something happen to a vehicle, and a night pass: a line about what was published.

        RegistryError, PublicationError.
        """
        with self.live.lock:
            record(self.live, self.folder, **event)
            published = self.authority.publish(accept_large=True)
            self.republisher.step()
        return [f"published no. {published.seq}, {published.rows or 0} rows changed"]

    def sync(self) -> None:
        """What the device's timer starts. SyncError."""
        _sync(self.fresh, self.authority, self.files, self.clock)

    def spoil(self, fault: Fault) -> None:
        """Put this fault on both roads."""
        for road in (self.files, self.centre):
            road.choose(fault)

    def refill_drawer(self) -> None:
        """The drawer's device as it was found, whatever it fetched since; nobody may be using it."""
        shutil.rmtree(self.drawer.cache, ignore_errors=True)
        shutil.copytree(self.kept, self.drawer.cache, symlinks=True)


def record(live: LiveAuthority, folder: AuthorityFolder, **event: Any) -> None:
    """Keep an event in the authority's folder, and let it be carried out as if another command had put it there."""
    with live.lock:
        with folder.events_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        live.catch_up()


def _quiet(step: str, done: int, whole: int) -> None:
    pass


@contextmanager
def make_world(
    folder: Path, *, scale: int, seed: int, prepare: Callable[[Authority, Happen], None], progress: Progress = _quiet
) -> Iterator[World]:
    """Make it all anew under this folder, and serve it until the context ends.

    `prepare` is called before the last publication, for what is to be known to the device. OSError, RegistryError,
    PublicationError, SyncError.
    """
    clock = MovableClock()
    clock.ahead = -OLD
    home = AuthorityFolder(folder / "authority")
    live = LiveAuthority(home, clock=clock, make=lambda: home.create(clock=clock, scale=scale, seed=seed))
    with ExitStack() as stack:
        books = stack.enter_context(closing(StatusStore(sqlite_database(home.private / "status.db"))))
        ca = DeviceCa.open(home.private, home.folder, clock)
        service = StatusService(live, books, ca, clock=clock)
        road = stack.enter_context(_served(live))
        fresh, drawer = Home(folder / "device"), Home(folder / "device-from-the-drawer")
        for device in (fresh, drawer):
            _set_up(device, live.authority)
        live.authority.publish(progress)
        _sync(drawer, live.authority, road, clock)
        shutil.copytree(drawer.cache, folder / "drawer", symlinks=True)

        clock.ahead = timedelta(0)
        prepare(live.authority, partial(record, live, home))
        republisher = Republisher(live)
        live.authority.publish(progress)
        _sync(fresh, live.authority, road, clock)
        context = ca.server_context()
        status = stack.enter_context(serve_https(service.respond, ROUTES, context))
        centre = Road(status.port)
        stack.callback(centre.close)
        _enrol((fresh, drawer), books, ca, clock, centre)
        world = World(live, home, clock, republisher, road, centre, fresh, drawer, folder / "drawer")
        stack.enter_context(_kept_current(world))
        yield world


@contextmanager
def _served(live: LiveAuthority) -> Iterator[Road]:
    with serve(live.authority.store) as server:
        road = Road(server.port)
        try:
            yield road
        finally:
            road.close()


def _set_up(device: Home, authority: Authority) -> None:
    """What a device is given by hand."""
    device.folder.mkdir(parents=True)
    device.root.write_bytes(authority.publisher.root_bytes())
    write_secret(device.epoch_key, authority.epoch_key.hex().encode())


def _sync(device: Home, authority: Authority, road: Road, clock: MovableClock) -> None:
    with HttpFetcher(f"http://127.0.0.1:{road.port}") as fetcher:
        root, key = authority.publisher.root_bytes(), authority.epoch_key
        SyncClient(device.cache, fetcher, clock, root, REGION, epoch_key=key).refresh()


def _enrol(folders: Sequence[Home], books: StatusStore, ca: DeviceCa, clock: MovableClock, centre: Road) -> None:
    """One device in two folders: a key of its own, a certificate for it, and the centre's address, which is the road's.

    The centre is asked about every car, so that a switch thrown at the authority counts at the next check.
    """
    key = generate_private_key(SECP256R1())
    csr, now = make_csr(key), clock()
    code = books.enrolment_code(DEVICE, now)
    books.device_of_code(code, requested_key_hash(csr), now)
    made = ca.device_certificate(csr, DEVICE)
    books.enrolled(DEVICE, code, made)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for device in folders:
        write_secret(device.folder / "device-key.pem", secret)
        (device.folder / "device.pem").write_text(made.pem, encoding="ascii")
        (device.folder / "centre-ca.pem").write_text(ca.root_pem, encoding="ascii")
        device.online.write_text(
            f'url = "https://127.0.0.1:{centre.port}"\nca = "centre-ca.pem"\n'
            'certificate = "device.pem"\nkey = "device-key.pem"\nask = "always"\n',
            encoding="ascii",
        )


@contextmanager
def _kept_current(world: World) -> Iterator[None]:
    """Signatures are renewed before they run out, for whoever leaves the demo open for days."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(60):
            with world.live.lock:
                world.republisher.step()

    thread = threading.Thread(target=run, name="republisher", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
