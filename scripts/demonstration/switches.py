"""What may go wrong in the demo, as switches: each acts on a real part or at the real authority, and can be undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from scripts.demonstration.cards import Cards, named
from scripts.demonstration.clock import MovableClock
from scripts.demonstration.handheld import CHARGED, LOW, PANELS, Handheld, Parts
from scripts.demonstration.road import Fault
from scripts.demonstration.server import OrderError
from scripts.demonstration.world import World
from scripts.sandbox.nightly import PublicationError
from scripts.sandbox.registry import RegistryError
from verifier.errors import SyncError
from verifier.types import Month, Plate
from verifier.wording import Language, Text

WRONG = timedelta(days=-500)  # of a clock whose battery is empty
ON = "on"
Told = Callable[[Text], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One switch; `options` where it has more than two places, by their values."""

    name: str
    group: str
    text: Text
    hint: Text
    options: dict[str, Text] | None = None


SWITCHES: tuple[Switch, ...] = (
    Switch(
        name="revoke", group="car", text=Text("撤销凭证", "Revoke"),
        hint=Text("发证机关撤销;关掉则补发新证", "The authority revokes it; undone by a new one"),
    ),
    Switch(
        name="overdue", group="car", text=Text("检验逾期", "Overdue"),
        hint=Text("登记为逾期;关掉则检验合格", "Overdue in the register; undone by an inspection"),
    ),
    Switch(
        name="steal", group="car", text=Text("报失被盗", "Steal"),
        hint=Text("登记为被盗抢;关掉则找回", "Reported stolen; undone when it is found"),
    ),
    Switch(
        name="network", group="road", text=Text("网络", "Network"), hint=Text("", ""),
        options={
            Fault.NONE.value: Text("正常", "Good"), Fault.CUT.value: Text("断网", "Cut"),
            Fault.DRIP.value: Text("极慢", "Dripping"), Fault.PORTAL.value: Text("登录页劫持", "Captive portal"),
        },
    ),
    Switch(
        name="aged", group="device", text=Text("五天前的数据", "Data 5 days old"),
        hint=Text("换上放了五天没同步的存储卡", "The card of a device that lay in a drawer"),
    ),
    Switch(
        name="clock", group="device", text=Text("时钟错误", "Wrong clock"),
        hint=Text("时钟电池没电,慢了五百天", "The clock's battery was empty: 500 days behind"),
    ),
    Switch(
        name="hang", group="device", text=Text("相机卡死", "Camera hangs"),
        hint=Text("相机进程停住不动", "The camera's process stands still"),
    ),
    Switch(
        name="reader", group="device", text=Text("拔掉读写器", "Reader unplugged"),
        hint=Text("拔掉标识读写器的插头", "The tag reader's plug is pulled"),
    ),
    Switch(
        name="battery", group="device", text=Text("电量低", "Battery low"),
        hint=Text("电量 8%", "8 % left"),
    ),
    Switch(
        name="panel", group="model", text=Text("显示屏", "Panel"), hint=Text("", ""),
        options={name: Text(f"{w}×{h}", f"{w}×{h}") for name, (w, h) in PANELS.items()},
    ),
    Switch(
        name="language", group="model", text=Text("语言", "Language"), hint=Text("", ""),
        options={"zh": Text("中文", "中文"), "en": Text("English", "English")},
    ),
)  # fmt: skip
_BY_NAME = {switch.name: switch for switch in SWITCHES}


