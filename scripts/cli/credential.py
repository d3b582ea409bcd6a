"""`markcheck credential`: what stands in the text of a code, and whether it verifies."""

from __future__ import annotations

import os
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from firmware.config import Home
from firmware.views import printable
from scripts.cli.console import home_option, json_option, print_json
from scripts.cli.trust import at_option, entries_option, trust_source
from verifier.codec import cbor
from verifier.codec.cose import Sign1
from verifier.codec.credential import ENCRYPTED, MARK, SignedCredential, decode, parse_claims
from verifier.errors import CodeError
from verifier.plates import PLATE_KINDS, display_text
from verifier.trust import TrustList
from verifier.types import SHANGHAI, Algorithm, CodeFault
from verifier.verify import VerifiedCredential, verify_text

LONGEST = 400  # columns; the encrypted block is the longest claim, 320 hex digits
STDIN_LIMIT = 4096  # bytes; a longer input is cut and refused all the same, because a code has at most 800

MEANINGS: dict[CodeFault, str] = {
    CodeFault.NOT_A_MARK: "The text is not that of a mark: it does not begin with VM1:.",
    CodeFault.VERSION: "The text is that of a mark in a version that this program does not know.",
    CodeFault.OVERSIZE: "The text is longer than any mark can be.",
    CodeFault.ENCODING: "The text after VM1: is not base45.",
    CodeFault.COSE_SHAPE: "The bytes are not a COSE_Sign1 with its four parts.",
    CodeFault.CBOR: "The bytes are not deterministic CBOR.",
    CodeFault.HEADER: "A header does not have exactly the labels that it must have.",
    CodeFault.UNKNOWN_KEY: "The key that it names is not in the trust list, or stands there for another purpose.",
    CodeFault.ALG: "It names another algorithm than the key that it names has.",
    CodeFault.ALG_UNAVAILABLE: "This machine cannot verify the key's algorithm, so nothing is proven.",
    CodeFault.SIGNATURE: "The signature does not verify under the key that it names.",
    CodeFault.CLAIMS: "A claim is missing, unknown or not of its form.",
    CodeFault.KEY_COMPROMISED: "The key is marked as stolen: nothing that it signed is accepted.",
    CodeFault.JURISDICTION: "The key may not sign for this issuer or for plates of this region.",
    CodeFault.KEY_WINDOW: "It was signed at a time at which its key may not sign.",
    CodeFault.KEY_RETIRED: "The time is over in which signatures of this key are accepted.",
    CodeFault.LIFETIME: "It is made to live longer than its presentation mode allows.",
    CodeFault.NOT_YET_VALID: "Its time has not begun yet, or the clock is slow.",
    CodeFault.EXPIRED: "The time of this document is over; that says nothing about the vehicle's inspection.",
    CodeFault.NEEDS_PRESENTATION: "It may only be shown live, and its timed wrapper is missing.",
    CodeFault.HOLDER_KEY: "The wrapper is said to be by the holder's key, but the credential names no usable one.",
    CodeFault.STALE_PRESENTATION: "The live code was not made just now: it may be a screenshot, or the clock is wrong.",
}
"""One sentence for the technician for each fault; the order of the checks is in docs/credential-format.md."""

A_FILE = "this is a file: use 'markcheck check', or - for standard input"


class Refusal(NamedTuple):
    """Why a text is not accepted. `detail` holds no text from the code."""

    fault: CodeFault
    detail: str


@click.group()
def credential() -> None:
    """What stands in a code.

    \b
    Examples:
      markcheck credential inspect 'VM1:...'
      markcheck credential inspect - < code.txt
    """


# Text from a code may begin with a dash, or fall apart at its spaces: it must not come back in an error of click's.
@credential.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="TEXT", type=click.UNPROCESSED)
@entries_option("--trust")
@at_option
@json_option
@home_option
def inspect(words: tuple[str, ...], entries: Path | None, at: datetime, as_json: bool, home: Home) -> int:
    """Verify the text of a code and show its claims. Nothing is looked up, and no verdict is reached.

    \b
    Examples:
      markcheck credential inspect 'VM1:...'
      markcheck credential inspect - < code.txt
      markcheck credential inspect - --trust entries.cbor --at 2026-11-22T08:00:00+08:00 --json < code.txt

    TEXT is the text itself, in quotes because it may hold spaces and $, or - for standard input. For a picture use
    'markcheck check'. Exit status: 0 accepted, 1 refused, 2 wrong usage.
    """
    if len(words) != 1:
        raise click.UsageError("give one TEXT, in quotes, and only options that --help names")
    payload = _payload(words[0])
    found = examine(payload, trust_source(entries, home).trust, at)
    if isinstance(found, Refusal):
        is_path = found.fault is CodeFault.NOT_A_MARK and os.path.isfile(words[0])  # noqa: PTH113 - any text, no error
        _show_refusal(found._replace(detail=A_FILE) if is_path else found, as_json)
        return 1
    _show_accepted(found, decode(payload), as_json)
    return 0


