from __future__ import annotations

import json
from datetime import timedelta

import pytest

from verifier.errors import PolicyError
from verifier.policy import Policy, dump_policy, load_policy
from verifier.types import WorkMode

GOOD = json.loads(dump_policy(Policy()))


FIRST_VERSION = b"""{
 "name": "default", "version": 1, "fresh_h": 26, "stale_h": 168, "watch_stale_h": 168, "propagation_h": 24,
 "live_code_max_age_s": 300, "clock_skew_s": 300
}"""


def test_a_policy_of_the_first_version_loads_for_ever_and_each_of_its_ages_is_needed():
    assert load_policy(FIRST_VERSION) == Policy()
    first = json.loads(FIRST_VERSION)
    for age in first.keys() - {"name", "version"}:
        with pytest.raises(PolicyError, match=f"policy.{age}: missing"):
            load_policy(json.dumps({name: value for name, value in first.items() if name != age}).encode())


def test_a_policy_survives_the_file():
    policy = Policy(name="night", version=7, fresh=timedelta(hours=20))
    assert load_policy(dump_policy(policy)) == policy
    assert policy.label == "night/7"


def test_a_policy_file_from_before_the_trust_lists_age_still_loads():
    older = {key: value for key, value in GOOD.items() if key != "trust_stale_h"}
    assert load_policy(json.dumps(older).encode()) == Policy()
    week = load_policy(json.dumps({**GOOD, "trust_stale_h": 168}).encode())
    assert week.trust_stale == timedelta(days=7)
    assert load_policy(dump_policy(week)) == week


def test_mode_and_modes_survive_the_file_and_a_policy_without_them_is_that_of_a_device_for_everything():
    lane = Policy(mode=WorkMode.CHECKPOINT, modes=(WorkMode.ROADSIDE, WorkMode.LOOKUP, WorkMode.CHECKPOINT))
    assert load_policy(dump_policy(lane)) == lane
    assert {"mode", "modes"} & set(GOOD) == set()  # programs from before there were modes take it, too
    shuffled = {**GOOD, "mode": "checkpoint", "modes": ["checkpoint", "lookup", "roadside"]}
    assert load_policy(json.dumps(shuffled).encode()) == lane
    assert load_policy(json.dumps(GOOD).encode()).modes == tuple(WorkMode)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode": "patrol"}, "policy.mode: none of roadside, lookup, tags, checkpoint, accident"),
        ({"mode": None}, "policy.mode"),
        ({"mode": ["checkpoint"]}, "policy.mode"),
        ({"modes": "checkpoint"}, "policy.modes: not a list"),
        ({"modes": ["roadside", "lookup", "patrol"]}, "policy.modes: not a list"),
        ({"modes": ["roadside", "lookup", []]}, "policy.modes: not a list"),
        ({"modes": []}, "policy.modes: lookup has to be among them"),
        ({"modes": ["lookup"]}, "policy.modes: roadside has to be among them"),
        ({"mode": "tags", "modes": ["roadside", "lookup"]}, "policy.modes: tags has to be among them"),
        ({"fresh_h": -1}, "policy.fresh_h"),
        ({"fresh_h": "26"}, "policy.fresh_h"),
        ({"fresh_h": True}, "policy.fresh_h"),
        ({"fresh_h": 500}, "policy.fresh_h"),
        ({"stale_h": 10**9}, "policy.stale_h"),
        ({"clock_skew_s": None}, "policy.clock_skew_s"),
        ({"trust_stale_h": -1}, "policy.trust_stale_h"),
        ({"trust_stale_h": None}, "policy.trust_stale_h"),
        ({"version": 0}, "policy.version"),
        ({"name": "a\x1b[31m"}, "policy.name"),
        ({"surprise": 1}, "surprise"),
        ({"lookups_per_hour": 0}, "policy.lookups_per_hour"),
        ({"roles": {}}, "policy.roles"),
        ({"roles": {**GOOD["roles"], "insurer": "full"}}, "policy.roles.insurer: never full"),
        ({"roles": {**GOOD["roles"], "gate": "most"}}, "policy.roles.gate"),
        ({"roles": {**GOOD["roles"], "gate": []}}, "policy.roles.gate"),
    ],
)
def test_the_error_names_the_setting(change, named):
    with pytest.raises(PolicyError, match=named):
        load_policy(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 60_000, b" " * 70_000])
def test_what_is_no_policy_is_refused(data):
    with pytest.raises(PolicyError):
        load_policy(data)
