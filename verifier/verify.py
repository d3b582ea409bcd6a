"""From a decoded code to a credential that is proven: the only maker of `VerifiedCredential`.

The steps stand in the order of docs/credential-format.md; the first that fails names the fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from verifier.codec.cose import Sign1
from verifier.codec.credential import HolderKey, SignedCredential, decode, parse_claims
from verifier.errors import CodeError, UntrustedError
from verifier.signature import PublicKey, load_public_key, verify_with
from verifier.trust import TrustList
from verifier.types import Algorithm, CodeFault, Credential, KeyRole, PresentationMode

# The format's own limits (docs/credential-format.md), equal for every verifier; the policy's `clock_skew` and
# `live_code_max_age` are for the verdict (`verifier.facts`) and do not move these.
FORMAT_SKEW = 30  # seconds a credential or a live code may lie in the future
FORMAT_LIVE_AGE = 90  # seconds a live code counts as fresh
LONGEST_LIFE = {
    PresentationMode.LIVE: 35 * 86400,
    PresentationMode.STORED: 31 * 86400,
    PresentationMode.PRINTED: 800 * 86400,
    PresentationMode.TAG_LABEL: 800 * 86400,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCredential:
    """A credential whose signature verified under a key that may sign it. Holding one is the proof.

    `fault` is a document finding that came after the proof (its life is over, its live wrapper is missing or old).
    """

    credential: Credential
    mode: PresentationMode  # as presented
    shown_at: datetime | None = None  # of a live code whose wrapper verified
    holder_signed: bool = False
    fault: CodeFault | None = None

    @property
    def kind(self) -> str:
        """The mode as presented; "online" tells a live code under a freshness key from one under the holder's key."""
        online = self.shown_at is not None and not self.holder_signed
        return "online" if online else self.mode.value


def verify_text(text: str | bytes, trust: TrustList, now: datetime) -> VerifiedCredential:
    """Decode and verify the text of a code: CodeError when it is no mark or proves nothing, else as `verify`."""
    payload = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return verify(decode(payload), trust, now)


def verify(signed: SignedCredential, trust: TrustList, now: datetime) -> VerifiedCredential:
    """Verify signatures, key and times.

    UntrustedError when the code proves nothing; a finding about a proven document is kept in `fault`.
    """
    seconds = now.timestamp()
    credential, holder = _verify_issuer(signed.credential, trust, seconds)
    fault = _life(credential, seconds)
    mode = credential.mode or PresentationMode.STORED
    if signed.presentation is None:
        # Someone stripped the timed wrapper; only what ends a credential's life says more than that.
        if mode is PresentationMode.LIVE and fault in (None, CodeFault.NOT_YET_VALID):
            fault = CodeFault.NEEDS_PRESENTATION
        return VerifiedCredential(credential=credential, mode=mode, fault=fault)
    # Whatever became of the credential inside, a wrapper that does not verify is a forgery.
    presented = _verify_presentation(signed, credential, holder, trust, seconds)
    return presented if fault is None else replace(presented, fault=fault)


def _verify_issuer(sign1: Sign1, trust: TrustList, now: float) -> tuple[Credential, HolderKey | None]:
    key = trust.find(sign1.kid, KeyRole.CREDENTIAL)
    if key is None:
        raise UntrustedError(CodeFault.UNKNOWN_KEY, claims=_unproven_claims(sign1))
    if fault := _unproved(sign1, key.alg, key.public):
        raise UntrustedError(fault, claims=_unproven_claims(sign1))
    credential, holder = parse_claims(sign1.payload)
    lawful = credential.issuer == key.issuer and key.covers(credential.plate.text)
    fault = key.fault_at(credential.issued_at.timestamp(), now)
    if fault is not CodeFault.KEY_COMPROMISED and not lawful:
        fault = CodeFault.JURISDICTION
    if fault:
        raise UntrustedError(fault, claims=credential)
    return credential, holder


def _life(credential: Credential, now: float) -> CodeFault | None:
    issued, expires = credential.issued_at.timestamp(), credential.expires_at
    end = expires.timestamp() if expires else issued
    begin = credential.not_before.timestamp() if credential.not_before else issued
    if end - issued > LONGEST_LIFE[credential.mode or PresentationMode.STORED]:
        return CodeFault.LIFETIME
    if max(begin, issued) > now + FORMAT_SKEW:
        return CodeFault.NOT_YET_VALID
    return CodeFault.EXPIRED if now >= end else None


def _verify_presentation(
    signed: SignedCredential, credential: Credential, holder: HolderKey | None, trust: TrustList, now: float
) -> VerifiedCredential:
    outer, shown = signed.presentation, signed.shown_at
    assert outer is not None  # noqa: S101 - the caller has looked
    assert shown is not None  # noqa: S101 - decoded together with the wrapper
    if credential.mode not in (PresentationMode.LIVE, PresentationMode.STORED):
        raise UntrustedError(CodeFault.CLAIMS, "presentation of a credential whose mode takes none", credential)
    if outer.kid is None:
        _check_holder(outer, holder, credential)
    else:
        _check_freshness_key(outer, trust, shown, now, credential)
    if shown < credential.issued_at.timestamp():
        raise UntrustedError(CodeFault.CLAIMS, "shown before it was issued", credential)
    late = not -FORMAT_SKEW <= now - shown <= FORMAT_LIVE_AGE
    return VerifiedCredential(
        credential=credential,
        mode=PresentationMode.LIVE,
        shown_at=datetime.fromtimestamp(shown, credential.issued_at.tzinfo),
        holder_signed=outer.kid is None,
        fault=CodeFault.STALE_PRESENTATION if late else None,
    )


def _check_holder(outer: Sign1, holder: HolderKey | None, credential: Credential) -> None:
    try:
        public = load_public_key(holder.alg, holder.key) if holder else None
    except ValueError:
        public = None  # not a point of the curve
    if holder is None or public is None:
        raise UntrustedError(CodeFault.HOLDER_KEY, claims=credential)
    if fault := _unproved(outer, holder.alg, public):
        raise UntrustedError(fault, claims=credential)


def _check_freshness_key(outer: Sign1, trust: TrustList, shown: int, now: float, credential: Credential) -> None:
    key = trust.find(outer.kid, KeyRole.FRESHNESS)
    if key is None:
        raise UntrustedError(CodeFault.UNKNOWN_KEY, claims=credential)
    if fault := key.fault_at(shown, now) or _unproved(outer, key.alg, key.public):
        raise UntrustedError(fault, claims=credential)


def _unproved(sign1: Sign1, alg: Algorithm, public: PublicKey | None) -> CodeFault | None:
    # The algorithm belongs to the trusted key; what the header says must equal it.
    if sign1.alg != alg:
        return CodeFault.ALG
    if public is None:
        return CodeFault.ALG_UNAVAILABLE
    return None if verify_with(public, sign1.to_be_signed, sign1.signature) else CodeFault.SIGNATURE


def _unproven_claims(sign1: Sign1) -> Credential | None:
    """What a code without proof says of itself, for the officer to compare; None when it does not even parse."""
    try:
        return parse_claims(sign1.payload)[0]
    except CodeError:
        return None
