"""A lake made on a real cluster is the one made on this machine, and the cluster's workers made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from pipelines.instruments import load_registry
from pipelines.session import INTERPRETED
from pipelines.storage.stores.s3 import delta_options
from tests.cli.shell import environment
from tests.servers.spark import SparkCluster

pytestmark = pytest.mark.spark(alone=True)

# Runs in a process of its own on the cluster, and in the test's own on this machine.
JOB = """
import json
import sys

import pandas as pd

from pipelines.cli import main
from pipelines.config import load_settings
from pipelines.storage import DeltaLakeManager


def run(*arguments):
    try:
        main([*arguments], prog_name="lakehouse")
    except SystemExit as end:
        assert not end.code, arguments


run("backfill", "--provider", "sample", "--assets", "BTCUSD,ETHUSD", "--timeframes", "1h",
    "--start", "2025-12-01", "--end", "2025-12-05", "--quiet")
settings = load_settings()
lake = DeltaLakeManager(settings.delta_lake.sample_storage_path, settings)
bars = lake.read_table("raw_market_data_1h", assets="BTCUSD", end="2025-12-01T03:00")
changed = bars[["asset_pair", "timestamp"]].assign(volume=bars["volume"] + 1)
assert lake.merge_upsert(changed, "raw_market_data_1h", ["asset_pair", "timestamp"], ["volume"]).updated == 3
run("transform", "--sample", "--select", "market_data_enriched")
"""
WHERE = """
import pyarrow as pa
from pipelines.session import get_spark


def where(batches):
    import sys
    import pipelines
    from pipelines.instruments import load_registry

    for batch in batches:
        yield pa.RecordBatch.from_pylist([{"code": pipelines.__file__, "assets": len(list(load_registry()))}])


spark = get_spark()
found = spark.range(0, 8, numPartitions=8).mapInArrow(where, "code string, assets bigint").collect()
print(json.dumps({"application": spark.sparkContext.applicationId, "code": [r.code for r in found],
                  "assets": [r.assets for r in found]}))
"""
CHANGES_BY_RUN = {"ingested_at", "run_id"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[SparkCluster]:
    with SparkCluster(workers=2) as started:
        yield started


def test_backfill_merge_and_transform_are_the_same_on_a_cluster(
    cluster: SparkCluster, spark: SparkSession, s3_lake_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster's lake is in S3, as where machines share no disk; the other one is in a folder."""
    with monkeypatch.context() as here:
        for name, value in variables(tmp_path / "here").items():
            here.setenv(name, value)
        exec(compile(JOB, "job", "exec"), {})
    done = subprocess.run(
        [sys.executable, "-c", JOB + WHERE], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, **variables(tmp_path / "there"), **on_cluster(cluster, s3_lake_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for table in ("raw_market_data_1h", "silver/market_data_enriched"):
        made = rows(f"{s3_lake_path}/{table}")
        assert made.num_rows > 100
        assert made.equals(rows(f"{tmp_path}/here/sample/{table}")), table
    told = json.loads(done.stdout.splitlines()[-1])
    assert_workers_did_it(cluster, told)


def variables(folder: Path) -> dict[str, str]:
    return environment(folder, LAKEHOUSE__TRANSFORM__PATH=str(folder / "transform"))


def on_cluster(cluster: SparkCluster, lake: str) -> dict[str, str]:
    return {
        "LAKEHOUSE__DELTA_LAKE__SAMPLE_STORAGE_PATH": lake,
        "LAKEHOUSE__SPARK__MASTER": cluster.master,
        "LAKEHOUSE__SPARK__DRIVER_HOST": "127.0.0.1",
        "LAKEHOUSE__SPARK__DRIVER_MEMORY": "1g",
        "LAKEHOUSE__SPARK__SHUFFLE_PARTITIONS": "2",
        "LAKEHOUSE__SPARK__EXECUTOR_MEMORY": "512m",
        "LAKEHOUSE__SPARK__EXECUTOR_CORES": "1",
        "LAKEHOUSE__SPARK__EXECUTOR_PYTHON": str(cluster.python()),
        "LAKEHOUSE__SPARK__EXTRA_CONF": json.dumps(INTERPRETED),
    }


def rows(address: str) -> pa.Table:
    """Return what a table holds, as delta-rs reads it, in one order, without what tells when it was written."""
    found = DeltaTable(address, storage_options=delta_options()).to_pyarrow_table()
    kept = found.select(sorted(set(found.column_names) - CHANGES_BY_RUN))
    versions = [("asset_pair", "ascending"), ("timestamp", "ascending"), ("volume", "ascending")]
    return kept.sort_by(versions).combine_chunks()


def assert_workers_did_it(cluster: SparkCluster, told: dict[str, Any]) -> None:
    """Assert that both workers finished tasks of the application, by the code that was sent to them."""
    applications = {each["id"]: each for each in cluster.state()["completedapps"]}
    assert (applications[told["application"]]["state"], applications[told["application"]]["cores"]) == ("FINISHED", 2)
    assert all(count > 5 for count in cluster.finished_tasks(told["application"]))
    assert told["code"]
    assert all(Path(path).is_relative_to(cluster.folder) for path in told["code"])
    assert set(told["assets"]) == {len(list(load_registry()))}
