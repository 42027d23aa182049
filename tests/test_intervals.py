"""Interval algebra against a set of minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.intervals import Interval, IntervalSet

ZERO = datetime(2025, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return ZERO + timedelta(minutes=minute)


def span(start: int, end: int) -> Interval:
    return Interval(at(start), at(end))


pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=12)


def both(drawn: list[list[int]]) -> tuple[IntervalSet, set[int]]:
    return (
        IntervalSet(span(start, end) for start, end in drawn),
        {minute for start, end in drawn for minute in range(start, end)},
    )


def minutes(found: IntervalSet) -> set[int]:
    return {m for part in found for m in range((part.start - ZERO).seconds // 60, (part.end - ZERO).seconds // 60)}


@given(pairs, pairs)
def test_algebra_equals_that_of_sets_of_minutes(left: list[list[int]], right: list[list[int]]) -> None:
    (a, a_minutes), (b, b_minutes) = both(left), both(right)
    assert minutes(a | b) == a_minutes | b_minutes
    assert minutes(a & b) == a_minutes & b_minutes
    assert minutes(a - b) == a_minutes - b_minutes
    assert a.length == timedelta(minutes=len(a_minutes))
    assert bool(a) == bool(a_minutes)
    assert all((at(m) in a) == (m in a_minutes) for m in range(61))


@given(pairs)
def test_parts_are_sorted_and_do_not_touch(drawn: list[list[int]]) -> None:
    parts = list(both(drawn)[0])
    assert all(one.end < two.start for one, two in pairwise(parts))
    assert all(parts)


def test_equal_sets_are_equal_however_they_were_cut() -> None:
    assert IntervalSet([span(0, 5), span(5, 9)]) == IntervalSet([span(0, 9)])
    assert hash(IntervalSet([span(0, 5), span(5, 9)])) == hash(IntervalSet([span(0, 9)]))


def test_an_interval_is_half_open_and_aware() -> None:
    assert at(0) in span(0, 1)
    assert at(1) not in span(0, 1)
    with pytest.raises(ValueError, match="inverted"):
        span(2, 1)
    with pytest.raises(ValueError, match="aware"):
        Interval(datetime(2025, 1, 1), at(1))  # noqa: DTZ001 - that is the point
