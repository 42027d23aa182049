"""The start-up benchmark: what a person waits for commands that need no JVM, beside a bare interpreter."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import PYTHON, BenchmarkError, run, say

_REPEATS = 5
_BACKFILL = (
    "backfill",
    "--provider",
    "sample",
    "--assets",
    "BTCUSD,ETHUSD",
    "--start",
    "2025-11-24",
    "--end",
    "2025-12-01",
)


@dataclass(frozen=True, slots=True)
class Startup:
    """A command, the median of its wall times in seconds, and whether a JVM ran."""

    name: str
    seconds: float
    jvm: bool


def measure() -> list[Startup]:
    """Time the commands on a week of sample data.

    Raises:
        BenchmarkError: a command failed, or started a JVM.
    """
    lakehouse = PYTHON.with_name("lakehouse")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        env = {
            "LAKEHOUSE__DELTA_LAKE__STORAGE_PATH": f"{folder}/real",
            "LAKEHOUSE__DELTA_LAKE__SAMPLE_STORAGE_PATH": f"{folder}/sample",
            "LAKEHOUSE__DLQ__PATH": f"{folder}/dlq",
        }
        run([lakehouse, *_BACKFILL, "--json"], env)
        return [
            median("bare interpreter", [PYTHON, "-c", "pass"], env),
            median("lakehouse --help", [lakehouse, "--help"], env),
            median("lakehouse status", [lakehouse, "status"], env),
            median("backfill with nothing missing", [lakehouse, *_BACKFILL, "--json"], env),
        ]


def median(name: str, command: Sequence[str | Path], env: dict[str, str]) -> Startup:
    """Return the median wall time of a command.

    Raises:
        BenchmarkError: it failed, or started a JVM.
    """
    runs = [run(command, env, answers=False) for _ in range(_REPEATS)]
    if any(done.usage.jvm_peak for done in runs):
        raise BenchmarkError(f"{name} started a JVM")
    seconds = statistics.median(done.wall_seconds for done in runs)
    say(f"  {name}: {seconds:.2f} s")
    return Startup(name, seconds, jvm=False)
