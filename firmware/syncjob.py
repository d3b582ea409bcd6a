"""One sync in a process of its own: `python -m firmware.syncjob --home DIR --from URL [--region R] [--hot | --full]`.

Started by the officer's word, and by the program for the hot list; the timer of the night starts `markcheck sync`,
whose clients are made here too. What it loads (TUF, an HTTP library) never burdens the program, and a fetch that hangs
can be ended without it. The last line on stdout is JSON with the outcome.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware.build import epoch_key, trusted_time
from firmware.config import REGION, Home
from firmware.keeper import centre_key
from firmware.settings import CentreSettings
from verifier.clock import system_clock
from verifier.errors import FetchError, SyncBusyError, SyncError
from verifier.net import Fetcher, FolderFetcher, HttpFetcher
from verifier.resync import resync
from verifier.sync import SyncClient
from verifier.sync_report import HotReport, KeyNeededError, StorageError, SyncReport
from verifier.trusted_time import TrustedTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended: `kind` is done, unreachable, busy, card, no key or refused; `as_of` of the data now in use.

    `settings`: the version of those that came with it and count from the next start; "" without any.
    """

    kind: str
    as_of: str = ""
    problem: str = ""
    settings: str = ""


def sync(home: Home, source: str, region: str, *, hot: bool = False, full: bool = False) -> Outcome:
    """Bring the cache in this home up to date from an address or a folder; never raises for what a sync can meet.

    `hot`: the hot list only; `full`: everything anew, beside what is held until it is complete.
    """
    time, settings = trusted_time(home, system_clock), CentreSettings(home.folder)
    before = settings.version
    try:
        with clients(home, source, region, time, settings) as client:
            if full:
                report: SyncReport | HotReport = resync(home.cache, client)
            else:
                report = client(home.cache).refresh_hot() if hot else client(home.cache).refresh()
    except SyncError as exc:
        return Outcome(kind=_kind(exc), problem=str(exc))
    except OSError as exc:
        return Outcome(kind="card", problem=exc.strerror or type(exc).__name__)
    came = settings.version
    return Outcome(kind="done", as_of=report.as_of.isoformat(), settings=str(came) if came != before else "")


@contextmanager
def clients(
    home: Home,
    source: str,
    region: str,
    time: TrustedTime,
    settings: CentreSettings,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Callable[[Path], SyncClient]]:
    """Makes this device's client for a cache folder: over the network, or from a folder with the distribution."""
    with ExitStack() as stack:
        fetcher: Fetcher = (
            stack.enter_context(HttpFetcher(source, on_date=time.heard))
            if "://" in source else FolderFetcher(Path(source))
        )  # fmt: skip
        root, key = home.root.read_bytes(), epoch_key(home)[0]
        yield lambda folder: SyncClient(
            folder, fetcher, system_clock, root, region, epoch_key=key, trusted_time=time, progress=progress,
            ask_key=lambda: centre_key(home, system_clock, time), settings=settings,
        )  # fmt: skip


def _kind(error: SyncError) -> str:
    kinds = ((FetchError, "unreachable"), (SyncBusyError, "busy"), (StorageError, "card"), (KeyNeededError, "no key"))
    return next((name for kind, name in kinds if isinstance(error, kind)), "refused")


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the data are up to date, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m firmware.syncjob")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--region", default=REGION)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--hot", action="store_true")
    kinds.add_argument("--full", action="store_true")
    options = parser.parse_args(argv)
    outcome = sync(Home(options.home), options.source, options.region, hot=options.hot, full=options.full)
    print(json.dumps(asdict(outcome)))
    return 0 if outcome.kind == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
