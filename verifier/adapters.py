"""From what a code, the cache and the network answered to evidence. Nothing here judges.

The first two tables are the last table of docs/decision.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from verifier.cache.store import GenerationInfo, StatusStore
from verifier.codec.cose import SIGNATURE_LENGTH
from verifier.codec.tag import decode
from verifier.errors import (
    CacheCorruptError,
    CacheError,
    CacheMissingError,
    CodeError,
    EpochKeyError,
    FetchError,
    FetchTimeoutError,
    RefusedError,
    RejectedError,
    StatusError,
    UntrustedError,
)
from verifier.facts import WATCH_LETTERS
from verifier.plates import kinds_of
from verifier.trust import TrustList
from verifier.types import (
    SHANGHAI,
    CacheEvidence,
    CacheState,
    CodeEvidence,
    CodeFault,
    CodeReading,
    Credential,
    CredentialStatus,
    OnlineEvidence,
    OnlineState,
    Plate,
    SignatureState,
    StatusAnswer,
    TagAuth,
    TagEvidence,
    TagLevel,
    TagRecord,
    TagSeen,
    TagSuspicion,
    VehicleRecord,
    same_plate,
)
from verifier.verify import verify_text
from verifier.verify_tag import verify_tag
from verifier.vin import Vin, binding, same_vin

READINGS: dict[CodeFault, CodeReading] = {
    CodeFault.NOT_A_MARK: CodeReading.FOREIGN,
    CodeFault.VERSION: CodeReading.UNSUPPORTED_VERSION,
    CodeFault.OVERSIZE: CodeReading.MALFORMED,
    CodeFault.ENCODING: CodeReading.MALFORMED,
    CodeFault.COSE_SHAPE: CodeReading.MALFORMED,
    CodeFault.CBOR: CodeReading.MALFORMED,
    CodeFault.HEADER: CodeReading.MALFORMED,
    CodeFault.CLAIMS: CodeReading.MALFORMED,
}
SIGNATURES: dict[CodeFault, SignatureState] = {
    CodeFault.UNKNOWN_KEY: SignatureState.UNKNOWN_KEY,
    CodeFault.ALG_UNAVAILABLE: SignatureState.UNKNOWN_KEY,
    CodeFault.KEY_COMPROMISED: SignatureState.REVOKED_KEY,
    CodeFault.KEY_RETIRED: SignatureState.REVOKED_KEY,
    CodeFault.KEY_WINDOW: SignatureState.REVOKED_KEY,
    CodeFault.JURISDICTION: SignatureState.REVOKED_KEY,
    CodeFault.ALG: SignatureState.INVALID,
    CodeFault.SIGNATURE: SignatureState.INVALID,
    CodeFault.HOLDER_KEY: SignatureState.INVALID,
}

_TID_KIND = b"VM1-TID"  # of the binding, docs/credential-format.md
_NO_PLATE = Plate("", None)

NOTHING_READ = b""
"""The payload that stands for a code which no decoder could read."""


def code_evidence(
    payload: bytes, trust: TrustList, now: datetime, *, trust_as_of: datetime | None = None, vin: Vin | None = None
) -> CodeEvidence:
    """Decode and verify the bytes of a code; never raises for what a code contains.

    `trust_as_of` is the moment the trust list describes; `vin` is the one on the car.
    """
    if payload == NOTHING_READ:
        return CodeEvidence(reading=CodeReading.NONE)
    try:
        verified = verify_text(payload, trust, now)
    except CodeError as exc:
        if exc.fault in READINGS:
            return CodeEvidence(reading=READINGS[exc.fault], fault=exc.fault)
        claims = exc.claims if isinstance(exc, UntrustedError) else None
        return CodeEvidence(
            reading=CodeReading.OK,
            mode=claims.mode if claims else None,
            signature=SIGNATURES[exc.fault],
            credential=claims,
            fault=exc.fault,
            trust_as_of=trust_as_of,
        )
    return CodeEvidence(
        reading=CodeReading.OK,
        mode=verified.mode,
        signature=SignatureState.VALID,
        credential=verified.credential,
        shown_at=verified.shown_at,
        fault=verified.fault,
        trust_as_of=trust_as_of,
        vin_matches=_vin_matches(vin, verified.credential),
    )


def _vin_matches(vin: Vin | None, proven: Credential) -> bool | None:
    if vin is None or proven.vin_hash is None:
        return None
    return same_vin(vin, proven.serial, proven.vin_hash)


def cache_evidence(
    store: StatusStore, info: GenerationInfo, plates: Sequence[Plate], credential: Credential | None
) -> CacheEvidence:
    """Ask the cache about the first of the plates and about the proven credential; never raises for its data."""
    state, covers, watched, document, vehicle = CacheState.OK, False, False, None, None
    try:
        # The list of document states is checked on its own, so it counts even where the vehicles' data fail.
        document = _document(store, credential, plates)
        if plates:
            found = vehicles(store, plates[0])
            # A vehicle that is in the set is in the register: what the set covers tells what absence from it means.
            # Where more than one carries this text, or may do so, nobody has said which one stands there.
            said = plates[0].kind is not None or len(kinds_of(plates[0].text)) == 1
            covers = len(found) <= 1 and ((bool(found) and said) or store.covers(plates[0]))
            vehicle = found[0] if covers and found else None
            watched = vehicle is None and any(record.status & WATCH_LETTERS for record in found)
    except CacheCorruptError:
        state = CacheState.CORRUPT
    except EpochKeyError:
        covers = False  # cannot say: nothing in this set can be found under the key at hand
    except CacheMissingError:
        state = CacheState.MISSING
    return CacheEvidence(
        state=state,
        as_of=info.as_of,
        scope=info.scope,
        covers=covers,
        answer=StatusAnswer(vehicle=vehicle, credential=document),
        watched=watched,
    )


def vehicles(store: StatusStore, plate: Plate) -> list[VehicleRecord]:
    """The vehicles that the set has for a plate: of its kind, or of every kind of its class when that is not known."""
    kinds = (plate.kind,) if plate.kind is not None else kinds_of(plate.text)
    found = (store.vehicle(Plate(plate.text, kind)) for kind in kinds)
    return [record for record in found if record is not None]


def _document(store: StatusStore, credential: Credential | None, plates: Sequence[Plate]) -> CredentialStatus | None:
    if credential is None or credential.status_list is None or credential.status_index is None:
        return None
    return store.credential(credential.serial, credential.status_list, credential.status_index, plates)


# --------------------------------------------------------------------------------------------- tags

# Faults by which a certificate speaks against its tag; every other one only proves nothing.
_AGAINST_TAG = frozenset({CodeFault.SIGNATURE, CodeFault.JURISDICTION})
_STAND_IN = b"\xff" * SIGNATURE_LENGTH  # of a signature that was not read


def tag_evidence(seen: TagSeen, trust: TrustList, now: datetime) -> TagEvidence:
    """What was read of a tag and what its certificate proves; never raises for what a tag contains."""
    tag = TagEvidence(
        auth=seen.auth,
        tid=(seen.tid or b"").hex().upper(),
        plate=None,
        level=TagLevel.AUTHENTICATED if seen.auth is TagAuth.OK else TagLevel.READ,
        suspicions=seen.suspicions,
        seen=seen,
    )
    try:
        signed = decode(seen.tid or b"", seen.epc, seen.user or b"")
    except CodeError as exc:
        told = _told_by_epc(seen.epc)
        return replace(tag, plate=told, fault=exc.fault if seen.user else None, auth=_of_the_chip_alone(seen.auth))
    try:
        certificate = verify_tag(signed, trust, now).certificate
    except UntrustedError as exc:
        return _unproven(tag, signed.certificate.plate, exc.fault)
    return replace(
        tag,
        plate=certificate.plate,
        level=max(tag.level, TagLevel.CERTIFIED),
        issued_on=certificate.issued_on,
        vehicle_type=certificate.vehicle_type,
        body_colour=certificate.body_colour,
    )


def _unproven(tag: TagEvidence, claimed: Plate, fault: CodeFault) -> TagEvidence:
    if fault not in _AGAINST_TAG:
        return replace(tag, plate=claimed, fault=fault, auth=_of_the_chip_alone(tag.auth))
    copied = (TagSuspicion.OTHER_TAG,) if fault is CodeFault.SIGNATURE else ()
    suspicions = tuple(dict.fromkeys(tag.suspicions + copied))
    return replace(
        tag, plate=claimed, fault=fault, auth=TagAuth.FAIL, level=TagLevel.READ, suspicions=suspicions
    )  # fmt: skip


def _of_the_chip_alone(auth: TagAuth) -> TagAuth:
    """Authentication proves the chip. For a plate that anybody may have written into it, it says nothing."""
    return TagAuth.UNSUPPORTED if auth is TagAuth.OK else auth


def _told_by_epc(epc: bytes) -> Plate | None:
    """The plate that an EPC with fields (TC0) claims, where there is no certificate to prove it."""
    try:
        return decode(b"\0", epc, _STAND_IN).certificate.plate
    except CodeError:
        return None


def registered_tag(
    tag: TagEvidence, store: StatusStore, plates: Sequence[Plate], credential: Credential | None
) -> TagEvidence:
    """The tag's evidence with what the register and the proven credential say of its TID.

    `plates` are those that were seen. The register gives a TID without a readable plate that of the vehicle it is
    bound to, if it is one of them; likewise a vehicle whose tag still has the certificate of its last plate.
    """
    if not tag.tid:
        return tag
    if credential is not None and credential.tid_hash is not None:
        tag = replace(tag, tid_matches=binding(_TID_KIND, credential.serial, tag.tid) == credential.tid_hash)
    try:
        tag = _compared(tag, store, plates)
    except CacheError:
        tag = replace(tag, record=None)
    authentic = tag.seen is not None and tag.seen.auth is TagAuth.OK
    if authentic and tag.record is TagRecord.BOUND and tag.auth is TagAuth.UNSUPPORTED:
        tag = replace(tag, auth=TagAuth.OK)  # the register says whose chip it is
    known = tag.record is TagRecord.BOUND or (tag.record is None and tag.tid_matches is True)
    return replace(tag, level=max(tag.level, TagLevel.BOUND)) if known else tag


def _compared(tag: TagEvidence, store: StatusStore, plates: Sequence[Plate]) -> TagEvidence:
    candidates = list(dict.fromkeys(([] if tag.plate is None else [tag.plate]) + list(plates)))
    for plate in candidates:
        if store.vehicle_by_card(tag.tid, plate) is None or store.vehicle_by_tag(tag.tid, plate) is None:
            continue
        if tag.plate is not None and not same_plate(tag.plate, plate):
            if tag.issued_on is not None and tag.issued_on >= store.info().as_of.astimezone(SHANGHAI).date():
                continue  # the data are of the time before: the tag has left that vehicle since
            # The certificate is of the time before, perhaps of another car's looks; what the reader says of the chip
            # stays said.
            level = TagLevel.BOUND if tag.level is TagLevel.CERTIFIED else tag.level
            tag = replace(tag, level=level, vehicle_type=None, body_colour=None)
        return replace(tag, record=TagRecord.BOUND, plate=plate)
    if not candidates:
        return tag
    if store.vehicle_by_tag(tag.tid, candidates[0]) is not None:
        return replace(tag, record=TagRecord.OTHER_VEHICLE)
    return replace(tag, record=TagRecord.UNKNOWN) if store.covers(candidates[0]) else tag


def tag_is_watched(store: StatusStore, tag: TagEvidence) -> bool:
    """Whether the register looks for the vehicle of a tag that names no plate."""
    if tag.plate is not None or not tag.tid:
        return False
    try:
        record = store.vehicle_by_tag(tag.tid, _NO_PLATE)
    except CacheError:
        return False
    return record is not None and bool(record.status & WATCH_LETTERS)


_DENIED = (401, 403)  # the device or its officer, and never the vehicle (RFC 9110 clauses 15.5.2 and 15.5.4)


def online_failure(error: FetchError) -> OnlineEvidence:
    """A look-up that brought no answer is denied, timed out, untrustworthy or unreachable, and never "not found"."""
    state = OnlineState.UNREACHABLE
    if isinstance(error, RefusedError) or (isinstance(error, StatusError) and error.code in _DENIED):
        state = OnlineState.DENIED
    elif isinstance(error, FetchTimeoutError):
        state = OnlineState.TIMEOUT
    elif isinstance(error, RejectedError):  # a captive portal, a redirect, a body of another form
        state = OnlineState.BAD_SIGNATURE
    return OnlineEvidence(state=state)


def online_evidence(answer: StatusAnswer, server_time: datetime, *, complete: bool = True) -> OnlineEvidence:
    """A signed answer whose nonce, signature and times were verified; no vehicle in it means "not found".

    Unless it is not `complete`: then it speaks of the document alone, and says nothing of the vehicle.
    """
    if answer.vehicle is None and complete:
        kept = answer if answer.credential is not None else None
        return OnlineEvidence(state=OnlineState.NOT_FOUND, answer=kept, server_time=server_time)
    return OnlineEvidence(state=OnlineState.OK, answer=answer, server_time=server_time)
