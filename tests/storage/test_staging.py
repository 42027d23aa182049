"""Rows staged for Spark: every row once, no partition in two files, in order of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import contract_for
from pipelines.storage.engines.staging import stage

CONTRACT = contract_for("raw_market_data_1m")
PARTITIONS = list(CONTRACT.partition_columns)


def table(days: np.ndarray, assets: np.ndarray, times: np.ndarray) -> pa.Table:
    names = np.array(["BTCUSD", "ETHUSD", "SOLUSD"])
    return pa.table(
        {
            "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "partition_date": pa.array(days.astype(np.int32), pa.int32()).cast(pa.date32()),
            "partition_asset_pair": pa.array([None if a == 3 else names[a] for a in assets], pa.string()),
            "row": np.arange(len(days)),
        }
    )


def staged(rows: pa.Table, folder: Path, tasks: int, contract=CONTRACT) -> list[pl.DataFrame]:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    stage(rows, contract, folder, tasks)
    files = sorted(folder.glob("*.parquet"))
    assert all(pq.ParquetFile(file).metadata.num_row_groups <= 1 for file in files)
    return [pl.read_parquet(file) for file in files]


@given(
    count=st.integers(1, 400),
    days=st.integers(1, 40),
    assets=st.integers(1, 4),
    tasks=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_row_once_and_no_partition_in_two_files(tmp_path_factory, count, days, assets, tasks, seed):
    rng = np.random.default_rng(seed)
    rows = table(rng.integers(0, days, count), rng.integers(0, assets, count), rng.integers(0, 1000, count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.storage.engines.staging._ROWS_PER_TASK", 10)
        files = staged(rows, tmp_path_factory.getbasetemp() / "stage", tasks)
    assert 1 <= len(files) <= tasks
    assert sorted(pl.concat(files)["row"]) == list(range(count))
    seen = [set(file.select(PARTITIONS).unique().rows()) for file in files]
    assert sum(map(len, seen)) == len(set().union(*seen))
    for file in files:
        runs = file.with_columns(run=pl.struct(PARTITIONS).rle_id())
        assert runs.n_unique("run") == file.select(PARTITIONS).n_unique()
        assert (
            runs.group_by("run").agg((pl.col("timestamp").diff().dt.total_microseconds() < 0).any())["timestamp"].any()
            is False
        )


def test_rows_without_partitions_or_time_go_as_they_are(tmp_path):
    plain = replace(CONTRACT, columns=tuple(replace(c, partition=False) for c in CONTRACT.columns), event_time=None)
    rows = pa.table({"row": [3, 1, 2]})
    (only,) = staged(rows, tmp_path / "stage", 4, plain)
    assert only["row"].to_list() == [3, 1, 2]


def test_more_partitions_than_16_bits_hold(tmp_path):
    count = 70_000
    rows = table(np.arange(count) // 4, np.arange(count) % 4, np.zeros(count, np.int64))
    files = staged(rows.take(pa.array(np.random.default_rng(1).permutation(count))), tmp_path / "stage", 3)
    assert sorted(pl.concat(files)["row"]) == list(range(count))
    assert len(files) == 3
