"""Freshness: how far the newest row of each series is behind what should be there by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.batch.coverage import CoverageMap
from pipelines.calendars import newest_owed
from pipelines.contracts import Contract, load_contracts
from pipelines.data_quality.presence import BarSeries, series_in
from pipelines.sources.base import MARKET_DATA
from pipelines.storage.quality_log import QualityResult
from pipelines.storage.scan import quoted
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.instruments import Instrument
    from pipelines.storage import DeltaLakeManager

_ASSET = "asset_pair"


@dataclass(frozen=True, slots=True)
class SeriesFreshness:
    """How fresh one series is; instants are aware UTC.

    Attributes:
        asset_pair: the instrument, or the subject of another dataset.
        timeframe: the bars' length; None for other datasets.
        newest_close: when the newest bar that is there closed; of other datasets the newest event; None for none.
        due_close: when the newest bar that is due closed; of other datasets the oldest instant the newest may have;
            None where nothing is due, as of an asset not listed yet.
        lag: how far behind `due_close` it is; zero if nothing later is due than what is there.
        fresh: whether there is no lag.
        dataset: the contract's id.
    """

    asset_pair: str
    timeframe: Timeframe | None
    newest_close: datetime | None
    due_close: datetime | None
    lag: timedelta
    fresh: bool
    dataset: str = MARKET_DATA

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values; the lag in seconds."""
        return {
            "dataset": self.dataset,
            "asset_pair": self.asset_pair,
            "timeframe": self.timeframe.value if self.timeframe else None,
            "newest_close": self.newest_close.isoformat() if self.newest_close else None,
            "due_close": self.due_close.isoformat() if self.due_close else None,
            "lag_seconds": self.lag.total_seconds(),
            "fresh": self.fresh,
        }

    def as_result(self) -> QualityResult:
        """Return it as a record for `quality_results`; `observed` is the lag in seconds."""
        return QualityResult(
            kind="freshness",
            dataset=self.dataset,
            check_name="newest row is there",
            severity="warning",
            success=self.fresh,
            rows_checked=1,
            rows_failed=0 if self.fresh else 1,
            table_name=load_contracts()[self.dataset].table_for(self.timeframe),
            asset_pair=self.asset_pair,
            timeframe=self.timeframe.value if self.timeframe else None,
            observed=self.lag.total_seconds(),
        )


def freshness(
    manager: DeltaLakeManager,
    now: datetime,
    *,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe | str] | None = None,
) -> list[SeriesFreshness]:
    """Hold the newest row of every series against what is due.

    A bar is due when it has closed, by its calendar, and the latency its contract promises has gone by since; hours of
    an exchange, which may begin at half past, are given one length more. Of a dataset without bars, which no calendar
    governs, an event is due within every such latency.

    Args:
        manager: the lake.
        now: the present, aware UTC.
        assets: only these asset pairs; leaves other datasets than bars out, as `timeframes` does.
        timeframes: only these lengths.

    Raises:
        UnknownAssetError: the lake knows nothing of one of `assets`, or a series' asset is not registered any more.
        ConfigError: an instrument names an unknown calendar.
    """
    coverage = CoverageMap.from_table(manager.coverage.read(dataset=MARKET_DATA))
    series = series_in(manager, coverage, assets, timeframes)
    newest = {
        (pair, timeframe): instant
        for timeframe in dict.fromkeys(each.timeframe for each in series)
        for pair, instant in _newest(manager, load_contracts()[MARKET_DATA], timeframe).items()
    }
    found = [_of_bars(each, newest.get((each.asset_pair, each.timeframe)), coverage, now) for each in series]
    if assets is None and timeframes is None:
        for contract in load_contracts().values():
            if contract.id != MARKET_DATA and contract.freshness_minutes is not None:
                found += _of_events(manager, contract, now)
    return found


def close_owed(instrument: Instrument, timeframe: Timeframe, now: datetime) -> datetime | None:
    """Return when the newest bar closed that should be there by now, by its calendar and its contract's latency.

    Args:
        instrument: whose calendar to ask.
        timeframe: the bars' length.
        now: the present, aware UTC.

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    latency = timedelta(minutes=load_contracts()[MARKET_DATA].freshness_minutes or 0)
    owed = newest_owed(instrument, timeframe, now, latency)
    return None if owed is None else owed + timeframe.step


def _of_bars(series: BarSeries, opened: datetime | None, coverage: CoverageMap, now: datetime) -> SeriesFreshness:
    there = None if opened is None else opened + series.timeframe.step
    wanted = close_owed(series.instrument, series.timeframe, now)
    # Of a series without a row, what lacks is all since it was first asked for.
    since = there or min(part.start for part in coverage.done(series.key))
    lag = max(timedelta(), wanted - since) if wanted else timedelta()
    return SeriesFreshness(series.asset_pair, series.timeframe, there, wanted, lag, not lag)


def _of_events(manager: DeltaLakeManager, contract: Contract, now: datetime) -> list[SeriesFreshness]:
    due = now - timedelta(minutes=contract.freshness_minutes or 0)
    return [
        SeriesFreshness(subject, None, newest, due, max(timedelta(), due - newest), newest >= due, contract.id)
        for subject, newest in sorted(_newest(manager, contract).items())
    ]


def _newest(manager: DeltaLakeManager, contract: Contract, timeframe: Timeframe | None = None) -> dict[str, datetime]:
    """Return the newest event time of each subject of a table; bars' opens."""
    table = contract.table_for(timeframe)
    if not manager.exists(table) or contract.event_time is None:
        return {}
    subject = _ASSET if _ASSET in contract.arrow_schema.names else contract.keys[0]
    sql = f"SELECT {quoted(subject)}, max({quoted(contract.event_time)}) FROM {quoted(table)} GROUP BY 1"  # noqa: S608
    rows = manager.query(sql)
    return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))
