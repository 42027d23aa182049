"""The Spark engine: the default, and the one that scales past a machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from pipelines.errors import StorageError
from pipelines.storage.engines.base import TRANSACTION_APP, Engine, Ticket
from pipelines.storage.faults import explain, is_concurrent, spark_errors

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import SparkSession

    from pipelines.config import Settings
    from pipelines.contracts import Contract
    from pipelines.storage.lake import Lake


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
            _stage(rows, contract, folder)
            _write(self._spark(), contract, folder, self._lake.root.spark_uri(table_name), ticket)
        except (OSError, pa.ArrowException) as error:
            doing = f"cannot stage rows for {table_name} in {tempfile.gettempdir()}"
            raise StorageError(explain(error, doing)) from error
        except spark_errors() as error:
            if not is_concurrent(error):
                raise StorageError(explain(error, f"cannot write {table_name}")) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _spark(self) -> SparkSession:
        from pipelines.session import get_spark  # noqa: PLC0415 - Spark only when it is needed

        return get_spark(self._settings)


def _stage(rows: pa.Table, contract: Contract, folder: Path) -> None:
    """Hand rows to the JVM as a file: cheaper than a socket, and the driver never holds them."""
    order = [*contract.partition_columns, *([contract.event_time] if contract.event_time else [])]
    if order:
        rows = rows.sort_by([(name, "ascending") for name in order])
    pq.write_table(rows, folder / "rows.parquet", compression="NONE", row_group_size=1 << 20)


def _write(spark: SparkSession, contract: Contract, files: Path, uri: str, ticket: Ticket) -> None:
    frame = spark.read.schema(contract.spark_schema()).parquet(str(files))
    if contract.partition_columns:
        # One task holds all rows of a partition, so an append adds one file to each partition it touches.
        frame = frame.repartition(*contract.partition_columns)
    (
        frame.write.format("delta")
        .mode("append")
        .option("txnAppId", TRANSACTION_APP)
        .option("txnVersion", str(ticket.transaction))
        .option("userMetadata", ticket.tag)
        .save(uri)
    )
