"""Instants as providers spell them, and the closed part of a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UnsupportedError
from pipelines.intervals import Interval
from pipelines.sources.bars import bar_page, bar_window, closed_part, days, instants
from pipelines.sources.base import MARKET_DATA, Window
from pipelines.timeframes import Timeframe

NOON = datetime(2026, 1, 14, 12, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda value: value.replace(microsecond=0, tzinfo=UTC)
)


@settings(deadline=None)  # the first example pays for imports
@given(st.lists(INSTANTS))
def test_seconds_and_texts_give_the_same_instants(moments: list[datetime]) -> None:
    spelled: list[list[Any]] = [
        [int(moment.timestamp()) for moment in moments],
        [moment.isoformat() for moment in moments],
        [moment.strftime("%Y-%m-%dT%H:%M:%S.000000000Z") for moment in moments],
        [moment.astimezone().isoformat() for moment in moments],
    ]
    for values in spelled:
        assert instants(values).to_pylist() == moments


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.lists(JUNK), st.lists(JUNK))
def test_any_junk_makes_a_page_that_keeps_what_cannot_be_read(times: list[Any], opens: list[Any]) -> None:
    count = min(len(times), len(opens))
    covered = Interval(NOON, NOON + timedelta(hours=1))
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), opens[:count])
    page = bar_page({"timestamp": [*times[:count], "noon?"], **{k: [*v, 1.0] for k, v in columns.items()}}, covered)
    assert page.table["timestamp"].to_pylist()[-1] == "noon?"
    for value in page.table["timestamp"].to_pylist():
        assert value is None or isinstance(value, str)


def test_zoneless_text_is_not_taken_for_utc() -> None:
    array = instants(["2026-01-14T12:00:00", "2026-01-14T12:00:00Z"])
    assert array.to_pylist() == ["2026-01-14T12:00:00", "2026-01-14T12:00:00+00:00"]


def test_only_rows_inside_are_kept() -> None:
    covered = Interval(NOON, NOON + timedelta(minutes=2))
    seconds = [int(NOON.timestamp()) + 60 * n for n in range(-2, 5)]
    page = bar_page({"timestamp": seconds, "open": list(range(7))}, covered)
    assert page.table["open"].to_pylist() == [2, 3]
    assert page.table.schema.field("timestamp").type == pa.timestamp("us", "UTC")


@given(
    start=st.integers(-5_000, 5_000),
    length=st.integers(0, 5_000),
    timeframe=st.sampled_from(Timeframe),
    seconds=st.integers(0, 86_399),
)
def test_closed_part_never_passes_an_open_bar(start: int, length: int, timeframe: Timeframe, seconds: int) -> None:
    now = NOON + timedelta(seconds=seconds)
    window = Window(
        MARKET_DATA,
        "BTCUSD",
        NOON + timedelta(minutes=start),
        NOON + timedelta(minutes=start + length),
        timeframe=timeframe,
    )
    part = closed_part(window, timeframe, now)
    assert part.end <= window.end
    assert part.start == window.start
    assert not part or part.end <= timeframe.floor(now)
    if window.end <= timeframe.floor(now):
        assert part == window.interval


def test_a_window_that_is_not_of_bars_is_unsupported() -> None:
    with pytest.raises(UnsupportedError):
        bar_window(Window("macro_indicators", "DGS10", NOON, NOON))


def test_days() -> None:
    assert days(["2026-01-14", None]).type == pa.date32()
    assert days(["2026-02-30"]).to_pylist() == ["2026-02-30"]
