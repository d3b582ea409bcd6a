"""What device, centre and reports share, as docs/features.md promises it: one set of codes, one policy."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import combinations
from pathlib import Path

from tests.conftest import ROOT
from tests.test_check import World, seen_plate
from verifier.audit import read_log, replay
from verifier.policy import Policy
from verifier.verdict import Action, Grade, Reason, VerdictCode

ENUMS = (VerdictCode, Reason, Action)


def literals(path: Path) -> set[str]:
    return set(re.findall(r"[\"']([A-Z_]+)[\"']", path.read_text(encoding="utf-8")))


def test_the_codes_of_verdicts_reasons_and_actions_are_written_in_one_file_alone():
    """The centre, the reports and the commands take them from there: none of them spells a code by itself."""
    codes = {str(code) for enum in ENUMS for code in enum}
    assert codes <= literals(ROOT / "verifier" / "verdict.py")
    for folder in ("scripts", "hw", "verifier/codec", "firmware/machine"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not codes & literals(path), path.name
    assert all(not set(map(str, one)) & set(map(str, other)) for one, other in combinations(ENUMS, 2))


def test_a_policy_that_the_centre_signs_anew_decides_the_next_check_and_stands_in_its_record(tmp_path):
    world = World(tmp_path)
    world.sync()
    car = seen_plate(world.ordinary().plate)
    world.now += timedelta(hours=2)
    before = world.check(plate_seen=car)
    assert (before.code, before.grade) == (VerdictCode.VALID, Grade.FRESH_CACHE)
    world.authority.policy = Policy(name="winter", version=2, fresh=timedelta(hours=1), lookups_per_hour=1)
    world.authority.publish_trust()
    world.sync()
    after = world.check(plate_seen=car)
    assert (after.code, after.grade) == (VerdictCode.VALID_STALE, Grade.STALE_CACHE)
    world.device.store.close()
    records = list(read_log(world.home.audit))
    assert [record["verdict"]["policy"] for record in records] == ["default/1", "winter/2"]
    assert [record["policy"]["fresh_h"] for record in records] == [26, 1]
    assert [record["flagged"] for record in records] == [False, True]
    assert all(replay(record)[1] for record in records)
