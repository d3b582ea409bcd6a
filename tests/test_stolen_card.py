"""The promise to whoever loses a handheld: its card, read byte by byte, names no vehicle and says nothing of one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.choices import FILE, KeptChoices
from firmware.config import REGION, Home
from firmware.keeper import save_online
from scripts.sandbox.audit_keys import open_log
from scripts.sandbox.folder_store import MemoryFetcher
from tests.centres import OLD, START, OnlineWorld
from tests.officer import Officer, home_of
from tests.sealed_logs import PRIVATE, write_key
from tests.syncing import PowerCut, cut_at
from tests.test_appliance import check_plate, code_of
from tests.test_login import PIN
from verifier.cache import schema
from verifier.cache.sealing import BOX
from verifier.cache.tables import Table
from verifier.cache.values import to_wide
from verifier.codec.delta import decode_delta
from verifier.codec.hot import decode_hot, hot_key, hot_payload, open_rows
from verifier.codec.index import Index, decode_index
from verifier.errors import EpochKeyError
from verifier.officers import OfficerFile
from verifier.recheck_queue import News, RecheckQueue
from verifier.sync import SyncClient
from verifier.types import Plate
from verifier.verdict import Role, VerdictCode

DEAD = "http://127.0.0.1:9"
NEWS = News(
    check_id="0" * 32, at=START, then=VerdictCode.VALID_STALE, now=VerdictCode.WANTED, plate=Plate("京A00001", "02")
)


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


def client(world: OnlineWorld, home: Path, **options: object) -> SyncClient:
    fetcher, root = MemoryFetcher(world.store), world.authority.publisher.root_bytes()
    options = {"epoch_key": world.authority.epoch_key} | options
    return SyncClient(home / "cache", fetcher, world.clock, root, REGION, **options)  # type: ignore[arg-type]


def plate_of(world: OnlineWorld) -> Plate:
    """Of a vehicle with nothing against it."""
    plate: Plate = world.vehicle().plate  # type: ignore[no-untyped-call]
    return plate


def another_night(world: OnlineWorld, cars: int = 30) -> None:
    world.now += timedelta(days=1)
    for _ in range(cars):
        world.authority.registry.set_status(plate_of(world), "E")
    assert world.authority.publish().snapshot is None


def index_of(home: Path) -> Index:
    return decode_index((home / "cache" / schema.CURRENT / schema.INDEX).read_bytes())


@pytest.fixture(scope="module")
def used(world: OnlineWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a handheld after two nights, a hot list and an officer's day without a network."""
    home = home_of(world, tmp_path_factory.mktemp("card") / "home")
    write_key(home / "audit-key.pem")
    save_online(Home(home), DEAD)
    OfficerFile(home / "officers.json").put("110001", Role.OFFICER, PIN)
    another_night(world)
    client(world, home).refresh()
    stolen, other = plate_of(world), plate_of(world)
    world.authority.registry.set_status(stolen, "C")
    world.authority.publish_hot()
    assert client(world, home).refresh_hot().rows > 0
    with closing(Officer(world, home)) as officer:
        assert officer.scans(code_of(world, stolen)).verdict is VerdictCode.WANTED
        officer.until(lambda: any((home / "photos").glob("*"))).ready()
        world.now += OLD
        check_plate(officer, other)
        officer.until(lambda: bool(queue_of(world, home).waiting()))
        KeptChoices(home / FILE, lambda *_: None).keep(replace(officer.state, brightness=2))
        officer.glass.unplug()
        officer.press("up").until(lambda: "panel" in officer.state.faults).asks()
    queue_of(world, home).tell(replace(NEWS, plate=other))
    (home / "epoch.key").unlink()  # which a device in use holds in memory
    (home / "window.png").unlink()  # what the camera of the test looks at
    return home


def queue_of(world: OnlineWorld, home: Path) -> RecheckQueue:
    return RecheckQueue(Home(home).rechecks, world.authority.epoch_key)


