"""Edge validation: what a source answered becomes contract rows, or refused rows with reasons. Nothing vanishes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.coercion import INSTANT, loose_frame, polars_type, read_as, unreadable_reason
from pipelines.contracts import Column, Contract
from pipelines.errors import UnknownAssetError
from pipelines.instruments import Instrument, load_registry
from pipelines.rules import check_rules
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFECT = "_defect"
_REASON = "__reason"
_ROW = "__row"


@dataclass(frozen=True, slots=True)
class EdgeContext:
    """What the edge knows about a page beyond its rows; `now` decides which bars have closed (aware UTC)."""

    contract: Contract
    provider: str
    now: datetime
    instrument: Instrument | None = None
    timeframe: Timeframe | None = None
    price_side: str = "trade"
    adjusted: bool = False
    derived: bool = False

    def constants(self) -> dict[str, object]:
        """Return the values of the columns the edge fills with one value per page."""
        return {
            "timeframe": self.timeframe.value if self.timeframe else None,
            "provider": self.provider,
            "price_side": self.price_side,
            "is_adjusted": self.adjusted,
            "is_derived": self.derived,
            **({"asset_pair": self.instrument.pair} if self.instrument else {}),
        }


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row as the source gave it, why it was refused, and its event time where that could be read."""

    record: Mapping[str, object]
    reason: str
    event_time: datetime | None


@dataclass(frozen=True, slots=True)
class EdgeResult:
    """`good` has the contract's source and edge columns, typed; `repeated` counts equal rows that were folded."""

    good: pa.Table
    refused: list[RefusedRow]
    repeated: int

    @property
    def total(self) -> int:
        """Rows that went in."""
        return int(self.good.num_rows) + len(self.refused) + self.repeated


def validate(table: pa.Table, context: EdgeContext) -> EdgeResult:
    """Coerce a page to its contract and split it into good and refused rows.

    Args:
        table: the source's columns, loosely typed; an optional text column `_defect` names a row's known defect.
        context: the contract and what is known of the page.

    Raises:
        ContractError: a row rule of the contract can never work; no row has been looked at.
    """
    check_rules(context.contract)
    raw = loose_frame(table)
    checked = _bounds(_coerced(raw, context), context)
    checked = checked.with_columns(_structural(raw, checked, context).alias(_REASON))
    checked = checked.with_columns(_with_rules(context).alias(_REASON))
    checked, repeated = _fold_repeats(checked, context)
    bad = checked.filter(pl.col(_REASON) != "")
    good = checked.filter(pl.col(_REASON) == "") if bad.height else checked
    return EdgeResult(_to_contract(good, context), list(_refused(raw, bad, context)), repeated)


def edge_schema(contract: Contract) -> pa.Schema:
    """Return the schema of validated rows: every column but those storage fills."""
    columns = contract.provided_by("source", "edge")
    return pa.schema([pa.field(column.name, column.arrow_type, nullable=not column.required) for column in columns])


def _is_given(column: Column, raw: pl.DataFrame, context: EdgeContext) -> bool:
    """Say whether the page itself gives the column; what the edge knows of a whole page wins."""
    return column.name in raw.columns and not (column.provided == "edge" and column.name in context.constants())


def _coerced(raw: pl.DataFrame, context: EdgeContext) -> pl.DataFrame:
    constants = context.constants()
    columns: list[pl.Expr] = [pl.int_range(pl.len()).alias(_ROW)]
    for column in context.contract.provided_by("source", "edge"):
        if _is_given(column, raw, context):
            columns.append(read_as(column, raw.schema[column.name]))
        else:
            value = constants.get(column.name) if column.provided == "edge" else None
            columns.append(pl.lit(value, dtype=polars_type(column)).alias(column.name))
    return raw.select(columns) if raw.width else raw.with_columns(columns).clear()


def _bounds(frame: pl.DataFrame, context: EdgeContext) -> pl.DataFrame:
    """Add the columns that row rules may read: the instrument's bounds, the bar's close and the present."""
    event_time = context.contract.event_time
    frame = frame.with_columns(pl.lit(context.now, dtype=INSTANT).alias("now"))
    if context.timeframe and event_time:
        frame = frame.with_columns((pl.col(event_time) + context.timeframe.step).alias("closes_at"))
    if context.instrument or "asset_pair" not in frame.columns:
        return frame.with_columns(
            pl.lit(context.instrument.price_min if context.instrument else None, dtype=pl.Float64).alias("price_min"),
            pl.lit(context.instrument.price_max if context.instrument else None, dtype=pl.Float64).alias("price_max"),
        )
    frame = frame.join(asset_bounds(frame["asset_pair"].unique().drop_nulls()), on="asset_pair", how="left").sort(_ROW)
    return frame.with_columns(pl.coalesce("registered_as", "asset_pair").alias("asset_pair"))


