"""What a driver's phone shows: one vehicle's credential as a page, with its codes made by the sandbox authority.

The page itself is fixed text; all that is told of a vehicle comes as JSON and as pictures, so nothing that a
visitor sent can become part of it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from scripts.sandbox.authority import Authority, AuthorityFolder
from scripts.sandbox.codes import CITY_NAMES, card_number, qr_picture, qr_svg
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.issuer import Extras
from scripts.sandbox.keys import holder_signer
from scripts.sandbox.registry import ACTIVE, RegistryError
from scripts.sandbox.server import Answer
from verifier.clock import Clock
from verifier.codec.credential import HolderKey, encode
from verifier.errors import PlateError
from verifier.plates import PLATE_KINDS, display_text, parse_plate
from verifier.types import SHANGHAI, Credential, Month, Plate, PresentationMode
from verifier.vehicle_words import VEHICLE_TYPES

RENEW_S = 30  # seconds between two live codes

_MODES = {mode.value: mode for mode in PresentationMode}
_PARAMETERS = frozenset({"plate", "kind", "mode", "signer"})
_SIGNERS = (None, "platform", "holder")  # of a live code; the platform unless told
_MOST_KEPT = 1000  # signed credentials
_WHITE = dict.fromkeys(("23", "24", "31", "32", "33"), "white")
_COLOURS = {"01": "yellow", "15": "yellow", "16": "yellow", "51": "yellow-green", "52": "green", **_WHITE}
"""Colour of a plate by its kind (GA 36-2018); the others are blue here."""


class _Question(NamedTuple):
    """The parameters of a request, as sent."""

    plate: str | None = None
    kind: str | None = None
    mode: str | None = None
    signer: str | None = None


class _QuestionError(ValueError):
    """Parameters that have no answer; the text does not repeat them."""


class Wallet:
    """Answers the page's requests from an authority's folder; an event recorded there counts from the next request."""

    def __init__(self, folder: AuthorityFolder, *, clock: Clock, first: Plate | None = None) -> None:
        """`first` is the vehicle for who names none; without it one is drawn. RegistryError when it is not there."""
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._authority, self._seen = self._open()
        self._first = None if first is None else self._authority.registry.find(first).plate
        self._kept: dict[tuple[Credential, HolderKey | None], bytes] = {}
        page = files(__package__).joinpath("wallet.html").read_bytes()
        self._page = Answer(200, page, "text/html; charset=utf-8", (*_HEADERS, _content_policy(page)))
        self._routes: dict[str, Callable[[_Question], Answer]] = {
            "/vehicle.json": self._vehicle_json,
            "/code.svg": lambda question: _answer(qr_svg(self._code(question)), "image/svg+xml"),
            "/code.png": lambda question: _answer(_png(self._code(question)), "image/png"),
        }

    def respond(self, target: str) -> Answer:
        """The answer to a request target; parameters without meaning get 400 and one line, other paths 404."""
        path, _, query = target.partition("?")
        if path == "/":
            return self._page if query or self._first is None else _moved(self._first)
        if path not in self._routes:
            return _refused(404, "nothing here")
        try:
            question = _question(query)
            with self._lock:
                self._catch_up()
                return self._routes[path](question)
        except (_QuestionError, PlateError, RegistryError) as exc:
            return _refused(400, str(exc))

    # ----------------------------------------------------------------------------------------- the register

    def _open(self) -> tuple[Authority, int]:
        """The authority, and how many bytes of its events it has seen."""
        while True:
            seen = len(self._events_after(0))
            authority = self._folder.open(clock=self._clock)
            if len(self._events_after(0)) == seen:
                return authority, seen

    def _events_after(self, seen: int) -> bytes:
        """The whole lines that were recorded behind the first `seen` bytes."""
        path = self._folder.private / "events.jsonl"
        if not path.exists() or path.stat().st_size <= seen:
            return b""
        with path.open("rb") as file:
            file.seek(seen)
            new = file.read()
        return new[: new.rfind(b"\n") + 1]

    def _catch_up(self) -> None:
        for line in self._events_after(self._seen).splitlines(keepends=True):
            self._folder.repeat(self._authority, json.loads(line))
            self._seen += len(line)

    def _vehicle(self, question: _Question) -> Vehicle:
        if question.plate is None:
            raise _QuestionError("plate: missing")
        return self._authority.registry.find(parse_plate(question.plate, question.kind))

    def _draw(self) -> Vehicle:
        everyone = [vehicle for vehicle in self._authority.registry.vehicles.values() if vehicle.ecred_issued]
        return random.choice(everyone)  # noqa: S311 - made-up vehicles, no secret

    # ------------------------------------------------------------------------------------------- the answers

    def _vehicle_json(self, question: _Question) -> Answer:
        if question.mode is not None or question.signer is not None:
            raise _QuestionError("mode and signer are of a code")
        vehicle = self._draw() if question.plate is None else self._vehicle(question)
        registry, now = self._authority.registry, self._clock()
        plate, kind = vehicle.plate.text, vehicle.plate.kind or ""
        type_name = VEHICLE_TYPES.get(vehicle.vehicle_type)
        value = {
            "plate": plate,
            "kind": kind,
            "shown": display_text(vehicle.plate),
            "kind_name": PLATE_KINDS[kind],
            "colour": _COLOURS.get(kind, "blue"),
            "vehicle_type": type_name.zh if type_name else vehicle.vehicle_type,
            "issuer": CITY_NAMES.get(vehicle.city.code, vehicle.city.code),
            "valid_until": str(vehicle.valid_until),
            "overdue": vehicle.valid_until < Month.at(now),
            "ctp_until": vehicle.ctp_until.isoformat(),
            "ctp_lapsed": vehicle.ctp_until < now.astimezone(SHANGHAI).date(),
            "in_force": registry.states[registry.credential(vehicle.plate).index] == ACTIVE,
            "card_number": card_number(vehicle.tid) if vehicle.tid else None,
            "renew_s": RENEW_S,
        }
        return _answer(json.dumps(value).encode(), "application/json")

    def _code(self, question: _Question) -> str:
        """The text of the code asked for: a live one anew each time, the others the same all day."""
        if question.mode not in _MODES:
            raise _QuestionError(f"mode: not one of {', '.join(_MODES)}")
        vehicle, mode = self._vehicle(question), _MODES[question.mode]
        if mode is PresentationMode.TAG_LABEL and vehicle.tid is None:
            raise _QuestionError("the vehicle has no in-car tag")
        if mode is PresentationMode.LIVE:
            return self._live(vehicle, question.signer)
        if question.signer is not None:
            raise _QuestionError("signer: of a live code only")
        return encode(self._signed(vehicle, mode, None))

    def _live(self, vehicle: Vehicle, signer: str | None) -> str:
        if signer not in _SIGNERS:
            raise _QuestionError("signer: not platform or holder")
        issuer, now = self._authority.issuer, self._clock()
        if signer != "holder":
            return issuer.present(self._signed(vehicle, PresentationMode.LIVE, None), now)
        serial = self._authority.registry.credential(vehicle.plate).serial
        phone = holder_signer(self._authority.holder_seed, serial)
        return issuer.present_by_holder(self._signed(vehicle, PresentationMode.LIVE, phone.public), phone, now)

    def _signed(self, vehicle: Vehicle, mode: PresentationMode, holder: HolderKey | None) -> bytes:
        """The credential as the phone keeps it: got once a day, and again when the register says something else."""
        now = self._clock()
        midnight = now.astimezone(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)
        wanted = self._authority.credential(vehicle.plate, mode, midnight), holder
        if wanted not in self._kept:
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            credential = self._authority.credential(vehicle.plate, mode, now)
            extras = Extras(reason=vehicle.issue_reason, holder=holder)
            self._kept[wanted] = self._authority.issuer.sign(credential, extras=extras)
        return self._kept[wanted]


_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))


def _question(query: str) -> _Question:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=len(_PARAMETERS))
    except ValueError as exc:
        raise _QuestionError("too many parameters") from exc
    values = dict(pairs)
    if len(values) < len(pairs) or not values.keys() <= _PARAMETERS:
        raise _QuestionError(f"parameters are {', '.join(sorted(_PARAMETERS))}, each once")
    return _Question(**values)


def _content_policy(page: bytes) -> tuple[str, str]:
    """The header by which a browser runs the page's own script and style and nothing else (CSP level 3)."""
    rules = ["default-src 'none'", "connect-src 'self'", "img-src blob:", "base-uri 'none'", "form-action 'none'"]
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
        rules.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'")
    return "Content-Security-Policy", "; ".join([*rules, "frame-ancestors 'none'"])


def _png(text: str) -> bytes:
    buffer = io.BytesIO()
    qr_picture(text).save(buffer, format="PNG")
    return buffer.getvalue()


def _answer(body: bytes, content_type: str) -> Answer:
    return Answer(200, body, content_type, _HEADERS)


def _refused(status: int, line: str) -> Answer:
    return Answer(status, f"{line}\n".encode(), "text/plain; charset=utf-8", _HEADERS)


def _moved(plate: Plate) -> Answer:
    """To the page that names this vehicle."""
    query = urlencode({"plate": plate.text, "kind": plate.kind or ""})
    return Answer(302, headers=(*_HEADERS, ("Location", f"/?{query}")))
