"""Scenes of the emulated readers: what is in the air, and what a scene file may say."""

from __future__ import annotations

import ast
from contextlib import suppress
from dataclasses import FrozenInstanceError
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.rfid.emulator.air import Air
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.engine import bank_bytes, matches, read_bank
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.frames import a0_frame
from hw.rfid.emulator.scene import (
    AirProtocol,
    Authentication,
    Passage,
    Radio,
    ReaderSetup,
    Scene,
    SceneError,
    Tag,
    lane_scene,
)
from hw.rfid.emulator.scene_file import fault_from_text, load_scene, parse_scene
from tests.conftest import ROOT

TAG = Tag(epc=bytes(range(12)), tid=b"\xe2\x80" * 4, user=bytes(range(16)))
QUIET = Radio(noise_db=0.0, read_probability=1.0)
FULL = {"power_dbm": 33.0}


def scene(*passages: Passage, radio: Radio = QUIET) -> Scene:
    return Scene(passages=passages, radio=radio)


def identities(count: int):
    return ((n.to_bytes(8), n.to_bytes(12), b"") for n in range(count))


# --------------------------------------------------------------------------------------------------- the air


def test_a_car_is_heard_in_the_zone_and_loudest_under_the_antenna():
    air = Air(scene(Passage(tag=TAG, at_s=2.0, speed_mps=120 / 3.6)))
    heard = {round(t, 2): a[0].rssi_dbm for t in (n / 100 for n in range(400)) if (a := air.round(t, 1, **FULL))}
    assert min(heard) == pytest.approx(1.85, abs=0.011)
    assert max(heard) == pytest.approx(2.15, abs=0.011)
    assert max(heard, key=heard.get) == 2.0
    assert -66 < heard[2.0] < -63


def test_a_neighbouring_lane_is_fainter_and_the_one_beyond_it_silent():
    by_antenna = {}
    for antenna in (1, 2, 3):
        air = Air(scene(Passage(tag=TAG, lane=1)))
        by_antenna[antenna] = [answer.rssi_dbm for answer in air.round(0.0, antenna, **FULL)]
    assert by_antenna[2][0] < by_antenna[1][0] - 6
    assert by_antenna[3] == []


def test_less_power_is_a_weaker_answer():
    passage = Passage(tag=TAG)
    full = Air(scene(passage)).round(0.0, 1, power_dbm=33)[0].rssi_dbm
    assert Air(scene(passage)).round(0.0, 1, power_dbm=23)[0].rssi_dbm == pytest.approx(full - 10)


def test_the_chance_of_a_read_is_the_one_that_was_set():
    air = Air(scene(Passage(tag=TAG), radio=Radio(read_probability=0.3, noise_db=0)))
    assert mean(len(air.round(n * 0.01, 1, **FULL)) for n in range(5000)) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("session", "gone_after_s"), [(0, 0.0), (1, 1.0), (2, 4.0), (3, 4.0)])
def test_inventoried_flags_last_as_long_as_their_session(session, gone_after_s):
    air = Air(scene(Passage(tag=TAG)))
    assert len(air.round(0.0, 1, session=session, **FULL)) == 1
    if gone_after_s:
        assert air.round(gone_after_s - 0.1, 1, session=session, **FULL) == []
    later = 0.1 if session == 0 else 20.0
    assert len(air.round(later, 1, session=session, **FULL)) == 1


def test_target_b_reads_those_that_were_read_before():
    air = Air(scene(Passage(tag=TAG)))
    assert air.round(0.0, 1, session=2, target=1, **FULL) == []
    assert len(air.round(0.1, 1, session=2, target=0, **FULL)) == 1
    assert len(air.round(0.2, 1, session=2, target=1, **FULL)) == 1
    assert air.round(0.3, 1, session=2, target=1, **FULL) == []


def test_a_standing_tag_comes_and_goes_at_its_time():
    air = Air(scene(Passage(tag=TAG, at_s=1.0, for_s=2.0, rssi_dbm=-50)))
    assert [len(air.round(t, 1, **FULL)) for t in (0.5, 1.0, 2.9, 3.1)] == [0, 1, 1, 0]


# --------------------------------------------------------------------------------------------------- memory


