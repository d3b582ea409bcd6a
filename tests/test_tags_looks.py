"""Vehicle type and body colour of a tag's certificate: shown to be compared with the car, and judged by nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.machine.checking import sheets
from firmware.machine.events import Alarm
from firmware.views import LIST_COLUMNS, columns, result_view, verdict_view
from scripts.cli.checkpoint import _Output
from scripts.sandbox.authority import new_authority
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.keys import make_private_key
from scripts.sandbox.tags import PersonalisedTag, TagForm, bind_tag, personalised, unbind_tag
from tests.reader_lines import SERIAL
from tests.screen_states import make_credential, make_verdict
from tests.test_tags import (
    ANOTHER,
    NEW_TID,
    NOW,
    OF_TODAY,
    ORDINARY,
    WRITTEN,
    World,
    on_the_car,
    tag_of,
    tags_of_a_car,
)
from tests.test_tags_thread import Bench, scene, standing
from verifier.check import CheckResult, Observation
from verifier.decide import decide
from verifier.evidence import evidence_to_json
from verifier.policy import Policy
from verifier.types import (
    Algorithm,
    CacheEvidence,
    CacheState,
    Evidence,
    Month,
    PlateSeen,
    StatusAnswer,
    TagRecord,
    VehicleRecord,
)
from verifier.vehicle_words import COLOURS, VEHICLE_TYPES, vehicle_words
from verifier.verdict import Action, Tone, VerdictCode
from verifier.wording import LANGUAGES


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.device.store.close()


def looks_of(result: CheckResult) -> tuple[str | None, str | None]:
    return tag_of(result).vehicle_type, tag_of(result).body_colour


def test_the_officer_reads_type_and_colour_of_a_tags_car_to_compare_with_it(world):
    vehicle = world.tagged[0]
    result = world.check(world.tag(vehicle))
    assert looks_of(result) == (vehicle.vehicle_type, vehicle.body_colour)
    for language in LANGUAGES:
        view = result_view(result, language)
        kind, colours = VEHICLE_TYPES[vehicle.vehicle_type], [COLOURS[letter] for letter in vehicle.body_colour]
        assert kind.in_(language) in view.vehicle[0]
        assert "/".join(colour.in_(language) for colour in colours) in view.vehicle[1]
        assert len(view.vehicle) == 2
        assert sheets(result) == 1 + len(view.lists)
        assert view.lists[-1] == (view.vehicle_title, view.vehicle)


def test_only_a_proven_certificate_that_tells_them_tells_type_and_colour(tmp_path):
    kept = []

    def move(world):
        before, after = world.tagged[0], world.bare[0]
        kept.append(world.tag(before))
        unbind_tag(world.authority.registry, before.plate)
        bind_tag(world.authority.registry, after.plate, before.tid)

    world = World(tmp_path, move)
    tag = world.tag(world.tagged[1])
    stranger = new_authority({}, clock=lambda: NOW, scale=16, seed=1)
    foreign = personalised(world.authority.registry, stranger.tag_keys, world.tagged[1].plate, WRITTEN)
    moved = world.check(kept[0], plate_seen=on_the_car(world.bare[0]))
    nothing = [
        world.check(world.tag(world.tagged[1], TagForm.TC0)),
        world.check(tag._replace(user=b"")),
        world.check(tag._replace(tid=bytes.fromhex(NEW_TID))),
        world.check(foreign),
        moved,  # what it says is of the car that it left
    ]
    assert tag_of(moved).record is TagRecord.BOUND
    for result in nothing:
        assert looks_of(result) == (None, None)
        assert result_view(result, "zh").vehicle == ()
    world.device.store.close()


def test_a_forged_copy_with_the_right_colour_is_never_released_and_its_colour_is_not_shown(world):
    vehicle = world.tagged[0]
    honest = world.authority.tag_keys[vehicle.city.code]
    forger = {vehicle.city.code: replace(honest, private=make_private_key(Algorithm.EDDSA))}
    forged = personalised(world.authority.registry, forger, vehicle.plate, WRITTEN)
    assert forged.user[38:42] == world.tag(vehicle).user[38:42] != bytes(4)
    for seen in (forged, world.tag(vehicle)._replace(tid=bytes.fromhex(NEW_TID))):
        for beside in ({}, {"code": world.code(vehicle)}):
            result = world.check(seen, **beside)
            assert result.verdict.tone is Tone.CAUTION
            assert Action.RELEASE not in result.verdict.actions
            assert looks_of(result) == (None, None)


def repainted(world: World, vehicle: Vehicle, **looks: str) -> PersonalisedTag:
    """The vehicle's tag, written when the register had other looks of it."""
    world.authority.registry.vehicles[vehicle.plate] = replace(vehicle, **looks)
    tag = world.tag(vehicle)
    world.authority.registry.vehicles[vehicle.plate] = vehicle
    return tag


def test_code_and_tag_of_one_car_that_differ_in_colour_are_judged_alike_and_both_are_shown(world):
    vehicle, seen = world.tagged[0], on_the_car(world.tagged[0])
    code = world.code(vehicle)
    alike = world.check(world.tag(vehicle), code=code, plate_seen=seen)
    colour = "G" if vehicle.body_colour != "G" else "D"
    other = world.check(repainted(world, vehicle, body_colour=colour), code=code, plate_seen=seen)
    assert other.verdict == alike.verdict
    assert not [line for line in result_view(alike, "zh").vehicle if line.startswith("标识")]
    lines = result_view(other, "zh").vehicle
    assert [line for line in lines if line not in result_view(alike, "zh").vehicle] == [f"标识 {COLOURS[colour].zh}"]
    assert lines[lines.index(f"标识 {COLOURS[colour].zh}") - 1].startswith("颜色 ")


