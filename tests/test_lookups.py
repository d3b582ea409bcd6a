"""Typed plates are counted by the hour, for each officer, and too many are flagged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from verifier.lookups import WINDOW, Lookups

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def test_a_hundred_an_hour_are_not_flagged_and_one_more_is():
    lookups = Lookups()
    found = [lookups.note("110001", NOW + timedelta(seconds=i), 100) for i in range(101)]
    assert [one.count for one in found] == list(range(1, 102))
    assert [one.flagged for one in found] == [False] * 100 + [True]


def test_an_hour_later_the_count_begins_anew():
    lookups = Lookups()
    for i in range(100):
        lookups.note("110001", NOW + timedelta(seconds=i), 100)
    assert lookups.note("110001", NOW + WINDOW + timedelta(seconds=49), 100).count == 51
    assert lookups.note("110001", NOW + timedelta(hours=3), 100).count == 1


def test_each_officer_has_a_count_of_his_own_and_nobody_has_one_too():
    lookups = Lookups()
    for who in ("110001", "110002", None, "110001"):
        found = lookups.note(who, NOW, 100)
    assert found.count == 2
    assert lookups.note(None, NOW, 100).count == 2


def test_the_count_outlives_a_restart_and_its_file_holds_no_plate(tmp_path):
    path = tmp_path / "lookups.json"
    for i in range(60):
        Lookups(path).note("110001", NOW + timedelta(seconds=i), 50)
    found = Lookups(path).note("110001", NOW + timedelta(seconds=70), 50)
    assert (found.count, found.flagged) == (61, True)
    assert set(path.read_text(encoding="utf-8")) <= set('{}[]", :.0123456789')


def test_a_clock_that_is_set_back_does_not_empty_the_count():
    lookups = Lookups()
    for i in range(101):
        lookups.note("110001", NOW + timedelta(seconds=i), 100)
    assert lookups.note("110001", NOW - timedelta(minutes=5), 100).flagged


@pytest.mark.parametrize("content", [b"", b"[]", b'{"1": 5}', b'{"1": ["x"]}', b"\xff", b'{"1": [1%0400d]}' % 0])
def test_a_damaged_file_counts_as_none(tmp_path, content):
    (tmp_path / "lookups.json").write_bytes(content)
    assert Lookups(tmp_path / "lookups.json").note("110001", NOW, 100).count == 1


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path):
    assert Lookups(tmp_path / "no" / "folder" / "x").note("110001", NOW, 100).count == 1
