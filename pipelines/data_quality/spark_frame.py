"""A Spark frame made checkable; nothing of it is held on the driver but one slice of failed rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from pipelines.contracts import Column, Contract
from pipelines.data_quality.checks import CONTEXT_COLUMNS, GIVEN, Blame, blames, has_bars
from pipelines.data_quality.frames import ORDER, ROW, SHARED, Failures, overdue, repeated, require_columns, tally
from pipelines.data_quality.signals import PRICES, SERIES, USUAL, SignalSettings, find
from pipelines.data_quality.signals import SCHEMA as SIGNALS
from pipelines.edge import RefusedRow, asset_bounds
from pipelines.rules import check_rules
from pipelines.timeframes import EPOCH, Timeframe, utc_now

_REASONS = "__reasons"
_ORIGIN = "__origin"
_FOUND = f"{ROW} bigint, repeats_previous boolean, spike_score double, flat_run bigint, goes_back boolean"
_NO_SIGNS = ("CAST(NULL AS double) spike_score", "CAST(NULL AS bigint) flat_run", "CAST(NULL AS boolean) goes_back")
_ADDED = {*CONTEXT_COLUMNS, _REASONS, _ORIGIN, ROW}
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_ZONED = r"^\\s*\\d{4}-\\d{2}-\\d{2}[T ]\\d{2}.*(Z|[+-]\\d{2}(:?\\d{2})?)\\s*$"
_BOUNDS = "asset_pair string, registered_as string, price_min double, price_max double"


class SparkFrame:
    """A Spark frame, checked by Spark."""

    def __init__(
        self, frame: DataFrame, contract: Contract, *, live: bool = False, signals: SignalSettings = USUAL
    ) -> None:
        """Read the frame and work out what its checks read.

        Args:
            frame: the rows.
            contract: what they are checked against.
            live: check that the newest rows are there.
            signals: from where on bars give a warning.

        Raises:
            ContractError: a required column is missing, or a rule of the contract can never work.
        """
        check_rules(contract)
        require_columns(contract, frame.columns)
        self._event_time = contract.event_time
        self._keys = contract.keys
        self._coerced: dict[str, str] = {}
        self._base = self._typed(_with_places(frame), contract).persist()
        self.total, pairs = _summary(self._base)
        self._blames = list(blames(contract, self._coerced, live=live))
        context = _with_context(self._base, contract, list(self._coerced), pairs)
        self._found = _found(context, contract, self._blames, signals).persist()
        # Known to be small once it is counted, it is sent to where the rows are.
        self._found.count()
        checked = context.join(self._found, ROW, "left").withColumns(
            {name: F.coalesce(name, F.lit(False)) for name in ("repeats_previous", "goes_back")}
        )
        checked = checked.withColumn("is_overdue", _overdue(context, contract) if live else F.lit(False))
        told = F.concat_ws("; ", *(_told(blame) for blame in self._blames if blame.condemns))
        self._checked = checked.withColumn(_REASONS, told)

    def native(self) -> DataFrame:
        """Return the checked frame."""
        return self._checked

    def failures(self) -> Failures:
        """Count the rows that are to blame, in one pass."""
        is_bad = F.col(_REASONS) != ""
        shared = [name for name in SHARED if name in self._checked.columns]
        counted = self._checked.agg(
            F.count_if(is_bad).alias("rows"),
            *(F.count_if(F.expr(blame.condition)).alias(f"blame_{i}") for i, blame in enumerate(self._blames)),
            *(edge(F.when(is_bad, F.col(name))).alias(f"{edge.__name__}_{name}") for name in shared for edge in _ENDS),
        ).head()
        found = counted.asDict() if counted else {}
        same = {name: found[f"min_{name}"] for name in shared if found[f"min_{name}"] == found[f"max_{name}"]}
        counts = [found[f"blame_{i}"] for i in range(len(self._blames))]
        return tally(found["rows"], self._blames, counts, {k: v for k, v in same.items() if v is not None})

    def refused(self) -> Iterator[RefusedRow]:
        """Yield the rows that broke an error check, as they were given, in an order that is the same in every run."""
        bad = self._checked.filter(F.col(_REASONS) != "")
        own = [name for name in bad.columns if name not in _ADDED]
        ordered = bad.orderBy(*self._keys, F.xxhash64(*own))
        # Spark hands instants over in the zone of this machine and without saying so; a count of microseconds is one.
        instants = [name for name, kind in bad.dtypes if kind == "timestamp"]
        for row in ordered.withColumns({name: F.unix_micros(name) for name in instants}).toLocalIterator():
            values = row.asDict(recursive=True)
            for name in instants:
                values[name] = _instant(values[name])
            when = values.get(self._event_time or "")
            yield RefusedRow(_as_given(values), row[_REASONS], when if isinstance(when, datetime) else None)

    def close(self) -> None:
        """Free the cached rows."""
        self._found.unpersist()
        self._base.unpersist()

    def _typed(self, frame: DataFrame, contract: Contract) -> DataFrame:
        """Read columns as contract types; the given ones stay beside them under another name."""
        types = dict(frame.dtypes)
        clashing = [name for name in frame.columns if name in CONTEXT_COLUMNS]
        frame = frame.withColumnsRenamed({name: GIVEN + name for name in clashing})
        for column in contract.columns:
            given = types.get(column.name)
            if given is None and column.provided != "storage":
                frame = frame.withColumn(column.name, F.lit(None).cast(column.type))
            elif given is not None and given != column.type and column.provided != "storage":
                frame = frame.withColumnRenamed(column.name, GIVEN + column.name)
                frame = frame.withColumn(column.name, F.expr(_read_as(column, given)))
                no_zone = f"{column.name} has no time zone"
                loose = f"wrong type or no time zone: {column.name}"
                wrong = no_zone if given == "timestamp_ntz" else loose
                self._coerced[column.name] = wrong if column.type == "timestamp" else f"wrong type: {column.name}"
        return frame


_ENDS = (F.min, F.max)


def _with_places(frame: DataFrame) -> DataFrame:
    """Say of each row where it is, before anything moves it."""
    origin = F.lit(0) if ORDER in frame.columns else F.xxhash64(F.spark_partition_id(), F.input_file_name())
    return frame.withColumns({ROW: F.monotonically_increasing_id(), _ORIGIN: origin})


def _told(blame: Blame) -> SparkColumn:
    return F.when(F.expr(blame.condition), F.lit(blame.reason))


def _instant(micros: int | None) -> object:
    """Return an instant of the calendar, aware UTC, or the bare count where no year holds it."""
    try:
        return None if micros is None else EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return str(micros)


def _as_given(record: dict[str, object]) -> dict[str, object]:
    given = {name.removeprefix(GIVEN): value for name, value in record.items() if name.startswith(GIVEN)}
    kept = {name: value for name, value in record.items() if name not in _ADDED and not name.startswith(GIVEN)}
    return kept | given


def _read_as(column: Column, given: str) -> str:
    """Return SQL that reads the given column as the contract's type, and is null where it cannot."""
    source, target = f"`{GIVEN}{column.name}`", column.type
    number = given.startswith(_NUMBERS)
    if target == "timestamp" and given == "string":
        return f"CASE WHEN {source} RLIKE '{_ZONED}' THEN try_cast(trim({source}) AS timestamp) END"
    if target == "date" and given == "string":
        return f"try_cast(trim({source}) AS date)"
    if target == "bigint" and number:
        return f"CASE WHEN {source} = floor({source}) THEN try_cast({source} AS bigint) END"
    if target in ("double", "bigint") and given == "string":
        return f"try_cast(trim({source}) AS {target})"
    if (target == "double" and number) or (target == "string" and number):
        return f"CAST({source} AS {target})"
    return f"CAST(NULL AS {target})"


