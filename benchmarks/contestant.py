"""One contestant of the storage benchmarks in a process of its own: does one task and prints one JSON line.

`spark` and `embedded` are the product's engines. `stock` is Spark with Delta as its quick-start guide sets it up and
`delta-rs` is the deltalake package by itself: neither of them validates, deduplicates or remembers anything.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.bars import START, bars

TABLE = "raw_market_data_1m"
QUOTES = "quotes"
PARTITIONS = ["partition_date", "partition_asset_pair"]
KEYS = ["asset_pair", "timestamp"]
# 100,000 changes to ten days of ten assets, of 2,001,600 rows: nine in ten update a row.
CHANGED_DAYS, UPDATED_ROWS, NEW_ROWS = 10, 90_000, 10_000


def complete(rows: pa.Table) -> pa.Table:
    """Return bars with the columns that storage adds, so that every contestant writes the same."""
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
    rows = rows.append_column("ingested_at", pa.repeat(now, rows.num_rows))
    return partitioned(rows.append_column("run_id", pa.repeat("bench", rows.num_rows)))


def partitioned(rows: pa.Table) -> pa.Table:
    """Return rows with the partition columns."""
    dates = pc.floor_temporal(rows["timestamp"], unit="day").cast(pa.timestamp("us")).cast(pa.date32())
    return rows.append_column("partition_date", dates).append_column("partition_asset_pair", rows["asset_pair"])


def changes(days: int) -> pa.Table:
    """Return what is merged: changed closes of the last days, and new minutes after them."""
    since = START + timedelta(days=days - CHANGED_DAYS)
    known = (
        bars(days).filter(pc.field("timestamp") >= pa.scalar(since, pa.timestamp("us", "UTC"))).slice(0, UPDATED_ROWS)
    )
    known = known.set_column(known.column_names.index("close"), "close", pc.add(known["close"], 0.001))
    fresh = bars(1, days).slice(0, NEW_ROWS)
    return pa.concat_tables([known, fresh])


def stock_spark(*needs: str) -> Any:  # noqa: ANN401 - imported late
    """Return a session as the quick-start guide of Delta Lake makes it, with further sets of jars where needed."""
    from pyspark.sql import SparkSession

    from pipelines.jars import jar_paths

    jars = os.pathsep.join(str(jar) for jar in jar_paths(["delta", *needs]))
    session = (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.extraClassPath", jars)
        .config("spark.driver.memory", "2g")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    session.range(10).count()
    return session


def ours(engine: str, lake: Path) -> Any:  # noqa: ANN401 - imported late
    """Return the product's lake, with its Spark session up where it has one."""
    from pipelines.config import load_settings
    from pipelines.storage import DeltaLakeManager

    settings = load_settings(overrides={"storage": {"engine": engine}, "dlq": {"path": str(lake / "dlq")}})
    manager = DeltaLakeManager(lake, settings)
    if engine == "spark":
        from pipelines.session import get_spark

        get_spark(settings).range(10).count()
    else:
        manager.warm_up()
    return manager


def write(who: str, lake: Path, days: int) -> dict[str, Any]:
    """Write the bars to an empty table and, warm by then, to another one."""
    rows = bars(days)
    if who in {"spark", "embedded"}:
        manager = ours(who, lake)
        second = ours(who, lake / "second")
        return _timed(
            lambda: manager.append(TABLE, rows, "bench").rows, lambda: second.append(TABLE, rows, "bench").rows
        )
    whole = complete(rows)
    if who == "delta-rs":
        from deltalake import write_deltalake

        def land(where: Path) -> int:
            write_deltalake(str(where), whole, mode="append", partition_by=PARTITIONS)
            return whole.num_rows

        return _timed(lambda: land(lake / TABLE), lambda: land(lake / "second" / TABLE))
    spark = stock_spark()
    pq.write_table(whole, lake / "rows.parquet", compression="NONE")

    def save(where: Path) -> int:
        frame = spark.read.parquet(str(lake / "rows.parquet"))
        frame.write.format("delta").mode("append").partitionBy(*PARTITIONS).save(str(where))
        return whole.num_rows

    return _timed(lambda: save(lake / TABLE), lambda: save(lake / "second" / TABLE))


