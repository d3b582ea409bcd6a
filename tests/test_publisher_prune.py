"""What leaves the public folder, what never does, and that no device which is at work notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.cli.main import main
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.hot import RENEWAL as HOT_RENEWAL
from scripts.sandbox.hot import HotRows
from scripts.sandbox.nightly import PublicationError
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_prune import Retention, unreferenced
from scripts.sandbox.republish import Republisher
from scripts.sandbox.server import serve
from tests.nightly import Night, Unguarded, fleet, trust_list
from tests.syncing import first_night, publish_seed, recovers, seed_in_use
from verifier.clock import system_clock
from verifier.codec.index import Index, decode_index
from verifier.download import chunk_path, delta_path, status_list_path
from verifier.net import HttpFetcher
from verifier.sync_report import SyncOutcome


def nights(night: Night, *seeds: int, days: float = 1) -> None:
    for seed in seeds:
        night.clock.move(days=days)
        publish_seed(night, seed)


def indexes(night: Night, region: str = "national") -> list[Index]:
    """All indexes in the store, the oldest first."""
    found = [decode_index(d) for p, d in night.store.items() if p.startswith(f"targets/nightly/{region}/")]
    return sorted(found, key=lambda index: index.seq)


def named(index: Index) -> set[str]:
    """Everything big that an index names."""
    return {
        *map(chunk_path, index.base.hashes),
        *(delta_path(index.region, delta.sha256) for delta in index.deltas),
        status_list_path(index.region, index.tsl.sha256),
    }


@pytest.fixture
def night() -> Night:
    return first_night(made_by=Unguarded, nights=2)


def test_what_the_current_and_the_previous_index_name_is_never_removed(night: Night) -> None:
    nights(night, 1, 2, 3, 4, 5, days=40)
    last, previous = indexes(night)[-1], indexes(night)[-2]
    none = Retention(indexes=timedelta(0), bases=0, metadata=timedelta(0))
    removed = night.publisher.prune(none)
    assert removed
    assert named(last) | named(previous) <= set(night.store)
    assert [index.seq for index in indexes(night)] == [5, 6]


def test_deltas_stay_for_90_days_and_bases_by_number(night: Night) -> None:
    nights(night, *range(1, 12), days=12)  # every third night is a base
    before = indexes(night)
    assert [len(index.deltas) for index in before] == [0, 1, 2] * 4
    night.publisher.prune()
    kept, now = indexes(night), night.clock()
    young = [index for index in before if now - index.issued_at <= timedelta(days=90)]
    assert kept == young
    for index in young:
        assert {delta_path("national", delta.sha256) for delta in index.deltas} <= set(night.store)
    bases = list(dict.fromkeys(index.base.hashes for index in before))
    held = [all(chunk_path(digest) in night.store for digest in base) for base in bases]
    assert held == [False, False, True, True]
    assert night.publisher.prune() == []


def test_every_root_and_the_hot_list_and_foreign_files_stay(night: Night) -> None:
    night.store["robots.txt"] = night.store["metadata/notes.txt"] = b"not ours"
    nights(night, *range(1, 8), days=40)
    night.publisher.prune()
    assert {"metadata/1.root.json", "metadata/timestamp.json", "hot/national/head.cose", "robots.txt"} <= set(
        night.store
    )
    assert "metadata/notes.txt" in night.store
    assert "metadata/1.snapshot.json" not in night.store
    assert "metadata/1.nightly-national.json" not in night.store


def test_a_dry_run_tells_the_same_and_removes_nothing(night: Night) -> None:
    nights(night, *range(1, 8), days=40)
    before = dict(night.store)
    told = night.publisher.prune(dry_run=True)
    assert told == sorted(told)
    assert night.store == before
    assert night.publisher.prune() == told
    assert set(before) - set(night.store) == set(told)


def test_a_publisher_goes_on_after_a_prune_with_versions_that_no_device_has_seen(night: Night, tmp_path: Path) -> None:
    """Numbers must not begin again where old files are gone."""
    nights(night, *range(1, 6), days=40)
    device = night.device(tmp_path)
    device.client().refresh()
    for seed in range(6, 10):
        night.publisher.prune(Retention(indexes=timedelta(0), bases=0, metadata=timedelta(0)))
        nights(night, seed)
        recovers(device, seed)
    night.publisher.publish_trust(
        entries=trust_list(20), trust_version=30, policy=(tmp_path / "current/policy.json").read_bytes(),
        policy_version=10,
    )  # fmt: skip
    assert device.client().refresh().seq_after == 10


def test_regions_are_looked_at_together(night: Night) -> None:
    """One that has not published for a year keeps what its devices need, chunks that others dropped included."""
    yue = Night(
        store=night.store, clock=night.clock, publisher_keys=night.publisher._keys, region="yue", made_by=Unguarded
    )
    publish_seed(yue, 0)
    nights(night, *range(1, 12), days=30)
    yue.publisher.prune()
    (index,) = indexes(yue, "yue")
    assert named(index) <= set(night.store)
    assert len(indexes(night)) < 12


def test_a_device_in_the_middle_of_a_download_finishes_it_while_the_folder_is_pruned(
    night: Night, tmp_path: Path
) -> None:
    """It began under the index before, whose base nobody else needs any more."""
    nights(night, 1, 2, days=40)
    device = night.device(tmp_path)
    pruned: list[str] = []

    def meanwhile(step: str) -> None:
        if step == "verified" and not pruned:
            publish_seed(night, 3, snapshot=True)
            pruned.extend(night.publisher.prune(Retention(indexes=timedelta(0), bases=0, metadata=timedelta(0))))

    with serve(night.store) as server, HttpFetcher(server.url) as fetcher:
        report = device.client(fetcher=fetcher, on_step=meanwhile).refresh()
        assert pruned
        assert (report.outcome, report.seq_after, seed_in_use(device)) == (SyncOutcome.SNAPSHOT, 3, 2)
        assert device.client(fetcher=fetcher).refresh().seq_after == 4
    recovers(device, 3)


def test_a_device_that_was_off_for_two_months_comes_back_to_a_pruned_folder(tmp_path: Path) -> None:
    night = first_night(made_by=Unguarded)
    device = night.device(tmp_path)
    device.client().refresh()
    for seed in range(1, 7):
        nights(night, seed, days=10)
        night.publisher.prune()
    device.fetcher.requests.clear()
    assert device.client().refresh().outcome is SyncOutcome.DELTAS
    assert not [path for path in device.fetcher.requests if path.startswith("chunk/")]
    recovers(device, 6)


SPOILED: dict[str, Callable[[str], bool]] = {
    "timestamp": lambda path: path == "metadata/timestamp.json",
    "snapshot": lambda path: path.endswith(".snapshot.json"),
    "index": lambda path: path.startswith("targets/nightly/"),
}


@pytest.mark.parametrize("what", SPOILED)
@pytest.mark.parametrize("left", [b"", b"rotten", None])
def test_nothing_is_removed_when_what_is_published_cannot_be_read(night: Night, what: str, left: bytes | None) -> None:
    nights(night, *range(1, 6), days=40)
    for path in [path for path in night.store if SPOILED[what](path)]:
        if left is None:
            del night.store[path]
        else:
            night.store[path] = left
    before = dict(night.store)
    if what == "timestamp" and left is None:
        assert night.publisher.prune() == []
    else:
        with pytest.raises(PublicationError, match="nothing removed"):
            night.publisher.prune()
    assert night.store == before


def test_an_empty_store_has_nothing_to_lose(night: Night) -> None:
    assert unreferenced({}, night.clock()) == []


def test_nobody_prunes_a_folder_into_which_a_night_is_being_put(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "public")
    night = Night(store=store, vehicles=fleet(40))
    night.publish()
    with store.exclusive():
        with pytest.raises(PublicationError, match="another process"):
            night.publisher.prune()
        with pytest.raises(PublicationError, match="another process"):
            night.publish()
    assert night.publisher.prune() == []
    assert night.publish().seq == 2


class Guarded(FolderStore):
    """Once `armed`, takes nothing from who does not hold the lock."""

    armed = False
    holders = 0

    @contextmanager
    def exclusive(self, *, wait: bool = False) -> Iterator[None]:
        with super().exclusive(wait=wait):
            self.holders += 1
            yield
            self.holders -= 1

    def __setitem__(self, key: str, data: bytes) -> None:
        assert self.holders or not self.armed, key
        super().__setitem__(key, data)


def test_whatever_is_published_into_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    """Two that count up at once would sign two hot lists, or two time stamps, under one number."""
    store = Guarded(tmp_path / "public")
    night = Night(store=store, vehicles=fleet(40))
    store.armed = True
    written = [dict(store)]
    for publish in (
        night.publish,
        lambda: night.publisher.publish_hot(HotRows({7: None})),
        night.publisher.renew_hot,
        night.publisher.renew,
    ):
        night.clock.move(hours=1)
        publish()
        written.append(dict(store))
    assert all(before != after for before, after in pairwise(written))
    assert store.holders == 0


def test_what_is_missing_of_a_publication_is_named(night: Night) -> None:
    nights(night, 1)
    assert night.publisher.missing() == []
    (index,) = indexes(night)[-1:]
    lost = [chunk_path(index.base.hashes[2]), delta_path("national", index.deltas[0].sha256)]
    for path in lost:
        del night.store[path]
    tsl = status_list_path("national", index.tsl.sha256)
    night.store[tsl] = b"rotten"
    assert night.publisher.missing() == sorted([*lost, tsl])
    nights(night, 2)
    assert night.publisher.missing() == []
    assert Publisher({}, night.clock).missing() == []


def test_the_command_tells_and_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sandbox"
    for _ in range(4):
        how = ["--snapshot"] if folder.exists() else ["--scale", "300"]
        assert main(["sandbox", "publish", "--folder", str(folder), *how]) == 0
    public = FolderStore(folder / "public")
    before = set(public)
    capsys.readouterr()
    assert main(["sandbox", "prune", "--folder", str(folder), "--dry-run"]) == 0
    assert (capsys.readouterr().out, set(public)) == ("", before)  # the publication before had pruned already
    chunk = public._path / "chunk" / "00" / ("00" * 32)
    chunk.parent.mkdir(exist_ok=True)
    chunk.write_bytes(b"of a run that broke off")
    assert main(["sandbox", "prune", "--folder", str(folder), "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"chunk/00/{'00' * 32}"]
    assert "1 files that no publication within the retention names would be removed" in told.err
    assert chunk.exists()
    assert main(["sandbox", "prune", "--folder", str(folder)]) == 0
    assert set(public) == before


def test_a_published_night_removes_the_base_before_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo folder of a machine that publishes every night does not grow for ever."""
    folder = tmp_path / "sandbox"
    publish = ["sandbox", "publish", "--folder", str(folder)]
    assert main([*publish, "--scale", "300"]) == 0
    bases = []
    for _ in range(4):
        assert main([*publish, "--snapshot"]) == 0
        bases.append(sum(path.startswith("chunk/") for path in FolderStore(folder / "public")))
    assert bases == [2, 2, 2, 2]


def test_who_serves_a_folder_publishes_again_when_files_of_the_last_night_are_gone(tmp_path: Path) -> None:
    home, now = AuthorityFolder(tmp_path / "sandbox"), [0.0]
    assert main(["sandbox", "publish", "--folder", str(home.folder), "--scale", "300"]) == 0
    assert main(["sandbox", "publish", "--folder", str(home.folder)]) == 0
    live = LiveAuthority(home, clock=system_clock)
    republisher, store = Republisher(live, ticks=lambda: now[0]), FolderStore(home.public)
    (delta,) = [path for path in store if path.startswith("delta/")]
    del store[delta]
    now[0] += HOT_RENEWAL.total_seconds()
    assert republisher.step() == ["files of the last night were gone: published no. 3 in its place"]
    assert live.authority.publisher.missing() == []
    now[0] += HOT_RENEWAL.total_seconds()
    assert republisher.step() == []
