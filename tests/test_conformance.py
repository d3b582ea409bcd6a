"""Vectors that others made: the layers under the credential agree with each of them, and say which they refuse.

A comparison is between two tables by vector id, so that a failure names the vector.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from tests.golden import GOLDEN, PATH, golden_trust, signed_list
from verifier.codec import base45, cbor, cose
from verifier.codec.credential import decode
from verifier.errors import CodeError
from verifier.signature import load_public_key, verify_with
from verifier.types import Algorithm, CodeFault


def verify_raw(alg: int, key: bytes, message: bytes, signature: bytes) -> bool:
    return verify_with(load_public_key(Algorithm(alg), key), message, signature)


@pytest.fixture
def load(vectors) -> Callable[[str], list[dict[str, Any]]]:
    return lambda name: json.loads(vectors(name).read_text(encoding="utf-8"))["tests"]


def answer(step: Callable[[], object]) -> str:
    """ "ok", or the code of the refusal."""
    try:
        step()
    except CodeError as exc:
        return exc.fault.value
    return "ok"


def by_id(cases: list[dict[str, Any]], value: Callable[[dict[str, Any]], object]) -> dict[str, object]:
    table = {case["id"]: value(case) for case in cases}
    assert len(table) == len(cases) > 0
    return table


def raw_result(case: dict[str, Any], message: bytes, signature: str) -> bool:
    return verify_raw(Algorithm.ES256, bytes.fromhex(case["key"]), message, bytes.fromhex(signature))


# ---------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("name", ["wycheproof_ecdsa_p256_p1363_A.json", "wycheproof_ed25519_A.json"])
def test_wycheproof_signatures(load, name):
    cases = load(name)
    ours = by_id(cases, lambda c: verify_raw(c["alg"], *(bytes.fromhex(c[field]) for field in ("key", "msg", "sig"))))
    assert ours == by_id(cases, lambda c: c["result"] == "valid")


def test_an_algorithm_or_a_key_of_no_known_kind_proves_nothing():
    with pytest.raises(AssertionError):
        load_public_key(-257, b"\x04" + bytes(64))
    with pytest.raises(AssertionError):
        verify_with(object(), b"", bytes(64))


@pytest.mark.parametrize(("alg", "lengths"), [(Algorithm.ES256, {33, 65}), (Algorithm.EDDSA, {32})])
def test_a_key_of_another_length_is_refused(alg, lengths):
    for length in set(range(70)) - lengths:
        with pytest.raises(ValueError, match="key: "):
            load_public_key(alg, bytes(length))


# -------------------------------------------------------------------------------------------- base45, CBOR


def test_base45_examples_of_rfc_9285(load):
    cases = load("base45_rfc9285.json")
    assert by_id(cases, lambda c: answer(lambda: base45.decode(c["text"]))) == by_id(
        cases, lambda c: "ok" if c["ok"] else "ENCODING"
    )
    good = [case for case in cases if case["ok"]]
    assert by_id(good, lambda c: base45.decode(c["text"]).hex()) == by_id(good, lambda c: c["hex"])
    assert by_id(good, lambda c: base45.encode(bytes.fromhex(c["hex"]))) == by_id(good, lambda c: c["text"])


def test_cbor_examples_of_rfc_8949_appendix_a(load):
    cases = load("cbor_appendix_a.json")
    # The file tells four ways of not being deterministic apart; they are one code here, with the detail in its text.
    expected = by_id(cases, lambda c: "ok" if c["vm1"]["ok"] else c["vm1"]["code"].partition("_")[0])
    assert by_id(cases, lambda c: answer(lambda: cbor.decode(bytes.fromhex(c["hex"])))) == expected
    good = [case for case in cases if case["vm1"]["ok"]]
    assert by_id(good, lambda c: cbor.encode(cbor.decode(bytes.fromhex(c["hex"]))).hex()) == by_id(
        good, lambda c: c["hex"]
    )
    told = [case for case in good if case["decoded"] is not None]  # JSON cannot say byte strings
    assert by_id(told, lambda c: json.dumps(cbor.decode(bytes.fromhex(c["hex"])), sort_keys=True)) == by_id(
        told, lambda c: json.dumps(c["decoded"], sort_keys=True)
    )


# --------------------------------------------------------------------------------------------------- COSE


def protected_of(data: bytes) -> bytes:
    """The protected header as it enters the Sig_structure: an empty map stands there as no bytes (RFC 9052, 4.4)."""
    return b"" if data == b"\xa0" else data


def parts_of(raw: bytes) -> list[Any]:
    """The array of a COSE_Sign1, whatever tags stand before it."""
    value = cbor2.loads(raw)
    while isinstance(value, cbor2.CBORTag):
        value = value.value
    assert isinstance(value, list | tuple)
    return list(value)


def structure(case: dict[str, Any], raw: str) -> bytes:
    protected, _, payload, _ = parts_of(bytes.fromhex(raw))
    return cose.sig_structure(protected_of(protected), payload)


def test_cose_sign1_examples_of_the_working_group_and_rfc_8392(load):
    cases = load("cose_sign1_A.json")
    assert "CWT/A_3.json" in {case["id"] for case in cases}
    plain = [case for case in cases if not case["external_aad"]]
    assert by_id(plain, lambda c: structure(c, c["raw"]).hex()) == by_id(plain, lambda c: c["sig_structure"])
    verified = by_id(cases, lambda c: raw_result(c, bytes.fromhex(c["sig_structure"]), c["sig"]))
    assert verified == by_id(cases, lambda c: c["signature_result"])


def test_a_signature_with_external_data_does_not_verify_without_them(load):
    cases = [case for case in load("cose_sign1_A.json") if case["external_aad"]]
    assert by_id(cases, lambda c: raw_result(c, structure(c, c["raw"]), c["sig"])) == by_id(cases, lambda _: False)


def test_the_strict_profile_refuses_each_cose_example_by_the_named_code(load):
    cases = load("cose_sign1_A.json")
    ours = by_id(cases, lambda c: answer(lambda: cose.parse_sign1(bytes.fromhex(c["raw"]))))
    assert ours == by_id(cases, lambda c: c["vm1_profile"])


# --------------------------------------------------------------------------------------- real certificates


def test_eu_certificates_are_no_marks(load):
    cases = load("dcc_common.json")
    ours = by_id(cases, lambda c: answer(lambda: decode(c["prefix"].encode())))
    assert ours == by_id(cases, lambda c: c["vm1"]["code"]) == by_id(cases, lambda _: CodeFault.NOT_A_MARK.value)


def eu_text(case: dict[str, Any]) -> str:
    return case["base45"] or case["prefix"].partition(":")[2]


def test_the_base45_of_eu_certificates(load):
    cases = load("dcc_common.json")
    bad = {"common/2DCode/raw/B1.json"}  # "wrong encoding characters"
    ours = by_id(cases, lambda c: answer(lambda: base45.decode(eu_text(c))))
    assert ours == by_id(cases, lambda c: "ENCODING" if c["id"] in bad else "ok")
    good = [case for case in cases if case["id"] not in bad]
    assert by_id(good, lambda c: base45.encode(base45.decode(eu_text(c)))) == by_id(good, eu_text)
    packed = [case for case in good if case["compressed"]]
    assert by_id(packed, lambda c: base45.decode(eu_text(c)).hex()) == by_id(packed, lambda c: c["compressed"])
    signed = [case for case in good if case["cose"] and not case["compressed"]]
    assert by_id(signed, lambda c: zlib.decompress(base45.decode(eu_text(c))).hex()) == by_id(
        signed, lambda c: c["cose"]
    )


def test_the_signatures_of_eu_certificates(load):
    cases = [case for case in load("dcc_common.json") if "sig_structure" in case]
    assert by_id(cases, lambda c: structure(c, c["cose"]).hex()) == by_id(cases, lambda c: c["sig_structure"])
    assert by_id(cases, lambda c: raw_result(c, structure(c, c["cose"]), c["sig"])) == by_id(
        cases, lambda c: c["signature_result"]
    )


def test_the_strict_profile_takes_no_eu_certificate(load):
    cases = [case for case in load("dcc_common.json") if case["cose"]]
    faults = {answer(lambda case=case: cose.parse_sign1(bytes.fromhex(case["cose"]))) for case in cases}
    assert faults <= {"COSE_SHAPE", "CBOR", "HEADER"}  # CBOR: kid stands before alg


# ------------------------------------------------------------------------------------- our own examples


def test_the_complete_examples_are_those_published_with_the_format(vectors):
    assert vectors("vm1_golden.json").read_bytes() == PATH.read_bytes()


def test_the_list_of_the_complete_examples_is_signed_by_one_of_its_roots():
    protected, _, payload, signature = signed_list()
    header = cbor.decode(protected)
    root = next(root for root in GOLDEN["roots"] if root["kid"] == header[4].hex())
    message = cose.sig_structure(protected, payload)
    assert verify_raw(root["alg"], bytes.fromhex(root["key"]), message, signature)
    assert not verify_raw(root["alg"], bytes.fromhex(root["key"]), message + b"\x00", signature)
    assert {key.alg for key in golden_trust().keys.values()} == set(Algorithm)
