"""The hot list: signed by the one key that the index names, bounded, and above everything that the night says."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.generations import BASE_SEQ, HOT_KEY, STATES, CollidingHasher, Nights, signed
from tests.nightly import EPOCH_KEY, plates, record
from verifier.adapters import vehicles
from verifier.cache.keys import MAX_KEY, TAG, KeyHasher, key48, tag_bytes
from verifier.cache.schema import HOT
from verifier.cache.values import to_wide
from verifier.codec import cbor
from verifier.codec.cose import TYP_CREDENTIAL, TYP_HOT, join, parse_sign1, protected_header, sig_structure
from verifier.codec.hot import MAX_HOT, MAX_ROWS, HotList, HotListError, decode_hot, hot_key, hot_payload
from verifier.codec.index import HotEntry
from verifier.errors import CacheCorruptError, CodeError, EpochKeyError
from verifier.types import Algorithm, CredentialState, Plate, Serial, StatusLetter

FLEET = list(plates(60))
ABSENT = Plate("沪Z99999", "02")
PUBLIC = HOT_KEY.public_key()
LIST = HotList(
    region="national", nightly_seq=5, hot_seq=1, issued_at=datetime(2027, 3, 1, 9, tzinfo=UTC),
    next_update=datetime(2027, 3, 1, 10, tzinfo=UTC), rows={0: 0, 7: None, MAX_KEY: (1 << 56) - 1},
    exact={bytes(16): 3, b"\xff" * 16: None},
)  # fmt: skip

wides = st.none() | st.integers(0, (1 << 56) - 1)


def signed_payload(payload: bytes, alg: int = Algorithm.EDDSA, kid: bytes | None = None, typ: int = TYP_HOT) -> bytes:
    protected = protected_header(alg, kid, typ)
    return join(protected, payload, HOT_KEY.sign(sig_structure(protected, payload)))


# ---------------------------------------------------------------------------------------------- format


@given(
    st.dictionaries(st.integers(0, MAX_KEY), wides, max_size=30),
    st.dictionaries(st.binary(min_size=16, max_size=16), wides, max_size=30),
)
def test_every_list_round_trips(rows: dict[int, int | None], exact: dict[bytes, int | None]) -> None:
    hot = replace(LIST, rows=rows, exact=exact)
    assert decode_hot(signed(hot), PUBLIC) == hot


def test_a_key_id_may_be_named() -> None:
    assert decode_hot(signed_payload(hot_payload(LIST), kid=b"8 bytes!"), PUBLIC) == LIST


def test_every_changed_byte_is_refused() -> None:
    data = signed(LIST)
    for place in range(len(data)):
        for other in (data[:place], data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]):
            with pytest.raises(HotListError):
                decode_hot(other, PUBLIC)
    with pytest.raises(HotListError):
        decode_hot(data + b"\0", PUBLIC)


@pytest.mark.parametrize(
    "data",
    [
        signed(LIST, Ed25519PrivateKey.from_private_bytes(b"x" * 32)),
        signed_payload(hot_payload(LIST), alg=Algorithm.ES256),
        signed_payload(hot_payload(LIST), kid=b"8 bytes!", typ=TYP_CREDENTIAL),
        bytes(MAX_HOT + 1),
        b"",
    ],
)
def test_another_key_algorithm_or_type_is_refused(data: bytes) -> None:
    with pytest.raises(HotListError):
        decode_hot(data, PUBLIC)


def test_a_hot_list_is_no_code() -> None:
    with pytest.raises(CodeError):
        parse_sign1(signed(LIST))


ROW = bytes(6) + (5).to_bytes(8, "little")


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2}, {"v": True}, {"region": "A"}, {"nightly_seq": 0}, {"hot_seq": 0}, {"hot_seq": 1 << 60},
        {"iat": 0}, {"next": 1}, {"next": 1 << 40}, {"rows": b"x"}, {"rows": ROW + ROW}, {"rows": []},
        {"rows": bytes(6) + (1 << 56).to_bytes(8, "little")}, {"exact": bytes(23)}, {"exact": bytes(48)},
        {"extra": 1}, {"rows": None},
        {"rows": b"".join(i.to_bytes(6, "big") + bytes(8) for i in range(MAX_ROWS)), "exact": bytes(24)},
    ],
)  # fmt: skip
def test_what_breaks_a_bound_is_refused_although_it_is_signed(changes: dict[str, Any]) -> None:
    raw = cbor.decode(hot_payload(LIST)) | changes
    payload = cbor.encode({name: value for name, value in raw.items() if value is not None})
    with pytest.raises(HotListError):
        decode_hot(signed_payload(payload), PUBLIC)


@pytest.mark.parametrize(
    "fields",
    [
        {"next_update": LIST.issued_at}, {"region": "Ä"}, {"hot_seq": 0}, {"rows": {1: 1 << 56}},
        {"rows": dict.fromkeys(range(MAX_ROWS + 1), 1)},
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_not_encoded(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hot list"):
        hot_payload(replace(LIST, **fields))


def test_the_largest_list_stays_below_the_bound() -> None:
    data = signed(replace(LIST, rows=dict.fromkeys(range(MAX_ROWS), 1 << 55), exact={}))
    assert len(data) <= MAX_HOT
    assert len(decode_hot(data, PUBLIC).rows) == MAX_ROWS


@pytest.mark.parametrize("entry", [(-7, bytes(32)), (-8, bytes(31)), (-48, b"k")])
def test_a_key_that_cannot_be_used_is_refused(entry: tuple[int, bytes]) -> None:
    with pytest.raises(HotListError):
        hot_key(HotEntry(key_alg=entry[0], key=entry[1], max_age_s=60))


# ------------------------------------------------------------------------------------------- in the store


def in_use(root: Path, hasher: KeyHasher | None = None) -> Nights:
    """A base, one night over it, and no hot list yet."""
    nights = Nights(root, {plate: record(plate) for plate in FLEET[:50]}, hasher or KeyHasher(EPOCH_KEY))
    nights.night({plate: record(plate, 1) for plate in FLEET[10:55]})
    nights.install(nights.changes())
    return nights


def test_the_hot_list_is_above_changes_and_base(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    stolen = replace(record(FLEET[20]), status=frozenset({StatusLetter("C")}))
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[20]) == record(FLEET[20], 1)
        keys = [key48(nights.digest(plate)) for plate in FLEET]
        nights.put_hot(
            nights.hot(
                rows={keys[20]: to_wide(stolen), keys[21]: None, keys[0]: to_wide(record(FLEET[0], 9))},
                exact={nights.digest(FLEET[58]): to_wide(record(FLEET[58], 9)), nights.digest(FLEET[22]): None},
            )
        )
        assert store.vehicle(FLEET[20]) == stolen
        assert [store.vehicle(FLEET[i]) for i in (21, 22, 1)] == [None] * 3
        assert [store.vehicle(FLEET[i]) for i in (0, 58)] == [record(FLEET[i], 9) for i in (0, 58)]
        assert store.vehicle(FLEET[23]) == record(FLEET[23], 1)
        info = store.info()
        assert (info.hot_seq, info.hot_as_of, info.notes) == (1, nights.hot().issued_at, ())
        assert info.hot_due == nights.hot().next_update
        assert info.as_of < nights.hot().issued_at  # the set itself is no newer for it
        # The next list holds what counts now: what it leaves out is as the night says.
        nights.put_hot(nights.hot(hot_seq=2))
        assert store.vehicle(FLEET[20]) == record(FLEET[20], 1)
        assert store.info().hot_seq == 2
        (tmp_path / HOT).unlink()
        assert store.info().hot_seq is None
        assert vehicles(store, FLEET[20]) == [record(FLEET[20], 1)]


def test_a_tag_in_the_hot_list_leads_to_its_vehicle(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    tid = "E28011700000020A7D5C1B2F"
    nights.put_hot(nights.hot(exact={nights.hasher.digest(TAG, tag_bytes(tid)): to_wide(record(FLEET[3], 4))}))
    with closing(nights.store()) as store:
        assert store.vehicle_by_tag(tid, FLEET[3]) == record(FLEET[3], 4)


def test_a_newer_night_ends_the_rows_of_the_old_one(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    nights.put_hot(nights.hot(exact={nights.digest(FLEET[20]): None}))
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[20]) is None
        nights.night({plate: record(plate, 2) for plate in FLEET})
        nights.install(nights.changes("second.db"))
        assert store.vehicle(FLEET[20]) == record(FLEET[20], 2)
        assert (store.info().hot_seq, store.info().notes) == (None, ())


BAD: dict[str, Callable[[Nights], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda nights: signed(nights.hot())[:-1],
    "flipped": lambda nights: signed(nights.hot()).replace(b"national", b"nationaz"),
    "another key": lambda nights: signed(nights.hot(), Ed25519PrivateKey.from_private_bytes(b"x" * 32)),
    "another region": lambda nights: signed(nights.hot(region="other")),
    "a newer night": lambda nights: signed(nights.hot(nightly_seq=nights.seq + 1)),
    "huge": lambda _: bytes(MAX_HOT + 10),
}


@pytest.mark.parametrize("name", BAD)
def test_a_hot_list_that_does_not_fit_costs_its_rows_and_nothing_else(tmp_path: Path, name: str) -> None:
    nights = in_use(tmp_path)
    (tmp_path / HOT).write_bytes(BAD[name](nights))
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[20]) == record(FLEET[20], 1)
        (note,) = store.info().notes
        assert note.startswith("hot list: ")
        assert store.info().hot_seq is None
        nights.put_hot(nights.hot())
        assert store.info().notes == ()


def test_a_hot_list_that_cannot_be_read_is_remarked(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    (tmp_path / HOT).mkdir()
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[20]) == record(FLEET[20], 1)
        assert store.info().notes == ("hot list: cannot be read",)


def test_a_set_that_names_no_key_takes_no_hot_list(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    nights.put_hot(nights.hot(exact={nights.digest(FLEET[20]): None}))
    nights.install(nights.changes(), hot=None)
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[20]) == record(FLEET[20], 1)
        assert len(store.info().notes) == 1


def test_a_list_of_the_same_length_and_time_is_noticed(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    path = tmp_path / HOT
    moment = (10**18, 10**18)
    with closing(nights.store()) as store:
        for hot_seq in (1, 2, 3):
            nights.put_hot(nights.hot(hot_seq=hot_seq))
            os.utime(path, ns=moment)
            assert store.info().hot_seq == hot_seq


def test_a_short_row_never_answers_for_one_of_several_vehicles(tmp_path: Path) -> None:
    hasher = CollidingHasher(EPOCH_KEY)
    nights = in_use(tmp_path, hasher)
    shown = FLEET[20]
    key = key48(nights.digest(shown))
    others = [plate for plate in FLEET if key48(nights.digest(plate)) == key and plate != shown]
    assert others
    with closing(nights.store()) as store:
        nights.put_hot(nights.hot(exact={nights.digest(shown): None}))
        assert store.vehicle(shown) is None
        assert [store.vehicle(plate) for plate in others] == [nights.vehicles.get(plate) for plate in others]
        nights.put_hot(nights.hot(hot_seq=2, rows={key: to_wide(record(shown, 9))}))
        for plate in [shown, *others]:
            with pytest.raises(CacheCorruptError):
                store.vehicle(plate)


def test_a_short_row_answers_for_a_vehicle_whose_record_is_a_rare_one(tmp_path: Path) -> None:
    # It has exact rows, but alone.
    rare = replace(record(FLEET[0]), ctp_until=datetime(1990, 1, 1, tzinfo=UTC).date())
    nights = Nights(tmp_path, {plate: record(plate) for plate in FLEET})
    nights.night(dict(nights.vehicles) | {FLEET[0]: rare})
    nights.install(nights.changes())
    nights.put_hot(nights.hot(rows={key48(nights.digest(FLEET[0])): to_wide(record(FLEET[0], 3))}))
    with closing(nights.store()) as store:
        assert store.vehicle(FLEET[0]) == record(FLEET[0], 3)


def test_damage_below_is_not_covered_up_and_documents_still_answer(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    nights.put_hot(nights.hot())
    (tmp_path / "current" / "changes.db").write_bytes(b"")
    with closing(nights.store()) as store:
        with pytest.raises(CacheCorruptError):
            store.vehicle(FLEET[20])
        for index, _ in enumerate(STATES[:2]):
            found = store.credential(Serial("00" * 12), 7, index, ())
            assert found is not None
            assert found.state is (CredentialState.ACTIVE, CredentialState.REVOKED)[index]


def test_a_wrong_epoch_key_is_told_before_the_hot_list_is_asked(tmp_path: Path) -> None:
    nights = in_use(tmp_path)
    nights.put_hot(nights.hot())
    nights.hasher = KeyHasher(bytes(32))
    with closing(nights.store()) as store:
        with pytest.raises(EpochKeyError):
            store.vehicle(ABSENT)
        assert (store.info().seq, store.info().base_seq) == (BASE_SEQ + 1, BASE_SEQ)


def test_times_are_seconds_in_utc() -> None:
    hot = replace(LIST, issued_at=LIST.issued_at.astimezone(), next_update=LIST.next_update + timedelta(microseconds=5))
    assert decode_hot(signed(hot), PUBLIC) == LIST
