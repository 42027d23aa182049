"""What was asked for on the command line, as jobs; everything is checked before anything is done."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.batch.jobs import Job, bar_job, dataset_job, parse_timeframe, trailing_days
from pipelines.contracts import Contract, load_contracts
from pipelines.errors import ConfigError, InvalidRangeError
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.registry import source_class
from pipelines.timeframes import Timeframe, parse_instant

if TYPE_CHECKING:
    from pipelines.sources.base import Source

# Hours first: a provider without 4h bars gets them built from its hours.
_ORDER = (Timeframe.H1, Timeframe.M1, Timeframe.M5, Timeframe.M15, Timeframe.H4, Timeframe.D1)


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of a backfill, as given."""

    assets: tuple[str, ...]
    timeframes: tuple[str, ...]
    days: int | None
    start: str | None
    end: str | None
    provider: str | None
    dataset: str
    force: bool

    @property
    def synthetic(self) -> bool:
        """Whether the provider asked for makes its data up.

        Raises:
            ConfigError: there is no such provider.
        """
        return self.provider is not None and self._source(self.provider).capabilities.synthetic

    def jobs(self, now: datetime) -> list[Job]:
        """Return the jobs, hours before what may be built from them.

        Raises:
            ConfigError: an unknown provider or dataset, or options that do not go together.
            InvalidRangeError: an unknown timeframe, or a range that is inverted, empty or in the future.
            UnknownAssetError: an asset is unknown.
        """
        contract = self._contract()
        if self.provider is not None:
            self._serves(self._source(self.provider), contract)
        self._check_range(now)
        if contract.id != MARKET_DATA:
            return self._other_jobs(contract, now)
        wanted = {parse_timeframe(name) for name in self.timeframes} or set(Timeframe)
        frames = [frame for frame in _ORDER if frame in wanted]
        jobs = [self._bar_job(asset, frame, now) for frame in frames for asset in self.assets]
        # BTCUSD and btc-usd are one.
        return list({(job.subject, job.timeframe): job for job in jobs}.values())

    def range_text(self) -> str:
        """Return the range as a person would say it."""
        if self.days is not None:
            return f"the last {self.days} days" if self.days > 1 else "the last 24 hours"
        return f"{self.start} to {self.end or 'now'}"

    def _contract(self) -> Contract:
        contracts = {name: contract for name, contract in load_contracts().items() if not contract.is_log}
        if self.dataset not in contracts:
            close = difflib.get_close_matches(self.dataset, contracts, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(contracts)}"
            raise ConfigError(f"unknown dataset {self.dataset!r}; {hint}")
        if self.timeframes and self.dataset != MARKET_DATA:
            raise ConfigError(f"--timeframes is for {MARKET_DATA}; {self.dataset} has none, leave it out")
        return contracts[self.dataset]

    @staticmethod
    def _source(name: str) -> type[Source]:
        if name == "files":
            raise ConfigError("files are loaded with `lakehouse load PATH`")
        return source_class(name)

    @staticmethod
    def _serves(source: type[Source], contract: Contract) -> None:
        served = source.capabilities.datasets
        if contract.id not in served:
            raise ConfigError(f"{source.name} does not serve {contract.id}; it serves {', '.join(sorted(served))}")

    def _check_range(self, now: datetime) -> None:
        if self.days is not None and (self.start or self.end):
            raise InvalidRangeError("--days counts back from now; give either --days N or --start and --end")
        if self.days is None and not self.start:
            raise InvalidRangeError("no range: give --days 7, or --start 2025-12-07 and perhaps --end 2025-12-14")
        if self.start and not self.end and parse_instant(self.start) >= now:
            raise InvalidRangeError(f"the range lies in the future: it starts at {self.start}")

    def _bar_job(self, asset: str, timeframe: Timeframe, now: datetime) -> Job:
        start: str | datetime = self.start or now
        end: str | datetime = self.end or now
        if self.days is not None:
            span = trailing_days(timeframe, self.days, now)
            start, end = span.start, span.end
        return bar_job(asset, timeframe, start, end, now=now, provider=self.provider, force=self.force)

    def _other_jobs(self, contract: Contract, now: datetime) -> list[Job]:
        start: str | datetime = self.start or now - timedelta(days=self.days or 0)
        by_asset = "asset_pair" in contract.arrow_schema.names
        return [
            dataset_job(
                contract.id,
                subject,
                start,
                self.end or now,
                now=now,
                provider=self.provider,
                asset=by_asset,
                force=self.force,
            )
            for subject in self.assets
        ]
