"""An officer holds a record for wrong (K5): one line of the menu, and the centre hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.checks import NOT_NOTED, NOTED
from firmware.machine import states as st
from firmware.machine.states import MenuItem
from tests.centres import OnlineWorld
from tests.hand import result_of
from tests.officer import Officer, home_of
from tests.test_appliance import NO_CAMERA, check_plate
from tests.test_login import hand_of
from verifier.check import Observation
from verifier.codec.online import ReportReason
from verifier.recheck_queue import RecheckQueue
from verifier.types import StatusAnswer
from verifier.verdict import Role, VerdictCode

V = VerdictCode


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def officer(world: OnlineWorld, tmp_path: Path) -> Iterator[Officer]:
    home = home_of(world, tmp_path / "home")
    (home / "online.toml").write_text('url = "http://127.0.0.1:9/"\nmode = "offline"\n')
    with closing(Officer(world, home, NO_CAMERA)) as made:
        yield made


def opens_menu(officer: Officer) -> Officer:
    officer.press("back").hold("ok")
    assert isinstance(officer.page, st.Menu)
    return officer


def disputes(officer: Officer) -> tuple[str, ...]:
    opens_menu(officer)
    officer.press(*["down"] * officer.state.menu.index(MenuItem.DISPUTE), "ok")
    officer.until(lambda: isinstance(officer.page, st.Info) and not officer.page.busy)
    assert isinstance(officer.page, st.Info)
    return officer.page.lines


def test_a_record_that_an_officer_holds_for_wrong_is_reported_once_with_its_check(
    world: OnlineWorld, officer: Officer
) -> None:
    plate = world.vehicle().plate
    world.authority.registry.set_status(plate, "C")
    check_plate(officer, plate)
    result, code = officer.shown.outcome.result, officer.verdict
    assert [disputes(officer), disputes(officer)] == [(NOTED.zh,)] * 2
    (report,) = RecheckQueue(officer.home / "rechecks.db", world.authority.epoch_key).outbox()
    assert (report.check_id.hex(), report.reason) == (result.check_id, ReportReason.DISPUTED)
    assert report.then is report.now is code
    assert report.report_id != report.check_id


def test_without_a_record_behind_any_verdict_there_is_nothing_to_report(officer: Officer) -> None:
    assert MenuItem.DISPUTE not in opens_menu(officer).state.menu


def test_where_there_is_no_centre_the_officer_is_told_that_it_is_not_noted(world: OnlineWorld, tmp_path: Path) -> None:
    with closing(Officer(world, home_of(world, tmp_path / "home"), NO_CAMERA)) as officer:
        check_plate(officer, world.vehicle().plate)
        assert disputes(officer) == (NOT_NOTED.zh,)


@pytest.mark.parametrize("role", list(Role))
def test_only_who_checks_and_sees_the_whole_verdict_reports_a_record(role: Role) -> None:
    hand, result = hand_of(role), result_of("a", V.VALID)
    cache = replace(result.evidence.cache, answer=StatusAnswer(vehicle=None))
    found = replace(result, evidence=replace(result.evidence, cache=cache))
    outcome = st.Outcome(number=1, seen=Observation(), result=found)
    state = replace(hand.state, history=(outcome,))
    assert (MenuItem.DISPUTE in state.menu) == (role is Role.OFFICER)
