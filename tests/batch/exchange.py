"""A local exchange for the ingester's tests, and readers that are not the code under test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from deltalake import DeltaTable

from pipelines.config import Settings
from pipelines.timeframes import Timeframe, parse_instant
from tests.conftest import make_settings
from tests.servers.coinbase import CoinbaseServer

BAR = ["open", "high", "low", "close", "volume"]


class Exchange(CoinbaseServer):
    """A Coinbase-format server whose rows, [time, low, high, open, close, volume], a test may edit."""

    edit: Callable[[list[Any]], list[Any]] = staticmethod(lambda rows: rows)

    def distorted(self, rows: list[Any], distort: str) -> list[Any]:
        return super().distorted(self.edit(rows), distort)

    def asked(self) -> list[tuple[str, int, datetime, datetime]]:
        """Return what was asked for: product, granularity, first and last open, both inclusive."""
        return [
            (
                request.path.split("/")[2],
                int(request.query["granularity"]),
                parse_instant(request.query["start"]),
                parse_instant(request.query["end"]),
            )
            for request in self.log
        ]


def exchange_settings(folder: Path, server: CoinbaseServer, *overrides: dict[str, Any]) -> Settings:
    """Return settings that know only this exchange, without a rate limit to wait for."""
    fast = {"base_url": server.url, "requests_per_minute": 600_000, "burst": 1000, "backoff_seconds": 0.001}
    providers = {"providers": {"chain": ["coinbase"], "coinbase": fast}}
    return make_settings(folder, providers, *overrides)


def truth(server: CoinbaseServer, product: str, timeframe: Timeframe, start: str, end: str) -> pd.DataFrame:
    """Return the bars the exchange has, indexed by open; 4h by pandas from its 1h."""
    native = Timeframe.H1 if timeframe is Timeframe.H4 else timeframe
    rows = server.truth(product, parse_instant(start), parse_instant(end), native.seconds)
    frame = pd.DataFrame(rows, columns=["timestamp", *BAR])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s", utc=True)
    frame = frame.set_index("timestamp")
    if timeframe is Timeframe.H4:
        how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
        frame = frame.resample("4h").agg(how).dropna()
    return frame


def stored(lake: Path | str, table: str, asset: str) -> pd.DataFrame:
    """Return an asset's rows as DuckDB reads them, indexed by open."""
    rows = DeltaTable(str(Path(lake) / table)).to_pyarrow_dataset()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        frame = connection.execute("SELECT * FROM rows WHERE asset_pair = ? ORDER BY timestamp", [asset]).df()
    return frame.set_index("timestamp")


def count(lake: Path | str) -> dict[str, int]:
    """Return the rows of every bronze table as delta-rs counts them."""
    return {
        folder.name: DeltaTable(str(folder)).count()
        for folder in sorted(Path(lake).iterdir())
        if (folder / "_delta_log").is_dir() and folder.name not in ("ingest_coverage", "quality_results")
    }


def assert_whole(server: CoinbaseServer, lake: Path | str, assets: list[str], start: str, end: str) -> None:
    """Assert that bronze has every bar of all timeframes once, with the exchange's values."""
    for asset in assets:
        for timeframe in Timeframe:
            expected = truth(server, f"{asset[:3]}-{asset[3:]}", timeframe, start, end)
            found = stored(lake, f"raw_market_data_{timeframe.value}", asset)
            assert not found.index.has_duplicates
            pd.testing.assert_frame_equal(
                found[BAR], expected[BAR], check_freq=False, check_index_type=False, rtol=1e-12, check_names=False
            )


def days(start: str, number: int) -> str:
    """Return a date some days later."""
    return (parse_instant(start) + timedelta(days=number)).date().isoformat()
