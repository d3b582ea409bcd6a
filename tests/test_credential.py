"""VM1 text to VerifiedCredential: our complete examples, and attacks on them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from scripts.sandbox.issuer import Issuer, issuing_keys
from scripts.sandbox.keys import SigningKey, make_private_key, signing_key
from tests.golden import GOLDEN, golden_trust
from verifier.codec import base45, cbor, cose
from verifier.codec.credential import (
    MAX_TEXT,
    HolderKey,
    decode,
    encode,
    encode_claims,
    parse_claims,
    presentation_claims,
)
from verifier.errors import CodeError, TrustListError
from verifier.sm2 import libcrypto
from verifier.trust import TrustList, dump_entries, key_id, load_trust_list
from verifier.types import (
    Algorithm,
    CodeFault,
    Credential,
    KeyRole,
    KeyState,
    Month,
    Plate,
    PresentationMode,
    Serial,
    utc,
)
from verifier.verify import VerifiedCredential, verify, verify_text

NOW = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module", name="golden_trust")
def golden_trust_list() -> TrustList:
    return golden_trust()


def answer(text: str, trust: TrustList, now: datetime) -> dict:
    try:
        verified = verify_text(text, trust, now)
    except CodeError as exc:
        return {"ok": False, "code": exc.fault.value}
    if verified.fault:
        return {"ok": False, "code": verified.fault.value}
    return {"ok": True, "kind": verified.kind, "plate": verified.credential.plate.text}


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: c["id"])
def test_complete_example(case, golden_trust):
    expected = case["expect"]
    if "sm2" in case["id"] and libcrypto() is None:
        expected = {"ok": False, "code": "ALG_UNAVAILABLE"}  # an absent algorithm is never green, and says so
    assert answer(case["text"], golden_trust, utc(case["now"])) == expected


# ------------------------------------------------------------------------------------ attacks on our own


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(issuing_keys(NOW))


@pytest.fixture(scope="module")
def trust(issuer) -> TrustList:
    return load_trust_list(issuer.trust_entries())


@pytest.fixture(scope="module")
def stored() -> Credential:
    return Credential(
        serial=Serial("00112233445566778899aabb"),
        plate=Plate("粤B12345", "02"),
        valid_until=Month(2027, 8),
        issued_at=NOW - timedelta(days=2),
        mode=PresentationMode.STORED,
        issuer="440300",
        expires_at=NOW + timedelta(days=20),
        status_list=1,
        status_index=7,
        vehicle_type="K33",
        vin_hash=bytes(8),
    )


def fault_of(text: str, trust: TrustList, now: datetime = NOW) -> CodeFault | None:
    try:
        return verify(decode(text.encode()), trust, now).fault
    except CodeError as exc:
        return exc.fault


def test_a_credential_survives_the_road(issuer, trust, stored):
    verified = verify(decode(issuer.text(stored).encode()), trust, NOW)
    assert verified == VerifiedCredential(credential=stored, mode=PresentationMode.STORED)


def test_any_single_changed_character_is_refused(issuer, trust, stored):
    text = issuer.text(stored)
    rng = random.Random(7)
    for place in range(4, len(text)):
        other = rng.choice(base45.ALPHABET.replace(text[place], ""))
        assert fault_of(text[:place] + other + text[place + 1 :], trust) is not None, place


def test_every_truncation_is_refused(issuer, trust, stored):
    text = issuer.text(stored)
    assert all(fault_of(text[:length], trust) is not None for length in range(len(text)))


def test_a_forged_signature_under_a_known_key_id_is_a_wrong_signature(issuer, trust, stored):
    imposter = SigningKey(make_private_key(Algorithm.ES256), issuer.keys["440300"].entry)
    assert fault_of(encode(issuer.sign(stored, imposter)), trust) is CodeFault.SIGNATURE


def test_algorithm_confusion_is_refused(issuer, trust, stored):
    key = issuer.keys["440300"]
    payload = encode_claims(stored)
    protected = cose.protected_header(Algorithm.EDDSA, key.entry.kid, cose.TYP_CREDENTIAL)
    text = encode(cose.join(protected, payload, key.sign(cose.sig_structure(protected, payload))))
    assert fault_of(text, trust) is CodeFault.ALG


def test_a_key_in_another_role_is_an_unknown_key(issuer, trust, stored):
    assert fault_of(encode(issuer.sign(stored, issuer.keys["000000"])), trust) is CodeFault.UNKNOWN_KEY


def test_a_plate_outside_the_keys_regions_is_refused(issuer, trust, stored):
    foreign = replace(stored, plate=Plate("京A12345", "02"))
    assert fault_of(issuer.text(foreign), trust) is CodeFault.JURISDICTION
    borrowed = replace(stored, issuer="110000")
    assert fault_of(encode(issuer.sign(borrowed, issuer.keys["440300"])), trust) is CodeFault.JURISDICTION


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"expires_at": NOW + timedelta(days=40)}, CodeFault.LIFETIME),
        ({"expires_at": NOW}, CodeFault.EXPIRED),
        ({"expires_at": NOW + timedelta(seconds=1)}, None),
        ({"issued_at": NOW + timedelta(seconds=31)}, CodeFault.NOT_YET_VALID),
        ({"issued_at": NOW + timedelta(seconds=30)}, None),
        ({"not_before": NOW + timedelta(days=1)}, CodeFault.NOT_YET_VALID),
        ({"issued_at": NOW - timedelta(days=900), "expires_at": NOW - timedelta(days=880)}, CodeFault.KEY_WINDOW),
        ({"mode": PresentationMode.LIVE}, CodeFault.NEEDS_PRESENTATION),
        ({"plate": Plate("粤B1234\u202e", "02")}, CodeFault.CLAIMS),
        ({"plate": Plate("粤B·12345", "02")}, CodeFault.CLAIMS),
        ({"plate": Plate("粤b12345", "02")}, CodeFault.CLAIMS),
        ({"plate": Plate("粤\u1200\u1201\u1202\u1203\u1204", "02")}, CodeFault.CLAIMS),
        ({"plate": Plate("粤\u05d0\u05d1\u05d2\u05d3\u05d4", "02")}, CodeFault.CLAIMS),
        ({"plate": Plate("粤B12345\x1b[31m", "02")}, CodeFault.CLAIMS),
        ({"plate": Plate("粤B12345", "98")}, CodeFault.CLAIMS),
        ({"vehicle_type": "K333"}, CodeFault.CLAIMS),
        ({"vehicle_type": "http"}, CodeFault.CLAIMS),
        ({"vin_hash": bytes(9)}, CodeFault.CLAIMS),
        ({"serial": Serial("00")}, CodeFault.CLAIMS),
        ({"expires_at": NOW - timedelta(days=3)}, CodeFault.CLAIMS),
    ],
)
def test_claims_and_times(issuer, trust, stored, change, fault):
    assert fault_of(encode(issuer.sign(replace(stored, **change))), trust) is fault


@pytest.mark.parametrize("state", [KeyState.COMPROMISED, KeyState.RETIRED])
def test_states_of_a_key(issuer, stored, state):
    keys = {**issuer.keys, "440300": issuer.keys["440300"].in_state(state)}
    trust = load_trust_list(dump_entries(key.entry for key in keys.values()))
    text = issuer.text(stored)
    assert fault_of(text, trust) is (CodeFault.KEY_COMPROMISED if state is KeyState.COMPROMISED else None)
    late = replace(keys["440300"].entry, until=int(NOW.timestamp()) - 1, not_after=int(NOW.timestamp()) - 2)
    retired = load_trust_list(dump_entries([replace(late, state=KeyState.RETIRED)]))
    assert fault_of(text, retired) is CodeFault.KEY_RETIRED


# ---------------------------------------------------------------------------------------- live presentations


@pytest.mark.parametrize(
    ("late", "fault"),
    [(0, None), (90, None), (91, CodeFault.STALE_PRESENTATION), (-30, None), (-31, CodeFault.STALE_PRESENTATION)],
)
def test_a_live_code_is_fresh_for_90_seconds(issuer, trust, stored, late, fault):
    live = replace(stored, mode=PresentationMode.LIVE)
    text = issuer.text(live, shown_at=NOW - timedelta(seconds=late))
    assert fault_of(text, trust) is fault


@pytest.mark.parametrize("issued", [-86400 * 2, 200])
@pytest.mark.parametrize("expires", [86400 * 20, -60])
def test_a_bad_wrapper_is_refused_whatever_became_of_the_credential_inside(issuer, trust, stored, issued, expires):
    if expires < issued:
        issued, expires = -86400 * 2, -60
    times = {"issued_at": NOW + timedelta(seconds=issued), "expires_at": NOW + timedelta(seconds=expires)}
    inner = issuer.sign(replace(stored, mode=PresentationMode.LIVE, **times))
    thief = Issuer(
        {**issuer.keys, "000000": SigningKey(make_private_key(Algorithm.ES256), issuer.keys["000000"].entry)}
    )
    assert fault_of(thief.present(inner, NOW + timedelta(seconds=max(issued, 0))), trust) is CodeFault.SIGNATURE


def test_a_stripped_wrapper_is_noticed_beside_a_clock_that_is_a_little_slow(issuer, trust, stored):
    soon = replace(stored, mode=PresentationMode.LIVE, issued_at=NOW + timedelta(seconds=200))
    assert fault_of(encode(issuer.sign(soon)), trust) is CodeFault.NEEDS_PRESENTATION


def test_a_presentation_by_the_holders_key(issuer, trust, stored):
    for alg in (Algorithm.ES256, Algorithm.EDDSA):
        holder = signing_key(alg, issuer="", regions=("*",), role=KeyRole.FRESHNESS, now=NOW)
        inner = signed_with(issuer, encode_claims(stored, HolderKey(alg, holder.entry.key)))
        assert fault_of(presented(holder, inner, NOW), trust) is None
        thief = SigningKey(make_private_key(alg), holder.entry)
        assert fault_of(presented(thief, inner, NOW), trust) is CodeFault.SIGNATURE
        assert fault_of(presented(holder, issuer.sign(stored), NOW), trust) is CodeFault.HOLDER_KEY


def test_a_printed_credential_cannot_be_presented_live(issuer, trust, stored):
    printed = issuer.sign(replace(stored, mode=PresentationMode.PRINTED))
    assert fault_of(issuer.present(printed, NOW), trust) is CodeFault.CLAIMS


def signed_with(issuer: Issuer, payload: bytes) -> bytes:
    key = issuer.keys["440300"]
    protected = cose.protected_header(key.entry.alg, key.entry.kid, cose.TYP_CREDENTIAL)
    return cose.join(protected, payload, key.sign(cose.sig_structure(protected, payload)))


def presented(key: SigningKey, inner: bytes, shown_at: datetime) -> str:
    payload = presentation_claims(int(shown_at.timestamp()), inner)
    protected = cose.protected_header(key.entry.alg, None, cose.TYP_PRESENTATION)
    return encode(cose.join(protected, payload, key.sign(cose.sig_structure(protected, payload))))


# ------------------------------------------------------------------------------------------- hostile texts


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"", CodeFault.NOT_A_MARK),
        (b"https://www.122.gov.cn/", CodeFault.NOT_A_MARK),
        (b"\x1b]0;owned\x07", CodeFault.NOT_A_MARK),
        (b"VM", CodeFault.NOT_A_MARK),
        (b"vm1:ABC", CodeFault.NOT_A_MARK),
        (b"VM2:ABC", CodeFault.VERSION),
        (b"VM1:" + b"A" * MAX_TEXT, CodeFault.OVERSIZE),
        (b"VM1:\xe4\xba\xac", CodeFault.ENCODING),
        (b"VM1:abc", CodeFault.ENCODING),
        (b"VM1:" + b":" * 30, CodeFault.ENCODING),
        (b"VM1:", CodeFault.COSE_SHAPE),
        (b"VM1:" + base45.encode(b"\xd2").encode(), CodeFault.CBOR),
        (b"VM1:" + base45.encode(b"\xd2\x84\x40\xa0\x40\x40").encode(), CodeFault.COSE_SHAPE),
        (b"VM1:" + base45.encode(b"\xd2" + b"\x81" * 400).encode(), CodeFault.CBOR),
        (b"VM1:" + base45.encode(b"\xd2\x5b\x7f" + b"\xff" * 7).encode(), CodeFault.CBOR),
    ],
)
def test_hostile_bytes_are_named(payload, fault):
    with pytest.raises(CodeError) as caught:
        decode(payload)
    assert caught.value.fault is fault


def test_duplicate_and_unsorted_keys_are_refused():
    for data in ("a201010102", "a202010101", "a1f501", "a101f90000", "a101c101", "a10118 01".replace(" ", "")):
        with pytest.raises(CodeError, match="CBOR"):
            cbor.decode(bytes.fromhex(data))


def test_unknown_mark_keys_below_64_are_refused_and_others_ignored(stored):
    claims = cbor.decode(encode_claims(stored))
    claims[-65537][64] = "later"
    assert parse_claims(cbor.encode(claims))[0] == stored
    claims[-65537][13] = "surprise"
    with pytest.raises(CodeError, match="CLAIMS"):
        parse_claims(cbor.encode(claims))


def test_critical_and_unprotected_headers_are_refused(issuer, stored):
    signed = cbor.decode(issuer.sign(stored)[1:])
    header = cbor.decode(signed[0])
    for protected, unprotected in ((cbor.encode({**header, 2: [99], 99: 1}), {}), (signed[0], {4: b"12345678"})):
        data = b"\xd2" + cbor.encode([protected, unprotected, signed[2], signed[3]])
        with pytest.raises(CodeError, match="HEADER"):
            decode(encode(data).encode())


# ---------------------------------------------------------------------------------------------- trust list


def test_a_trust_list_is_refused_as_a_whole(issuer):
    entries = cbor.decode(issuer.trust_entries())
    good = entries[0]
    off_curve = b"\x04" + b"\x01" * 64
    bad = {
        "twice": [good, good],
        "hash": [{**good, 1: bytes(8)}],
        "entry 0": [{**good, 3: off_curve, 1: key_id(good[2], off_curve)}],
        "1 to 10": [{k: v for k, v in good.items() if k != 5}],
        "regions": [{**good, 5: []}],
        "times": [{**good, 7: good[8] + 1}],
        "field 7": [{**good, 7: "soon"}],
    }
    for named, broken in bad.items():
        with pytest.raises(TrustListError, match=named):
            load_trust_list(cbor.encode(broken))
    for data in (b"", b"\xff", cbor.encode({}), bytes(5_000_000)):
        with pytest.raises(TrustListError):
            load_trust_list(data)
