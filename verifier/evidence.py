"""Evidence as JSON and back: the form of the decision cases, of audit records and of `markcheck decide`."""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import Any, TypeVar

from verifier.errors import EvidenceError
from verifier.plates import PLATE_KINDS
from verifier.types import (
    CacheEvidence,
    CacheState,
    CodeEvidence,
    CodeFault,
    CodeReading,
    Credential,
    CredentialState,
    CredentialStatus,
    Evidence,
    Month,
    OnlineEvidence,
    OnlineState,
    Plate,
    PlateSeen,
    PresentationMode,
    Purpose,
    Serial,
    SignatureState,
    Source,
    StatusAnswer,
    StatusLetter,
    TagAuth,
    TagEvidence,
    TagLevel,
    TagRecord,
    TagSuspicion,
    VehicleRecord,
    VinAnswer,
    WatchHit,
)

# How the code was presented, by the names that records have had since the first one: not those of the enum.
_PRESENTED_AS = {
    "online": PresentationMode.LIVE,
    "offline": PresentationMode.STORED,
    "print": PresentationMode.PRINTED,
    "tag_label": PresentationMode.TAG_LABEL,
    "unknown": None,
}
_PRESENTED_NAMES = {mode: name for name, mode in _PRESENTED_AS.items()}
_BASES = {"plate_seen": Source.PLATE_SEEN, "credential": Source.CODE, "tag": Source.TAG}
_BASIS_NAMES = {source: name for name, source in _BASES.items()}
_NO_VEHICLE = frozenset({OnlineState.NOT_FOUND, OnlineState.SEVERAL})  # answers, of the document at most
_REQUIRED = object()

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class _Fields:
    """One JSON object with its path, so that every error names the field."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise EvidenceError(f"{path or 'evidence'}: not an object")
        self.values: dict[str, Any] = value
        self.path = path

    def name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str, convert: Callable[[Any], T], default: Any = _REQUIRED) -> T:
        value = self.values.get(key)
        if value is None:
            if default is _REQUIRED:
                raise EvidenceError(f"{self.name(key)}: missing")
            return default  # type: ignore[no-any-return]
        try:
            return convert(value)
        except EvidenceError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            raise EvidenceError(f"{self.name(key)}: not usable ({convert.__name__.strip('_')} expected)") from exc

    def child(self, key: str) -> _Fields | None:
        value = self.values.get(key)
        return None if value is None else _Fields(value, self.name(key))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError("not a text")
    return value


def _kind(value: Any) -> str:
    if value not in PLATE_KINDS:
        raise ValueError("not a plate kind")
    return str(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None or not 1970 <= moment.year <= 2200:
        raise ValueError("a time without a zone, or far from any that can be meant")
    return moment


def _last_day(value: Any) -> date:
    """YYYY-MM-DD, or YYYY-MM for the month's last day."""
    if len(_text(value)) == 7:
        month = Month.parse(value)
        return date(month.year, month.month, calendar.monthrange(month.year, month.month)[1])
    return date.fromisoformat(value)


def _letters(value: Any) -> frozenset[StatusLetter]:
    return frozenset(StatusLetter(letter) for letter in _text(value))


def evidence_from_json(raw: object) -> tuple[Evidence, datetime]:
    """One case (or the `input` of an audit record) to evidence and the device's time; EvidenceError names the field.

    Other keys (id, title, expect) are ignored.
    """
    top = _Fields(raw, "")
    clock = top.get("clock", _text, "trusted")
    if clock not in ("trusted", "suspect"):
        raise EvidenceError("clock: neither trusted nor suspect")
    watch = top.values.get("watch") or []
    if not isinstance(watch, list):
        raise EvidenceError("watch: not a list")
    evidence = Evidence(
        code=_code(top.child("qr")),
        tag=_tag(top.child("tag")),
        plate_seen=_plate_seen(top.child("plate_seen")),
        paper_displayed=top.get("paper_mark_displayed", _bool, None),
        cache=_cache(top.child("cache")),
        online=_online(top.child("online")),
        watch=tuple(_watch(_Fields(hit, f"watch[{i}]")) for i, hit in enumerate(watch)),
        clock_trusted=clock == "trusted",
        purpose=top.get("purpose", Purpose, Purpose.ENFORCEMENT),
    )
    return evidence, top.get("now", _time)


def _plate(fields: _Fields, key: str = "plate") -> Plate:
    return Plate(fields.get(key, _text), fields.get("plate_kind", _kind, None))


