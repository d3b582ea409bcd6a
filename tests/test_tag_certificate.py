"""Tag certificates: exact bytes, both forms, and that nothing but the signed tag itself verifies."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from hw.rfid.emulator.scene import Tag
from scripts.credential_example import SEED
from scripts.sandbox.authority import new_authority
from scripts.sandbox.fleet import CITIES, fleet
from scripts.sandbox.issuer import Issuer
from scripts.sandbox.keys import SigningKey, save_keys, sign_raw, signing_key
from scripts.sandbox.registry import CredentialEntry
from scripts.sandbox.tags import PersonalisedTag, certificate, plain_epc, tag_key, tag_keys, write_tc0, write_tc1
from tests.conftest import ROOT
from verifier.codec import cose
from verifier.codec import tag as tag_codec
from verifier.codec.credential import encode
from verifier.codec.tag import TagCertificate, decode, tc0_epc, tc1_body, tc1_message
from verifier.errors import CodeError, UntrustedError
from verifier.plates import LETTERS, PROVINCES
from verifier.signature import verify_with
from verifier.sm2 import libcrypto
from verifier.trust import TrustList, dump_entries, key_id, load_trust_list
from verifier.types import Algorithm, CodeFault, KeyRole, KeyState, Month, Plate, PresentationMode, Serial
from verifier.verify import verify_text
from verifier.verify_tag import verify_tag
from verifier.vin import ALPHABET as VIN_ALPHABET

NOW = datetime(2026, 3, 14, 4, 0, tzinfo=UTC)
BEIJING = CITIES[0]
TID = bytes.fromhex("e280117020000123456789ab")
CLAIMS = TagCertificate(
    plate=Plate("京A12345", "02"),
    valid_until=Month(2027, 8),
    status_index=70_000,
    status_list=1,
    vin="LSVAA4182E2123456",
    issued_on=date(2026, 3, 1),
    credential_id=bytes(range(8)),
)
SHORT = replace(CLAIMS, status_index=7_000, status_list=None, vin=None, issued_on=None, credential_id=None)
LOOKS = replace(CLAIMS, vehicle_type="K33", body_colour="AJ")
WRITERS = {"tc1": (write_tc1, CLAIMS), "tc1 with looks": (write_tc1, LOOKS), "tc0": (write_tc0, SHORT)}
SIGNED_BYTES = {"tc1": 102, "tc1 with looks": 106, "tc0": 64}  # of the user bank
ALGORITHMS = [Algorithm.EDDSA, Algorithm.ES256] + ([Algorithm.SM2] if libcrypto() is not None else [])
KEY = tag_key(BEIJING, NOW)
TRUST = TrustList([KEY.entry])


def written(form: str, key=KEY, tid: bytes = TID) -> PersonalisedTag:
    writer, claims = WRITERS[form]
    return writer(key, tid, claims)


def fault_of(tag: PersonalisedTag, trust: TrustList = TRUST, now: datetime = NOW) -> CodeFault:
    with pytest.raises(CodeError) as caught:
        verify_tag(decode(*tag), trust, now)
    return caught.value.fault


# --------------------------------------------------------------------------------------------------- format


def based(text: str, alphabet: str) -> int:
    return sum(alphabet.index(char) * len(alphabet) ** place for place, char in enumerate(reversed(text)))


def test_the_body_of_tc1_is_the_documented_one():
    body = tc1_body(CLAIMS, bytes.fromhex("aabb112233445566"))
    plate = "京A12345"
    number = based(plate[1:] + " ", " 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    vin = based(CLAIMS.vin, "0123456789ABCDEFGHJKLMNPRSTUVWXYZ")
    fields = [
        (1, 1), (0xAABB, 2), (2, 1), (number, 6), (vin, 11), (6 * 365 + 2 + 59, 2), (7 * 12 + 7, 2), (1, 1),
        (70_000, 4), (0x0001020304050607, 8),
    ]  # fmt: skip
    assert body == b"".join(value.to_bytes(size) for value, size in fields)
    assert len(body) == 38
    assert tc1_message(TID, b"\x01\x02", body) == b"VEID-TC1\0\x0c" + TID + b"\x02\x01\x02" + body


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        (("A00", "A"), (1, 729)), (("K33", "AJ"), (1034, 999)), (("Z99", "ZZZ"), (2600, 19_682)),
        (("K33", None), (1034, 0)), ((None, "AB"), (0, 783)),
    ],
)  # fmt: skip
def test_type_and_colours_are_the_four_bytes_after_the_credential(looks, told):
    kid = bytes.fromhex("aabb112233445566")
    body = tc1_body(replace(CLAIMS, vehicle_type=looks[0], body_colour=looks[1]), kid)
    assert body == b"\x02" + tc1_body(CLAIMS, kid)[1:] + b"".join(number.to_bytes(2) for number in told)
    assert len(body) == 42
    assert tc1_message(TID, b"\x01\x02", body) == b"VEID-TC1\0\x0c" + TID + b"\x02\x01\x02" + body


def test_a_certificate_that_tells_no_looks_has_the_bytes_that_it_always_had_and_verifies():
    of_before = "01aabb0200069ad5dc2f22014c00c13ddccabfbf9108cb005b01000111700001020304050607"
    assert tc1_body(CLAIMS, bytes.fromhex("aabb112233445566")).hex() == of_before
    body = b"\x01" + KEY.entry.kid[:2] + bytes.fromhex(of_before)[3:]
    epc = plain_epc(TID)
    signature = KEY.sign(b"VEID-TC1\0\x0c" + TID + b"\x0c" + epc + body)
    assert verify_tag(decode(TID, epc, body + signature), TRUST, NOW).certificate == CLAIMS  # a bank of 102 bytes


def test_the_epc_of_tc0_is_the_documented_one():
    epc = tc0_epc(SHORT, bytes.fromhex("aabb112233445566"))
    assert epc[:2].hex() == "0aab"
    assert epc[2:8] == tc1_body(CLAIMS, bytes(8))[4:10]
    assert int.from_bytes(epc[8:]) == (7 * 12 + 7) << 20 | 2 << 16 | 7_000
    assert len(epc) == 12


def test_provinces_have_the_order_of_the_national_standard_and_none_is_missing():
    bodies = {p: tc1_body(replace(CLAIMS, plate=Plate(f"{p}A12345", "02")), bytes(8))[4] >> 3 for p in PROVINCES}
    assert sorted(bodies.values()) == list(range(31))
    assert [bodies[p] for p in "京津冀沪粤新"] == [0, 1, 2, 8, 18, 30]


plates = st.builds(
    lambda province, letter, rest, kind: Plate(province + letter + rest, kind),
    st.sampled_from(PROVINCES),
    st.sampled_from(LETTERS),
    st.text("0123456789" + LETTERS, min_size=3, max_size=6),
    st.sampled_from(["01", "02", "15", "51", "52"]),
)
months = st.builds(Month, st.integers(2020, 2200), st.integers(1, 12))
full = st.builds(
    TagCertificate,
    plate=plates,
    valid_until=months,
    status_index=st.integers(0, 2**32 - 1),
    status_list=st.integers(0, 255),
    vin=st.text(VIN_ALPHABET, min_size=17, max_size=17),
    issued_on=st.dates(date(2020, 1, 1), date(2199, 6, 5)),
    credential_id=st.binary(min_size=8, max_size=8),
    vehicle_type=st.none() | st.from_regex("[A-Z][0-9]{2}", fullmatch=True),
    body_colour=st.none() | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=3),
)
short = st.builds(TagCertificate, plate=plates, valid_until=months, status_index=st.integers(0, 65535))


@given(full, st.binary(min_size=1, max_size=64), st.binary(min_size=8, max_size=8))
def test_every_certificate_comes_back_from_a_long_bank(claims, tid, kid):
    body = tc1_body(claims, kid)
    signed = decode(tid, b"\xff" * 12, (body + b"\x01" * 64).ljust(128, b"\0"))
    assert signed.certificate == claims
    assert kid.hex().startswith(signed.hint)
    assert signed.message == b"VEID-TC1\0" + bytes((len(tid),)) + tid + b"\x0c" + b"\xff" * 12 + body


@given(short, st.binary(min_size=8, max_size=8))
def test_every_certificate_comes_back_from_a_short_bank(claims, kid):
    signed = decode(TID, tc0_epc(claims, kid), b"\x01" * 64)
    assert signed.certificate == claims
    assert kid.hex().startswith(signed.hint)


@given(st.binary(max_size=130), st.binary(max_size=70), st.binary(max_size=140))
def test_any_memory_is_a_certificate_or_refused_and_never_changes_in_writing_it_again(tid, epc, user):
    try:
        signed = decode(tid, epc, user)
    except CodeError:
        return
    written_again = (
        tc1_body(signed.certificate, bytes.fromhex(signed.hint + "000000000000"))
        if len(user) >= 102
        else tc0_epc(signed.certificate, bytes.fromhex(signed.hint + "0000000000000"))
    )
    assert written_again == (user[: len(written_again)] if len(user) >= 102 else epc)


@given(st.binary(min_size=37, max_size=37), st.binary(min_size=64, max_size=64))
def test_a_body_has_one_encoding_only(rest, signature):
    try:
        signed = decode(TID, b"\xff" * 12, b"\x01" + rest + signature)
    except CodeError as exc:
        assert exc.fault in (CodeFault.CLAIMS, CodeFault.NOT_A_MARK)  # noqa: PT017 - the other way out is checked too
        return
    assert tc1_body(signed.certificate, bytes.fromhex(signed.hint) + bytes(6)) == b"\x01" + rest


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
@example(0, 0)  # neither: that is version 1
@example(2600, 0)
@example(2601, 0)
@example(0, 19_682)
@example(0, 19_683)
@example(0, 1)  # a letter after two blanks
@example(0, 28)
@example(0, 730)  # a blank between two letters
def test_type_and_colours_have_one_encoding_only_and_any_other_number_is_refused(type_number, colour_number):
    looks = type_number.to_bytes(2) + colour_number.to_bytes(2)
    body = tc1_body(LOOKS, KEY.entry.kid)[:38] + looks
    blanks = [digit == 0 for digit in (colour_number // 729, colour_number // 27 % 27, colour_number % 27)]
    sound = type_number <= 2600 and colour_number <= 19_682 and blanks == sorted(blanks) and any(looks)
    try:
        signed = decode(TID, b"\xff" * 12, body + b"\x01" * 64)
    except CodeError as exc:
        assert (exc.fault, sound) == (CodeFault.CLAIMS, False)  # noqa: PT017 - the other way out is checked too
        return
    assert sound
    assert tc1_body(signed.certificate, KEY.entry.kid) == body


@pytest.mark.parametrize(
    ("tid", "epc", "user", "fault"),
    [
        (b"", b"\xff" * 12, bytes(128), CodeFault.NOT_A_MARK),
        (TID, b"", bytes(128), CodeFault.NOT_A_MARK),
        (bytes(65), b"\xff" * 12, bytes(128), CodeFault.NOT_A_MARK),
        (TID, b"\xff" * 12, b"", CodeFault.NOT_A_MARK),
        (TID, b"\xff" * 12, bytes(128), CodeFault.NOT_A_MARK),
        (TID, b"\xff" * 12, b"\xff" * 128, CodeFault.NOT_A_MARK),
        (TID, b"\xff" * 12, b"\x03" + b"\xff" * 127, CodeFault.VERSION),
        (TID, b"\xff" * 12, b"\x02" + b"\xff" * 127, CodeFault.CLAIMS),
        (TID, b"\xff" * 12, b"\x02" + b"\xff" * 104, CodeFault.NOT_A_MARK),  # the signature's last byte was not read
        (TID, b"\xff" * 12, tc1_body(LOOKS, bytes(8)) + bytes(86), CodeFault.NOT_A_MARK),
        (TID, b"\xff" * 12, b"\xff" * 64, CodeFault.NOT_A_MARK),
        (TID, bytes(12), b"\xff" * 64, CodeFault.CLAIMS),
        (TID, bytes(12), bytes(64), CodeFault.NOT_A_MARK),
        (TID, bytes(10), b"\xff" * 64, CodeFault.NOT_A_MARK),
        (TID, b"\xff" * 12, b"\x01" + b"\xff" * 127, CodeFault.CLAIMS),
    ],
)
def test_memory_that_is_no_certificate_is_named(tid, epc, user, fault):
    with pytest.raises(CodeError) as caught:
        decode(tid, epc, user)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    "wrong",
    [
        {"plate": Plate("京A1234警", "23")}, {"plate": Plate("", "02")}, {"plate": Plate("京A123456789", "02")},
        {"plate": Plate("A12345", "02")}, {"plate": Plate("京A 1234", "02")}, {"status_index": 2**32},
        {"status_list": 256}, {"vin": "LSVAA4182E212345I"}, {"vin": None}, {"issued_on": date(2019, 12, 31)},
        {"issued_on": None}, {"credential_id": b"1234567"}, {"valid_until": Month(2019, 12)}, {"status_list": None},
        {"vehicle_type": "K333"}, {"vehicle_type": "k33"}, {"vehicle_type": "K３３"}, {"vehicle_type": ""},
        {"body_colour": "AJCE"}, {"body_colour": "a"}, {"body_colour": "A "}, {"body_colour": "白"},
        {"body_colour": ""},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_without_repeating_it(wrong):
    with pytest.raises(ValueError, match=r"^tag: [a-zA-Z0-9 ]+$"):
        tc1_body(replace(CLAIMS, **wrong), bytes(8))


@pytest.mark.parametrize(
    "wrong", [{"plate": Plate("京A12345", "99")}, {"status_index": 65_536}, {"valid_until": Month(2362, 1)}]
)
def test_what_does_not_fit_into_an_epc_is_refused(wrong):
    with pytest.raises(ValueError, match="^tag: "):
        tc0_epc(replace(SHORT, **wrong), bytes(8))


def test_both_forms_fit_the_banks_they_were_made_for():
    assert len(written("tc1").user) * 8 == len(written("tc1 with looks").user) * 8 == 1024
    assert len(written("tc0").user) * 8 == 512
    for form in WRITERS:
        tag = written(form)
        Tag(tid=tag.tid, epc=tag.epc, user=tag.user)  # whole words, as an emulated tag wants them
        assert len(tag.user.rstrip(b"\0")) <= SIGNED_BYTES[form] <= len(tag.user)


# ----------------------------------------------------------------------------------------------------- proof


@pytest.mark.parametrize("alg", ALGORITHMS, ids=lambda a: a.name)
@pytest.mark.parametrize("form", WRITERS)
def test_a_written_tag_verifies_in_every_algorithm(form, alg):
    key = tag_key(BEIJING, NOW, alg)
    tag = written(form, key)
    verified = verify_tag(decode(*tag), TrustList([KEY.entry, key.entry]), NOW)
    assert verified.certificate == WRITERS[form][1]
    assert verified.key_id == key.entry.key_id


@pytest.mark.parametrize("alg", ALGORITHMS[:2], ids=lambda a: a.name)
@pytest.mark.parametrize("form", WRITERS)
def test_no_single_changed_bit_of_tid_epc_or_certificate_is_accepted(form, alg):
    key = tag_key(BEIJING, NOW, alg)
    tag = written(form, key)
    trust = TrustList([key.entry])
    sizes = (len(tag.tid), len(tag.epc), SIGNED_BYTES[form])
    for place, size in enumerate(sizes):
        for bit in range(size * 8):
            changed = bytearray(tag[place])
            changed[bit // 8] ^= 0x80 >> bit % 8
            spoiled = PersonalisedTag(*(bytes(changed) if place == p else part for p, part in enumerate(tag)))
            assert fault_of(spoiled, trust) is not None


@pytest.mark.parametrize("form", WRITERS)
def test_every_single_changed_bit_of_the_message_or_signature_fails_the_signature_itself(form):
    signed = decode(*written(form))
    public = KEY.entry.public
    assert verify_with(public, signed.message, signed.signature)
    for bit in range(8 * len(signed.message)):
        message = (int.from_bytes(signed.message) ^ 1 << bit).to_bytes(len(signed.message))
        assert not verify_with(public, message, signed.signature)
    for bit in range(512):
        assert not verify_with(public, signed.message, (int.from_bytes(signed.signature) ^ 1 << bit).to_bytes(64))


@pytest.mark.parametrize("form", WRITERS)
def test_a_bank_copied_to_another_tag_proves_nothing(form):
    tag = written(form)
    copied = tag._replace(tid=TID[:-1] + b"\x00")
    assert fault_of(copied) is CodeFault.SIGNATURE
    assert fault_of(tag._replace(epc=plain_epc(b"other")) if form != "tc0" else copied) is CodeFault.SIGNATURE


def test_lengths_are_part_of_the_message_so_that_no_byte_can_move_from_tid_to_epc():
    tag = written("tc1")
    moved = tag._replace(tid=tag.tid + tag.epc[:1], epc=tag.epc[1:])
    assert fault_of(moved) is CodeFault.SIGNATURE


def entry(**changes):
    return replace(KEY.entry, **changes)


DAY = 86400
AT = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("trusted", "now", "fault"),
    [
        ([], NOW, CodeFault.UNKNOWN_KEY),
        ([entry(role=KeyRole.CREDENTIAL)], NOW, CodeFault.UNKNOWN_KEY),
        ([entry(role=KeyRole.STATUS)], NOW, CodeFault.UNKNOWN_KEY),
        ([entry(public=None)], NOW, CodeFault.ALG_UNAVAILABLE),
        ([entry(state=KeyState.COMPROMISED)], NOW, CodeFault.KEY_COMPROMISED),
        ([entry(regions=("粤B",))], NOW, CodeFault.JURISDICTION),
        ([entry(not_before=AT)], NOW, CodeFault.KEY_WINDOW),
        ([entry(not_after=AT - 30 * DAY)], NOW, CodeFault.KEY_WINDOW),
        ([entry(until=AT - 1)], NOW, CodeFault.KEY_RETIRED),
        ([KEY.entry], NOW - timedelta(days=20), CodeFault.NOT_YET_VALID),
    ],
)
def test_a_sound_signature_is_refused_under_a_key_that_may_not_have_made_it(trusted, now, fault):
    tag = written("tc1")
    assert fault_of(tag, TrustList(trusted), now) is fault


def test_a_retired_key_still_proves_what_it_signed_in_its_time():
    trust = TrustList([entry(state=KeyState.RETIRED, not_after=int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()))])
    assert verify_tag(decode(*written("tc1")), trust, NOW).certificate == CLAIMS


def test_two_keys_of_one_beginning_do_not_hide_each_other():
    other = tag_key(BEIJING, NOW)
    alike = replace(other.entry, kid=KEY.entry.kid[:2] + other.entry.kid[2:])
    for order in ([alike, KEY.entry], [KEY.entry, alike]):
        assert verify_tag(decode(*written("tc1")), TrustList(order), NOW).key_id == KEY.entry.key_id
    assert fault_of(written("tc1", tag_key(BEIJING, NOW)), TrustList([alike])) in (
        CodeFault.UNKNOWN_KEY,
        CodeFault.SIGNATURE,
    )


def test_a_key_for_tags_signs_no_credential_and_one_for_credentials_no_tag():
    vehicle = next(v for v in fleet(200, 1, NOW.date()) if v.city == BEIJING)
    credentials = signing_key(Algorithm.EDDSA, issuer=BEIJING.code, regions=("京",), role=KeyRole.CREDENTIAL, now=NOW)
    issuer = Issuer({BEIJING.code: credentials})
    record = CredentialEntry(Serial("00" * 8), 3, vehicle.plate)
    claims = issuer.credential(vehicle, record, PresentationMode.STORED, NOW)
    trust = TrustList([KEY.entry, credentials.entry])
    assert verify_text(issuer.text(claims), trust, NOW).fault is None
    by_tag_key = encode(issuer.sign(claims, KEY))
    with pytest.raises(UntrustedError) as caught:
        verify_text(by_tag_key, trust, NOW)
    assert caught.value.fault is CodeFault.UNKNOWN_KEY
    assert fault_of(written("tc1", credentials), trust) is CodeFault.UNKNOWN_KEY


def test_what_one_purpose_signs_is_no_message_of_another():
    body = tc1_body(CLAIMS, KEY.entry.kid)
    messages = [tc1_message(TID, plain_epc(TID), body), decode(*written("tc0")).message]
    assert all(message.startswith(b"VEID-TC") for message in messages)
    assert cose.sig_structure(b"", body)[:1] == b"\x84"  # a COSE message is a CBOR array, and this is none
    signature = sign_raw(KEY.private, messages[1])
    forged = PersonalisedTag(TID, plain_epc(TID), body + signature)
    assert fault_of(forged) is CodeFault.SIGNATURE


def test_a_trust_list_carries_keys_for_tags():
    loaded = load_trust_list(dump_entries([KEY.entry]))
    assert verify_tag(decode(*written("tc0")), loaded, NOW).certificate == SHORT


def test_the_sandbox_writes_tags_for_its_fleet_that_verify():
    done = 0
    for number, vehicle in enumerate(v for v in fleet(600, 5, NOW.date()) if v.city == BEIJING and v.tid):
        claims = certificate(vehicle, CredentialEntry(Serial(f"{number:032x}"), number, vehicle.plate), NOW)
        tag = write_tc1(KEY, bytes.fromhex(vehicle.tid), claims)
        verified = verify_tag(decode(*tag), TRUST, NOW).certificate
        assert (verified.plate, verified.vin, verified.valid_until) == (vehicle.plate, vehicle.vin, vehicle.valid_until)
        assert (verified.vehicle_type, verified.body_colour) == (vehicle.vehicle_type, vehicle.body_colour)
        done += 1
    assert done >= 3


def test_the_authoritys_keys_for_tags_stay_the_same_and_only_its_owner_reads_them(tmp_path):
    made, again = tag_keys(tmp_path, NOW), tag_keys(tmp_path, NOW)
    assert {code: key.entry for code, key in made.items()} == {code: key.entry for code, key in again.items()}
    assert set(made) == {city.code for city in CITIES}
    assert {key.entry.role for key in made.values()} == {KeyRole.TAG}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    loaded = load_trust_list(Issuer({}).trust_entries(made.values()))
    assert verify_tag(decode(*written("tc1", made[BEIJING.code])), loaded, NOW).certificate == CLAIMS


@pytest.fixture(scope="module")
def twins():
    """Two keys for tags whose hint in an EPC is the same, found as chance finds them: 12 bits are few."""
    known: dict[str, SigningKey] = {}
    while (key := tag_key(BEIJING, NOW)).entry.key_id[:3] not in known:
        known[key.entry.key_id[:3]] = key
    return known[key.entry.key_id[:3]], key


def made_at_once(_):
    return new_authority({}, clock=lambda: NOW, scale=200, seed=1).tag_keys


def made_in_a_folder(folder):
    return tag_keys(folder, NOW)


@pytest.mark.parametrize(
    ("make", "is_first_there"), [(made_at_once, False), (made_in_a_folder, False), (made_in_a_folder, True)]
)
def test_no_two_keys_for_tags_begin_alike_lest_an_older_trust_list_make_lawful_tags_copied(
    make, is_first_there, twins, tmp_path, monkeypatch
):
    first, alike = twins
    script = [alike, alike] if is_first_there else [first, alike, alike]
    if is_first_there:
        save_keys(tmp_path, [first])  # as when the pilot gets more cities

    def drawn(alg, **given):
        made = signing_key(alg, **given)
        if not script:
            return made
        key = script.pop(0)
        same = {"kid": key.entry.kid, "key": key.entry.key, "public": key.entry.public}
        return replace(key, entry=replace(made.entry, **same))

    monkeypatch.setattr("scripts.sandbox.tags.signing_key", drawn)
    ids = [key.entry.key_id for key in make(tmp_path).values()]
    assert not script
    assert first.entry.key_id in ids
    assert len({kid[:3] for kid in ids}) == len(ids) == len(CITIES)


def test_the_examples_of_the_page_are_made_by_the_code_and_verify():
    page = (ROOT / "docs" / "tag-certificate.md").read_text(encoding="utf-8")
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    public = private.public_key()
    kid = key_id(Algorithm.EDDSA, public.public_bytes_raw())
    assert f"`{kid.hex()}`" in page
    long, looks, brief = (bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f\n]+)```", page))
    epc = bytes.fromhex("f0112233445566778899aabb")
    banks = ((epc, long, CLAIMS), (epc, looks, LOOKS), (brief[:12], brief[12:], SHORT))
    for signed, claims in ((decode(TID, of, bank), claims) for of, bank, claims in banks):
        assert signed.certificate == claims
        assert kid.hex().startswith(signed.hint)
        assert private.sign(signed.message) == signed.signature
    assert (long[:38], looks[:42]) == (tc1_body(CLAIMS, kid), tc1_body(LOOKS, kid))
    assert brief[:12] == tc0_epc(SHORT, kid)


def test_the_field_map_fills_its_bytes_and_has_no_field_for_an_owner():
    page = (ROOT / "docs" / "tag-certificate.md").read_text(encoding="utf-8")
    table = page[page.index("| bytes | field |") : page.index("The province's place")]
    rows = re.findall(r"^\| ([0-9+ ]+) \| ([^|]+) \| (version 2 only)?", table, re.MULTILINE)
    sizes = [sum(map(int, size.split("+"))) for size, _, _ in rows]
    looks = sum(size for size, (_, _, only) in zip(sizes, rows, strict=True) if only)
    assert (sum(sizes) - looks, sum(sizes)) == (102, 106)
    assert [name for _, name, _ in rows] == [
        "version", "key hint", "plate kind", "plate", "VIN", "day of issue", "valid until", "status", "credential",
        "vehicle type", "body colours", "signature",
    ]  # fmt: skip
    assert {field.name for field in fields(TagCertificate)} == {
        "plate", "vin", "issued_on", "valid_until", "status_list", "status_index", "credential_id", "vehicle_type",
        "body_colour",
    }  # fmt: skip


def test_the_page_lists_provinces_and_kinds_as_the_code_has_them():
    page = (ROOT / "docs" / "tag-certificate.md").read_text(encoding="utf-8")
    assert f"in {tag_codec.PLACES_ON_TAGS} (" in page
    assert f"are {' '.join(tag_codec._TC0_KINDS)}." in page
