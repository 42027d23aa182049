"""A Spark driver to race with: says `ready`, then at a line `race ROUNDS` appends as many commits of ten rows each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipelines.config import Settings
from pipelines.session import get_spark, stop_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 10


def say(text: str) -> None:
    """Tell the parent."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def append(spark: SparkSession, writer: str, number: int, to: str) -> None:
    """Append one commit."""
    rows = spark.range(ROWS).selectExpr(f"'{writer}' writer", f"{number} commit", "id")
    rows.coalesce(1).write.format("delta").mode("append").save(to)


def main() -> None:
    """Append to the table at an address, in the name of a writer."""
    uri, writer = sys.argv[1:]
    spark = get_spark(Settings.model_validate({"spark": {"driver_memory": "1g"}}), needs=("s3",))
    append(spark, writer, 0, f"{uri}-warm-up-{writer}")
    say("ready")
    for number in range(int(sys.stdin.readline().split()[1])):
        append(spark, writer, number, uri)
    say("done")
    stop_spark()


if __name__ == "__main__":
    main()
