"""The worked example of docs/credential-format.md: one credential from its claims to its text, byte by byte.

The key is the published test key of RFC 8032 clause 7.1 (TEST 1): it is in no trust list but this one. Ed25519
signatures are deterministic, so the same page comes out every time.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.cli.main import cli
from verifier.codec import cbor, cose
from verifier.codec.credential import encode, encode_claims
from verifier.signature import load_public_key
from verifier.trust import TrustedKey, dump_entries, key_id
from verifier.types import Algorithm, Credential, KeyRole, KeyState, Month, Plate, PresentationMode, Serial, utc
from verifier.vin import binding

SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
VIN = "LSVNV2187E2100001"
TID = "E28011700000020A1B2C3D4E"
AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)  # the moment at which the example is looked at
SERIAL = Serial("a1b2c3d4e5f60718")

_WIDTH = 48  # columns of hex before the meaning


@dataclass(frozen=True, slots=True)
class Example:
    """Every stage of the example; the later ones are made of the earlier ones."""

    entry: TrustedKey
    credential: Credential
    protected: bytes
    payload: bytes
    to_be_signed: bytes
    signature: bytes
    sign1: bytes
    text: str


@cache
def example() -> Example:
    """Make the example: what an issuer does, step by step."""
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    entry = _entry(private.public_key().public_bytes_raw())
    credential = _credential()
    protected = cose.protected_header(entry.alg, entry.kid, cose.TYP_CREDENTIAL)
    payload = encode_claims(credential)
    message = cose.sig_structure(protected, payload)
    signature = private.sign(message)
    sign1 = cose.join(protected, payload, signature)
    return Example(entry, credential, protected, payload, message, signature, sign1, encode(sign1))


def _entry(public: bytes) -> TrustedKey:
    return TrustedKey(
        kid=key_id(Algorithm.EDDSA, public),
        alg=Algorithm.EDDSA,
        key=public,
        public=load_public_key(Algorithm.EDDSA, public),
        issuer="120000",
        regions=("津",),
        role=KeyRole.CREDENTIAL,
        not_before=_seconds(2026, 1, 1),
        not_after=_seconds(2027, 1, 1),
        until=_seconds(2029, 4, 1),
        state=KeyState.ACTIVE,
    )


def _credential() -> Credential:
    return Credential(
        serial=SERIAL,
        plate=Plate("津AD12345", "52"),
        valid_until=Month(2027, 8),
        issued_at=datetime(2026, 11, 20, tzinfo=UTC),
        mode=PresentationMode.STORED,
        issuer="120000",
        expires_at=datetime(2026, 12, 20, tzinfo=UTC),
        status_list=1,
        status_index=73,
        ctp_until=date(2027, 8, 14),
        vehicle_type="K33",
        use_nature="A",
        body_colour="A",
        vin_hash=binding(b"VM1-VIN", SERIAL, VIN),
        tid_hash=binding(b"VM1-TID", SERIAL, TID),
    )


def _seconds(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


# ------------------------------------------------------------------------------------- hex beside its meaning


@dataclass(frozen=True, slots=True)
class Note:
    """What a CBOR item means: fixed words or words made from the value, and the notes of what is inside it."""

    words: str | Callable[[Any], str]
    inside: Mapping[int, Note] = field(default_factory=dict)

    def of(self, value: Any) -> str:
        """The words for this value."""
        return self.words if isinstance(self.words, str) else self.words(value)


def annotated(value: Any, note: Note) -> str:
    """An item as lines of hex with their meanings; the hex of all lines in order is the item's encoding."""
    return _block(_lines("", value, note, 0))


