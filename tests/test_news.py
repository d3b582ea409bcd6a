"""Verdicts on old data that the centre changes later (E8): the officer is told, by the whole program."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.machine import states as st
from scripts.demonstration.mirror import page_texts
from tests.centres import OLD, OnlineWorld
from tests.officer import Officer, home_of
from tests.test_appliance import NO_CAMERA, Held, check_plate
from verifier.online import Centre
from verifier.plates import display_text
from verifier.recheck_queue import RecheckQueue
from verifier.types import Month, Plate
from verifier.verdict import VerdictCode

V = VerdictCode
PATIENCE_S = 25.0  # a busy machine may miss the centre's answer, which is asked for again after 15 s


@pytest.fixture
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def home(world: OnlineWorld, tmp_path: Path) -> Iterator[Path]:
    """Of a device with data of three days ago that is kept off the network."""
    with world.serving() as url:
        home = home_of(world, tmp_path / "home")
        (home / "online.toml").write_text(f'url = "{url}"\nmode = "offline"\n')
        world.now += OLD
        yield home


def green_then_lapsed(world: OnlineWorld, officer: Officer) -> Plate:
    """A car that was let go on old data, and that the register has as overdue."""
    plate = world.vehicle().plate
    assert check_plate(officer, plate).verdict is V.VALID_STALE
    officer.press("back")
    world.authority.registry.lapse(plate, Month(2026, 8))
    return plate


def online(officer: Officer) -> Officer:
    """The centre can be reached, once every check that was begun is safely in the queue."""
    path = officer.home / "rechecks.db"
    queue = RecheckQueue(path, officer.world.authority.epoch_key)
    officer.until(lambda: len(queue.waiting()) == len(officer.state.history))
    officer.appliance.parts.checks.use_network(st.Network.AUTO)
    return officer


def words(officer: Officer) -> tuple[str, ...]:
    return page_texts(officer.state, officer.world.now)


def untold(world: OnlineWorld, home: Path) -> list[VerdictCode]:
    return [one.now for one in RecheckQueue(home / "rechecks.db", world.authority.epoch_key).news()]


def test_a_green_that_did_not_hold_is_heard_stands_at_the_foot_and_is_listed_with_its_car(
    world: OnlineWorld, home: Path
) -> None:
    officer = Officer(world, home, NO_CAMERA)
    try:
        plate = green_then_lapsed(world, officer)
        quiet = officer.sees()
        online(officer)
        officer.until(lambda: officer.heard[-1] == "stop", PATIENCE_S)
        assert isinstance(officer.page, st.Ready)
        assert "1项判定有变" in words(officer)
        assert officer.seen_when_heard[-1] == officer.sees() != quiet
        assert untold(world, home) == [V.EXPIRED]
        officer.press("down").until(lambda: isinstance(officer.page, st.NewsList))
        assert {display_text(plate), "有效->逾期"} <= set(words(officer))
        officer.until(lambda: untold(world, home) == [])
        assert isinstance(officer.press("ok").page, st.HistoryList)
        officer.press("back").asks().wait(0.2)
        assert "1项判定有变" not in words(officer)
        assert officer.heard.count("stop") == 1
    finally:
        officer.close()


def test_news_nobody_has_looked_at_are_told_after_a_restart_with_their_car_and_without_it_on_the_card(
    world: OnlineWorld, home: Path
) -> None:
    officer = Officer(world, home, NO_CAMERA)
    plate = green_then_lapsed(world, officer)
    online(officer)
    officer.until(lambda: bool(officer.state.news), PATIENCE_S)
    officer.close()
    assert plate.text.encode() not in (home / "rechecks.db").read_bytes()
    again = Officer(world, home, NO_CAMERA)
    try:
        again.until(lambda: again.heard == ["stop"])
        assert display_text(plate) in words(again.press("down"))
    finally:
        again.close()


def test_news_of_one_car_leave_the_verdict_of_the_next_one_as_it_is(world: OnlineWorld, home: Path) -> None:
    officer = Officer(world, home, NO_CAMERA)
    try:
        green_then_lapsed(world, officer)
        fine = world.vehicle().plate
        assert check_plate(officer, fine).verdict is V.VALID_STALE
        online(officer)
        # The car on the panel was looked at again as well.
        officer.until(lambda: bool(officer.state.news) and officer.verdict is V.VALID, PATIENCE_S)
        assert (officer.verdict, officer.shown.outcome.result.verdict.plate) == (V.VALID, fine)
        assert "stop" not in officer.heard
        officer.press("back").until(lambda: officer.heard[-1] == "stop")
        assert [one.now for one in officer.state.news] == [V.EXPIRED]
    finally:
        officer.close()


@pytest.mark.parametrize("gone_on", [False, True])
def test_an_answer_that_comes_when_the_officer_has_left_its_verdict_is_news(
    world: OnlineWorld, home: Path, gone_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware.build.TOTAL_MS", 20_000)  # typing takes longer than a centre is waited for
    monkeypatch.setitem(Centre.__init__.__kwdefaults__, "total_ms", 20_000)
    (home / "online.toml").write_text((home / "online.toml").read_text().replace("offline", "auto"))
    held = Held(world)
    officer = Officer(world, home, NO_CAMERA)
    try:
        plate, other = world.vehicle().plate, world.vehicle().plate
        world.authority.registry.revoke(plate)
        world.authority.registry.lapse(plate, Month(2026, 8))
        assert check_plate(officer, plate).verdict is V.VALID_STALE
        assert held.asked.wait(20)
        officer.press("back")
        if gone_on:
            world.spoil = lambda answer: answer
            check_plate(officer, other)
            officer.press("back")
        held.go.set()
        officer.until(lambda: officer.heard[-1] == "stop", PATIENCE_S)
        assert isinstance(officer.page, st.Ready)
        assert {display_text(plate), "有效->逾期"} <= set(words(officer.press("down")))
    finally:
        officer.close()


def test_what_was_kept_before_news_had_a_car_is_still_read(world: OnlineWorld, tmp_path: Path) -> None:
    path, at = tmp_path / "rechecks.db", int((world.now - timedelta(hours=2)).timestamp())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE news(id TEXT PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL, now TEXT)")
        connection.execute("INSERT INTO news VALUES ('00ff', ?, 'VALID_STALE', 'REVOKED')", (at,))
    queue = RecheckQueue(path, bytes(32))
    (one,) = queue.news()
    assert (one.now, one.tone_now.value, one.plate) == (V.REVOKED, "stop", None)
    queue.told("00ff")
    assert queue.news() == []
