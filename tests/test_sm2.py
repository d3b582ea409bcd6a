"""SM2 with SM3: the standard's sample, attacks, another implementation, and what happens where it is absent."""

from __future__ import annotations

import gc
import json
import os
import random
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, Structure, byref, c_char_p, c_int, c_size_t, c_ulong, c_void_p, create_string_buffer
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from scripts.sandbox import issuer as issuer_module
from scripts.sandbox.issuer import SM2_CITY, Issuer, issuing_keys
from scripts.sandbox.keys import SigningKey, load_key, make_private_key, save_keys, signing_key
from scripts.sandbox.sm2_keys import Sm2PrivateKey, is_sm2_pem
from tests.conftest import ROOT
from verifier import sm2
from verifier.codec.cose import SIGNATURE_LENGTH
from verifier.codec.credential import decode, encode
from verifier.errors import CodeError
from verifier.signature import load_public_key, verify_with
from verifier.sm2 import ORDER, Sm2PublicKey
from verifier.trust import TrustList, load_trust_list
from verifier.types import Algorithm, CodeFault, Credential, KeyRole, Month, Plate, PresentationMode, Serial
from verifier.verify import verify

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MESSAGE = b"a message"


@pytest.fixture(scope="module")
def library():
    found = sm2.libcrypto()
    if found is None:
        pytest.skip("this machine's libcrypto has no SM2 (OpenSSL 3 needed)")
    sm2.declare(found, {"ERR_peek_error": (c_ulong, ())})
    return found


@pytest.fixture(scope="module")
def private(library) -> Sm2PrivateKey:
    return Sm2PrivateKey.generate()


@pytest.fixture(scope="module")
def public(library, private) -> Sm2PublicKey:
    return Sm2PublicKey(library, private.public_bytes())


def test_an_algorithm_without_a_branch_of_its_own_is_never_taken_for_sm2(library, public):
    """A key of 65 bytes tells nothing of its algorithm."""
    newer = int.__new__(Algorithm, -9)
    newer._name_, newer._value_ = "ESP256", -9
    for use in (lambda: load_public_key(newer, public.encoded), lambda: make_private_key(newer)):
        with pytest.raises(AssertionError, match="unreachable"):
            use()
    with pytest.raises(AssertionError, match="unreachable"):
        verify_with(object(), MESSAGE, bytes(SIGNATURE_LENGTH))


# ------------------------------------------------------------------------------------------------- vectors


def test_vectors_of_gbt_32918_5(library, vectors):
    seen = set()
    for case in json.loads(vectors("sm2_gbt32918.json").read_text())["tests"]:
        if case.get("kind") == "digest":
            continue
        key, message, signature = (bytes.fromhex(case[name]) for name in ("key", "msg", "sig"))
        try:
            good = Sm2PublicKey(library, key).verify(message, signature, case["uid"].encode())
        except ValueError:
            assert "off-curve" in case["id"], case["id"]
            good = False
        assert good is (case["result"] == "valid"), case["id"]
        seen.add(good)
        assert library.ERR_peek_error() == 0, case["id"]
    assert seen == {True, False}


def test_the_digest_is_sm3(library, vectors):
    functions = {"EVP_Q_digest": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t, c_char_p, c_void_p))}
    sm2.declare(library, functions)
    digests = [c for c in json.loads(vectors("sm2_gbt32918.json").read_text())["tests"] if c.get("kind") == "digest"]
    for case in digests:
        buffer, length, message = create_string_buffer(32), c_size_t(), bytes.fromhex(case["msg"])
        assert library.EVP_Q_digest(None, b"SM3", None, message, len(message), buffer, byref(length)) == 1
        assert buffer.raw[: length.value].hex() == case["digest"]
    assert digests


def test_the_encoded_key_of_every_algorithm_is_taken(library):
    for alg in Algorithm:
        key = signing_key(alg, issuer="510100", regions=("川A",), role=KeyRole.CREDENTIAL, now=NOW)
        signature = key.sign(MESSAGE)
        public = load_public_key(alg, key.entry.key)
        assert verify_with(public, MESSAGE, signature)
        assert not verify_with(public, MESSAGE + b".", signature)
        assert not verify_with(public, MESSAGE, signature[:-1])
        with pytest.raises(ValueError, match="key"):
            load_public_key(alg, key.entry.key[:-1])


