"""What stands behind the demo's page: cards before the camera, tags before the reader, keys, and the switches."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from typing import Any

from PIL import Image

from hw.buttons.keys import Key
from hw.rfid.emulator.scene import Tag
from scripts.demonstration.cards import Card, Cards
from scripts.demonstration.feed import Feed
from scripts.demonstration.handheld import Handheld, Parts
from scripts.demonstration.server import OrderError
from scripts.demonstration.switches import Switches, pair
from scripts.demonstration.world import World
from scripts.sandbox.tags import personalised
from verifier.plates import display_text
from verifier.types import Plate
from verifier.wording import Text

LIVE_S = 60.0  # after which a live code is shown anew: well before it is too old
BEFORE_THE_CAMERA = "before-the-camera"
PICTURE = "picture"  # held, and none of the cards
TAGGED = ("stored", "printed", "overdue", "stolen")
_THUMBNAIL = (288, 216)


class DemoStage:
    """The page's orders, carried out. Several threads may call at once."""

    def __init__(
        self, world: World, parts: Parts, handheld: Handheld, cards: Cards, switches: Switches, feed: Feed
    ) -> None:
        self._world, self._parts, self._handheld, self._cards = world, parts, handheld, cards
        self._switches, self._feed = switches, feed
        self._lock = threading.RLock()
        self._held, self._shots = "", 0
        self._tags: list[str] = []
        self._small: dict[str, bytes] = {}
        self._drawn = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cards", daemon=True)
        self._thread.start()
        self._tell()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    # ------------------------------------------------------------------------------------------- from the page

    def order(self, name: str, value: dict[str, Any]) -> None:
        """As `scripts.demonstration.server.Stage.order`."""
        match name, value:
            case "key", {"key": str(key), "closed": bool(closed)} if key in list(Key):
                self._press(Key(key), closed)
            case "hold", {"name": str(card)} if card in ("", *self._cards.all):
                self._hold(card)
            case "tag", {"name": str(card), "value": str(on)} if card in TAGGED:
                self._hold_tag(card, bool(on))
            case "switch", {"name": str(switch), "value": str(place)}:
                self._switches.put(switch, place, self._car())
                self._after_switch()
            case _:
                raise OrderError("no such order")

    def take_picture(self, data: bytes) -> None:
        """Hold this picture before the camera."""
        with self._lock:
            self._parts.see(data)
            self._held, self._shots = PICTURE, self._shots + 1
        self._tell()

    def picture(self, name: str) -> bytes | None:
        """A card, small, or what is before the camera."""
        if name == BEFORE_THE_CAMERA:
            with suppress(OSError):
                return self._parts.window.read_bytes()
            return None
        self._drawn.wait()
        return self._small.get(name)

    def left(self) -> None:
        """Nobody looks: no finger stays on a key."""
        for key in Key:
            self._handheld.press(key, False)

    # ----------------------------------------------------------------------------------------------- inside

    def _press(self, key: Key, closed: bool) -> None:
        if self._handheld.program is None and closed:
            self._switches.switch_on()  # it was switched off by its menu, or by an empty battery
        self._handheld.press(key, closed)

    def _hold(self, name: str) -> None:
        with self._lock:
            self._parts.see(self._shoot(self._cards.all[name]) if name else None)
            self._held, self._shots = name, self._shots + 1
        self._tell()

    def _shoot(self, card: Card) -> bytes:
        with self._world.live.lock:
            return card.picture()

    def _car(self) -> Plate | None:
        card = self._cards.all.get(self._held)
        return card.plate if card is not None and card.car else None

    def _after_switch(self) -> None:
        """A car's new credential is shown from now on, and its tag is written anew."""
        with self._lock:
            if self._car() is not None:
                self._parts.see(self._shoot(self._cards.all[self._held]))
                self._shots += 1
        self._tell()

    def _hold_tag(self, name: str, on: bool) -> None:
        with self._lock:
            self._tags = [tag for tag in self._tags if tag != name] + [name] * on
            self._parts.hold_tags([self._tag(tag) for tag in self._tags])
        self._tell()

    def _tag(self, name: str) -> Tag:
        plate = self._cards.all[name].plate
        if plate is None:
            raise OrderError("a card without a car")
        authority = self._world.authority
        with self._world.live.lock:
            written = personalised(authority.registry, authority.tag_keys, plate, self._cards.issued)
        return Tag(tid=written.tid, epc=written.epc, user=written.user)

    def _run(self) -> None:
        self._small = {name: _small(self._shoot(card)) for name, card in self._cards.all.items()}
        self._drawn.set()
        while not self._over.wait(LIVE_S):
            with self._lock:
                card = self._cards.all.get(self._held)
                if card is not None and card.live:
                    self._parts.see(self._shoot(card))

    def _tell(self) -> None:
        with self._lock:
            cards = [{"name": card.name, "text": pair(card.title)} for card in self._cards.all.values()]
            tags = [{"name": name, "text": pair(self._tag_title(name)), "on": name in self._tags} for name in TAGGED]
            self._feed.tell(
                "scene",
                {
                    "cards": cards, "tags": tags, "held": self._held, "shot": self._shots,
                    "switches": self._switches.places(self._car()),
                },
            )  # fmt: skip

    def _tag_title(self, name: str) -> Text:
        card = self._cards.all[name]
        shown = "" if card.plate is None else display_text(card.plate)
        return Text(f"{shown} {card.title.zh}", f"{shown} {card.title.en}")


def _small(data: bytes) -> bytes:
    picture = Image.open(io.BytesIO(data))
    picture.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
