"""Issuing credentials: claims from the register, signed with the key of the vehicle's city."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from scripts.sandbox.fleet import CITIES, City, IssueReason, Vehicle
from scripts.sandbox.keys import HolderSigner, SigningKey, signing_key
from scripts.sandbox.registry import STATUS_LIST, CredentialEntry, regions_of
from verifier.codec import cbor, cose
from verifier.codec.credential import ENCRYPTED, MARK, HolderKey, encode, encode_claims, presentation_claims
from verifier.sm2 import libcrypto
from verifier.trust import dump_entries
from verifier.types import Algorithm, Credential, KeyRole, KeyState, PresentationMode
from verifier.vin import binding

NATIONAL = "000000"  # issuer code of the freshness key: the platform, not a city
SM2_CITY = "510100"  # Chengdu
LIFE = {
    PresentationMode.LIVE: timedelta(days=30),
    PresentationMode.STORED: timedelta(days=30),
    PresentationMode.PRINTED: timedelta(days=790),
    PresentationMode.TAG_LABEL: timedelta(days=790),
}
ISSUE_REASON = 64  # key in the mark: from 64 on a verifier may ignore what it does not know
REASONS = {
    IssueReason.REGISTRATION: 1,
    IssueReason.INSPECTION: 2,
    IssueReason.EXEMPT: 3,
    IssueReason.REISSUE: 4,
    IssueReason.TRANSFER: 5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a credential may carry beside the claims that a handheld compares."""

    reason: IssueReason | None = None
    holder: HolderKey | None = None  # may sign live presentations of it (cnf)
    encrypted: bytes | None = None  # 1 to 160 bytes, for the server alone


PLAIN = Extras()


def issuing_keys(now: datetime) -> dict[str, SigningKey]:
    """A fresh key for each city and the platform's freshness key, by issuer code.

    ES256 and Ed25519 by turns; one city signs with SM2 where this machine can.
    """
    keys = {
        city.code: signing_key(
            _algorithm(number, city),
            issuer=city.code,
            regions=regions_of(city),
            role=KeyRole.CREDENTIAL,
            now=now,
        )
        for number, city in enumerate(CITIES)
    }
    keys[NATIONAL] = signing_key(Algorithm.ES256, issuer=NATIONAL, regions=("*",), role=KeyRole.FRESHNESS, now=now)
    return keys


def _algorithm(number: int, city: City) -> Algorithm:
    if city.code == SM2_CITY and libcrypto() is not None:
        return Algorithm.SM2
    return Algorithm.ES256 if number % 2 == 0 else Algorithm.EDDSA


class Issuer:
    """Signs credentials and live presentations; keeps the keys that signed before."""

    def __init__(self, keys: Mapping[str, SigningKey]) -> None:
        self.keys = dict(keys)  # the signing ones, by issuer code
        self.former: list[SigningKey] = []  # retired or compromised, oldest first

    def trust_entries(self, extra: Iterable[SigningKey] = ()) -> bytes:
        """The trust list to publish: former keys stay in it, each in its state."""
        return dump_entries(key.entry for key in [*self.keys.values(), *self.former, *extra])

    def replace_key(self, new: SigningKey, state: KeyState) -> None:
        """`new` signs for its issuer from its first moment on, and the present key goes into `state`. ValueError."""
        old = self.keys[new.entry.issuer]
        self.former.append(old.ended(new.entry.not_before, state))
        self.keys[new.entry.issuer] = new

    def withdraw(self, issuer: str, kid: str) -> bool:
        """Put a retired key (kid as hex) into state compromised; False when there is no such key."""
        for place, key in enumerate(self.former):
            entry = key.entry
            if (entry.issuer, entry.key_id, entry.state) == (issuer, kid, KeyState.RETIRED):
                self.former[place] = key.in_state(KeyState.COMPROMISED)
                return True
        return False

    def key_at(self, issuer: str, moment: datetime) -> SigningKey:
        """The key that signs for this issuer at this moment: a former one for a document from before a change."""
        seconds = int(moment.timestamp())
        newest = [self.keys[issuer], *(key for key in reversed(self.former) if key.entry.issuer == issuer)]
        return next((k for k in newest if k.entry.not_before <= seconds <= k.entry.not_after), newest[0])

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

    def sign(self, credential: Credential, key: SigningKey | None = None, extras: Extras = PLAIN) -> bytes:
        """A credential as COSE_Sign1 under its issuer's key, or under another for showing what is refused."""
        key = key or self.key_at(credential.issuer, credential.issued_at)
        payload = _with_extras(encode_claims(credential, extras.holder), extras)
        return _sign1(key, key.entry.kid, cose.TYP_CREDENTIAL, payload)

    def text(self, credential: Credential, *, shown_at: datetime | None = None, extras: Extras = PLAIN) -> str:
        """The text of the QR code; a live one is wrapped into a presentation shown at that moment."""
        signed = self.sign(credential, extras=extras)
        if credential.mode is PresentationMode.LIVE:
            return self.present(signed, shown_at or credential.issued_at)
        return encode(signed)

    def present(self, signed: bytes, shown_at: datetime) -> str:
        """The text of a live presentation around a signed credential, under the freshness key."""
        key = self.key_at(NATIONAL, shown_at)
        payload = presentation_claims(int(shown_at.timestamp()), signed)
        return encode(_sign1(key, key.entry.kid, cose.TYP_PRESENTATION, payload))

    def present_by_holder(self, signed: bytes, holder: HolderSigner, shown_at: datetime) -> str:
        """The text of a live presentation that the phone signs itself: the credential names its key, so no kid."""
        payload = presentation_claims(int(shown_at.timestamp()), signed)
        return encode(_sign1(holder, None, cose.TYP_PRESENTATION, payload))


def _with_extras(payload: bytes, extras: Extras) -> bytes:
    claims = cbor.decode(payload)
    if extras.reason is not None:
        claims[MARK][ISSUE_REASON] = REASONS[extras.reason]
    if extras.encrypted is not None:
        claims[MARK][ENCRYPTED] = extras.encrypted
    return cbor.encode(claims)


def _sign1(key: SigningKey | HolderSigner, kid: bytes | None, typ: int, payload: bytes) -> bytes:
    protected = cose.protected_header(key.alg, kid, typ)
    return cose.join(protected, payload, key.sign(cose.sig_structure(protected, payload)))
