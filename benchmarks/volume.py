"""The volume benchmark: ten assets of 1m bars through `sample` and through `files`; is speed steady, memory bounded?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.audit import landed
from benchmarks.history import END, minutes
from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say

ASSETS = ("BTCUSD", "ETHUSD", "SOLUSD", "ADAUSD", "XRPUSD", "ETHBTC", "LTCBTC", "DOGEUSD", "AVAXUSD", "LINKUSD")
_MINUTES_A_DAY = 1_440
_PARTS = 10


@dataclass(frozen=True, slots=True)
class Volume:
    """One way of loading: rows, seconds without session start, and bars/s in each tenth of the rows."""

    name: str
    rows: int
    seconds: float
    deciles: list[float]
    run: Run

    @property
    def first(self) -> float:
        """Bars a second in the first tenth of the rows."""
        return self.deciles[0]

    @property
    def last(self) -> float:
        """Bars a second in the last tenth of the rows."""
        return self.deciles[-1]


def measure(days: int) -> list[Volume]:
    """Load the same number of bars both ways, each in a fresh process and lake.

    Raises:
        BenchmarkError: one failed or landed another number of bars.
    """
    return [_sample(days), _files(days)]


def _sample(days: int) -> Volume:
    with tempfile.TemporaryDirectory(prefix="bench-") as lake:
        span = ["--start", f"{END - timedelta(days=days):%F}", "--end", f"{END:%F}", "--provider", "sample"]
        told = ["--lake", lake, "--assets", ",".join(ASSETS), "--timeframes", "1m", *span]
        done = run([PYTHON, "-m", "benchmarks.ingest", *told], {"LAKEHOUSE__DLQ__PATH": f"{lake}/dlq"})
        return _checked("sample", Path(lake), days, done)


def _files(days: int) -> Volume:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        lake, files = Path(folder) / "lake", Path(folder) / "csv"
        files.mkdir()
        for place, asset in enumerate(ASSETS):
            _write_csv(files / f"{place}.csv", asset, days)
        told = ["--lake", str(lake), "--folder", str(files), "--assets", ",".join(ASSETS)]
        done = run([PYTHON, "-m", "benchmarks.load", *told], {"LAKEHOUSE__DLQ__PATH": f"{folder}/dlq"})
        return _checked("files (CSV)", lake, days, done)


def _write_csv(path: Path, asset: str, days: int) -> None:
    product = "BTC-USD" if len(asset) % 2 else "ETH-USD"
    candles = minutes(product, days)
    times = pa.array(candles.time * 1_000_000, pa.timestamp("us", "UTC"))
    columns = {name: getattr(candles, name) for name in ("open", "high", "low", "close", "volume")}
    pa_csv.write_csv(pa.table({"timestamp": times, **columns}), path)


def _checked(name: str, lake: Path, days: int, done: Run) -> Volume:
    found, wanted = landed(lake), len(ASSETS) * days * _MINUTES_A_DAY
    if (found.rows, found.bars) != (wanted, wanted):
        raise BenchmarkError(f"{name} landed {found}, not {wanted} bars")
    commits = [(float(at), int(rows)) for at, rows in done.answer["commits"]]
    volume = Volume(name, wanted, float(done.answer["seconds"]), speeds(commits), done)
    say(f"  {name}: {wanted:,} bars in {volume.seconds:.1f} s; by tenths {_listed(volume.deciles)} bars/s")
    return volume


def speeds(commits: Sequence[tuple[float, int]], parts: int = _PARTS) -> list[float]:
    """Return rows a second in each of so many equal parts of the rows.

    A commit's rows count as landed evenly since the commit before it, so that a part may end within a commit.

    Args:
        commits: seconds since the start and rows of each commit, in order.
        parts: how many parts.
    """
    landed_rows = np.concatenate(([0], np.cumsum([rows for _, rows in commits])))
    at = np.concatenate(([0.0], [seconds for seconds, _ in commits]))
    borders = np.interp(np.linspace(0, landed_rows[-1], parts + 1), landed_rows, at)
    return [float(landed_rows[-1] / parts / spent) for spent in np.diff(borders)]


def _listed(deciles: Sequence[float]) -> str:
    return " ".join(f"{speed:,.0f}" for speed in deciles)
