"""A Spark frame made checkable; nothing of it is held on the driver but one slice of failed rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from pipelines.contracts import Column, Contract
from pipelines.data_quality.checks import CONTEXT_COLUMNS, GIVEN, Blame, blames
from pipelines.data_quality.frames import ORDER, SHARED, Failures, require_columns, tally
from pipelines.edge import RefusedRow, asset_bounds
from pipelines.timeframes import EPOCH, Timeframe, utc_now

_REASONS = "__reasons"
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_ZONED = r"^\\s*\\d{4}-\\d{2}-\\d{2}[T ]\\d{2}.*(Z|[+-]\\d{2}(:?\\d{2})?)\\s*$"
_BOUNDS = "asset_pair string, registered_as string, price_min double, price_max double"


class SparkFrame:
    """A Spark frame, checked by Spark."""

    def __init__(self, frame: DataFrame, contract: Contract) -> None:
        require_columns(contract, frame.columns)
        self._event_time = contract.event_time
        self._keys = contract.keys
        self._coerced: dict[str, str] = {}
        typed = self._typed(frame, contract)
        self._checked = _with_context(typed, contract, list(self._coerced)).persist()
        self.total = self._checked.count()
        self._blames = list(blames(contract, self._coerced))

    def native(self) -> DataFrame:
        """Return the checked frame."""
        return self._checked

    def failures(self) -> Failures:
        """Count the rows that are to blame, in one pass."""
        is_bad = self._reasons() != ""
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
        bad = self._checked.withColumn(_REASONS, self._reasons()).filter(F.col(_REASONS) != "")
        own = [name for name in bad.columns if name not in CONTEXT_COLUMNS]
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
        self._checked.unpersist()

    def _reasons(self) -> SparkColumn:
        return F.concat_ws("; ", *(_told(blame) for blame in self._blames if blame.severity == "critical"))

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
    kept = {
        name: value
        for name, value in record.items()
        if name not in CONTEXT_COLUMNS and name != _REASONS and not name.startswith(GIVEN)
    }
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


def _with_context(frame: DataFrame, contract: Contract, coerced: list[str]) -> DataFrame:
    unreadable = " OR ".join(f"(`{GIVEN}{name}` IS NOT NULL AND `{name}` IS NULL)" for name in coerced)
    seconds = " ".join(f"WHEN '{t.value}' THEN {t.seconds}" for t in Timeframe)
    event_time = contract.event_time if "timeframe" in frame.columns else None
    closes_at = f"`{event_time}` + make_dt_interval(0, 0, 0, CASE timeframe {seconds} END)" if event_time else "NULL"
    frame = frame.withColumns(
        {
            "now": F.lit(utc_now()),
            "unreadable": F.expr(unreadable or "false"),
            "closes_at": F.expr(closes_at).cast("timestamp"),
            "repeats_previous": _repeats(frame, contract),
        }
    )
    if "asset_pair" not in frame.columns:
        nothing = F.lit(None).cast("double")
        return frame.withColumns({"price_min": nothing, "price_max": nothing})
    pairs = [row[0] for row in frame.select("asset_pair").distinct().collect() if row[0] is not None]
    bounds = frame.sparkSession.createDataFrame(asset_bounds(pairs).rows(), _BOUNDS).drop("registered_as")
    return frame.join(F.broadcast(bounds), "asset_pair", "left")


def _repeats(frame: DataFrame, contract: Contract) -> SparkColumn:
    """Say of each row whether it is equal in value to the version of its key before it."""
    if not contract.keys:
        return F.lit(False)
    order = [F.col(ORDER)] if ORDER in frame.columns else []
    versions = Window.partitionBy(*contract.keys).orderBy(*order, F.monotonically_increasing_id())
    values = F.struct(*contract.value_columns)
    keyed = F.expr(" AND ".join(f"`{name}` IS NOT NULL" for name in contract.keys))
    return keyed & F.lag(values).over(versions).eqNullSafe(values)
