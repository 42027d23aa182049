"""Ours: one CSV file per asset through the files source, Spark warmed up before the clock; prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from benchmarks.ingest import Timeline
from pipelines.batch.load import FileLoad
from pipelines.config import load_settings
from pipelines.instruments import load_registry
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files import FileSpec
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe


def main() -> None:
    """Read the arguments, load, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--lake", "--folder", "--assets"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    settings = load_settings()
    lake = DeltaLakeManager(given.lake, settings)
    clock = time.perf_counter()
    lake.warm_up()
    session_seconds = time.perf_counter() - clock
    timeline = Timeline()
    for place, asset in enumerate(given.assets.split(",")):
        path = Path(given.folder) / f"{place}.csv"
        spec = FileSpec(path, MARKET_DATA, load_registry().resolve(asset), Timeframe.M1)
        result = asyncio.run(FileLoad(lake, settings, timeline).run(spec))
        if not result.ok:
            raise SystemExit(json.dumps(result.as_dict()))
    seconds = time.perf_counter() - timeline.started
    print(json.dumps({"seconds": seconds, "session_seconds": session_seconds, "commits": timeline.commits}))


if __name__ == "__main__":
    main()
