"""The status server's interface: its paths, the schemas of its JSON bodies, and the OpenAPI 3.1 document of both.

`python -m scripts.sandbox.status_api > docs/openapi.json` writes the document.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from scripts.sandbox.device_ca import MAX_CSR
from scripts.sandbox.status_http import PROBLEM_TYPE, STATUS, Route
from verifier.codec.device import (
    AUDIT_PATH,
    DEVICE_ID,
    ENROL_PATH,
    EPOCH_KEY_PATH,
    HEARTBEAT_PATH,
    MAX_RECORDS,
    MAX_UPLOAD,
    Refusal,
)
from verifier.codec.index import MAX_NUMBER
from verifier.codec.online import ANSWER_TYPE, MAX_IDS, MAX_REPORT, MAX_REQUEST, REPORTS_PATH, STATUS_PATH
from verifier.codec.online import CONTENT_TYPE as CBOR
from verifier.heartbeat import MAX_COUNTERS, MAX_FAULTS, NAME
from verifier.trusted_time import Doubt

JSON = "application/json"
MAX_JSON = 8192  # bytes
Schema = dict[str, Any]


def _object(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _whole(most: int = MAX_NUMBER) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most}


_HEX32: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_MOMENT: Schema = {"type": "string", "maxLength": 40, "description": "ISO 8601 with offset"}
_DEVICE: Schema = {"type": "string", "pattern": f"^{DEVICE_ID.pattern}$"}
_NAME: Schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_HEAD = _object({"seq": _whole(), "head": _HEX32})

ENROL_REQUEST = _object(
    {
        "csr": {"type": "string", "maxLength": MAX_CSR, "description": "PKCS 10 in PEM, key on P-256"},
        "code": {"type": "string", "pattern": "^[A-Za-z0-9-]{20,23}$"},
    },
    optional=("code",),
)
ENROL_ANSWER = _object({"device": _DEVICE, "certificate": {"type": "string"}, "valid_until": _MOMENT})
EPOCH_KEY_ANSWER = _object({"key_epoch": _whole(), "epoch_key": _HEX32, "valid_until": _MOMENT})
HEARTBEAT_REQUEST = _object(
    {
        "software": {"type": "string", "pattern": "^[0-9A-Za-z.+-]{1,40}$"},
        "uptime_s": _whole(1 << 32),
        "data": _object(
            {
                "region": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_]{0,31}$"},
                "seq": _whole(),
                "hot_seq": _whole(),
                "age_s": {"type": ["integer", "null"], "minimum": 0, "maximum": 1 << 32},
            }
        ),
        "battery": _object(
            {
                "percent": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
                "charging": {"type": ["boolean", "null"]},
            }
        ),
        "counters": {
            "type": "object",
            "propertyNames": _NAME,
            "additionalProperties": _whole(),
            "maxProperties": MAX_COUNTERS,
            "description": "verdict_CODE: today's checks by verdict. fault_PART: how often it failed since the start.",
        },
        "program": {
            **_object({"at": _MOMENT, "faults": {"type": "array", "items": _NAME, "maxItems": MAX_FAULTS}}),
            "type": ["object", "null"],
            "description": "When the device's program noted battery and counters, and the parts that fail then; "
            "null: it has noted nothing.",
        },
        "clock": _object(
            {
                "at": _MOMENT,
                "doubts": {
                    "type": "array",
                    "items": {"enum": [doubt.name.lower() for doubt in Doubt]},
                    "maxItems": len(Doubt),
                    "description": "Why the device does not believe its clock; none: it does.",
                },
            }
        ),
        "audit": _HEAD,
    },
    optional=("program", "clock", "audit"),
)
HEARTBEAT_ANSWER = _object({"server_time": _MOMENT, "audit": {"enum": ["continues", "broken", "not told"]}})
PROBLEM = _object(
    {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "reason": {"enum": [reason.value for reason in Refusal]},
        "order": {"type": "string", "contentEncoding": "base64", "description": "COSE_Sign1: wipe (typ 65006)"},
        "audit": _HEAD,
    },
    optional=("order", "audit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One path: what it takes and gives; `may_refuse` are the reasons that are its own."""

    summary: str
    route: Route
    answer_type: str
    request: Schema | None = None  # of a JSON body
    answer: Schema | None = None
    may_refuse: tuple[Refusal, ...] = ()
    certificate: bool = True  # needed; enrolment has none yet


