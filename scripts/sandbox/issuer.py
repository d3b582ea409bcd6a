"""Issuing credentials: claims from the register, signed with the key of the vehicle's city."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from scripts.sandbox.fleet import CITIES, City, Vehicle
from scripts.sandbox.keys import SigningKey, signing_key
from scripts.sandbox.registry import STATUS_LIST, CredentialEntry
from verifier.codec import cose
from verifier.codec.credential import encode, encode_claims, presentation_claims
from verifier.trust import dump_entries
from verifier.types import Algorithm, Credential, KeyRole, PresentationMode
from verifier.vin import binding

NATIONAL = "000000"  # issuer code of the freshness key: the platform, not a city
LIFE = {
    PresentationMode.LIVE: timedelta(days=30),
    PresentationMode.STORED: timedelta(days=30),
    PresentationMode.PRINTED: timedelta(days=790),
    PresentationMode.TAG_LABEL: timedelta(days=790),
}


def regions_of(city: City) -> tuple[str, ...]:
    """The plate prefixes that a city's key may sign: the province alone for a municipality."""
    return (city.prefixes[0][0],) if len(city.prefixes) > 1 else city.prefixes


def issuing_keys(now: datetime) -> dict[str, SigningKey]:
    """A fresh key for each city, ES256 and Ed25519 by turns, and the platform's freshness key, by issuer code."""
    keys = {
        city.code: signing_key(
            Algorithm.ES256 if number % 2 == 0 else Algorithm.EDDSA,
            issuer=city.code,
            regions=regions_of(city),
            role=KeyRole.CREDENTIAL,
            now=now,
        )
        for number, city in enumerate(CITIES)
    }
    keys[NATIONAL] = signing_key(Algorithm.ES256, issuer=NATIONAL, regions=("*",), role=KeyRole.FRESHNESS, now=now)
    return keys


class Issuer:
    """Signs credentials and live presentations."""

    def __init__(self, keys: Mapping[str, SigningKey]) -> None:
        self.keys = dict(keys)

    def trust_entries(self, extra: Iterable[SigningKey] = ()) -> bytes:
        """The trust list to publish."""
        return dump_entries(key.entry for key in [*self.keys.values(), *extra])

    def credential(
        self, vehicle: Vehicle, entry: CredentialEntry, mode: PresentationMode, issued_at: datetime
    ) -> Credential:
        """The claims of this vehicle's credential in one presentation mode."""
        issued_at = issued_at.replace(microsecond=0)
        return Credential(
            serial=entry.serial,
            plate=vehicle.plate,
            valid_until=vehicle.valid_until,
            issued_at=issued_at,
            mode=mode,
            issuer=vehicle.city.code,
            expires_at=issued_at + LIFE[mode],
            status_list=STATUS_LIST,
            status_index=entry.index,
            ctp_until=vehicle.ctp_until,
            vehicle_type=vehicle.vehicle_type,
            use_nature=vehicle.use_nature,
            body_colour=vehicle.body_colour,
            vin_hash=binding(b"VM1-VIN", entry.serial, vehicle.vin),
            tid_hash=binding(b"VM1-TID", entry.serial, vehicle.tid) if vehicle.tid else None,
        )

    def sign(self, credential: Credential, key: SigningKey | None = None) -> bytes:
        """A credential as COSE_Sign1 under its issuer's key, or under another for showing what is refused."""
        key = key or self.keys[credential.issuer]
        return _sign1(key, cose.TYP_CREDENTIAL, encode_claims(credential))

    def text(self, credential: Credential, *, shown_at: datetime | None = None) -> str:
        """The text of the QR code; a live one is wrapped into a presentation shown at that moment."""
        signed = self.sign(credential)
        if credential.mode is PresentationMode.LIVE:
            return self.present(signed, shown_at or credential.issued_at)
        return encode(signed)

    def present(self, signed: bytes, shown_at: datetime) -> str:
        """The text of a live presentation around a signed credential, under the freshness key."""
        payload = presentation_claims(int(shown_at.timestamp()), signed)
        return encode(_sign1(self.keys[NATIONAL], cose.TYP_PRESENTATION, payload))


def _sign1(key: SigningKey, typ: int, payload: bytes) -> bytes:
    protected = cose.protected_header(key.entry.alg, key.entry.kid, typ)
    return cose.join(protected, payload, key.sign(cose.sig_structure(protected, payload)))
