"""What the benchmark of monitoring runs in a process of its own: an exporter's looks, or a backfill. Prints JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.bars import bars
from benchmarks.contestant import ours
from benchmarks.ingest import ingest

if TYPE_CHECKING:
    from pipelines.monitoring.exporter import Exporter

TABLE = "raw_market_data_1m"
_SCRAPES = 20


def look(lake: Path) -> dict[str, float]:
    """Look at a lake for the first time, again, after one commit; then be scraped. Seconds, and samples shown."""
    from pipelines.monitoring.exporter import Exporter
    from pipelines.monitoring.serving import served

    manager = ours("embedded", lake)
    exporter, registry = Exporter(manager), CollectorRegistry()
    registry.register(exporter)
    found = {"first": _timed(exporter), "same": _timed(exporter)}
    manager.append(TABLE, bars(1, 2).slice(0, 1), "one more")
    found["one"] = _timed(exporter)
    with served(registry, "127.0.0.1", 0, "") as address, httpx.Client(trust_env=False) as client:
        times = []
        for _ in range(_SCRAPES):
            began = time.perf_counter()
            answer = client.get(address)
            times.append(time.perf_counter() - began)
    samples = sum(not line.startswith("#") for line in answer.text.splitlines())
    return found | {"scrape": max(times), "samples": samples}


def _timed(exporter: Exporter) -> float:
    began = time.perf_counter()
    if not exporter.look():
        raise SystemExit("something could not be looked at")
    return time.perf_counter() - began


class Meter:
    """Counts calls of metrics, and the time spent in them; the clock's own cost is counted as theirs."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def around(self, kind: type, name: str) -> Callable[..., Any]:
        """Return a method that does what one of a class does, measured."""
        method = getattr(kind, name)

        def measured(*args: object, **named: object) -> object:
            began = time.perf_counter()
            try:
                return method(*args, **named)
            finally:
                spent = time.perf_counter() - began
                with self._lock:
                    self.calls, self.seconds = self.calls + 1, self.seconds + spent

        return measured


def backfill(given: argparse.Namespace) -> dict[str, float]:
    """Backfill and push: seconds of both, seconds in metrics and of the push, calls of metrics, and rows."""
    from pipelines.config import load_settings
    from pipelines.monitoring.push import push_job

    meter, began = Meter(), time.perf_counter()
    with ExitStack() as stack:
        for kind, name in ((MetricWrapperBase, "labels"), (Counter, "inc"), (Gauge, "set"), (Histogram, "observe")):
            stack.enter_context(mock.patch.object(kind, name, meter.around(kind, name)))
        rows = asyncio.run(ingest(given))["rows"]
    ended = time.perf_counter()
    # As a command does when it ends.
    if not push_job(load_settings().monitoring, "backfill", ended - began, ok=True):
        raise SystemExit("the Pushgateway did not take it")
    now = time.perf_counter()
    return {
        "seconds": now - began, "metrics": meter.seconds, "calls": meter.calls, "push": now - ended, "rows": rows,
    }  # fmt: skip


def main() -> None:
    """Read the arguments, do it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", required=True)
    for name in ("--assets", "--timeframes", "--start", "--end", "--provider"):
        parser.add_argument(name)
    given = parser.parse_args()
    print(json.dumps(look(Path(given.lake)) if given.assets is None else backfill(given)))


if __name__ == "__main__":
    main()
