"""Merges into append-only tables: an update becomes a new version of its row, an unknown key a new row."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.contracts import PARTITION_DATE, PARTITION_PREFIX, Contract, contract_for
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.edge import DEFECT, EdgeContext, RefusedRow, edge_schema, validate
from pipelines.monitoring import metrics
from pipelines.storage.creation import GRANULARITY, ORIGIN, property_of
from pipelines.storage.partitions import cut
from pipelines.storage.scan import among, execute, literal, quoted
from pipelines.storage.writing.merge import Append, MergeResult
from pipelines.storage.writing.restate_input import KEY, PROVIDER, Source, source_rows
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.config import Settings
    from pipelines.storage.lake import Lake

_VERSION = "ingested_at"


class _RowContext(EdgeContext):
    """An edge that knows only the timeframe: provider, price side and the like differ from row to row."""

    __slots__ = ()

    def constants(self) -> dict[str, object]:
        return {"timeframe": self.timeframe.value} if self.timeframe else {}


@dataclass(frozen=True, slots=True)
class _Plan:
    """Complete, valid rows to append, and the refused ones."""

    rows: pa.Table
    refused: list[RefusedRow]


def restate(
    lake: Lake,
    settings: Settings,
    append: Append,
    rows: pa.Table,
    table_name: str,
    merge_keys: Sequence[str],
    update_columns: Sequence[str] | None,
) -> MergeResult:
    """Land updates of known rows as restatements, and new rows; what breaks the contract goes to the dead letter queue.

    Arguments and errors are those of `storage.writing.merge.upsert`.
    """
    table, contract = lake.open(table_name), contract_for(table_name)
    timeframe = contract.timeframe_of(table_name)
    source = source_rows(rows, contract, timeframe, merge_keys, update_columns)
    context = _RowContext(contract, "", utc_now(), timeframe=timeframe)
    order, run_id = settings.providers.chain, uuid.uuid4().hex
    synthetic = property_of(table, ORIGIN) == "synthetic"
    plan = _plan(table, source, context, order)
    dlq_file = _bury(DeadLetterQueue(settings.resolve(settings.dlq.path)), table_name, contract, plan.refused)
    if not plan.rows.num_rows:
        return MergeResult(table_name, table.version(), run_id, 0, 0, 0, len(plan.refused), source.duplicates, dlq_file)
    done = landed = append(table_name, plan.rows, run_id, synthetic=synthetic)
    seen = table.version()
    while landed.rows and landed.version > seen + 1:
        # Others committed between our reading and our writing: merge again, upon what they left.
        seen = landed.version
        again = _plan(lake.open(table_name, seen), source, context, order, run_id)
        landed = append(table_name, again.rows, run_id, synthetic=synthetic)
    return MergeResult(
        table=table_name,
        version=landed.version,
        run_id=run_id,
        updated=done.restated,
        inserted=done.new,
        unchanged=done.repeated,
        rejected=len(plan.refused),
        duplicates=source.duplicates,
        dlq_file=dlq_file,
    )


def _plan(
    table: DeltaTable, source: Source, context: EdgeContext, order: Sequence[str], without_run: str | None = None
) -> _Plan:
    """Compare with one version of the table, or with what others wrote into it: complete known keys, validate all."""
    contract = context.contract
    edge_names = edge_schema(contract).names
    keyed = [pl.col(KEY + name) for name in source.keys]
    stored = _newest(table, contract, source, order, without_run)
    known = source.rows.join(
        stored, left_on=keyed, right_on=list(source.keys), how="inner", suffix="__stored", coalesce=False
    )
    new = source.rows.join(stored, left_on=keyed, right_on=list(source.keys), how="anti")
    defect = [DEFECT] if DEFECT in source.rows.columns else []
    carried = [name for name in edge_names if name not in source.updates]
    merged = known.select(
        *[pl.col(f"{name}__stored" if name in source.rows.columns else name).alias(name) for name in carried],
        *source.updates,
        *defect,
    )
    parts = [_checked(merged, context), _inserts(new.select(*source.given, *defect), source, context)]
    return _Plan(pa.concat_tables([part.rows for part in parts]), [row for part in parts for row in part.refused])


def _inserts(rows: pl.DataFrame, source: Source, context: EdgeContext) -> _Plan:
    """Return the new rows that are complete; a column that the table's name decides need not be given."""
    known = {*source.given, *context.constants()}
    lacking = [c.name for c in context.contract.provided_by("source", "edge") if c.required and c.name not in known]
    if not lacking:
        return _checked(rows, context)
    reason = f"new key, and the row lacks {', '.join(lacking)}"
    records = [{name: row[name] for name in source.given} for row in rows.to_dicts()]
    event_time = context.contract.event_time or ""
    refused = [RefusedRow(record, reason, _time(record.get(event_time))) for record in records]
    return _Plan(edge_schema(context.contract).empty_table(), refused)


def _checked(rows: pl.DataFrame, context: EdgeContext) -> _Plan:
    if not rows.height:
        return _Plan(edge_schema(context.contract).empty_table(), [])
    checked = validate(rows.to_arrow(), context)
    return _Plan(checked.good, checked.refused)


def _newest(
    table: DeltaTable, contract: Contract, source: Source, order: Sequence[str], without_run: str | None
) -> pl.DataFrame:
    """Return the newest version of each key of the source, by its best provider where the key leaves that open."""
    schema = edge_schema(contract)
    wanted = source.rows.select(pl.col(KEY + name).alias(name) for name in source.keys).drop_nulls()
    if not wanted.height:
        return pl.DataFrame(schema.empty_table())
    where = _conditions(contract, wanted, property_of(table, GRANULARITY))
    if without_run is not None:
        where.append(f"run_id <> {literal(without_run)}")
    columns = ", ".join(map(quoted, [*schema.names, _VERSION]))
    rows = pl.DataFrame(execute(table, f"SELECT {columns} FROM source WHERE {' AND '.join(where)}"))  # noqa: S608 - escaped
    rows = rows.join(wanted, on=list(source.keys), how="semi")
    rows = rows.sort(_VERSION).unique(subset=list(contract.keys), keep="last", maintain_order=True)
    if PROVIDER in contract.keys and PROVIDER not in source.keys:
        ranks = {name: place for place, name in enumerate(order)}
        rank = pl.col(PROVIDER).replace_strict(ranks, default=len(ranks), return_dtype=pl.Int64)
        rows = rows.sort(rank, PROVIDER).unique(subset=list(source.keys), keep="first", maintain_order=True)
    return rows.drop(_VERSION)


def _conditions(contract: Contract, wanted: pl.DataFrame, granularity: str | None) -> list[str]:
    """Return conditions with literal partition values, so that other partitions are not read."""
    found: list[str] = []
    for name in wanted.columns:
        values = wanted[name].unique().sort()
        found.append(among(name, values.to_list()))
        if PARTITION_PREFIX + name in contract.partition_columns:
            found.append(among(PARTITION_PREFIX + name, values.to_list()))
        if name == contract.event_time and granularity is not None:
            found.append(among(PARTITION_DATE, sorted({cut(value, granularity) for value in values})))
    return found


def _bury(queue: DeadLetterQueue, table_name: str, contract: Contract, refused: list[RefusedRow]) -> Path | None:
    if not refused:
        return None
    context = {"operation": "merge_upsert", "dataset": contract.id, "table": table_name}
    path = queue.write("schema_validation_failed", context, refused)
    metrics.ingestion_errors_total.labels(error_type="rejected_rows").inc(len(refused))
    return path


def _time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None
