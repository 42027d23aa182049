"""The commands over real lakes: what a user sees, what a program reads, and what is on disk afterwards."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.batch.exchange import Exchange, count, days, stored
from tests.cli.shell import SAMPLE_WEEK, run, shell, spawn
from tests.servers.base import hang

pytestmark = pytest.mark.spark(alone=True)

# A JVM cannot be started from here, so what succeeds with it needs none.
NO_JAVA = {"JAVA_HOME": "/nowhere"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the week of the README has been backfilled by a process of its own."""
    folder = tmp_path_factory.mktemp("sample")
    code, out, err = shell(folder, *SAMPLE_WEEK)
    assert code == 0, out + err
    assert "SYNTHETIC" in out
    assert "25,970 bars landed" in out
    return folder


def test_the_sample_week_is_25_970_bars_in_six_tables(sample: Path) -> None:
    assert sum(count(sample / "sample").values()) == 25_970
    assert len(count(sample / "sample")) == 6
    assert not (sample / "real").exists()


def test_again_with_nothing_missing_needs_no_jvm(sample: Path) -> None:
    # Whole days behind us, so that no new bar can close between the two runs.
    week = json.loads(run(sample, "status", "--sample", "--json").stdout)["coverage"]
    start, end = max(row["start"] for row in week), min(row["end"] for row in week)
    arguments = [*SAMPLE_WEEK[:-2], "--start", start, "--end", end]
    code, out, err = shell(sample, *arguments, **NO_JAVA)
    assert code == 0, out + err
    assert "Nothing was missing" in out
    code, out, err = shell(sample, *arguments, "--json", **NO_JAVA)
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["fetched"], result["new"], result["ok"], result["synthetic"]) == (0, 0, True, True)
    assert {series["coverage"] for series in result["series"]} == {1.0}
    assert sum(count(sample / "sample").values()) == 25_970


def test_without_java_the_run_fails_and_says_what_to_do(tmp_path: Path) -> None:
    code, out, err = shell(tmp_path, *SAMPLE_WEEK, "--timeframes", "1d", **NO_JAVA)
    assert code == 1
    assert "2 windows failed" in out
    assert "JAVA_HOME" in out
    assert "Traceback" not in out + err


def test_status_falls_back_to_the_sample_lake_and_says_so(sample: Path) -> None:
    done = run(sample, "status", **NO_JAVA)
    assert done.exit_code == 0
    assert "SYNTHETIC" in done.stdout
    assert "is empty" in done.stdout
    assert "20,160" in done.stdout
    assert "25,970" in next(line for line in done.stdout.splitlines() if line.startswith("total"))
    read = json.loads(run(sample, "status", "--json").stdout)
    assert read["synthetic"] is True
    rows = {table["name"]: table["rows"] for table in read["tables"]}
    assert rows["raw_market_data_1m"] == 20_160
    assert len(read["coverage"]) == 12
    assert all(row["gaps"] == 0 and row["coverage"] == 1.0 for row in read["coverage"])


def test_status_of_no_lake_tells_how_to_make_one(tmp_path: Path) -> None:
    done = run(tmp_path, "status")
    assert done.exit_code == 0
    assert "lakehouse backfill --provider sample" in done.stdout
    assert json.loads(run(tmp_path, "status", "--json").stdout)["lake"] is None
    assert run(tmp_path, "status", "--lake", str(tmp_path / "none")).exit_code == 1
    assert not any(tmp_path.iterdir())


def test_history_shows_the_commits_newest_first(sample: Path) -> None:
    done = run(sample, "history", "raw_market_data_1h", **NO_JAVA)
    assert done.exit_code == 0
    assert "336" in done.stdout
    assert "CREATE TABLE" in done.stdout
    commits = json.loads(run(sample, "history", "raw_market_data_1h", "--limit", "1", "--json").stdout)["commits"]
    newest = DeltaTable(sample / "sample" / "raw_market_data_1h").version()
    assert [commit["version"] for commit in commits] == [newest]
    wrong = run(sample, "history", "raw_market_data_1hour")
    assert wrong.exit_code == 2
    assert "raw_market_data_1h" in wrong.stderr


