"""One contestant of the quality benchmarks in a process of its own: does one task and prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks.bars import A_DAY, bars
from pipelines.config import Settings
from pipelines.contracts import load_contracts
from pipelines.instruments import load_registry
from pipelines.timeframes import Timeframe, utc_now

PRICES = ("open", "high", "low", "close")


def edge(path: Path, rows: int) -> dict[str, Any]:
    """Load a CSV file into an empty lake; then validate the same rows again, by themselves."""
    from pipelines.batch.load import FileLoad
    from pipelines.edge import EdgeContext, validate
    from pipelines.sources.base import MARKET_DATA
    from pipelines.sources.files import FileSpec, read
    from pipelines.storage import DeltaLakeManager

    source = path / "bars.csv"
    names = ["timestamp", *PRICES, "volume"]
    pa_csv.write_csv(bars(-(-rows // A_DAY)).slice(0, rows).select(names), source)
    settings = _settings(path)
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    instrument = load_registry().resolve("BTCUSD")
    spec = FileSpec(source, MARKET_DATA, instrument, Timeframe.M1, {}, "UTC")
    clock = time.perf_counter()
    result = asyncio.run(FileLoad(lake, settings).run(spec))
    whole = time.perf_counter() - clock
    table = pa.concat_tables([page.table for page in read(spec)])
    contract = load_contracts()["raw_market_data"]
    context = EdgeContext(contract, "files", utc_now(), instrument, Timeframe.M1)
    clock = time.perf_counter()
    checked = validate(table, context)
    seconds = time.perf_counter() - clock
    failed = len(checked.refused) + checked.repeated
    return {"rows": result.total("new"), "failed": failed, "ingestion": whole, "edge": seconds}


def suite(path: Path, *, spark: bool) -> dict[str, Any]:
    """Run the whole suite of bars; Great Expectations and the session are there before the clock starts."""
    from pipelines.data_quality import DataQualityFramework

    frame: Any = _spark_table(path) if spark else pq.read_table(path)
    framework = DataQualityFramework(_settings(path.parent))
    framework.create_market_data_suite()
    clock = time.perf_counter()
    outcome = framework.validate_dataframe(frame)
    seconds = time.perf_counter() - clock
    failed = [check.reason for check in outcome.checks if not check.success]
    return {"rows": outcome.total_rows, "failed": failed, "seconds": seconds}


def aggregate(path: Path) -> dict[str, Any]:
    """Count what breaks a check of a single row in one pass; it does not see repeats, spikes or flat runs."""
    from pyspark.sql import functions as F  # noqa: N812 - its usual name

    frame = _spark_table(path)
    contract = load_contracts()["raw_market_data"]
    instrument = load_registry().resolve("BTCUSD")
    context = {
        "price_min": F.lit(instrument.price_min),
        "price_max": F.lit(instrument.price_max),
        "closes_at": F.expr("timestamp + INTERVAL 1 MINUTE"),
        "now": F.current_timestamp(),
    }
    known = frame.columns
    rules = [rule.expression for rule in contract.row_rules if rule.severity == "error"]
    rules += [f"{c.name} IS NOT NULL" for c in contract.columns if c.required and c.name in known]
    rules += [f"abs({name}) < CAST('infinity' AS DOUBLE)" for name in PRICES]
    clock = time.perf_counter()
    bad = [F.count_if(F.expr(f"NOT ({rule})")).alias(str(place)) for place, rule in enumerate(rules)]
    found = frame.withColumns(context).agg(F.count(F.lit(1)).alias("rows"), *bad).head().asDict()
    seconds = time.perf_counter() - clock
    return {"rows": found.pop("rows"), "failed": sum(found.values()), "seconds": seconds}


def _settings(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "delta_lake": {"storage_path": str(folder / "lake")},
            "storage": {"engine": "embedded"},
            "dlq": {"path": str(folder / "dlq")},
            "quality": {"path": str(folder / "quality")},
        }
    )


def _spark_table(path: Path) -> Any:  # noqa: ANN401 - imported late
    from pipelines.session import get_spark

    # Both JIT compilers: a pass over millions of rows is worth compiling well.
    settings = Settings.model_validate({"spark": {"java_options": ""}})
    frame = get_spark(settings).read.parquet(str(path))
    frame.count()
    return frame


def main() -> None:
    """Read the arguments, do the task, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("edge", "aggregate", "spark", "arrow"))
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    given = parser.parse_args()
    if given.task == "edge":
        answer = edge(given.path, given.rows)
    elif given.task == "aggregate":
        answer = aggregate(given.path)
    else:
        answer = suite(given.path, spark=given.task == "spark")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
