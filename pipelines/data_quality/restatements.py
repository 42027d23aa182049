"""Bars that providers changed after they had served them: every version before and after, and when each was known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.contracts import load_contracts
from pipelines.data_quality.series_reading import Held, Span, Wanted, read_series, restated_by_asset, slices
from pipelines.sources.base import MARKET_DATA

if TYPE_CHECKING:
    from pipelines.intervals import Interval
    from pipelines.storage import DeltaLakeManager
    from pipelines.timeframes import Timeframe

_KEYS = ("asset_pair", "provider", "timestamp")
_KNOWN = "ingested_at"
_BEFORE = "before_"
_MOVED = "moved_bp"


@dataclass(frozen=True, slots=True)
class Restatement:
    """One bar's change from a version to the next one.

    `before` and `after` are open, high, low, close and volume; `known_before` and `known_after` are when the lake
    learned of each version, `timestamp` is the bar's open (all aware UTC).
    """

    asset_pair: str
    timeframe: str
    timestamp: datetime
    provider: str
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    known_before: datetime
    known_after: datetime
    moved_bp: float | None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values; `moved_bp` is how far close moved, in basis points of the one before."""
        return {
            "asset_pair": self.asset_pair,
            "timeframe": self.timeframe,
            "timestamp": self.timestamp.isoformat(),
            "provider": self.provider,
            "before": dict(self.before),
            "after": dict(self.after),
            "known_before": self.known_before.isoformat(),
            "known_after": self.known_after.isoformat(),
            "moved_bp": self.moved_bp,
        }


@dataclass(frozen=True, slots=True)
class RestatedSeries:
    """A series' restatements: `bars` have several versions, `changes` led from one to the next.

    `median_bp` and `max_bp` are of how far close moved, up or down; `first` and `last` are the opens of the first and
    last such bar, `latest` is when the last change became known (aware UTC).
    """

    asset_pair: str
    timeframe: str
    provider: str
    bars: int
    changes: int
    median_bp: float
    max_bp: float
    first: datetime
    last: datetime
    latest: datetime

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in plain.items()}


@dataclass(frozen=True, slots=True)
class Restatements:
    """The latest restatements, and totals of all of them by series; `total` counts them."""

    rows: Sequence[Restatement]
    series: Sequence[RestatedSeries]

    @property
    def total(self) -> int:
        """How many changes there are, listed or not."""
        return sum(each.changes for each in self.series)

    def as_dict(self) -> dict[str, object]:
        """Return them as plain JSON values."""
        return {
            "total": self.total,
            "series": [each.as_dict() for each in self.series],
            "restatements": [each.as_dict() for each in self.rows],
        }


def restatements(
    manager: DeltaLakeManager,
    *,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe] | None = None,
    interval: Interval | None = None,
    limit: int | None = None,
) -> Restatements:
    """List every bar that has more than one version, the latest change first.

    Args:
        manager: the lake.
        assets: asset pairs as registered; all by default.
        timeframes: bar lengths; all by default.
        interval: opens of the bars; all by default.
        limit: at most so many changes are listed; totals count all of them.

    Raises:
        StorageError: the lake cannot be read.
    """
    contract = load_contracts()[MARKET_DATA]
    latest: list[pl.DataFrame] = []
    series: list[RestatedSeries] = []
    for span in Wanted(assets, timeframes, interval).spans(contract):
        for asset, held in restated_by_asset(manager, span).items():
            changes = _of_asset(manager, span, asset, held, contract.value_columns)
            series += _totals(changes)
            latest = _newest_first([*latest, changes], limit)
    rows = [_restatement(row, contract.value_columns) for part in latest for row in part.to_dicts()]
    return Restatements(rows, sorted(series, key=lambda each: each.asset_pair))


def _of_asset(manager: DeltaLakeManager, span: Span, asset: str, held: Held, values: Sequence[str]) -> pl.DataFrame:
    """Return an asset's changes; all versions of a bar are in the same piece."""
    columns, providers = [*_KEYS, *values, _KNOWN], pl.col("provider").is_in(list(held.providers))
    pieces = (read_series(manager, piece, asset, columns).filter(providers) for piece in slices(span, held))
    return pl.concat([_changes(rows, span, values) for rows in pieces])


def _changes(rows: pl.DataFrame, span: Span, values: Sequence[str]) -> pl.DataFrame:
    """Return a row for each version but the first of a bar, with the one before and how far close moved."""
    versions = rows.filter(pl.len().over(_KEYS) > 1).sort([*_KEYS, _KNOWN])
    before = [pl.col(name).shift().over(_KEYS).alias(_BEFORE + name) for name in [*values, _KNOWN]]
    moved = (pl.col("close") - pl.col("before_close")) / pl.col("before_close").abs() * 10_000
    changes = versions.with_columns(before).filter(pl.col(_BEFORE + _KNOWN).is_not_null())
    return changes.with_columns(
        # There is no share of nothing.
        pl.when(pl.col("before_close") != 0).then(moved).alias(_MOVED),
        pl.lit(span.timeframe.value).alias("timeframe"),
    )


def _newest_first(parts: Sequence[pl.DataFrame], limit: int | None) -> list[pl.DataFrame]:
    together = pl.concat(parts).sort([_KNOWN, *_KEYS], descending=[True, False, False, False])
    return [together if limit is None else together.head(limit)]


def _totals(changes: pl.DataFrame) -> list[RestatedSeries]:
    moved = pl.col(_MOVED).abs()
    rows = changes.group_by("asset_pair", "timeframe", "provider", maintain_order=True).agg(
        pl.col("timestamp").n_unique().alias("bars"),
        pl.len().alias("changes"),
        moved.median().fill_null(0.0).alias("median_bp"),
        moved.max().fill_null(0.0).alias("max_bp"),
        pl.col("timestamp").min().alias("first"),
        pl.col("timestamp").max().alias("last"),
        pl.col(_KNOWN).max().alias("latest"),
    )
    return [RestatedSeries(**row) for row in rows.to_dicts()]


def _restatement(row: Mapping[str, Any], values: Sequence[str]) -> Restatement:
    return Restatement(
        **{name: row[name] for name in ("asset_pair", "timeframe", "timestamp", "provider")},
        before={name: row[_BEFORE + name] for name in values},
        after={name: row[name] for name in values},
        known_before=row[_BEFORE + _KNOWN],
        known_after=row[_KNOWN],
        moved_bp=row[_MOVED],
    )