def test_query_prints_rows_only_and_travels_in_time(sample: Path) -> None:
    sql = "select asset_pair, count(*) as bars, max(timestamp) as newest from raw_market_data_1h group by 1 order by 1"
    done = run(sample, "query", sql, "--format", "json", **NO_JAVA)
    rows = json.loads(done.stdout)
    assert [(row["asset_pair"], row["bars"]) for row in rows] == [("BTCUSD", 168), ("ETHUSD", 168)]
    assert "SYNTHETIC" in done.stderr
    read = list(csv.DictReader(io.StringIO(run(sample, "query", sql, "--format", "csv").stdout)))
    assert [row["bars"] for row in read] == ["168", "168"]
    assert read[0]["newest"].endswith("Z")
    assert "168" in run(sample, "query", sql).stdout
    before = run(sample, "query", "select * from raw_market_data_1h", "--version", "0", "--format", "json")
    assert json.loads(before.stdout) == []
    limited = run(sample, "query", "select * from raw_market_data_1h", "--limit", "3", "--format", "csv")
    assert len(limited.stdout.splitlines()) == 4
    assert "333 more rows" in limited.stderr


def test_query_refuses_what_it_cannot_run(sample: Path) -> None:
    wrong = run(sample, "query", "select * frm raw_market_data_1h")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    missing = run(sample, "query", "select * from raw_market_data_2h")
    assert missing.exit_code == 2
    assert "raw_market_data_1h" in missing.stderr
    assert run(sample, "query", "drop table raw_market_data_1h").exit_code == 1


def test_real_data_is_kept_out_of_the_sample_lake(sample: Path) -> None:
    arguments = ["backfill", "--provider", "coinbase", "--assets", "BTCUSD", "--days", "1"]
    done = run(sample, *arguments, "--lake", str(sample / "sample"))
    assert done.exit_code == 2
    assert "synthetic" in done.stderr


def test_doctor_is_happy_here_and_hides_keys(sample: Path) -> None:
    done = run(sample, "doctor", "--offline", "--json", ALPHA_VANTAGE_API_KEY="s3cret-key")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 0, done.stdout
    assert "s3cret" not in done.output
    assert checks["alpha_vantage key"]["state"] == "ok"
    assert checks["oanda key"]["state"] == "warn"
    assert "OANDA_API_TOKEN" in checks["oanda key"]["do"]
    assert "SYNTHETIC" in checks["sample lake"]["found"]
    assert "s3cret" not in run(sample, "config", ALPHA_VANTAGE_API_KEY="s3cret-key").output


def test_doctor_finds_what_is_broken(tmp_path: Path, sample: Path) -> None:
    swapped = {"LAKEHOUSE__DELTA_LAKE__STORAGE_PATH": str(sample / "sample")}
    with Exchange() as server:
        reach = {f"LAKEHOUSE__PROVIDERS__{name}__ENABLED": "false" for name in ("ALPHA_VANTAGE", "OANDA", "YFINANCE")}
        reach |= {"LAKEHOUSE__PROVIDERS__COINBASE__BASE_URL": server.url}
        reach |= {"LAKEHOUSE__PROVIDERS__FRED__BASE_URL": "http://127.0.0.1:9"}
        done = run(tmp_path, "doctor", **swapped, **reach, **NO_JAVA)
    lines = {" ".join(line.split()[1:2]): line for line in done.stdout.splitlines()}
    assert done.exit_code == 1
    assert lines["java"].startswith("broken")
    assert lines["coinbase"].startswith("ok")
    assert lines["fred"].startswith("warn")
    assert any(line.startswith("broken") and "synthetic data, not real" in line for line in done.stdout.splitlines())


