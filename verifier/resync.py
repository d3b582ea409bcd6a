"""A full resync: everything is fetched anew beside the set in use, which stays in use until the new one is complete."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from verifier.cache import schema
from verifier.cache.marks import SyncHistory, read_history
from verifier.cache.state import Marks
from verifier.cache.swap import (
    adopt,
    current_name,
    exclusive,
    free_name,
    in_use,
    sweep_generations,
    sweep_parts,
    switch,
)
from verifier.errors import SyncError
from verifier.sync import SyncClient
from verifier.sync_report import StorageError, SyncReport

_ASIDE = "full.new"  # below the cache: a wipe finds it there

Step = Callable[[str], None]


def resync(root: Path, client: Callable[[Path], SyncClient], on_step: Step = lambda _name: None) -> SyncReport:
    """Fetch the whole set anew, and only then let it take the place of the one in use. SyncError; needs its room twice.

    `client` makes the syncer for a folder. What this device has accepted goes with it: nothing older is taken, however
    much is fetched anew.
    """
    try:
        with exclusive(root):
            return _resync(root, client, on_step)
    except OSError as exc:
        raise StorageError(f"card: {exc.strerror or type(exc).__name__}") from exc
    except sqlite3.Error as exc:
        raise StorageError("card: the state file cannot be used") from exc


def _resync(root: Path, client: Callable[[Path], SyncClient], step: Step) -> SyncReport:
    aside = root / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        _take_marks(root, aside)
        try:
            report = client(aside).refresh()
        finally:
            _tell(root, read_history(aside / schema.STATE))
        _adopt(root, aside, report.region, step)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sweep_generations(root)
    sweep_parts(root)
    return report


def _tell(root: Path, history: SyncHistory) -> None:
    """How it went, for `cache info`."""
    marks = Marks(root / schema.STATE)
    if history.last_failure is not None and history.last_failure_at is not None:
        marks.failed(history.last_failure, history.last_failure_at)
    elif history.last_good is not None:
        marks.succeeded(history.last_good)


def _take_marks(root: Path, aside: Path) -> None:
    Marks(root / schema.STATE)  # mended or made, where that is needed
    with closing(sqlite3.connect(root / schema.STATE)) as old, closing(sqlite3.connect(aside / schema.STATE)) as new:
        old.backup(new)
    if (root / schema.TRUST).exists():
        shutil.copytree(root / schema.TRUST, aside / schema.TRUST)


def _adopt(root: Path, aside: Path, region: str, step: Step) -> None:
    made, before = in_use(aside), in_use(root)
    if made is None:
        raise SyncError("full resync: the new set cannot be read")
    (root / schema.GENERATIONS).mkdir(exist_ok=True)
    name = free_name(region, made.index.seq, schema.content_of_name(made.name), current_name(root))
    adopt(root, aside / schema.GENERATIONS / made.name, name, step)
    Marks(root / schema.STATE).accept(region, Marks(aside / schema.STATE).accepted(region))  # before it is in use
    shutil.rmtree(root / schema.TRUST, ignore_errors=True)  # a cut here costs nothing: the marks stand
    (aside / schema.TRUST).rename(root / schema.TRUST)
    switch(root, name, step)
    if before is not None and before.index.region != region:
        (root / schema.HOT).unlink(missing_ok=True)
