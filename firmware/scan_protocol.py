"""What the program and its scanner process say to each other: values to bytes and back, without a pipe.

The scanner handles hostile pictures in native code, so the program takes it for a stranger: its messages are JSON of
bounded length behind four bytes of that length, every field is checked, and nothing is unpickled.
In the other direction goes the job, once, one byte for each frame that is wanted, and one for what the camera shall do.
Pictures do not go through the pipe: the newest lies in the slot, a file in memory that both have open, and with it its
photo when a code was read in it or somebody asked for one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from hw.errors import one_line
from hw.interfaces import CameraSettings
from verifier.types import CodeSeen, Hint

MAX_MESSAGE = 1024 * 1024  # bytes; as many codes of the largest symbol
MAX_CODES = 64  # of one frame; a printed sheet
MAX_PAYLOAD = 7089  # bytes; the digits of a version 40-L symbol, ISO/IEC 18004 table 7
MAX_CORNERS = 32  # some decoders give a hull
MAX_PIXEL = 100_000  # largest coordinate, either sign: a corner may lie outside the frame
MAX_COUNT = 10**9
GRANT = b"n"  # one more frame, please
PHOTO_GRANT = b"p"  # the same, and a photo of it whatever is read in it
_SETTINGS = 0x40  # two bits for the exposure above it, then zoom and torch: 0x40 to 0x4B

FRAME_HEADER = struct.Struct(">II")  # height and width in the frame slot, before the pixels; 0 x 0 = no frame
MAX_FRAME_PIXELS = 33_000_000  # of a frame in the slot
MAX_FRAME_SIDE = 16_384  # of a frame in the slot; sources reduce what is longer than a quarter of that
PHOTO_PLACE = FRAME_HEADER.size + MAX_FRAME_PIXELS  # in the slot, behind the largest frame
PHOTO_HEADER = struct.Struct(">I")  # the photo's length, before its bytes; 0 = no photo
MAX_PHOTO = 200_000  # bytes of a JPEG

_LENGTH = struct.Struct(">I")


class ProtocolError(Exception):
    """The other side said something that it never says; the text tells which rule was broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a scanner process does: the frames of one source, read by some decoders.

    `source` and `decoders` are importable names "module:attribute". The source is called with the paths and
    `skip=`, the number of its first frames to leave out; the decoders without arguments. `still` tells pictures, each
    worth all stages, from the frames of one scene. After `alarm_s` seconds in one frame the process ends itself.
    `photos`: each frame with a code becomes a photo.
    """

    source: str
    paths: tuple[str, ...]
    decoders: str
    still: bool
    skip: int
    alarm_s: float
    photos: bool = False

    def to_text(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """From what `to_text` gave."""
        values = json.loads(text)
        return cls(**{**values, "paths": tuple(values["paths"])})


@dataclass(frozen=True, slots=True)
class Ready:
    """The libraries are loaded and the source is there."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The frame of that name lies in the slot and is about to be read."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A frame was read: its codes, all of them marks or all of them foreign, else a hint if there is one.

    `at_s` is the frame's time in a recording, None in live pictures; `total` the frames of the source if it tells.
    """

    codes: tuple[CodeSeen, ...]
    are_marks: bool
    hint: Hint | None
    ms: float
    at_s: float | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A frame that cannot be used: the name of it and what is the matter."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Missing:
    """The process cannot work on: which part or library is not there, or not any more; it ends itself."""

    component: str
    problem: str


@dataclass(frozen=True, slots=True)
class Done:
    """The source has no more frames."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The process is about to end by a part's fault, or by a mistake of ours or a library's."""

    problem: str


Message = Failed | Ready | Begin | End | Unusable | Missing | Done


def encode(message: Message) -> bytes:
    """The message as it is sent; longer lists and payloads than the other side takes are cut."""
    values: dict[str, Any] = {field.name: getattr(message, field.name) for field in fields(message)}
    if isinstance(message, End):
        values["codes"] = [_code_to_json(code) for code in message.codes[:MAX_CODES]]
    body = json.dumps({"type": type(message).__name__, **values}).encode()
    return _LENGTH.pack(len(body)) + body


