from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transform.trades import EXPOSED, EXPOSURE, exposed_days

START = datetime(2025, 3, 6, tzinfo=UTC)


def exposed(*spans: tuple[float, float]) -> dict[date, float]:
    rows = [
        {"opened_at": START + timedelta(hours=low), "closed_at": START + timedelta(hours=high)} for low, high in spans
    ]
    made = exposed_days(pa.Table.from_pylist(rows, schema=EXPOSURE))
    assert made.schema.equals(EXPOSED, check_metadata=True)
    return {row["day"]: row["exposed_seconds"] / 3600 for row in made.to_pylist()}


def test_spans_are_cut_at_midnight_and_days_without_are_left_out() -> None:
    assert exposed((22, 26), (72, 73)) == {date(2025, 3, 6): 2, date(2025, 3, 7): 2, date(2025, 3, 9): 1}
    assert exposed((0, 24)) == {date(2025, 3, 6): 24}
    assert exposed((1, 1)) == exposed() == {}


def test_time_counts_once_however_many_lots_are_open() -> None:
    assert exposed((1, 5), (2, 3), (4, 6), (6, 7), (9, 10)) == {date(2025, 3, 6): 7}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=12))
def test_it_is_the_number_of_hours_in_any_span(spans: list[tuple[int, int]]) -> None:
    hours = {hour for low, length in spans for hour in range(low, low + length)}
    expected: dict[date, float] = {}
    for hour in sorted(hours):
        day = (START + timedelta(hours=hour)).date()
        expected[day] = expected.get(day, 0) + 1
    assert exposed(*((low, low + length) for low, length in spans)) == expected
