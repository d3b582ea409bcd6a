"""One sync in a process of its own: `python -m firmware.syncjob --home DIR --from URL [--region R] [--hot]`.

Started by a timer every night, and by the officer's word. What it loads (TUF, an HTTP library) never burdens
the program, and a fetch that hangs can be ended without it. The last line on stdout is JSON with the outcome.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from firmware.build import epoch_key, trusted_time
from firmware.config import REGION, Home
from verifier.clock import system_clock
from verifier.errors import FetchError, SyncBusyError, SyncError
from verifier.net import Fetcher, FolderFetcher, HttpFetcher
from verifier.sync import StorageError, SyncClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended: `kind` is done, unreachable, busy, card or refused; `as_of` of the data now in use."""

    kind: str
    as_of: str = ""
    problem: str = ""


def sync(home: Home, source: str, region: str, *, hot: bool = False) -> Outcome:
    """Bring the cache in this home up to date from an address or a folder; never raises for what a sync can meet."""
    time = trusted_time(home, system_clock)
    with ExitStack() as stack:
        try:
            fetcher: Fetcher = (
                stack.enter_context(HttpFetcher(source, on_date=time.heard))
                if "://" in source else FolderFetcher(Path(source))
            )  # fmt: skip
            client = SyncClient(
                home.cache, fetcher, system_clock, home.root.read_bytes(), region,
                epoch_key=epoch_key(home)[0], trusted_time=time,
            )  # fmt: skip
            report = client.refresh_hot() if hot else client.refresh()
        except SyncError as exc:
            return Outcome(kind=_kind(exc), problem=str(exc))
        except OSError as exc:
            return Outcome(kind="card", problem=exc.strerror or type(exc).__name__)
    return Outcome(kind="done", as_of=report.as_of.isoformat())


def _kind(error: SyncError) -> str:
    kinds = ((FetchError, "unreachable"), (SyncBusyError, "busy"), (StorageError, "card"))
    return next((name for kind, name in kinds if isinstance(error, kind)), "refused")


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the data are up to date, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m firmware.syncjob")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--region", default=REGION)
    parser.add_argument("--hot", action="store_true")
    options = parser.parse_args(argv)
    outcome = sync(Home(options.home), options.source, options.region, hot=options.hot)
    print(json.dumps({"kind": outcome.kind, "as_of": outcome.as_of, "problem": outcome.problem}))
    return 0 if outcome.kind == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
