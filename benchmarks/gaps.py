"""The gap benchmark: a year of 1m bars with holes, by the product and by a hand-written DuckDB anti-join."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.bars import A_DAY, ASSETS, START, bars
from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say
from pipelines.config import load_settings
from pipelines.storage import DeltaLakeManager

TABLE = "raw_market_data_1m"
FINDERS = ("DuckDB", "lakehouse gaps")
_LOST = 0.002
_DAYS_AT_ONCE = 30
_REPEATS = 3
# What a person would write who knows the span and that these markets never close: no calendar, no reasons.
_ANTI_JOIN = """
    SELECT a.asset_pair, t.at
    FROM (SELECT unnest(?) AS asset_pair) AS a
    CROSS JOIN (SELECT unnest(generate_series(?::TIMESTAMPTZ, ?::TIMESTAMPTZ, INTERVAL 1 MINUTE)) AS at) AS t
    ANTI JOIN read_parquet(?) AS b ON b.asset_pair = a.asset_pair AND b.timestamp = t.at
    ORDER BY ALL
"""


@dataclass(frozen=True, slots=True)
class Found:
    """One finder: bars expected, bars missing, median seconds of three warm runs and those of the first, usage."""

    name: str
    expected: int
    missing: int
    seconds: float
    first: float
    run: Run


def measure(days: int) -> list[Found]:
    """Make a lake with holes and find them both ways, each in a fresh process.

    Raises:
        BenchmarkError: one finds another number of missing bars than were left out.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        lake = Path(scratch)
        lost = _make(lake, days)
        return [_find(lake, finder, days, lost) for finder in FINDERS]


def _make(lake: Path, days: int) -> int:
    """Land all minutes but one in five hundred; returns how many were left out between the first and the last."""
    settings = load_settings(overrides={"storage": {"engine": "embedded"}, "dlq": {"path": str(lake / "dlq")}})
    manager, rng, lost = DeltaLakeManager(lake, settings), np.random.default_rng(7), 0
    for first in range(0, days, _DAYS_AT_ONCE):
        rows = bars(min(_DAYS_AT_ONCE, days - first), first)
        kept = rng.random(rows.num_rows) >= _LOST
        # The edges stay, so that a series begins and ends where all others do.
        each = rows.num_rows // len(ASSETS)
        kept[::each] = kept[each - 1 :: each] = True
        lost += int(np.count_nonzero(~kept))
        manager.append(TABLE, rows.filter(pa.array(kept)), "bench")
    return lost


def _find(lake: Path, finder: str, days: int, lost: int) -> Found:
    done = run([PYTHON, "-m", "benchmarks.gaps", "--lake", lake, "--finder", finder, "--days", str(days)])
    expected, missing = len(ASSETS) * days * A_DAY, int(done.answer["missing"])
    if missing != lost:
        raise BenchmarkError(f"{finder}: {missing:,} bars missing, not {lost:,}")
    seconds = float(done.answer["seconds"])
    say(f"  {finder}: {missing:,} of {expected:,} bars missing, {seconds:.2f} s")
    return Found(finder, expected, missing, seconds, float(done.answer["first"]), done)


def _by_product(lake: Path) -> int:
    from pipelines.data_quality.gaps import find_gaps

    return sum(gaps.missing for gaps in find_gaps(DeltaLakeManager(lake, load_settings())))


def _by_duckdb(lake: Path, days: int) -> int:
    import duckdb
    from deltalake import DeltaTable

    files = DeltaTable(str(lake / TABLE)).file_uris()
    last = START + timedelta(days=days, minutes=-1)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return int(connection.execute(_ANTI_JOIN, [list(ASSETS), START, last, files]).to_arrow_table().num_rows)


def _timed(lake: Path, finder: str, days: int) -> dict[str, Any]:
    """Find once, which imports what it needs, and then take the median of three."""

    def find() -> int:
        return _by_product(lake) if finder == FINDERS[1] else _by_duckdb(lake, days)

    spent, missing = [], 0
    for _ in range(1 + _REPEATS):
        clock = time.perf_counter()
        missing = find()
        spent.append(time.perf_counter() - clock)
    return {"missing": missing, "first": spent[0], "seconds": statistics.median(spent[1:])}


def main() -> None:
    """Read the arguments, find, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--finder", choices=FINDERS, required=True)
    parser.add_argument("--days", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(_timed(given.lake, given.finder, given.days)))


if __name__ == "__main__":
    main()
