"""What is wrong with a command line is said in one message, with the fix, before anything is done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.cli.shell import ROOT, SAMPLE_WEEK, run, shell

HEAVY = {"pipelines.config", "pipelines.batch", "pyarrow", "polars", "pydantic", "pyspark", "pandas", "rich.table"}
RANGE = ["--start", "2025-12-07", "--end", "2025-12-08"]
SAMPLE = ["backfill", "--provider", "sample"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        "main(['--help'], standalone_mode=False)\nprint('modules', *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    help_text, _, modules = done.stdout.partition("modules ")
    assert "backfill" in help_text
    assert not HEAVY & set(modules.split())


@pytest.mark.parametrize("command", [*main.commands_at])
def test_every_command_explains_itself_with_an_example(command: str, tmp_path: Path) -> None:
    done = run(tmp_path, command, "--help")
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"lakehouse {command}" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backfil"], "did you mean backfill"),
        (["backfill"], "--assets"),
        ([*SAMPLE, "--assets", "BTCUSD"], "--days 7"),
        ([*SAMPLE, "--assets", "BTCUSD", "--days", "7", "--end", "2025-12-07"], "either --days"),
        ([*SAMPLE, "--assets", "BTCUSD", "--days", "0"], "--days"),
        ([*SAMPLE, "--assets", "BTCUSD,,ETHUSD", "--days", "7"], "empty name"),
        ([*SAMPLE, "--assets", "BTCUDS", *RANGE], "did you mean BTCUSD"),
        ([*SAMPLE, "--assets", "BTCUSD", "--start", "2025-12-14", "--end", "2025-12-07"], "inverted"),
        ([*SAMPLE, "--assets", "BTCUSD", "--start", "2999-01-01"], "future"),
        ([*SAMPLE, "--assets", "BTCUSD", "--start", "7 Dec"], "2025-12-07T14:30:00Z"),
        ([*SAMPLE, "--assets", "BTCUSD", "--timeframes", "1h,2h", *RANGE], "1m, 5m, 15m, 1h, 4h, 1d"),
        (["backfill", "--provider", "coinbse", "--assets", "BTCUSD", *RANGE], "did you mean coinbase"),
        (["backfill", "--provider", "files", "--assets", "BTCUSD", *RANGE], "lakehouse load"),
        (["backfill", "--provider", "fred", "--assets", "BTCUSD", *RANGE], "macro_indicators"),
        (["backfill", "--dataset", "macro_indicator", "--assets", "DGS10", *RANGE], "did you mean macro_indicators"),
        (["backfill", "--dataset", "macro_indicators", "--assets", "X", "--timeframes", "1h", *RANGE], "--timeframes"),
        ([*SAMPLE_WEEK, "--config", "/nowhere/config.yaml"], "/nowhere/config.yaml"),
        (["load", "/nowhere/bars.csv", "--timeframe", "1h", "--asset", "BTCUSD"], "no file at /nowhere/bars.csv"),
        (["load", str(ROOT / "Makefile"), "--timeframe", "1h", "--asset", "BTCUSD"], ".parquet"),
        (["load", "x.csv", "--asset", "BTCUSD"], "--timeframe"),
        (["load", "x.csv", "--timeframe", "1h", "--map", "date"], "timestamp=date"),
        (["load", "x.csv", "--timeframe", "1h", "--map", "tme=date"], "timestamp"),
        (["load", "x.csv", "--timeframe", "1h", "--tz", "Londn"], "IANA"),
        (["load", "x.csv", "--dataset", "raw_ai_decisions", "--timeframe", "1h"], "--timeframe"),
        (["status", "--lake", "x", "--sample"], "not both"),
        (["query", "select 1", "--as-of", "2025-12-07", "--version", "1"], "not several"),
        (["query", "select 1", "--format", "xml"], "csv"),
    ],
)
def test_wrong_arguments_exit_2_and_name_the_fix(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert not any(tmp_path.iterdir())


def test_a_wrong_setting_names_the_variable_and_the_nearest_key(tmp_path: Path) -> None:
    done = run(tmp_path, "status", LAKEHOUSE__INGEST__CHUNK_ROW="1")
    assert done.exit_code == 2
    assert "LAKEHOUSE__INGEST__CHUNK_ROW" in done.stderr
    assert "chunk_rows?" in done.stderr.lower()


def test_verbose_shows_where_an_error_came_from(tmp_path: Path) -> None:
    code, _, err = shell(tmp_path, *SAMPLE, "--assets", "BTCUDS", *RANGE, "-v")
    assert code == 2
    assert "Traceback" in err
    assert err.strip().splitlines()[-1].startswith("Error: unknown asset")


def test_the_plan_writes_nothing_and_counts_the_week(tmp_path: Path) -> None:
    done = run(tmp_path, *SAMPLE_WEEK, "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert (plan["bars"], plan["synthetic"], len(plan["series"])) == (25_970, True, 12)
    assert not any(tmp_path.iterdir())


def test_the_plan_knows_requests_minutes_and_that_4h_comes_from_1h(tmp_path: Path) -> None:
    arguments = ["backfill", "--provider", "coinbase", "--assets", "BTCUSD,btc-usd", "--start", "2025-12-07"]
    slow = {"LAKEHOUSE__PROVIDERS__COINBASE__REQUESTS_PER_MINUTE": "10"}
    done = run(tmp_path, *arguments, "--end", "2025-12-14", "--dry-run", "--json", **slow)
    plan = json.loads(done.stdout)
    requests = {series["timeframe"]: series["requests"] for series in plan["series"]}
    assert requests == {"1m": 34, "5m": 7, "15m": 3, "1h": 1, "4h": 0, "1d": 1}
    assert plan["requests"] == 46
    assert plan["minutes"] == pytest.approx(4.6)
    people = run(tmp_path, *arguments, "--end", "2025-12-14", "--dry-run", **slow).stdout
    assert "4 min 36 s" in people
    assert "12,985" in people


def test_the_plan_says_who_is_passed_over_and_why(tmp_path: Path) -> None:
    done = run(tmp_path, "backfill", "--assets", "EURUSD", "--timeframes", "1h", *RANGE, "--dry-run")
    assert "alpha_vantage passed over: " in done.stdout
    assert "ALPHA_VANTAGE_API_KEY" in done.stdout
    assert "coinbase passed over: does not serve EURUSD" in done.stdout


def test_the_script_is_the_command() -> None:
    script = str(ROOT / "scripts" / "run_pipeline_backfill.py")
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.startswith("Usage: lakehouse backfill")
