"""DeltaLakeManager: the one door to the lake's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Settings, load_settings
from pipelines.contracts import Contract, contract_for
from pipelines.storage import creation
from pipelines.storage.coverage import CoverageLog
from pipelines.storage.files import file_actions
from pipelines.storage.lake import Lake
from pipelines.storage.layers import Layer
from pipelines.storage.names import lake_root
from pipelines.storage.quality_log import QualityLog
from pipelines.storage.query import run_query
from pipelines.storage.scan import INGESTED_AT, Instant, Selection, View, checked_columns, conditions, read, selection
from pipelines.storage.travel.history import TableInfo, history_frame, table_info
from pipelines.storage.travel.moments import moment, moment_named, open_at
from pipelines.storage.travel.snapshots import Snapshots
from pipelines.storage.undeclared import contract_of

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from pipelines.frames import Frame
    from pipelines.storage.engines import Engine
    from pipelines.storage.files import Partition
    from pipelines.storage.recovery.findings import FsckReport
    from pipelines.storage.recovery.rebuilds import Rebuilds
    from pipelines.storage.recovery.repair import RepairResult
    from pipelines.storage.recovery.restore import RestoreResult
    from pipelines.storage.results import AppendResult
    from pipelines.storage.stores.cost import CostReport
    from pipelines.storage.stores.lifecycle import Plan
    from pipelines.storage.travel.diff import Diff
    from pipelines.storage.travel.pins import Pin
    from pipelines.storage.upkeep.maintain import Maintained
    from pipelines.storage.upkeep.optimize import OptimizeResult
    from pipelines.storage.upkeep.vacuum import VacuumResult
    from pipelines.storage.writing.append import Appender
    from pipelines.storage.writing.marks import Placement
    from pipelines.storage.writing.merge import MergeResult

_BY_ASSET = "partition.partition_asset_pair"


class DeltaLakeManager:
    """Reads and writes the tables of one lake.

    Reading, history, coverage and queries need no JVM. `storage.engine` says what writes: Spark, which starts when
    first used, or the embedded engine, which needs no JVM. `scan_table` is Spark's.
    All methods may be called from several threads. Times are aware UTC; a zoneless one is taken as UTC.
    """

    def __init__(self, storage_path: str | Path | None = None, settings: Settings | None = None) -> None:
        """Open a lake; nothing is created before the first write.

        Args:
            storage_path: a folder, or `s3://bucket/prefix`; by default `delta_lake.storage_path` of the settings.
            settings: by default those of config/ and the environment.
        """
        self.settings = settings or load_settings()
        self._lake = Lake(lake_root(storage_path or self.settings.resolve(self.settings.delta_lake.storage_path)))

        self._ensured: set[tuple[str, bool]] = set()
        self._granularities: dict[str, str | None] = {}

    @property
    def storage_path(self) -> str:
        """The lake's absolute path or object-store address."""
        return self._lake.root.address

    @cached_property
    def coverage(self) -> CoverageLog:
        """The log of what has been asked for and answered."""
        return CoverageLog(self._lake, self.settings.delta_lake)

    @cached_property
    def quality(self) -> QualityLog:
        """The log of what was checked and how it ended."""
        return QualityLog(self._lake, self.settings.delta_lake)

    @cached_property
    def _engine(self) -> Engine:
        from pipelines.storage.engines import engine_for  # noqa: PLC0415 - reading never needs one

        return engine_for(self._lake, self.settings)

    @cached_property
    def snapshots(self) -> Snapshots:
        """The lake's named snapshots."""
        return Snapshots(self._lake)

    @cached_property
    def _appender(self) -> Appender:
        from pipelines.storage.writing.append import Appender  # noqa: PLC0415 - reading never needs it

        return Appender(self._lake, self._engine, self.settings.delta_lake.commit_retries)

    @cached_property
    def rebuilds(self) -> Rebuilds:
        """Tables under reconstruction."""
        from pipelines.storage.recovery.rebuilds import Rebuilds  # noqa: PLC0415 - reading never needs it

        return Rebuilds(self._lake, self.coverage)

    def ensure_table(self, table_name: str, synthetic: bool = False) -> None:
        """Create a table from its contract or bring it there; safe when several processes do it at once.

        A contract that has gained nullable columns evolves the table.

        Raises:
            ContractError: no contract declares the table, or it cannot be had without losing data; shows why.
            MixedOriginError: synthetic and real data would share a lake.
            StorageError: the lake cannot be written.
        """
        # Checked once per process: properties and constraints do not go away, a folder may.
        if (table_name, synthetic) not in self._ensured or not self._lake.exists(table_name):
            creation.ensure_table(self._lake, table_name, self.settings.delta_lake, synthetic=synthetic)
            self._ensured.add((table_name, synthetic))

    def warm_up(self) -> None:
        """Bear the engine's costs of a first commit now, for a caller who has to wait for something else anyway.

        Does nothing the second time in a process.

        Raises:
            SparkUnavailableError: Spark cannot start; names the fix.
        """
        self._engine.warm_up()

    def check_origin(self, *, synthetic: bool) -> None:
        """Make sure that the lake is new or holds data of that origin; changes nothing.

        Raises:
            MixedOriginError: it holds the other kind.
        """
        creation.check_origin(self._lake, synthetic=synthetic)

    def append(
        self,
        table_name: str,
        data: pa.Table,
        run_id: str,
        *,
        synthetic: bool = False,
        placement: Placement | None = None,
    ) -> AppendResult:
        """Append rows idempotently: repeated rows are dropped, changed ones land as new versions.

        Args:
            table_name: is created from its contract if need be.
            data: every column of the contract but those that storage adds (run_id, ingested_at, partition_*).
            run_id: the run that lands the rows.
            synthetic: whether the rows are made up; a lake holds either kind only.
            placement: for the rows of a message log, see `storage.writing.marks`; needs the embedded engine.

        Raises:
            ContractError: unknown table, or the data does not fit its contract.
            MixedOriginError: synthetic and real data would share a lake.
            ConcurrentWriteError: other writers were faster on every attempt.
            MarkedAheadError: the log has been read on by another process.
            StorageError: it could not be written; nothing was committed.
        """
        self.ensure_table(table_name, synthetic=synthetic)
        return self._appender.append(table_name, contract_for(table_name), data, run_id, placement)

    def partitions_of(self, table_name: str, rows: pa.Table) -> set[Partition]:
        """Return the partitions of a table that rows fall into: values of its partition columns, as its log has them.

        Raises:
            TableNotFoundError: no such table; names the nearest.
        """
        from pipelines.storage.partitions import partitions_of  # noqa: PLC0415 - reading never needs it

        # A table keeps the one that it was made with.
        if table_name not in self._granularities:
            self._granularities[table_name] = creation.property_of(self._lake.open(table_name), creation.GRANULARITY)
        return partitions_of(rows, contract_for(table_name), self._granularities[table_name])

    def marks(self, table_name: str, topic: str, names: Iterable[object]) -> dict[object, int]:
        """Return what was committed with rows of a topic, by name: of a partition its next offset; empty if none."""
        if not self.exists(table_name):
            return {}
        from pipelines.storage.writing.marks import marks_of  # noqa: PLC0415 - only streams have them

        return marks_of(self._lake.open(table_name), topic, names)

    def newest_versions(self, table_name: str, rows: pa.Table) -> pa.Table | None:
        """Return the newest stored version of the keys of some rows: keys, values and `ingested_at`; no JVM.

        Args:
            table_name: the table.
            rows: has the contract's key columns, typed; versions of other keys may come along.

        Returns:
            None where the table does not exist or can hold none of the keys.
        """
        from pipelines.storage.writing.versions import newest_versions  # noqa: PLC0415 - reading never needs it

        return newest_versions(self._lake, table_name, rows)

    def exists(self, table_name: str) -> bool:
        """Say whether the table exists in this lake."""
        return self._lake.exists(table_name)

    def assets(self, table_name: str) -> list[str]:
        """Return the asset pairs that a table partitioned by them has rows of, from its log alone; sorted.

        Raises:
            TableNotFoundError: no such table; names the nearest.
        """
        return sorted(set(file_actions(self._lake.open(table_name))[_BY_ASSET].to_pylist()))

    def read_table(
        self,
        table_name: str,
        start: Instant | None = None,
        end: Instant | None = None,
        assets: Sequence[str] | str | None = None,
        columns: Sequence[str] | None = None,
        *,
        as_of_timestamp: Instant | None = None,
        version: int | None = None,
        snapshot: str | None = None,
    ) -> pd.DataFrame:
        """Return rows as pandas, sorted by event time; no JVM.

        Args:
            table_name: the table.
            start: first event time, inclusive.
            end: end of event time, exclusive.
            assets: asset pairs; all by default.
            columns: columns in the wanted order; all by default.
            as_of_timestamp: read the table as it was then.
            version: read that version.
            snapshot: read the version that this snapshot of the lake pins; give one of the three at most.

        Raises:
            TableNotFoundError: no such table; names the nearest.
            InvalidRangeError: inverted range, or an instant outside the history, whose range is named.
            SnapshotError: no such snapshot, or the table is not in it.
            StorageError: no such column or version; names the versions there are.
        """
        rows = self.read_arrow(
            table_name,
            start,
            end,
            assets,
            columns,
            as_of_timestamp=as_of_timestamp,
            version=version,
            snapshot=snapshot,
        )
        frame: pd.DataFrame = rows.to_pandas()
        return frame

    def read_arrow(
        self,
        table_name: str,
        start: Instant | None = None,
        end: Instant | None = None,
        assets: Sequence[str] | str | None = None,
        columns: Sequence[str] | None = None,
        *,
        as_of_timestamp: Instant | None = None,
        version: int | None = None,
        snapshot: str | None = None,
    ) -> pa.Table:
        """Return rows as Arrow, sorted by event time; everything else is as in `read_table`."""
        wanted = selection(start, end, assets, columns)
        view = open_at(self._lake, table_name, moment(as_of_timestamp, version, snapshot))
        contract = contract_of(view.table, table_name)
        rows = read(view, contract, wanted, creation.property_of(view.table, creation.GRANULARITY))
        if contract.event_time in rows.column_names:
            rows = rows.take(pc.sort_indices(rows[contract.event_time]))
        return rows

    def scan_table(
        self,
        table_name: str,
        start: Instant | None = None,
        end: Instant | None = None,
        assets: Sequence[str] | str | None = None,
        columns: Sequence[str] | None = None,
        *,
        as_of_timestamp: Instant | None = None,
        version: int | None = None,
        snapshot: str | None = None,
    ) -> DataFrame:
        """Return a lazy Spark DataFrame; arguments and errors are those of `read_table`."""
        wanted = selection(start, end, assets, columns)
        view = open_at(self._lake, table_name, moment(as_of_timestamp, version, snapshot))
        frame = (
            self.spark()
            .read.format("delta")
            .option("versionAsOf", view.table.version())
            .load(self._lake.root.spark_uri(table_name))
        )
        return _narrowed(frame, view, contract_of(view.table, table_name), wanted)

    def get_table_history(self, table_name: str) -> pd.DataFrame:
        """Return the commits, newest first: version, timestamp (aware UTC), operation, operationMetrics; no JVM.

        Raises:
            TableNotFoundError: no such table; names the nearest.
        """
        return history_frame(self._lake.open(table_name))

    def merge_upsert(
        self,
        df: Frame,
        table_name: str,
        merge_keys: Sequence[str] | str,
        update_columns: Sequence[str] | str | None = None,
    ) -> MergeResult:
        """Update known rows in some columns and insert new ones; see `storage.writing.merge.upsert`.

        Bronze keeps every version: an update lands as a restatement, and a new key without all required columns goes to
        the dead letter queue.
        """
        from pipelines.storage.writing.merge import upsert  # noqa: PLC0415 - reading never needs it

        return upsert(self._lake, self.settings, self._engine, self.append, df, table_name, merge_keys, update_columns)

    def optimize_table(
        self, table_name: str, zorder_columns: Sequence[str] | str | None = None, where: str | None = None
    ) -> OptimizeResult:
        """Compact small files, clustered by columns if asked; see `storage.upkeep.optimize.optimize`."""
        from pipelines.storage.upkeep.optimize import optimize  # noqa: PLC0415 - reading never needs it

        return optimize(self._lake, self._engine, table_name, zorder_columns, where)

    def vacuum_table(
        self, table_name: str, retention_hours: int = 720, dry_run: bool = False, force: bool = False
    ) -> VacuumResult:
        """Remove files that no version of the last `retention_hours` needs; see `storage.upkeep.vacuum.vacuum`."""
        from pipelines.storage.upkeep.vacuum import vacuum  # noqa: PLC0415 - reading never needs it

        return vacuum(self._lake, table_name, retention_hours, dry_run=dry_run, force=force)

    def maintain(
        self,
        table_names: Sequence[str] | None = None,
        *,
        dry_run: bool = False,
        on_table: Callable[[str], None] = lambda _: None,
    ) -> list[Maintained]:
        """Compact, vacuum and clean the logs of tables (all by default) where needed; see `storage.upkeep.maintain`."""
        from pipelines.storage.upkeep.maintain import maintain  # noqa: PLC0415 - reading never needs it

        names = self._lake.names() if table_names is None else table_names
        settings = self.settings.storage.maintenance
        return maintain(self._lake, self._engine, settings, names, dry_run=dry_run, on_table=on_table)

    def restore_table(
        self,
        table_name: str,
        version: int | None = None,
        as_of_timestamp: Instant | None = None,
        snapshot: str | None = None,
        *,
        dry_run: bool = False,
        force: bool = False,
    ) -> RestoreResult:
        """Bring a table back to an earlier version, named as such, by instant or by snapshot; no JVM.

        Coverage recorded since is taken back, so that the next backfill fetches what is missing; see
        `storage.recovery.restore.restore`.
        """
        from pipelines.storage.recovery.restore import restore, version_of  # noqa: PLC0415 - reading never needs it

        wanted = version_of(self._lake, table_name, version, as_of_timestamp, snapshot)
        return restore(self._lake, self.coverage, table_name, wanted, dry_run=dry_run, force=force)

    def undone_since(self, table_name: str, version: int) -> bool:
        """Say whether a table was restored, repaired or rebuilt after a version; see `storage.recovery.undone`."""
        from pipelines.storage.recovery.undone import undone_since  # noqa: PLC0415 - reading never needs it

        return undone_since(self._lake, table_name, version)

    def fsck(self, table_name: str, deep: bool = False) -> FsckReport:
        """Check a table's log and files against what is there; changes nothing, see `storage.recovery.fsck`."""
        from pipelines.storage.recovery.fsck import fsck  # noqa: PLC0415 - reading never needs it

        return fsck(self._lake, self.coverage, table_name, deep=deep)

    def repair(self, table_name: str, deep: bool = False) -> RepairResult:
        """Check a table and mend what can be mended safely; see `storage.recovery.repair`."""
        from pipelines.storage.recovery.repair import repair  # noqa: PLC0415 - reading never needs it

        return repair(self._lake, self.coverage, self.settings.delta_lake, table_name, deep=deep)

    def known_tables(self) -> list[str]:
        """Return the tables that are there, and those that coverage or a snapshot speaks of; sorted."""
        from pipelines.storage.recovery.fsck import suspects  # noqa: PLC0415 - reading never needs it

        return suspects(self._lake, self.coverage)

    def tables(self) -> list[TableInfo]:
        """Return every table of the lake in numbers, from the logs alone."""
        return [table_info(self._lake, name) for name in self._lake.names()]

    def costs(self) -> CostReport:
        """Reckon what the lake and the platform around it cost a month on AWS; see `storage.stores.cost`."""
        from pipelines.storage.stores.cost import reckon  # noqa: PLC0415 - reading never needs it

        return reckon(self._lake, self.settings)

    def lifecycle(self) -> Plan:
        """Compare the lifecycle rules of a lake in S3 with those it should have; see `storage.stores.lifecycle`."""
        from pipelines.storage.stores.lifecycle import plan_lifecycle  # noqa: PLC0415 - only for a lake in S3

        return plan_lifecycle(self._lake, self.settings.storage.lifecycle)

    def diff(
        self,
        table_name: str,
        old_version: int | Instant,
        new_version: int | Instant,
        limit: int | None = None,
    ) -> Diff:
        """Return the rows added, restated and removed between two versions; see `storage.travel.diff.diff`.

        Either end is a version's number, an instant or a snapshot's name; `limit` bounds the rows of each kind.
        """
        from pipelines.storage.travel.diff import diff  # noqa: PLC0415 - reading never needs it

        old, new = (moment_named(self._lake, each) for each in (old_version, new_version))
        return diff(self._lake, table_name, old, new, limit)

    def query(
        self,
        sql: str,
        as_of_timestamp: Instant | None = None,
        version: int | None = None,
        snapshot: str | None = None,
    ) -> pa.Table:
        """Run one read-only SELECT over the lake's tables; no JVM.

        Raises:
            TableNotFoundError: a table is not in the lake; names the nearest.
            InvalidRangeError: the instant is outside a table's history.
            SnapshotError: no such snapshot, or a table is not in it.
            StorageError: not a single SELECT, wrong SQL, or no such version.
        """
        return run_query(self._lake, sql, moment(as_of_timestamp, version, snapshot))

    def layer(self, name: str) -> Layer:
        """Return the tables of a layer that is made from this lake's tables, as `silver`."""
        return Layer(self._lake.root, name)

    def pin(self, table_name: str, *, as_of_timestamp: Instant | None = None, snapshot: str | None = None) -> Pin:
        """Return which version of a table is there now, was there at an instant, or is in a snapshot.

        Raises:
            TableNotFoundError: no such table; names the nearest.
            InvalidRangeError: the instant is outside the table's history, whose range is named.
            SnapshotError: no such snapshot, or the table is not in it.
        """
        from pipelines.storage.travel.pins import pin  # noqa: PLC0415 - reading never needs it

        return pin(self._lake, table_name, moment(as_of_timestamp, snapshot=snapshot))

    def changed_between(self, table_name: str, since: int, until: int) -> Mapping[str | None, datetime] | None:
        """Return from when on each asset's rows changed between two versions; see `storage.travel.pins`."""
        from pipelines.storage.travel.pins import changed_between  # noqa: PLC0415 - reading never needs it

        return changed_between(self._lake, table_name, contract_for(table_name), since, until)

    def spark(self) -> SparkSession:
        """Return the process's SparkSession, with what this lake's store needs.

        Raises:
            SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
        """
        from pipelines.session import get_spark  # noqa: PLC0415 - Spark only when it is needed

        return get_spark(self.settings, needs=self._lake.root.spark_jars)


def _narrowed(frame: DataFrame, view: View, contract: Contract, wanted: Selection) -> DataFrame:
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - its usual name; slow to import

    names = checked_columns(frame.columns, wanted.columns, contract.id)
    # For its refusals: what cannot be selected by must not be left out in silence.
    conditions(contract, frame.columns, wanted, None)
    time = contract.event_time
    if view.ingested_by is not None:
        frame = frame.where(F.col(INGESTED_AT) <= F.lit(view.ingested_by))
    if time is not None and wanted.start is not None:
        frame = frame.where(F.col(time) >= F.lit(wanted.start))
    if time is not None and wanted.end is not None:
        frame = frame.where(F.col(time) < F.lit(wanted.end))
    if wanted.assets is not None:
        frame = frame.where(F.col("asset_pair").isin(*wanted.assets))
    return frame.select(*names)
