"""A backfill in a process of its own, to be killed: `python -m tests.batch.worker URL FOLDER ENGINE START END`.

It says when it is ready and begins when told a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.progress import Progress
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.conftest import make_settings

ASSETS = ("BTCUSD", "ETHUSD")


class Told(Progress):
    """Says on standard output when rows have landed."""

    def landed(self, rows: int) -> None:
        print(f"landed {rows}", flush=True)  # noqa: T201


def main(url: str, folder: str, engine: str, start: str, end: str) -> int:
    """Backfill in many small commits, so that a kill has much to hit."""
    fast = {"base_url": url, "requests_per_minute": 600_000, "burst": 1000}
    providers = {"providers": {"chain": ["coinbase"], "coinbase": fast}}
    settings = make_settings(Path(folder), providers, {"ingest": {"chunk_rows": 700}, "storage": {"engine": engine}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    lake.warm_up()
    print("ready", os.getpid(), flush=True)  # noqa: T201
    sys.stdin.readline()
    jobs = [bar_job(asset, t, start, end, now=utc_now()) for asset in ASSETS for t in Timeframe]
    result = asyncio.run(Backfill(lake, settings, Told()).run(jobs))
    print("done", result.total("new"), result.ok, flush=True)  # noqa: T201
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
