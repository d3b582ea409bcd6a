"""The sixteen promises of docs/reliability.md, and what tries to break each of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tests.torture.run import Promise, Run


def _in(module: str, name: str) -> Callable[[Run], None]:
    """A proof whose module is loaded when it begins: one that cannot be loaded takes no other along."""

    def prove(run: Run) -> None:
        getattr(import_module(f"tests.torture.{module}"), name)(run)

    return prove


PROMISES = (
    Promise(number=1, title="a power cut at any byte of a sync leaves the old or the new cache, never a mixture",
            prove=_in("cards", "power_cuts"), weight=8,
            figures={"replayed cuts": 100_000, "killed syncs": 1000, "cuts of ext4": 2000}),
    Promise(number=2, title="every failing disk call leaves old or new, and the next try succeeds",
            prove=_in("disk_faults", "disk_calls_fail"), figures={"failing calls": 2000}, weight=6),
    Promise(number=3, title="no acknowledged record is lost when the program is killed or the power is cut",
            prove=_in("cards", "audit_cuts"),
            figures={"records after power cuts": 1_000_000, "replayed cuts": 100_000,
                     "records of killed writers": 100_000}),
    Promise(number=4, title="tampering with an audit log that the centre has heard of is found",
            prove=_in("cards", "tampering"), figures={"changed logs": 5000, "cut or replaced logs": 1000}, weight=2),
    Promise(number=5, title="no input makes the program crash, hang or touch network, disk or processes",
            prove=_in("inputs", "hostile_inputs"), weight=10,
            figures={"payloads": 10_000_000, "frames": 2_000_000, "other inputs": 1_000_000, "pictures": 1_000_000,
                     "guided inputs": 10_000_000}),
    Promise(number=6, title="one flipped bit, or a piece cut off, is never valid",
            prove=_in("inputs", "one_bit"), figures={"credentials": 20, "bits": 60_000, "truncations": 10_000}),
    Promise(number=7, title="a hostile mirror or connection never changes the cache, nor costs more than 5 s or 8 MB",
            prove=_in("mirrors", "hostile_mirrors"), figures={"examples": 5000, "bad connections": 360}, weight=8),
    Promise(number=8, title="none of the seven incidents of others happens here", prove=_in("clocks", "incidents"),
            figures={"incidents": 7}, weight=2),
    Promise(number=9, title="a wrong clock never turns red into green or green into red",
            prove=_in("clocks", "wrong_clocks"), figures={"named cases": 50, "verdicts": 1_000_000}),
    Promise(number=10, title="the verdict shown is that of the scan on screen, goes within 20 s, and nobody is stuck",
            prove=_in("screens", "screens_and_console"), figures={"examples": 5000, "console examples": 300}, weight=6),
    Promise(number=11, title="a stuck scanner is replaced within 3 s, a stuck program within 15 s",
            prove=_in("parts", "hanging_parts"), figures={"hanging scanners": 40, "hanging programs": 20}, weight=6),
    Promise(number=12, title="noise gives no tag, and a reader that is plugged in again is served within 6 s",
            prove=_in("parts", "bad_lines"), figures={"noise bytes": 50_000_000, "replugs": 3000}, weight=2),
    Promise(number=13, title="a day of scanning adds less than 1 MB and no open file", prove=_in("parts", "long_day"),
            figures={"scans": 200_000}, weight=6),
    Promise(number=14, title="the raw image of a stolen card holds no plate", prove=_in("cards", "stolen_card"),
            figures={"plates": 1000, "bytes searched": 1}, weight=2),
    Promise(number=15, title="units are tight, and neither a grave finding nor a secret is in the sources",
            prove=_in("gates", "sources"),
            figures={"checks of units": 1, "files searched for secrets": 1, "lines read by bandit": 1}, weight=2),
    Promise(number=16, title="the tests of the verification's core notice changes to it",
            prove=_in("gates", "core_is_tested"), figures={"mutants": 5000, "branches taken": 1}, weight=8),
)  # fmt: skip
