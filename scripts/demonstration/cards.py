"""Ready-made codes and tags to hold before the demo's handheld: each a car with its plate, and what is shown for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from scripts.demonstration.pictures import Carrier, scene
from scripts.demonstration.world import Happen
from scripts.sandbox.authority import Authority
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.keys import SigningKey, make_private_key, signing_key
from scripts.sandbox.registry import RegistryError
from verifier.codec.credential import encode
from verifier.types import SHANGHAI, Algorithm, Credential, KeyRole, Month, Plate, PresentationMode, StatusLetter
from verifier.wording import Text

LIVE, STORED, PRINTED = PresentationMode.LIVE, PresentationMode.STORED, PresentationMode.PRINTED
ISSUED = timedelta(days=10)  # before the demo, so that the data can know of it
FOREIGN = "https://www.example.com/?plate=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One thing to hold up. `plate` is on the car; `codes` are made when it is held up, and again while it is live."""

    name: str
    title: Text
    plate: Plate | None
    codes: Callable[[], list[tuple[str, Carrier]]]
    live: bool = False
    car: bool = True  # whether switches may change the register's word on this car

    def picture(self) -> bytes:
        """A JPEG of this moment."""
        return scene(self.codes(), self.plate)


class Cards:
    """All of them, by name and in order; made before the last publication, so that the data know their cars."""

    def __init__(self, authority: Authority, happen: Happen) -> None:
        """RegistryError when the fleet is too small."""
        self._authority = authority
        self.issued = authority.clock() - ISSUED
        self._credentials: dict[tuple[Plate, PresentationMode], Credential] = {}
        self._cars = _in_order(authority)
        self.all: dict[str, Card] = {}
        self.before: dict[Plate, tuple[Month, str]] = {}  # month and status letters, before anything happened
        self._make(happen)

    def renewed(self, plate: Plate) -> None:
        """The register has given this car another credential: it is what its owner shows from now on."""
        for known, mode in list(self._credentials):
            if known == plate:
                self._credentials[plate, mode] = self._authority.credential(plate, mode)

    def _make(self, happen: Happen) -> None:
        self._good("live", Text("手机在线出示", "Live on the phone"), LIVE, Carrier.PHONE)
        self._good("stored", Text("手机离线保存", "Stored in the phone"), STORED, Carrier.PHONE)
        self._good("printed", Text("打印纸有折痕", "Printed and creased"), PRINTED, Carrier.CREASED)
        month = Month.at(self._authority.clock())
        overdue = self._good("overdue", Text("逾期未检验", "Inspection overdue"), PRINTED, Carrier.PAPER)
        happen(event="lapse", **named(overdue), until=str(month.plus(-3)))
        revoked = self._good("revoked", Text("凭证已撤销", "Credential revoked"), STORED, Carrier.PHONE)
        happen(event="revoke", **named(revoked))
        stolen = self._good("stolen", Text("被盗抢车辆", "Stolen car"), STORED, Carrier.PHONE)
        happen(event="status", **named(stolen), letters="C")
        old = self._good("superseded", Text("旧凭证", "An old credential"), PRINTED, Carrier.PAPER)
        happen(event="renew", **named(old), until=str(month.plus(24)))
        self._forged()
        self._copied()
        self._unlisted()
        self._two()
        self.all["foreign"] = Card(
            name="foreign", title=Text("网址二维码", "A web address"), plate=None, car=False,
            codes=lambda: [(FOREIGN, Carrier.STICKER)],
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- of each kind

    def _good(self, name: str, title: Text, mode: PresentationMode, carrier: Carrier) -> Plate:
        """A car in order, showing its own credential."""
        vehicle = self._next()
        self._keep(vehicle.plate, mode)
        self.before[vehicle.plate] = vehicle.valid_until, "".join(sorted(vehicle.status))
        self.all[name] = Card(
            name=name, title=title, plate=vehicle.plate, live=mode is LIVE,
            codes=lambda: [(self._text(vehicle.plate, mode), carrier)],
        )  # fmt: skip
        return vehicle.plate

    def _forged(self) -> None:
        """A forger has no issuing key: his own key under the real key's id."""
        vehicle = self._next()
        honest = self._authority.issuer.keys[vehicle.city.code]
        self._signed(
            "forged",
            Text("伪造的凭证", "Forged"),
            vehicle,
            SigningKey(make_private_key(honest.entry.alg), honest.entry),
        )

    def _unlisted(self) -> None:
        vehicle = self._next()
        stranger = signing_key(
            Algorithm.ES256, issuer=vehicle.city.code, regions=("*",), role=KeyRole.CREDENTIAL,
            now=self._authority.clock(),
        )  # fmt: skip
        self._signed("unlisted", Text("密钥不在名单", "Signed by an unlisted key"), vehicle, stranger)

    def _signed(self, name: str, title: Text, vehicle: Vehicle, key: SigningKey) -> None:
        credential = self._authority.credential(vehicle.plate, STORED, self.issued)
        text = encode(self._authority.issuer.sign(credential, key))
        self.all[name] = Card(
            name=name, title=title, plate=vehicle.plate, car=False, codes=lambda: [(text, Carrier.PHONE)]
        )

    def _copied(self) -> None:
        """A good code, held up in another car: the plates tell."""
        self._good("copied", Text("套用他车凭证", "Copied onto another car"), PRINTED, Carrier.PAPER)
        self.all["copied"] = replace(self.all["copied"], plate=self._next().plate, car=False)

    def _two(self) -> None:
        plates = [self._next().plate for _ in range(2)]
        for plate in plates:
            self._keep(plate, STORED)
        self.all["two"] = Card(
            name="two", title=Text("画面中两个码", "Two codes in view"), plate=plates[0], car=False,
            codes=lambda: [(self._text(plate, STORED), Carrier.PHONE) for plate in plates],
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------- their codes

    def _keep(self, plate: Plate, mode: PresentationMode) -> None:
        self._credentials[plate, mode] = self._authority.credential(plate, mode, self.issued)

    def _text(self, plate: Plate, mode: PresentationMode) -> str:
        return self._authority.issuer.text(self._credentials[plate, mode], shown_at=self._authority.clock())

    def _next(self) -> Vehicle:
        vehicle = next(self._cars, None)
        if vehicle is None:
            raise RegistryError("too few vehicles for the demo: give a larger scale")
        return vehicle


def named(plate: Plate) -> dict[str, str]:
    """A vehicle, as an event names it."""
    return {"plate": plate.text, "kind": plate.kind or ""}


def _in_order(authority: Authority) -> Iterator[Vehicle]:
    """Small cars with nothing against them and with a tag, one city after the other."""
    today = authority.clock().astimezone(SHANGHAI)
    for vehicle in list(authority.registry.vehicles.values()):
        if (
            vehicle.plate.kind in ("02", "52")
            and vehicle.status == {StatusLetter.NORMAL}
            and vehicle.valid_until > Month.at(today).plus(1)
            and vehicle.ctp_until > today.date() + timedelta(days=30)
            and vehicle.ecred_issued
            and vehicle.tid is not None
        ):
            yield vehicle
