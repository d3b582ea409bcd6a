"""state.db: its versions, the way from an older one to this one, and what is said of a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from scripts.cli.main import main
from tests.nightly import BEGAN, Device, Night, fleet
from verifier.cache import state as state_module
from verifier.cache.diagnose import diagnose
from verifier.cache.marks import VERSION, ClockMarks, read_clock, read_history, update_clock
from verifier.cache.state import MIGRATIONS, Accepted, Marks, migrate
from verifier.sync import sync_history
from verifier.sync_report import StorageError

# As the programs before there were versions made it.
UNVERSIONED = "CREATE TABLE marks (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID"


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def content(path: Path) -> dict[str, object]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, value FROM marks").fetchall())


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A file from before there were versions, with everything that such a file holds."""
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(UNVERSIONED)
        rows = {
            "seq:national": 7, "index_sha256:national": bytes(32), "key_epoch:national": 2, "trust_version": 3,
            "policy_version": 4, "clock_floor": int(BEGAN.timestamp()), "last_good": int(BEGAN.timestamp()),
            "hot_seq:national": 9, "hot_sha256:national": bytes(32),
        }  # fmt: skip
        connection.executemany("INSERT INTO marks VALUES (?, ?)", rows.items())
    return path


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    night = Night(vehicles=fleet(40))
    night.publish()
    device = night.device(tmp_path / "cache")
    device.client().refresh()
    night.clock.move(hours=24)
    night.publish()
    return device


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={version}")


def test_there_is_one_step_for_each_version() -> None:
    assert len(MIGRATIONS) == VERSION


def test_an_older_file_opens_with_every_mark_in_it(older: Path) -> None:
    before = content(older)
    marks = Marks(older)
    assert not marks.lost
    assert (version_of(older), content(older)) == (VERSION, before)
    assert marks.accepted("national") == Accepted(
        seq=7, index_sha256=bytes(32), key_epoch=2, trust_version=3, policy_version=4, clock_floor=BEGAN
    )
    assert marks.hot("national") == (9, bytes(32))
    marks.accept("national", Accepted(seq=6, trust_version=5))
    raised = Marks(older).accepted("national")
    assert (raised.seq, raised.trust_version, raised.clock_floor) == (7, 5, BEGAN)  # no number goes down


def test_an_older_file_serves_a_check_before_any_sync_has_brought_it_up(older: Path) -> None:
    """The officer's path changes no table."""
    assert read_clock(older) == ClockMarks(floor=BEGAN)
    assert read_history(older).last_good == BEGAN
    update_clock(older, lambda marks: marks)
    assert version_of(older) == 0


def test_a_new_file_takes_what_an_older_one_took(tmp_path: Path, older: Path) -> None:
    fresh = Marks(tmp_path / "fresh.db")
    assert fresh.lost
    for marks in (fresh, Marks(older)):
        marks.accept("national", Accepted(seq=8, index_sha256=b"x" * 32, clock_floor=BEGAN))
        marks.accept("national", Accepted(seq=5, index_sha256=b"x" * 32))
        marks.failed("no connection", BEGAN)
        marks.failed("no connection", BEGAN)
    assert content(tmp_path / "fresh.db")["seq:national"] == content(older)["seq:national"] == 8
    assert read_history(tmp_path / "fresh.db").failures == read_history(older).failures == 2


def test_a_step_that_fails_leaves_the_file_as_it_was(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(db: Database) -> None:
        db.table("marks").drop()
        raise sqlite3.OperationalError("no room")

    before = older.read_bytes()
    monkeypatch.setattr(state_module, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(sqlite3.OperationalError), closing(sqlite3.connect(older)) as connection:
        migrate(connection)
    assert content(older)["seq:national"] == 7
    assert version_of(older) == 0
    assert len(before) == older.stat().st_size


def test_a_newer_file_is_refused_with_a_clear_error_and_left_as_it_is(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    path = device.root / "state.db"
    set_version(path, VERSION + 1)
    before = path.read_bytes()
    for attempt in (device.client().refresh, device.client().refresh_hot):
        with pytest.raises(StorageError, match="made by a newer program than this one: update this program"):
            attempt()
    assert sync_history(device.root).last_failure == "state.db: made by a newer program than this one"
    assert read_clock(path) is None
    with pytest.raises(sqlite3.Error, match="newer"):
        update_clock(path, lambda marks: marks)
    assert path.read_bytes() == before
    assert not path.with_suffix(".bad").exists()  # its marks are not thrown away
    set_version(path, VERSION)
    assert device.client().refresh().seq_after == 2


def test_the_diagnosis_tells_of_every_database_and_reads_no_block(device: Device) -> None:
    device.client().refresh()
    found = diagnose(device.root)
    assert set(found) == {"state.db", "base.db", "changes.db"}
    state = found["state.db"]
    assert (state["version"], state["sound"], set(state["tables"])) == (VERSION, True, {"marks"})
    assert state["tables"]["marks"] == len(content(device.root / "state.db"))
    base, changes = found["base.db"]["meta"], found["changes.db"]["meta"]
    assert (base["seq"], base["n"], base["region"]) == ("1", "40", "national")
    assert (changes["seq"], changes["base_seq"]) == ("2", "1")
    assert not {"key_check", "salt", "combos"} & set(base)  # nothing that speaks of the key
    assert found["base.db"]["bytes"] == (device.root / "current" / "base.db").stat().st_size


def test_the_diagnosis_of_damaged_files_is_an_answer_and_changes_nothing(device: Device) -> None:
    for name in ("state.db", "current/base.db"):
        (device.root / name).write_bytes(b"no database at all" * 99)
    found = diagnose(device.root)
    assert (found["state.db"]["sound"], found["base.db"]["sound"]) == (False, False)
    assert (device.root / "state.db").read_bytes() == b"no database at all" * 99
    assert diagnose(device.root / "nowhere") == {}


def test_cache_info_tells_the_diagnosis_as_json(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path))
    assert main(["cache", "info", "--json"]) == 0
    assert f'"version": {VERSION}' in capsys.readouterr().out
