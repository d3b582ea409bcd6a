"""Fuzzing the way from the bytes of a code to its answer, and the promises that each answer must keep.

    python -m tests.fuzz_credential -runs=100000 corpus/

The arguments are those of libFuzzer; a corpus folder that is missing or empty is filled with the complete examples.
The normal suite runs `one_input` on those examples and on random bytes, without the fuzzer.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

from tests.golden import CASES, NOW, golden_trust
from verifier.adapters import code_evidence
from verifier.codec import cose
from verifier.codec.base45 import decode as base45_decode
from verifier.codec.credential import PREFIX, SignedCredential, decode, encode
from verifier.decide import decide
from verifier.errors import CodeError
from verifier.plates import ALPHABET
from verifier.policy import Policy
from verifier.trust import TrustList
from verifier.types import Algorithm, CodeEvidence, Credential, Evidence, KeyRole, SignatureState
from verifier.verdict import Tone, VerdictCode
from verifier.verify import verify

MISSING = """\
The fuzzer "atheris" is not installed for this Python. It has wheels for x86-64 Linux:

    python -m venv fuzz && fuzz/bin/pip install atheris cbor2 cryptography
    fuzz/bin/python -m tests.fuzz_credential -runs=100000 corpus/
"""

UNKNOWN_KID = bytes(8)


class World(NamedTuple):
    """What the examples prove: the keys, every credential that one of them signed, every answer without a fault."""

    trust: TrustList
    signed: frozenset[Credential]
    accepted: frozenset[CodeEvidence]


@cache
def world() -> World:
    trust = golden_trust()
    found = [code_evidence(case["text"].encode(), trust, NOW) for case in CASES.values()]
    proven = [e for e in found if e.signature is SignatureState.VALID]
    return World(
        trust,
        frozenset(e.credential for e in proven if e.credential is not None),
        frozenset(e for e in proven if e.fault is None),
    )


def judge(payload: bytes) -> CodeEvidence:
    """The answer to the bytes of a code; AssertionError when it breaks a promise, and nothing else is ever raised."""
    here = world()
    evidence = code_evidence(payload, here.trust, NOW)
    verdict = decide(Evidence(code=evidence), Policy(), NOW)
    if evidence.signature is SignatureState.VALID:
        assert evidence.credential in here.signed, "altered claims were proven"
        assert evidence.fault is not None or evidence in here.accepted, "something altered was accepted"
    else:
        assert verdict.tone is not Tone.PASS, "green without a proof"
        assert payload == b"" or evidence.fault is not None, "a refusal without a code"
    assert (evidence.signature is SignatureState.INVALID) == (verdict.code is VerdictCode.FORGED)
    if evidence.signature is SignatureState.INVALID:
        assert keys_are_known(decode(payload), here.trust), "an unknown key was called a forgery"
    if evidence.credential is not None:
        assert is_plain(evidence.credential), "hostile text in a claim"
    return evidence


def keys_are_known(signed: SignedCredential, trust: TrustList) -> bool:
    """Whether what was called a forgery stands under keys that this list has in their roles, or under the holder's."""
    if trust.find(signed.credential.kid, KeyRole.CREDENTIAL) is None:
        return False
    outer = signed.presentation
    if outer is None or outer.kid is None or trust.find(outer.kid, KeyRole.FRESHNESS) is not None:
        return True
    try:
        verify(SignedCredential(signed.credential), trust, NOW)
    except CodeError:
        return True  # already the credential inside was forged
    return False


def is_plain(credential: Credential) -> bool:
    """Whether every text in the claims has the characters of its field only."""
    codes = (credential.vehicle_type, credential.use_nature, credential.body_colour, credential.issuer)
    return (
        set(credential.plate.text) <= set(ALPHABET)
        and set(credential.serial) <= set("0123456789abcdef")
        and all(text is None or (text.isascii() and text.isalnum() and len(text) <= 6) for text in codes)
    )


def forms(data: bytes) -> Iterator[bytes]:
    """The data as the bytes of a code, as a COSE_Sign1 inside one, and as claims under a key that nobody knows."""
    yield data
    yield encode(data).encode()
    protected = cose.protected_header(Algorithm.ES256, UNKNOWN_KID, cose.TYP_CREDENTIAL)
    yield encode(cose.join(protected, data, bytes(cose.SIGNATURE_LENGTH))).encode()


def one_input(data: bytes) -> None:
    """The fuzzer's target."""
    for payload in forms(data):
        judge(payload)


def seeds() -> Iterator[bytes]:
    """The examples as text, as COSE_Sign1, and their payloads."""
    for case in CASES.values():
        yield case["text"].encode()
        try:
            data = base45_decode(case["text"].removeprefix(PREFIX))
            sign1 = cose.parse_sign1(data)
        except CodeError:
            continue
        yield from (data, sign1.payload)


def fill(folder: Path) -> None:
    """Write the seeds into an empty corpus folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        for number, seed in enumerate(seeds()):
            (folder / f"seed-{number:03d}").write_bytes(seed)


def our_functions() -> list[FunctionType]:
    """The functions under test, which are loaded by now: to instrument what they use as well takes minutes."""
    modules = [module for name, module in sys.modules.items() if name.startswith("verifier.")]
    values = [value for module in modules for value in vars(module).values() if isinstance(value, FunctionType)]
    return [function for function in dict.fromkeys(values) if function.__module__.startswith("verifier.")]


def main(argv: Sequence[str]) -> int:
    """Fuzz; the arguments are those of libFuzzer."""
    try:
        atheris = importlib.import_module("atheris")
    except ModuleNotFoundError:
        sys.stderr.write(MISSING)
        return 1
    for name in argv[1:]:
        if not name.startswith("-") and not Path(name).is_file():
            fill(Path(name))
    for function in our_functions():
        atheris.instrument_func(function)
    atheris.Setup(list(argv), one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
