"""A lake in S3 does what one on a disk does, with either engine; what is wrong with an address or a bucket is said."""

from __future__ import annotations

import io
import time
import uuid

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bars import bars

from pipelines.errors import StorageError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.names import LakeRoot, lake_root
from pipelines.storage.stores.locks import turn
from pipelines.storage.stores.s3 import delta_options, place, region, spark_configuration
from pipelines.streaming.ports import reserved_port
from tests.conftest import make_settings
from tests.servers import s3


def manager(address: str, tmp_path, engine: str) -> DeltaLakeManager:
    return DeltaLakeManager(address, make_settings(tmp_path, {"storage": {"engine": engine}}))


def objects(client, address: str) -> dict[str, bytes]:
    where = place(address)
    found = client.list_objects_v2(Bucket=where.bucket, Prefix=f"{where.prefix}/").get("Contents", [])
    keys = [each["Key"] for each in found]
    return {key: client.get_object(Bucket=where.bucket, Key=key)["Body"].read() for key in keys}


@pytest.mark.parametrize("engine", ["embedded", pytest.param("spark", marks=pytest.mark.spark)])
def test_rows_land_once_and_can_be_read_as_they_were(s3_server, s3_lake_path, tmp_path, engine, request):
    if engine == "spark":
        request.getfixturevalue("spark")
    lake = manager(s3_lake_path, tmp_path, engine)
    first = lake.append("raw_market_data_1h", bars(), "run")
    assert (first.new, lake.append("raw_market_data_1h", bars(), "again").rows) == (96, 0)
    changed = lake.append("raw_market_data_1h", bars(count=5, shift=1.0), "run")
    assert (changed.restated, changed.version) == (10, first.version + 1)
    files = [pq.read_table(io.BytesIO(body)) for key, body in objects(s3_server.client(), s3_lake_path).items()
             if key.endswith(".parquet") and "_delta_log" not in key]  # fmt: skip
    rows = pa.concat_tables(files)  # noqa: F841 - DuckDB finds it by its name
    assert duckdb.sql("select count(*), count(distinct (asset_pair, timestamp)) from rows").fetchall() == [(106, 96)]
    assert len(lake.read_table("raw_market_data_1h")) == 106
    assert len(lake.read_table("raw_market_data_1h", version=first.version)) == 96
    assert lake.query("select count(*) as n from raw_market_data_1h").to_pylist() == [{"n": 106}]
    assert [(info.name, info.rows) for info in lake.tables()] == [("ingest_coverage", 0), ("raw_market_data_1h", 106)]


@pytest.mark.spark
def test_engines_share_a_table_and_spark_scans_it(spark, s3_server, s3_lake_path, tmp_path):
    for engine, shift in (("embedded", 0.0), ("spark", 1.0), ("embedded", 2.0)):
        assert (
            manager(s3_lake_path, tmp_path, engine).append("raw_market_data_1h", bars(shift=shift), engine).rows == 96
        )
    lake = manager(s3_lake_path, tmp_path, "spark")
    counted = lake.scan_table("raw_market_data_1h", assets="BTCUSD").groupBy("run_id").count().collect()
    assert {row["run_id"]: row["count"] for row in counted} == {"embedded": 96, "spark": 48}


@pytest.mark.spark
def test_a_stream_goes_on_from_its_checkpoint_in_s3(spark, s3_server, s3_lake_path, tmp_path):
    at = s3_lake_path.replace("s3://", "s3a://")
    source = tmp_path / "in"
    source.mkdir()
    for run in range(2):
        pq.write_table(pa.table({"id": range(run * 10, run * 10 + 10)}), source / f"{run}.parquet")
        query = (
            spark.readStream.schema("id long").parquet(str(source))
            .writeStream.format("delta").option("checkpointLocation", f"{at}/checkpoint")
            .trigger(availableNow=True).start(f"{at}/stream")
        )  # fmt: skip
        assert query.awaitTermination(60)
    found = sorted(row.id for row in spark.read.format("delta").load(f"{at}/stream").collect())
    assert found == list(range(20))


def test_what_is_wrong_with_a_bucket_is_said_at_once(s3_server, tmp_path, monkeypatch):
    missing = f"absent-{uuid.uuid4().hex[:8]}"
    lake = manager(f"s3://{missing}/lake", tmp_path, "embedded")
    with pytest.raises(StorageError, match=f"no bucket {missing} at .*; create it with `aws s3 mb s3://{missing} "):
        lake.append("raw_market_data_1h", bars(), "run")
    with pytest.raises(StorageError, match=f"no bucket {missing}"):
        lake.tables()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.READER_SECRET)
    lake = manager(f"s3://{s3.BUCKET}/{uuid.uuid4().hex}", tmp_path, "embedded")
    assert lake.tables() == []
    with pytest.raises(StorageError, match="privileges"):
        lake.append("raw_market_data_1h", bars(), "run")
    with pytest.raises(StorageError, match=r"denied at .*keys in the environment need s3:ListBucket, .*s3:PutObject"):
        turn(lake._lake.root, "raw_market_data_1h").__enter__()


def test_a_server_that_is_not_there_is_given_up_soon(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{reserved_port()}")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"no answer at http.*is AWS_ENDPOINT_URL right"):
        manager("s3://some-bucket/lake", tmp_path, "embedded").append("raw_market_data_1h", bars(), "run")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "address",
    ["s3://", "s3:///lake", "s3://Bucket/lake", "s3://b/lake", "s3://bucket//lake", "s3://bucket/a/../b",
     "s3://bucket/a b", "s3://key:secret@bucket/lake", "s3a://bucket/lake", "ftp://bucket/lake"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address):
    with pytest.raises(StorageError, match="s3://bucket"):
        lake_root(address)


def test_addresses_for_each_client(monkeypatch):
    root = lake_root("s3://my.bucket/some/lake/")
    assert root == LakeRoot("s3://my.bucket/some/lake")
    assert root.uri("a_table") == "s3://my.bucket/some/lake/a_table"
    assert root.spark_uri("a_table") == "s3a://my.bucket/some/lake/a_table"
    assert lake_root("s3://bucket").place.key("x") == "x"
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "somewhere")
    assert lake_root("gs://bucket/lake").options() == {"GOOGLE_SERVICE_ACCOUNT": "somewhere"}
    with pytest.raises(StorageError, match="Spark is set up for folders and s3://"):
        lake_root("gs://bucket/lake").spark_uri("a_table")


def test_settings_come_from_the_environment():
    amazon = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    assert delta_options(amazon | {"HOME": "/root"}) == amazon
    assert region(amazon | {"AWS_DEFAULT_REGION": "eu-west-1"}) == "eu-west-1"
    own = amazon | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}
    assert delta_options(own) == own | {"AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    values = spark_configuration("/scratch", own)
    assert values["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"
    assert values["spark.hadoop.fs.s3a.endpoint.region"] == "us-east-1"
    assert not [value for value in values.values() if value in amazon.values()]
    assert "spark.hadoop.fs.s3a.path.style.access" not in spark_configuration("/scratch", amazon)
