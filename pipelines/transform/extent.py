"""Which rows of a model a run has to make anew, and which stored ones it reads to go on from, as SQL conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage.partitions import cut
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTHING = "false"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """Bars of an asset pair at a timeframe."""

    timeframe: Timeframe
    asset_pair: str


# From when on (aware UTC) a series differs.
Since = Mapping[Series, datetime]


# The same, of all rows of an asset pair.
AssetsSince = Mapping[str, datetime]


def by_asset(since: Since, margin: timedelta) -> AssetsSince:
    """Return from when on anything of an asset pair differs, less a margin."""
    found: dict[str, datetime] = {}
    for series, instant in since.items():
        found[series.asset_pair] = min(instant - margin, found.get(series.asset_pair, instant))
    return found


def all_series(since: AssetsSince) -> Since:
    """Return every series of the asset pairs, each from its pair's instant on."""
    return {Series(timeframe, asset): instant for asset, instant in since.items() for timeframe in Timeframe}


def series_from(since: Since, alias: str = "", asset_column: str = "asset_pair") -> str:
    """Return the condition of the rows at or after each series' instant.

    Args:
        since: the series and their instants.
        alias: what the table is called, with a dot behind it.
        asset_column: a partition column that is equal to asset_pair, if not that itself.
    """
    alike: dict[tuple[Timeframe, datetime], list[str]] = defaultdict(list)
    for series, instant in since.items():
        alike[series.timeframe, instant].append(series.asset_pair)
    return _any(
        f"{alias}timeframe = {text(timeframe.value)} and {_assets_from(assets, instant, alias, asset_column)}"
        for (timeframe, instant), assets in sorted(alike.items())
    )


def assets_from(since: AssetsSince, alias: str = "") -> str:
    """Return the condition of the rows at or after each asset pair's instant."""
    alike: dict[datetime, list[str]] = defaultdict(list)
    for asset, instant in since.items():
        alike[instant].append(asset)
    return _any(_assets_from(assets, instant, alias, "asset_pair") for instant, assets in sorted(alike.items()))


def _assets_from(assets: list[str], instant: datetime, alias: str, asset_column: str) -> str:
    return (
        f"{alias}{asset_column} in ({', '.join(map(text, sorted(assets)))})"
        f" and {alias}{_dated('>=', instant)} and {alias}timestamp >= {moment(instant)}"
    )


def just_before(since: Since, files: pa.Table, rows: int) -> str:
    """Return the condition of stored rows that hold at least the last `rows` ones before each series' instant.

    How far back that reaches is read off the statistics of the files, so that old history is not looked at.

    Args:
        since: the series and their instants.
        files: the log's files of the stored table, which is partitioned by timeframe and asset_pair.
        rows: how many rows are wanted of each series.
    """
    return _any(_windows(since, files, rows))


def _windows(since: Since, files: pa.Table, rows: int) -> Iterator[str]:
    for series, instant in sorted(since.items()):
        start = _start(_of(series, files), instant, rows)
        if start is not None:
            yield (
                f"timeframe = {text(series.timeframe.value)} and asset_pair = {text(series.asset_pair)}"
                f" and {_dated('>=', start)} and {_dated('<=', instant)}"
                f" and timestamp >= {moment(start)} and timestamp < {moment(instant)}"
            )


def _of(series: Series, files: pa.Table) -> pa.Table:
    if not files.num_rows:
        return files
    same_asset = pc.equal(files["partition.asset_pair"], series.asset_pair)
    return files.filter(pc.and_(same_asset, pc.equal(files["partition.timeframe"], series.timeframe.value)))


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
