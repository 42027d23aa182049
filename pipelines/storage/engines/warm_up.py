"""A throwaway commit: a fresh JVM needs ten seconds of class loading and compiling before its first real one."""

from __future__ import annotations

import tempfile
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.cluster import is_cluster
from pipelines.contracts import contract_for
from pipelines.storage import creation
from pipelines.storage.engines.spark import SparkEngine
from pipelines.storage.lake import Lake
from pipelines.storage.names import lake_root
from pipelines.storage.writing.append import Appender

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.config import Settings

_TABLE = "raw_market_data_1m"
_DAYS = 8
_once = threading.Lock()
_warm: set[SparkSession] = set()


def warm_up(session: SparkSession, settings: Settings) -> None:
    """Write a few made-up bars to a temporary lake as an append does, once a session, and forget them.

    Not on a cluster, whose executors would leave their part of it on other machines.

    Raises:
        StorageError: the temporary folder cannot be written.
    """
    if is_cluster(session.sparkContext.master):
        return
    with _once:
        if session not in _warm:
            _commit(settings)
            _warm.add(session)


def _commit(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="lakehouse-warm-") as folder:
        lake = Lake(lake_root(folder))
        creation.ensure_table(lake, _TABLE, settings.delta_lake, synthetic=True)
        Appender(lake, SparkEngine(lake, settings), retries=0).append(_TABLE, contract_for(_TABLE), _bars(), "warm-up")


def _bars() -> pa.Table:
    first = datetime(2000, 1, 1, tzinfo=UTC)
    count = _DAYS * 1440
    opens = [first + timedelta(minutes=minute) for minute in range(count)]
    price = pa.array([1.0 + (minute % 97) / 100 for minute in range(count)])
    texts = {"asset_pair": "BTCUSD", "timeframe": "1m", "provider": "sample", "price_side": "trade"}
    return pa.table(
        {
            "timestamp": pa.array(opens, pa.timestamp("us", "UTC")),
            **dict.fromkeys(("open", "high", "low", "close", "volume"), price),
            **{name: pa.repeat(pa.scalar(text), count) for name, text in texts.items()},
            **{name: pa.repeat(pa.scalar(False), count) for name in ("is_adjusted", "is_derived")},
        }
    )
