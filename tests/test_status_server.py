"""The status server as handhelds meet it: over real TLS, with real certificates, and one register behind it."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from scripts.cli.main import main
from scripts.cli.sandbox_devices import open_books
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.database import DatabaseError, open_database
from scripts.sandbox.device_ca import DEVICE_LIFE, CsrError, DeviceCa, ca_file, make_csr
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.republish import RENEWAL_S, Republisher
from scripts.sandbox.status_http import HEAD_BYTES, ClientCertificate, HttpLimits, Request
from scripts.sandbox.status_server import ROUTES, Rate
from scripts.sandbox.status_store import DeviceState
from tests.status_world import Handheld, World, make_world, postgresql, postgresql_missing, raw_connection
from verifier.cache.keys import KeyHasher, key48
from verifier.cache.values import from_wide, to_wide
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.codec.cose import TYP_ONLINE, join, protected_header, sig_structure
from verifier.codec.device import (
    AuditHead,
    AuditUpload,
    DeviceFormatError,
    WipeOrder,
    decode_audit_head,
    decode_order,
    encode_upload,
    order_payload,
)
from verifier.codec.hot import open_rows
from verifier.codec.online import (
    MAX_REQUEST,
    AskedId,
    DocumentWord,
    IdKind,
    OnlineFormatError,
    Report,
    ReportReason,
    RowStatus,
    StatusRequest,
    VinWord,
    decode_answer,
    decode_receipt,
    encode_report,
    encode_request,
)
from verifier.codec.status import ListedStatus
from verifier.online import Centre, Inquiry, Standing
from verifier.online_http import HttpPoster
from verifier.trust import load_trust_list
from verifier.types import OnlineEvidence, OnlineState, Plate, StatusLetter, VinAnswer
from verifier.verdict import VerdictCode
from verifier.vin import read_vin


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    made.live.authority.publish()
    with made.serving():
        yield made
    made.store.close()


@pytest.fixture(scope="module")
def handheld(world) -> Handheld:
    return world.handheld("h-0")


def vehicles(world: World):
    return list(world.live.authority.registry.vehicles.values())


def event(world: World, *line: str) -> None:
    """As another process records it."""
    assert main(["sandbox", "event", *line, "--folder", str(world.home.folder)]) == 0


def of(plate: Plate) -> tuple[str, ...]:
    return "--plate", plate.text, "--kind", plate.kind or ""


# ------------------------------------------------------------------------------------------------ look-ups


def test_each_answer_is_what_the_register_says(world, handheld):
    registry = world.live.authority.registry
    for start in range(0, len(vehicles(world)), 16):
        some = vehicles(world)[start : start + 16]
        tagged = [v for v in some if v.tid is not None]
        answer = world.answer(
            handheld,
            *(world.plate_id(v.plate) for v in some),
            *(world.tag_id(v.tid) for v in tagged),
            *(world.serial_id(registry.credential(v.plate).serial) for v in some),
        )
        wide = [to_wide(v.record()) for v in [*some, *tagged]]
        assert [row.record for row in answer.rows] == wide + [DocumentWord(ListedStatus.ACTIVE)] * len(some)
        assert {row.status for row in answer.rows} == {RowStatus.FOUND}
        assert {row.as_of for row in answer.rows} == {answer.issued_at}


def test_what_the_register_does_not_have_is_absent_and_nothing_else_is_said_of_it(world, handheld):
    some = vehicles(world)[0]
    strangers = [world.plate_id(Plate("京A00000", "02")), world.plate_id(Plate(some.plate.text, "22"))]
    strangers += [AskedId(kind, secrets.token_bytes(16)) for kind in IdKind]
    strangers.append(AskedId(IdKind.TAG, world.plate_id(some.plate).key))
    answer = world.answer(handheld, *strangers)
    assert [(row.status, row.record) for row in answer.rows] == [(RowStatus.ABSENT, None)] * len(strangers)


def test_a_stolen_car_is_in_the_next_answer_and_in_the_hot_list(world, handheld, capfd):
    republisher = Republisher(world.live)
    car = next(v for v in vehicles(world) if v.status == {StatusLetter.NORMAL})
    before = world.answer(handheld, world.plate_id(car.plate))
    event(world, "status", *of(car.plate), "--letters", "C")
    (row,) = world.answer(handheld, world.plate_id(car.plate)).rows
    assert from_wide(row.record, car.plate).status == {StatusLetter.STOLEN}
    assert republisher.step() == [f"published hot list no. {before.hot_seq + 1}: 1 rows"]
    hot = open_rows(world.live.authority.publisher.hot(), world.live.authority.epoch_key)
    key = world.plate_id(car.plate).key
    assert {**hot.rows, **hot.exact} in ({key48(key): row.record}, {key: row.record})
    assert world.answer(handheld, world.plate_id(car.plate)).hot_seq == before.hot_seq + 1
    assert republisher.step() == []
    assert car.plate.text not in "".join(capfd.readouterr())


def test_an_event_reaches_the_hot_list_though_nobody_asks(world):
    republisher = Republisher(world.live)
    seq = world.live.authority.publisher.hot().hot_seq
    car = next(v for v in vehicles(world) if v.status == {StatusLetter.NORMAL})
    event(world, "status", *of(car.plate), "--letters", "N")
    (line,) = republisher.step()
    assert line.startswith(f"published hot list no. {seq + 1}: ")


def test_the_hot_list_and_the_time_stamp_are_renewed_before_they_run_out(world):
    now = [0.0]
    republisher = Republisher(world.live, ticks=lambda: now[0])
    seq, stamp = world.live.authority.publisher.hot().hot_seq, world.live.authority.store["metadata/timestamp.json"]
    now[0] = 19 * 60
    assert republisher.step() == []
    assert world.live.authority.publisher.hot().hot_seq == seq
    now[0] = 20 * 60
    assert republisher.step() == []
    assert world.live.authority.publisher.hot().hot_seq == seq + 1
    assert world.live.authority.store["metadata/timestamp.json"] == stamp
    now[0] = RENEWAL_S
    republisher.step()
    assert world.live.authority.store["metadata/timestamp.json"] != stamp


def test_what_happens_to_documents_counts_in_the_next_answer(world, handheld):
    registry = world.live.authority.registry
    a, b, c = [v.plate for v in vehicles(world) if v.plate.kind == "02"][10:13]
    old = [world.serial_id(registry.credential(plate).serial) for plate in (a, b, c)]
    new = Plate(c.text[:2] + "0D0D0", "02")
    event(world, "revoke", *of(a))
    event(world, "reissue", *of(b))
    event(world, "replate", *of(c), "--new-plate", new.text)
    rows = world.answer(handheld, *old, world.plate_id(c), world.plate_id(new)).rows
    assert [row.record for row in rows[:3]] == [
        DocumentWord(ListedStatus.REVOKED),
        DocumentWord(ListedStatus.SUPERSEDED),
        DocumentWord(ListedStatus.SUPERSEDED, world.plate_id(new).key),
    ]
    assert [row.status for row in rows[3:]] == [RowStatus.ABSENT, RowStatus.FOUND]
    fresh = world.answer(handheld, *(world.serial_id(registry.credential(plate).serial) for plate in (b, new)))
    assert [row.record for row in fresh.rows] == [DocumentWord(ListedStatus.ACTIVE)] * 2
    event(world, "replate", *of(new), "--new-plate", c.text)
    rows = world.answer(handheld, world.plate_id(c), world.plate_id(new), old[2]).rows
    assert [row.status for row in rows] == [RowStatus.FOUND, RowStatus.ABSENT, RowStatus.FOUND]
    assert rows[2].record == DocumentWord(ListedStatus.SUPERSEDED), "it has its first plate back"


def test_a_vin_is_answered_with_its_vehicle_and_the_hash_of_the_plate_that_it_carries_now(world, handheld, capfd):
    some = [v for v in vehicles(world) if v.plate.kind == "02"][20:24]
    answer = world.answer(handheld, *(world.vin_id(v.vin) for v in some), world.vin_id("LSVAA49J4E2000001"))
    assert [row.record for row in answer.rows[:4]] == [
        VinWord(world.plate_id(v.plate).key, to_wide(v.record())) for v in some
    ]
    assert (answer.rows[4].status, answer.rows[4].record) == (RowStatus.ABSENT, None)
    car = some[0]
    new = Plate(car.plate.text[:2] + "0E0E0", "02")
    event(world, "replate", *of(car.plate), "--new-plate", new.text)
    moved = world.answer(handheld, world.vin_id(car.vin)).rows[0].record
    assert moved == VinWord(world.plate_id(new).key, to_wide(car.record()))
    assert world.service._lookup.plate(world.vin_id(car.vin)) == new
    assert car.vin not in "".join(capfd.readouterr())


def test_a_vin_that_stands_under_two_plates_is_unknown_until_people_have_cleared_it_up(world, handheld):
    registry, car = world.live.authority.registry, vehicles(world)[30]
    twin = replace(car, plate=Plate(car.plate.text[:2] + "0F0F0", "02"), tid=None)
    with world.live.lock:
        registry.register(twin)
        world.service._lookup._learn_vehicle(twin.plate)
    row = world.answer(handheld, world.vin_id(car.vin)).rows[0]
    assert (row.status, row.record) == (RowStatus.UNKNOWN, None)
    with world.live.lock:
        del registry.vehicles[twin.plate]
    assert world.answer(handheld, world.vin_id(car.vin)).rows[0].record == VinWord(
        world.plate_id(car.plate).key, to_wide(car.record())
    )


def test_a_newly_registered_vehicle_and_its_document_are_found(world, handheld):
    plate = Plate("粤B8D8D8", "02")
    event(world, "register", *of(plate))
    found = world.answer(handheld, world.plate_id(plate)).rows[0]
    assert found.status is RowStatus.FOUND
    serial = world.live.authority.registry.credential(plate).serial
    assert world.answer(handheld, world.serial_id(serial)).rows[0].record == DocumentWord(ListedStatus.ACTIVE)


def test_after_a_theft_of_a_citys_key_its_old_documents_are_superseded(world, handheld):
    registry = world.live.authority.registry
    car = next(v for v in vehicles(world) if v.city.code == "320100" and v.status == {StatusLetter.NORMAL})
    old = world.serial_id(registry.credential(car.plate).serial)
    republisher = Republisher(world.live)
    event(world, "compromise-key", "--issuer", "320100")
    assert world.answer(handheld, old).rows[0].record == DocumentWord(ListedStatus.SUPERSEDED)
    fresh = world.serial_id(registry.credential(car.plate).serial)
    assert world.answer(handheld, fresh).rows[0].record == DocumentWord(ListedStatus.ACTIVE)
    assert f"published trust list version {world.live.authority.trust_version}" in republisher.step()


def test_an_answer_serves_its_own_request_alone_and_no_other_key_signs_one(world, handheld):
    first, second = vehicles(world)[:2]
    request, other = world.request(world.plate_id(first.plate)), world.request(world.plate_id(second.plate))
    body = handheld.post_cbor("/v1/status", request).body
    trust = load_trust_list(world.live.authority.trust_entries())
    assert len(decode_answer(body, request, trust)[0].rows) == 1
    with pytest.raises(OnlineFormatError, match="another request"):
        decode_answer(body, other, trust)
    with pytest.raises(OnlineFormatError, match="no key"):
        decode_answer(body, request, load_trust_list(world.live.authority.issuer.trust_entries()))


def test_keys_under_another_epoch_key_are_refused_and_never_called_absent(world, handheld):
    plate = world.plate_id(vehicles(world)[0].plate)
    stale = KeyHasher(bytes(32)).check_value
    request = encode_request(StatusRequest(nonce=bytes(16), key_check=stale, ids=(plate,)))
    reply = handheld.post_cbor("/v1/status", request)
    assert (reply.status, reply.reason) == (409, "EPOCH_KEY_DIFFERS")


@pytest.mark.parametrize(
    "spoil", ["51 ids", "no ids", "kind 5", "a VIN in clear", "too long", "cut", "json", "trailing"]
)
def test_a_request_that_breaks_the_format_is_malformed(world, handheld, spoil):
    good = world.request(world.plate_id(vehicles(world)[0].plate))
    raw = cbor.decode(good)
    if spoil == "51 ids":
        raw["ids"] = [[1, bytes(16)]] * 51
    elif spoil == "no ids":
        raw["ids"] = []
    elif spoil == "kind 5":
        raw["ids"] = [[5, bytes(16)]]
    elif spoil == "a VIN in clear":
        raw["ids"] = [[4, vehicles(world)[0].vin.encode()]]
    elif spoil == "too long":
        raw["ids"] = [[4, bytes(1500)]]
    body = {"cut": good[:-1], "json": b'{"ids": []}', "trailing": good + b"\0"}.get(spoil) or cbor.encode(raw)
    reply = handheld.post_cbor("/v1/status", body)
    assert (reply.status, reply.content_type, reply.reason) == (400, "application/problem+json", "REQUEST_MALFORMED")


# ---------------------------------------------------------------------------------------- reports, audit


def report_of(world: World, **other: object) -> Report:
    values = {
        "report_id": secrets.token_bytes(16), "check_id": bytes(16), "reason": ReportReason.CORRECTED,
        "vehicle": world.plate_id(vehicles(world)[0].plate),
        "key_check": KeyHasher(world.live.authority.epoch_key).check_value,
        "checked_at": datetime(2026, 11, 22, tzinfo=UTC), "then": VerdictCode.VALID_STALE, "now": VerdictCode.EXPIRED,
    }  # fmt: skip
    return Report(**values | other)


def test_a_report_stands_in_the_queue_once_with_its_plate_for_who_works_through_it(world, handheld, capsys):
    report = report_of(world)
    for _ in range(2):
        reply = handheld.post_cbor("/v1/reports", encode_report(report))
        assert (reply.status, decode_receipt(reply.body)) == (200, report.report_id)
    changed = encode_report(report_of(world, report_id=report.report_id, now=VerdictCode.VALID))
    assert handheld.post_cbor("/v1/reports", changed).reason == "REPORT_DIFFERS"
    assert handheld.post_cbor("/v1/reports", encode_report(report_of(world, key_check=bytes(16)))).status == 409
    books = f"sqlite:///{world.folder / 'status.db'}"
    assert main(["sandbox", "reports", "--folder", str(world.home.folder), "--database", books, "--json"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["device"], line["plate"], line["then"], line["now"]) == (
        "h-0", vehicles(world)[0].plate.text, "VALID_STALE", "EXPIRED",
    )  # fmt: skip


def test_an_audit_log_is_taken_once_and_a_rollback_is_found(world):
    device = world.handheld("h-audit")
    first = b'{"prev": "%s"}' % (b"0" * 64)
    upload = AuditUpload(AuditHead(), (first,))
    (head,) = upload.heads()
    for _ in range(2):
        reply = device.post_cbor("/v1/audit", encode_upload(upload))
        assert (reply.status, decode_audit_head(reply.body)) == (200, head)
    second = AuditUpload(head, (b'{"prev": "%s", "n": 2}' % head.head.hex().encode(),))
    assert device.post_cbor("/v1/audit", encode_upload(second)).status == 200
    rolled_back = AuditUpload(head, (b'{"prev": "%s", "n": 3}' % head.head.hex().encode(),))
    reply = device.post_cbor("/v1/audit", encode_upload(rolled_back))
    known = second.heads()[0]
    assert (reply.status, reply.reason) == (409, "AUDIT_BROKEN")
    assert reply.json["audit"] == {"seq": 2, "head": known.head.hex()}
    later = AuditUpload(AuditHead(9, bytes(32)), (b"later",))
    assert device.post_cbor("/v1/audit", encode_upload(later)).reason == "AUDIT_GAP"
    assert len(world.store.audit_records("h-audit")) == 2


HEARTBEAT = {
    "software": "0.1.0", "uptime_s": 3600, "battery": {"percent": 80, "charging": False},
    "counters": {"sync_failed": 2}, "data": {"region": "national", "seq": 1, "hot_seq": 3, "age_s": 120},
    "program": {"at": "2026-11-22T10:00:00+08:00", "faults": ["camera"]},
    "clock": {"at": "2026-11-22T10:05:00+08:00", "doubts": ["moved"]},
}  # fmt: skip


def test_a_sign_of_life_is_kept_and_a_shorter_audit_log_in_it_is_found(world):
    device = world.handheld("h-beat")
    told = [{"seq": 5, "head": "ab" * 32}, {"seq": 4, "head": "cd" * 32}]
    words = [
        device.post_json("/v1/heartbeat", body).json["audit"]
        for body in (HEARTBEAT, HEARTBEAT | {"audit": told[0]}, HEARTBEAT | {"audit": told[1]})
    ]
    assert words == ["not told", "continues", "broken"]
    (known,) = [d for d in world.store.devices() if d["device"] == "h-beat"]
    assert (known["heartbeat"]["battery"]["percent"], known["audit_alarms"]) == (80, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        {"plate": "京A12345"}, {"uptime_s": -1}, {"uptime_s": True}, {"uptime_s": 1.5}, {"software": "a b"},
        {"software": "x\n"}, {"counters": {"X": 1}}, {"counters": {f"c{n}": 1 for n in range(81)}}, {"data": None},
        {"program": {"at": "", "faults": ["京A12345"]}}, {"clock": {"at": "", "doubts": ["tired"]}}, {"clock": None},
        {"battery": {"percent": 101, "charging": None}}, {"audit": {"seq": 1, "head": "AB" * 32}},
    ],
    ids=str,
)  # fmt: skip
def test_a_sign_of_life_that_breaks_its_schema_is_malformed(handheld, spoil):
    assert handheld.post_json("/v1/heartbeat", HEARTBEAT | spoil).reason == "REQUEST_MALFORMED"


# -------------------------------------------------------------------------------------------- enrolment


def test_a_device_is_whom_the_code_says_whatever_its_request_says(world):
    device, code = Handheld(world), world.store.enrolment_code("h-name", system_clock())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "h-0")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(device.private, SHA256())
    reply = device.post_json("/v1/enrol", {"csr": request.public_bytes(Encoding.PEM).decode(), "code": code})
    made = x509.load_pem_x509_certificate(str(reply.json["certificate"]).encode())
    assert reply.json["device"] == "h-name"
    assert made.subject.rfc4514_string() == "CN=h-name"
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:markcheck:device:h-name")]
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.not_valid_after_utc - datetime.now(UTC) <= DEVICE_LIFE == timedelta(hours=72)


def test_a_code_enrols_once_and_a_certificate_renews_itself(world):
    device = Handheld(world)
    code = world.store.enrolment_code("h-once", system_clock())
    assert device.enrol(code).status == 200
    assert device.enrol(code).status == 200, "the first answer may have been lost"
    assert Handheld(world).enrol(code).reason == "CODE_REFUSED"
    assert Handheld(world).enrol("A" * 20).reason == "CODE_REFUSED"
    assert Handheld(world).enrol(None).reason == "CERTIFICATE_MISSING"
    before = device.pem
    assert device.enrol(None).status == 200
    assert device.pem != before
    assert device.ask("GET", "/v1/epoch-key").status == 200


def test_whoever_enrols_anew_ends_the_device_that_was(world):
    old = world.handheld("h-anew")
    new = world.handheld("h-anew")
    assert old.ask("GET", "/v1/epoch-key").reason == "CERTIFICATE_UNKNOWN"
    assert old.enrol(None).reason == "CERTIFICATE_UNKNOWN"
    assert new.ask("GET", "/v1/epoch-key").status == 200


def csr_of(private: object) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(private, SHA256() if not isinstance(private, Ed25519PrivateKey) else None).public_bytes(
        Encoding.PEM
    ).decode()  # fmt: skip


def test_a_request_for_a_key_that_is_no_p256_or_not_its_own_is_malformed_and_spares_the_code(world):
    device, code = Handheld(world), world.store.enrolment_code("h-csr", system_clock())
    der = base64.b64decode("".join(make_csr(device.private).splitlines()[1:-1]))
    broken = base64.b64encode(der[:-1] + bytes([der[-1] ^ 1])).decode()
    texts = [
        csr_of(generate_private_key(SECP384R1())), csr_of(Ed25519PrivateKey.generate()), "", "nothing",
        f"-----BEGIN CERTIFICATE REQUEST-----\n{broken}\n-----END CERTIFICATE REQUEST-----\n",
        world.ca.root_pem, make_csr(device.private) * 2,
    ]  # fmt: skip
    for text in texts:
        assert device.post_json("/v1/enrol", {"csr": text, "code": code}).reason == "REQUEST_MALFORMED"
    assert device.enrol(code).status == 200


def test_the_epoch_key_goes_to_a_device_in_good_standing_alone(world):
    device = world.handheld("h-key")
    reply = device.ask("GET", "/v1/epoch-key")
    assert reply.json["epoch_key"] == world.live.authority.epoch_key.hex()
    assert reply.headers["Cache-Control"] == "no-store"
    world.store.set_state("h-key", DeviceState.HELD)
    assert device.ask("GET", "/v1/epoch-key").reason == "DEVICE_HELD"
    assert device.enrol(None).reason == "DEVICE_HELD"
    assert device.post_json("/v1/heartbeat", HEARTBEAT).status == 200, "what it has runs out"
    assert Handheld(world).ask("GET", "/v1/epoch-key").reason == "CERTIFICATE_MISSING"


def test_a_lost_device_gets_nothing_but_a_signed_order_that_is_its_own(world):
    device = world.handheld("h-lost")
    world.store.set_state("h-lost", DeviceState.LOST)
    body = world.request(world.plate_id(vehicles(world)[0].plate))
    report, upload = encode_report(report_of(world)), encode_upload(AuditUpload(AuditHead(), (b"{}",)))
    asked = [
        lambda: device.post_cbor("/v1/status", body), lambda: device.post_cbor("/v1/reports", report),
        lambda: device.post_cbor("/v1/audit", upload), lambda: device.ask("GET", "/v1/epoch-key"),
        lambda: device.post_json("/v1/heartbeat", HEARTBEAT), lambda: device.enrol(None),
    ]  # fmt: skip
    assert [(r.status, r.reason, "order" in r.json) for r in (ask() for ask in asked)] == [
        (403, "DEVICE_LOST", False)
    ] * 6
    world.store.set_state("h-lost", DeviceState.LOST, wipe=True)
    trust = load_trust_list(world.live.authority.trust_entries())
    for reply in (ask() for ask in asked):
        order = base64.b64decode(str(reply.json["order"]))
        assert decode_order(order, "h-lost", trust).order_seq == 1
        with pytest.raises(DeviceFormatError, match="another device"):
            decode_order(order, "h-0", trust)
    world.store.set_state("h-lost", DeviceState.ACTIVE)
    assert device.ask("GET", "/v1/epoch-key").status == 200


def test_an_order_to_wipe_by_anybody_else_is_none(world):
    authority = world.live.authority
    now = system_clock().replace(microsecond=0)
    payload = order_payload(WipeOrder(issuer="000000", device="h-0", order_seq=1, issued_at=now))
    trust = load_trust_list(authority.trust_entries())

    def signed(key, typ: int = 65006) -> bytes:
        protected = protected_header(key.alg, key.entry.kid, typ)
        return join(protected, payload, key.sign(sig_structure(protected, payload)))

    good = signed(authority.status_key)
    assert decode_order(good, "h-0", trust).order_seq == 1
    for bad in (
        signed(authority.issuer.keys["000000"]), signed(authority.issuer.keys["110000"]),
        signed(authority.status_key, TYP_ONLINE), good[:-1] + bytes([good[-1] ^ 1]), good + b"\0", b"",
    ):  # fmt: skip
        with pytest.raises(DeviceFormatError):
            decode_order(bad, "h-0", trust)


# -------------------------------------------------------------------------------------------------- TLS


def bodies(path: str) -> dict[str, object]:
    route = ROUTES[path]
    return {"body": b"{}" if route.content_type else None, "content_type": route.content_type}


def test_nobody_without_a_certificate_gets_anything_but_enrolment(world):
    for path, route in ROUTES.items():
        if path != "/v1/enrol":
            reply = Handheld(world).ask(route.method, path, **bodies(path))
            assert (reply.status, reply.reason) == (401, "CERTIFICATE_MISSING"), path


def connects(context: ssl.SSLContext, port: int) -> bool:
    """Whether a request gets any answer; the refusal of a certificate comes with the first reading in TLS 1.3."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("GET", "/v1/epoch-key")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def test_certificates_of_others_and_expired_ones_end_in_the_handshake(world):
    device = world.handheld("h-tls")
    assert connects(device.context(), world.port)
    other = DeviceCa.generate(system_clock)
    device.pem = other.device_certificate(make_csr(device.private), "h-tls").pem
    assert not connects(device.context(), world.port)
    private, public = world.home.private, world.home.folder
    past = DeviceCa.open(private, public, lambda: system_clock() - timedelta(hours=73))
    device.pem = past.device_certificate(make_csr(device.private), "h-tls").pem
    assert not connects(device.context(), world.port)
    unknown = DeviceCa.open(private, public, system_clock)
    device.pem = unknown.device_certificate(make_csr(device.private), "h-tls").pem
    assert device.ask("GET", "/v1/epoch-key").reason == "CERTIFICATE_UNKNOWN", "signed by us, but in no books"


