"""The sandbox's licence repository: vehicles, their credentials, and the events that change them.

At most one credential of a vehicle is active (S7); a serial is never used twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from scripts.sandbox.fleet import IssueReason, Vehicle
from verifier.plates import kinds_of
from verifier.types import Month, Plate, Serial, StatusLetter

# Token Status List values (draft-ietf-oauth-status-list, clause 7); 3 is application specific.
ACTIVE, REVOKED, SUPERSEDED = 0, 1, 3
STATUS_LIST = 1  # number of the one list that the sandbox keeps


class RegistryError(ValueError):
    """An event that the register cannot carry out; the text says why."""


@dataclass(frozen=True, slots=True)
class CredentialEntry:
    """One credential in the repository: its serial and its place in the status list."""

    serial: Serial
    index: int
    plate: Plate


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

    def _issue(self, plate: Plate) -> CredentialEntry:
        index = len(self.states)
        digest = hashlib.blake2b(f"{self._seed}:{index}".encode(), digest_size=12).hexdigest()
        entry = CredentialEntry(Serial(digest), index, plate)
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
        """A passed inspection or a re-issue: new month, new credential, the old one superseded."""
        vehicle = self.vehicle(plate)
        self.vehicles[plate] = replace(
            vehicle,
            valid_until=valid_until,
            status=(vehicle.status - {StatusLetter.OVERDUE}) or frozenset({StatusLetter.NORMAL}),
            issue_reason=reason,
            ecred_issued=True,
        )
        self._retire(plate)
        return self._issue(plate)

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
        """The vehicle gets another plate: its old credential points to the new plate."""
        if new in self.vehicles:
            raise RegistryError("the new plate is taken")
        vehicle = self.vehicle(old)
        entry = self._retire(old)
        self.replated[entry.serial] = new
        del self.vehicles[old], self._current[old]
        self.vehicles[new] = replace(vehicle, plate=new)
        return self._issue(new)

    def _retire(self, plate: Plate) -> CredentialEntry:
        entry = self._current[plate]
        if self.states[entry.index] == ACTIVE:
            self.states[entry.index] = SUPERSEDED
        return entry
