"""The hot list: what changed since the night counts at once, and nothing older or stranger ever does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from scripts.cli.cache import report_json, report_text
from scripts.cli.main import main
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.hot import HotRows, sign_hot
from scripts.sandbox.nightly import PublicationError
from tests.nightly import EPOCH_KEY, Device, Night, fleet, record
from tests.syncing import PowerCut, cut_at
from verifier.cache.store import StatusStore
from verifier.cache.swap import exclusive
from verifier.codec.hot import HotList, HotListError
from verifier.errors import FetchError, RollbackError, SyncBusyError, SyncError
from verifier.snapshot import ExpiredError
from verifier.sync_report import SyncOutcome
from verifier.types import Plate, StatusLetter, VehicleRecord

CAR = fleet(1)[0][0].plate
STOLEN = frozenset({StatusLetter.STOLEN})


@pytest.fixture
def night() -> Night:
    night = Night(vehicles=fleet(60))
    night.publish()
    return night


@pytest.fixture
def device(night: Night, tmp_path: Path) -> Device:
    device = night.device(tmp_path / "cache")
    device.client().refresh()
    return device


def with_stolen(night: Night) -> None:
    """The first car of the register is stolen, and the 60th gone."""
    night.vehicles = [(replace(v, status=STOLEN) if v.plate == CAR else v, tid) for v, tid in night.vehicles[:59]]


def publish_hot(night: Night) -> HotList:
    night.clock.move(minutes=5)
    rows = night.publisher.hot_changes(vehicles=iter(night.vehicles), epoch_key=EPOCH_KEY, key_epoch=1)
    return night.publisher.publish_hot(rows)


def rows_of(hot: HotList) -> int:
    return len(hot.rows) + len(hot.exact)


def answer(device: Device, plate: Plate = CAR) -> VehicleRecord | None:
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        return store.vehicle(plate)


def refused(device: Device, error: type[SyncError], store: Mapping[str, bytes] | None = None) -> str:
    """A refresh that must fail so and change nothing."""
    path = device.root / "hot.cose"
    before = path.read_bytes() if path.exists() else None
    fetcher = device.fetcher if store is None else MemoryFetcher(store)
    with pytest.raises(error) as caught:
        device.client(fetcher=fetcher).refresh_hot()
    assert (path.read_bytes() if path.exists() else None) == before
    return str(caught.value)


def test_nightly_says_valid_and_hot_says_otherwise(device: Device) -> None:
    """Hot wins within minutes; the night that includes it ends it."""
    gone = fleet(60)[59][0].plate
    with_stolen(device.night)
    hot = publish_hot(device.night)
    report = device.client().refresh_hot()
    assert (report.fresh, report.seq_before, report.seq_after, report.rows) == (False, None, hot.hot_seq, rows_of(hot))
    assert (report.as_of, report.next_update) == (device.night.clock(), device.night.clock() + timedelta(hours=1))
    found = answer(device)
    assert found is not None
    assert found.status == STOLEN
    assert answer(device, gone) is None
    device.night.clock.move(hours=20)
    device.night.publish()
    device.client().refresh()
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        assert store.info().hot_seq is None
    assert (answer(device), answer(device, gone)) == (found, None)


def test_the_same_list_again_is_fresh(device: Device) -> None:
    with_stolen(device.night)
    publish_hot(device.night)
    device.client().refresh_hot()
    report = device.client().refresh_hot()
    assert (report.fresh, report.seq_before, report.seq_after) == (True, report.seq_after, 2)


def test_a_list_is_renewed_with_the_same_rows(device: Device) -> None:
    with_stolen(device.night)
    hot = publish_hot(device.night)
    device.night.clock.move(minutes=50)
    device.night.publisher.renew_hot()
    device.night.clock.move(minutes=30)
    report = device.client().refresh_hot()
    assert (report.seq_after, report.rows) == (hot.hot_seq + 1, rows_of(hot))
    assert answer(device) != record(CAR)


def test_an_event_that_is_taken_back_leaves_the_list(device: Device) -> None:
    with_stolen(device.night)
    publish_hot(device.night)
    device.client().refresh_hot()
    device.night.vehicles = fleet(60)
    assert rows_of(publish_hot(device.night)) == 0
    device.client().refresh_hot()
    assert answer(device) == record(CAR)


def test_an_older_list_is_refused_also_when_the_marks_of_the_metadata_are_lost(device: Device) -> None:
    old = dict(device.night.store)
    with_stolen(device.night)
    publish_hot(device.night)
    device.client().refresh_hot()
    shutil.rmtree(device.root / "trust")
    assert "older" in refused(device, RollbackError, old)
    (device.root / "hot.cose").unlink()
    assert "older" in refused(device, RollbackError, old)


def test_two_lists_under_one_number_are_refused(device: Device) -> None:
    with_stolen(device.night)
    publish_hot(device.night)
    device.client().refresh_hot()
    other = signed(device.night, hot_seq=2, rows={})
    assert "other contents" in refused(device, RollbackError, other)


def signed(night: Night, key: str = "hot-national", **changes: object) -> dict[str, bytes]:
    """The store with a list that differs from the newest one in these fields, signed with one of the keys."""
    hot = night.publisher.hot()
    assert hot is not None
    data = sign_hot(replace(hot, **changes), night.publisher._keys.private(key))  # type: ignore[arg-type]
    return night.store | {"hot/national/head.cose": data}


def test_an_expired_list_is_refused(device: Device) -> None:
    with_stolen(device.night)
    publish_hot(device.night)
    device.night.clock.move(hours=1)
    assert "past its time" in refused(device, ExpiredError)


def test_a_list_for_another_night_is_refused(device: Device) -> None:
    later = signed(device.night, hot_seq=9, nightly_seq=2)
    assert "no. 2: sync that first" in refused(device, SyncError, later)
    old = dict(device.night.store)
    device.night.clock.move(minutes=30)
    device.night.publish()
    device.client().refresh()
    assert "older" in refused(device, RollbackError, old)


def test_a_list_older_than_the_newest_signed_time_is_refused(device: Device) -> None:
    early = signed(device.night, hot_seq=9, issued_at=device.night.clock() - timedelta(minutes=1))
    assert "another signed time" in refused(device, RollbackError, early)


def test_a_list_of_another_region_is_refused(device: Device) -> None:
    assert "region" in refused(device, SyncError, signed(device.night, hot_seq=9, region="yue"))


@pytest.mark.parametrize("key", ["nightly-national", "timestamp", "targets"])
def test_key_compromise_another_roles_key_cannot_sign_a_hot_list(device: Device, key: str) -> None:
    assert "signature" in refused(device, HotListError, signed(device.night, key, hot_seq=9))


@pytest.mark.parametrize("data", [b"", b"<html>please log in</html>", bytes(5 << 20)])
def test_what_is_no_hot_list_is_refused(device: Device, data: bytes) -> None:
    refused(device, SyncError, device.night.store | {"hot/national/head.cose": data})


def test_a_list_that_is_not_there_is_a_fetch_error(device: Device) -> None:
    refused(device, FetchError, {p: d for p, d in device.night.store.items() if not p.startswith("hot/")})


def test_without_a_night_there_is_nothing_to_put_a_list_on(night: Night, tmp_path: Path) -> None:
    device = night.device(tmp_path)
    assert "no nightly" in refused(device, SyncError)
    with pytest.raises(PublicationError):
        Night().publisher.publish_hot(HotRows())


@pytest.mark.parametrize("step", ["hot-accepted", "hot-replaced"])
def test_a_cut_leaves_the_old_or_the_new_list_and_the_next_run_succeeds(device: Device, step: str) -> None:
    with_stolen(device.night)
    publish_hot(device.night)

    with pytest.raises(PowerCut):
        device.client(on_step=cut_at(step)).refresh_hot()
    found = answer(device)
    assert found is not None
    assert (found.status == STOLEN) == (step == "hot-replaced")
    assert device.client().refresh_hot().seq_after == 2
    assert answer(device) != record(CAR)


def test_a_list_that_cannot_be_used_is_told_by_the_next_sync_and_by_cache_info(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device.client().refresh_hot()
    assert device.client().refresh().notes == ()
    (device.root / "hot.cose").write_bytes(b"rotten")
    (note,) = device.client().refresh().notes
    assert note.startswith("hot list: ")
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path))
    assert main(["cache", "info"]) == 0
    assert f"note: {note}" in capsys.readouterr().err
    assert main(["cache", "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]


def test_report_and_cache_info_tell_the_vehicles_of_the_base_and_the_rows_since(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_stolen(device.night)  # one row changes, one vehicle goes
    device.night.clock.move(hours=20)
    device.night.publish()
    report = device.client().refresh()
    assert report.vehicles == 60
    assert report.changed_rows in (2, 3, 4)  # with their tags
    assert f"60 vehicles in the base, {report.changed_rows} rows changed since" in report_text(report)
    assert report_json(report)["changed_rows"] == report.changed_rows
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path))
    assert main(["cache", "info"]) == 0
    shown = capsys.readouterr().out
    assert "60 in the base (no. 1)" in shown
    assert f"{report.changed_rows} since" in shown


def test_a_sync_at_the_same_time_is_turned_away(device: Device) -> None:
    with exclusive(device.root), pytest.raises(SyncBusyError):
        device.client().refresh_hot()


def test_another_region_begins_without_the_old_ones_list(device: Device) -> None:
    device.client().refresh_hot()
    assert (device.root / "hot.cose").exists()
    night = device.night
    night.publisher = night.publisher.of_region("jing")
    night.publish(scope="province", covers=("京",))
    night.region = "jing"
    device.client().refresh()
    assert not (device.root / "hot.cose").exists()
    assert device.client().refresh_hot().region == "jing"


@pytest.mark.parametrize("name", ["index.cbor", "base.db"])
def test_a_repaired_night_keeps_what_the_list_said_of_it(device: Device, name: str) -> None:
    """The list is still that night's: without it a stolen car would be in good standing until the next one comes."""
    with_stolen(device.night)
    publish_hot(device.night)
    device.client().refresh_hot()
    found = answer(device)
    assert found is not None
    assert found.status == STOLEN
    (device.root / "current" / name).unlink()
    assert device.client().refresh().outcome is SyncOutcome.SNAPSHOT
    assert answer(device) == found


