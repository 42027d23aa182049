"""`lakehouse gaps` as a user runs it: what it shows, its exit codes, repairs, and a repair that is killed."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from deltalake import DeltaTable

from pipelines.config import PROJECT_ROOT
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from tests.batch.exchange import Exchange, stored, truth
from tests.cli.shell import run, shell, spawn
from tests.servers.base import Fault, hang

GBPUSD = PROJECT_ROOT.parent / "shared" / "data" / "gbpusd_1m_bid_2012-02.csv"
EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded", "JAVA_HOME": "/nowhere"}
START = datetime(2025, 12, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TABLE = "raw_market_data_1m"


def lakehouse(folder: Path, *arguments: str, **more: str) -> Result:
    return run(folder, *arguments, **EMBEDDED, **more)


def answer(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def coinbase(exchange: Exchange) -> dict[str, str]:
    """Return the environment in which the exchange is the only provider."""
    prefix = "LAKEHOUSE__PROVIDERS__"
    return {
        f"{prefix}CHAIN": "[coinbase]",
        f"{prefix}COINBASE__BASE_URL": exchange.url,
        f"{prefix}COINBASE__REQUESTS_PER_MINUTE": "600000",
        f"{prefix}COINBASE__BURST": "1000",
    }


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A synthetic lake whose fifth of six days was never fetched."""
    for start, end in (("2025-12-01", "2025-12-05"), ("2025-12-06", "2025-12-07")):
        made = lakehouse(
            tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD,EURUSD", "--timeframes", "1h,4h",
            "--start", start, "--end", end, "--quiet",
        )  # fmt: skip
        assert made.exit_code == 0, made.output
    return tmp_path


def test_gaps_are_shown_repaired_and_gone(sample: Path) -> None:
    shown = lakehouse(sample, "gaps", "--sample")
    assert shown.exit_code == 1
    assert "SYNTHETIC" in shown.stdout
    # Friday's 24 and 6 bars of bitcoin; euros trade until 22:00 UTC.
    assert "58 bars missing in 4 runs" in shown.stdout
    assert "lakehouse gaps --repair --sample" in shown.stdout
    planned = lakehouse(sample, "gaps", "--sample", "--repair", "--dry-run")
    assert (planned.exit_code, "58 would be asked for" in planned.stdout) == (1, True)
    done = lakehouse(sample, "gaps", "--sample", "--repair", "--quiet")
    assert done.exit_code == 0, done.output
    assert "58 bars filled" in done.stdout
    again = lakehouse(sample, "gaps", "--sample", "--repair", "--quiet")
    assert (again.exit_code, "nothing is missing; no request was made" in again.stdout) == (0, True)
    whole = lakehouse(sample, "gaps", "--sample")
    assert (whole.exit_code, "Nothing is missing of the" in whole.stdout) == (0, True)


def test_a_program_reads_the_same(sample: Path) -> None:
    shown = answer(lakehouse(sample, "gaps", "--sample", "--assets", "EURUSD", "--timeframe", "1h", "--json"))
    assert (shown["ok"], shown["missing"], shown["can_be_asked_for"], shown["synthetic"]) == (False, 22, 22, True)
    (series,) = shown["series"]
    assert series["by_kind"] == {"not fetched": 22, "rejected": 0, "provider has none": 0}
    assert series["runs"] == [
        {
            "start": "2025-12-05T00:00:00+00:00", "end": "2025-12-05T22:00:00+00:00", "bars": 22,
            "kind": "not fetched", "providers": [],
        }
    ]  # fmt: skip
    planned = answer(lakehouse(sample, "gaps", "--sample", "--repair", "--dry-run", "--json"))
    assert {ask["provider"] for ask in planned["asks"]} == {"sample"}
    done = answer(lakehouse(sample, "gaps", "--sample", "--repair", "--json"))
    assert (done["ok"], done["filled"], done["missing"]) == (True, 58, 0)


def test_closed_time_is_listed_on_demand(sample: Path) -> None:
    plain = lakehouse(sample, "gaps", "--sample", "--assets", "EURUSD", "--timeframe", "1h")
    assert not [line for line in plain.stdout.splitlines()[3:] if line.endswith("market closed")]
    closed = answer(lakehouse(sample, "gaps", "--sample", "--assets", "EURUSD", "--closed", "--json"))
    runs = [run for series in closed["series"] for run in series["runs"] if run["kind"] == "market closed"]
    assert [(each["start"], each["bars"]) for each in runs] == [
        ("2025-12-05T22:00:00+00:00", 26), ("2025-12-06T00:00:00+00:00", 6),
    ]  # fmt: skip