def test_a_devices_certificate_cannot_play_the_server(world, tmp_path):
    device = world.handheld("localhost")
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = tmp_path / "pair.pem"
    pair.write_bytes(device.pair())
    listening.load_cert_chain(pair)
    client = ssl.create_default_context(cadata=world.ca.root_pem)
    client.check_hostname = False
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking, answering = client.wrap_bio(a, b), listening.wrap_bio(b, a, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(asking, answering)


def shake_hands(*sides: ssl.SSLObject) -> None:
    for _ in range(10):
        for side in sides:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()


def test_tls_before_1_2_is_refused(world):
    context = ssl.create_default_context(cadata=world.ca.root_pem)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert not connects(context, world.port)


def test_the_private_half_of_the_ca_stays_in_the_private_folder(world):
    public = ca_file(world.home.folder).read_text()
    assert "PRIVATE" not in public
    key = world.home.private / "device-ca.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (world.home.private / ".gitignore").read_text() == "*\n"
    assert "BEGIN PRIVATE KEY" in key.read_text()
    again = DeviceCa.open(world.home.private, world.home.folder, system_clock)
    assert again.root_pem == public == world.ca.root_pem


def test_a_root_that_is_not_that_of_the_key_is_not_used(world, tmp_path):
    DeviceCa.open(tmp_path, tmp_path, system_clock)
    ca_file(tmp_path).write_text(world.ca.root_pem)
    with pytest.raises(ValueError, match="not the certificate of the key"):
        DeviceCa.open(tmp_path, tmp_path, system_clock)


def test_only_names_that_are_device_names_get_a_certificate(world):
    with pytest.raises(ValueError, match="device id"):
        world.ca.device_certificate(make_csr(Handheld(world).private), "a/b")
    with pytest.raises(CsrError):
        world.ca.device_certificate("", "h-0")


# ------------------------------------------------------------------------------------------------- the edge


def test_paths_methods_types_and_lengths_that_are_none_are_refused_by_name(world, handheld):
    good = world.request(world.plate_id(vehicles(world)[0].plate))
    asked = {
        (404, "PATH_UNKNOWN"): handheld.ask("GET", "/"),
        (404, "PATH_UNKNOWN", "query"): handheld.ask("GET", "/v1/epoch-key?plate=1"),
        (405, "METHOD_NOT_ALLOWED"): handheld.ask("GET", "/v1/status"),
        (405, "METHOD_NOT_ALLOWED", "put"): handheld.ask("PUT", "/v1/status", good, "application/cbor"),
        (413, "BODY_TOO_LARGE"): handheld.post_cbor("/v1/status", bytes(MAX_REQUEST + 1)),
        (413, "BODY_TOO_LARGE", "much"): handheld.post_cbor("/v1/audit", bytes(3 << 20)),
        (413, "BODY_TOO_LARGE", "get"): handheld.ask("GET", "/v1/epoch-key", b"x"),
        (415, "CONTENT_TYPE"): handheld.ask("POST", "/v1/status", good, "application/json"),
        (415, "CONTENT_TYPE", "none"): handheld.ask("POST", "/v1/status", good),
        (415, "CONTENT_TYPE", "zip"): handheld.ask(
            "POST", "/v1/status", good, "application/cbor", **{"Content-Encoding": "gzip"}
        ),
    }  # fmt: skip
    for expected, reply in asked.items():
        assert (reply.status, reply.reason) == expected[:2], expected
        assert reply.content_type == "application/problem+json"
        assert reply.json["status"] == reply.status
    assert asked[405, "METHOD_NOT_ALLOWED"].headers["Allow"] == "POST"


def raw(world: World, data: bytes) -> bytes:
    """What comes back to these bytes until the server closes."""
    answer = b""
    with raw_connection(world) as connection, suppress(OSError):
        connection.sendall(data)
        while piece := connection.recv(65536):
            answer += piece
    return answer


HEAD = b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"\r\n", b"411"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"411"),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", b"411"),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", b"400"),
        (HEAD + b"Content-Length: +2\r\n\r\n{}", b"400"),
        (HEAD + b"Content-Length: -1\r\n\r\n{}", b"400"),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}", b"413"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"BREW /v1/enrol HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /v1/epoch-key HTTP/9.9\r\n\r\n", b"400"),
        (b"GET /" + b"\xff\x1b[31m" + b" HTTP/1.1\r\n\r\n", b"404"),
        (HEAD + b"".join(b"H%d: x\r\n" % n for n in range(200)) + b"\r\n", b"400"),
    ],
    ids=lambda v: repr(v[-30:]),
)
def test_what_is_no_sound_request_gets_one_refusal_and_the_connection_ends(world, capfd, data, status):
    answer = raw(world, data + b"POST /v1/enrol HTTP/1.1\r\n\r\n")
    assert answer.split(b" ")[1] == status
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows is not taken for another request"
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\x1b" not in answer
    assert capfd.readouterr() == ("", "")


