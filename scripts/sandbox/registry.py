"""The sandbox's licence repository: vehicles, their credentials, and the events that change them.

At most one credential of a vehicle is active (S7); a serial is never used twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from scripts.sandbox.fleet import CITIES, MAX_SCALE, City, IssueReason, Vehicle, fleet
from verifier.plates import kinds_of
from verifier.types import Month, Plate, Serial, StatusLetter

# Token Status List values (draft-ietf-oauth-status-list, clause 7); 3 is application specific.
ACTIVE, REVOKED, SUPERSEDED = 0, 1, 3
STATUS_LIST = 1  # number of the one list that the sandbox keeps
_MODEL_KINDS = ("01", "02", "51", "52")  # those of the fleet
_MODELS = MAX_SCALE  # vehicles to look for one of a city and kind among, at most: the rarest are one in 800


class RegistryError(ValueError):
    """An event that the register cannot carry out; the text says why."""


@dataclass(frozen=True, slots=True)
class CredentialEntry:
    """One credential in the repository: its serial and its place in the status list."""

    serial: Serial
    index: int
    plate: Plate
    previous: CredentialEntry | None = field(default=None, compare=False, repr=False)  # of the same vehicle


def regions_of(city: City) -> tuple[str, ...]:
    """The plate prefixes that a city's key may sign: the province alone for a municipality."""
    return (city.prefixes[0][0],) if len(city.prefixes) > 1 else city.prefixes


def city_of(plate_text: str) -> City:
    """The pilot city that issues for this plate; RegistryError when there is none."""
    for city in CITIES:
        if plate_text.startswith(regions_of(city)):
            return city
    raise RegistryError("no pilot city issues for this plate")