def test_showing_gaps_records_them_and_a_dry_run_does_not(sample: Path) -> None:
    lake = DeltaLakeManager(sample / "sample")
    lakehouse(sample, "gaps", "--sample", "--repair", "--dry-run")
    assert lake.quality.read(kind="gaps").num_rows == 0
    lakehouse(sample, "gaps", "--sample")
    found = lake.quality.read(kind="gaps").to_pylist()
    assert [(row["asset_pair"], row["timeframe"], row["rows_failed"]) for row in found] == [
        ("BTCUSD", "1h", 24), ("BTCUSD", "4h", 6), ("EURUSD", "1h", 22), ("EURUSD", "4h", 6),
    ]  # fmt: skip


def test_what_only_files_could_have_is_no_error_once_nobody_is_left_to_ask(tmp_path: Path) -> None:
    no_one = {"LAKEHOUSE__PROVIDERS__CHAIN": "[coinbase, oanda]"}
    assert lakehouse(tmp_path, "load", str(GBPUSD), "--asset", "GBPUSD", "--timeframe", "1m").exit_code == 0
    shown = lakehouse(tmp_path, "gaps", "--limit", "1", **no_one)
    assert (shown.exit_code, "124 bars missing in 111 runs" in shown.stdout) == (0, True)
    assert "and 110 runs more" in shown.stdout
    repaired = lakehouse(tmp_path, "gaps", "--repair", **no_one)
    assert (repaired.exit_code, "no request was made" in repaired.stdout) == (0, True)
    assert "oanda passed over: no token" in repaired.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dry-run"], "--dry-run goes with --repair"),
        (["--again"], "--again goes with --repair"),
        (["--days", "3", "--start", "2025-12-01"], "either --days or"),
        (["--end", "2025-12-01"], "--end needs a --start"),
        (["--start", "2025-12-03", "--end", "2025-12-01"], "the span is empty"),
        (["--start", "2999-01-01"], "the span is empty"),
        (["--timeframe", "2h"], "unknown timeframe '2h'"),
        (["--assets", "SOLUSD"], "no bars of SOLUSD; it has BTCUSD, EURUSD"),
        (["--assets", "NOPE"], "unknown asset"),
        (["--repair", "--provider", "coinbse"], "did you mean coinbase"),
    ],
)
def test_wrong_arguments_are_named(sample: Path, arguments: list[str], words: str) -> None:
    refused = lakehouse(sample, "gaps", "--sample", *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr


def lose(lake: DeltaLakeManager, spans: list[tuple[int, int]]) -> None:
    """Lose minutes of bronze, and what coverage says of them, as damage does."""
    table = DeltaTable(f"{lake.storage_path}/{TABLE}")
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    gone = [Interval(START + first * MINUTE, START + end * MINUTE) for first, end in spans]
    for span in gone:
        table.delete(f"timestamp >= '{span.start.isoformat()}' AND timestamp < '{span.end.isoformat()}'")
    lake.coverage.retract(MARKET_DATA, Timeframe.M1, {"BTCUSD": IntervalSet(gone)}, "damage")


@pytest.mark.timeout(180)
def test_a_killed_repair_is_gone_on_with(tmp_path: Path, exchange: Exchange) -> None:
    more = EMBEDDED | coinbase(exchange) | {"LAKEHOUSE__INGEST__CHUNK_ROWS": "30"}
    week = ["--assets", "BTCUSD", "--timeframes", "1m", "--start", "2025-12-07", "--end", "2025-12-10"]
    code, out, err = shell(tmp_path, "backfill", *week, **(more | {"LAKEHOUSE__INGEST__CHUNK_ROWS": "5000"}))
    assert code == 0, out + err
    lake = DeltaLakeManager(tmp_path / "real")
    # Eight holes, too far from each other to share a request of 300 minutes.
    lose(lake, [(450 * place + 20, 450 * place + 60) for place in range(8)])
    before = DeltaTable(f"{lake.storage_path}/{TABLE}").version()
    exchange.log.clear()
    exchange.misbehave(*[Fault("none")] * 4)
    exchange.always(hang(60))
    with spawn(tmp_path, "gaps", "--repair", **more) as repair:
        until = time.monotonic() + 90
        while DeltaTable(f"{lake.storage_path}/{TABLE}").version() < before + 1 and time.monotonic() < until:
            time.sleep(0.05)
        repair.send_signal(signal.SIGKILL)
        repair.wait(timeout=30)
    assert repair.returncode == -signal.SIGKILL
    landed = len(stored(lake.storage_path, TABLE, "BTCUSD")) - (3 * 1440 - 320)
    assert landed >= 40
    exchange.always(None)
    exchange.log.clear()
    code, out, err = shell(tmp_path, "gaps", "--repair", **more)
    assert code == 0, out + err
    assert f"{320 - landed} bars filled" in out
    found = stored(lake.storage_path, TABLE, "BTCUSD")
    whole = truth(exchange, "BTC-USD", Timeframe.M1, "2025-12-07", "2025-12-10")
    assert found.index.is_unique
    assert list(found.index) == list(whole.index)
    assert len(exchange.log) == (320 - landed) // 40
    exchange.log.clear()
    assert shell(tmp_path, "gaps", "--repair", **more)[0] == 0
    assert exchange.log == []
