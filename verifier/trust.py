"""The trust list: which keys may sign what, where and when. It travels in the signed distribution only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from verifier.codec import cbor
from verifier.errors import CodeError, TrustListError
from verifier.signature import PublicKey, load_public_key
from verifier.types import Algorithm, CodeFault, KeyId, KeyRole, KeyState

MAX_BYTES = 4 * 1024 * 1024
ANY_REGION = "*"

_KID, _ALG, _KEY, _ISS, _REGIONS, _ROLE, _NBF, _NAF, _UNTIL, _STATE = range(1, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """One entry: a public key and what it is trusted for. Times are POSIX seconds."""

    kid: bytes
    alg: Algorithm
    key: bytes  # 65 bytes 04 X Y, or 32 bytes
    public: PublicKey | None  # None where this machine cannot use the algorithm
    issuer: str
    regions: tuple[str, ...]  # plate prefixes, or "*"
    role: KeyRole
    not_before: int
    not_after: int  # last moment at which it may have signed
    until: int  # last moment at which its signatures are accepted
    state: KeyState

    @property
    def key_id(self) -> KeyId:
        """The kid as hex, for people."""
        return KeyId(self.kid.hex())

    def covers(self, plate_text: str) -> bool:
        """Whether this key may sign for such a plate."""
        return any(region == ANY_REGION or plate_text.startswith(region) for region in self.regions)

    def fault_at(self, signed: float, now: float) -> CodeFault | None:
        """Why a signature of this key at that moment proves nothing now; None when it does."""
        if self.state is KeyState.COMPROMISED:
            return CodeFault.KEY_COMPROMISED
        if not self.not_before <= signed <= self.not_after:
            return CodeFault.KEY_WINDOW
        return CodeFault.KEY_RETIRED if now > self.until else None


class TrustList:
    """The keys of one trust list by key id."""

    def __init__(self, keys: Iterable[TrustedKey]) -> None:
        self.keys = {key.kid: key for key in keys}

    def find(self, kid: bytes | None, role: KeyRole) -> TrustedKey | None:
        """The key with this id in this role; a key in another role counts as unknown."""
        key = self.keys.get(kid) if kid is not None else None
        return key if key is not None and key.role is role else None


def key_id(alg: int, key: bytes) -> bytes:
    """kid = SHA-256 of the deterministic CBOR array [alg, key], first 8 bytes."""
    return hashlib.sha256(cbor.encode([int(alg), key])).digest()[:8]


def load_trust_list(data: bytes) -> TrustList:
    """The CBOR array of entries to a TrustList; TrustListError refuses the whole list and names the entry."""
    if len(data) > MAX_BYTES:
        raise TrustListError(f"trust list: more than {MAX_BYTES} bytes")
    try:
        entries = cbor.decode(data)
    except CodeError as exc:
        raise TrustListError(f"trust list: {exc.detail}") from exc
    if type(entries) is not list:
        raise TrustListError("trust list: not an array of entries")
    keys: dict[bytes, TrustedKey] = {}
    for number, entry in enumerate(entries):
        try:
            key = _entry(entry)
        except (KeyError, ValueError, TypeError) as exc:
            raise TrustListError(f"trust list: entry {number}: {exc}") from exc
        if key.kid in keys:
            raise TrustListError(f"trust list: entry {number}: key id stands twice")
        keys[key.kid] = key
    return TrustList(keys.values())


def dump_entries(keys: Iterable[TrustedKey]) -> bytes:
    """The entries as the CBOR array that `load_trust_list` reads."""
    return cbor.encode(
        [
            {
                _KID: k.kid, _ALG: int(k.alg), _KEY: k.key, _ISS: k.issuer, _REGIONS: list(k.regions),
                _ROLE: int(k.role), _NBF: k.not_before, _NAF: k.not_after, _UNTIL: k.until, _STATE: int(k.state),
            }
            for k in keys
        ]
    )  # fmt: skip


def _entry(entry: Any) -> TrustedKey:
    if type(entry) is not dict or set(entry) != set(range(1, 11)):
        raise ValueError("not a map with keys 1 to 10")
    types = {
        _KID: bytes,
        _ALG: int,
        _KEY: bytes,
        _ISS: str,
        _ROLE: int,
        _NBF: int,
        _NAF: int,
        _UNTIL: int,
        _STATE: int,
    }
    for label, kind in types.items():
        if type(entry[label]) is not kind:
            raise ValueError(f"field {label} has the wrong type")
    regions = entry[_REGIONS]
    if regions == ANY_REGION:
        regions = [ANY_REGION]
    if type(regions) is not list or not regions or not all(type(r) is str and 1 <= len(r) <= 4 for r in regions):
        raise ValueError("regions: not plate prefixes")
    alg = Algorithm(entry[_ALG])
    if entry[_KID] != key_id(alg, entry[_KEY]):
        raise ValueError("key id is not the hash of the key")
    if not entry[_NBF] <= entry[_NAF] <= entry[_UNTIL]:
        raise ValueError("times not in order")
    return TrustedKey(
        kid=entry[_KID], alg=alg, key=entry[_KEY], public=load_public_key(alg, entry[_KEY]),
        issuer=entry[_ISS], regions=tuple(regions), role=KeyRole(entry[_ROLE]), not_before=entry[_NBF],
        not_after=entry[_NAF], until=entry[_UNTIL], state=KeyState(entry[_STATE]),
    )  # fmt: skip
