"""Prepared checks that show what the product tells apart: a code or a plate each, with the verdict to expect.

Used by the demo and by the end-to-end test, so that both speak of the same promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from PIL import Image, ImageDraw

from scripts.sandbox.authority import Authority
from scripts.sandbox.codes import any_qr_picture, qr_picture
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.keys import SigningKey, make_private_key, signing_key
from scripts.sandbox.registry import RegistryError
from verifier.codec.credential import encode
from verifier.types import SHANGHAI, Algorithm, KeyRole, Month, Plate, PresentationMode, StatusLetter
from verifier.verdict import VerdictCode

LIVE, STORED, PRINTED = PresentationMode.LIVE, PresentationMode.STORED, PresentationMode.PRINTED
FIRST_ISSUE = timedelta(days=10)  # before the sync, so that the cache can know of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """One prepared check; `picture` is None when nothing is shown and `plate` None when none was typed."""

    name: str
    title: str
    expect: VerdictCode
    picture: Callable[[], Image.Image] | None = None  # made when it is shown: a live code is made at that moment
    plate: Plate | None = None
    paper: bool | None = None


class Showcase:
    """Chooses vehicles, changes the register before it is published, and prepares the checks after the sync."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._issued = authority.clock() - FIRST_ISSUE
        self._vehicles = _in_order(authority)
        self._used = iter(self._vehicles)
        self._exhibits: list[Exhibit] = []

    def before_publication(self) -> None:
        """Choose the vehicles and let happen to them what the checks will find."""
        registry, month = self._authority.registry, Month.at(self._authority.clock())
        live, stored, printed, overdue, revoked, superseded, stolen, replated, copied, other = (
            self._next() for _ in range(10)
        )
        self._show("live", "Code shown live in the app, vehicle in order", VerdictCode.VALID, live, LIVE)
        self._show("stored", "Code stored in the phone", VerdictCode.VALID, stored, STORED)
        self._show(
            "printed",
            "Code printed on paper, no paper mark in the car",
            VerdictCode.VALID,
            printed,
            PRINTED,
            paper=False,
        )
        registry.lapse(overdue.plate, month.plus(-3))
        self._show("overdue", "Inspection overdue", VerdictCode.EXPIRED, overdue, PRINTED)
        self._show("revoked", "Credential revoked", VerdictCode.REVOKED, revoked, STORED)
        registry.revoke(revoked.plate)
        self._show("superseded", "Old credential, vehicle inspected again", VerdictCode.SUPERSEDED, superseded, PRINTED)
        registry.renew(superseded.plate, month.plus(24))
        registry.set_status(stolen.plate, "C")
        self._show("stolen", "Stolen vehicle with a valid credential", VerdictCode.WANTED, stolen, STORED)
        new_plate = Plate(replated.plate.text[:2] + "88A66", "02")
        self._show(
            "replated", "Old code after a change of plate", VerdictCode.SUPERSEDED, replated, STORED, plate=new_plate
        )
        registry.replate(replated.plate, new_plate)
        self._show("copied", "Code of another car", VerdictCode.MISMATCH, copied, STORED, plate=other.plate)
        self._exhibits.append(
            Exhibit(
                name="not-shown",
                title="Nothing shown, plate typed",
                expect=VerdictCode.VALID,
                plate=other.plate,
                paper=False,
            )
        )

    def after_sync(self) -> list[Exhibit]:
        """All checks, those included that the synced data cannot know of."""
        forged, unknown = self._next(), self._next()
        issuer = self._authority.issuer
        honest = issuer.keys[forged.city.code]
        # A forger has no issuing key: his own key under the real key's id.
        imposter = SigningKey(make_private_key(honest.entry.alg), honest.entry)
        self._signed("forged", "Forged code", VerdictCode.FORGED, forged, imposter)
        stranger = signing_key(
            Algorithm.ES256,
            issuer=unknown.city.code,
            regions=("*",),
            role=KeyRole.CREDENTIAL,
            now=self._authority.clock(),
        )
        self._signed(
            "unknown-key", "Code signed by a key that is not listed", VerdictCode.UNTRUSTED_ISSUER, unknown, stranger
        )
        self._new_vehicle(unknown)
        self._exhibits += [
            Exhibit(
                name="not-a-mark",
                title="A web address in a code",
                expect=VerdictCode.NOT_A_MARK,
                picture=lambda: any_qr_picture("https://www.example.com/?plate=1"),
            ),
            Exhibit(
                name="unreadable",
                title="A code that cannot be read",
                expect=VerdictCode.UNREADABLE,
                picture=lambda: _scratched(qr_picture(self._authority.text(forged.plate, STORED))),
            ),
        ]
        return self._exhibits

    def _next(self) -> Vehicle:
        """A vehicle that no other check uses; RegistryError when the fleet is too small."""
        vehicle = next(self._used, None)
        if vehicle is None:
            raise RegistryError("too few vehicles for the prepared checks: give a larger scale")
        return vehicle

    def _new_vehicle(self, like: Vehicle) -> None:
        vehicle = replace(like, plate=Plate(like.plate.text[:2] + "66A88", "02"), tid=None)
        self._authority.registry.register(vehicle)
        self._exhibits.append(
            self._exhibit(
                "newly-issued",
                "Registered today, not yet in the data",
                VerdictCode.SIGNED_ONLY,
                lambda: self._authority.text(vehicle.plate, STORED),
            )
        )

    def _show(
        self,
        name: str,
        title: str,
        expect: VerdictCode,
        vehicle: Vehicle,
        mode: PresentationMode,
        *,
        plate: Plate | None = None,
        paper: bool | None = None,
    ) -> None:
        credential = self._authority.credential(vehicle.plate, mode, self._issued)
        shown = lambda: self._authority.issuer.text(credential, shown_at=self._authority.clock())  # noqa: E731
        self._exhibits.append(replace(self._exhibit(name, title, expect, shown), plate=plate, paper=paper))

    def _signed(self, name: str, title: str, expect: VerdictCode, vehicle: Vehicle, key: SigningKey) -> None:
        credential = self._authority.credential(vehicle.plate, STORED, self._issued)
        text = encode(self._authority.issuer.sign(credential, key))
        self._exhibits.append(self._exhibit(name, title, expect, lambda: text))

    def _exhibit(self, name: str, title: str, expect: VerdictCode, text: Callable[[], str]) -> Exhibit:
        return Exhibit(name=name, title=title, expect=expect, picture=lambda: qr_picture(text()))


def _in_order(authority: Authority) -> Iterator[Vehicle]:
    """Small cars with nothing against them, one city after the other."""
    today: datetime = authority.clock().astimezone(SHANGHAI)
    return iter(
        [
            vehicle
            for vehicle in authority.registry.vehicles.values()
            if vehicle.plate.kind == "02"
            and vehicle.status == {StatusLetter.NORMAL}
            and vehicle.valid_until > Month.at(today)
            and vehicle.ctp_until > today.date()
            and vehicle.ecred_issued
        ]
    )


def _scratched(picture: Image.Image) -> Image.Image:
    """The code with two of its three finder patterns and much of its middle gone."""
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width // 2, height // 3), fill=200)
    draw.rectangle((0, height // 2, width, height * 3 // 4), fill=90)
    return picture