class Switches:
    """Their places, and what each does. One order at a time."""

    def __init__(
        self, world: World, parts: Parts, handheld: Handheld, clock: MovableClock, cards: Cards, told: Told
    ) -> None:
        self._world, self._parts, self._handheld, self._clock = world, parts, handheld, clock
        self._cards, self._told = cards, told
        self._lock = threading.Lock()
        self._due, self._over = threading.Event(), False
        self._timer = threading.Thread(target=self._run_timer, name="timer", daemon=True)
        self._places = {"network": Fault.NONE.value, "panel": next(iter(PANELS)), "language": "zh"}
        self._cars: dict[str, dict[Plate, Any]] = {"revoke": {}, "overdue": {}, "steal": {}}
        self._actions: dict[str, Callable[[str], None]] = {
            "network": lambda value: world.spoil(Fault(value)),
            "aged": self._age,
            "clock": lambda value: setattr(clock, "ahead", WRONG if value else timedelta(0)),
            "hang": lambda value: parts.hang(bool(value)),
            "reader": lambda value: parts.plug(not value),
            "battery": lambda value: parts.charge(LOW if value else CHARGED),
            "panel": lambda value: self.switch_on(),
            "language": lambda value: self.switch_on(),
        }
        prepared = (("revoke", "revoked"), ("overdue", "overdue"), ("steal", "stolen"))
        for name, card in prepared:
            plate = cards.all[card].plate
            if plate is not None:
                self._cars[name][plate] = cards.before[plate]
        self._timer.start()

    def places(self, plate: Plate | None) -> list[dict[str, Any]]:
        """All switches as the page has them; those of a car are without a place where none is shown."""
        return [self._place(switch, plate) for switch in SWITCHES]

    def switch_on(self) -> None:
        """Start the handheld, anew if it runs."""
        home = self._world.drawer if self._places.get("aged") else self._world.fresh
        language: Language = "en" if self._places["language"] == "en" else "zh"
        self._handheld.start(home, self._places["panel"], language)

    def put(self, name: str, value: str, plate: Plate | None) -> None:
        """Put a switch into a place; OrderError for one that there is not."""
        switch = _BY_NAME.get(name)
        if switch is None or value not in (switch.options or ("", ON)):
            raise OrderError("no such switch")
        with self._lock:
            if switch.group == "car":
                self._car(name, value, plate)
            elif self._places.get(name, "") != value:
                self._places[name] = value
                self._actions[name](value)

    def _place(self, switch: Switch, plate: Plate | None) -> dict[str, Any]:
        value: str | None = self._places.get(switch.name, "")
        if switch.group == "car":
            value = None if plate is None else ON if plate in self._cars[switch.name] else ""
        place: dict[str, Any] = {
            "name": switch.name, "group": switch.group, "text": pair(switch.text), "hint": pair(switch.hint),
            "value": value,
        }  # fmt: skip
        if switch.options is not None:
            place["options"] = [{"value": value, "text": pair(text)} for value, text in switch.options.items()]
        return place

    # -------------------------------------------------------------------------------------- the car that is shown

    def _car(self, name: str, value: str, plate: Plate | None) -> None:
        if plate is None:
            raise OrderError("no car is shown")
        cars = self._cars[name]
        if (plate in cars) == bool(value):
            return
        vehicle = self._world.authority.vehicle(plate)
        event = self._done(name) if value else self._undone(name, *cars[plate])
        try:
            lines = self._world.happen(**event, **named(plate))
        except (RegistryError, PublicationError) as exc:
            raise OrderError("the authority refuses it") from exc
        if value:
            cars[plate] = vehicle.valid_until, "".join(sorted(vehicle.status))
        else:
            del cars[plate]
            self._cards.renewed(plate)
        self._told(Text(f"登记:{event['event']}", f"register: {event['event']}"))
        for line in lines:
            self._told(Text(line, line))
        self.sync()

    def _done(self, name: str) -> dict[str, str]:
        past = str(Month.at(self._world.clock()).plus(-3))
        return {
            "revoke": {"event": "revoke"},
            "overdue": {"event": "lapse", "until": past},
            "steal": {"event": "status", "letters": "C"},
        }[name]

    def _undone(self, name: str, until: Month, letters: str) -> dict[str, str]:
        return {
            "revoke": {"event": "reissue"},
            "overdue": {"event": "renew", "until": str(until)},
            "steal": {"event": "status", "letters": letters},
        }[name]

    # ------------------------------------------------------------------------------------------------ the device

    def _age(self, value: str) -> None:
        if value:
            self._handheld.stop()
            self._world.refill_drawer()
        self.switch_on()

    def sync(self) -> None:
        """What the device's timer does, now; not on the device from the drawer, whose timer was not due yet."""
        self._due.set()

    def close(self) -> None:
        """No more syncs; one that the road holds up is left to its time limit."""
        self._over = True
        self._due.set()
        self._timer.join(1)

    def _run_timer(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._over:
                return
            if not self._places.get("aged"):
                self._sync()

    def _sync(self) -> None:
        try:
            self._world.sync()
        except SyncError as exc:
            self._told(Text("手持机未能同步", f"device: not synced ({exc})"))
        else:
            self._told(Text("手持机已同步", "device: synced"))


def pair(text: Text) -> list[str]:
    """A text as the page has it."""
    return [text.zh, text.en]
