"""Silver over a lake in S3: built, gone on with, and equal to what a lake on a disk gives."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipelines.storage import DeltaLakeManager
from tests.servers.s3 import S3Server
from tests.transform.test_runner import KEYS, Workbench, bars, decision, execution, land, records, restated, silver

pytestmark = pytest.mark.spark

# The tables that are compared, and what they are made from: a run makes what it selects, and no more.
SILVER = (*KEYS, "int_closes")


def first(lake: DeltaLakeManager) -> None:
    for timeframe, count in (("5m", 80), ("1h", 240)):
        land(lake, bars("BTCUSD", timeframe, 0, count))
    record(lake, "raw_ai_decisions", decision("early", timedelta(hours=3)))
    record(lake, "raw_trade_executions", execution("in", timedelta(hours=4), "BUY"))


def second(lake: DeltaLakeManager) -> None:
    """New bars behind a partition that the state reaches into, a restated one, an asset, records."""
    land(lake, bars("BTCUSD", "1h", 240, 5))
    restated(lake, "BTCUSD", "5m", 40)
    land(lake, bars("ETHUSD", "5m", 5, 20, seed=1))
    record(lake, "raw_ai_decisions", decision("later", timedelta(hours=5)))
    record(lake, "raw_trade_executions", execution("out", timedelta(hours=6), "SELL"))


def record(lake: DeltaLakeManager, table_name: str, row: dict[str, object]) -> None:
    lake.append(table_name, records(table_name, [row]), "run")


def rows(lake: DeltaLakeManager) -> dict[str, pd.DataFrame]:
    """Silver, less the instants at which a lake learned of a row."""
    return {name: table.drop(columns="ingested_at", errors="ignore") for name, table in silver(lake).items()}


@pytest.mark.soak
def test_an_increment_in_s3_equals_a_build_on_a_disk(
    spark: SparkSession, s3_server: S3Server, s3_lake_path: str, tmp_path: Path
) -> None:
    local = Workbench(tmp_path / "local")
    remote = Workbench(tmp_path / "remote")
    remote.lake = DeltaLakeManager(s3_lake_path, remote.lake.settings)
    first(remote.lake)
    remote.run("run", "--select", *SILVER)
    assert len(rows(remote.lake)["market_data_enriched"]) == 320
    second(remote.lake)
    remote.run("run", "--select", *SILVER)
    first(local.lake)
    second(local.lake)
    local.run("run", "--select", *SILVER)
    found, wanted = rows(remote.lake), rows(local.lake)
    for name in KEYS:
        pd.testing.assert_frame_equal(found[name], wanted[name], rtol=1e-9, atol=1e-9, check_exact=False, obj=name)
    # The second run added to the table, and a third one finds nothing to do.
    layer = DeltaLakeManager(f"{s3_lake_path}/silver", remote.lake.settings)
    history = layer.get_table_history("market_data_enriched")
    assert history["operation"].iloc[0] == "WRITE"
    remote.run("run", "--select", *SILVER)
    assert len(layer.get_table_history("market_data_enriched")) == len(history) == 2
    assert not (tmp_path / "remote" / "lake").exists()
