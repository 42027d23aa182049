"""The batch ingester: incremental, restartable loads of one series at a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job, dataset_job
from pipelines.batch.results import IngestResult
from pipelines.config import Settings, settings_from
from pipelines.contracts import load_contracts
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.storage import DeltaLakeManager


class BatchDataIngester:
    """Ingests historical data into a lake.

    Args:
        delta_mgr: the lake.
        config: settings, a nested mapping of overrides, or a settings file's path; the project's settings by default.
        clock: the present, aware UTC; for tests.

    Raises:
        ConfigError: the settings are wrong.
    """

    def __init__(
        self,
        delta_mgr: DeltaLakeManager,
        config: Settings | Mapping[str, object] | Path | str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.delta_mgr = delta_mgr
        self.settings = settings_from(config)
        self._clock = clock

    async def ingest_historical_data(
        self,
        asset_pair: str,
        timeframe: Timeframe | str,
        start_date: str | date | datetime,
        end_date: str | date | datetime,
        provider: str | None = None,
        force: bool = False,
    ) -> IngestResult:
        """Fetch and land the bars of [start_date, end_date) that are not covered yet.

        Args:
            asset_pair: as BTCUSD, EURUSD or AAPL.
            timeframe: 1m, 5m, 15m, 1h, 4h or 1d.
            start_date: first bar open; a bare date is 00:00 UTC, a zoneless time is UTC.
            end_date: end of the range, exclusive.
            provider: ask only this one; otherwise the chain in order, and any real provider's coverage counts.
            force: fetch the whole range again; changed bars land as restatements.

        Returns:
            What was fetched, landed and refused; `ok` is false if a window failed.

        Raises:
            InvalidRangeError: the timeframe is unknown, or the range is inverted, empty or wholly in the future.
            UnknownAssetError: there is no such asset.
            ConfigError: there is no such provider.
            MixedOriginError: synthetic data would go into a real lake, or the reverse.
        """
        job = bar_job(asset_pair, timeframe, start_date, end_date, now=self._clock(), provider=provider, force=force)
        return (await Backfill(self.delta_mgr, self.settings, clock=self._clock).run([job])).series[0]

    async def ingest_dataset(
        self,
        dataset: str,
        subject: str,
        start_date: str | date | datetime,
        end_date: str | date | datetime,
        *,
        provider: str | None = None,
        force: bool = False,
    ) -> IngestResult:
        """Fetch and land a dataset that is not bars, as `macro_indicators` of DGS10 or `raw_news_sentiment` of BTCUSD.

        Raises:
            As `ingest_historical_data`.
        """
        asset = "asset_pair" in load_contracts()[dataset].arrow_schema.names
        job = dataset_job(
            dataset, subject, start_date, end_date, now=self._clock(), provider=provider, asset=asset, force=force
        )
        return (await Backfill(self.delta_mgr, self.settings, clock=self._clock).run([job])).series[0]