def asset_bounds(pairs: Iterable[str]) -> pl.DataFrame:
    """Return `asset_pair`, `registered_as`, `price_min` and `price_max` of the pairs that are known."""
    rows = []
    for pair in pairs:
        try:
            found = load_registry().resolve(pair)
        except UnknownAssetError:
            continue
        rows.append((pair, found.pair, found.price_min, found.price_max))
    schema = {"asset_pair": pl.String, "registered_as": pl.String, "price_min": pl.Float64, "price_max": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _structural(raw: pl.DataFrame, frame: pl.DataFrame, context: EdgeContext) -> pl.Series:
    """Return each row's structural defects: declared ones, wrong types, nulls, NaN, unknown assets."""
    found: list[pl.Series] = []
    if DEFECT in raw.columns:
        found.append(raw[DEFECT].fill_null(""))
    for column in context.contract.provided_by("source", "edge"):
        values = frame[column.name]
        given = raw[column.name] if _is_given(column, raw, context) else None
        if values.null_count() and given is not None:
            found.append(_reason(given.is_not_null() & values.is_null(), unreadable_reason(column, given.dtype)))
        if values.null_count() and column.required:
            missing = values.is_null() if given is None else given.is_null()
            found.append(_reason(missing, f"null {column.name}"))
        if values.dtype == pl.Float64:
            found.append(_reason(values.is_nan().fill_null(value=False), f"NaN {column.name}"))
            found.append(_reason(values.is_infinite().fill_null(value=False), f"infinite {column.name}"))
    if context.instrument is None and "asset_pair" in frame.columns:
        found.append(_reason(frame["price_min"].is_null() & frame["asset_pair"].is_not_null(), "unknown asset"))
    return _joined(found, frame.height)


def _reason(mask: pl.Series, text: str) -> pl.Series:
    if not mask.any():
        return pl.Series([""], dtype=pl.String)
    return pl.select(pl.when(mask).then(pl.lit(text)).otherwise(pl.lit(""))).to_series()


def _joined(parts: list[pl.Series], height: int) -> pl.Series:
    reasons = pl.Series([""], dtype=pl.String).new_from_index(0, height)
    for part in parts:
        if part.len() == height and height:
            gap = pl.when((reasons != "") & (part != "")).then(pl.lit("; ")).otherwise(pl.lit(""))
            reasons = pl.select(pl.lit(reasons) + gap + pl.lit(part)).to_series()
    return reasons


def _with_rules(context: EdgeContext) -> pl.Expr:
    """Return the reasons with the contract's row rules added, for rows that are sound so far."""
    broken = [
        pl.when(pl.sql_expr(f"({rule.expression})").fill_null(value=True)).then(None).otherwise(pl.lit(rule.reason))
        for rule in context.contract.row_rules
        if rule.severity == "error"
    ]
    if not broken:
        return pl.col(_REASON)
    rules = pl.concat_str(broken, separator="; ", ignore_nulls=True)
    return pl.when(pl.col(_REASON) == "").then(rules).otherwise(pl.col(_REASON))


def _fold_repeats(frame: pl.DataFrame, context: EdgeContext) -> tuple[pl.DataFrame, int]:
    """Keep the first of rows that are equal in key and values; refuse a later one that contradicts it."""
    keys = list(context.contract.keys)
    sound = frame.filter(pl.col(_REASON) == "")
    if not keys or not sound.select(keys).is_duplicated().any():
        return frame, 0
    first = sound.unique(subset=keys, keep="first", maintain_order=True)
    distinct = sound.unique(subset=[*keys, *context.contract.value_columns], keep="first", maintain_order=True)
    clashing = distinct.join(first.select(_ROW), on=_ROW, how="anti").select(
        _ROW, pl.lit("conflicting duplicate").alias("c")
    )
    kept = frame.join(
        sound.select(_ROW).join(distinct.select(_ROW), on=_ROW, how="anti"), on=_ROW, how="anti", maintain_order="left"
    )
    kept = kept.join(clashing, on=_ROW, how="left", maintain_order="left")
    kept = kept.with_columns(pl.coalesce(pl.col("c"), pl.col(_REASON)).alias(_REASON)).drop("c")
    return kept, frame.height - kept.height


def _to_contract(good: pl.DataFrame, context: EdgeContext) -> pa.Table:
    schema = edge_schema(context.contract)
    return good.select(schema.names).to_arrow().cast(schema)


def _refused(raw: pl.DataFrame, bad: pl.DataFrame, context: EdgeContext) -> Iterable[RefusedRow]:
    if not bad.height:
        return
    event_time = context.contract.event_time
    times = bad[event_time].to_list() if event_time else [None] * bad.height
    rows = raw[bad[_ROW].to_list()].to_dicts()
    records = [{name: value for name, value in row.items() if name != DEFECT} for row in rows]
    for record, reason, when in zip(records, bad[_REASON].to_list(), times, strict=True):
        yield RefusedRow(record, reason, when)
