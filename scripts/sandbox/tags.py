"""Writing in-car tags: what a personalisation partner of the sandbox authority puts into user bank and EPC."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from scripts.sandbox.fleet import CITIES, City, Vehicle
from scripts.sandbox.keys import SigningKey, load_key, save_keys, signing_key
from scripts.sandbox.registry import STATUS_LIST, CredentialEntry, Registry, RegistryError, regions_of
from verifier.cache.keys import MAX_TID
from verifier.codec.tag import TagCertificate, tc0_epc, tc0_message, tc1_body, tc1_message
from verifier.types import SHANGHAI, Algorithm, KeyRole, Plate

HINT_DIGITS = 3  # hex, of a kid: the shorter of the two hints, that in an EPC
MIN_TID_BYTES = 8  # the shortest that has a serial number: class, maker, model and 32 bits


class PersonalisedTag(NamedTuple):
    """The memory of a finished tag."""

    tid: bytes
    epc: bytes
    user: bytes


def tag_key(city: City, now: datetime, alg: Algorithm = Algorithm.EDDSA) -> SigningKey:
    """A fresh key that signs the tags of a city and nothing else; it stands in the trust list in a role of its own."""
    return signing_key(alg, issuer=city.code, regions=regions_of(city), role=KeyRole.TAG, now=now)


def new_tag_keys(
    now: datetime, cities: Iterable[City] = CITIES, beside: Iterable[SigningKey] = ()
) -> dict[str, SigningKey]:
    """Fresh keys for the tags of these cities by issuer code, none with the hint of another or of one `beside` them.

    A device whose trust list is older, and has only the other key of a hint, would take each lawful tag under the new
    one for a copy: it finds a key, and the signature is not that key's.
    """
    made: dict[str, SigningKey] = {}
    taken = {key.entry.key_id[:HINT_DIGITS] for key in beside}
    for city in cities:
        while (key := tag_key(city, now)).entry.key_id[:HINT_DIGITS] in taken:
            pass  # drawn again: one of 4096 is as good as another
        taken.add(key.entry.key_id[:HINT_DIGITS])
        made[city.code] = key
    return made


def tag_keys(private: Path, begin: datetime) -> dict[str, SigningKey]:
    """Each city's key for tags by issuer code, from the authority's private folder; missing ones are made there.

    `begin` is the moment the authority was made. The entries belong into the trust list.
    """

    def kept(city: City) -> SigningKey:
        return load_key(private, issuer=city.code, regions=regions_of(city), role=KeyRole.TAG, begin=begin)

    missing = [c for c in CITIES if not (private / f"{c.code}-{KeyRole.TAG.name.lower()}.pem").exists()]
    there = [kept(city) for city in CITIES if city not in missing]
    save_keys(private, new_tag_keys(begin, missing, there).values())
    return {city.code: kept(city) for city in CITIES}


def certificate(vehicle: Vehicle, entry: CredentialEntry, issued_at: datetime) -> TagCertificate:
    """What the register says of a vehicle and its newest credential, as a tag carries it."""
    return TagCertificate(
        plate=vehicle.plate,
        valid_until=vehicle.valid_until,
        status_index=entry.index,
        status_list=STATUS_LIST,
        vin=vehicle.vin,
        issued_on=issued_at.astimezone(SHANGHAI).date(),
        credential_id=bytes.fromhex(entry.serial)[:8],
        vehicle_type=vehicle.vehicle_type,
        body_colour=vehicle.body_colour,
    )


def write_tc1(key: SigningKey, tid: bytes, claims: TagCertificate) -> PersonalisedTag:
    """A tag with a 1024-bit user bank, filled up with zeros; ValueError for claims that do not fit."""
    epc = plain_epc(tid)
    body = tc1_body(claims, key.entry.kid)
    return PersonalisedTag(tid, epc, (body + key.sign(tc1_message(tid, epc, body))).ljust(128, b"\0"))


def write_tc0(key: SigningKey, tid: bytes, claims: TagCertificate) -> PersonalisedTag:
    """A tag with a 512-bit user bank: the fields go into its EPC; ValueError for claims that do not fit."""
    epc = tc0_epc(claims, key.entry.kid)
    return PersonalisedTag(tid, epc, key.sign(tc0_message(tid, epc)))


def plain_epc(tid: bytes) -> bytes:
    """A 96-bit EPC that tells nothing about the vehicle and cannot be taken for one with fields."""
    digest = hashlib.sha256(b"VEID-EPC\0" + tid).digest()
    return bytes((digest[0] | 0xF0,)) + digest[1:12]


# ------------------------------------------------------------------------------- which tag is on which vehicle


class TagForm(StrEnum):
    """How a tag's certificate is written."""

    TC1 = "tc1"  # user bank of 1024 bits
    TC0 = "tc0"  # user bank of 512 bits, fields in the EPC


def bind_tag(registry: Registry, plate: Plate, tid: str) -> None:
    """Put a tag on a vehicle without one; RegistryError when the vehicle has one or the tag is another vehicle's."""
    vehicle = registry.vehicle(plate)
    if vehicle.tid is not None:
        raise RegistryError("the vehicle has a tag: replace it, or unbind it first")
    registry.vehicles[plate] = replace(vehicle, tid=_free(registry, tid))


def unbind_tag(registry: Registry, plate: Plate) -> None:
    """Take a vehicle's tag out of use; RegistryError when it has none."""
    vehicle = registry.vehicle(plate)
    if vehicle.tid is None:
        raise RegistryError("the vehicle has no tag")
    registry.vehicles[plate] = replace(vehicle, tid=None)


def replace_tag(registry: Registry, plate: Plate, tid: str) -> None:
    """Another tag in place of the vehicle's; RegistryError, and then it keeps the one it has."""
    vehicle = registry.vehicle(plate)
    if vehicle.tid is None:
        raise RegistryError("the vehicle has no tag: bind one")
    registry.vehicles[plate] = replace(vehicle, tid=_free(registry, tid))


def _free(registry: Registry, tid: str) -> str:
    """The TID as the register writes it; RegistryError when it is none, or some vehicle's already."""
    try:
        written = bytes.fromhex(tid).hex().upper()
    except ValueError as exc:
        raise RegistryError("a TID is written in hex") from exc
    if not MIN_TID_BYTES <= len(written) // 2 <= MAX_TID // 2:
        raise RegistryError(f"a TID has {MIN_TID_BYTES} to {MAX_TID // 2} bytes")
    if any(vehicle.tid == written for vehicle in registry.vehicles.values()):
        raise RegistryError("the tag is on a vehicle already")
    return written


def personalised(
    registry: Registry, keys: Mapping[str, SigningKey], plate: Plate, issued_at: datetime, form: TagForm = TagForm.TC1
) -> PersonalisedTag:
    """The memory of the tag that the register has for a vehicle; RegistryError when it has none."""
    vehicle = registry.vehicle(plate)
    if vehicle.tid is None:
        raise RegistryError("the vehicle has no tag")
    claims = certificate(vehicle, registry.credential(plate), issued_at)
    write = write_tc1 if form is TagForm.TC1 else write_tc0
    try:
        return write(keys[vehicle.city.code], bytes.fromhex(vehicle.tid), claims)
    except ValueError as exc:
        raise RegistryError(str(exc)) from exc
