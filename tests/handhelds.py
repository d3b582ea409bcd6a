"""What the tests of a device's identity share: a real status server over TLS, and a device's folder beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from firmware.config import REGION, Home
from firmware.keeper import Keeper, device_client, open_keeper, save_online
from scripts.sandbox.device_ca import DeviceCa, ca_file, make_csr
from tests.status_world import World
from verifier.cache.store import StatusStore
from verifier.clock import system_clock
from verifier.codec.cose import join, protected_header, sig_structure
from verifier.codec.device import TYP_ORDER, WipeOrder, order_payload
from verifier.identity import IdentityFiles
from verifier.net import FolderFetcher
from verifier.sync import SyncClient

PIN = "271828"
NAME = "hand-1"


@dataclass
class Field:
    """A device in its folder, which knows the world's centre."""

    world: World
    home: Home
    run: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.world.port}"

    def code(self, name: str = NAME) -> str:
        return self.world.store.enrolment_code(name, system_clock())

    def keeper(
        self,
        clock: Callable[[], datetime] = system_clock,
        *,
        ca: Path | None = None,
        forget: Callable[[], None] = lambda: None,
    ) -> Keeper:
        files = IdentityFiles(ca or ca_file(self.world.home.folder), self.home.certificate, self.home.device_key)
        return Keeper(self.home, device_client(self.url, files), files, clock, run=self.run, forget=forget)

    def enrolled(self, name: str = NAME) -> Keeper:
        self.home.folder.mkdir(parents=True, exist_ok=True)
        self.home.ca.write_text(self.world.ca.root_pem)
        keeper = self.keeper()
        keeper.enrol(self.code(name))
        save_online(self.home, self.url)
        opened = open_keeper(self.home, system_clock, run=self.run)
        assert opened is not None
        return opened

    def sync(self) -> None:
        authority = self.world.live.authority
        if not authority.publisher.begun:
            authority.publish()
        root, fetcher = self.world.home.root_file.read_bytes(), FolderFetcher(self.world.home.public)
        SyncClient(self.home.cache, fetcher, system_clock, root, REGION, epoch_key=authority.epoch_key).refresh()

    def certified_at(self, began: datetime) -> None:
        """Its certificate is one that the centre issued at this moment."""
        key = load_pem_private_key(self.home.device_key.read_bytes(), None)
        ca = DeviceCa.open(self.world.home.private, self.world.home.folder, lambda: began)
        issued = ca.device_certificate(make_csr(key), NAME)  # type: ignore[arg-type]
        self.world.store.renewed(NAME, issued)
        self.home.certificate.write_text(issued.pem)

    def aged(self, hours: float) -> None:
        """Its certificate was issued so many hours ago."""
        self.certified_at(system_clock() - timedelta(hours=hours))

    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.home.certificate.read_bytes()).serial_number

    def order(self, seq: int, device: str = NAME, key: object = None) -> bytes:
        """A signed order, by the status key or another one."""
        signer = key or self.world.live.status_key()
        order = WipeOrder(
            issuer=signer.entry.issuer, device=device, order_seq=seq, issued_at=system_clock().replace(microsecond=0)
        )
        protected, payload = protected_header(signer.alg, signer.entry.kid, TYP_ORDER), order_payload(order)
        return join(protected, payload, signer.sign(sig_structure(protected, payload)))

    def trust_entries(self) -> bytes:
        with closing(StatusStore(self.home.cache, bytes(32))) as store:
            return store.trust_entries()


def every_byte(folder: Path) -> bytes:
    """What whoever reads the card finds below a folder."""
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
