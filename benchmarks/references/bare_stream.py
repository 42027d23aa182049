"""Reference: Structured Streaming by itself, from Kafka through from_json to Spark's own Delta sink.

Appends to the product's table and partitions; nothing is validated, what cannot be read is a row of nulls, and there
are no bars.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.contestant import PARTITIONS, stock_spark

_TICK = (
    "asset_pair string, timestamp timestamp, price double, volume double, bid double, ask double, side string, "
    "tick_id string, provider string"
)


def drain(given: argparse.Namespace) -> dict[str, Any]:
    """Read what is there and return what was measured, as our own stream does."""
    from pyspark.sql import functions as F  # noqa: N812 - its usual name

    messages = (
        stock_spark("kafka")
        .readStream.format("kafka")
        .option("kafka.bootstrap.servers", given.bootstrap)
        .option("subscribe", given.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", str(given.batch))
        .load()
    )
    rows = messages.select(
        F.from_json(F.col("value").cast("string"), _TICK).alias("tick"),
        F.col("topic").alias("kafka_topic"),
        F.col("partition").cast("bigint").alias("kafka_partition"),
        F.col("offset").alias("kafka_offset"),
        F.col("timestamp").alias("kafka_timestamp"),
        F.current_timestamp().alias("ingested_at"),
    ).select(
        "tick.*",
        "*",
        F.to_date("tick.timestamp").alias(PARTITIONS[0]),
        F.col("tick.asset_pair").alias(PARTITIONS[1]),
    )
    query = (
        rows.drop("tick")
        .writeStream.format("delta")
        .partitionBy(*PARTITIONS)
        .option("checkpointLocation", str(given.lake / "checkpoint"))
        .trigger(availableNow=True)
        .start(str(given.lake / "raw_market_ticks"))
    )
    query.awaitTermination()
    ended = time.time()
    return {"batches": [_batch(each) for each in query.recentProgress if each["numInputRows"]], "ended": ended}


def _batch(progress: Any) -> tuple[float, float, int]:  # noqa: ANN401 - a dictionary of Spark's
    """Return when a batch was done (epoch), the seconds from its plan to its end, and its messages."""
    spent = progress["durationMs"]
    done = datetime.fromisoformat(progress["timestamp"]).timestamp() + spent["triggerExecution"] / 1000
    done -= spent.get("commitOffsets", 0) / 1000
    return done, spent["addBatch"] / 1000, int(progress["numInputRows"])


def main() -> None:
    """Read the arguments, drain, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--batch", type=int, required=True)
    print(json.dumps(drain(parser.parse_args())))


if __name__ == "__main__":
    main()
