"""A Spark driver to race with: says `ready`, then at a line `race ROUNDS` appends as many commits of ten rows each."""

from __future__ import annotations

import sys

from pipelines.config import Settings
from pipelines.session import get_spark, stop_spark

ROWS = 10


def say(text: str) -> None:
    """Tell the parent."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Append to the table at an address, in the name of a writer; further arguments are Spark settings."""
    uri, writer, *more = sys.argv[1:]
    extra = dict(setting.split("=", 1) for setting in more)
    spark = get_spark(Settings.model_validate({"spark": {"driver_memory": "1g", "extra_conf": extra}}), needs=("s3",))

    def append(number: int, to: str) -> None:
        rows = spark.range(ROWS).selectExpr(f"'{writer}' writer", f"{number} commit", "id")
        rows.coalesce(1).write.format("delta").mode("append").save(to)

    append(0, f"{uri}-warm-up-{writer}")
    say("ready")
    for number in range(int(sys.stdin.readline().split()[1])):
        append(number, uri)
    say("done")
    stop_spark()


if __name__ == "__main__":
    main()
