"""Which rows of a model a run has to make anew, and which stored ones it reads to go on from, as SQL conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage.layers import Stretch
from pipelines.storage.partitions import cut
from pipelines.timeframes import EPOCH, Timeframe

NOTHING, EVERYTHING = "false", "true"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """Bars of an asset pair at a timeframe."""

    timeframe: Timeframe
    asset_pair: str


# From when on (aware UTC) a series differs.
Since = Mapping[Series, datetime]


# The same, of all rows of an asset pair.
AssetsSince = Mapping[str, datetime]


def by_asset(bars: Since, records: AssetsSince, clock: timedelta) -> AssetsSince:
    """Return from when on anything of an asset pair differs: the beginning of the stretch of a clock it falls into.

    Args:
        bars: the series of bars that differ.
        records: asset pairs of which other records differ.
        clock: how long the stretches are, which count from 1970 on.
    """
    found: dict[str, datetime] = dict(records)
    for series, instant in bars.items():
        found[series.asset_pair] = min(instant, found.get(series.asset_pair, instant))
    return {asset: instant - (instant - EPOCH) % clock for asset, instant in found.items()}


def all_series(since: AssetsSince) -> Since:
    """Return every series of the asset pairs, each from its pair's instant on."""
    return {Series(timeframe, asset): instant for asset, instant in since.items() for timeframe in Timeframe}


def series_from(since: Since, asset_column: str = "asset_pair") -> str:
    """Return the condition of the rows at or after each series' instant.

    Args:
        since: the series and their instants.
        asset_column: a partition column that is equal to asset_pair, if not that itself.
    """
    alike: dict[tuple[Timeframe, datetime], list[str]] = defaultdict(list)
    for series, instant in since.items():
        alike[series.timeframe, instant].append(series.asset_pair)
    return _any(
        f"timeframe = {text(timeframe.value)} and {_assets_from(assets, instant, asset_column)}"
        for (timeframe, instant), assets in sorted(alike.items())
    )


def assets_from(since: AssetsSince) -> str:
    """Return the condition of the rows at or after each asset pair's instant."""
    alike: dict[datetime, list[str]] = defaultdict(list)
    for asset, instant in since.items():
        alike[instant].append(asset)
    return _any(_assets_from(assets, instant, "asset_pair") for instant, assets in sorted(alike.items()))


def days_from(instant: datetime) -> str:
    """Return the condition of the rows at or after an instant, whatever asset pairs they are of."""
    return f"{_dated('>=', instant)} and timestamp >= {moment(instant)}"


def _assets_from(assets: list[str], instant: datetime, asset_column: str) -> str:
    return f"{asset_column} in ({', '.join(map(text, sorted(assets)))}) and {days_from(instant)}"


def series_before(since: Since, files: pa.Table, rows: int) -> list[Stretch]:
    """Return stretches of stored rows that hold at least the last `rows` ones before each series' instant.

    How far back that reaches is read off the statistics of the files, so that old history is not looked at.

    Args:
        since: the series and their instants.
        files: the log's files of the stored table, which is partitioned by timeframe and asset_pair.
        rows: how many rows are wanted of each series.
    """
    named = (
        ({"timeframe": series.timeframe.value, "asset_pair": series.asset_pair}, instant)
        for series, instant in sorted(since.items())
    )
    return _stretches(named, files, rows)


def assets_before(since: AssetsSince, files: pa.Table, rows: int) -> list[Stretch]:
    """Return the same of a stored table that is partitioned by asset_pair alone, for each asset pair."""
    return _stretches((({"asset_pair": asset}, instant) for asset, instant in sorted(since.items())), files, rows)


def within(stretches: Iterable[Stretch]) -> str:
    """Return the condition of the rows of some stretches."""
    return _any(
        f"{' and '.join(f'{name} = {text(value)}' for name, value in each.partition.items())}"
        f" and {_dated('>=', each.start)} and {_dated('<=', each.end)}"
        f" and timestamp >= {moment(each.start)} and timestamp < {moment(each.end)}"
        for each in stretches
    )


def _stretches(ends: Iterable[tuple[Mapping[str, str], datetime]], files: pa.Table, rows: int) -> list[Stretch]:
    starts = ((partition, _start(_of(partition, files), end, rows), end) for partition, end in ends)
    return [Stretch(partition, start, end) for partition, start, end in starts if start is not None]


def _of(partition: Mapping[str, str], files: pa.Table) -> pa.Table:
    for name, value in partition.items():
        if files.num_rows:
            files = files.filter(pc.equal(files[f"partition.{name}"], value))
    return files


def _start(files: pa.Table, instant: datetime, rows: int) -> datetime | None:
    """Return an instant from which on there are enough rows before another, or all there are; None without any."""
    if not files.num_rows:
        return None
    spans = zip(*(files[name].to_pylist() for name in ("min.timestamp", "max.timestamp", "num_records")), strict=True)
    start, counted = None, 0
    for first, last, count in sorted(spans, reverse=True):
        if first >= instant:
            continue
        if counted >= rows:
            break
        start = first if start is None else min(start, first)
        # Of a file that reaches beyond the instant nobody knows how many rows lie before it.
        counted += count if last < instant else 0
    return start


def either(*conditions: str) -> str:
    """Return the condition of the rows that meet one of several."""
    return _any(condition for condition in conditions if condition != NOTHING)


def _any(conditions: Iterable[str]) -> str:
    return " or ".join(f"({condition})" for condition in conditions) or NOTHING


def _dated(comparison: str, instant: datetime) -> str:
    """Return a condition on partition_date that holds whether it is a day, a month or a year."""
    day: date = cut(instant, "year") if comparison == ">=" else instant.astimezone(UTC).date()
    return f"partition_date {comparison} date'{day.isoformat()}'"


def moment(instant: datetime) -> str:
    """Return an aware instant as a literal of Spark SQL."""
    return f"timestamp'{instant.astimezone(UTC).isoformat(sep=' ', timespec='microseconds').replace('+00:00', 'Z')}'"


def text(value: str) -> str:
    """Return text as a literal of Spark SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
