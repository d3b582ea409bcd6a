"""What device and centre say to each other as bytes: every bound holds, and nothing else comes through."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.sandbox.keys import status_key
from verifier.codec import cbor
from verifier.codec.cose import join, protected_header, sig_structure
from verifier.codec.device import (
    MAX_RECORD,
    MAX_RECORDS,
    MAX_UPLOAD,
    TYP_ORDER,
    AuditHead,
    AuditUpload,
    DeviceFormatError,
    WipeOrder,
    decode_audit_head,
    decode_order,
    decode_upload,
    encode_audit_head,
    encode_upload,
    order_payload,
)
from verifier.codec.index import MAX_NUMBER
from verifier.trust import TrustList
from verifier.types import KeyState

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
KEY = status_key("000000", int(NOW.timestamp()))
TRUST = TrustList([KEY.entry])
ORDER = WipeOrder(issuer="000000", device="h-1", order_seq=3, issued_at=NOW)

LINES = st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line)
HEADS = st.builds(AuditHead, st.integers(1, MAX_NUMBER), st.binary(min_size=32, max_size=32)) | st.just(AuditHead())


def signed(payload: bytes, key=KEY) -> bytes:
    protected = protected_header(key.alg, key.entry.kid, TYP_ORDER)
    return join(protected, payload, key.sign(sig_structure(protected, payload)))


@given(HEADS, st.lists(LINES, min_size=1, max_size=5))
def test_an_upload_comes_back_as_it_was_and_names_the_head_behind_each_line(after, lines):
    upload = decode_upload(encode_upload(AuditUpload(after, tuple(lines))))
    assert upload == AuditUpload(after, tuple(lines))
    assert [head.head for head in upload.heads()] == [hashlib.sha256(line).digest() for line in lines]
    assert [head.seq for head in upload.heads()] == list(range(after.seq + 1, after.seq + 1 + len(lines)))
    assert decode_audit_head(encode_audit_head(after)) == after


@pytest.mark.parametrize(
    "upload",
    [
        AuditUpload(AuditHead(), ()),
        AuditUpload(AuditHead(), (b"",)),
        AuditUpload(AuditHead(), (b"a\nb",)),
        AuditUpload(AuditHead(), (b"x",) * (MAX_RECORDS + 1)),
        AuditUpload(AuditHead(), (bytes([1]) * (MAX_RECORD + 1),)),
        AuditUpload(AuditHead(), (bytes([1]) * MAX_RECORD,) * (MAX_UPLOAD // MAX_RECORD)),
        AuditUpload(AuditHead(0, b"\x01" * 32), (b"x",)),
        AuditUpload(AuditHead(1, bytes(31)), (b"x",)),
        AuditUpload(AuditHead(-1, bytes(32)), (b"x",)),
        AuditUpload(AuditHead(MAX_NUMBER + 1, bytes(32)), (b"x",)),
    ],
    ids=range(10),
)
def test_an_upload_that_breaks_a_bound_is_neither_made_nor_read(upload):
    with pytest.raises(ValueError, match="upload|audit head|more than"):
        encode_upload(upload)
    after = upload.after
    raw = {"v": 1, "seq": after.seq, "head": after.head, "records": list(upload.records)}
    with pytest.raises(DeviceFormatError):
        decode_upload(cbor.encode(raw))


NAMES = st.sampled_from(["v", "seq", "head", "records"])
VALUES = st.recursive(
    st.integers(-5, 5) | st.binary(max_size=4) | st.text(max_size=4) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
    max_leaves=6,
)


@given(st.binary(max_size=200) | st.builds(cbor.encode, VALUES))
def test_no_bytes_bring_a_reader_out_of_step(data):
    for read in (decode_upload, decode_audit_head, lambda raw: decode_order(raw, "h-1", TRUST)):
        try:
            read(data)
        except DeviceFormatError:
            continue


def test_an_order_with_any_bit_changed_or_cut_anywhere_is_none():
    good = signed(order_payload(ORDER))
    assert decode_order(good, "h-1", TRUST) == ORDER
    with pytest.raises(DeviceFormatError, match="another device"):
        decode_order(good, "h-2", TRUST)
    for place in range(len(good) * 8):
        changed = bytearray(good)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(DeviceFormatError):
            decode_order(bytes(changed), "h-1", TRUST)
    for length in range(len(good)):
        with pytest.raises(DeviceFormatError):
            decode_order(good[:length], "h-1", TRUST)


@pytest.mark.parametrize("state", [KeyState.RETIRED, KeyState.COMPROMISED])
def test_an_order_under_a_key_that_signs_no_more_is_none(state):
    good = signed(order_payload(ORDER))
    with pytest.raises(DeviceFormatError, match="no key"):
        decode_order(good, "h-1", TrustList([KEY.in_state(state).entry]))


@pytest.mark.parametrize(
    "change",
    [
        {"order": "dance"}, {"device": "H-1"}, {"device": "h-1\n"}, {"seq": 0}, {"seq": MAX_NUMBER + 1}, {"iat": 0},
        {"iat": 1 << 32}, {"iss": ""}, {"iss": "x" * 41}, {"v": 2}, {"more": 1}, {"seq": True},
        {"iss": "110000"}, {"iat": int(NOW.timestamp()) - 1}, {"iat": KEY.entry.not_after + 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_order_that_breaks_a_bound_is_none_whoever_signs_it(change):
    raw = cbor.decode(order_payload(ORDER)) | change
    with pytest.raises(DeviceFormatError):
        decode_order(signed(cbor.encode(raw)), "h-1", TRUST)