# ------------------------------------------------------------------------------------------------- attacks


def test_bad_keys_are_refused(library, private):
    good = private.public_bytes()
    hybrid = bytes([6 + good[64] % 2]) + good[1:]  # SEC 1 knows this form, the format does not
    compressed = bytes([2 + good[64] % 2]) + good[1:33]
    p256 = signing_key(Algorithm.ES256, issuer="", regions=(), role=KeyRole.CREDENTIAL, now=NOW).entry.key
    moved = good[:64] + bytes([good[64] ^ 1])
    over = b"\x04" + b"\xff" * 64
    for key in (b"", b"\x00", good[1:], good + b"\x00", hybrid, compressed, p256, moved, over, b"\x04" + bytes(64)):
        with pytest.raises(ValueError, match="key"):
            load_public_key(Algorithm.SM2, key)
        assert library.ERR_peek_error() == 0
    assert load_public_key(Algorithm.SM2, good) == Sm2PublicKey(library, good)


def test_any_flipped_bit_is_refused(private, public):
    signature = private.sign(MESSAGE)
    assert public.verify(MESSAGE, signature)
    for bit in range(512):
        assert not public.verify(MESSAGE, flipped(signature, bit)), bit
    for bit in range(8 * len(MESSAGE)):
        assert not public.verify(flipped(MESSAGE, bit), signature), bit


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data) ^ 1 << bit).to_bytes(len(data))


def test_numbers_outside_the_group_are_refused(private, public):
    signature = private.sign(MESSAGE)
    for number in (0, ORDER, ORDER + 1, 2**256 - 1):
        assert not public.verify(MESSAGE, number.to_bytes(32) + signature[32:])
        assert not public.verify(MESSAGE, signature[:32] + number.to_bytes(32))
    r = int.from_bytes(signature[:32])
    assert not public.verify(MESSAGE, signature[:32] + (ORDER - r).to_bytes(32))  # r + s = 0, GB/T 32918.2 clause 7.1
    for length in (0, 63, 65, 128):
        assert not public.verify(MESSAGE, (signature + signature)[:length])
    assert not public.verify(MESSAGE, signature[:32] + b"\x00" + signature[32:])


def test_another_signers_id_or_key_is_refused(library, private, public):
    signature = private.sign(MESSAGE, b"ALICE123@YAHOO.COM")
    assert not public.verify(MESSAGE, signature)
    assert public.verify(MESSAGE, signature, b"ALICE123@YAHOO.COM")
    assert not Sm2PublicKey(library, Sm2PrivateKey.generate().public_bytes()).verify(MESSAGE, private.sign(MESSAGE))


def test_a_failure_inside_libcrypto_is_no_wrong_signature(library, private, public):
    signature = private.sign(MESSAGE)
    with pytest.raises(CodeError) as caught:
        public.verify(MESSAGE, signature, bytes(9000))  # longer than the 16 bits of its length in bits
    assert caught.value.fault is CodeFault.ALG_UNAVAILABLE
    assert library.ERR_peek_error() == 0
    assert public.verify(MESSAGE, signature)


# ----------------------------------------------------------------------------------- another implementation


def test_gmssl_agrees(library):
    gmssl = pytest.importorskip("gmssl.sm2", reason="gmssl, a second implementation of SM2, is not installed")
    rng = random.Random(5)
    for _ in range(10):
        secret = f"{rng.randrange(1, ORDER - 1):064x}"
        oracle = gmssl.CryptSM2(secret, "")
        oracle.public_key = oracle._kg(int(secret, 16), oracle.ecc_table["g"])
        public = Sm2PublicKey(library, b"\x04" + bytes.fromhex(oracle.public_key))
        message = rng.randbytes(rng.randrange(1, 300))
        theirs = bytes.fromhex(oracle.sign_with_sm3(message))
        assert public.verify(message, theirs)
        assert not public.verify(message + b"\x00", theirs)
        ours = Sm2PrivateKey.generate()
        oracle.public_key = ours.public_bytes()[1:].hex()
        signature = ours.sign(message)
        assert oracle.verify_with_sm3(signature.hex(), message)
        assert not oracle.verify_with_sm3(signature.hex(), message + b"\x00")


