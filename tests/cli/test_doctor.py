"""What `lakehouse doctor` says of a lake in S3, and of a machine without Java."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.shell import run
from tests.servers import s3

EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded"}


def doctor(folder: Path, lake: str | None = None, **more: str) -> Result:
    where = ["--lake", lake] if lake else []
    return run(folder, "doctor", "--offline", "--json", *where, **(EMBEDDED | more))


def checks(result: Result) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


@pytest.fixture
def bucket(s3_server: s3.S3Server) -> Iterator[str]:
    """A bucket of its own, so that what is set on it is nobody else's."""
    name = f"doctor-{os.getpid()}"
    s3_server.client().create_bucket(Bucket=name)
    yield name
    s3_server.client().delete_bucket(Bucket=name)


def test_a_lake_in_s3_that_has_all_it_needs(tmp_path: Path, bucket: str, s3_server: s3.S3Server):
    done = doctor(tmp_path, f"s3://{bucket}/lake")
    found = checks(done)
    assert done.exit_code == 0, done.output
    assert found["s3 keys"]["found"] == "set in the environment"
    assert found["bucket"]["found"] == f"{bucket} answers at {s3_server.url}"
    assert found["lake"]["found"] == f"s3://{bucket}/lake is empty"
    assert "s3 jars" not in found
    assert s3.SECRET_KEY not in done.output
    # What it is called says nothing of what it is, but a key's name is no matter for a log either.
    assert s3.ACCESS_KEY not in done.output


def test_whether_the_bucket_keeps_versions_is_a_remark(tmp_path: Path, bucket: str, s3_server: s3.S3Server):
    off = doctor(tmp_path, f"s3://{bucket}/lake")
    assert off.exit_code == 0
    assert checks(off)["bucket versions"]["state"] == "warn"
    assert "docs/operations.md" in checks(off)["bucket versions"]["do"]
    s3_server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert checks(doctor(tmp_path, f"s3://{bucket}/lake"))["bucket versions"]["state"] == "ok"


def test_a_configured_lake_in_s3_is_looked_at_too(tmp_path: Path, bucket: str):
    found = checks(doctor(tmp_path, LAKEHOUSE__DELTA_LAKE__STORAGE_PATH=f"s3://{bucket}/lake"))
    assert found["bucket"]["state"] == "ok"
    assert found["sample lake"]["state"] == "ok"


def test_a_bucket_that_is_not_there_is_named_once(tmp_path: Path, s3_server: s3.S3Server):
    done = doctor(tmp_path, "s3://no-such-bucket/lake")
    found = checks(done)
    assert done.exit_code == 1
    assert "aws s3 mb s3://no-such-bucket" in found["bucket"]["found"]
    assert not {"bucket versions", "lake"} & found.keys()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the keys are not accepted"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "is AWS_ENDPOINT_URL right?"),
    ],
)
def test_wrong_keys_and_a_wrong_server_are_told_apart(tmp_path: Path, bucket: str, variable, value, message):
    done = doctor(tmp_path, f"s3://{bucket}/lake", **{variable: value})
    assert done.exit_code == 1
    assert message in checks(done)["bucket"]["found"]


def test_without_keys_it_says_which_are_needed(tmp_path: Path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    done = doctor(tmp_path, "s3://bucket/lake")
    assert done.exit_code == 1
    assert checks(done)["s3 keys"]["do"] == "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    assert "bucket" not in checks(done)


def test_spark_needs_jars_of_its_own_for_s3(tmp_path: Path, bucket: str):
    spark = {"LAKEHOUSE__STORAGE__ENGINE": "spark", "LAKEHOUSE__SPARK__JARS_DIR": str(tmp_path / "jars")}
    done = doctor(tmp_path, f"s3://{bucket}/lake", **spark)
    assert done.exit_code == 1
    assert "python -m pipelines.jars --conf s3" in checks(done)["s3 jars"]["do"]
    assert checks(done)["bucket"]["state"] == "ok"
    assert "s3 jars" not in checks(doctor(tmp_path, **spark))


def test_the_embedded_engine_needs_no_java(tmp_path: Path):
    nowhere = {"JAVA_HOME": "/nowhere", "LAKEHOUSE__SPARK__JARS_DIR": str(tmp_path / "jars")}
    done = doctor(tmp_path, **nowhere)
    assert done.exit_code == 0, done.output
    assert {checks(done)[name]["state"] for name in ("java", "jars")} == {"warn"}
    assert doctor(tmp_path, **nowhere, LAKEHOUSE__STORAGE__ENGINE="spark").exit_code == 1