@pytest.mark.parametrize("protocol", SERIAL)
def test_type_and_colour_of_a_car_are_read_from_its_tag_through_every_reader_and_told_to_the_officer(world, protocol):
    vehicle = world.tagged[0]
    bench = Bench(world, protocol, scene(standing(world.tag(vehicle)))).read(3.0)
    (seen,) = bench.lists[-1].tags
    result = world.device.verifier.check(Observation(tag=seen.evidence))
    assert (tag_of(result).tid, tag_of(result).plate) == (vehicle.tid, vehicle.plate)
    kind, colours = VEHICLE_TYPES[vehicle.vehicle_type], "/".join(COLOURS[one].zh for one in vehicle.body_colour)
    assert result_view(result, "zh").vehicle == (f"车型 {kind.zh}", f"颜色 {colours}")


@given(
    tag=tags_of_a_car, vehicle_type=st.none() | st.sampled_from(["K33", "B11"]),
    body_colour=st.none() | st.sampled_from(["A", "AJ"]), age=st.timedeltas(timedelta(0), timedelta(days=40)),
    seen=st.none() | st.sampled_from([ANOTHER, PlateSeen(plate=OF_TODAY.plate, confirmed=True)]),
)  # fmt: skip
def test_type_and_colour_of_a_tag_change_no_verdict(tag, vehicle_type, body_colour, age, seen):
    record = VehicleRecord(
        plate=OF_TODAY.plate, status=ORDINARY, inspection_valid_until=Month.at(NOW).plus(6), ecred_issued=True
    )
    looking = replace(tag, vehicle_type=vehicle_type, body_colour=body_colour)
    for answer in (StatusAnswer(vehicle=record), StatusAnswer(vehicle=None)):
        cache = CacheEvidence(state=CacheState.OK, as_of=NOW - age, covers=True, answer=answer)
        one, other = (Evidence(tag=of, plate_seen=seen, cache=cache) for of in (tag, looking))
        assert decide(one, Policy(), NOW) == decide(other, Policy(), NOW)
        assert evidence_to_json(one, NOW) == evidence_to_json(other, NOW)


CODE, TAG = make_credential("K33", "E", "A"), replace(OF_TODAY, vehicle_type="K33", body_colour="AJ")


@pytest.mark.parametrize(
    ("credential", "tag", "said"),
    [
        (None, TAG, ["车型 小型轿车", "颜色 白/黑"]),
        (CODE, TAG, ["车型 小型轿车", "颜色 红", "标识 白/黑", "用途 非营运"]),
        (CODE, replace(TAG, body_colour="E"), ["车型 小型轿车", "颜色 红", "用途 非营运"]),
        (
            CODE, replace(TAG, vehicle_type="H11", body_colour=None),
            ["车型 小型轿车", "标识 重型普通货车", "颜色 红", "用途 非营运"],
        ),
        (make_credential("K33", None, None), TAG, ["车型 小型轿车", "标识 白/黑"]),
        (CODE, OF_TODAY, ["车型 小型轿车", "颜色 红", "用途 非营运"]),
        (None, OF_TODAY, []),
    ],
)  # fmt: skip
def test_beside_a_code_only_what_its_tag_says_otherwise_is_told_and_as_the_tags(credential, tag, said):
    assert [f"{label.zh} {words.zh}" for label, words in vehicle_words(credential, None, tag)] == said


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_type_and_colour_that_a_tag_tells_fits_its_line(language):
    for vehicle_type in [*VEHICLE_TYPES, "W99"]:
        for body_colour in [*map("".join, product([*COLOURS, "W"], repeat=2)), "FCI"]:
            tag = replace(TAG, vehicle_type=vehicle_type, body_colour=body_colour)
            view = verdict_view(
                make_verdict(VerdictCode.VALID), now=NOW, language=language, credential=CODE, tag=tag
            )  # fmt: skip
            assert all(columns(line) <= LIST_COLUMNS and "…" not in line for line in view.vehicle)


def test_an_alarm_of_a_checkpoint_tells_type_and_colour_of_the_car_to_look_for(tmp_path, capsys):
    world = World(tmp_path, lambda world: world.authority.registry.set_status(world.tagged[0].plate, "C"))
    vehicle = world.tagged[0]
    alarm = Alarm(number=-1, result=world.check(world.tag(vehicle)), lane=2)
    _Output(as_json=True, lang="zh").alarm(alarm, NOW)
    assert json.loads(capsys.readouterr().out)["vehicle"] == {
        "type": vehicle.vehicle_type, "colour": vehicle.body_colour,
    }  # fmt: skip
    _Output(as_json=False, lang="zh").alarm(alarm, NOW)
    line = capsys.readouterr().out
    assert f"  {VEHICLE_TYPES[vehicle.vehicle_type].zh}  {COLOURS[vehicle.body_colour[0]].zh}" in line
    world.device.store.close()