_POST_CBOR = "POST", CBOR
ENDPOINTS: dict[str, Endpoint] = {
    f"/{STATUS_PATH}": Endpoint(
        summary=f"What the register says of up to {MAX_IDS} plates, tags, credentials and VINs, signed.",
        route=Route(*_POST_CBOR, MAX_REQUEST),
        answer_type=ANSWER_TYPE,
        may_refuse=(Refusal.EPOCH_KEY_DIFFERS,),
    ),
    f"/{REPORTS_PATH}": Endpoint(
        summary="A check that turned out otherwise, into the queue of corrections. The same one again changes nothing.",
        route=Route(*_POST_CBOR, MAX_REPORT),
        answer_type=CBOR,
        may_refuse=(Refusal.EPOCH_KEY_DIFFERS, Refusal.REPORT_DIFFERS),
    ),
    f"/{AUDIT_PATH}": Endpoint(
        summary=f"Up to {MAX_RECORDS} lines of the audit log. The same ones again change nothing.",
        route=Route(*_POST_CBOR, MAX_UPLOAD),
        answer_type=CBOR,
        may_refuse=(Refusal.AUDIT_GAP, Refusal.AUDIT_BROKEN),
    ),
    f"/{ENROL_PATH}": Endpoint(
        summary="A certificate: the first one for a code, further ones for the certificate before.",
        route=Route("POST", JSON, MAX_JSON),
        answer_type=JSON,
        request=ENROL_REQUEST,
        answer=ENROL_ANSWER,
        may_refuse=(Refusal.CODE_REFUSED, Refusal.DEVICE_HELD),
        certificate=False,
    ),
    f"/{EPOCH_KEY_PATH}": Endpoint(
        summary="The key of the present epoch, at the beginning of a shift.",
        route=Route("GET", None, 0),
        answer_type=JSON,
        answer=EPOCH_KEY_ANSWER,
        may_refuse=(Refusal.DEVICE_HELD,),
    ),
    f"/{HEARTBEAT_PATH}": Endpoint(
        summary="A sign of life. The audit log that it tells of must not be shorter than it was.",
        route=Route("POST", JSON, MAX_JSON),
        answer_type=JSON,
        request=HEARTBEAT_REQUEST,
        answer=HEARTBEAT_ANSWER,
    ),
}

_ALWAYS = (
    Refusal.REQUEST_MALFORMED, Refusal.CERTIFICATE_MISSING, Refusal.CERTIFICATE_UNKNOWN, Refusal.DEVICE_LOST,
    Refusal.METHOD_NOT_ALLOWED, Refusal.BODY_TOO_LARGE, Refusal.TOO_MANY_REQUESTS, Refusal.UNAVAILABLE,
)  # fmt: skip
_OF_A_BODY = (Refusal.LENGTH_REQUIRED, Refusal.CONTENT_TYPE, Refusal.REQUEST_TIMEOUT)


def refusals(endpoint: Endpoint) -> tuple[Refusal, ...]:
    """All reasons for which this endpoint may refuse."""
    own = (*endpoint.may_refuse, *(_OF_A_BODY if endpoint.route.method == "POST" else ()))
    return tuple(reason for reason in Refusal if reason in (*_ALWAYS, *own))


def openapi() -> dict[str, Any]:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "markcheck status server",
            "version": "1",
            "description": "What a handheld and its centre say to each other. CBOR bodies: docs/online-api.md and "
            "verifier/codec/device.py. A path that is not listed gets 404 with PATH_UNKNOWN.",
        },
        "security": [{"deviceCertificate": []}],
        "paths": {path: {e.route.method.lower(): _operation(e)} for path, e in ENDPOINTS.items()},
        "components": {
            "schemas": {"Problem": PROBLEM},
            "securitySchemes": {
                "deviceCertificate": {"type": "mutualTLS", "description": "X.509, P-256, 72 hours, CN is the device."}
            },
        },
    }


def _operation(endpoint: Endpoint) -> Schema:
    operation: Schema = {"summary": endpoint.summary}
    if not endpoint.certificate:
        operation["security"] = [{}, {"deviceCertificate": []}]
    route = endpoint.route
    if route.content_type is not None:
        body = _content(route.content_type, endpoint.request)
        operation["requestBody"] = {"required": True, "description": f"At most {route.max_body} bytes.", **body}
    by_status: dict[int, list[str]] = {}
    for reason in refusals(endpoint):
        by_status.setdefault(STATUS[reason], []).append(reason.value)
    operation["responses"] = {"200": {"description": "Done.", **_content(endpoint.answer_type, endpoint.answer)}} | {
        str(status): {
            "description": ", ".join(names),
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in sorted(by_status.items())
    }
    return operation


def _content(media_type: str, schema: Schema | None) -> Schema:
    return {"content": {media_type: {} if schema is None else {"schema": schema}}}


if __name__ == "__main__":
    json.dump(openapi(), sys.stdout, indent=1)
    sys.stdout.write("\n")
