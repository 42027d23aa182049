"""Commits to S3: of writers at once each lands every commit, and one whose answer was lost lands once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from pipelines.config import PROJECT_ROOT
from pipelines.storage.stores.s3 import delta_options, place
from tests.servers.s3_proxy import S3Proxy
from tests.storage.s3_writer_process import ROWS, append

WRITER = Path(__file__).parent / "s3_writer_process.py"


def stored(client, uri: str) -> pa.Table:
    """Return the rows of the files that the table's log names, read with nothing of Delta."""
    files = DeltaTable(uri, storage_options=delta_options()).file_uris()
    at = [place(file.replace("s3a://", "s3://")) for file in files]
    bodies = [client.get_object(Bucket=each.bucket, Key=each.prefix)["Body"].read() for each in at]
    return pa.concat_tables(pq.read_table(io.BytesIO(body)) for body in bodies)


def start(proxy: S3Proxy, uri: str, writer: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), uri.replace("s3://", "s3a://"), writer]
    environ = os.environ | {"AWS_ENDPOINT_URL": proxy.url}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)


def proxied_bucket(spark, client, proxy: S3Proxy) -> str:
    """Return a new bucket, for which alone the run's session goes through the proxy."""
    bucket = f"proxied-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    spark.sparkContext._jsc.hadoopConfiguration().set(f"fs.s3a.bucket.{bucket}.endpoint", proxy.url)
    return bucket


def race(spark, client, proxy: S3Proxy, uri: str, rounds: int) -> dict[str, int]:
    """Let two Spark drivers and delta-rs append at once; return how many commits of each are whole in the table.

    The drivers' commits are slow on their way, so that whoever looks first and puts afterwards overwrites another's.
    """
    schema = pa.schema([("writer", pa.string()), ("commit", pa.int32()), ("id", pa.int64())])
    DeltaTable.create(uri, schema, storage_options=delta_options())

    def first() -> None:
        for number in range(rounds):
            append(spark, "first", number, uri.replace("s3://", "s3a://"))

    second = start(proxy, uri, "second")
    try:
        assert second.stdout.readline().strip() == "ready"
        second.stdin.write(f"race {rounds}\n")
        second.stdin.flush()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(first)
            for number in range(rounds):
                rows = {"writer": ["delta-rs"] * ROWS, "commit": [number] * ROWS, "id": range(ROWS)}
                write_deltalake(
                    uri, pa.table(rows, schema), mode="append", storage_options=delta_options(),
                    commit_properties=CommitProperties(max_commit_retries=100),
                )  # fmt: skip
            done.result()
        assert second.stdout.readline().strip() == "done"
        assert second.wait(60) == 0
    finally:
        second.kill()
        second.communicate()
    rows = stored(client, uri)
    whole = "select writer, commit from rows group by all having count(*) = 10 and count(distinct id) = 10"
    return dict(duckdb.sql(f"select writer, count(*) from ({whole}) group by 1").fetchall())


@pytest.fixture
def proxy(s3_server):
    with S3Proxy(s3_server.port) as running:
        yield running


@pytest.mark.spark
@pytest.mark.soak
@pytest.mark.parametrize("rounds", [4, 25])
def test_writers_at_once_lose_no_commit(spark, s3_server, proxy, rounds):
    proxy.commit_seconds = 0.1
    client = s3_server.client()
    uri = f"s3://{proxied_bucket(spark, client, proxy)}/race"
    assert race(spark, client, proxy, uri, rounds) == {"first": rounds, "second": rounds, "delta-rs": rounds}
    assert DeltaTable(uri, storage_options=delta_options()).version() == 3 * rounds


@pytest.mark.spark
def test_a_commit_whose_answer_was_lost_lands_once(spark, s3_server, proxy):
    client = s3_server.client()
    bucket = proxied_bucket(spark, client, proxy)
    uri = f"s3a://{bucket}/table"
    for version in range(3):
        if version:
            proxy.lose_answer_to(f"{version:020}.json")
        spark.range(5).coalesce(1).write.format("delta").mode("append").save(uri)
    commits = [f"/{bucket}/table/_delta_log/{version:020}.json" for version in range(3)]
    assert proxy.lost == commits[1:]
    assert [[status for path, status in proxy.puts if path == commit] for commit in commits] == [
        [200], [200, 412], [200, 412],
    ]  # fmt: skip
    assert stored(client, uri.replace("s3a://", "s3://")).num_rows == 15
    assert DeltaTable(uri.replace("s3a://", "s3://"), storage_options=delta_options()).version() == 2


def test_delta_rs_lands_a_commit_once_whose_answer_was_lost(s3_server, proxy, s3_lake_path):
    code = (
        "import sys; from bars import bars; from tests.conftest import make_settings; from pathlib import Path\n"
        "from pipelines.storage import DeltaLakeManager\n"
        "settings = make_settings(Path('unused'), {'storage': {'engine': 'embedded'}})\n"
        "lake = DeltaLakeManager(sys.argv[1], settings)\n"
        "for shift in (0.0, 1.0):\n"
        "    result = lake.append('raw_market_data_1h', bars(shift=shift), 'run')\n"
        "    print(result.version, result.rows)\n"
    )
    proxy.lose_answer_to(f"raw_market_data_1h/_delta_log/{3:020}.json")
    environ = os.environ | {"AWS_ENDPOINT_URL": proxy.url, "PYTHONPATH": f"{Path(__file__).parent}:{PROJECT_ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code, s3_lake_path], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["2 96", "3 96"]
    assert len(proxy.lost) == 1
    rows = stored(s3_server.client(), f"{s3_lake_path}/raw_market_data_1h")  # noqa: F841 - DuckDB finds it by its name
    found = duckdb.sql("select count(*), count(distinct (asset_pair, timestamp, close)) from rows").fetchall()
    assert found == [(192, 192)]
