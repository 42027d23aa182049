"""Which rows a run touches: conditions as SQL, checked by running them on rows with DuckDB."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.timeframes import Timeframe
from pipelines.transform import extent
from pipelines.transform.extent import Series
from pipelines.transform.marks import NOT_THERE, Mark, oldest, parse_mark

START = datetime(2024, 12, 30, tzinfo=UTC)
instants = st.integers(0, 20_000).map(lambda minutes: START + timedelta(minutes=minutes))
series = st.builds(Series, st.sampled_from([Timeframe.M1, Timeframe.H1]), st.sampled_from(["BTCUSD", "O'X", "ETHUSD"]))
changes = st.dictionaries(series, instants, max_size=5)


def chosen(rows: pa.Table, condition: str) -> list[int]:
    """The numbers of the rows that meet a condition; DuckDB doubles a quote where Spark puts a backslash."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("rows", rows)
        found = connection.execute(f"select number from rows where {condition.replace(chr(92) + chr(39), chr(39) * 2)}")
        return sorted(number for (number,) in found.fetchall())


def table(rows: list[tuple[Series, datetime]]) -> pa.Table:
    return pa.table(
        {
            "number": pa.array(range(len(rows)), pa.int64()),
            "timeframe": pa.array([each.timeframe.value for each, _ in rows], pa.string()),
            "asset_pair": pa.array([each.asset_pair for each, _ in rows], pa.string()),
            "timestamp": pa.array([at for _, at in rows], pa.timestamp("us", "UTC")),
            "partition_date": pa.array([at.date().replace(day=1) for _, at in rows], pa.date32()),
        }
    )


@given(changes, st.lists(st.tuples(series, instants), max_size=20))
def test_rows_from_the_change_on_are_chosen(since: dict[Series, datetime], rows: list[tuple[Series, datetime]]) -> None:
    wanted = [number for number, (each, at) in enumerate(rows) if each in since and at >= since[each]]
    assert chosen(table(rows), extent.series_from(since)) == wanted


@given(changes, st.dictionaries(st.sampled_from(["BTCUSD", "SOLUSD"]), instants), st.lists(st.tuples(series, instants)))
def test_all_of_an_asset_is_chosen_from_the_beginning_of_the_stretch_on(
    since: dict[Series, datetime], records: dict[str, datetime], rows: list[tuple[Series, datetime]]
) -> None:
    assets = extent.by_asset(since, records, timedelta(minutes=5))
    first = {
        asset: [records[asset]] if asset in records else [] for asset in {*records, *(e.asset_pair for e in since)}
    }
    for each, at in since.items():
        first[each.asset_pair].append(at)
    wanted_assets = {asset: min(at) for asset, at in first.items()}
    assert assets == {asset: at.replace(minute=at.minute - at.minute % 5) for asset, at in wanted_assets.items()}
    wanted = [n for n, (each, at) in enumerate(rows) if each.asset_pair in assets and at >= assets[each.asset_pair]]
    assert chosen(table(rows), extent.assets_from(assets)) == wanted


@given(instants, st.lists(st.tuples(series, instants), max_size=20))
def test_all_from_an_instant_on_is_chosen(start: datetime, rows: list[tuple[Series, datetime]]) -> None:
    wanted = [number for number, (_, at) in enumerate(rows) if at >= start]
    assert chosen(table(rows), extent.days_from(start)) == wanted


@given(
    since=changes,
    parts=st.lists(st.lists(instants, min_size=1, max_size=6), max_size=6),
    each=series,
    rows=st.integers(1, 8),
)
def test_enough_rows_before_a_change_are_read_and_none_after(
    since: dict[Series, datetime], parts: list[list[datetime]], each: Series, rows: int
) -> None:
    """Files may overlap, and hold any number of rows."""
    flat = [(each, at) for part in parts for at in part]
    files = pa.table(
        {
            "partition.asset_pair": pa.array([each.asset_pair] * len(parts), pa.string()),
            "partition.timeframe": pa.array([each.timeframe.value] * len(parts), pa.string()),
            "min.timestamp": pa.array([min(part) for part in parts], pa.timestamp("us", "UTC")),
            "max.timestamp": pa.array([max(part) for part in parts], pa.timestamp("us", "UTC")),
            "num_records": pa.array([len(part) for part in parts], pa.int64()),
        }
    )
    read = [flat[number][1] for number in chosen(table(flat), extent.within(extent.series_before(since, files, rows)))]
    before = sorted(at for _, at in flat if each in since and at < since[each])
    assert all(at < since[each] for at in read)
    assert sorted(read)[-rows:] == before[-rows:]


def test_a_mark_comes_back_from_a_commit() -> None:
    mark = Mark("abc", {"raw_market_data_1m": ("id", 3), "raw_market_data_1h": NOT_THERE}, {"BTCUSD": "1a"})
    assert parse_mark(mark.text()) == mark
    for text in (None, "", "{}", "not JSON", '{"lakehouse": {"bronze": {"t": 1}}}', '{"lakehouse": []}'):
        assert parse_mark(text) is None


def test_what_is_made_of_several_has_seen_the_older_version() -> None:
    assert oldest([{"a": ("x", 3)}, {"a": ("x", 2), "b": ("y", 1)}]) == {"a": ("x", 2), "b": ("y", 1)}
    assert oldest([{"a": NOT_THERE}, {"a": ("x", 2)}]) == {"a": NOT_THERE}
    assert oldest([{"a": ("x", 3)}, {"a": ("z", 2)}]) is None
    assert oldest([{"a": ("x", 3)}, None]) is None
