"""Gold marts as gauges: the figures of the latest day, by key; a null has no sample."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import yaml
from deltalake import DeltaTable, write_deltalake

from pipelines.config import PROJECT_ROOT
from pipelines.monitoring.exporter import Exporter
from pipelines.monitoring.parts.marts import MARTS
from tests.monitoring.oracle import rows_of
from tests.monitoring.scrape import shown

DAYS = (date(2025, 12, 1), date(2025, 12, 2), date(2025, 12, 3))


def land(lake: Path, name: str, columns: dict[str, list[object]]) -> None:
    write_deltalake(str(lake / "gold" / name), pa.table(columns), mode="overwrite")


def test_every_column_is_one_of_the_mart():
    for mart in MARTS:
        page = PROJECT_ROOT / "dbt" / "models" / "gold" / f"{mart.table}.yml"
        (model,) = yaml.safe_load(page.read_text())["models"]
        declared = {column["name"] for column in model["columns"]}
        assert {"day", *mart.labels, *mart.figures} <= declared
    names = [name for mart in MARTS for name in mart.figures.values()]
    assert len(set(names)) == len(names)


def test_the_latest_day_by_book_currency_and_asset(sample):
    lake = Path(sample.storage_path)
    figures = [each for each in MARTS[0].figures if each not in ("trades", "win_rate")]
    rows = len(DAYS) * 2
    columns: dict[str, list[object]] = {
        "book": ["paper"] * rows, "quote_currency": ["USD"] * rows, "asset_pair": ["ALL", "BTCUSD"] * len(DAYS),
        "day": [day for day in DAYS for _ in range(2)], "trades": list(range(rows)),
        "win_rate": [0.1, 0.2, 0.3, 0.4, None, 0.6],
    }  # fmt: skip
    land(lake, "mart_trading_performance", columns | {name: [float(n) for n in range(rows)] for name in figures})
    exporter = Exporter(sample)
    assert exporter.look()
    found = shown(exporter)
    sql = "select book, quote_currency, asset_pair, {0} "
    sql += "from rows where day = (select max(day) from rows) and {0} is not null"
    for column, name in MARTS[0].figures.items():
        held = rows_of(lake / "gold", "mart_trading_performance", sql.format(column))
        assert found.by(name, "book", "currency", "asset_pair") == {tuple(row[:3]): row[3] for row in held}
    assert len(found.by("trading_win_rate", "asset_pair")) == 1
    latest = datetime(2025, 12, 3, tzinfo=UTC).timestamp()
    assert found.value("trading_day_timestamp_seconds", mart="mart_trading_performance") == latest
    assert found.value("pipeline_delta_table_rows", table="gold.mart_trading_performance") == rows
    # A further day is seen with the mart's next version.
    more = {name: [each[0]] for name, each in columns.items()} | {"day": [date(2025, 12, 4)], "win_rate": [0.9]}
    write_deltalake(
        str(lake / "gold" / "mart_trading_performance"),
        pa.table(more | {name: [1.0] for name in figures}),
        mode="append",
    )
    assert DeltaTable(str(lake / "gold" / "mart_trading_performance")).version() == 1
    assert exporter.look()
    assert shown(exporter).by("trading_win_rate", "asset_pair") == {"ALL": 0.9}


def test_a_mart_of_another_shape_is_counted_and_the_others_are_shown(sample):
    lake = Path(sample.storage_path)
    land(lake, "mart_trading_performance", {"day": [DAYS[0]]})
    mart = next(each for each in MARTS if each.table == "mart_market_regime_stats")
    figures = {name: [0.5] for name in mart.figures}
    land(lake, mart.table, {"day": [DAYS[0]], "asset_pair": ["BTCUSD"], "regime": ["trend"], **figures})
    exporter = Exporter(sample)
    assert not exporter.look()
    assert shown(exporter).value("pipeline_exporter_errors_total", part="marts") == 1
    assert shown(exporter).by("trading_regime_win_rate", "asset_pair", "regime") == {("BTCUSD", "trend"): 0.5}