def _code(qr: _Fields | None) -> CodeEvidence | None:
    if qr is None:
        return None
    reading = qr.get("decode", CodeReading)
    kind = qr.get("kind", _text, "unknown")
    if kind not in _PRESENTED_AS:
        raise EvidenceError("qr.kind: unknown")
    credential, fields = None, qr.child("credential")
    if fields is not None:
        credential = Credential(
            serial=Serial(fields.get("serial", _text)),
            plate=_plate(fields),
            valid_until=fields.get("valid_until", Month.parse),
            issued_at=fields.get("issued_at", _time),
            not_before=fields.get("not_before", _time, None),
            mode=_PRESENTED_AS[kind],
        )
    signature = qr.get("signature", SignatureState, None)
    if reading is CodeReading.OK and signature is None:
        raise EvidenceError("qr.signature: missing")
    if signature is SignatureState.VALID and credential is None:
        raise EvidenceError("qr.credential: missing")
    return CodeEvidence(
        reading=reading,
        mode=_PRESENTED_AS[kind],
        signature=signature,
        credential=credential,
        shown_at=fields.get("shown_at", _time, None) if fields else None,
        fault=qr.get("fault", CodeFault, None),
        trust_as_of=qr.get("trust_as_of", _time, None),
        vin_matches=qr.get("vin_matches", _bool, None),
    )


def _tag(tag: _Fields | None) -> TagEvidence | None:
    if tag is None:
        return None
    return TagEvidence(
        auth=tag.get("auth", TagAuth),
        tid=tag.get("tid", _text, ""),
        plate=_plate(tag) if tag.values.get("plate") is not None else None,
        level=tag.get("level", TagLevel, TagLevel.READ),
        fault=tag.get("fault", CodeFault, None),
        issued_on=tag.get("issued_on", _last_day, None),
        record=tag.get("record", TagRecord, None),
        tid_matches=tag.get("tid_matches", _bool, None),
        suspicions=tag.get("suspicions", _suspicions, ()),
    )


def _suspicions(value: Any) -> tuple[TagSuspicion, ...]:
    if not isinstance(value, list) or len(value) > len(TagSuspicion):
        raise ValueError("not a list of suspicions")
    return tuple(TagSuspicion(text) for text in value)


def _plate_seen(seen: _Fields | None) -> PlateSeen | None:
    if seen is None:
        return None
    source = seen.get("source", _text, "officer")
    return PlateSeen(plate=_plate(seen, "text"), confirmed=seen.get("confirmed", _bool, False), source=source)


def _answer(fields: _Fields) -> StatusAnswer:
    vehicle, record = None, fields.child("record")
    if record is not None:
        vehicle = VehicleRecord(
            plate=_plate(record),
            status=record.get("status", _letters),
            inspection_valid_until=record.get("inspection_valid_until", Month.parse, None),
            ecred_issued=record.get("ecred_issued", _bool, False),
            ctp_until=record.get("ctp_until", _last_day, None),
            credential_serial=record.get("credential_serial", _serial, None),
            updated_at=record.get("updated_at", _time, None),
        )
    # The presented credential's state stands in the record, or beside it where there is no record.
    return StatusAnswer(vehicle=vehicle, credential=_document(fields.child("presented") or record))


def _document(presented: _Fields | None) -> CredentialStatus | None:
    if presented is None or "presented_state" not in presented.values:
        return None
    return CredentialStatus(
        state=presented.get("presented_state", CredentialState),
        superseded_by_plate=presented.get("superseded_by_plate", _text, None),
    )


def _serial(value: Any) -> Serial:
    return Serial(_text(value))


def _cache(cache: _Fields | None) -> CacheEvidence:
    if cache is None:
        return CacheEvidence(state=CacheState.MISSING)
    state = cache.get("state", CacheState)
    if state is CacheState.OK:
        answer = _answer(cache)
    else:  # records of a cache that failed its checks are not read
        answer = StatusAnswer(vehicle=None, credential=_document(cache.child("presented")))
    return CacheEvidence(
        state=state,
        as_of=cache.get("as_of", _time, _REQUIRED if state is CacheState.OK else None),
        scope=cache.get("scope", _text, None),
        covers=cache.get("covers", _bool, False),
        answer=answer,
        watched=state is CacheState.OK and cache.get("watched", _bool, False),
    )


def _online(online: _Fields | None) -> OnlineEvidence:
    if online is None:
        return OnlineEvidence(state=OnlineState.DISABLED)
    state = online.get("state", OnlineState)
    answer, vin = None, None
    if state is OnlineState.OK or state in _NO_VEHICLE:
        vin = online.get("vin_answer", VinAnswer, None)
    if state is OnlineState.OK:
        answer = _answer(online)
        if answer.vehicle is None and answer.credential is None and vin is None:
            raise EvidenceError("online.record: missing")
    elif state in _NO_VEHICLE and (document := _document(online.child("presented"))) is not None:
        answer = StatusAnswer(vehicle=None, credential=document)  # no vehicle can be named, its document can
    return OnlineEvidence(
        state=state,
        answer=answer,
        server_time=online.get("server_time", _time, None),
        vin=vin,
        watched=state is OnlineState.SEVERAL and online.get("watched", _bool, False),
    )


