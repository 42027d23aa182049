"""The Spark engine: the default, and the one that scales past a machine."""

from __future__ import annotations

import shutil
import tempfile
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from pipelines.cluster import is_cluster
from pipelines.errors import ConcurrentWriteError, StorageError
from pipelines.storage.engines.base import TRANSACTION_APP, Engine, Ticket
from pipelines.storage.engines.staging import stage
from pipelines.storage.faults import explain, is_concurrent, spark_errors
from pipelines.storage.files import Partition, partition_columns
from pipelines.storage.results import Merged, Rewritten
from pipelines.storage.upkeep.optimize import partition_sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltalake import DeltaTable
    from pyspark.sql import Column, DataFrame, SparkSession

    from pipelines.config import Settings
    from pipelines.contracts import Contract
    from pipelines.storage.lake import Lake
    from pipelines.storage.writing.update import Bound, Change


class SparkEngine(Engine):
    """Writes with Spark; the session starts when first needed."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._lake = lake
        self._settings = settings

    @override
    def warm_up(self) -> None:
        """Start Spark and make a throwaway commit.

        Raises:
            SparkUnavailableError: Spark cannot start; names the fix.
        """
        from pipelines.storage.engines.warm_up import warm_up  # noqa: PLC0415 - only for those who write

        warm_up(self._spark(), self._settings)

    @override
    def append(self, table: DeltaTable, table_name: str, contract: Contract, rows: pa.Table, ticket: Ticket) -> None:
        folder: Path | None = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="lakehouse-stage-"))
            spark = self._spark()
            _write(_handed_over(spark, rows, contract, folder), self._lake.root.spark_uri(table_name), ticket)
        except spark_errors() as error:
            if not is_concurrent(error):
                raise StorageError(explain(error, f"cannot write {table_name}")) from error
        except (OSError, pa.ArrowException) as error:
            doing = f"cannot stage rows for {table_name} in {tempfile.gettempdir()}"
            raise StorageError(explain(error, doing)) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @override
    def optimize(self, table_name: str, chosen: frozenset[Partition] | None, zorder: Sequence[str]) -> Rewritten:
        columns = partition_columns(self._lake.open(table_name))
        condition = None if chosen is None or not columns else partition_sql(columns, chosen)
        try:
            metrics = _optimize(self._spark(), self._lake.root.spark_uri(table_name), zorder, condition)
        except spark_errors() as error:
            doing = f"cannot optimize {table_name}"
            if is_concurrent(error):
                raise ConcurrentWriteError(f"{doing}: another writer changed the same files; run it again") from error
            raise StorageError(explain(error, doing)) from error
        return Rewritten(
            version=self._lake.open(table_name).version(),
            partitions=metrics["partitionsOptimized"],
            files_added=metrics["numFilesAdded"],
            files_removed=metrics["numFilesRemoved"],
            bytes_added=metrics["filesAdded"]["totalSize"],
            bytes_removed=metrics["filesRemoved"]["totalSize"],
        )

    @override
    def merge(self, table: DeltaTable, table_name: str, change: Change) -> Merged | None:
        with tempfile.TemporaryDirectory(prefix="lakehouse-stage-") as folder:
            try:
                counts = _merge(self._spark(), Path(folder), self._lake.root.spark_uri(table_name), change)
            except spark_errors() as error:
                if is_concurrent(error):
                    return None
                raise StorageError(explain(error, f"cannot merge into {table_name}")) from error
        return Merged(self._lake.open(table_name).version(), *counts)

    def _spark(self) -> SparkSession:
        from pipelines.session import get_spark  # noqa: PLC0415 - Spark only when it is needed

        return get_spark(self._settings, needs=self._lake.root.spark_jars)


def _handed_over(spark: SparkSession, rows: pa.Table, contract: Contract, folder: Path) -> DataFrame:
    """Hand rows to Spark: by way of files in a folder, or of the driver where executors cannot see its files."""
    context = spark.sparkContext
    if not is_cluster(context.master):
        stage(rows, contract, folder, context.defaultParallelism)
        return spark.read.schema(contract.spark_schema()).parquet(str(folder))
    frame = spark.createDataFrame(rows, contract.spark_schema())
    if contract.partition_columns:
        # Each partition gets one new data file.
        frame = frame.repartition(*contract.partition_columns)
    return frame if contract.event_time is None else frame.sortWithinPartitions(contract.event_time)


def _write(rows: DataFrame, uri: str, ticket: Ticket) -> None:
    (
        rows.write.format("delta")
        .mode("append")
        .option("txnAppId", TRANSACTION_APP)
        .option("txnVersion", str(ticket.transaction))
        .option("userMetadata", ticket.tag)
        .save(uri)
    )


def _optimize(spark: SparkSession, uri: str, zorder: Sequence[str], condition: str | None) -> Any:  # noqa: ANN401 - a Row
    from delta.tables import DeltaTable as SparkTable  # noqa: PLC0415 - slow to import

    builder = SparkTable.forPath(spark, uri).optimize()
    if condition is not None:
        builder = builder.where(condition)
    done = builder.executeZOrderBy(list(zorder)) if zorder else builder.executeCompaction()
    return done.collect()[0]["metrics"]


def _merge(spark: SparkSession, folder: Path, uri: str, change: Change) -> tuple[int, int]:
    from delta.tables import DeltaTable as SparkTable  # noqa: PLC0415 - slow to import
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - its usual name

    matched = reduce(and_, [F.col(f"t.`{k}`") == F.col(f"s.`{k}`") for k in change.keys] + _bounded(change.bounds))
    if is_cluster(spark.sparkContext.master):
        source = spark.createDataFrame(change.rows)
    else:
        pq.write_table(change.rows, folder / "rows.parquet", compression="NONE", row_group_size=1 << 20)
        source = spark.read.parquet(str(folder))
    source = source.alias("s")
    merger = SparkTable.forPath(spark, uri).alias("t").merge(source, matched)
    if change.updates:
        differs = reduce(or_, [~F.col(f"t.`{c}`").eqNullSafe(F.col(f"s.`{c}`")) for c in change.updates])
        merger = merger.whenMatchedUpdate(differs, {f"`{c}`": F.col(f"s.`{c}`") for c in change.updates})
    inserts: dict[str, str | Column] = {f"`{c}`": F.col(f"s.`{c}`") for c in change.rows.column_names}
    done = merger.whenNotMatchedInsert(values=inserts).execute().collect()[0]
    return int(done["num_updated_rows"]), int(done["num_inserted_rows"])


def _bounded(bounds: Sequence[Bound]) -> list[Column]:
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - its usual name; slow to import

    return [
        F.col(f"t.`{bound.column}`").between(bound.values[0], bound.values[-1])
        if bound.is_range
        else F.col(f"t.`{bound.column}`").isin(*bound.values)
        for bound in bounds
    ]
