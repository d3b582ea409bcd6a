"""The mode that the centre's signed policy gives a device: where it opens, and what it offers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from firmware.build import open_store
from firmware.config import Home
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import Play, ReadTags, Signal, Watch
from firmware.machine.login import OPENS, admitted
from firmware.machine.states import MENU_MODES, MenuItem, Mode, State
from firmware.machine.steps import step
from firmware.pages import page_view
from firmware.probes import modes
from tests.centres import OnlineWorld
from tests.hand import NOON, Hand, result_of
from tests.officer import SETTINGS, Officer, home_of
from tests.test_login import in_menu, let_in, locked_hand, texts
from tests.test_login_appliance import EXAMPLES, GUARDED, NUMBER, PIN, checks, types
from tests.test_machine import _EVENTS
from verifier.errors import CacheMissingError, RollbackError
from verifier.officers import OfficerFile
from verifier.policy import ALWAYS_OFFERED, Policy, dump_policy, load_policy
from verifier.types import Evidence, StatusAnswer
from verifier.verdict import Role

BASE = tuple(sorted(ALWAYS_OFFERED))
LANE = Policy(name="lane", version=2, mode=Mode.CHECKPOINT, modes=(Mode.ROADSIDE, Mode.LOOKUP, Mode.CHECKPOINT))
PAGES = {
    Mode.ROADSIDE: st.Ready, Mode.LOOKUP: st.Typing, Mode.TAGS: st.Tags, Mode.CHECKPOINT: st.Checkpoint,
    Mode.ACCIDENT: st.Accident,
}  # fmt: skip
LANES = '[reader]\nscene = "lanes.toml"\nprotocol = "a0"\nantennas = 4\n'
NO_CAMERA = SETTINGS.replace('"window"', '"none"')


def said(opens: Mode, *offered: Mode) -> ev.ModesRead:
    return ev.ModesRead(opens=opens, offered=frozenset(offered or Mode))


# ------------------------------------------------------------------------------------------- the state machine


@pytest.mark.parametrize("mode", Mode)
def test_a_device_opens_in_the_mode_of_its_policy(mode: Mode) -> None:
    hand = Hand().happens(said(mode)).happens(ev.Started())
    assert isinstance(hand.page, PAGES[mode])
    assert hand.state.mode is mode
    assert set(OPENS) == set(Mode)


@pytest.mark.parametrize("mode", Mode)
def test_after_a_login_it_opens_in_that_mode_and_before_it_in_the_login(mode: Mode) -> None:
    hand = locked_hand(opens=mode)
    assert isinstance(hand.page, st.Login)
    assert not {Watch(on=True), ReadTags(on=True)} & set(hand.effects)
    let_in(hand)
    assert isinstance(hand.page, PAGES[mode])


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("mode", Mode)
def test_a_policys_mode_opens_no_page_to_a_role_that_may_not_see_it(role: Role, mode: Mode) -> None:
    hand = let_in(locked_hand(opens=mode), role)
    assert not hand.state.locked
    assert admitted(hand.state)
    if role is Role.TECHNICIAN:
        assert isinstance(hand.page, st.Menu)
    if role is Role.GATE and mode is Mode.CHECKPOINT:
        assert isinstance(hand.page, st.Ready)


def test_a_mode_that_is_not_offered_is_in_no_menu_and_under_no_key_and_on_no_page() -> None:
    hand = Hand().happens(said(Mode.ROADSIDE, *BASE)).happens(ev.Started())
    assert "标识" not in texts(hand.state)
    assert not set(MENU_MODES) & set(hand.state.menu)
    assert MenuItem.LOOKUP in hand.state.menu
    for key in ("left", "right"):
        hand.press(key)
        assert hand.did == (Play(Signal.REFUSED),)
        assert isinstance(hand.page, st.Ready)
    hand.press("up")
    assert isinstance(hand.page, st.Typing)
    assert "标识" in texts(Hand.ready().state)


def test_every_mode_is_offered_until_a_policy_says_otherwise() -> None:
    assert set(MENU_MODES) <= set(Hand.ready().state.menu)


def test_another_policy_takes_nobody_out_of_what_he_is_at_and_counts_from_the_next_login() -> None:
    hand = let_in(locked_hand())
    in_menu(hand, MenuItem.ACCIDENT)
    hand.happens(said(Mode.CHECKPOINT, *BASE, Mode.CHECKPOINT))
    assert isinstance(hand.page, st.Accident)
    hand.press("back")
    assert isinstance(hand.page, st.Ready)
    in_menu(hand, MenuItem.LOCK)
    let_in(hand)
    assert isinstance(hand.page, st.Checkpoint)
    hand.press("back", "right")
    assert isinstance(hand.page, st.Ready)  # no accident any more


_SAID = some.builds(
    lambda opens, more: said(opens, opens, *more, *BASE), some.sampled_from(Mode), some.sets(some.sampled_from(Mode))
)


@given(events=some.lists(some.one_of(_SAID, _EVENTS), max_size=80))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_and_whatever_policy_comes_no_mode_is_entered_that_is_not_offered(
    events: list[ev.Event],
) -> None:
    state = State()
    for event in events:
        before = state
        state, _ = step(state, event, 0)
        assert state.mode is before.mode or state.mode in state.offered
        page_view(state, NOON)


def test_a_policy_that_comes_while_the_menu_is_open_leaves_the_cursor_on_its_line() -> None:
    hand = Hand.ready().hold("ok")
    hand.press(*["down"] * hand.state.menu.index(MenuItem.BRIGHTNESS))
    hand.happens(said(Mode.ROADSIDE, *BASE)).press("ok")
    assert hand.state.brightness != State().brightness
    hand.press(*["up"] * hand.state.menu.index(MenuItem.BRIGHTNESS))
    hand.happens(said(Mode.ROADSIDE)).press(*["down"] * hand.state.menu.index(MenuItem.ACCIDENT))
    hand.happens(said(Mode.ROADSIDE, *BASE))
    assert isinstance(hand.page, st.Menu)
    assert hand.page.cursor == 0


def test_a_check_that_brings_a_line_into_the_open_menu_leaves_the_cursor_on_its_own() -> None:
    hand = Hand.ready().press("ok").sees("car one").wait(5.1).hold("ok").press("up")
    assert isinstance(hand.page, st.Menu)
    assert hand.state.menu[hand.page.cursor] is MenuItem.POWER_OFF
    found = replace(Evidence().cache, answer=StatusAnswer(vehicle=None))
    hand.answers(replace(result_of(), evidence=Evidence(cache=found)))
    assert MenuItem.DISPUTE in hand.state.menu
    assert hand.state.menu[hand.page.cursor] is MenuItem.POWER_OFF


# ------------------------------------------------------------------------------------------- what the policy says


def test_a_device_without_a_reader_says_so_and_opens_at_the_roadside() -> None:
    probe = modes(lambda: dump_policy(LANE), has_reader=False)
    read, fault = probe()
    assert read == ev.ModesRead(opens=Mode.ROADSIDE, offered=frozenset(LANE.modes))
    assert fault == ev.PartFault("mode", "checkpoint: this device has no reader")
    hand = Hand().happens(read).happens(fault).happens(ev.Started())
    assert isinstance(hand.page, st.Ready)
    assert "缺少读写器" in texts(hand.state)
    assert modes(lambda: dump_policy(LANE), has_reader=True)() == (
        ev.ModesRead(opens=Mode.CHECKPOINT, offered=frozenset(LANE.modes)), ev.PartFault("mode"),
    )  # fmt: skip


def test_without_data_or_with_a_damaged_policy_the_last_good_one_says_what_is_offered() -> None:
    held: list[bytes] = []

    def policy() -> bytes:
        if not held:
            raise CacheMissingError("no data")
        return held[0]

    probe = modes(policy, has_reader=True)
    usual = (ev.ModesRead(opens=Mode.ROADSIDE, offered=frozenset(Mode)), ev.PartFault("mode"))
    assert probe() == usual
    held[:] = [dump_policy(LANE)]
    lane = probe()
    assert lane != usual
    held[:] = [b"{"]
    assert probe() == lane
    held.clear()
    assert probe() == lane


# --------------------------------------------------------------------------------------------- the whole device


@pytest.fixture
def world() -> OnlineWorld:
    return OnlineWorld()


def publish(world: OnlineWorld, policy: bytes, version: int) -> None:
    world.authority.publisher.publish_trust(
        entries=world.authority.trust_entries(), trust_version=world.authority.trust_version,
        policy=policy, policy_version=version,
    )  # fmt: skip


@pytest.fixture
def home(world: OnlineWorld, tmp_path: Path) -> Path:
    home = home_of(world, tmp_path / "home")
    scene = (EXAMPLES / "scene-lanes.toml").read_text().partition("[[tag]]")[0]
    tags = (f'[[tag]]\nepc = "e2004074850a01031630{at:04x}"\ntid = "e280117020000123456{at:05x}"\n' for at in range(99))
    (home / "lanes.toml").write_text(scene + "".join(tags))
    return home


@pytest.fixture
def opened(world: OnlineWorld, home: Path) -> Iterator[list[Officer]]:
    made: list[Officer] = []
    yield made
    for officer in made:
        officer.close()


def test_a_policy_that_the_centre_signs_makes_the_device_open_at_the_checkpoint_and_read_its_lanes(
    world: OnlineWorld, home: Path, opened: list[Officer]
) -> None:
    opened.append(Officer(world, home, NO_CAMERA + LANES))
    assert isinstance(opened[0].page, st.Ready)
    publish(world, dump_policy(LANE), LANE.version)
    world.sync(home)
    opened[0].until(lambda: opened[0].state.opens is Mode.CHECKPOINT)
    assert isinstance(opened[0].page, st.Ready)
    opened.pop().close()
    opened.append(Officer(world, home, NO_CAMERA + LANES))
    assert isinstance(opened[0].page, st.Checkpoint)
    opened[0].until(lambda: len(checks(opened[0])) > 0, 60)
    assert checks(opened[0])[0]["by"]["mode"] == "checkpoint"


def test_after_a_login_the_whole_device_opens_at_the_checkpoint_and_without_a_reader_at_the_roadside(
    world: OnlineWorld, home: Path, opened: list[Officer]
) -> None:
    OfficerFile(home / "officers.json").put(NUMBER, Role.OFFICER, PIN)
    publish(world, dump_policy(LANE), LANE.version)
    world.sync(home)
    for parts, page in ((LANES, st.Checkpoint), ("", st.Ready)):
        opened.append(Officer(world, home, GUARDED + parts))
        types(opened[0], NUMBER, PIN)
        assert isinstance(opened[0].page, page)
        if not parts:
            assert "缺少读写器" in " ".join(page_view(opened[0].state, world.clock()).texts)
        opened.pop().close()


def test_an_unknown_mode_refuses_the_whole_policy_and_an_older_version_is_refused_as_ever(
    world: OnlineWorld, home: Path
) -> None:
    publish(world, dump_policy(LANE), LANE.version)
    world.sync(home)
    raw = json.loads(dump_policy(LANE)) | {"version": 3, "mode": "patrol", "fresh_h": 1}
    publish(world, json.dumps(raw).encode(), 3)
    world.sync(home)
    assert policy_of(world, home) == LANE
    publish(world, dump_policy(Policy()), 1)
    with pytest.raises(RollbackError, match="policy: version 1 is older than 2"):
        world.sync(home)
    assert policy_of(world, home) == LANE


def policy_of(world: OnlineWorld, home: Path) -> Policy:
    store, _ = open_store(Home(home))
    try:
        return load_policy(store.policy())
    finally:
        store.close()
