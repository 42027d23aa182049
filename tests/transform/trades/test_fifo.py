from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transform.trades.fifo import Part, match, to_ticks


def test_quantities_become_whole_ticks_of_the_smallest_decimal_place() -> None:
    assert to_ticks([0.1, 0.25, 3.0]) == ([10, 25, 300], 100)
    assert to_ticks([7.0, 1e20]) == ([7, 10**20], 1)
    assert to_ticks([1e-18, 1.0]) == ([1, 10**18], 10**18)
    assert to_ticks([]) == ([], 1)


def test_a_sum_of_doubles_is_the_sum_that_was_meant() -> None:
    ticks, unit = to_ticks([0.1, 0.2, 0.1 + 0.2, 0.3])
    assert unit == 10
    assert ticks[0] + ticks[1] == ticks[2] == ticks[3]


@given(st.integers(1, 10**15 - 1), st.integers(0, 20))
def test_every_decimal_of_15_digits_is_read_exactly(digits: int, places: int) -> None:
    (ticks,), unit = to_ticks([float(f"{digits}e-{places}")])
    assert Fraction(ticks, unit) == Fraction(digits, 10**places)


@pytest.mark.parametrize(
    ("signed", "parts"),
    [
        ([], []),
        ([5], [(0, None, 5)]),
        ([5, -5], [(0, 1, 5)]),
        ([-5, 5], [(0, 1, 5)]),
        ([5, -2, -3], [(0, 1, 2), (0, 2, 3)]),
        ([2, 3, -5], [(0, 2, 2), (1, 2, 3)]),
        ([2, 3, -4], [(0, 2, 2), (1, 2, 2), (1, None, 1)]),
        ([2, -5, 4], [(0, 1, 2), (1, 2, 3), (2, None, 1)]),
        ([1, -2, 2, -2, 1], [(0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1)]),
    ],
)
def test_lots_are_closed_oldest_first(signed: list[int], parts: list[tuple[int, int | None, int]]) -> None:
    assert match(signed) == [Part(*part) for part in parts]


@given(st.lists(st.integers(-20, 20).filter(bool), max_size=40))
def test_all_that_comes_in_is_closed_or_open(signed: list[int]) -> None:
    parts = match(signed)
    for index, quantity in enumerate(signed):
        entered = sum(part.ticks for part in parts if part.entry == index)
        left = sum(part.ticks for part in parts if part.exit == index)
        assert entered + left == abs(quantity)
    still = [(signed[part.entry], part.ticks) for part in parts if part.exit is None]
    assert sum(ticks if entry > 0 else -ticks for entry, ticks in still) == sum(signed)
    assert len({entry > 0 for entry, _ in still}) <= 1
    for part in parts:
        assert part.ticks > 0
        if part.exit is not None:
            assert part.entry < part.exit
            assert (signed[part.entry] > 0) is (signed[part.exit] < 0)
