"""Promises 8 and 9: the incidents that others had, and clocks that are wrong."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.conftest import ROOT
from tests.nightly import BEGAN, fleet
from tests.test_clock import GOOD, Handheld, Machine
from tests.torture.run import Run
from verifier.types import Month, StatusLetter, VehicleRecord
from verifier.verdict import Reason, Tone, VerdictCode

LONGEST_S = 900.0  # for some files of tests on a busy machine


def tested(words: Sequence[str]) -> int:
    """How many of these tests pass; AssertionError when one does not."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    assert run.returncode == 0, run.stdout[-6000:]
    found = re.search(r"(\d+) passed", run.stdout)
    return int(found[1]) if found else 0


def incidents(run: Run) -> None:
    """Promise 8."""
    for _ in run.rounds("incidents"):
        run.counts["incidents"] += tested(["tests/test_incidents.py"])
        assert run.counts["incidents"] >= 7


def wrong_clocks(run: Run) -> None:
    """Promise 9."""
    run.counts["named cases"] = tested(["tests/test_clock.py"])
    for seed in run.rounds("verdicts", 0.8):
        run.counts["verdicts"] += _a_life(run.new_folder(), random.Random(seed), run)


def _months_end() -> tuple[VehicleRecord, ...]:
    """Cars in order but for the date: in order for long, for a month yet, overdue by the date and by the letter."""
    now, plain = Month.at(BEGAN), ({StatusLetter.NORMAL}, set[StatusLetter]())
    dated = ((record, record.inspection_valid_until) for record, _ in fleet(40))
    cars = [(record, until) for record, until in dated if until is not None]
    soon = [car for car, until in cars if car.status in plain and now <= until < now.plus(5)]
    past = [car for car, until in cars if car.status in plain and until < now]
    told = [car for car, until in cars if car.status == {StatusLetter.OVERDUE} and until < now]
    return (GOOD, *soon[:3], *past[:2], *told[:1])


CARS = _months_end()
_YEARS = (1970, 2000, 2026, 2038, 2099)


def _a_life(folder: Path, draw: random.Random, run: Run) -> int:
    """A device whose clock is set, jumps and drifts; no lawful car is ever red, and no overdue one green, by that."""
    machine = Machine(rtc_offset=draw.choice((None, timedelta(0), timedelta(hours=8))))
    handheld, verdicts = Handheld(folder, machine), 0
    handheld.sync()
    with closing(handheld.store):
        for _ in range(draw.randrange(5, 30)):
            _something(handheld, draw)
            for car in CARS:
                _judged(handheld, car, run)
            verdicts += len(CARS)
    return verdicts


def _something(handheld: Handheld, draw: random.Random) -> None:
    """What befalls a device and its clock. While it is off, its clock is put right or kept by a battery."""
    machine = handheld.machine
    kind = draw.randrange(8)
    if kind <= 1:
        machine.run(timedelta(hours=draw.uniform(0, 40)), drift=draw.choice((0.0, 4e-6, -4e-6)))
    elif kind == 2:
        machine.set_clock(hours=draw.choice((-1, 1)) * draw.choice((0.02, 0.2, 5, 30, 400, 9000)))
    elif kind == 3:
        machine.clock.now = datetime(draw.choice(_YEARS), 1, 19, 3, 14, 8, tzinfo=UTC)
    elif kind == 4:
        machine.clock.now = machine.true
    elif kind == 5:
        machine.clock.now = machine.true
        machine.reboot(timedelta(hours=draw.uniform(0.1, 60)))
        handheld.start()
    elif kind == 6:
        handheld.time.heard(machine.true + timedelta(hours=draw.choice((0, 0, 0, -300, 300))))
        handheld.sync()
    else:
        handheld.publish()
        handheld.time.heard(machine.true)
        handheld.sync()


def _judged(handheld: Handheld, car: VehicleRecord, run: Run) -> None:
    result = handheld.check(car)
    tone = result.verdict.tone
    in_order = car.inspection_valid_until is not None and car.inspection_valid_until >= Month.at(handheld.machine.true)
    shown, true = handheld.machine.clock(), handheld.machine.true
    what = f"the clock shows {shown:%Y-%m-%d %H:%M} at {true:%Y-%m-%d %H:%M}: {result.verdict.code}"
    assert not (in_order and tone is Tone.STOP), f"a lawful driver is red; {what}"
    is_green = tone is Tone.PASS or result.verdict.code is VerdictCode.VALID
    assert in_order or not is_green, f"an overdue car is green; {what}"
    if Reason.CLOCK_SUSPECT in result.verdict.reasons:
        run.counts["doubted clocks"] += 1