def test_a_client_that_waits_for_leave_to_send_gets_it_or_a_refusal(world):
    with raw_connection(world) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    with raw_connection(world) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_head_without_end_is_cut_off(world):
    assert raw(world, b"GET /v1/epoch-key HTTP/1.1\r\nA: " + b"x" * (4 * HEAD_BYTES)) == b""


def test_one_connection_serves_many_requests(world, handheld):
    connection, sockets = handheld.connect(), set()
    for car in vehicles(world)[:3]:
        body = world.request(world.plate_id(car.plate))
        connection.request("POST", "/v1/status", body, {"Content-Type": "application/cbor"})
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (200, True)
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


@pytest.fixture
def strict(tmp_path) -> Iterator[World]:
    """A server with little patience, few places and low rates, on a clock that stands."""
    made = make_world(tmp_path, device_rate=Rate(1, 2), stranger_rate=Rate(1, 3), ticks=lambda: 0.0)
    made.limits = HttpLimits(handshake_s=0.3, idle_s=0.3, request_s=0.3, connections=3)
    with made.serving():
        yield made
    made.store.close()


def ended(connection: socket.socket) -> float:
    """Seconds until the server closes."""
    began = time.monotonic()
    connection.settimeout(5)
    while connection.recv(65536):
        pass
    return time.monotonic() - began