def test_config_says_which_layer_changed_a_setting(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("ingest: {chunk_rows: 1234}\n", encoding="utf-8")
    done = run(tmp_path, "config", "--config", str(own), LAKEHOUSE__INGEST__LOOKBACK_BARS="5")
    assert done.exit_code == 0, done.output
    assert "chunk_rows: 1234  # from a settings file" in done.stdout
    assert "lookback_bars: 5  # from the environment" in done.stdout
    assert "settling_delay_seconds: 300.0\n" in done.stdout


def coinbase(server: Exchange, **ingest: str) -> dict[str, str]:
    section = "LAKEHOUSE__PROVIDERS__COINBASE__"
    fast = {"BASE_URL": server.url, "REQUESTS_PER_MINUTE": "60000", "BACKOFF_SECONDS": "0.001"}
    limits = {f"LAKEHOUSE__INGEST__{name.upper()}": value for name, value in ingest.items()}
    return {f"{section}{name}": value for name, value in fast.items()} | limits


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_interrupted_it_says_how_to_go_on_and_going_on_completes(tmp_path: Path, exchange: Exchange) -> None:
    start, end = "2025-12-07", days("2025-12-07", 5)
    arguments = ["backfill", "--provider", "coinbase", "--assets", "BTCUSD", "--timeframes", "1m"]
    arguments += ["--start", start, "--end", end]
    small = coinbase(exchange, chunk_rows="600", windows_in_flight="2")
    table = tmp_path / "real" / "raw_market_data_1m"
    with spawn(tmp_path, *arguments, **small) as process:
        deadline = time.monotonic() + 200
        while not _rows(table) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "press Ctrl-C again" in err
    assert f"lakehouse {' '.join(arguments)}" in out
    landed = _rows(table)
    assert 0 < landed < 7200

    exchange.log.clear()
    done = run(tmp_path, *arguments, **coinbase(exchange))
    assert done.exit_code == 0, done.output
    assert len(stored(tmp_path / "real", "raw_market_data_1m", "BTCUSD")) == 7200
    assert stored(tmp_path / "real", "raw_market_data_1m", "BTCUSD").index.is_unique
    assert sum((last - first).total_seconds() / 60 + 1 for _, _, first, last in exchange.asked()) == 7200 - landed


def test_interrupted_twice_it_ends_at_once(tmp_path: Path, exchange: Exchange) -> None:
    exchange.always(hang())
    arguments = ["backfill", "--provider", "coinbase", "--assets", "BTCUSD", "--days", "1"]
    with spawn(tmp_path, *arguments, **coinbase(exchange), **NO_JAVA) as process:
        while not exchange.log and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "press Ctrl-C again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.endswith("aborted\n")


def _rows(table: Path) -> int:
    return DeltaTable(str(table)).count() if DeltaTable.is_deltatable(str(table)) else 0


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_failed_windows_are_listed_and_exit_1(tmp_path: Path, exchange: Exchange) -> None:
    arguments = ["backfill", "--provider", "coinbase", "--assets", "BTCUSD,ETHUSD", "--timeframes", "1d"]
    broken = coinbase(exchange) | {"LAKEHOUSE__PROVIDERS__COINBASE__BASE_URL": "http://127.0.0.1:9"}
    broken |= {"LAKEHOUSE__PROVIDERS__COINBASE__MAX_RETRIES": "0"}
    done = run(tmp_path, *arguments, "--start", "2025-12-07", "--end", "2025-12-14", **broken)
    assert done.exit_code == 1
    assert "2 windows failed" in done.stdout
    assert "2025-12-07 00:00 → 2025-12-14 00:00 coinbase" in done.stdout
    assert "The same command asks again" in done.stdout
    mended = run(tmp_path, *arguments, "--start", "2025-12-07", "--end", "2025-12-14", **coinbase(exchange))
    assert mended.exit_code == 0, mended.output
    assert count(tmp_path / "real") == {"raw_market_data_1d": 14}