def _watch(hit: _Fields) -> WatchHit:
    basis = hit.get("basis", _text)
    if basis not in _BASES:
        raise EvidenceError(f"{hit.name('basis')}: unknown")
    return WatchHit(basis=_BASES[basis], kind=hit.get("kind", _text), as_of=hit.get("as_of", _time))


# ------------------------------------------------------------------------------------------------ to JSON


def evidence_to_json(evidence: Evidence, now: datetime) -> dict[str, Any]:
    """Evidence as the JSON object that `evidence_from_json` reads; it holds all that `decide` looks at."""
    tag, seen = evidence.tag, evidence.plate_seen
    return {
        "now": now.isoformat(),
        "clock": "trusted" if evidence.clock_trusted else "suspect",
        "purpose": evidence.purpose.value,
        "qr": _code_json(evidence.code),
        "tag": tag and _tag_json(tag),
        "plate_seen": seen
        and {
            "text": seen.plate.text,
            "plate_kind": seen.plate.kind,
            "source": seen.source,
            "confirmed": seen.confirmed,
        },
        "paper_mark_displayed": evidence.paper_displayed,
        "cache": _cache_json(evidence.cache),
        "online": {
            "state": evidence.online.state.value,
            "server_time": _iso(evidence.online.server_time),
            "vin_answer": evidence.online.vin and evidence.online.vin.value,
            "watched": evidence.online.watched,
            **_answer_json(evidence.online.answer),
        },
        "watch": [
            {"basis": _BASIS_NAMES[hit.basis], "kind": hit.kind, "as_of": hit.as_of.isoformat()}
            for hit in evidence.watch
        ],
    }


def _iso(value: datetime | date | None) -> str | None:
    return value.isoformat() if value is not None else None


def _code_json(code: CodeEvidence | None) -> dict[str, Any] | None:
    if code is None:
        return None
    credential = code.credential
    return {
        "kind": _PRESENTED_NAMES[code.mode],
        "decode": code.reading.value,
        "signature": code.signature and code.signature.value,
        "fault": code.fault and code.fault.value,
        "trust_as_of": _iso(code.trust_as_of),
        "vin_matches": code.vin_matches,
        "credential": credential
        and {
            "serial": credential.serial,
            "plate": credential.plate.text,
            "plate_kind": credential.plate.kind,
            "issued_at": credential.issued_at.isoformat(),
            "not_before": _iso(credential.not_before),
            "valid_until": str(credential.valid_until),
            "shown_at": _iso(code.shown_at),
        },
    }


def _tag_json(tag: TagEvidence) -> dict[str, Any]:
    return {
        "auth": tag.auth.value,
        "tid": tag.tid,
        "plate": tag.plate and tag.plate.text,
        "plate_kind": tag.plate and tag.plate.kind,
        "level": int(tag.level),
        "fault": tag.fault and tag.fault.value,
        "issued_on": _iso(tag.issued_on),
        "record": tag.record and tag.record.value,
        "tid_matches": tag.tid_matches,
        "suspicions": [suspicion.value for suspicion in tag.suspicions],
    }


def _cache_json(cache: CacheEvidence) -> dict[str, Any]:
    return {
        "state": cache.state.value,
        "as_of": _iso(cache.as_of),
        "scope": cache.scope,
        "covers": cache.covers,
        "watched": cache.watched,
        **_answer_json(cache.answer),
    }


def _answer_json(answer: StatusAnswer | None) -> dict[str, Any]:
    if answer is None:
        return {}
    out: dict[str, Any] = {"record": None}
    if answer.vehicle is not None:
        vehicle = answer.vehicle
        out["record"] = {
            "plate": vehicle.plate.text,
            "plate_kind": vehicle.plate.kind,
            "status": "".join(sorted(vehicle.status)),
            "inspection_valid_until": vehicle.inspection_valid_until and str(vehicle.inspection_valid_until),
            "ecred_issued": vehicle.ecred_issued,
            "ctp_until": _iso(vehicle.ctp_until),
            "credential_serial": vehicle.credential_serial,
            "updated_at": _iso(vehicle.updated_at),
        }
    if answer.credential is not None:
        out["presented"] = {
            "presented_state": answer.credential.state.value,
            "superseded_by_plate": answer.credential.superseded_by_plate,
        }
    return out
