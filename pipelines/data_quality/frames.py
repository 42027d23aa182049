"""A frame made checkable: contract types, what row rules read, and who is to blame. Here for pandas and Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import polars as pl
import pyarrow as pa

from pipelines.coercion import INSTANT, loose_frame, polars_type, read_as, unreadable_reason
from pipelines.contracts import Contract
from pipelines.data_quality.checks import GIVEN, Blame, blames
from pipelines.edge import RefusedRow, asset_bounds
from pipelines.errors import ContractError
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    import pandas as pd

SHARED = ("asset_pair", "timeframe", "provider")
ORDER = "ingested_at"
_ROW = "__row"
_REASONS = "__reasons"
_SLICE = 10_000


@dataclass(frozen=True, slots=True)
class Failures:
    """Rows that broke a check: how many, how often each reason and check was met, and what the rows have in common."""

    rows: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    by_check: Mapping[str, int] = field(default_factory=dict)
    shared: Mapping[str, object] = field(default_factory=dict)


class CheckableFrame(Protocol):
    """A frame with the contract's columns and those of `CONTEXT_COLUMNS`, on one engine."""

    total: int

    def native(self) -> object:
        """Return what Great Expectations is given: a pandas or Spark frame."""

    def failures(self) -> Failures:
        """Count the rows that are to blame."""

    def refused(self) -> Iterator[RefusedRow]:
        """Yield the rows that broke an error check, as they were given."""

    def close(self) -> None:
        """Free what the frame holds."""


def require_columns(contract: Contract, present: Sequence[str]) -> None:
    """Refuse a frame that lacks columns.

    Raises:
        ContractError: names the missing columns.
    """
    missing = [c.name for c in contract.provided_by("source", "edge") if c.required and c.name not in present]
    if missing:
        raise ContractError(f"the frame lacks columns that {contract.id} requires: {', '.join(missing)}")


class LocalFrame:
    """A pandas or Arrow frame, checked with polars."""

    def __init__(self, table: pa.Table, contract: Contract) -> None:
        require_columns(contract, table.column_names)
        self.total = int(table.num_rows)
        self._raw = loose_frame(table)
        self._coerced: dict[str, str] = {}
        self._checked = self._with_context(self._typed(contract), contract)
        self._blames = list(blames(contract, self._coerced))
        self._event_time = contract.event_time

    def native(self) -> pd.DataFrame:
        """Return a pandas frame with Arrow types, which tell null from NaN."""
        import pandas as pd  # noqa: PLC0415 - slow to import

        scalars = [name for name, dtype in self._checked.schema.items() if not dtype.is_nested()]
        native: pd.DataFrame = self._checked.select(scalars).to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
        return native

    def failures(self) -> Failures:
        """Count the rows that are to blame."""
        counts = self._checked.select(
            pl.sql_expr(blame.condition).fill_null(value=False).sum().alias(str(i))
            for i, blame in enumerate(self._blames)
        ).row(0)
        bad = self._bad()
        shared = {
            name: values[0]
            for name in SHARED
            if name in bad.columns and len(values := bad[name].unique().to_list()) == 1 and values[0] is not None
        }
        return tally(bad.height, self._blames, counts, shared)

    def refused(self) -> Iterator[RefusedRow]:
        """Yield the rows that broke an error check, as they were given."""
        for part in self._bad().iter_slices(_SLICE):
            times = part[self._event_time].to_list() if self._event_time else [None] * part.height
            records = self._raw[part[_ROW].to_list()].to_dicts()
            for record, reason, when in zip(records, part[_REASONS].to_list(), times, strict=True):
                yield RefusedRow(record, reason, when)

    def close(self) -> None:
        """Do nothing: memory is all it holds."""

    def _bad(self) -> pl.DataFrame:
        reasons = [
            pl.when(pl.sql_expr(blame.condition)).then(pl.lit(blame.reason))
            for blame in self._blames
            if blame.severity == "critical"
        ]
        told = pl.concat_str(reasons, separator="; ", ignore_nulls=True).alias(_REASONS)
        return self._checked.with_columns(told).filter(pl.col(_REASONS) != "")

    def _typed(self, contract: Contract) -> pl.DataFrame:
        columns: list[pl.Expr] = [pl.int_range(pl.len()).alias(_ROW)]
        for column in contract.columns:
            dtype = self._raw.schema.get(column.name)
            if dtype is None:
                if column.provided != "storage":
                    columns.append(pl.lit(None, dtype=polars_type(column)).alias(column.name))
                continue
            columns.append(read_as(column, dtype))
            if dtype != polars_type(column) and column.provided != "storage":
                self._coerced[column.name] = unreadable_reason(column, dtype)
                columns.append(pl.col(column.name).alias(GIVEN + column.name))
        return self._raw.select(columns)

    def _with_context(self, frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
        unreadable = [pl.col(GIVEN + name).is_not_null() & pl.col(name).is_null() for name in self._coerced]
        frame = frame.with_columns(
            pl.lit(utc_now(), dtype=INSTANT).alias("now"),
            pl.any_horizontal(unreadable or [pl.lit(False)]).alias("unreadable"),
            _closes_at(frame, contract).alias("closes_at"),
            _repeats(frame, contract).alias("repeats_previous"),
        )
        if "asset_pair" not in frame.columns:
            nothing = pl.lit(None, dtype=pl.Float64)
            return frame.with_columns(nothing.alias("price_min"), nothing.alias("price_max"))
        bounds = asset_bounds(frame["asset_pair"].unique().drop_nulls())
        return frame.join(bounds, on="asset_pair", how="left", maintain_order="left")


def tally(rows: int, found: Sequence[Blame], counts: Sequence[int], shared: Mapping[str, object]) -> Failures:
    """Return the failures from how many rows each blame met."""
    reasons: dict[str, int] = {}
    by_check: dict[str, int] = {}
    for blame, count in zip(found, counts, strict=True):
        if count:
            by_check[blame.check] = by_check.get(blame.check, 0) + count
            if blame.severity == "critical":
                reasons[blame.reason] = reasons.get(blame.reason, 0) + count
    return Failures(rows, reasons, by_check, shared)


def _closes_at(frame: pl.DataFrame, contract: Contract) -> pl.Expr:
    if contract.event_time is None or "timeframe" not in frame.columns:
        return pl.lit(None, dtype=INSTANT)
    steps = {timeframe.value: timeframe.step for timeframe in Timeframe}
    step = pl.col("timeframe").replace_strict(steps, default=None, return_dtype=pl.Duration("us"))
    return pl.col(contract.event_time) + step


def _repeats(frame: pl.DataFrame, contract: Contract) -> pl.Series:
    """Say of each row whether it is equal in value to the version of its key before it."""
    keys = list(contract.keys)
    nowhere = pl.Series([False]).new_from_index(0, frame.height)
    if not keys or not frame.height or not frame.select(keys).is_duplicated().any():
        return nowhere
    order = [ORDER] if ORDER in frame.columns else []
    ranked = frame.sort([*keys, *order, _ROW])
    same = [pl.col(name).eq_missing(pl.col(name).shift()) for name in [*keys, *contract.value_columns]]
    keyed = [pl.col(name).is_not_null() for name in keys]
    return ranked.select(_ROW, pl.all_horizontal([*same, *keyed]).alias("same")).sort(_ROW)["same"]
