"""Timeframes against pandas, and the parsing of instants."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InvalidRangeError
from pipelines.timeframes import Timeframe, parse_instant

instants = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(instants, st.sampled_from(Timeframe))
def test_floor_and_ceil_equal_pandas(instant: datetime, timeframe: Timeframe) -> None:
    rule = timeframe.value.replace("m", "min")
    assert timeframe.floor(instant) == pd.Timestamp(instant).floor(rule)
    assert timeframe.ceil(instant) == pd.Timestamp(instant).ceil(rule)


@given(instants, st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=20)), st.sampled_from(Timeframe))
def test_bars_between_equals_pandas_date_range(start: datetime, length: timedelta, timeframe: Timeframe) -> None:
    first = pd.Timestamp(start).ceil(timeframe.value.replace("m", "min"))
    opens = pd.date_range(first, start + length, freq=timeframe.step)
    assert timeframe.bars_between(start, start + length) == (opens < start + length).sum()


def test_seven_days_of_six_timeframes_are_12985_bars() -> None:
    start = datetime(2025, 12, 7, tzinfo=UTC)
    assert sum(t.bars_between(start, start + timedelta(days=7)) for t in Timeframe) == 12_985


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-12-07", datetime(2025, 12, 7, tzinfo=UTC)),
        (date(2025, 12, 7), datetime(2025, 12, 7, tzinfo=UTC)),
        ("2025-12-07T14:30:00", datetime(2025, 12, 7, 14, 30, tzinfo=UTC)),
        ("2025-12-07T14:30:00Z", datetime(2025, 12, 7, 14, 30, tzinfo=UTC)),
        ("2025-12-07T14:30:00+02:00", datetime(2025, 12, 7, 12, 30, tzinfo=UTC)),
        (datetime(2025, 12, 7, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2025, 12, 7, tzinfo=UTC)),
    ],
)
def test_parse_instant(value: str | date | datetime, expected: datetime) -> None:
    parsed = parse_instant(value)
    assert parsed == expected
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize("text", ["yesterday", "2025-13-01", "", "07/12/2025"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(InvalidRangeError, match="2025-12-07"):
        parse_instant(text)
