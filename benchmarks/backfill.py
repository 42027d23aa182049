"""The backfill benchmark: 2 assets x 6 timeframes from a local exchange, beside dlt and a hand-written script."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.audit import check_history, landed
from benchmarks.history import END, PRODUCTS, SECONDS, expected_rows, start_of
from benchmarks.measure import PYTHON, REFERENCE_PYTHON, BenchmarkError, Run, candle_server, run, say

EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded"}
ASSETS = ",".join(product.replace("-", "") for product in PRODUCTS)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who takes part: a name, how to start it, and the settings it needs."""

    name: str
    command: Sequence[str | Path]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """How one contestant did; times in seconds, `server_cpu` is what the exchange needed to serve it."""

    name: str
    rows: int
    files: int
    seconds: float
    run: Run
    server_cpu: float

    @property
    def rate(self) -> float:
        """Bars a second."""
        return self.rows / self.seconds


def contestants(url: str, lake: Path, days: int) -> list[Contestant]:
    """Return the contestants; the command lines of ours start all they need themselves."""
    told = ["--url", url, "--lake", str(lake), "--days", str(days)]
    span = ["--assets", ASSETS, "--provider", "coinbase", "--start", f"{start_of(days):%F}", "--end", f"{END:%F}"]
    env = ours(url, lake)
    api = ["-m", "benchmarks.ingest", "--lake", str(lake), "--timeframes", ",".join(SECONDS), *span]
    return [
        Contestant("dlt", [REFERENCE_PYTHON, "-m", "benchmarks.references.dlt_rest", *told], {}),
        Contestant("script", [REFERENCE_PYTHON, "-m", "benchmarks.references.script", *told], {}),
        Contestant("ours", [PYTHON, *api], env),
        Contestant("ours, CLI", [PYTHON.with_name("lakehouse"), "backfill", *span, "--json"], env),
        Contestant("ours, embedded", [PYTHON, *api], env | EMBEDDED),
        Contestant("ours, embedded, CLI", [PYTHON.with_name("lakehouse"), "backfill", *span, "--json"], env | EMBEDDED),
    ]


def ours(url: str, lake: Path) -> dict[str, str]:
    """Return the settings that point the product at the local exchange and take its rate limit away."""
    return {
        "LAKEHOUSE__DELTA_LAKE__STORAGE_PATH": str(lake),
        "LAKEHOUSE__DLQ__PATH": str(lake / "dlq"),
        "LAKEHOUSE__PROVIDERS__COINBASE__BASE_URL": url,
        "LAKEHOUSE__PROVIDERS__COINBASE__REQUESTS_PER_MINUTE": "6000000",
        "LAKEHOUSE__PROVIDERS__COINBASE__BURST": "1000",
    }


def measure(days: int, only: str | None = None) -> list[Result]:
    """Run the contestants one after another, each in a fresh process and an empty lake, and check what they landed.

    Raises:
        BenchmarkError: one failed, or its bars are not the exchange's.
    """
    results = []
    with candle_server(days) as url, tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for place in range(len(contestants(url, Path(), days))):
            lake = Path(scratch) / str(place)
            contestant = contestants(url, lake, days)[place]
            if only is not None and contestant.name != only:
                continue
            results.append(_take_part(contestant, url, lake, days))
            shutil.rmtree(lake)
    return results


def _take_part(contestant: Contestant, url: str, lake: Path, days: int) -> Result:
    lake.mkdir()
    before = _server_cpu(url)
    done = run(contestant.command, contestant.env)
    found = landed(lake)
    if (found.rows, found.bars) != (expected_rows(days),) * 2:
        raise BenchmarkError(f"{contestant.name} landed {found}, not {expected_rows(days)} bars")
    check_history(lake, days)
    seconds = float(done.answer["seconds"])
    result = Result(contestant.name, found.rows, found.files, seconds, done, _server_cpu(url) - before)
    say(f"  {result.name}: {result.rows:,} bars in {seconds:.1f} s, {result.rate:,.0f} bars/s")
    return result


def _server_cpu(url: str) -> float:
    with urllib.request.urlopen(f"{url}/stats") as answer:  # noqa: S310 - the loopback server above
        return float(json.load(answer)["cpu_seconds"])