def encode_settings(settings: CameraSettings) -> bytes:
    """What the program asks of the camera, in one byte, so that it is never cut; other than the two grants."""
    stops = min(max(settings.exposure_ev, -1), 1) + 1
    return bytes([_SETTINGS | stops << 2 | settings.zoom << 1 | settings.torch])


def decode_settings(byte: bytes) -> CameraSettings:
    """What `encode_settings` was given; ProtocolError for any other byte."""
    bits = byte[0] ^ _SETTINGS
    if bits >= 3 << 2:
        raise ProtocolError("not the settings of a camera")
    return CameraSettings(torch=bool(bits & 1), zoom=bool(bits & 2), exposure_ev=(bits >> 2) - 1)


def _code_to_json(code: CodeSeen) -> dict[str, Any]:
    corners = [[_clamp(x), _clamp(y)] for x, y in code.corners[:MAX_CORNERS]]
    version = code.version if code.version in range(1, 41) else None
    return {
        "payload": code.payload[:MAX_PAYLOAD].hex(),  # cut or not: longer than any mark
        "corners": corners,
        "decoder": one_line(code.decoder),
        "version": version,
    }


def _clamp(value: int) -> int:
    return int(min(max(value, -MAX_PIXEL), MAX_PIXEL))


class MessageParser:
    """Messages out of a stream of bytes that may be cut anywhere; ProtocolError, after which it is of no more use."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with these bytes."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE:
                raise ProtocolError("a message is too long")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _decode(body)


def _decode(body: bytes) -> Message:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("a message is not JSON") from exc
    make = _MAKERS.get(str(values.pop("type", ""))) if isinstance(values, dict) else None
    if make is None:
        raise ProtocolError("a message of an unknown type")
    try:
        return make(values)
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise ProtocolError("a message with a field missing or out of its range") from exc


def _end(values: Mapping[str, Any]) -> End:
    codes = values["codes"]
    if not isinstance(codes, list) or len(codes) > MAX_CODES:
        raise ValueError("codes")
    return End(
        codes=tuple(_code(code) for code in codes),
        are_marks=_boolean(values["are_marks"]),
        hint=None if values["hint"] is None else Hint(values["hint"]),
        ms=_number(values["ms"]),
        at_s=None if values["at_s"] is None else _number(values["at_s"]),
        total=None if values["total"] is None else _integer(values["total"], 0, MAX_COUNT),
    )


def _code(values: Any) -> CodeSeen:
    payload = bytes.fromhex(values["payload"])
    corners = values["corners"]
    if len(payload) > MAX_PAYLOAD or not isinstance(corners, list) or len(corners) > MAX_CORNERS:
        raise ValueError("code")
    version = values["version"]
    return CodeSeen(
        payload=payload,
        corners=tuple(_corner(*corner) for corner in corners),
        decoder=_text(values["decoder"]),
        version=None if version is None else _integer(version, 1, 40),
    )


def _corner(x: Any, y: Any) -> tuple[int, int]:
    return _integer(x, -MAX_PIXEL, MAX_PIXEL), _integer(y, -MAX_PIXEL, MAX_PIXEL)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return one_line(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("boolean")
    return value


def _integer(value: Any, least: int, most: int) -> int:
    if type(value) is not int:  # a boolean is one, too
        raise TypeError("integer")
    if not least <= value <= most:
        raise ValueError("integer")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("number")
    if not (isfinite(value) and 0 <= value <= MAX_COUNT):
        raise ValueError("number")
    return float(value)


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "Ready": lambda values: Ready(),
    "Begin": lambda values: Begin(_text(values["name"])),
    "End": _end,
    "Unusable": lambda values: Unusable(_text(values["name"]), _text(values["problem"])),
    "Missing": lambda values: Missing(_text(values["component"]), _text(values["problem"])),
    "Failed": lambda values: Failed(_text(values["problem"])),
    "Done": lambda values: Done(),
}
