"""What the register says of identities that come as keyed hashes: the truth behind the online look-up."""

from __future__ import annotations

from datetime import datetime

from scripts.sandbox.authority import EVENTS
from scripts.sandbox.follow import Event, LiveAuthority
from scripts.sandbox.registry import ACTIVE, REVOKED, SUPERSEDED, CredentialEntry
from verifier.cache.keys import CREDENTIAL, PLATE, TAG, VIN, KeyHasher, plate_bytes, serial_bytes, tag_bytes
from verifier.cache.values import to_wide
from verifier.codec.online import AskedId, DocumentWord, IdKind, Record, Row, RowStatus, VinWord
from verifier.codec.status import ListedStatus
from verifier.types import Plate

_STATES = {ACTIVE: ListedStatus.ACTIVE, REVOKED: ListedStatus.REVOKED, SUPERSEDED: ListedStatus.SUPERSEDED}


class Lookup:
    """Finds vehicles and documents of a followed register by the 16-byte hashes of their identities.

    The register is complete for the sandbox: what it does not have is absent. A VIN that stands under several plates
    is unknown: which of them is meant, people must say.
    """

    def __init__(self, live: LiveAuthority) -> None:
        self._live = live
        self._hasher = KeyHasher(live.authority.epoch_key)
        self._plates: dict[
            bytes, Plate
        ] = {}  # every plate that a vehicle had: whether it has it now, the register says
        self._tags: dict[bytes, Plate] = {}
        self._vins: dict[bytes, set[Plate]] = {}  # likewise every plate
        self._documents: dict[bytes, CredentialEntry] = {}
        with live.lock:
            self._learn_all()
            live.listen(self._learn)

    @property
    def key_check(self) -> bytes:
        """What names the epoch key behind the hashes."""
        return self._hasher.check_value

    def rows(self, ids: tuple[AskedId, ...], as_of: datetime) -> tuple[Row, ...]:
        """One row for each identity, all of one moment of the register; RegistryError when it cannot be read."""
        with self._live.lock:
            self._live.catch_up()
            return tuple(self._row(asked, as_of) for asked in ids)

    def plate(self, asked: AskedId) -> Plate | None:
        """The plate of the vehicle that an identity belongs to, for who works through the reports."""
        with self._live.lock:
            if asked.kind is IdKind.CREDENTIAL:
                entry = self._documents.get(asked.key)
                return None if entry is None else self._live.authority.registry.replated.get(entry.serial, entry.plate)
            if asked.kind is IdKind.VIN:
                return next(iter(self._with_vin(asked.key)), None)
            return self._plates.get(asked.key) if asked.kind is IdKind.PLATE else self._tagged(asked.key)

    def _row(self, asked: AskedId, as_of: datetime) -> Row:
        record: Record | None
        if asked.kind is IdKind.CREDENTIAL:
            record = self._word(self._documents.get(asked.key))
        elif asked.kind is IdKind.VIN:
            plates = self._with_vin(asked.key)
            if len(plates) > 1:
                return Row(status=RowStatus.UNKNOWN, as_of=as_of)
            record = self._vin_word(plates[0]) if plates else None
        else:
            record = self._wide(self._plates.get(asked.key) if asked.kind is IdKind.PLATE else self._tagged(asked.key))
        status = RowStatus.ABSENT if record is None else RowStatus.FOUND
        return Row(status=status, as_of=as_of, record=record)

    def _with_vin(self, key: bytes) -> list[Plate]:
        """The plates of the vehicles that have this VIN now."""
        registry = self._live.authority.registry
        had = [registry.vehicles.get(plate) for plate in self._vins.get(key, ())]
        return [v.plate for v in had if v is not None and self._hasher.digest(VIN, v.vin.encode()) == key]

    def _vin_word(self, plate: Plate) -> VinWord:
        vehicle = self._live.authority.registry.vehicles[plate]
        return VinWord(self._hasher.digest(PLATE, plate_bytes(plate)), to_wide(vehicle.record()))

    def _tagged(self, key: bytes) -> Plate | None:
        """The plate of the vehicle that has this tag now; one that was taken off it is nobody's."""
        plate = self._tags.get(key)
        vehicle = None if plate is None else self._live.authority.registry.vehicles.get(plate)
        if vehicle is None or vehicle.tid is None or self._hasher.digest(TAG, tag_bytes(vehicle.tid)) != key:
            return None
        return plate

    def _wide(self, plate: Plate | None) -> int | None:
        vehicle = None if plate is None else self._live.authority.registry.vehicles.get(plate)
        return None if vehicle is None else to_wide(vehicle.record())

    def _word(self, entry: CredentialEntry | None) -> DocumentWord | None:
        if entry is None:
            return None
        registry = self._live.authority.registry
        state = _STATES[registry.states[entry.index]]
        moved = registry.replated.get(entry.serial) if state is ListedStatus.SUPERSEDED else None
        return DocumentWord(state, None if moved is None else self._hasher.digest(PLATE, plate_bytes(moved)))

    # --------------------------------------------------------------------------------------------- the hashes

    def _learn(self, event: Event) -> None:
        """An event changes the identities of the vehicle it names; one with a key, those of a whole city."""
        if event["event"] not in EVENTS:
            self._learn_all()
            return
        named = [Plate(event["plate"], event["kind"])]
        if "new_plate" in event:
            named.append(Plate(event["new_plate"], event["new_kind"]))
        for plate in named:
            self._learn_vehicle(plate)

    def _learn_all(self) -> None:
        for plate in self._live.authority.registry.vehicles:
            self._learn_vehicle(plate)

    def _learn_vehicle(self, plate: Plate) -> None:
        registry = self._live.authority.registry
        vehicle = registry.vehicles.get(plate)
        if vehicle is None:
            return  # it has another plate now, under which it is learnt
        self._plates[self._hasher.digest(PLATE, plate_bytes(plate))] = plate
        self._vins.setdefault(self._hasher.digest(VIN, vehicle.vin.encode()), set()).add(plate)
        if vehicle.tid is not None:
            self._tags[self._hasher.digest(TAG, tag_bytes(vehicle.tid))] = plate
        for entry in registry.credentials(plate):
            self._documents[self._hasher.digest(CREDENTIAL, serial_bytes(entry.serial))] = entry