def _payload(text: str) -> bytes:
    if text != "-":
        return text.encode("utf-8", "surrogatepass")
    data = sys.stdin.buffer.read(STDIN_LIMIT)
    return data.removesuffix(b"\n").removesuffix(b"\r")


def examine(payload: bytes, trust: TrustList, now: datetime) -> VerifiedCredential | Refusal:
    """Verify; the first failed check makes a refusal, findings about a proven document included."""
    try:
        verified = verify_text(payload, trust, now)
    except CodeError as exc:
        return Refusal(exc.fault, "; ".join(filter(None, (exc.detail, _keys_named(payload)))))
    return verified if verified.fault is None else Refusal(verified.fault, _times(verified, now))


def _keys_named(payload: bytes) -> str:
    """The keys and algorithms in the headers, which nothing has proven: numbers and hex only."""
    try:
        signed = decode(payload)
    except CodeError:
        return ""
    outer = signed.presentation
    wrapper = "" if outer is None else f"; wrapper: {_key_named(outer)}"
    return f"credential: {_key_named(signed.credential)}{wrapper}"


def _key_named(sign1: Sign1) -> str:
    key = f"key {sign1.kid.hex()}" if sign1.kid else "key of the holder"
    return f"{_algorithm(sign1)}, {key}"


def _algorithm(sign1: Sign1) -> str:
    return Algorithm(sign1.alg).name if sign1.alg in tuple(Algorithm) else f"algorithm {sign1.alg}"


def _times(verified: VerifiedCredential, now: datetime) -> str:
    proven = verified.credential
    named = {
        "issued": proven.issued_at,
        "begins": proven.not_before,
        "ends": proven.expires_at,
        "shown": verified.shown_at,
        "looked at": now,
    }
    return ", ".join(f"{name} {_for_people(moment)}" for name, moment in named.items() if moment is not None)


# --------------------------------------------------------------------------------------------------- showing


def _show_refusal(refusal: Refusal, as_json: bool) -> None:
    if as_json:
        print_json({"ok": False, "code": refusal.fault.value, "detail": printable(refusal.detail, LONGEST)})
        return
    click.echo(f"REFUSED: {refusal.fault.value}")
    click.echo(MEANINGS[refusal.fault])
    if refusal.detail:
        click.echo(f"({printable(refusal.detail, LONGEST)})")


def _show_accepted(verified: VerifiedCredential, signed: SignedCredential, as_json: bool) -> None:
    proof = {
        "key_id": signed.credential.kid,
        "algorithm": _algorithm(signed.credential),
        "shown_at": verified.shown_at,
    }
    claims = _claims(verified, signed)
    if as_json:
        head = {"ok": True, "kind": verified.kind, "plate": verified.credential.plate.text}
        print_json({**head, **_json(proof), "claims": _json(claims)})
        return
    click.echo(f"ACCEPTED: {verified.kind} (signatures and times; no status was looked up)")
    kind = claims["plate_kind"]
    shown = {
        **claims,
        "plate": display_text(verified.credential.plate),
        "plate_kind": f"{kind} {PLATE_KINDS[kind]}",
        **proof,
    }
    for name, value in shown.items():
        click.echo(f"{name.replace('_', ' '):27}{printable(_for_people(value))}")


def _claims(verified: VerifiedCredential, signed: SignedCredential) -> dict[str, Any]:
    """Every claim by a readable name. They are read again here for the two that no decision needs."""
    proven, payload = verified.credential, signed.credential.payload
    _, holder = parse_claims(payload)
    return {
        "plate": proven.plate.text,
        "plate_kind": proven.plate.kind,
        "vehicle_type": proven.vehicle_type,
        "inspection_valid_until": proven.valid_until,
        "compulsory_insurance_until": proven.ctp_until,
        "use_nature": proven.use_nature,
        "body_colour": proven.body_colour,
        "mode": proven.mode,
        "serial": proven.serial,
        "issuer": proven.issuer,
        "issued_at": proven.issued_at,
        "not_before": proven.not_before,
        "expires_at": proven.expires_at,
        "status_list": proven.status_list,
        "status_index": proven.status_index,
        "vin_hash": proven.vin_hash,
        "tid_hash": proven.tid_hash,
        "holder_key": f"{holder.alg.name} {holder.key.hex()}" if holder else None,
        "encrypted": cbor.decode(payload)[MARK].get(ENCRYPTED),
    }


def _json(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if value is None or type(value) is int else printable(_text(value), LONGEST)
        for name, value in values.items()
    }


def _for_people(value: Any) -> str:
    """A value as text, times in Asia/Shanghai."""
    if isinstance(value, datetime):
        return value.astimezone(SHANGHAI).isoformat(" ", "seconds")
    return "-" if value is None else _text(value)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, date) else str(value)
