"""The bytes of the online look-up: both directions, every bound, and whose signature counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.sandbox.keys import SigningKey
from tests.centres import START, later, signed, status_key
from verifier.cache.values import LETTERS
from verifier.codec import cbor
from verifier.codec.cose import TYP_ONLINE, join, protected_header, sig_structure
from verifier.codec.online import (
    LIFE,
    MAX_ANSWER,
    MAX_IDS,
    MAX_REPORT,
    MAX_REQUEST,
    AskedId,
    DocumentWord,
    IdKind,
    OnlineAnswer,
    OnlineFormatError,
    Report,
    ReportReason,
    Row,
    RowStatus,
    StatusRequest,
    VinWord,
    answer_payload,
    decode_answer,
    decode_receipt,
    decode_report,
    decode_request,
    encode_receipt,
    encode_report,
    encode_request,
    request_hash,
)
from verifier.codec.status import ListedStatus
from verifier.trust import TrustList
from verifier.types import Algorithm, KeyRole, KeyState
from verifier.verdict import VerdictCode

KEY = status_key()
TRUST = TrustList([KEY.entry])
PLATE_ID, SERIAL_ID = AskedId(IdKind.PLATE, b"p" * 16), AskedId(IdKind.CREDENTIAL, b"c" * 16)
VIN_ID = AskedId(IdKind.VIN, b"v" * 16)
REQUEST = StatusRequest(nonce=b"n" * 16, key_check=b"k" * 16, ids=(PLATE_ID, SERIAL_ID, VIN_ID), seq=7, hot_seq=9)
ASKED = encode_request(REQUEST)
ANSWER = OnlineAnswer(
    issuer="000000",
    issued_at=START,
    expires_at=START + LIFE,
    nonce=REQUEST.nonce,
    request_hash=request_hash(ASKED),
    rows=(
        Row(status=RowStatus.FOUND, as_of=START, record=1),
        Row(status=RowStatus.FOUND, as_of=START, record=DocumentWord(ListedStatus.SUPERSEDED, b"q" * 16)),
        Row(status=RowStatus.FOUND, as_of=START, record=VinWord(b"p" * 16, 1)),
    ),
    hot_seq=3,
)
REPORT = Report(
    report_id=b"r" * 16,
    check_id=b"i" * 16,
    reason=ReportReason.CORRECTED,
    vehicle=PLATE_ID,
    key_check=b"k" * 16,
    checked_at=START,
    then=VerdictCode.VALID_STALE,
    now=VerdictCode.EXPIRED,
)


def test_requests_answers_and_reports_survive_the_round_trip():
    assert decode_request(ASKED) == REQUEST
    assert decode_answer(signed(ANSWER, KEY), ASKED, TRUST) == (ANSWER, KEY.entry)
    assert decode_report(encode_report(REPORT)) == REPORT
    assert decode_receipt(encode_receipt(REPORT.report_id)) == REPORT.report_id


def test_the_largest_of_each_fits_its_bound():
    ids = tuple(AskedId(IdKind.PLATE, bytes([i]) * 16) for i in range(MAX_IDS))
    request = encode_request(replace(REQUEST, ids=ids, seq=(1 << 53) - 1, hot_seq=(1 << 53) - 1))
    assert len(request) < MAX_REQUEST
    for record in (DocumentWord(ListedStatus.SUPERSEDED, bytes(16)), VinWord(bytes(16), (1 << len(LETTERS)) - 1)):
        word = Row(status=RowStatus.FOUND, as_of=START, record=record)
        assert len(signed(replace(ANSWER, rows=(word,) * MAX_IDS), KEY)) < MAX_ANSWER
    assert len(encode_report(replace(REPORT, then=max(VerdictCode, key=len)))) < MAX_REPORT


def test_every_letter_of_the_register_travels():
    assert answer_payload(
        replace(ANSWER, rows=(Row(status=RowStatus.FOUND, as_of=START, record=(1 << len(LETTERS)) - 1),))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": bytes(15)}, {"key_check": bytes(17)}, {"ids": ()}, {"ids": (PLATE_ID,) * (MAX_IDS + 1)},
        {"ids": (AskedId(IdKind.PLATE, bytes(6)),)}, {"seq": -1}, {"hot_seq": 1 << 53},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_out_of_bounds_is_not_made(changes):
    with pytest.raises(ValueError, match="request"):
        encode_request(replace(REQUEST, **changes))


@pytest.mark.parametrize("asked", [[0, bytes(16)], [5, bytes(16)], [4, b"LSVAA49J4E2000001"], [4, "LSVAA49J4E200000"]])
def test_an_unknown_kind_and_a_vin_in_clear_are_refused(asked):
    raw = cbor.decode(ASKED)
    raw["ids"] = [asked]
    with pytest.raises(OnlineFormatError) as caught:
        decode_request(cbor.encode(raw))
    assert "LSV" not in str(caught.value)


_RECORDS = {
    IdKind.PLATE: 1, IdKind.TAG: 1, IdKind.CREDENTIAL: DocumentWord(ListedStatus.SUPERSEDED, b"q" * 16),
    IdKind.VIN: VinWord(b"q" * 16, int(ListedStatus.SUPERSEDED)),
}  # fmt: skip


@pytest.mark.parametrize("record", _RECORDS.values(), ids=[kind.name for kind in _RECORDS])
@pytest.mark.parametrize("kind", IdKind)
def test_a_record_answers_the_kind_that_was_asked_for_and_no_other(kind, record):
    request = encode_request(replace(REQUEST, ids=(AskedId(kind, bytes(16)),)))
    row = Row(status=RowStatus.FOUND, as_of=START, record=record)
    answer = replace(ANSWER, request_hash=request_hash(request), rows=(row,))
    if type(record) is type(_RECORDS[kind]):
        assert decode_answer(signed(answer, KEY), request, TRUST)[0].rows == (row,)
        return
    with pytest.raises(OnlineFormatError, match="another kind"):
        decode_answer(signed(answer, KEY), request, TRUST)


@pytest.mark.parametrize(
    "record",
    [
        [bytes(16)], [bytes(16), 1, 1], [bytes(15), 1], [bytes(17), 1], ["京A12345", 1], [bytes(16), -1],
        [bytes(16), 1 << 56], [bytes(16), 5 << 17], [bytes(16), True], [bytes(16), bytes(16)],
        bytes(16), [1, bytes(16), 1], [[bytes(16)], 1], {}, [bytes(9000), 1],
    ],
    ids=lambda record: repr(record)[:40],
)  # fmt: skip
def test_a_word_on_a_vin_is_a_plates_hash_and_a_value_or_is_refused(record):
    raw = cbor.decode(answer_payload(ANSWER))
    raw["r"][2][3] = record
    with pytest.raises(OnlineFormatError):
        decode_answer(resigned(raw, SigningKey(KEY.private, KEY.entry)), ASKED, TRUST)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": START}, {"expires_at": START + timedelta(seconds=301)}, {"issuer": ""}, {"issuer": "a\n"},
        {"nonce": b""}, {"request_hash": bytes(31)}, {"rows": ()}, {"rows": ANSWER.rows * 26}, {"hot_seq": -1},
        {"rows": (Row(status=RowStatus.FOUND, as_of=START),)},
        {"rows": (Row(status=RowStatus.ABSENT, as_of=START, record=1),)},
        {"rows": (Row(status=RowStatus.FOUND, as_of=START, record=1 << 56),)},
        {"rows": (Row(status=RowStatus.FOUND, as_of=START, record=5 << 17),)},  # the fifth month of the year 0
        {"rows": (Row(status=RowStatus.FOUND, as_of=START + timedelta(seconds=1), record=1),)},
        {"rows": (Row(status=RowStatus.FOUND, as_of=START, record=DocumentWord(ListedStatus.ACTIVE, bytes(16))),)},
        {"rows": (Row(status=RowStatus.FOUND, as_of=START, record=DocumentWord(ListedStatus.SUPERSEDED, b"")),)},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_out_of_bounds_is_not_made(changes):
    with pytest.raises(ValueError, match="answer"):
        answer_payload(replace(ANSWER, **changes))


def as_entry(**changes: object) -> TrustList:
    return TrustList([replace(KEY.entry, **changes)])


@pytest.mark.parametrize(
    "trust",
    [
        TrustList([]), as_entry(role=KeyRole.CREDENTIAL), as_entry(role=KeyRole.FRESHNESS),
        as_entry(state=KeyState.RETIRED), as_entry(state=KeyState.COMPROMISED), as_entry(issuer="110000"),
        as_entry(not_after=int(START.timestamp()) - 1), as_entry(not_before=int(START.timestamp()) + 1),
        as_entry(alg=Algorithm.EDDSA), as_entry(public=None), as_entry(public=status_key().entry.public),
    ],
)  # fmt: skip
def test_only_an_active_status_key_within_its_time_signs_answers(trust):
    with pytest.raises(OnlineFormatError):
        decode_answer(signed(ANSWER, KEY), ASKED, trust)


@pytest.mark.parametrize("alg", [Algorithm.ES256, Algorithm.EDDSA, Algorithm.SM2])
def test_a_centre_signs_with_any_algorithm_of_the_trust_list(alg):
    try:
        key = status_key(alg=alg)
    except ValueError:
        pytest.skip("this machine cannot sign with it")
    if key.entry.public is None:
        pytest.skip("this machine's libcrypto cannot verify it")
    assert decode_answer(signed(ANSWER, key), ASKED, TrustList([key.entry]))[0] == ANSWER


@pytest.mark.parametrize(
    "other",
    [
        replace(ANSWER, nonce=bytes(16)), replace(ANSWER, request_hash=bytes(32)),
        replace(ANSWER, rows=ANSWER.rows[:1]),
        replace(ANSWER, rows=ANSWER.rows[::-1]), replace(ANSWER, issuer="x"), later(ANSWER, days=500),
    ],
    ids=["nonce", "request", "rows", "kinds", "issuer", "time"],
)  # fmt: skip
def test_an_answer_to_another_question_is_refused(other):
    with pytest.raises(OnlineFormatError):
        decode_answer(signed(other, KEY), ASKED, TRUST)


def test_a_gateway_that_asks_for_somebody_else_with_the_same_nonce_gets_no_use_of_the_answer():
    elsewhere = encode_request(replace(REQUEST, ids=(AskedId(IdKind.PLATE, b"x" * 16), SERIAL_ID, VIN_ID)))
    bought = replace(ANSWER, request_hash=request_hash(elsewhere))
    with pytest.raises(OnlineFormatError, match="another request"):
        decode_answer(signed(bought, KEY), ASKED, TRUST)


DATA = signed(ANSWER, KEY)


@given(st.integers(0, len(DATA) * 8 - 1))
def test_no_flipped_bit_of_an_answer_passes(bit):
    spoilt = bytearray(DATA)
    spoilt[bit // 8] ^= 1 << bit % 8
    with pytest.raises(OnlineFormatError):
        decode_answer(bytes(spoilt), ASKED, TRUST)


@given(st.binary(max_size=200))
def test_no_bytes_bring_anything_but_a_refusal(data):
    for decode in (decode_request, decode_report, decode_receipt, lambda d: decode_answer(d, ASKED, TRUST)):
        with pytest.raises(OnlineFormatError):
            decode(data)


_VALUES = st.recursive(
    st.integers(-5, 1 << 60) | st.binary(max_size=33) | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@given(st.sampled_from(["v", "iss", "iat", "exp", "nonce", "req", "hot_seq", "r"]), _VALUES)
def test_whatever_a_listed_key_signs_is_read_or_refused(name, value):
    raw = cbor.decode(answer_payload(ANSWER)) | {name: value}
    signer = SigningKey(KEY.private, KEY.entry)
    try:
        answer, _ = decode_answer(resigned(raw, signer), ASKED, TRUST)
    except OnlineFormatError:
        return
    assert cbor.decode(answer_payload(answer)) == raw


def resigned(raw: object, key: SigningKey) -> bytes:
    protected, payload = protected_header(key.alg, key.entry.kid, TYP_ONLINE), cbor.encode(raw)
    return join(protected, payload, key.sign(sig_structure(protected, payload)))


@pytest.mark.parametrize("name", ["v", "nonce", "kc", "ids", "have"])
def test_a_request_has_all_its_fields_and_no_other(name):
    raw = cbor.decode(ASKED)
    del raw[name]
    for wrong in (raw, cbor.decode(ASKED) | {"more": 1}, cbor.decode(ASKED) | {"v": 2}):
        with pytest.raises(OnlineFormatError):
            decode_request(cbor.encode(wrong))


def test_a_report_carries_no_plate_and_no_serial():
    assert set(cbor.decode(encode_report(REPORT))) == {
        "v", "id", "check", "reason", "vehicle", "kc", "at", "then", "now",
    }  # fmt: skip
    raw = cbor.decode(encode_report(REPORT))
    for field, value in (("reason", "because"), ("then", "GREEN"), ("vehicle", [1, "京A12345"]), ("check", b"1")):
        with pytest.raises(OnlineFormatError):
            decode_report(cbor.encode(raw | {field: value}))