class Registry:
    """Vehicles by plate, the credential in force for each, and the state of every credential ever issued."""

    def __init__(self, vehicles: Iterable[Vehicle], seed: int) -> None:
        self._seed = seed
        self.vehicles: dict[Plate, Vehicle] = {}
        self.states = bytearray()  # one status value per credential index
        self.replated: dict[Serial, Plate] = {}
        self._current: dict[Plate, CredentialEntry] = {}
        for vehicle in vehicles:
            self.register(vehicle)

    def vehicle(self, plate: Plate) -> Vehicle:
        """The vehicle with this plate; RegistryError when there is none."""
        if plate not in self.vehicles:
            raise RegistryError("no vehicle with this plate and kind in the sandbox's register")
        return self.vehicles[plate]

    def find(self, plate: Plate) -> Vehicle:
        """The vehicle with this plate, whose kind may be left out where one vehicle alone carries the text."""
        kinds = (plate.kind,) if plate.kind is not None else kinds_of(plate.text)
        found = [p for p in (Plate(plate.text, kind) for kind in kinds) if p in self.vehicles]
        if len(found) > 1:
            raise RegistryError("several vehicles carry this plate text: give the kind")
        return self.vehicle(found[0] if found else plate)

    def credential(self, plate: Plate) -> CredentialEntry:
        """The credential that was issued last for this vehicle."""
        self.vehicle(plate)
        return self._current[plate]

    def credentials(self, plate: Plate) -> Iterator[CredentialEntry]:
        """All credentials of this vehicle, the newest first, those under its earlier plates included."""
        entry: CredentialEntry | None = self.credential(plate)
        while entry is not None:
            yield entry
            entry = entry.previous

    def newcomer(self, plate: Plate, valid_until: Month, day: date) -> Vehicle:
        """A vehicle as it is registered on this day: like those of the fleet in the city that issues for the plate.

        RegistryError for a plate of no pilot city or of a kind that the fleet does not have.
        """
        city = city_of(plate.text)
        if plate.kind not in _MODEL_KINDS:
            raise RegistryError(f"the sandbox registers vehicles of the kinds {', '.join(_MODEL_KINDS)}")
        draw = hashlib.blake2b(f"{self._seed}:{len(self.states)}:{plate}".encode(), digest_size=8)
        models = fleet(_MODELS, int.from_bytes(draw.digest()), day)
        model = next(v for v in models if v.city is city and v.plate.kind == plate.kind)
        return replace(
            model,
            number=len(self.vehicles),
            plate=plate,
            status=frozenset({StatusLetter.NORMAL}),
            valid_until=valid_until,
            ctp_until=day + timedelta(days=365),
            ecred_issued=True,
            issue_reason=IssueReason.REGISTRATION,
        )

    def _issue(self, plate: Plate, previous: CredentialEntry | None = None) -> CredentialEntry:
        index = len(self.states)
        digest = hashlib.blake2b(f"{self._seed}:{index}".encode(), digest_size=12).hexdigest()
        entry = CredentialEntry(Serial(digest), index, plate, previous)
        self.states.append(ACTIVE)
        self._current[plate] = entry
        return entry

    # ----------------------------------------------------------------------------------------- events

    def register(self, vehicle: Vehicle) -> CredentialEntry:
        """A new vehicle, with its first credential."""
        if vehicle.plate in self.vehicles:
            raise RegistryError("the plate is taken")
        self.vehicles[vehicle.plate] = vehicle
        return self._issue(vehicle.plate)

    def revoke(self, plate: Plate) -> CredentialEntry:
        """Withdraw the document; the vehicle's facts stay as they are."""
        entry = self.credential(plate)
        self.states[entry.index] = REVOKED
        return entry

    def renew(self, plate: Plate, valid_until: Month, reason: IssueReason = IssueReason.INSPECTION) -> CredentialEntry:
        """A passed inspection or an exempt vehicle's turn: new month, new credential, the old one superseded."""
        vehicle = self.vehicle(plate)
        self.vehicles[plate] = replace(
            vehicle,
            valid_until=valid_until,
            status=(vehicle.status - {StatusLetter.OVERDUE}) or frozenset({StatusLetter.NORMAL}),
            issue_reason=reason,
            ecred_issued=True,
        )
        return self._issue(plate, self._retire(plate))

    def reissue(self, plate: Plate) -> CredentialEntry:
        """The document anew, on request; the vehicle's facts stay as they are."""
        return self._reissue(replace(self.vehicle(plate), ecred_issued=True))

    def transfer(self, plate: Plate) -> CredentialEntry:
        """Another owner, the same plate: what the owner before has in the phone and on paper is superseded.

        The vehicle's facts stay as they are; a change of owner that brings another plate is a `replate`.
        """
        return self._reissue(replace(self.vehicle(plate), ecred_issued=True), IssueReason.TRANSFER)

    def reissue_city(self, code: str) -> None:
        """A re-issue for a city: none of its documents proves anything any more. What was revoked stays so."""
        for plate, vehicle in self.vehicles.items():
            if vehicle.city.code == code and self.states[self._current[plate].index] == ACTIVE:
                self._reissue(vehicle)

    def _reissue(self, vehicle: Vehicle, reason: IssueReason = IssueReason.REISSUE) -> CredentialEntry:
        self.vehicles[vehicle.plate] = replace(vehicle, issue_reason=reason)
        return self._issue(vehicle.plate, self._retire(vehicle.plate))

    def lost_paper(self, plate: Plate) -> CredentialEntry:
        """The paper is gone: nothing changes in validity (S14), the owner downloads the same credential again.

        A paper in the wrong hands proves nothing for another car; against its misuse stand `revoke` and `reissue`.
        """
        return self.credential(plate)

    def lapse(self, plate: Plate, valid_until: Month) -> None:
        """The inspection month has passed and the register says so."""
        vehicle = self.vehicle(plate)
        self.vehicles[plate] = replace(vehicle, valid_until=valid_until, status=vehicle.status | {StatusLetter.OVERDUE})

    def set_status(self, plate: Plate, letters: str) -> None:
        """Give the vehicle these status letters."""
        try:
            status = frozenset(map(StatusLetter, letters))
        except ValueError as exc:
            raise RegistryError("a status letter that GA/T 16 does not have") from exc
        self.vehicles[plate] = replace(self.vehicle(plate), status=status)

    def replate(self, old: Plate, new: Plate) -> CredentialEntry:
        """The vehicle gets another plate, and moves to the city of that: its old credentials point to the new plate."""
        if new in self.vehicles:
            raise RegistryError("the new plate is taken")
        vehicle = self.vehicle(old)
        entry = self._retire(old)
        # An older picture may still be in the phone: every credential leads to the plate that is on the car now.
        self.replated |= {earlier.serial: new for earlier in self.credentials(old)}
        for earlier in self.credentials(old):
            if earlier.plate == new:
                del self.replated[earlier.serial]  # the vehicle has its first plate back
        del self.vehicles[old], self._current[old]
        city = next((c for c in CITIES if new.text.startswith(regions_of(c))), vehicle.city)
        self.vehicles[new] = replace(vehicle, plate=new, city=city, issue_reason=IssueReason.REISSUE)
        return self._issue(new, entry)

    def _retire(self, plate: Plate) -> CredentialEntry:
        entry = self._current[plate]
        if self.states[entry.index] == ACTIVE:
            self.states[entry.index] = SUPERSEDED
        return entry