def merge(who: str, lake: Path, days: int) -> dict[str, Any]:
    """Merge the changes into two equal tables, one after the other."""
    given = changes(days)
    if who in {"spark", "embedded"}:
        first, second = ours(who, lake), ours(who, lake / "second")
        return _timed(lambda: _upsert(first, given), lambda: _upsert(second, given))
    whole = partitioned(given)
    condition = _condition(whole)
    if who == "delta-rs":
        from deltalake import DeltaTable

        def change(where: Path) -> int:
            merger = DeltaTable(str(where)).merge(whole, condition, source_alias="s", target_alias="t")
            done = merger.when_matched_update({"close": "s.close"}).when_not_matched_insert_all().execute()
            return int(done["num_target_rows_updated"] + done["num_target_rows_inserted"])

        return _timed(lambda: change(lake / QUOTES), lambda: change(lake / "second" / QUOTES))
    spark = stock_spark()
    pq.write_table(whole, lake / "rows.parquet", compression="NONE")

    def into(where: Path) -> int:
        from delta.tables import DeltaTable as SparkTable

        source = spark.read.parquet(str(lake / "rows.parquet")).alias("s")
        merger = SparkTable.forPath(spark, str(where)).alias("t").merge(source, condition)
        done = merger.whenMatchedUpdate(set={"close": "s.close"}).whenNotMatchedInsertAll().execute().collect()[0]
        return int(done["num_affected_rows"])

    return _timed(lambda: into(lake / QUOTES), lambda: into(lake / "second" / QUOTES))


def _upsert(manager: Any, given: pa.Table) -> int:  # noqa: ANN401 - imported late
    done = manager.merge_upsert(given, QUOTES, KEYS, ["close"])
    return int(done.updated + done.inserted)


def _condition(rows: pa.Table) -> str:
    """Return the condition a competent user writes: keys, and literal partition values to skip the rest by."""
    dates = ", ".join(f"DATE '{day}'" for day in sorted(set(rows["partition_date"].to_pylist())))
    return (
        "t.asset_pair = s.asset_pair AND t.timestamp = s.timestamp AND t.partition_date = s.partition_date "
        f"AND t.partition_asset_pair = s.partition_asset_pair AND t.partition_date IN ({dates})"
    )


def compact(who: str, lake: Path, _days: int) -> dict[str, Any]:
    """Compact the scattered table: in order of time, but for delta-rs, which is given its quicker way."""
    if who in {"spark", "embedded"}:
        manager = ours(who, lake)
        return _timed(lambda: manager.optimize_table(TABLE, zorder_columns=["timestamp"]).files_removed)
    if who == "delta-rs":
        from deltalake import DeltaTable

        table = DeltaTable(str(lake / TABLE))
        return _timed(lambda: int(table.optimize.compact()["numFilesRemoved"]))
    from delta.tables import DeltaTable as SparkTable

    stock = SparkTable.forPath(stock_spark(), str(lake / TABLE))
    return _timed(
        lambda: int(stock.optimize().executeZOrderBy(["timestamp"]).collect()[0]["metrics"]["numFilesRemoved"])
    )


def _timed(*tasks: Callable[[], int]) -> dict[str, Any]:
    seconds, counts = [], []
    for task in tasks:
        clock = time.perf_counter()
        counts.append(task())
        seconds.append(time.perf_counter() - clock)
    return {"seconds": seconds, "counts": counts}


TASKS: dict[str, Callable[[str, Path, int], dict[str, Any]]] = {"write": write, "merge": merge, "compact": compact}


def main() -> None:
    """Read the arguments, do the task, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("who", choices=["stock", "spark", "delta-rs", "embedded"])
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--days", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(TASKS[given.task](given.who, given.lake, given.days)))


if __name__ == "__main__":
    main()
