"""What a person waits for `history` and `status` of a table with 1,000 commits."""

from __future__ import annotations

import tempfile
from pathlib import Path

from deltalake import write_deltalake

from benchmarks.bars import bars
from benchmarks.contestant import complete, ours
from benchmarks.measure import PYTHON, say
from benchmarks.startup import Startup, median

COMMITS = 1_000


def measure() -> list[Startup]:
    """Make a table with so many commits and time the commands.

    Raises:
        BenchmarkError: a command failed, or started a JVM.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        commits(Path(folder))
        lakehouse, lake = PYTHON.with_name("lakehouse"), ["--lake", folder]
        found = [
            median("bare interpreter", [PYTHON, "-c", "pass"], {}),
            median("lakehouse history", [lakehouse, "history", "raw_market_data_1m", *lake], {}),
            median("lakehouse status", [lakehouse, "status", *lake], {}),
        ]
    say(f"  of a table with {COMMITS:,} commits")
    return found


def commits(lake: Path) -> None:
    """Make a table of minute bars with so many commits, and so many files."""
    manager = ours("embedded", lake)
    rows = bars(1)
    manager.append("raw_market_data_1m", rows.slice(0, 1), "first")
    names = manager.read_arrow("raw_market_data_1m").column_names
    whole = complete(rows).select(names)
    for number in range(1, COMMITS):
        write_deltalake(str(lake / "raw_market_data_1m"), whole.slice(number, 1), mode="append")