def _summary(frame: DataFrame) -> tuple[int, list[str]]:
    """Count the rows and list the asset pairs, in the pass that caches the rows."""
    by = ["asset_pair"] if "asset_pair" in frame.columns else []
    found = frame.groupBy(*by).count().collect()
    return sum(row["count"] for row in found), [row[0] for row in found if by and row[0] is not None]


def _with_context(frame: DataFrame, contract: Contract, coerced: list[str], pairs: list[str]) -> DataFrame:
    unreadable = " OR ".join(f"(`{GIVEN}{name}` IS NOT NULL AND `{name}` IS NULL)" for name in coerced)
    seconds = " ".join(f"WHEN '{t.value}' THEN {t.seconds}" for t in Timeframe)
    event_time = contract.event_time if "timeframe" in frame.columns else None
    closes_at = f"`{event_time}` + make_dt_interval(0, 0, 0, CASE timeframe {seconds} END)" if event_time else "NULL"
    frame = frame.withColumns(
        {
            "now": F.lit(utc_now()),
            "unreadable": F.expr(unreadable or "false"),
            "closes_at": F.expr(closes_at).cast("timestamp"),
        }
    )
    frame = frame.withColumn("known_early", _known_early(frame))
    if "asset_pair" not in frame.columns:
        nothing = F.lit(None).cast("double")
        return frame.withColumns({"price_min": nothing, "price_max": nothing})
    bounds = frame.sparkSession.createDataFrame(asset_bounds(pairs).rows(), _BOUNDS).drop("registered_as")
    return frame.join(F.broadcast(bounds), "asset_pair", "left")