def test_who_dribbles_or_says_nothing_is_cut_off_and_nobody_waits_for_him(strict):
    with socket.create_connection(("127.0.0.1", strict.port)) as silent, raw_connection(strict) as dribbling:
        dribbling.sendall(HEAD)
        assert Handheld(strict).ask("GET", "/v1/nothing").status == 404
        dribbling.settimeout(0.01)
        for _ in range(200):
            try:
                dribbling.sendall(b"X")
                dribbling.recv(1)
            except TimeoutError:
                continue
            except OSError:
                break
            else:
                break
        else:
            pytest.fail("a dribbling request was not cut off")
        assert ended(silent) < 3


def test_a_body_that_does_not_come_is_timed_out(strict):
    with raw_connection(strict) as connection:
        connection.sendall(HEAD + b"Content-Length: 20\r\n\r\n{")
        assert b"408" in connection.recv(65536).split(b"\r\n")[0]


def test_there_are_so_many_places_and_they_become_free_again(strict):
    held = [socket.create_connection(("127.0.0.1", strict.port)) for _ in range(3)]
    with socket.create_connection(("127.0.0.1", strict.port)) as further:
        assert ended(further) < 0.3
    for connection in held:
        ended(connection)
        connection.close()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            if Handheld(strict).ask("GET", "/v1/nothing").status == 404:
                return
        except OSError:
            continue
    pytest.fail("the places did not become free")