def test_an_older_list_is_refused_also_when_state_db_is_lost(device: Device) -> None:
    """The list in use is a mark itself, as the set in use is one."""
    device.client().refresh_hot()
    old = dict(device.night.store)
    with_stolen(device.night)
    publish_hot(device.night)
    device.client().refresh_hot()
    (device.root / "state.db").unlink()
    assert "older than" in refused(device, RollbackError, old)


@pytest.mark.parametrize("nights", [0, 1])
@pytest.mark.parametrize("left", [None, b"", b"rotten"])
def test_a_publisher_that_lost_its_list_goes_on_above_every_number(
    device: Device, left: bytes | None, nights: int
) -> None:
    """Devices remember the newest number: a publisher that began at one again would be refused for weeks."""
    for _ in range(5):
        publish_hot(device.night)
    device.client().refresh_hot()
    device.night.store.pop("hot/national/head.cose")
    if left is not None:
        device.night.store["hot/national/head.cose"] = left
    for _ in range(nights):
        device.night.clock.move(hours=20)
        device.night.publish()
        device.client().refresh()
    with_stolen(device.night)
    hot = publish_hot(device.night)
    assert device.client().refresh_hot().seq_after == hot.hot_seq
    found = answer(device)
    assert found is not None
    assert found.status == STOLEN
