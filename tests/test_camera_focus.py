"""The search by hand where the autofocus does not get there; time is the test's."""

from __future__ import annotations

import pytest

from hw.camera.focus import HOLD_S, SWEEP, FocusSearch, FocusState

IDLE, SCANNING, FOCUSED, FAILED = FocusState


def run(states: list[tuple[float, FocusState]]) -> list[float | None]:
    search = FocusSearch()
    return [search.position(state, now_s) for now_s, state in states]


@pytest.mark.parametrize("state", [SCANNING, FAILED])
def test_after_a_second_without_focus_each_distance_has_its_turn_and_then_the_autofocus(state: FocusState) -> None:
    times = [0.0, 0.5, 0.99, 1.0, 1.2, 1.41, 1.81, 2.21, 2.5, 2.61, 3.0, 4.01]
    expected = [None] * 3 + [SWEEP[0]] * 2 + list(SWEEP[1:]) + [SWEEP[3]] + [None, None, SWEEP[0]]
    assert run([(now_s, state) for now_s in times]) == expected


def test_an_autofocus_that_gets_there_now_and_then_is_left_alone() -> None:
    states = [(0.0, SCANNING), (0.9, FOCUSED), (1.0, SCANNING), (1.9, IDLE), (2.0, FAILED), (2.9, SCANNING)]
    assert run(states) == [None] * 6


def test_the_lens_stands_idle_while_it_is_moved_by_hand_and_the_search_goes_on() -> None:
    states = [(0.0, FAILED), (1.0, FAILED), (1.1, IDLE), (1.0 + HOLD_S + 0.01, IDLE)]
    assert run(states) == [None, SWEEP[0], SWEEP[0], SWEEP[1]]


def test_the_distances_are_those_between_30_and_80_centimetres() -> None:
    assert all(0.25 < 1 / dioptres < 0.8 for dioptres in SWEEP)
    assert list(SWEEP) == sorted(SWEEP)