def test_who_asks_too_often_is_told_when_to_come_back_and_holds_up_nobody_else(strict):
    one, other = strict.handheld("h-1"), strict.handheld("h-2")
    assert one.enrol(None).status == 200, "another certificate is the same device"
    replies = [one.ask("GET", "/v1/epoch-key") for _ in range(2)]
    assert [r.status for r in replies] == [200, 429]
    assert (replies[1].reason, replies[1].headers["Retry-After"]) == ("TOO_MANY_REQUESTS", "5")
    assert other.ask("GET", "/v1/epoch-key").status == 200
    assert Handheld(strict).enrol("A" * 20).status == 403
    assert Handheld(strict).enrol("A" * 20).status == 429, "codes cannot be tried at leisure"


class _Away:
    """A database that is not there."""

    def transaction(self, *, write: bool = True):
        raise DatabaseError("the database is busy")


def test_without_its_books_or_its_register_the_server_says_so_and_nothing_of_vehicles(strict):
    device = strict.handheld("h-1")
    database, strict.store._database = strict.store._database, _Away()
    reply = device.ask("GET", "/v1/epoch-key")
    assert (reply.status, reply.reason, reply.headers["Retry-After"]) == (503, "UNAVAILABLE", "5")
    strict.store._database = database
    with strict.home.events_file.open("a") as file:
        file.write("half an event\n")
    reply = device.post_cbor("/v1/status", strict.request(strict.plate_id(Plate("京A00000", "02"))))
    assert (reply.status, reply.reason) == (503, "UNAVAILABLE")