def test_banks_are_those_of_gen2():
    tag = Tag(epc=bytes.fromhex("e20010710000529b0940b402"), tid=b"", user=bytes(2), access_password=0x01020304)
    assert bank_bytes(tag, 0).hex() == "0000000001020304"
    assert bank_bytes(tag, 1).hex() == "163d3400e20010710000529b0940b402"  # CRC of a public capture
    assert read_bank(tag, 1, 2, 0, 0).data == tag.epc


@given(st.integers(0, 3), st.integers(0, 300), st.integers(0, 255), st.binary(max_size=32))
def test_a_mask_matches_exactly_the_bits_it_names(bank, bit, length, mask):
    bits = "".join(f"{byte:08b}" for byte in bank_bytes(TAG, bank))
    wanted = "".join(f"{byte:08b}" for byte in mask)[:length]
    inside = bit + length <= len(bits) and length <= 8 * len(mask)
    assert matches(TAG, bank, bit, length, mask) is (inside and bits[bit : bit + length] == wanted)


def test_a_scene_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        TAG.epc = b""
    with pytest.raises(SceneError, match="whole words"):
        Tag(epc=b"\x01", tid=b"")


# --------------------------------------------------------------------------------------------------- lanes


def test_lanes_carry_their_vehicles_at_their_speed_and_headway():
    made = lane_scene(identities(400), lanes=4, speed_kmh=120, headway_s=1.0, vehicles=400, seed=9)
    assert [p.lane for p in made.passages[:5]] == [1, 2, 3, 4, 1]
    lane = [p.at_s for p in made.passages if p.lane == 2]
    assert mean(b - a for a, b in pairwise(lane)) == pytest.approx(1.0, abs=0.01)
    assert min(b - a for a, b in pairwise(lane)) > 0.5
    assert mean(p.speed_mps for p in made.passages) == pytest.approx(120 / 3.6, rel=0.01)
    assert all(abs(p.offset_m) <= 0.5 for p in made.passages)
    assert (
        made == lane_scene(identities(400), vehicles=400, seed=9) != lane_scene(identities(400), vehicles=400, seed=8)
    )


def test_too_few_tags_are_told_and_too_many_left():
    with pytest.raises(SceneError, match="3 tags for 4 vehicles"):
        lane_scene(identities(3), vehicles=4)
    source = identities(10)
    assert len(lane_scene(source, vehicles=4).passages) == 4
    assert next(source)[0] == (4).to_bytes(8)


def seen_in_traffic(tags_per_s: float, read_probability: float) -> int:
    """How many of 400 vehicles on four lanes at 120 km/h a lane reader names at all."""
    made = lane_scene(
        identities(400), vehicles=400, radio=Radio(tags_per_s=tags_per_s, read_probability=read_probability)
    )
    reader, out, now = EmulatedReader("a0", made), b"", 0.0
    poll = a0_frame(1, 0x8A, bytes.fromhex("000101010201030100ff"))
    while now < made.ends_s + 1:
        now += 0.05
        out += reader.turn(now, poll if reader.idle else b"")
    return sum(epc in out for _, epc, _ in identities(400))


def test_a_lane_reader_sees_every_vehicle_and_a_slow_one_misses_some():
    assert seen_in_traffic(167, 0.8) == 400
    assert 360 <= seen_in_traffic(50, 0.3) < 398


# ------------------------------------------------------------------------------------------------ scene files


def test_the_examples_are_scenes_with_what_their_words_say():
    roadside = load_scene(ROOT / "docs" / "examples" / "scene-roadside.toml")
    assert [p.tag.authentication for p in roadside.passages[2:]] == [Authentication.REQUIRED, Authentication.FAILS]
    assert {p.tag.protocol for p in roadside.passages} == {AirProtocol.GEN2, AirProtocol.GB29768}
    assert [f.kind for f in roadside.faults] == [FaultKind.JUNK, FaultKind.BIT_FLIP, FaultKind.UNPLUG]
    assert roadside.passages[0].tag.access_password == 0x8A6B4C2D
    lanes = load_scene(ROOT / "docs" / "examples" / "scene-lanes.toml")
    assert len(lanes.passages) == 12
    assert {p.lane for p in lanes.passages} == {1, 2, 3, 4}
    assert lanes.passages[0].tag.epc.endswith(b"\x70\x01")


