"""Table functions in Arrow that models call from SQL: one call per partition of their input, in Spark's workers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import calendars, instruments
from pipelines.instruments import load_registry
from pipelines.transform import indicators, performance, trades

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.udtf import UserDefinedTableFunction

# What a bar has besides its indicators, in the order in which the function returns it.
BAR_DDL = (
    "asset_pair string, timeframe string, timestamp timestamp, open double, high double, low double, close double, "
    "volume double, provider string, price_side string, is_adjusted boolean, is_derived boolean, ingested_at timestamp"
)
BOOK_DDL = "book string, quote_currency string, asset_pair string"
_BOOK_KEYS = ("book", "quote_currency", "asset_pair")
_BAR_COLUMNS = [part.split()[0] for part in BAR_DDL.split(", ")]


@dataclass(frozen=True, slots=True)
class TableFunction:
    """A function from the rows of one partition to result rows; `ddl` are the columns it returns.

    `logic` is the module or package that it is from: a change there makes the models that call it be built anew.
    """

    name: str
    compute: Callable[[pa.Table], pa.Table]
    ddl: str
    logic: ModuleType

    def digest(self) -> str:
        """Return a digest of what the function is."""
        return _digest(self.logic)


def register(spark: SparkSession) -> None:
    """Make every function known to the session."""
    from pyspark.sql.functions import arrow_udtf  # noqa: PLC0415 - Spark is slow to import

    for function in FUNCTIONS.values():
        handler = _per_partition(function.compute)
        spark.udtf.register(
            function.name, cast("UserDefinedTableFunction", arrow_udtf(handler, returnType=function.ddl))
        )


def indicators_of(rows: pa.Table) -> pa.Table:
    """Return the bars of one series with their indicators, sorted by time.

    Args:
        rows: bars of one series. With a column `is_known` they come with stored indicator columns: known rows are what
            to go on from and are not returned, the others are computed and their indicator columns ignored.

    Raises:
        ContractError: the bars are not fit for indicators.
        UnknownAssetError: no such instrument.
    """
    bars, before = rows, None
    if "is_known" in rows.column_names:
        bars = rows.filter(pc.invert(rows["is_known"])).select(_BAR_COLUMNS)
        before = rows.filter(rows["is_known"]).drop_columns("is_known")
    if not bars.num_rows:
        return bars.slice(0, 0)
    series = indicators.SeriesContext.of(bars["asset_pair"][0].as_py(), bars["timeframe"][0].as_py())
    bars = bars.select(_BAR_COLUMNS).sort_by("timestamp")
    if before is None or not before.num_rows:
        return indicators.compute(bars, series)
    return indicators.resume(before.sort_by("timestamp"), bars, series)


def instruments_of(rows: pa.Table) -> pa.Table:
    """Return what is to be known of instruments: rows have `asset_pair`, each once.

    Raises:
        UnknownAssetError: no such instrument.
    """
    known = [load_registry().resolve(asset) for asset in rows["asset_pair"].to_pylist()]
    return pa.table(
        {
            "asset_pair": rows["asset_pair"],
            "asset_class": [instrument.asset_class.value for instrument in known],
            "quote_currency": [instrument.quote for instrument in known],
            "round_the_clock": [instrument.calendar == calendars.ALWAYS for instrument in known],
        }
    )


def exposed_days_of(rows: pa.Table) -> pa.Table:
    """Return the exposed days of one book, currency and instrument: `trades.EXPOSED` behind those three."""
    return _behind_keys(rows, trades.exposed_days(rows.select(trades.EXPOSURE.names).cast(trades.EXPOSURE)))


def performance_of(rows: pa.Table) -> pa.Table:
    """Return the performance of one book, currency and instrument: `performance.PERFORMANCE` behind those three.

    Args:
        rows: the three, `performance.DAYS`, and `risk_free_rate`, the same on all rows.
    """
    days = rows.select(performance.DAYS.names).cast(performance.DAYS)
    return _behind_keys(rows, performance.performance_to_date(days, rows["risk_free_rate"][0].as_py()))


def _behind_keys(rows: pa.Table, found: pa.Table) -> pa.Table:
    keys = {name: pa.repeat(rows[name][0], found.num_rows) for name in _BOOK_KEYS}
    return pa.table({**keys, **{name: found[name] for name in found.column_names}})


def _per_partition(compute: Callable[[pa.Table], pa.Table]) -> type:
    """Return the class that Spark calls: an object per partition, which gets it in batches."""

    class PerPartition:
        def __init__(self) -> None:
            self._batches: list[pa.RecordBatch] = []

        def eval(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
            self._batches.append(batch)
            yield from ()

        def terminate(self) -> Iterator[pa.Table]:
            if self._batches and (found := compute(pa.Table.from_batches(self._batches))).num_rows:
                yield found

    return PerPartition


@cache
def _digest(logic: ModuleType) -> str:
    path = Path(inspect.getfile(logic))
    files = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    found = hashlib.sha256()
    for path in files:
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


FUNCTIONS: Mapping[str, TableFunction] = {
    function.name: function
    for function in (
        TableFunction("lakehouse_indicators", indicators_of, f"{BAR_DDL}, {indicators.ddl()}", indicators),
        TableFunction("lakehouse_trade_lots", trades.trade_lots, trades.ddl(trades.LOTS), trades),
        TableFunction("lakehouse_exposed_days", exposed_days_of, f"{BOOK_DDL}, {trades.ddl(trades.EXPOSED)}", trades),
        TableFunction(
            "lakehouse_performance", performance_of, f"{BOOK_DDL}, {trades.ddl(performance.PERFORMANCE)}", performance
        ),
        TableFunction(
            "lakehouse_instruments",
            instruments_of,
            "asset_pair string, asset_class string, quote_currency string, round_the_clock boolean",
            instruments,
        ),
    )
}
