"""The bill: bytes by age, layers and a year's size, each against what the files on the disk say."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from bars import DAY0, bars
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from pipelines.cli import main
from pipelines.config import LifecycleSettings, Settings
from pipelines.storage import DeltaLakeManager
from pipelines.storage.lake import Lake
from pipelines.storage.names import lake_root
from pipelines.storage.stores.cost import GIB, CostReport
from pipelines.storage.stores.footprint import footprint
from pipelines.timeframes import utc_now
from tests.conftest import make_settings
from tests.servers import s3

TABLE = "raw_market_data_1h"
DAY = timedelta(days=1)


def data_files(lake: DeltaLakeManager, table: str = TABLE) -> list[Path]:
    return [Path(name) for name, in duckdb.sql(
        f"select distinct file_name from parquet_metadata('{lake.storage_path}/{table}/**/*.parquet')"
    ).fetchall()]  # fmt: skip


def written(lake: DeltaLakeManager, version: int, instant: datetime, table: str = TABLE) -> int:
    """Let a commit have added its files at an instant; return their bytes on the disk."""
    folder = Path(lake.storage_path) / table
    log, size = folder / "_delta_log" / f"{version:020d}.json", 0
    actions = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["modificationTime"] = int(instant.timestamp() * 1000)
            size += (folder / action["add"]["path"]).stat().st_size
    log.write_text("".join(f"{json.dumps(action)}\n" for action in actions), encoding="utf-8")
    return size


def lines(report: CostReport) -> dict[str, tuple[float, float]]:
    return {line.service: (line.quantity, line.cost) for line in report.lines}


def test_bytes_are_priced_by_the_age_of_their_files(embedded_lake):
    lake = embedded_lake
    now = utc_now()
    sizes = {}
    # On either side of both borders, but for the second that the test itself may take.
    for number, (kind, age) in enumerate(
        [
            ("hot", DAY),
            ("hot", 30 * DAY - DAY / 24),
            ("warm", 30 * DAY),
            ("warm", 90 * DAY - DAY / 24),
            ("cold", 90 * DAY),
        ]
    ):
        done = lake.append(TABLE, bars(start=DAY0 + number * 10 * DAY, count=24 * (number + 1)), "run")
        sizes[kind] = sizes.get(kind, 0) + written(lake, done.version, now - age)
    assert sum(sizes.values()) == sum(path.stat().st_size for path in data_files(lake))

    report = lake.costs()
    found = lines(report)
    prices = {"hot": 0.023, "warm": 0.0125, "cold": 0.004}
    names = {"hot": "S3 Standard (hot)", "warm": "S3 Standard-IA (warm)", "cold": "S3 Glacier Instant Retrieval (cold)"}
    for kind, name in names.items():
        assert found[name] == pytest.approx((sizes[kind] / 2**30, sizes[kind] / 2**30 * prices[kind]))
    assert report.footprint.ages.stuck == sizes["warm"] + sizes["cold"]


def test_logs_and_old_versions_have_their_own_line(embedded_lake):
    lake = embedded_lake
    for day in range(3):
        lake.append(TABLE, bars(start=DAY0 + day * DAY, count=24), "run")
    old = data_files(lake)
    lake.optimize_table(TABLE)
    lake.snapshots.create("kept")
    aside = Path(lake.storage_path) / "_set_aside" / "part-0.parquet"
    aside.parent.mkdir()
    aside.write_bytes(b"x" * 1000)
    live = [Path(path.removeprefix("file://")) for path in DeltaTable(f"{lake.storage_path}/{TABLE}").file_uris()]
    assert not set(live) & set(old)

    whole = sum(path.stat().st_size for path in Path(lake.storage_path).rglob("*") if path.is_file())
    logs = sum(path.stat().st_size for path in Path(lake.storage_path).rglob("_delta_log/*") if path.is_file())
    data = sum(path.stat().st_size for path in live)
    found = lake.costs()
    assert (found.footprint.ages.total, found.footprint.logs) == (data, logs)
    assert found.footprint.unreferenced == whole - data - logs
    assert found.footprint.unreferenced > sum(path.stat().st_size for path in old) + 1000
    assert lines(found)["S3 Standard (logs, old versions)"][0] * GIB == pytest.approx(whole - data)


def test_usage_is_multiplied_by_prices_and_both_are_settings(tmp_path):
    usage = {"batch_hours_per_day": 6, "kafka_brokers": 3, "transfer_out_gb": 10}
    prices = {"batch_hour": 2.0, "kafka_broker_hour": 0.1, "airflow_hour": 1.0, "transfer_out_gb": 0.5}
    settings = make_settings(tmp_path, {"costs": {"usage": usage, "prices": prices}})
    report = DeltaLakeManager(settings.delta_lake.storage_path, settings).costs()
    costs = [line.cost for line in report.lines]
    # A month is 365 / 12 days.
    assert costs == pytest.approx([0, 0, 0, 0, 6 * 365 / 12 * 2, 3 * 730 * 0.1, 730, 5])
    assert report.total == pytest.approx(365 + 219 + 730 + 5)
    assert [(layer.layer, layer.tables, layer.year) for layer in report.layers] == [
        ("bronze", 0, None), ("silver", 0, None), ("gold", 0, None),
    ]  # fmt: skip


def test_the_reference_is_the_table_of_services():
    report = DeltaLakeManager("/nowhere/lake", Settings()).costs()
    references = [(line.reference.usage, line.reference.cost) for line in report.lines if line.reference]
    assert references == [
        ("100 GB (last 30 days)", 2.30),
        ("400 GB (30-90 days)", 5.20),
        ("500 GB (90+ days)", 2.00),
        ("10 hrs/day batch jobs", 150),
        ("2 brokers (m5.large)", 150),
        ("small environment", 300),
        ("50 GB out/month", 4.50),
    ]
    assert round(sum(cost for _, cost in references)) == 614
    assert [layer.reference_gb for layer in report.layers] == [12, 15, 2]


def test_a_year_of_ten_assets_is_scaled_by_each_assets_own_span(embedded_lake):
    lake = embedded_lake
    lake.append(TABLE, bars(count=48, assets=("BTCUSD",)), "run")
    lake.append(TABLE, bars(count=24 * 10, assets=("ETHUSD",)), "run")
    for table, count in (("silver_bars", 24), ("gold_daily", 48), ("notes", 1)):
        rows = bars(count=count).select(["asset_pair", "timestamp", "close"])
        write_deltalake(f"{lake.storage_path}/{table}", rows)

    def size(table: str, part: str = "") -> int:
        return sum(path.stat().st_size for path in data_files(lake, table) if part in str(path))

    layers = {layer.layer: layer for layer in lake.costs().layers}
    two_days, ten_days = size(TABLE, "BTCUSD") * 365 / 2, size(TABLE, "ETHUSD") * 365 / 10
    assert layers["bronze"].year == pytest.approx((two_days + ten_days) / 2 * 10, rel=1e-6)
    assert (layers["bronze"].rows, layers["bronze"].bytes) == (288, size(TABLE))
    # No partition by asset and no known length of a bar: from the first row to the last.
    assert layers["silver"].year == pytest.approx(size("silver_bars") * 365 * 24 / 23, rel=1e-6)
    assert layers["gold"].year == pytest.approx(size("gold_daily") * 365 * 24 / 47, rel=1e-6)
    assert (layers["other"].tables, layers["other"].year) == (1, None)


def test_zoneless_times_of_an_undeclared_table_are_utc(tmp_path):
    times = pa.array([0, 2 * 86_400 * 10**6], pa.timestamp("us"))
    write_deltalake(str(tmp_path / "gold_daily"), pa.table({"timestamp": times, "v": [1, 2]}))
    found = footprint(Lake(lake_root(tmp_path)), LifecycleSettings(), utc_now())
    size = next(tmp_path.glob("gold_daily/*.parquet")).stat().st_size
    assert found.tables[0].year == pytest.approx(size * 365 / 2, rel=1e-6)


def test_a_lake_in_s3_is_measured_the_same(s3_server, s3_lake_path, tmp_path):
    lake = DeltaLakeManager(s3_lake_path, make_settings(tmp_path, {"storage": {"engine": "embedded"}}))
    lake.append(TABLE, bars(count=24), "run")
    lake.append(TABLE, bars(count=24, shift=1.0), "run")
    lake.optimize_table(TABLE)
    prefix = s3_lake_path.removeprefix(f"s3://{s3.BUCKET}/")
    objects = s3_server.client().list_objects_v2(Bucket=s3.BUCKET, Prefix=f"{prefix}/")["Contents"]
    live = {Path(uri).name for uri in lake._lake.open(TABLE).file_uris()}
    data = sum(each["Size"] for each in objects if each["Key"].rpartition("/")[2] in live)
    logs = sum(each["Size"] for each in objects if "/_delta_log/" in each["Key"])
    found = lake.costs().footprint
    assert (found.ages.hot, found.ages.total, found.logs) == (data, data, logs)
    assert found.unreferenced == sum(each["Size"] for each in objects) - data - logs > 0


def test_the_command_prints_every_line_and_json_has_all(tmp_path, embedded_lake):
    embedded_lake.append(TABLE, bars(), "run")
    environ = {"LAKEHOUSE__STORAGE__LIFECYCLE__WARM_CLASS": "ONEZONE_IA"}

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["cost", "--lake", embedded_lake.storage_path, *arguments], env=environ)
        assert done.exit_code == 0, done.output
        return done.output

    shown = run()
    for text in ("S3 One Zone-IA (warm)", "<0.01", "2 brokers (m5.large)", "614", "12 GB", "GLACIER_IR", "us-east-1"):
        assert text in shown
    found = json.loads(run("--json"))
    assert len(found["lines"]) == 8
    assert found["total"] == pytest.approx(sum(line["cost"] for line in found["lines"]), abs=1e-3)
    assert found["reference_total"] == 614
    assert found["footprint"]["ages"]["hot"] == sum(path.stat().st_size for path in data_files(embedded_lake))
    assert found["settings"]["prices"]["onezone_ia"] == found["lines"][1]["price"] == 0.01
