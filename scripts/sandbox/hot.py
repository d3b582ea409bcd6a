"""The hot list of the sandbox: what changed in the register since the last night, made and signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.sandbox.nightly import PublicationError, State, changes_between
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.cose import TYP_HOT, join, protected_header, sig_structure
from verifier.codec.hot import MAX_ROWS, HotList, SealedRows, hot_payload
from verifier.types import Algorithm

LIFE = timedelta(hours=1)  # until the next list is due
RENEWAL = timedelta(minutes=20)


@dataclass(frozen=True, slots=True)
class HotRows:
    """Wide values by 48-bit key, and by 16-byte hash where that is known; None: no longer in the register."""

    rows: Mapping[int, int | None] = field(default_factory=dict)
    exact: Mapping[bytes, int | None] = field(default_factory=dict)
    sealed: SealedRows | None = None  # in place of both, of a list that was published
    read_at: datetime | None = field(default=None, compare=False)  # when the register was read; None: just now
    nightly_seq: int | None = field(default=None, compare=False)  # the night they were compared with; None: the last

    def __len__(self) -> int:
        return len(self.rows) + len(self.exact)


def rows_between(old: State, new: State) -> HotRows:
    """What a device that holds the night `old` must be told to answer as `new` does; PublicationError."""
    rows: dict[int, int | None] = {}
    exact: dict[bytes, int | None] = {}
    change = changes_between(old, new)
    for key, value in zip(change.keys, change.values, strict=True):
        before = old.exact_rows(key)
        if value == SEE_EXACT:
            exact |= dict.fromkeys(before) | new.group(key)
        elif len(before) < 2:
            rows[key] = None if value == TOMBSTONE else new.meta.scheme.widen(value)
        elif value == TOMBSTONE:
            exact |= dict.fromkeys(before)
        else:
            raise PublicationError("not published: the changes need another base, which the next night brings")
    if len(rows) + len(exact) > MAX_ROWS:
        raise PublicationError(f"not published: {len(rows) + len(exact):,} rows are for a night, not for a hot list")
    return HotRows(rows, exact)


def sign_hot(hot: HotList, key: Ed25519PrivateKey) -> bytes:
    """The hot list as a COSE_Sign1; ValueError when it breaks a rule of the format."""
    protected, payload = protected_header(Algorithm.EDDSA, None, TYP_HOT), hot_payload(hot)
    return join(protected, payload, key.sign(sig_structure(protected, payload)))
