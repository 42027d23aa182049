"""A frame made checkable: contract types, what row rules read, and who is to blame. Here for pandas and Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl
import pyarrow as pa

from pipelines.calendars import newest_owed
from pipelines.coercion import INSTANT, loose_frame, polars_type, read_as, unreadable_reason
from pipelines.contracts import Contract
from pipelines.data_quality.checks import GIVEN, Blame, blames, has_bars, identity
from pipelines.data_quality.signals import PRICES, SERIES, USUAL, SignalSettings, find
from pipelines.data_quality.signals import SCHEMA as SIGNALS
from pipelines.edge import RefusedRow, asset_bounds
from pipelines.errors import ContractError, UnknownAssetError
from pipelines.instruments import load_registry
from pipelines.rules import check_rules
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    import pandas as pd

SHARED = ("asset_pair", "timeframe", "provider")
ORDER = "ingested_at"
ROW = "__row"
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

    def __init__(
        self, table: pa.Table, contract: Contract, *, live: bool = False, signals: SignalSettings = USUAL
    ) -> None:
        """Read the frame and work out what its checks read.

        Args:
            table: the rows, loosely typed.
            contract: what they are checked against.
            live: check that the newest rows are there.
            signals: from where on bars give a warning.

        Raises:
            ContractError: a required column is missing, or a rule of the contract can never work.
        """
        check_rules(contract)
        require_columns(contract, table.column_names)
        self.total = int(table.num_rows)
        self._raw = loose_frame(table)
        self._event_time = contract.event_time
        self._coerced: dict[str, str] = {}
        frame = self._with_context(self._typed(contract), contract, live=live)
        self._blames = list(blames(contract, self._coerced, live=live))
        self._checked = _with_signals(frame.with_columns(self._told()), contract, signals)

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
            records = self._raw[part[ROW].to_list()].to_dicts()
            for record, reason, when in zip(records, part[_REASONS].to_list(), times, strict=True):
                yield RefusedRow(record, reason, when)

    def close(self) -> None:
        """Do nothing: memory is all it holds."""

    def _bad(self) -> pl.DataFrame:
        return self._checked.filter(pl.col(_REASONS) != "")

    def _told(self) -> pl.Expr:
        reasons = [
            pl.when(pl.sql_expr(blame.condition)).then(pl.lit(blame.reason)) for blame in self._blames if blame.condemns
        ]
        return pl.concat_str(reasons, separator="; ", ignore_nulls=True).alias(_REASONS)

    def _typed(self, contract: Contract) -> pl.DataFrame:
        columns: list[pl.Expr] = [pl.int_range(pl.len()).alias(ROW)]
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

    def _with_context(self, frame: pl.DataFrame, contract: Contract, *, live: bool) -> pl.DataFrame:
        unreadable = [pl.col(GIVEN + name).is_not_null() & pl.col(name).is_null() for name in self._coerced]
        frame = frame.with_columns(
            pl.lit(utc_now(), dtype=INSTANT).alias("now"),
            pl.any_horizontal(unreadable or [pl.lit(False)]).alias("unreadable"),
            _closes_at(frame, contract).alias("closes_at"),
            _repeats(frame, contract).alias("repeats_previous"),
        )
        frame = frame.with_columns(_known_early(frame).alias("known_early"))
        late = _overdue(frame, contract) if live else pl.lit(value=False)
        frame = frame.with_columns(late.alias("is_overdue"))
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
            if blame.condemns:
                reasons[blame.reason] = reasons.get(blame.reason, 0) + count
    return Failures(rows, reasons, by_check, shared)


def _closes_at(frame: pl.DataFrame, contract: Contract) -> pl.Expr:
    if contract.event_time is None or "timeframe" not in frame.columns:
        return pl.lit(None, dtype=INSTANT)
    steps = {timeframe.value: timeframe.step for timeframe in Timeframe}
    step = pl.col("timeframe").replace_strict(steps, default=None, return_dtype=pl.Duration("us"))
    return pl.col(contract.event_time) + step


def _known_early(frame: pl.DataFrame) -> pl.Expr:
    """Say of each closed bar whether the lake knew it before it closed."""
    if ORDER not in frame.columns:
        return pl.lit(value=False)
    early = (pl.col(ORDER) < pl.col("closes_at")) & (pl.col("closes_at") <= pl.col("now"))
    return early.fill_null(value=False)


def _overdue(frame: pl.DataFrame, contract: Contract) -> pl.Series:
    """Mark the newest row of each series whose next row should be there by now."""
    nowhere = pl.Series("is_overdue", [False]).new_from_index(0, frame.height)
    event_time = contract.event_time
    if event_time is None or contract.freshness_minutes is None or not frame.height:
        return nowhere
    series = ["asset_pair", "timeframe"] if has_bars(contract) else []
    known = frame.filter(pl.coalesce("closes_at", event_time) <= pl.col("now"))
    newest = known.sort(event_time, ROW).group_by(series or pl.lit(value=True)).last()
    due = [overdue(row, contract) for row in newest.select(*series, at=event_time, now="now").iter_rows(named=True)]
    marked = newest.filter(pl.Series(due, dtype=pl.Boolean))[ROW].implode()
    return frame.select(is_overdue=pl.col(ROW).is_in(marked)).to_series()


def overdue(newest: Mapping[str, Any], contract: Contract) -> bool:
    """Say whether a row after the newest one should be known by now, which is so some time after it is due.

    Args:
        newest: `at` (event time of the newest row) and `now`, aware UTC; of bars also `asset_pair` and `timeframe`.
        contract: how fresh its rows are to be.
    """
    now: datetime = newest["now"]
    latency = timedelta(minutes=contract.freshness_minutes or 0.0)
    if "timeframe" not in newest:
        return bool(newest["at"] < now - latency)
    try:
        instrument = load_registry().resolve(newest["asset_pair"] or "")
        due = newest_owed(instrument, Timeframe(newest["timeframe"]), now, latency)
    except (UnknownAssetError, ValueError):
        return False  # the row has its own blame for it
    return due is not None and bool(newest["at"] < due)


def _with_signals(frame: pl.DataFrame, contract: Contract, settings: SignalSettings) -> pl.DataFrame:
    """Add the columns of signals, which are looked for among the rows that no check condemns."""
    found = pl.DataFrame(schema=SIGNALS)
    if has_bars(contract):
        found = find(frame.filter(pl.col(_REASONS) == "").select(_as_bars(frame, contract)), settings)
    frame = frame.join(found, left_on=ROW, right_on="row", how="left", maintain_order="left")
    return frame.with_columns(pl.col("goes_back").fill_null(value=False))


def _as_bars(frame: pl.DataFrame, contract: Contract) -> list[pl.Expr]:
    """Return the columns that `find` reads."""
    stored = ORDER in frame.columns
    return [
        pl.col(ROW).alias("row"),
        # So wide a hash is a series of its own: of 10,000 series no two share one, but for a chance of 1 in 10^11.
        pl.struct(SERIES).hash().alias("series"),
        pl.col(*PRICES, "volume"),
        pl.col(contract.event_time or "").alias("at"),
        (pl.col(ORDER) if stored else pl.lit(None, dtype=INSTANT)).alias("known"),
        (pl.col("price_min") < 0).fill_null(value=False).alias("negative"),
        # The files of a table have an order of their own.
        pl.lit(None if stored else 0, dtype=pl.Int64).alias("origin"),
    ]


def _repeats(frame: pl.DataFrame, contract: Contract) -> pl.Series:
    """Say of each row whether it is equal in value to the version of its key before it."""
    keys = identity(contract) if contract.keys else []
    order = [ORDER] if ORDER in frame.columns else []
    return repeated(frame, keys, [*order, ROW], contract.value_columns)


def repeated(frame: pl.DataFrame, keys: Sequence[str], order: Sequence[str], values: Sequence[str]) -> pl.Series:
    """Say of each row whether it is equal in `values` to the one before it, by `order`, of the same whole `keys`."""
    if not keys or not frame.height:
        return pl.Series([False]).new_from_index(0, frame.height)
    place = order[-1]
    # Most rows have but one version; only the others need be put in order.
    several = frame.filter(pl.struct(keys).is_duplicated()).sort([*keys, *order])
    same = [pl.col(name).eq_missing(pl.col(name).shift()) for name in [*keys, *values]]
    keyed = [pl.col(name).is_not_null() for name in keys]
    found = several.filter(pl.all_horizontal([*same, *keyed]))[place].implode()
    return frame.select(pl.col(place).is_in(found)).to_series()