def _known_early(frame: DataFrame) -> SparkColumn:
    if dict(frame.dtypes).get(ORDER) != "timestamp":
        return F.lit(False)
    return F.coalesce((F.col(ORDER) < F.col("closes_at")) & (F.col("closes_at") <= F.col("now")), F.lit(False))


def _overdue(frame: DataFrame, contract: Contract) -> SparkColumn:
    """Mark the newest row of each series whose next row should be there by now."""
    event_time = contract.event_time
    if event_time is None or contract.freshness_minutes is None:
        return F.lit(False)
    series = ["asset_pair", "timeframe"] if has_bars(contract) else []
    newest = F.max(F.struct(F.unix_micros(event_time).alias("at"), ROW))
    known = frame.filter(F.coalesce("closes_at", event_time) <= F.col("now"))
    found = known.groupBy(*series).agg(newest.alias("newest"), F.unix_micros(F.max("now")).alias("now"))
    late = []
    for row in found.toLocalIterator():
        values = row.asDict()
        at = values.pop("newest")
        if at is None:
            continue
        read = {
            **values,
            "at": EPOCH + timedelta(microseconds=at["at"]),
            "now": EPOCH + timedelta(microseconds=row["now"]),
        }
        if overdue(read, contract):
            late.append(at[ROW])
    return F.col(ROW).isin(late)


def _found(frame: DataFrame, contract: Contract, told: list[Blame], settings: SignalSettings) -> DataFrame:
    """Return what takes other rows to see, for those rows alone that give cause: repeats, and the signs of prices."""
    if has_bars(contract):
        bars = frame.select(*_as_bars(frame, contract, told))
        return bars.groupBy("series").applyInArrow(_finder(settings), _FOUND)
    if not contract.keys:
        return frame.sparkSession.createDataFrame([], _FOUND)
    repeats = frame.select(ROW, _repeats(frame, contract).alias("repeats_previous")).filter("repeats_previous")
    return repeats.selectExpr(ROW, "repeats_previous", *_NO_SIGNS)


def _finder(settings: SignalSettings) -> Callable[[pa.Table], pa.Table]:
    # Spark reads the hints of what it is to apply, which a partial function does not have.
    def found(bars: pa.Table) -> pa.Table:
        return _found_in(bars, settings)

    return found


def _found_in(bars: pa.Table, settings: SignalSettings) -> pa.Table:
    """Look at whole series, on one of Spark's workers, by the code that looks at local frames."""
    frame = pl.DataFrame(bars)
    repeats = repeated(frame, ["series", "at"], ["known", "row"], [*PRICES, "volume"])
    signs = find(frame.filter(pl.col("is_sound") & ~repeats), settings)
    again = frame.filter(repeats).select("row", repeats_previous=pl.lit(value=True))
    both = again.join(signs, on="row", how="full", coalesce=True)
    return both.select(pl.col("row").alias(ROW), "repeats_previous", *list(SIGNALS)[1:]).to_arrow()


def _as_bars(frame: DataFrame, contract: Contract, told: list[Blame]) -> list[SparkColumn]:
    """Return the columns that `find` reads, and whether anything else condemns the row."""
    stored = dict(frame.dtypes).get(ORDER) == "timestamp"
    condemned = [
        f"coalesce({blame.condition}, false)"
        for blame in told
        if blame.condemns and "repeats_previous" not in blame.condition
    ]
    return [
        F.col(ROW).alias("row"),
        # A number of its own is sorted and sent much faster than three names.
        F.xxhash64(*SERIES).alias("series"),
        *(F.col(name) for name in (*PRICES, "volume")),
        # A row whose key is not whole has no versions.
        F.expr(
            f"CASE WHEN {' AND '.join(f'{name} IS NOT NULL' for name in SERIES)} THEN `{contract.event_time}` END"
        ).alias("at"),
        (F.col(ORDER) if stored else F.lit(None).cast("timestamp")).alias("known"),
        F.coalesce(F.col("price_min") < 0, F.lit(False)).alias("negative"),
        # Rows come in order within a file; the files of a table have an order of their own.
        (F.lit(None).cast("bigint") if ORDER in frame.columns else F.col(_ORIGIN)).alias("origin"),
        F.expr(f"NOT ({' OR '.join(condemned)})").alias("is_sound"),
    ]


def _repeats(frame: DataFrame, contract: Contract) -> SparkColumn:
    """Say of each row whether it is equal in value to the version of its key before it."""
    order = [F.col(ORDER)] if ORDER in frame.columns else []
    versions = Window.partitionBy(*contract.keys).orderBy(*order, ROW)
    values = F.struct(*contract.value_columns)
    keyed = F.expr(" AND ".join(f"`{name}` IS NOT NULL" for name in contract.keys))
    return keyed & F.lag(values).over(versions).eqNullSafe(values)
