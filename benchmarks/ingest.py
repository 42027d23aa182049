"""Ours: jobs through the product's own API, with Spark started and warmed up before the clock; prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from itertools import product as pairs
from typing import Any

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.progress import Progress
from pipelines.config import load_settings
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import utc_now


class Timeline(Progress):
    """Notes when rows were committed, in seconds since the start."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.commits: list[tuple[float, int]] = []

    def landed(self, rows: int) -> None:
        """So many rows were committed."""
        self.commits.append((time.perf_counter() - self.started, rows))


async def ingest(given: argparse.Namespace) -> dict[str, Any]:
    """Run the backfill and return what was measured."""
    settings = load_settings()
    clock = time.perf_counter()
    lake = DeltaLakeManager(given.lake, settings)
    lake.warm_up()
    session_seconds = time.perf_counter() - clock
    now = utc_now()
    jobs = [
        bar_job(asset, timeframe, given.start, given.end, now=now, provider=given.provider)
        for timeframe, asset in pairs(given.timeframes.split(","), given.assets.split(","))
    ]
    timeline = Timeline()
    result = await Backfill(lake, settings, timeline).run(jobs)
    seconds = time.perf_counter() - timeline.started
    if not result.ok:
        raise SystemExit("\n".join(str(window) for series in result.series for window in series.failed))
    return {
        "seconds": seconds,
        "session_seconds": session_seconds,
        "rows": result.total("new"),
        "requests": result.requests,
        "commits": timeline.commits,
    }


def main() -> None:
    """Read the arguments, backfill, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--lake", "--assets", "--timeframes", "--start", "--end", "--provider"):
        parser.add_argument(name, required=True)
    print(json.dumps(asyncio.run(ingest(parser.parse_args()))))


if __name__ == "__main__":
    main()