def _lines(key: str, value: Any, note: Note, depth: int) -> Iterator[str]:
    encoded = cbor.encode(value)
    if isinstance(value, dict):
        inside = [(cbor.encode(k).hex() + " ", v, note.inside[k]) for k, v in _in_order(value)]
    elif isinstance(value, list):
        inside = [("", v, note.inside[place]) for place, v in enumerate(value)]
    elif isinstance(value, bytes | str) and len(encoded) > 1:
        yield from _string(key, value, encoded, note, depth)
        return
    else:
        yield _line(key + encoded.hex(), note.of(value), depth)
        return
    length = sum(len(cbor.encode(v)) + len(k) // 2 for k, v, _ in inside)
    yield _line(key + encoded[: len(encoded) - length].hex(), note.of(value), depth)
    for k, v, its in inside:
        yield from _lines(k, v, its, depth + 1)


def _string(key: str, value: bytes | str, encoded: bytes, note: Note, depth: int) -> Iterator[str]:
    """Head and content on one line where they fit, else the content below in full."""
    content = value if isinstance(value, bytes) else value.encode()
    head = key + encoded[: len(encoded) - len(content)].hex()
    if len(content) <= 12:
        yield _line(f"{head} {content.hex()}", note.of(value), depth)
        return
    yield _line(head, note.of(value), depth)
    yield from ("  " * (depth + 1) + part for part in wrap(content.hex(), 64))


def _in_order(value: dict[int, Any]) -> list[tuple[int, Any]]:
    return sorted(value.items(), key=lambda pair: cbor.encode(pair[0]))


def _line(code: str, meaning: str, depth: int) -> str:
    return f"{'  ' * depth + code:{_WIDTH}}  {meaning}"


def _block(lines: Iterator[str] | list[str]) -> str:
    return "```\n" + "".join(f"{line.rstrip()}\n" for line in lines) + "```\n"


def _time(name: str) -> Note:
    return Note(lambda value: f"{name} {utc(value):%Y-%m-%dT%H:%M:%SZ}")


def _named(name: str) -> Note:
    return Note(lambda value: f"{name} {value}")


def _length(name: str) -> Note:
    return Note(lambda value: f"{name}, {len(value)} bytes")


_ENTRY = Note(
    "one entry",
    {
        1: Note("kid"),
        2: Note("alg -8, EdDSA"),
        3: Note("key, 32 bytes"),
        4: _named("iss"),
        5: Note("regions", {0: _named("plates that begin with")}),
        6: Note("role 1, credential"),
        7: _time("nbf"),
        8: _time("naf"),
        9: _time("until"),
        10: Note("state 1, active"),
    },
)
_HEADER = Note("three labels", {1: Note("alg -8, EdDSA"), 4: Note("kid"), 16: Note("typ 65001, credential")})
_MARK = {
    1: _named("plate"),
    2: _named("plate kind"),
    3: _named("vehicle type"),
    4: _named("inspection valid until"),
    5: _named("compulsory insurance until"),
    6: Note("fingerprint of the VIN"),
    7: Note("fingerprint of the TID"),
    8: Note("mode 2, stored"),
    9: Note("status", {0: _named("list"), 1: _named("index")}),
    10: _named("use nature"),
    11: _named("body colour"),
}
_CLAIMS = Note(
    "five claims",
    {
        1: _named("iss"),
        4: _time("exp"),
        6: _time("iat"),
        7: Note("cti, the serial"),
        -65537: Note("the mark, eleven entries", _MARK),
    },
)


# --------------------------------------------------------------------------------------- the parts of the page


def entry_lines() -> str:
    """The trust list of this one key."""
    return annotated(cbor.decode(dump_entries([example().entry])), Note("a list of one entry", {0: _ENTRY}))


def key_id_lines() -> str:
    """What is hashed to the kid."""
    entry = example().entry
    hashed = [int(entry.alg), entry.key]
    block = annotated(hashed, Note("[alg, key]", {0: Note("alg -8"), 1: Note("key, 32 bytes")}))
    return f"{block}\nSHA-256 of these bytes begins with the kid, `{entry.key_id}`.\n"


def fingerprint_lines() -> str:
    """What is hashed to the fingerprints."""
    lines = []
    for kind, value in ((b"VM1-VIN", VIN), (b"VM1-TID", TID)):
        lines += [
            _line(kind.hex(), f'"{kind.decode()}"', 0),
            _line(SERIAL, "cti", 0),
            _line(value.encode().hex(), f'"{value}"', 0),
            _line("→ " + binding(kind, SERIAL, value).hex(), "first 8 bytes of SHA-256", 0),
        ]
    return _block(lines)


def header_lines() -> str:
    """The protected header."""
    return annotated(cbor.decode(example().protected), _HEADER)


def claims_lines() -> str:
    """The payload."""
    return annotated(cbor.decode(example().payload), _CLAIMS)


def to_be_signed_lines() -> str:
    """The Sig_structure."""
    made = example()
    parts = {
        0: _named("context"),
        1: _length("protected header"),
        2: Note("external_aad, empty"),
        3: _length("payload"),
    }
    return annotated(["Signature1", made.protected, b"", made.payload], Note("Sig_structure", parts))


def sign1_lines() -> str:
    """The COSE_Sign1."""
    made = example()
    parts = {
        0: _length("protected header"),
        1: Note("unprotected header, empty"),
        2: _length("payload"),
        3: _length("signature"),
    }
    array = annotated([made.protected, {}, made.payload, made.signature], Note("four parts", parts))
    return array.replace("```\n", "```\n" + _line(f"{cose.TAG:02x}", "tag 18, COSE_Sign1", 0) + "\n", 1)


def text_lines() -> str:
    """The text of the code. It has spaces of its own, so it stands on one line."""
    made = example()
    return f"{len(made.sign1)} bytes give {len(made.text)} characters:\n\n```\n{made.text}\n```\n"


def inspect_lines() -> str:
    """What the technician's command says of it, at the stated time and under the example's trust list."""
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(out):
        path = Path(folder) / "entries.cbor"
        path.write_bytes(dump_entries([example().entry]))
        moment = AT.isoformat().replace("+00:00", "Z")
        words = ["credential", "inspect", example().text, "--trust", str(path), "--at", moment]
        cli.main(words, prog_name="markcheck", standalone_mode=False)
    command = f"markcheck credential inspect - --trust entries.cbor --at {moment} < code.txt"
    return _block(["$ " + command, *out.getvalue().splitlines()])


PARTS: dict[str, Callable[[], str]] = {
    "example_key_id": key_id_lines,
    "example_entry": entry_lines,
    "example_fingerprints": fingerprint_lines,
    "example_header": header_lines,
    "example_claims": claims_lines,
    "example_to_be_signed": to_be_signed_lines,
    "example_sign1": sign1_lines,
    "example_text": text_lines,
    "example_inspect": inspect_lines,
}