# ------------------------------------------------------------------------------- credentials, and its absence


@pytest.fixture(scope="module")
def issuer(library) -> Issuer:
    return Issuer(issuing_keys(NOW))


@pytest.fixture(scope="module")
def stored() -> Credential:
    return Credential(
        serial=Serial("00112233445566778899aabb"),
        plate=Plate("川A12345", "02"),
        valid_until=Month(2027, 8),
        issued_at=NOW - timedelta(days=2),
        mode=PresentationMode.STORED,
        issuer=SM2_CITY,
        expires_at=NOW + timedelta(days=20),
        status_list=1,
        status_index=7,
        vehicle_type="K33",
        vin_hash=bytes(8),
    )


def fault_of(text: str, trust: TrustList) -> CodeFault | None:
    try:
        return verify(decode(text.encode()), trust, NOW).fault
    except CodeError as exc:
        return exc.fault


def test_a_city_that_signs_with_sm2_is_verified_like_the_others(issuer, stored):
    trust = load_trust_list(issuer.trust_entries())
    honest = issuer.keys[SM2_CITY]
    assert honest.entry.alg is Algorithm.SM2
    assert fault_of(issuer.text(stored), trust) is None
    imposter = SigningKey(make_private_key(Algorithm.SM2), honest.entry)
    assert fault_of(encode(issuer.sign(stored, imposter)), trust) is CodeFault.SIGNATURE


@pytest.mark.parametrize("find", [sm2.libcrypto, lambda: None], ids=["present", "absent"])
@pytest.mark.parametrize(("head", "last"), [(4, 1), (2, 0)], ids=["off the curve", "no uncompressed point"])
def test_a_bad_sm2_key_is_refused_alike_where_the_algorithm_is_absent(find, head, last, public):
    key = bytes((head,)) + public.encoded[1:-1] + bytes((public.encoded[-1] ^ last,))
    with pytest.raises(ValueError, match="not a point of the SM2 curve"):
        load_public_key(Algorithm.SM2, key, find)


def test_where_sm2_is_absent_a_credential_under_it_is_never_green(issuer, stored):
    entry = issuer.keys[SM2_CITY].entry
    absent = load_public_key(entry.alg, entry.key, lambda: sm2.load_libcrypto(["libmissing.so.3"]))
    assert absent is None
    text = issuer.text(stored)
    for signed in (text, encode(issuer.sign(stored, SigningKey(make_private_key(Algorithm.SM2), entry)))):
        with pytest.raises(CodeError) as caught:
            verify(decode(signed.encode()), TrustList([replace(entry, public=absent)]), NOW)
        assert caught.value.fault is CodeFault.ALG_UNAVAILABLE
        assert caught.value.claims == stored  # for the officer to compare
    assert fault_of(text, TrustList([entry])) is None


def test_an_openssl_3_that_has_the_curve_is_found():
    try:
        usual = CDLL("libcrypto.so.3")
    except OSError:
        pytest.skip("no libcrypto.so.3 on this machine")
    sm2.declare(usual, {"EC_GROUP_new_by_curve_name": (c_void_p, (c_int,)), "EC_GROUP_free": (None, (c_void_p,))})
    group = usual.EC_GROUP_new_by_curve_name(1172)  # NID_sm2
    usual.EC_GROUP_free(group)
    if group is None:
        pytest.skip("this machine's libcrypto was built without SM2")
    assert sm2.libcrypto() is not None


def test_libraries_without_sm2_are_passed_over(library):
    assert sm2.load_libcrypto([]) is None
    assert sm2.load_libcrypto(["libmissing.so.3", "libc.so.6"]) is None
    assert sm2.load_libcrypto(["libc.so.6", library._name]) is not None


def test_an_openssl_whose_providers_have_no_sm2_counts_as_absent(library, tmp_path):
    config = tmp_path / "openssl.cnf"
    config.write_text("openssl_conf = a\n[a]\nproviders = b\n[b]\nbase = c\n[c]\nactivate = 1\n")
    code = f"from verifier import sm2; print(sm2.load_libcrypto([{library._name!r}]))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENSSL_CONF": str(config), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert run.stdout.strip() == "None"


