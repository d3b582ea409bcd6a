"""Power cuts: a night's sync with its system calls recorded, and disks made from them as a cut may leave one.

`python -m scripts.bench.cache_cuts CACHE URL ROOT` is that sync, in a process that can be recorded.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.bench.cache_distribution import BASE_SEQ, REGION, Distribution, Publication, base_meta, status_list
from scripts.bench.cache_lookups import WrongAnswerError
from scripts.bench.cache_nights import facts, make_nights
from scripts.bench.cache_sync import Device, check_answers
from scripts.bench.crashed_disk import Disk, ReplayError, contents, in_hex, strace
from scripts.bench.figures import Figure
from scripts.sandbox.national import National
from scripts.sandbox.national_churn import Churn
from scripts.sandbox.national_rows import pack_blocks, sort_fleet
from verifier.cache.blocks import encode_groups
from verifier.cache.build import write_base_blocks
from verifier.cache.store import StatusStore
from verifier.clock import system_clock
from verifier.errors import CacheError, SyncError
from verifier.types import Plate

VEHICLES, NIGHTLY = 1500, 200  # what a cut may do does not depend on the size of the files
CUTS = 60
_RECOVERED = 10  # of so many crashed disks one goes through the next sync, too
_LONGEST = 120.0  # seconds that the recorded sync may take
_WRONG = "wrong"
_NAME = "power cuts: wrong answers"


def cuts_figure(national: National, folder: Path, progress: Callable[[int, int], None]) -> Figure:
    """Crashed disks from one night's sync of this small fleet, all of whose vehicles are looked up on each of them."""
    if shutil.which("strace") is None:
        return _not_measured("strace is not there to record the system calls")
    folder.mkdir()
    with _published(national, folder) as nights:
        left = _after_cuts(nights, folder, progress)
    if left is None:
        return _not_measured("strace records nothing here")
    return Figure(
        name=_NAME, unit="", value=float(left[_WRONG]), at_most=0,
        measured=f"{left[_WRONG]} of {left.total()} cuts ({left['old']} left the old night, {left['new']} the new)",
        note=f"disks made from the recorded system calls of one sync of {national.scale:,} vehicles: what was not "
        "forced to the disk is lost, kept or torn by sectors at random; of each, every vehicle is looked up, and each "
        "tenth goes through the next sync",
    )  # fmt: skip


def _not_measured(why: str) -> Figure:
    return Figure(name=_NAME, measured="-", at_most=0, unit="", note=why)


@dataclass(frozen=True, slots=True)
class _Nights:
    """A device with the old night in use, and what must be answered of each vehicle in either night."""

    device: Device
    epoch_key: bytes
    plates: list[Plate]
    answers: dict[int, list[int | None]]  # by the number of the night

    def found(self, root: Path) -> str:
        """Which of the two is whole in a cache folder."""
        try:
            with closing(StatusStore(root, self.epoch_key)) as store:
                seq = store.info().seq
                check_answers(store, self.plates, self.answers[seq])
        except (CacheError, KeyError, WrongAnswerError):
            return _WRONG
        return "new" if seq == max(self.answers) else "old"

    def recovered(self, root: Path) -> bool:
        """Whether the next sync on a crashed disk ends in the new night."""
        try:
            Device(root, self.device.url, system_clock, self.device.bootstrap, REGION).refresh()
        except SyncError:
            return False
        return self.found(root) == "new"


@contextmanager
def _published(national: National, folder: Path) -> Iterator[_Nights]:
    rows = sort_fleet(national, lambda *_: None)
    meta, path = base_meta(national, rows.vehicles), folder / "base.db"
    write_base_blocks(path, pack_blocks(rows.rows()), meta, exact=encode_groups(rows.exact))
    churn = Churn(national, nightly=NIGHTLY, spared=rows.twins)
    night, *_ = make_nights(churn, 1, REGION, BASE_SEQ, lambda *_: None)
    # Those of the first day, and those that came with the night.
    numbers = np.setdiff1d(np.union1d(national.numbers(np.arange(national.scale)), churn.changed()), rows.twins)
    old = facts(Churn(national, spared=rows.twins), numbers)
    distribution = Distribution(folder / "public", system_clock)
    base, tsl = distribution.put_base(path, BASE_SEQ, meta.n), distribution.put_status_list(status_list(meta.n, 1))
    (folder / "root.json").write_bytes(distribution.root)
    with distribution.served() as url:
        device = Device(folder / "cache", url, system_clock, distribution.root, REGION)
        distribution.publish(Publication(base, tsl, ()))
        device.refresh()
        distribution.publish(Publication(base, tsl, [night]))
        answers = {BASE_SEQ: old, night.entry.seq_to: facts(churn, numbers)}
        yield _Nights(device, national.epoch_key, national.plates(numbers), answers)


def _after_cuts(nights: _Nights, folder: Path, progress: Callable[[int, int], None]) -> Counter[str] | None:
    """How often which night was left; None when no calls could be recorded."""
    root, crashed, left, draw = nights.device.root, folder / "crashed", Counter[str](), random.Random(1)  # noqa: S311
    disks = [Disk(root, strict=strict) for strict in (True, False)]
    calls = _recorded(nights.device, folder)
    if not calls or nights.found(root) != "new":
        return None
    moments = Counter(draw.choices(range(len(calls) + 1), k=CUTS))
    for number, call in enumerate([*calls, ""]):
        for _ in range(moments[number]):
            draw.choice(disks).crashed(draw, crashed)
            found, tried = nights.found(crashed), left.total()
            if found != _WRONG and tried % _RECOVERED == 0 and not nights.recovered(crashed):
                found = _WRONG
            left[found] += 1
            shutil.rmtree(crashed)
            progress(tried + 1, CUTS)
        for disk in disks:
            disk.replay(call)
    disks[0].whole(crashed)
    if contents(crashed) != contents(root):
        raise ReplayError("the record is not all that happened")
    return left


def _recorded(device: Device, folder: Path) -> Sequence[str]:
    """The system calls of one whole sync on the files of the cache; none where they cannot be recorded."""
    log = folder / "calls"
    own = [sys.executable, "-m", __name__, str(device.root), device.url, str(folder / "root.json")]
    done = subprocess.run([*strace(log), *own], capture_output=True, timeout=_LONGEST, check=False)  # noqa: S603
    if done.returncode or not log.exists():
        return ()
    return [line for line in log.read_text(encoding="ascii").splitlines() if in_hex(device.root) in line]


def main(root: str, url: str, bootstrap: str) -> None:
    """One sync."""
    Device(Path(root), url, system_clock, Path(bootstrap).read_bytes(), REGION).refresh()


if __name__ == "__main__":
    main(*sys.argv[1:])
