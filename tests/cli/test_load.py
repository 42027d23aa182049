"""`lakehouse load`: files land once, their bad rows are kept with reasons, and one bad file does not stop the rest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.batch.exchange import count, stored
from tests.cli.shell import run

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark")]

START = datetime(2024, 3, 4, tzinfo=UTC)
HOURS = ["--timeframe", "1h", "--tz", "UTC"]


def line(hour: int, asset: str | None = None, close: float = 101.0) -> str:
    values = [(START + timedelta(hours=hour)).strftime("%Y-%m-%d %H:%M:%S"), "100", "105", "95", str(close), "7"]
    return ",".join([*values, *([asset] if asset else [])])


def write(path: Path, lines: list[str], header: str = "date,open,high,low,close,volume") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_file_lands_once_and_its_span_is_covered(tmp_path: Path) -> None:
    bars = write(tmp_path / "bars.csv", [line(hour) for hour in range(48)])
    arguments = ["load", str(bars), "--asset", "btc-usd", *HOURS]
    first = run(tmp_path, *arguments)
    assert first.exit_code == 0, first.output
    assert "48 bars landed" in first.stdout
    assert "from 1 file." in first.stdout
    again = json.loads(run(tmp_path, *arguments, "--json").stdout)
    assert (again["new"], again["repeated"], again["files"]) == (0, 48, 1)
    assert count(tmp_path / "real") == {"raw_market_data_1h": 48}
    assert set(stored(tmp_path / "real", "raw_market_data_1h", "BTCUSD")["provider"]) == {"files"}
    covered = json.loads(run(tmp_path, "status", "--json").stdout)["coverage"]
    assert [(row["start"], row["end"], row["gaps"]) for row in covered] == [
        (START.isoformat(), (START + timedelta(hours=48)).isoformat(), 0)
    ]


def test_the_asset_may_be_a_column_and_the_price_side_is_kept(tmp_path: Path) -> None:
    lines = [line(hour, asset) for hour in range(24) for asset in ("BTCUSD", "ETHUSD")]
    bars = write(tmp_path / "bars.csv", lines, "when,open,high,low,close,volume,symbol")
    done = run(tmp_path, "load", str(bars), *HOURS, "--map", "timestamp=when", "--price-side", "mid", "--json")
    result = json.loads(done.stdout)
    assert [(series["asset_pair"], series["new"]) for series in result["series"]] == [("BTCUSD", 24), ("ETHUSD", 24)]
    assert {series["coverage"] for series in result["series"]} == {1.0}
    assert set(stored(tmp_path / "real", "raw_market_data_1h", "ETHUSD")["price_side"]) == {"mid"}


def test_single_bad_rows_go_to_the_dead_letters_and_leave_a_gap(tmp_path: Path) -> None:
    bars = write(tmp_path / "bars.csv", [line(hour, close=999 if hour == 30 else 101) for hour in range(48)])
    arguments = ["load", str(bars), "--asset", "BTCUSD", *HOURS]
    plan = run(tmp_path, *arguments, "--dry-run")
    assert plan.exit_code == 0
    assert "1 x close" in plan.stdout
    assert not (tmp_path / "real").exists()
    done = run(tmp_path, *arguments)
    assert done.exit_code == 0
    assert "1 row rejected" in done.stdout
    assert "97.9 %" in done.stdout
    [letter] = (tmp_path / "dlq").iterdir()
    assert len(json.loads(letter.read_text(encoding="utf-8"))["records"]) == 1
    assert count(tmp_path / "real") == {"raw_market_data_1h": 47}


@pytest.mark.parametrize("zone", [[], ["--tz", "UTC"]])
def test_too_many_bad_rows_refuse_the_batch(tmp_path: Path, zone: list[str]) -> None:
    # Without a zone no row has a readable time; with one, every tenth close is wrong.
    bars = write(tmp_path / "bars.csv", [line(hour, close=999 if hour % 10 == 0 else 101) for hour in range(48)])
    arguments = ["load", str(bars), "--asset", "BTCUSD", "--timeframe", "1h", *zone]
    assert "refused whole" in run(tmp_path, *arguments, "--dry-run").stdout
    done = run(tmp_path, *arguments)
    assert done.exit_code == 1
    assert "batch refused" in done.stdout
    assert "48 rows rejected" in done.stdout
    assert not count(tmp_path / "real") if (tmp_path / "real").exists() else True


def test_a_bad_file_does_not_hold_up_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    folder.mkdir()
    write(folder / "a.csv", [line(hour) for hour in range(24)])
    (folder / "b.csv").write_text("date,open,high\n2024-03-04 00:00:00,1", encoding="utf-8")
    write(folder / "c.csv", [line(hour) for hour in range(24, 48)])
    done = run(tmp_path, "load", str(folder), "--asset", "BTCUSD", *HOURS)
    assert done.exit_code == 1
    assert "1 file could not be read" in done.stdout
    assert "b.csv" in done.stdout
    assert count(tmp_path / "real") == {"raw_market_data_1h": 48}


def test_unknown_assets_in_a_column_are_refused_by_name(tmp_path: Path) -> None:
    lines = [line(hour, "BTCUSD") for hour in range(24)] + [line(hour, "WHATEVER") for hour in range(24)]
    bars = write(tmp_path / "bars.csv", lines, "date,open,high,low,close,volume,asset_pair")
    done = run(tmp_path, "load", str(bars), *HOURS)
    assert done.exit_code == 1
    assert "WHATEVER" in done.stdout
    [letter] = (tmp_path / "dlq").iterdir()
    reasons = {record["reason"] for record in json.loads(letter.read_text(encoding="utf-8"))["records"]}
    assert reasons == {"unknown asset"}
    assert count(tmp_path / "real") == {"raw_market_data_1h": 24}


def test_series_that_are_no_assets_are_told_apart(tmp_path: Path) -> None:
    rows = [f"{name},2024-03-{day:02d},{day}.5" for name in ("DGS10", "UNRATE") for day in range(1, 8)]
    path = write(tmp_path / "macro.csv", rows, "series_id,date,value")
    done = run(tmp_path, "load", str(path), "--dataset", "macro_indicators", "--json")
    result = json.loads(done.stdout)
    assert done.exit_code == 0, done.output
    assert [(series["asset_pair"], series["new"]) for series in result["series"]] == [("DGS10", 7), ("UNRATE", 7)]
    assert count(tmp_path / "real") == {"macro_indicators": 14}


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder with real market data is absent")
def test_the_real_files_load_whole(tmp_path: Path) -> None:
    files = [
        ("btc_usd_perp_1m_2022-01.csv", "BTCUSD", "1m", 45_031),
        ("gbpusd_1m_bid_2012-02.csv", "GBPUSD", "1m", 30_117),
        ("eth_btc_5m_2018-01.csv", "ETHBTC", "5m", 5_760),
        ("ltc_btc_5m_2018-01.csv", "LTCBTC", "5m", 5_760),
    ]
    for name, asset, timeframe, rows in files:
        arguments = ["load", str(SHARED / name), "--asset", asset, "--timeframe", timeframe, "--tz", "UTC", "--json"]
        result = json.loads(run(tmp_path, *arguments).stdout)
        assert (result["new"], result["rejected"], result["ok"]) == (rows, 0, True)
    assert sum(count(tmp_path / "real").values()) == 86_668
    assert not (tmp_path / "dlq").exists()
    pounds = stored(tmp_path / "real", "raw_market_data_1m", "GBPUSD").index.to_series().diff()
    assert (pounds > timedelta(minutes=1)).sum() > 100