def of_vehicles(world: OnlineWorld) -> dict[str, set[bytes]]:
    """All that the register knows of its vehicles, in every form in which it could stand on a card."""
    registry = world.authority.registry
    vehicles = list(registry.vehicles.values())
    serials = [entry.serial for v in vehicles for entry in registry.credentials(v.plate)]
    texts = {text for v in vehicles for text in (v.plate.text, v.plate.text[1:], v.vin)}
    numbers = {*serials, *(v.tid for v in vehicles if v.tid)}
    return {
        "text": {text.encode(code) for text in texts for code in ("utf-8", "utf-16-le", "gbk")},
        "number": {form for n in numbers for form in (n.lower().encode(), n.upper().encode(), bytes.fromhex(n))},
        "card": {v.tid[-12:].upper().encode() for v in vehicles if v.tid},
        "value": {to_wide(v.record()).to_bytes(8, order) for v in vehicles for order in ("little", "big")},
    }


def bodies(world: OnlineWorld, home: Path) -> list[bytes]:
    """Keys and values of every block of the set in use, as they are once opened."""
    found = []
    for name in (schema.BASE, schema.CHANGES):
        with closing(Table(home / "cache" / schema.CURRENT / name, world.authority.epoch_key)) as table:
            found += [body for kind in ("seg", "exact", "replated") for _, body in table.rows(kind)]
    return [body[6:] for body in found if len(body) >= 13]  # behind the low key, which the k before tells anyway


def standing_in(data: bytes, secrets: Iterable[bytes]) -> list[bytes]:
    return [secret for secret in secrets if secret in data]


def test_no_byte_of_a_stolen_card_names_a_vehicle_or_says_anything_of_one(world: OnlineWorld, used: Path) -> None:
    """As whoever pulls the card finds it after nights, a hot list, checks, a photo and news, with the power gone."""
    card = {str(path.relative_to(used)): path.read_bytes() for path in used.rglob("*") if path.is_file()}
    names = {name.rpartition("/")[2] for name in card}
    assert names >= {
        "base.db", "changes.db", "hot.cose", "tsl.bin", "index.cbor", "state.db", "audit.jsonl", "rechecks.db",
        "log.jsonl", "choices.json", "officers.json", "lookups.json",
    }  # fmt: skip
    assert any(name.startswith("photos/") for name in card)
    secrets = of_vehicles(world)
    key = world.authority.epoch_key
    secrets["key"] = {key, key.hex().encode(), PIN.encode()}
    secrets["block"] = set(bodies(world, used))
    assert min(map(len, secrets.values())) > 1
    for name, data in card.items():
        found = {kind: len(hits) for kind, all_ in secrets.items() if (hits := standing_in(data, all_))}
        assert not found, name


def test_what_was_looked_for_is_there_for_who_has_the_keys(world: OnlineWorld, used: Path) -> None:
    """So that the search above cannot come out empty because nothing was ever kept."""
    secrets, key = of_vehicles(world), world.authority.epoch_key
    log = str([one.record for one in open_log(used / "audit.jsonl", PRIVATE)]).encode()
    assert len(standing_in(log, secrets["text"])) >= 4
    assert standing_in(log, secrets["number"])
    index = index_of(used)
    assert index.hot is not None
    hot = decode_hot((used / "cache" / schema.HOT).read_bytes(), hot_key(index.hot))
    assert standing_in(hot_payload(open_rows(hot, key)), secrets["value"])
    assert len(bodies(world, used)) > 100
    waiting = queue_of(world, used)
    assert standing_in(str(waiting.records()).encode(), secrets["text"])
    assert [news.plate for news in waiting.news()] != [None]


def test_a_sync_that_is_cut_off_leaves_no_readable_delta_on_the_card(tmp_path: Path) -> None:
    world = OnlineWorld()
    client(world, tmp_path).refresh()
    another_night(world)
    with pytest.raises(PowerCut):
        client(world, tmp_path, on_step=cut_at("downloaded")).refresh()
    [staged] = (tmp_path / "cache" / "stage").glob("*.delta")
    data = staged.read_bytes()
    assert data.startswith(BOX)
    client(world, tmp_path).refresh()
    [entry] = index_of(tmp_path).deltas
    for wrong in (None, bytes(32)):
        with pytest.raises(EpochKeyError):
            decode_delta(data, entry, wrong)
    assert len(decode_delta(data, entry, world.authority.epoch_key).keys) >= 30
