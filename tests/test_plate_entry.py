"""Typing a plate with five keys."""

from __future__ import annotations

from collections import deque
from functools import cache

import pytest

from firmware.plate_entry import LONGEST, PLACES, Entry, Group, choices, ends, pressed
from hw.buttons.keys import Key
from verifier.plates import LETTERS, PROVINCES


@cache
def presses(plate: str, province: str = "京") -> tuple[Key, ...]:
    """The fewest presses that type a plate and end the entry."""
    queue: deque[tuple[Entry, tuple[Key, ...]]] = deque([(Entry(province), ())])
    while queue:
        entry, keys = queue.popleft()
        for place, key in enumerate(PLACES):
            if choices(entry).places[place] is None:
                continue
            after = pressed(entry, key)
            if after.done and after.text == plate:
                return (*keys, key)
            if plate.startswith(after.text) and not after.done:
                queue.append((after, (*keys, key)))
    raise AssertionError("cannot be typed")


def card_presses(digits: str) -> list[Key]:
    """What types these digits of a card's number."""
    keys: list[Key] = []
    for digit in digits:
        groups = choices(Entry("京", card=True)).places
        place, group = next((at, one) for at, one in enumerate(groups) if isinstance(one, Group) and digit in one.label)
        keys += [PLACES[place], PLACES[group.places.index(digit)]]
    return keys


def test_every_digit_of_a_cards_number_takes_two_presses_and_only_its_length_ends_it() -> None:
    number = "0123456789ABCDEF"
    assert sorted(choices(Entry("京", card=True)).label) == sorted(number)
    for digits in (number[:12], number[4:]):
        entry = Entry("京", card=True)
        for at, key in enumerate(card_presses(digits)):
            assert (entry.done, ends(choices(entry).places[2])) == (False, False), at
            entry = pressed(entry, key)
        assert entry.text == digits
        assert [ends(choice) for choice in choices(entry).places] == [False, False, True, False, False]
        assert pressed(entry, Key.UP) == entry  # no thirteenth digit
        assert pressed(entry, Key.OK).done


def test_the_plate_of_the_promise_takes_sixteen_presses() -> None:
    assert len(presses("京AD12345")) == 16


@pytest.mark.parametrize("province", ["京", "琼"])
@pytest.mark.parametrize(
    "plate", ["京AD12345", "新ZZZZZZ", "粤B12345D", "琼ZW9Z9Z", "粤ZWXYZ港", "川XS1234应急", "使123456", "京A1234警"]
)
def test_any_plate_is_typed_in_at_most_25_presses(plate: str, province: str) -> None:
    assert len(presses(plate, province)) <= 25


def test_every_province_and_letter_can_be_typed_and_i_and_o_cannot() -> None:
    assert sorted(choices(Entry("京")).label) == sorted(PROVINCES + "使")
    letters = set(choices(Entry("京", "京")).label)
    assert letters == set(LETTERS + "0123456789")
    for text in ("京A", "京AB", "京AB123"):
        assert not {"I", "O"} & set(choices(Entry("京", text)).label)


def test_no_place_holds_more_than_five_choices() -> None:
    def walk(group: Group) -> None:
        assert len(group.places) == 5
        for choice in group.places:
            if isinstance(choice, Group):
                walk(choice)

    for text in ("", "京", "京A", "京AD1234", "京A12345", "京AD12345", "川XS1234", "使12345", "使123456"):
        walk(choices(Entry("京", text)))


def test_the_end_is_offered_only_where_the_text_is_a_plate() -> None:
    assert ends(choices(Entry("京", "京A12345")).places[2])
    assert ends(choices(Entry("京", "京AD12345")).places[2])
    assert not ends(choices(Entry("京", "京A1234")).places[2])


def test_an_eighth_character_is_offered_only_where_it_makes_a_new_energy_plate() -> None:
    assert choices(Entry("京", "京AD1234")).label.replace("\n", "") == "0123456789"
    assert choices(Entry("京", "京A12345")).label.replace("\n", "") == "ABCDEFGHJK"
    assert choices(Entry("京", "京AZ1234")).label == "\n"


def test_back_takes_one_group_or_one_character_away() -> None:
    entry = pressed(Entry("京", "京"), Key.UP)
    assert entry.path == (0,)
    assert pressed(entry, Key.BACK) == Entry("京", "京")
    assert pressed(Entry("京", "京"), Key.BACK) == Entry("京")
    assert pressed(Entry("京"), Key.BACK) == Entry("京")


def test_a_key_without_a_choice_does_nothing() -> None:
    entry = Entry("京", "京AD12345")
    assert pressed(entry, Key.UP) == entry


def test_no_text_grows_longer_than_a_plate() -> None:
    seen = {""}
    queue = [Entry("京", "川XS1234"), Entry("京", "京AD1234"), Entry("京", "使12345")]
    while queue:
        entry = queue.pop()
        seen.add(entry.text)
        for key in PLACES:
            after = pressed(entry, key)
            if after not in (entry,) and not after.done:
                queue.append(after)
    assert max(map(len, seen)) <= LONGEST