def test_an_empty_file_is_an_empty_scene():
    assert parse_scene("") == Scene()


ONE_TAG = '[[tag]]\nepc = "e200"\ntid = "e280"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("speed = 3", "'speed': unknown setting"),
        ("seed = 1.5", "seed: not a whole number"),
        ("reader = 3", "reader: not a table"),
        ("tag = 3", "tag: not at most"),
        ("[radio]\nnoise_db = nan", "radio: noise_db: not a number from 0 to 20"),
        ("[reader]\nantennas = true", "reader: antennas: not a whole number from 1 to 8"),
        ("[reader]\nmissing_antennas = [9]", "missing_antennas: not a whole number"),
        ("[reader]\nmissing_antennas = 1", "missing_antennas: not a list"),
        ("[reader]\nold_round_end = 1", "old_round_end: not true or false"),
        ("[[tag]]\nepc = 'e200'", "tag 1: epc and tid are needed"),
        ("[[tag]]\nepc = 'e2'\ntid = ''", "tag 1: epc: not whole words"),
        ("[[tag]]\nepc = 'xx'", "tag 1: epc: not hex"),
        ("[[tag]]\nname = ''", "tag 1: name: not a name"),
        ("[[tag]]\nprotocol = 'gen3'", "tag 1: protocol: not one of gen2, gb29768"),
        ("[[tag]]\naccess_password = '00'", "access_password: not 4 bytes"),
        (f"{ONE_TAG}name = 'a'\n{ONE_TAG}name = 'a'", "tag 2: name: stands twice"),
        (f"{ONE_TAG}[[pass]]\ntag = '2'", "pass 1: tag: no such tag"),
        ("[[fault]]\nrate = 0.1", "fault 1: kind: missing"),
        ("[[fault]]\nkind = 'junk'\nrate = 2", "fault 1: rate: not a number from 0 to 1"),
        (f"{ONE_TAG}[traffic]\nlanes = 0", "traffic: lanes: not a whole number"),
        ("seed = ", "not TOML"),
    ],
)
def test_a_mistake_in_a_scene_is_told_with_its_place(text, problem):
    with pytest.raises(SceneError) as caught:
        parse_scene(text)
    assert problem in caught.value.problem
    assert str(caught.value).startswith("scene: ")


def test_a_scene_that_is_no_text_or_too_long_is_refused(tmp_path):
    path = tmp_path / "scene.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SceneError, match="UTF-8"):
        load_scene(path)
    with path.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(SceneError, match="more than"):
        load_scene(path)


@given(st.text(max_size=200))
def test_any_text_is_a_scene_or_a_told_mistake_and_nothing_else(text):
    with suppress(SceneError):
        parse_scene(text)


def test_settings_of_a_pass_reach_the_scene():
    text = ONE_TAG + '[[pass]]\ntag = "1"\nlane = 2\nat_s = 3\nspeed_kmh = 36\noffset_m = -0.5\nrssi_dbm = -60\n'
    (passage,) = parse_scene(text).passages
    assert passage == Passage(tag=passage.tag, lane=2, at_s=3, speed_mps=10, offset_m=-0.5, rssi_dbm=-60)


def test_a_fault_can_be_written_short():
    assert fault_from_text("unplug@10,seconds=3") == Fault(kind=FaultKind.UNPLUG, at_s=10, seconds=3)
    assert fault_from_text("bit_flip,rate=0.01,for_s=5") == Fault(kind=FaultKind.BIT_FLIP, rate=0.01, for_s=5)
    assert fault_from_text("antenna_missing@1.5,antenna=2").antenna == 2


def test_the_emulator_shares_no_code_with_the_drivers():
    for path in sorted((ROOT / "hw" / "rfid" / "emulator").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
            for name in names:
                assert not name.startswith("hw.rfid") or name.startswith("hw.rfid.emulator"), f"{path.name}: {name}"


def test_the_drivers_share_no_code_with_the_emulator():
    for path in sorted((ROOT / "hw" / "rfid").glob("*.py")):
        assert "hw.rfid.emulator" not in path.read_text(encoding="utf-8"), path.name


def test_a_reader_of_eight_ports_is_made_for_more_than_four_lanes():
    assert lane_scene(identities(8), lanes=6, vehicles=8).reader == ReaderSetup(antennas=8)
