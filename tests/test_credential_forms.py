"""Each part of VM1 in each wrong form: the claims, the wrapper, the header, the CBOR and the base45 under them.

Whatever stands in these tables is refused by its own check; beside each table stands what is just within it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import cbor2
import pytest

from verifier.codec import base45, cbor, cose
from verifier.codec.credential import (
    CNF,
    COLOUR,
    CTI,
    CTP_UNTIL,
    ENCRYPTED,
    EXP,
    IAT,
    INNER,
    ISS,
    KIND,
    MARK,
    MAX_TEXT,
    MODE,
    NBF,
    PLATE,
    STATUS,
    TID_HASH,
    USE,
    VALID_UNTIL,
    VEHICLE_TYPE,
    VIN_HASH,
    HolderKey,
    decode,
    encode,
    encode_claims,
    parse_claims,
)
from verifier.errors import CodeError
from verifier.types import Algorithm, CodeFault, Credential, Plate, PresentationMode

# ------------------------------------------------------------------------------- every claim, every wrong form

X, Y = bytes(range(32)), bytes(range(32, 64))
P256, OKP = {1: 2, -1: 1, -2: X, -3: Y}, {1: 1, -1: 6, -2: X}


def keys_of(*altered: dict[Any, Any]) -> list[dict[int, Any]]:
    return [{1: key} for key in altered]


TIMES = [True, -1, 2**32, "1", b"\x01", [1], {}]
TEXTS = [True, 1, b"A", ["A"], {}, "", "a", "Ａ", "粤"]
FINGERPRINTS = [True, 8, "00000000", [1] * 8, {}, b"", bytes(7), bytes(9)]
WRONG_CLAIMS = {
    ISS: [*TEXTS, 440300, b"440300", "44030", "4403000", "44030A", "440300\n", "٤٤٠٣٠٠"],
    EXP: [*TIMES, 1_700_000_000],  # which is iat
    NBF: TIMES,
    IAT: TIMES,
    CTI: [*FINGERPRINTS[:-1], bytes(17)],
    CNF: [
        True, 1, b"", "", [1], {}, {1: 1}, {1: [OKP]}, {1: b""}, {2: OKP}, {1: OKP, 2: OKP},
        *keys_of({}, *({**OKP, -2: x} for x in (X[1:], X + b"\x00", "x" * 32, [1] * 32, True, 1))),
        *keys_of({**OKP, 1: 2}, {**OKP, 1: True}, {**OKP, -1: 1}, {**OKP, -1: "6"}, {**OKP, -3: Y}, {**OKP, 3: -8}),
        *keys_of({**P256, 1: 1}, {**P256, -1: 6}, {**P256, -1: True}, {**P256, 3: -7}, {1: 2, -1: 1, -2: X}),
        *keys_of(*({**P256, -3: y} for y in (Y[1:], Y + b"\x00", "y" * 32, [1] * 32, 1, {}))),
        *keys_of({1: 1, -1: 6}, {1: 1, -2: X}, {-1: 6, -2: X}, {2: 1, -1: 6, -2: X}),
    ],
    MARK: [True, 1, b"", "", [], [1], {}, {"1": "a"}],
}  # fmt: skip
WRONG_IN_MARK = {
    PLATE: [True, 1, "粤B12345".encode(), list("粤B12345"), {}, "", "粤B12", "粤B123456789", "粤B1234 ", "粤B1234\n"],
    KIND: [True, 0, -1, 98, 100, 2**32, "02", "2", b"\x02", [2], {}],
    VEHICLE_TYPE: [*TEXTS, "K3", "K333", "k33", "K3３", b"K33", ["K", "3", "3"]],
    VALID_UNTIL: [True, -202708, 0, 202700, 202713, 189912, 1000001, 20270800, 2**63, "202708", b"", [202708], {}],
    CTP_UNTIL: [True, -20270814, 0, 202708, 20270800, 20270230, 18991231, 99991232, 2**63, "20270814", b"", [], {}],
    VIN_HASH: FINGERPRINTS,
    TID_HASH: FINGERPRINTS,
    MODE: [True, 0, -1, 5, 2**32, "2", b"\x02", [2], {}],
    STATUS: [
        True, 1, "17", b"\x01\x07", {1: 1, 7: 7}, [], [1], [1, 7, 7], [True, 7], [1, True], [-1, 7], [1, -1],
        [2**32, 7], [1, 2**32], ["1", 7], [1, b"\x07"], [[1], 7],
    ],
    USE: [*TEXTS, "AB"],
    COLOUR: [*TEXTS, "ABCD"],
    ENCRYPTED: [True, 1, "a", [1], {}, b"", bytes(161)],
    -1: [1],
    0: [1],
    13: [1],
    63: [1],
    "64": [1],
}  # fmt: skip
ALWAYS = {ISS, EXP, IAT, CTI, MARK}
ALWAYS_IN_MARK = {PLATE, KIND, VEHICLE_TYPE, VALID_UNTIL, VIN_HASH, MODE, STATUS}


def all_claims() -> dict[int, Any]:
    mark = {
        PLATE: "粤B12345", KIND: 2, VEHICLE_TYPE: "K33", VALID_UNTIL: 202708, CTP_UNTIL: 20270814, VIN_HASH: X[:8],
        TID_HASH: Y[:8], MODE: 2, STATUS: [1, 7], USE: "A", COLOUR: "BC", ENCRYPTED: b"box", 64: "later",
    }  # fmt: skip
    times = {IAT: 1_700_000_000, NBF: 1_700_000_000, EXP: 1_702_000_000}
    return {ISS: "440300", **times, CTI: X[:12], CNF: {1: OKP}, MARK: mark}


def read(claims: dict[int, Any]) -> tuple[Credential, HolderKey | None]:
    return parse_claims(cbor.encode(claims))


def refused(claims: object) -> None:
    with pytest.raises(CodeError) as caught:
        parse_claims(cbor.encode(claims))
    assert caught.value.fault is CodeFault.CLAIMS, claims


@pytest.mark.parametrize("key", WRONG_CLAIMS)
def test_a_claim_of_a_wrong_type_or_size_is_refused(key):
    for value in WRONG_CLAIMS[key]:
        refused({**all_claims(), key: value})


@pytest.mark.parametrize("key", WRONG_IN_MARK)
def test_a_claim_of_a_wrong_type_or_size_in_the_mark_is_refused(key):
    claims = all_claims()
    for value in WRONG_IN_MARK[key]:
        refused({**claims, MARK: {**claims[MARK], key: value}})


def test_only_the_required_claims_are_required_and_no_unknown_one_is_taken():
    claims = all_claims()
    for key in claims:
        fewer = {k: v for k, v in claims.items() if k != key}
        (refused if key in ALWAYS else read)(fewer)
    for key in claims[MARK]:
        fewer = {**claims, MARK: {k: v for k, v in claims[MARK].items() if k != key}}
        (refused if key in ALWAYS_IN_MARK else read)(fewer)
    for unknown in ({**claims, 2: "subject"}, {**claims, "1": 1}, {**claims, -65538: b""}, list(claims), 1, "claims"):
        refused(unknown)


@pytest.mark.parametrize("mode", PresentationMode)
@pytest.mark.parametrize(
    "holder",
    [
        None,
        HolderKey(Algorithm.EDDSA, X),
        *(HolderKey(Algorithm.ES256, point) for point in (b"\x02" + X, b"\x03" + X, b"\x04" + X + Y)),
    ],
)
def test_every_claim_comes_back_as_it_was_written(mode, holder):
    full = replace(
        read(all_claims())[0], mode=mode, not_before=datetime(2026, 11, 22, tzinfo=UTC), ctp_until=date(2027, 8, 14),
        use_nature="A", body_colour="BCD", tid_hash=b"12345678", vin_hash=b"87654321",
    )  # fmt: skip
    assert parse_claims(encode_claims(full, holder)) == (full, holder)


def test_the_least_and_the_greatest_of_every_claim_are_taken():
    claims = all_claims()
    least = {PLATE: "粤B123", STATUS: [0, 0], CTP_UNTIL: 19000101, VALID_UNTIL: 190001, KIND: 1, ENCRYPTED: b"1"}
    most = {PLATE: "粤B12345678", STATUS: [2**32 - 1] * 2, CTP_UNTIL: 99991231, VALID_UNTIL: 999912, COLOUR: "ABC"}
    times = {IAT: 2**32 - 2, NBF: 2**32 - 1, EXP: 2**32 - 1}
    first = {**claims, IAT: 0, NBF: 0, EXP: 1, CTI: bytes(8), MARK: {**claims[MARK], **least}}
    last = {**claims, **times, CTI: bytes(16), MARK: {**claims[MARK], **most, ENCRYPTED: bytes(160)}}
    assert (read(first)[0].plate, read(first)[0].status_index) == (Plate("粤B123", "01"), 0)
    assert (read(last)[0].plate.text, read(last)[0].status_list) == ("粤B12345678", 2**32 - 1)


def test_a_plate_of_no_kind_makes_no_code():
    refused(cbor.decode(encode_claims(replace(read(all_claims())[0], plate=Plate("粤B12345", None)))))


# ----------------------------------------------------------------------- wrappers, headers, CBOR, one by one


def sign1(payload: object, protected: object) -> bytes:
    return b"\xd2" + cbor.encode([cbor.encode(protected), {}, cbor.encode(payload), bytes(64)])


CREDENTIAL_HEADER = {1: -7, 4: bytes(8), 16: cose.TYP_CREDENTIAL}
WRAPPER_HEADER = {1: -7, 16: cose.TYP_PRESENTATION}


def fault_of(step: Callable[..., object], *args: object) -> CodeFault | None:
    try:
        step(*args)
    except CodeError as exc:
        return exc.fault
    return None


def test_a_presentation_holds_a_time_and_a_credential_and_nothing_else():
    inner = sign1({}, CREDENTIAL_HEADER)

    def answer_to(claims: object) -> CodeFault | None:
        return fault_of(decode, encode(sign1(claims, WRAPPER_HEADER)).encode())

    good = {IAT: 1, INNER: inner}
    assert answer_to(good) is None
    wrong = [1, "", b"", [IAT, INNER], {}, {IAT: 1}, {INNER: inner}, {**good, 5: 1}]
    wrong += [{**good, IAT: time} for time in TIMES]
    wrong += [{**good, INNER: other} for other in (True, 1, "a", [inner], {}, b"")]
    for claims in wrong:
        assert answer_to(claims) is CodeFault.CLAIMS, claims
    nested = sign1(good, WRAPPER_HEADER)
    assert answer_to({**good, INNER: nested}) is CodeFault.HEADER


@pytest.mark.parametrize(
    "change",
    [
        *({1: alg} for alg in (None, True, "ES256", b"\x26", [-7], {})),
        *({16: typ} for typ in (None, True, 1, "65001", [65001], {}, cose.TYP_HOT, cose.TYP_ONLINE)),
        *({4: kid} for kid in (None, True, 8, "00000000", [0] * 8, {}, b"", bytes(7), bytes(9))),
        *({label: 1} for label in (0, 2, 3, 5, 33, -1, "alg")),
    ],
)
def test_a_protected_header_is_alg_kid_and_typ_and_nothing_else(change):
    header = {label: value for label, value in {**CREDENTIAL_HEADER, **change}.items() if value is not None}
    assert fault_of(cose.parse_sign1, sign1({}, CREDENTIAL_HEADER)) is None
    assert fault_of(cose.parse_sign1, sign1({}, header)) is CodeFault.HEADER


def test_only_a_holders_presentation_and_a_hot_list_go_without_a_key_id():
    for typ in (cose.TYP_CREDENTIAL, cose.TYP_PRESENTATION, cose.TYP_HOT, cose.TYP_ONLINE):
        allowed = typ in (cose.TYP_PRESENTATION, cose.TYP_HOT)
        for extra, fault in (({}, None if allowed else CodeFault.HEADER), ({2: [99]}, CodeFault.HEADER)):
            data = sign1({}, {1: -7, 16: typ, **extra})
            assert fault_of(cose.parse_sign1, data, (typ,)) is fault, (typ, extra)


def test_a_code_is_four_parts_behind_its_tag():
    good = cbor.decode(sign1({}, CREDENTIAL_HEADER)[1:])
    for data in (b"", cbor.encode(good), b"\xd1" + cbor.encode(good), b"\x84" + sign1({}, CREDENTIAL_HEADER)):
        assert fault_of(cose.parse_sign1, data) is CodeFault.COSE_SHAPE
    wrong: list[object] = [1, True, "", b"", {}, [], good[:3], [*good, b""], [good], {1: b"", 2: {}, 3: b"", 4: b""}]
    for place in range(4):
        wrong += [[*good[:place], other, *good[place + 1 :]] for other in (True, 1, "", [])]
    wrong += [[*good[:3], signature] for signature in (b"", bytes(63), bytes(65), "0" * 64)]
    for parts in wrong:
        assert fault_of(cose.parse_sign1, b"\xd2" + cbor.encode(parts)) is CodeFault.COSE_SHAPE, parts
    for protected in (1, True, "", b"", [], list(CREDENTIAL_HEADER)):
        assert fault_of(cose.parse_sign1, sign1({}, protected)) is CodeFault.HEADER


def nested(kind: type, depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value] if kind is list else {1: value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_six_levels_are_read_and_seven_refused(kind):
    assert cbor.decode(cbor2.dumps(nested(kind, 6))) == nested(kind, 6)
    assert fault_of(cbor.decode, cbor2.dumps(nested(kind, 7))) is CodeFault.CBOR
    assert fault_of(cbor.encode, nested(kind, 7)) is CodeFault.CBOR


def test_what_the_format_has_comes_back_and_what_it_has_not_is_refused():
    keys = [0, 1, 23, 24, 255, 256, 2**32, 2**64 - 1, -1, -24, -25, -(2**64), "", "1", "alg", "號"]
    for value in (0, 2**64 - 1, -(2**64), True, False, b"", b"\xff", "", "號", [], {}, {key: [key] for key in keys}):
        assert cbor.encode(value) == cbor2.dumps(value)
        assert repr(cbor.decode(cbor2.dumps(value))) == repr(value)
    assert cbor.encode({key: key for key in reversed(keys)}) == cbor2.dumps({key: key for key in keys})
    assert cbor.encode({1: [{"b": 1, "a": (2,)}]}) == cbor2.dumps({1: [{"a": [2], "b": 1}]})
    for value in (None, 1.5, 2**64, -(2**64) - 1, cbor2.undefined, cbor2.CBORTag(99, 1), cbor2.CBORSimpleValue(99)):
        for place in (value, [value], {1: value}, {"a": [value]}):
            assert fault_of(cbor.decode, cbor2.dumps(place)) is CodeFault.CBOR, place
            assert fault_of(cbor.encode, place) is CodeFault.CBOR, place
    for key in (True, None, 1.5, b"a", (1,), 2**64):
        assert fault_of(cbor.decode, cbor2.dumps({key: 1})) is CodeFault.CBOR, key
    for first, second in ((1, 0), (24, 23), (-1, 1), (-2, -1), ("a", 1), ("b", "a"), ("aa", "b"), (256, 255)):
        assert fault_of(cbor.decode, cbor2.dumps({first: 1, second: 1})) is CodeFault.CBOR, first


def test_base45_is_read_to_the_last_value_of_a_group_and_no_further():
    for data in (b"", b"\x00", b"\xff", b"\x00\x00", b"\xff\xff", b"\xff\xff\xff", bytes(range(256)), bytes(255)):
        assert base45.decode(base45.encode(data)) == data
    for text in ("A", "0000", "V5", "::", ":::", "GGW", "000:::", ":::00", "000V5", "aa", "0é", "號00", "00\n"):
        assert fault_of(base45.decode, text) is CodeFault.ENCODING, text


def test_a_text_of_800_characters_is_read_and_one_of_801_is_not():
    assert fault_of(decode, b"VM1:" + b"0" * (MAX_TEXT - 4)) is not CodeFault.OVERSIZE
    assert fault_of(decode, b"VM1:" + b"0" * (MAX_TEXT - 3)) is CodeFault.OVERSIZE
