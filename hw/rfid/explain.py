"""What a string of bytes says, frame by frame, or why it says nothing: for people who look at a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hw.rfid.framing import Refusal, Splitter
from hw.rfid.packets import Answer, Codec, End, Fault, Packet, Refused, Report, Request, Sighting

Fields = dict[str, Any]

_KINDS: dict[type[Packet], str] = {
    Sighting: "tag",
    Answer: "answer",
    Fault: "fault",
    End: "end",
    Request: "request",
}


class Explainer:
    """Takes a stream in any pieces; gives one set of fields for each frame and each refusal, with its offset."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._found: list[Fields] = []
        self._covered = 0  # up to here, a refusal has been told already
        self._splitter = Splitter(codec.layout, codec.cap, trace=self._trace)

    def feed(self, data: bytes, now: float) -> Iterator[Fields]:
        """The fields of what is complete with `data`; `now` in seconds."""
        self._splitter.feed(data, now)
        yield from self._taken()

    def finish(self) -> Iterator[Fields]:
        """The fields of what will not be completed any more."""
        self._splitter.flush()
        yield from self._taken()

    def _taken(self) -> list[Fields]:
        found, self._found = self._found, []
        return found

    def _trace(self, offset: int, refusal: Refusal | None, data: bytes) -> None:
        if refusal is None:
            packet = self._codec.decode(data)
            for part in packet.parts if isinstance(packet, Report) else (packet,):
                self._found.append({"offset": offset, **fields_of(part), "hex": data.hex()})
        elif offset + len(data) > self._covered:
            self._covered = offset + len(data)
            self._found.append({"offset": offset, "refused": refusal.value, "hex": data.hex()})


def explain(codec: Codec, data: bytes) -> Iterator[Fields]:
    """The fields of every frame and every refusal in `data`."""
    explainer = Explainer(codec)
    yield from explainer.feed(data, 0.0)
    yield from explainer.finish()


def fields_of(packet: Packet) -> Fields:
    """A packet as JSON knows it: bytes as hex, and nothing that is not there."""
    if isinstance(packet, Refused):
        return {"refused": packet.refusal.value}
    fields: Fields = {"kind": _KINDS[type(packet)]}
    for name, value in packet._asdict().items():
        if value is not None:
            fields[name] = _plain(value)
    if isinstance(packet, Sighting):
        fields["pc"] = f"{packet.pc:04x}"
    return fields


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: part for name, part in value._asdict().items() if part is not None}
    return value
