"""What the status server keeps: devices and their certificates, audit logs, reports, signs of life.

Vehicles are not here: they are the register's, and the register is made from its events.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from scripts.sandbox.database import Database, Run
from scripts.sandbox.device_ca import DeviceCertificate
from verifier.codec.device import DEVICE_ID, NO_HEAD, AuditHead, AuditUpload, Refusal
from verifier.types import Code

CODE_LIFE = timedelta(hours=24)
MAX_ALARMS = 1000  # kept of one device; the first ones tell most
MAX_REPORTS = 10_000  # waiting in the queue, of one device
MAX_CERTIFICATES = 8  # of one device at a time, the newest ones
_CODE_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"  # none that is read for another
_CODE_LENGTH = 20  # letters: 98 bits

TABLES = (
    """CREATE TABLE IF NOT EXISTS devices (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, wipe BIGINT NOT NULL DEFAULT 0, order_seq BIGINT NOT NULL DEFAULT 0,
        log BIGINT NOT NULL DEFAULT 1, seq BIGINT NOT NULL DEFAULT 0, head BYTEA NOT NULL,
        told_seq BIGINT NOT NULL DEFAULT 0, told_head BYTEA NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS codes (
        hash TEXT PRIMARY KEY, device TEXT NOT NULL REFERENCES devices (id), expires_at BIGINT NOT NULL,
        new_log BIGINT NOT NULL, used_by TEXT)""",
    """CREATE TABLE IF NOT EXISTS certificates (
        serial TEXT PRIMARY KEY, device TEXT NOT NULL REFERENCES devices (id), key TEXT NOT NULL,
        not_after BIGINT NOT NULL, ended BIGINT NOT NULL DEFAULT 0)""",
    """CREATE TABLE IF NOT EXISTS reports (
        device TEXT NOT NULL REFERENCES devices (id), id BYTEA NOT NULL, received_at BIGINT NOT NULL,
        body BYTEA NOT NULL, PRIMARY KEY (device, id))""",
    """CREATE TABLE IF NOT EXISTS audit (
        device TEXT NOT NULL REFERENCES devices (id), log BIGINT NOT NULL, seq BIGINT NOT NULL, head BYTEA NOT NULL,
        record BYTEA NOT NULL, PRIMARY KEY (device, log, seq))""",
    """CREATE TABLE IF NOT EXISTS alarms (
        device TEXT NOT NULL REFERENCES devices (id), log BIGINT NOT NULL, seq BIGINT NOT NULL, head BYTEA NOT NULL,
        at BIGINT NOT NULL, PRIMARY KEY (device, log, seq, head))""",
    """CREATE TABLE IF NOT EXISTS heartbeats (
        device TEXT PRIMARY KEY REFERENCES devices (id), at BIGINT NOT NULL, body TEXT NOT NULL)""",
)


class DeviceState(Code):
    """What a device may have."""

    ACTIVE = "active"
    HELD = "held"  # no new certificate, no epoch key; what it has runs out
    LOST = "lost"  # nothing at all


class DeviceError(ValueError):
    """A change of the books that cannot be; the text says why."""


class RefusedError(Exception):
    """A request that is refused for this reason; `known` is how far the centre has the audit log."""

    def __init__(self, reason: Refusal, known: AuditHead | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.known = known


@dataclass(frozen=True, slots=True)
class Standing:
    """A device as it stands: its name, its state, and the number of the order to wipe, 0 for none."""

    device: str
    state: DeviceState
    wipe: int


class StatusStore:
    """The server's books in one database; every method is one transaction. DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction() as run:
            for statement in TABLES:
                run(statement)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # ------------------------------------------------------------------------------------- the registrar's side

    def enrolment_code(self, device: str, now: datetime, *, new_log: bool = False) -> str:
        """A code with which this device may enrol once, within a day; the codes before it end. DeviceError.

        `new_log` says that its audit log begins anew, as after an exchange of its card.
        """
        if DEVICE_ID.fullmatch(device) is None:
            raise DeviceError("device id: lower-case letters, digits and hyphens, at most 40")
        code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
        expires_at = int((now + CODE_LIFE).timestamp())
        with self._database.transaction() as run:
            run(
                "INSERT INTO devices (id, state, head, told_head) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                device, DeviceState.ACTIVE.value, NO_HEAD, NO_HEAD,
            )  # fmt: skip
            if run("UPDATE devices SET log = log WHERE id = ? RETURNING state", device) != [
                (DeviceState.ACTIVE.value,)
            ]:
                told = f"restore it first: markcheck sandbox device restore {device}"
                raise DeviceError(f"the device is held or lost: {told}")
            run("DELETE FROM codes WHERE device = ?", device)
            run(
                "INSERT INTO codes (hash, device, expires_at, new_log) VALUES (?, ?, ?, ?)",
                _code_hash(code), device, expires_at, int(new_log),
            )  # fmt: skip
        return "-".join(code[i : i + 5] for i in range(0, _CODE_LENGTH, 5))

    def set_state(self, device: str, state: DeviceState, *, wipe: bool = False) -> None:
        """Put a device into a state; `wipe` orders a lost one to erase itself. DeviceError."""
        with self._database.transaction() as run:
            if not _lock(run, device):
                raise DeviceError("no such device")
            run("UPDATE devices SET state = ?, wipe = ? WHERE id = ?", state.value, int(wipe), device)
            if wipe:
                # Numbered over all devices: a handheld that was erased may come back under another name.
                run("UPDATE devices SET order_seq = (SELECT MAX(order_seq) FROM devices) + 1 WHERE id = ?", device)
            if state is not DeviceState.ACTIVE:
                run("DELETE FROM codes WHERE device = ?", device)

    def devices(self) -> list[dict[str, Any]]:
        """All devices with what is known of them, by name."""
        with self._database.transaction(write=False) as run:
            rows = run(
                "SELECT d.id, d.state, d.wipe, d.log, d.seq, d.told_seq, h.at, h.body,"
                " (SELECT MAX(not_after) FROM certificates c WHERE c.device = d.id AND c.ended = 0),"
                " (SELECT COUNT(*) FROM alarms a WHERE a.device = d.id)"
                " FROM devices d LEFT JOIN heartbeats h ON h.device = d.id ORDER BY d.id"
            )
        return [_device_json(*row) for row in rows]

    def reports(self) -> list[tuple[str, datetime, bytes]]:
        """The queue of reports, the oldest first: device, moment of receipt, and the report's bytes."""
        with self._database.transaction(write=False) as run:
            rows = run("SELECT device, received_at, body FROM reports ORDER BY received_at, device, id")
        return [(device, datetime.fromtimestamp(at, UTC), bytes(body)) for device, at, body in rows]

    def audit_records(self, device: str, log: int = 1) -> list[bytes]:
        """The lines of a device's audit log that are here, in order."""
        with self._database.transaction(write=False) as run:
            rows = run("SELECT record FROM audit WHERE device = ? AND log = ? ORDER BY seq", device, log)
        return [bytes(record) for (record,) in rows]

    # ------------------------------------------------------------------------------------------ certificates

    def standing(self, serial: str, now: datetime) -> Standing:
        """The device behind a certificate of this serial number; RefusedError where it is none of the present ones.

        TLS looks at a certificate's end when a connection begins, which may last.
        """
        with self._database.transaction(write=False) as run:
            rows = run(
                "SELECT d.id, d.state, d.wipe, d.order_seq FROM certificates c JOIN devices d ON d.id = c.device"
                " WHERE c.serial = ? AND c.not_after >= ? AND (c.ended = 0 OR d.state = ?)",
                serial, int(now.timestamp()), DeviceState.LOST.value,
            )  # fmt: skip
        if not rows:
            raise RefusedError(Refusal.CERTIFICATE_UNKNOWN)
        device, state, wipe, order_seq = rows[0]
        return Standing(device, DeviceState(state), order_seq if wipe else 0)

    def device_of_code(self, code: str, key: str, now: datetime) -> str:
        """Use an enrolment code up for the key of this hash: the device it is for. RefusedError.

        The same code with the same key is taken again: the first answer may have been lost on its way.
        """
        with self._database.transaction() as run:
            rows = run(
                "UPDATE codes SET used_by = ? WHERE hash = ? AND expires_at >= ? AND (used_by IS NULL OR used_by = ?)"
                " RETURNING device",
                key, _code_hash(code), int(now.timestamp()), key,
            )  # fmt: skip
        if not rows:
            raise RefusedError(Refusal.CODE_REFUSED)
        return str(rows[0][0])

    def enrolled(self, device: str, code: str, certificate: DeviceCertificate) -> None:
        """Keep the certificate that a code brought: those before it end, and its log begins anew if it shall."""
        with self._database.transaction() as run:
            _lock(run, device)
            run("UPDATE certificates SET ended = 1 WHERE device = ? AND key <> ?", device, certificate.key)
            _keep(run, device, certificate)
            if run("UPDATE codes SET new_log = 0 WHERE hash = ? AND new_log = 1 RETURNING device", _code_hash(code)):
                run(
                    "UPDATE devices SET log = log + 1, seq = 0, head = ?, told_seq = 0, told_head = ? WHERE id = ?",
                    NO_HEAD, NO_HEAD, device,
                )  # fmt: skip

    def renewed(self, device: str, certificate: DeviceCertificate) -> None:
        """Keep a further certificate of the same device; the one before runs out by itself."""
        with self._database.transaction() as run:
            _lock(run, device)
            _keep(run, device, certificate)

    # ------------------------------------------------------------------------------- what devices send

    def keep_report(self, device: str, report_id: bytes, body: bytes, now: datetime) -> None:
        """Put a report into the queue; the same one again changes nothing.

        RefusedError for another under its id, and while too many of the device wait there.
        """
        with self._database.transaction() as run:
            kept = run("SELECT body FROM reports WHERE device = ? AND id = ?", device, report_id)
            if not kept:
                _lock(run, device)
                if run("SELECT COUNT(*) FROM reports WHERE device = ?", device)[0][0] >= MAX_REPORTS:
                    raise RefusedError(Refusal.TOO_MANY_REQUESTS)
                kept = run(
                    "INSERT INTO reports (device, id, received_at, body) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (device, id) DO UPDATE SET id = excluded.id RETURNING body",
                    device, report_id, int(now.timestamp()), body,
                )  # fmt: skip
        if bytes(kept[0][0]) != body:
            raise RefusedError(Refusal.REPORT_DIFFERS)

    def keep_heartbeat(self, device: str, body: dict[str, Any], told: AuditHead | None, now: datetime) -> bool:
        """Keep the newest sign of life; whether the audit log it tells of continues what is remembered."""
        at, text = int(now.timestamp()), json.dumps(body, sort_keys=True)
        with self._database.transaction() as run:
            log = _lock(run, device)
            run(
                "INSERT INTO heartbeats (device, at, body) VALUES (?, ?, ?)"
                " ON CONFLICT (device) DO UPDATE SET at = excluded.at, body = excluded.body",
                device, at, text,
            )  # fmt: skip
            if told is None or log is None:
                return True
            sound = _remembers(run, device, log, told)
            if not sound:
                _alarm(run, device, log, told, now)
            elif told.seq > max(log.known.seq, log.told.seq):
                run("UPDATE devices SET told_seq = ?, told_head = ? WHERE id = ?", told.seq, told.head, device)
            return sound

    def keep_audit(self, device: str, upload: AuditUpload, now: datetime) -> AuditHead:
        """Append what is new of an upload; how far the log is here now. RefusedError AUDIT_GAP or AUDIT_BROKEN.

        Lines that are here already are compared and not stored twice. What does not continue the remembered head, or
        misses the head that the device told of before, is kept as an alarm and not stored.
        """
        with self._database.transaction() as run:
            log = _lock(run, device)
            if log is None:
                raise RefusedError(Refusal.CERTIFICATE_UNKNOWN)
            if upload.after.seq > log.known.seq:
                raise RefusedError(Refusal.AUDIT_GAP, log.known)
            broken = _first_broken(run, device, log, upload)
            if broken is None:
                return _append(run, device, log, upload)
            _alarm(run, device, log, broken, now)
        raise RefusedError(Refusal.AUDIT_BROKEN, log.known)


@dataclass(frozen=True, slots=True)
class _Log:
    """A device's audit log: its number, how far it is here, and how far the device said that it goes."""

    number: int
    known: AuditHead
    told: AuditHead


def _lock(run: Run, device: str) -> _Log | None:
    """Nobody else changes this device until the transaction ends; None for a device that is not there."""
    rows = run(
        "UPDATE devices SET log = log WHERE id = ? RETURNING log, seq, head, told_seq, told_head", device
    )  # as SELECT FOR UPDATE, which SQLite does not have
    if not rows:
        return None
    number, seq, head, told_seq, told_head = rows[0]
    return _Log(number, AuditHead(seq, bytes(head)), AuditHead(told_seq, bytes(told_head)))


def _keep(run: Run, device: str, certificate: DeviceCertificate) -> None:
    """Keep a certificate and those that were issued last; a device that renews without end fills no disk."""
    run(
        "DELETE FROM certificates WHERE device = ? AND serial NOT IN"
        " (SELECT serial FROM certificates WHERE device = ? ORDER BY ended, not_after DESC LIMIT ?)",
        device, device, MAX_CERTIFICATES - 1,
    )  # fmt: skip
    run(
        "INSERT INTO certificates (serial, device, key, not_after) VALUES (?, ?, ?, ?)",
        certificate.serial, device, certificate.key, int(certificate.not_after.timestamp()),
    )  # fmt: skip


def _remembers(run: Run, device: str, log: _Log, head: AuditHead) -> bool:
    """Whether a head that the device names agrees with all that is remembered of its log, and goes as far."""
    if head.seq < max(log.known.seq, log.told.seq):
        return False
    return all(head.head == other.head for other in (log.known, log.told) if other.seq == head.seq)


def _first_broken(run: Run, device: str, log: _Log, upload: AuditUpload) -> AuditHead | None:
    """The first head of an upload that contradicts what is remembered; None when there is none."""
    heads = (upload.after, *upload.heads())
    here = {0: NO_HEAD} | {
        seq: bytes(head)
        for seq, head in run(
            "SELECT seq, head FROM audit WHERE device = ? AND log = ? AND seq BETWEEN ? AND ?",
            device, log.number, heads[0].seq, heads[-1].seq,
        )
    }  # fmt: skip
    if log.told.seq > log.known.seq:
        here[log.told.seq] = log.told.head
    for head in heads:
        if here.get(head.seq, head.head) != head.head:
            return head
    chained = zip(heads, upload.records, strict=False)
    return next((before for before, record in chained if not _follows(before, record)), None)


def _follows(before: AuditHead, record: bytes) -> bool:
    """Whether a line names the head before it; one that a power cut left unfinished is no JSON and names none."""
    try:
        entry = json.loads(record)
    except (ValueError, RecursionError):
        return True
    return isinstance(entry, dict) and entry.get("prev") == before.head.hex()


def _append(run: Run, device: str, log: _Log, upload: AuditUpload) -> AuditHead:
    known = log.known
    for head, record in zip(upload.heads(), upload.records, strict=True):
        if head.seq > known.seq:
            run(
                "INSERT INTO audit (device, log, seq, head, record) VALUES (?, ?, ?, ?, ?)",
                device, log.number, head.seq, head.head, record,
            )  # fmt: skip
            known = head
    run("UPDATE devices SET seq = ?, head = ? WHERE id = ?", known.seq, known.head, device)
    return known


def _alarm(run: Run, device: str, log: _Log, head: AuditHead, now: datetime) -> None:
    """Remember that a device named a head which cannot be, for people to look at."""
    if run("SELECT COUNT(*) FROM alarms WHERE device = ?", device)[0][0] < MAX_ALARMS:
        run(
            "INSERT INTO alarms (device, log, seq, head, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            device, log.number, head.seq, head.head, int(now.timestamp()),
        )  # fmt: skip


def _code_hash(code: str) -> str:
    return hashlib.sha256(code.upper().replace("-", "").encode()).hexdigest()


def _device_json(*row: Any) -> dict[str, Any]:
    device, state, wipe, log, seq, told_seq, at, body, not_after, alarms = row
    return {
        "device": device, "state": state, "wipe_ordered": bool(wipe), "certificate_until": _text(not_after),
        "audit_log": log, "audit_seq": seq, "audit_told": told_seq, "audit_alarms": alarms, "heard_at": _text(at),
        "heartbeat": None if body is None else json.loads(body),
    }  # fmt: skip


def _text(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
