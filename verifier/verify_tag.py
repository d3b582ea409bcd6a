"""From a tag's memory to a certificate that is proven: the only maker of `VerifiedTag`.

It proves data, not a chip: whoever emulates a chip with the same TID and EPC passes here as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from verifier.codec.tag import SignedTag, TagCertificate
from verifier.errors import UntrustedError
from verifier.signature import verify_with
from verifier.trust import TrustedKey, TrustList
from verifier.types import SHANGHAI, CodeFault, KeyId, KeyRole, KeyState

FORMAT_SKEW = timedelta(seconds=30)  # the format's, as that of `verify`; not the policy's `clock_skew`


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTag:
    """A tag certificate whose signature verified for this TID and EPC, under a key that may sign it."""

    certificate: TagCertificate
    key_id: KeyId


def verify_tag(signed: SignedTag, trust: TrustList, now: datetime) -> VerifiedTag:
    """Verify the signature, then key and times. UntrustedError with the first fault: the certificate proves nothing.

    UNKNOWN_KEY says nothing about forgery. The key hint is short, so every key that begins so is tried.
    """
    # 1. key: only those for tags; one for credentials counts as unknown, and these sign no credential
    keys = [key for key in trust.keys.values() if key.role is KeyRole.TAG and key.key_id.startswith(signed.hint)]
    if not keys:
        raise UntrustedError(CodeFault.UNKNOWN_KEY)
    # 2. signature
    usable = [key for key in keys if key.public is not None]
    key = next((k for k in usable if k.public and verify_with(k.public, signed.message, signed.signature)), None)
    if key is None:
        raise UntrustedError(CodeFault.SIGNATURE if len(usable) == len(keys) else CodeFault.ALG_UNAVAILABLE)
    # 3. what the key may sign, and when
    if fault := _key_fault(key, signed.certificate, now):
        raise UntrustedError(fault)
    return VerifiedTag(certificate=signed.certificate, key_id=key.key_id)


def _key_fault(key: TrustedKey, certificate: TagCertificate, now: datetime) -> CodeFault | None:
    if key.state is KeyState.COMPROMISED:
        return CodeFault.KEY_COMPROMISED
    if not key.covers(certificate.plate.text):
        return CodeFault.JURISDICTION
    issued = certificate.issued_on
    if issued is not None and not _day(key.not_before) <= issued <= _day(key.not_after):
        return CodeFault.KEY_WINDOW
    if now.timestamp() > key.until:
        return CodeFault.KEY_RETIRED
    if issued is not None and issued > (now + FORMAT_SKEW).astimezone(SHANGHAI).date():
        return CodeFault.NOT_YET_VALID
    return None


def _day(seconds: int) -> date:
    """The day in China of a moment, the unit of a tag's day of issue; of a moment that no calendar has, an end."""
    try:
        return datetime.fromtimestamp(seconds, SHANGHAI).date()
    except (ValueError, OverflowError, OSError):
        return date.max if seconds > 0 else date.min