# --------------------------------------------------------------------------------------------- the commands


def test_one_command_serves_everything_and_devices_are_kept_by_another(tmp_path, capsys):
    folder = tmp_path / "sandbox"
    assert main(["sandbox", "serve", "--folder", str(folder), "--scale", "50", "--port", "0", "--seconds", "0"]) == 0
    assert "status server https://127.0.0.1:" in capsys.readouterr().out
    device = ["sandbox", "device", "--folder", str(folder)]
    assert main([*device, "enrol", "h-1"]) == 0
    assert len(capsys.readouterr().out.strip()) == 23
    assert main([*device, "lost", "h-1", "--wipe"]) == 0
    assert capsys.readouterr().out == "h-1: lost, ordered to erase itself\n"
    assert main([*device, "list", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["device"], known["state"], known["wipe_ordered"]) == ("h-1", "lost", True)
    assert main([*device, "enrol", "h-1"]) == 1
    assert "restore it first: markcheck sandbox device restore h-1" in capsys.readouterr().err
    assert main([*device, "restore", "h-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"device": "h-1", "state": "active", "wipe": False}
    for wrong in (["list", "h-1"], ["lost"], ["hold", "h-1", "--wipe"], ["lost", "h-1", "--new-log"]):
        assert main([*device, *wrong]) == 2
    assert main(["sandbox", "device", "list", "--folder", str(tmp_path / "nowhere")]) == 1


def test_the_list_of_devices_shows_battery_age_of_the_data_and_version_of_each(tmp_path, capsys):
    folder = tmp_path / "sandbox"
    assert main(["sandbox", "serve", "--folder", str(folder), "--scale", "50", "--port", "0", "--seconds", "0"]) == 0
    with closing(open_books(AuthorityFolder(folder), None)) as books:
        for name in ("h-1", "h-2"):
            books.enrolment_code(name, system_clock())
        body = HEARTBEAT | {"data": {"region": "national", "seq": 7, "hot_seq": 2, "age_s": 5_400}}
        books.keep_heartbeat("h-1", body, None, datetime(2026, 11, 22, 2, 0, tzinfo=UTC))
    capsys.readouterr()
    assert main(["sandbox", "device", "list", "--folder", str(folder)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    words = "heard 2026-11-22T02:00  battery 80%  data 1.5 h  software 0.1.0  certificate until none  audit 0"
    assert one == f"{'h-1':20} active   {words}"
    assert two == f"{'h-2':20} active   heard never  battery -  data -  software -  certificate until none  audit 0"


def test_the_trust_list_of_the_first_night_names_the_status_key(tmp_path):
    folder = tmp_path / "sandbox"
    assert main(["sandbox", "serve", "--folder", str(folder), "--scale", "50", "--port", "0", "--seconds", "0"]) == 0
    home = AuthorityFolder(folder)
    authority = home.open(clock=system_clock)
    assert authority.status_key is not None
    version = authority.trust_version
    assert LiveAuthority(home, clock=system_clock).status_key().entry == authority.status_key.entry
    assert home.open(clock=system_clock).trust_version == version, "there is one key, however often it is served"
    published = list((folder / "public").rglob("*entries*"))
    assert any(authority.status_key.entry.kid in path.read_bytes() for path in published)


# ------------------------------------------------------------------------------------- the handheld's own client


class Officer:
    """The device's own client, with its own files, against this server."""

    def __init__(self, world: World, handheld: Handheld, folder: Path) -> None:
        self.world = world
        ca, certificate = folder / "ca.pem", folder / "device.pem"
        ca.write_text(world.ca.root_pem)
        certificate.write_bytes(handheld.pair())
        poster = HttpPoster(
            f"https://127.0.0.1:{world.port}", ca_file=str(ca), client_certificate=(str(certificate), str(certificate)),
            monotonic_ms=lambda: time.monotonic_ns() // 1_000_000, connect_ms=5000, total_ms=10_000,
        )  # fmt: skip
        self.centre = Centre(poster, KeyHasher(world.live.authority.epoch_key), total_ms=10_000)

    def ask(self, plate: Plate, vin: str | None = None) -> OnlineEvidence:
        trust = load_trust_list(self.world.live.authority.trust_entries())
        standing = Standing(trust=trust, as_of=system_clock(), seq=1)
        typed = None if vin is None else read_vin(vin)
        inquiry = Inquiry(plates=(plate,), serial=None, standing=standing, vin=typed)
        assert vin is None or vin not in repr(inquiry)
        return self.centre.answer(inquiry, fresh=True).evidence


def test_the_handhelds_own_client_learns_of_a_theft_at_once(world, tmp_path):
    officer = Officer(world, world.handheld("h-officer"), tmp_path)
    car = [v for v in vehicles(world) if v.status == {StatusLetter.NORMAL}][-1]
    before = officer.ask(car.plate)
    assert before.answer is not None
    assert before.answer.vehicle == replace(car.record(), plate=car.plate)
    event(world, "status", *of(car.plate), "--letters", "C")
    after = officer.ask(car.plate)
    assert after.answer is not None
    assert after.answer.vehicle is not None
    assert after.answer.vehicle.status == {StatusLetter.STOLEN}
    assert officer.ask(Plate("京A00000", "02")).state is OnlineState.NOT_FOUND


def test_the_handhelds_own_client_learns_whose_vin_it_is(world, tmp_path):
    officer = Officer(world, world.handheld("h-vin"), tmp_path)
    car, other = [v for v in vehicles(world) if v.status == {StatusLetter.NORMAL}][-3:-1]
    same = officer.ask(car.plate, car.vin)
    assert (same.vin, same.answer) == (VinAnswer.SAME, officer.ask(car.plate).answer)
    assert officer.ask(Plate(car.plate.text, None), car.vin).vin is VinAnswer.SAME
    assert officer.ask(car.plate, other.vin).vin is VinAnswer.OTHER
    event(world, "status", *of(other.plate), "--letters", "C")
    assert officer.ask(car.plate, other.vin).vin is VinAnswer.WANTED
    assert officer.ask(car.plate, "LSVAA49J4E2000001").vin is VinAnswer.ABSENT
    assert officer.ask(car.plate).vin is None


def test_a_lost_handheld_is_denied_and_the_vehicle_is_not_called_absent(world, tmp_path):
    officer = Officer(world, world.handheld("h-stolen"), tmp_path)
    world.store.set_state("h-stolen", DeviceState.LOST)
    assert officer.ask(vehicles(world)[0].plate).state is OnlineState.DENIED


def test_the_handhelds_own_client_gets_a_receipt_for_its_report(world, tmp_path):
    officer, report = Officer(world, world.handheld("h-report"), tmp_path), report_of(world)
    officer.centre.report(report)
    officer.centre.report(report)
    assert [body for name, _, body in world.store.reports() if name == "h-report"] == [encode_report(report)]


# -------------------------------------------------------------------------------------------- many at once


def test_answers_stay_right_while_events_come_in(tmp_path):
    world = make_world(tmp_path)
    with world.serving():
        handheld = world.handheld("h-0")
    with world.store._database.transaction(write=False) as run:
        ((serial,),) = run("SELECT serial FROM certificates")
    cars = [v.plate for v in vehicles(world) if v.status == {StatusLetter.NORMAL}][:20]
    ids = [world.plate_id(plate) for plate in cars]
    trust = load_trust_list(world.live.authority.trust_entries())
    seen: list[list[int]] = []
    assert handheld.pem is not None

    def ask() -> None:
        for _ in range(15):
            body = world.request(*ids)
            request = Request(
                method="POST", path="/v1/status", content_type="application/cbor", body=body, address="",
                certificate=ClientCertificate(serial, "h-0"),
            )  # fmt: skip
            answer, _ = decode_answer(world.service.respond(request).body, body, trust)
            letters = [from_wide(row.record, cars[0]).status for row in answer.rows]
            seen.append([int(StatusLetter.STOLEN in status) for status in letters])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    other = world.home.open(clock=system_clock)
    for plate in cars:
        world.home.record(other, {"event": "status", "plate": plate.text, "kind": plate.kind, "letters": "C"})
    for thread in threads:
        thread.join()
    assert len(seen) == 90
    for stolen in seen:
        assert stolen == sorted(stolen, reverse=True), "a later event never counts before an earlier one"
    ask()
    assert seen[-1] == [1] * 20
    world.store.close()


def test_a_server_that_starts_again_knows_its_devices_and_their_logs(tmp_path):
    first = make_world(tmp_path)
    with first.serving():
        device = first.handheld("h-0")
        upload = AuditUpload(AuditHead(), (b"half a line",))
        assert device.post_cbor("/v1/audit", encode_upload(upload)).status == 200
    first.store.close()
    again = make_world(tmp_path)
    with again.serving():
        device.world = again
        assert device.post_cbor("/v1/audit", encode_upload(upload)).status == 200
        other = AuditUpload(AuditHead(), (b"another line",))
        assert device.post_cbor("/v1/audit", encode_upload(other)).reason == "AUDIT_BROKEN"
    again.store.close()


def test_the_books_may_stand_in_postgresql(tmp_path, capsys):
    if missing := postgresql_missing():
        pytest.skip(f"PostgreSQL: {missing}")
    with postgresql() as url:
        database = open_database(url)
        world = make_world(tmp_path, database)
        with world.serving():
            device = world.handheld("h-0")
            assert world.answer(device, world.plate_id(vehicles(world)[0].plate)).rows[0].status is RowStatus.FOUND
            report = encode_report(report_of(world))
            upload = encode_upload(AuditUpload(AuditHead(), (b"half a line",)))
            for _ in range(2):
                assert device.post_cbor("/v1/reports", report).status == 200
                assert device.post_cbor("/v1/audit", upload).status == 200
                assert device.post_json("/v1/heartbeat", HEARTBEAT).status == 200
            assert (len(world.store.reports()), world.store.audit_records("h-0")) == (1, [b"half a line"])
            books = ["--folder", str(world.home.folder), "--database", url]
            assert main(["sandbox", "device", "lost", "h-0", "--wipe", *books]) == 0
            assert "order" in device.ask("GET", "/v1/epoch-key").json
            assert main(["sandbox", "reports", *books]) == 0
            assert vehicles(world)[0].plate.text in capsys.readouterr().out
        world.store.close()


def test_postgresql_without_its_driver_or_its_server_is_one_line(tmp_path, capsys):
    folder = str(tmp_path / "sandbox")
    url = f"postgresql://secret@/books?host={tmp_path}"
    line = ["sandbox", "serve", "--folder", folder, "--scale", "50", "--port", "0", "--seconds", "0"]
    assert main([*line, "--database", url]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert "psycopg" in err or "database" in err
    assert "secret" not in err