def test_no_program_is_started_where_the_library_has_its_usual_name(monkeypatch):
    def find(name):
        raise AssertionError("searched")

    monkeypatch.setattr("ctypes.util.find_library", find)
    assert next(sm2.library_names()) == "libcrypto.so.3"


def test_the_library_is_not_sought_before_there_is_an_sm2_key():
    code = (
        "from verifier import check, sm2, signature; from verifier.types import Algorithm;"
        "signature.load_public_key(Algorithm.EDDSA, bytes(32));"
        "print(sm2.libcrypto.cache_info().currsize)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "0"


def test_nothing_that_the_appliance_holds_can_sign():
    assert not any("EVP_DigestSign" in path.read_text() for path in (ROOT / "verifier").rglob("*.py"))


# -------------------------------------------------------------------------------------------- sandbox's keys


def test_a_saved_key_comes_back_and_only_its_owner_may_read_it(library, tmp_path):
    key = signing_key(Algorithm.SM2, issuer=SM2_CITY, regions=("川A",), role=KeyRole.CREDENTIAL, now=NOW)
    save_keys(tmp_path, [key])
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    back = load_key(tmp_path, issuer=SM2_CITY, regions=("川A",), role=KeyRole.CREDENTIAL, begin=NOW)
    assert back.entry == key.entry
    assert verify_with(key.entry.public, MESSAGE, back.sign(MESSAGE))


def test_other_private_keys_are_not_taken_for_sm2(library, private, tmp_path):
    other = signing_key(Algorithm.ES256, issuer="110000", regions=("京",), role=KeyRole.CREDENTIAL, now=NOW)
    save_keys(tmp_path, [other])
    (path,) = tmp_path.iterdir()
    for pem in (path.read_bytes(), b""):
        assert not is_sm2_pem(pem)
        with pytest.raises(ValueError, match="SM2"):
            Sm2PrivateKey.from_pem(pem)


def test_a_damaged_private_key_is_refused(library, private):
    pem = private.pem()
    for place in (30, 100):
        with pytest.raises(ValueError, match="padding|SM2"):
            Sm2PrivateKey.from_pem(pem[:place] + pem[place + 4 :])
        assert library.ERR_peek_error() == 0


def test_without_sm2_every_city_signs_with_what_there_is(monkeypatch):
    monkeypatch.setattr(issuer_module, "libcrypto", lambda: None)
    keys = issuing_keys(NOW)
    assert keys[SM2_CITY].entry.alg is Algorithm.ES256
    assert {key.entry.alg for key in keys.values()} == {Algorithm.ES256, Algorithm.EDDSA}


# ------------------------------------------------------------------------------------------ threads, memory


def test_eight_threads_verify_with_one_key_at_once(private, public):
    good = private.sign(MESSAGE)
    bad = private.sign(b"another message")

    def work(_: int) -> bool:
        return all(public.verify(MESSAGE, good) and not public.verify(MESSAGE, bad) for _ in range(25))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


@pytest.mark.parametrize("rounds", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_no_memory_is_lost_on_any_path(library, private, rounds):
    key, good = private.public_bytes(), private.sign(MESSAGE)

    def work(times: int) -> None:
        for _ in range(times):
            public = Sm2PublicKey(library, key)
            assert public.verify(MESSAGE, good)
            assert not public.verify(b"another message", good)
            with pytest.raises(CodeError):
                public.verify(MESSAGE, good, bytes(9000))
            with pytest.raises(ValueError, match="key"):
                Sm2PublicKey(library, b"\x04" + b"\x01" * 64)

    work(20)  # what libcrypto and Python keep for good is made here
    before = heap_in_use()
    work(rounds)
    assert heap_in_use() - before < 100 * rounds  # bytes; the smallest thing of libcrypto's is larger


def heap_in_use() -> int:
    """Bytes that this thread's part of the C heap has given out."""

    class Mallinfo2(Structure):
        _fields_: ClassVar = [
            *((name, c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
            *((name, c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
        ]

    try:
        mallinfo2 = CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("this C library cannot say how much memory is in use (glibc 2.33 can)")
    mallinfo2.restype, mallinfo2.argtypes = Mallinfo2, ()
    gc.collect()
    info = mallinfo2()
    return info.uordblks + info.hblkhd
