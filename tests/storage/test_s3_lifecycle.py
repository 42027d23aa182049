"""Lifecycle rules: for data files alone, beside those of others, set once; on a server without classes, a clear no."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import uuid
from xml.etree import ElementTree as ET

import httpx
import pyarrow.parquet as pq
import pytest
from bars import bars
from click.testing import CliRunner
from pydantic import ValidationError

from pipelines.cli import main
from pipelines.config import PROJECT_ROOT, LifecycleSettings
from pipelines.errors import ConfigError, StorageError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.stores.lifecycle import apply_lifecycle
from pipelines.storage.stores.s3 import client
from tests.conftest import make_settings

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
TEMPORARY = {"ID": "tmp", "Filter": {"Prefix": "tmp/"}, "Status": "Enabled", "Expiration": {"Days": 3}}


@pytest.fixture
def bucket(s3_server):
    name = f"rules-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def classes(s3_server):
    """The address of a server that keeps rules with storage classes."""
    command = [sys.executable, "-m", "tests.servers.s3_proxy", str(s3_server.port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=PROJECT_ROOT) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


def manager(bucket, tmp_path, **days) -> DeltaLakeManager:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded", "lifecycle": days}})
    return DeltaLakeManager(f"s3://{bucket}/some/lake", settings)


def filled(lake: DeltaLakeManager) -> DeltaLakeManager:
    for timeframe in ("1h", "1m"):
        lake.append(f"raw_market_data_{timeframe}", bars(timeframe, count=24), "run")
    return lake


def kept(url: str, bucket: str) -> dict[str, tuple[str, str, list[tuple[str, str]]]]:
    """Return the rules as the server has them, by prefix: status, name, and days with classes."""
    found = {}
    document = httpx.get(f"{url}/{bucket}?lifecycle").content
    for rule in ET.fromstring(document).iter(f"{NAMESPACE}Rule"):
        text = {child.tag.removeprefix(NAMESPACE): child for child in rule.iter()}
        steps = [
            (step.findtext(f"{NAMESPACE}Days"), step.findtext(f"{NAMESPACE}StorageClass"))
            for step in rule.iter(f"{NAMESPACE}Transition")
        ]
        found[text["Prefix"].text] = (text["Status"].text, text["ID"].text, steps)
    return found


def test_rules_are_for_data_files_of_each_table_and_set_once(bucket, classes, tmp_path, monkeypatch, s3_server):
    lake = filled(manager(bucket, tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", classes)
    plan = lake.lifecycle()
    assert not plan.is_set
    assert kept(classes, bucket) == {}
    apply_lifecycle(plan)
    rules = kept(classes, bucket)
    assert list(rules) == ["some/lake/raw_market_data_1h/part", "some/lake/raw_market_data_1m/part"]
    assert {status for status, _, _ in rules.values()} == {"Enabled"}
    assert all(steps == [("30", "STANDARD_IA"), ("90", "GLACIER_IR")] for _, _, steps in rules.values())
    assert lake.lifecycle().is_set
    puts = []
    client().meta.events.register("before-call.s3.PutBucketLifecycleConfiguration", lambda **_: puts.append(1))
    apply_lifecycle(lake.lifecycle())
    assert puts == []

    # Against the objects that are there: all data files of the tables match, nothing else does.
    pages = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]
    keys = {page["Key"] for page in pages}
    matched = {key for key in keys if key.startswith(tuple(rules))}
    bodies = {key: s3_server.client().get_object(Bucket=bucket, Key=key)["Body"].read() for key in matched}
    assert sum(pq.read_metadata(io.BytesIO(body)).num_rows for body in bodies.values()) == 96
    assert not [key for key in matched if "_delta_log" in key]
    assert all("/_delta_log/" in key or "/.locks/" in key for key in keys - matched)


def test_rules_of_others_stay_and_changed_days_replace_ours(bucket, classes, tmp_path, monkeypatch):
    filled(manager(bucket, tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", classes)
    other_lake = TEMPORARY | {"ID": "lakehouse/0123456789abcdef/raw_market_data_1h", "Filter": {"Prefix": "other/"}}
    client().put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [TEMPORARY, other_lake]}
    )
    apply_lifecycle(manager(bucket, tmp_path).lifecycle())
    sooner = manager(bucket, tmp_path, warm_after_days=40, warm_class="ONEZONE_IA", cold_after_days=100)
    assert not sooner.lifecycle().is_set
    apply_lifecycle(sooner.lifecycle())
    assert sooner.lifecycle().is_set
    rules = kept(classes, bucket)
    assert set(rules) == {"tmp/", "other/", *(f"some/lake/raw_market_data_{t}/part" for t in ("1h", "1m"))}
    assert rules["some/lake/raw_market_data_1h/part"][2] == [("40", "ONEZONE_IA"), ("100", "GLACIER_IR")]
    plain = client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [rule for rule in plain if rule["ID"] in {"tmp", other_lake["ID"]}] == [TEMPORARY, other_lake]


def test_the_command_shows_before_it_sets(bucket, classes, tmp_path, monkeypatch):
    filled(manager(bucket, tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", classes)
    line = ["lifecycle", "--lake", f"s3://{bucket}/some/lake"]
    shown = CliRunner().invoke(main, line)
    assert shown.exit_code == 0
    assert "STANDARD_IA after 30 days, GLACIER_IR after 90 days" in shown.output
    assert "to be set" in shown.output
    assert "--apply sets the rules" in shown.output
    assert kept(classes, bucket) == {}
    document = json.loads(CliRunner().invoke(main, [*line, "--apply", "--json"]).output)
    assert (document["is_set"], document["applied"], len(document["wanted"])) == (True, True, 2)
    again = CliRunner().invoke(main, [*line, "--apply"])
    assert (again.exit_code, "to be set" in again.output) == (0, False)
    assert len(kept(classes, bucket)) == 2


def test_a_server_without_classes_says_so_and_keeps_its_rules(bucket, tmp_path, s3_server):
    lake = filled(manager(bucket, tmp_path))
    server = s3_server.client()
    server.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [TEMPORARY]})
    plan = lake.lifecycle()
    assert len(plan.others) == 1
    with pytest.raises(StorageError, match=rf"rules of bucket {bucket}: the server at .* does not move objects"):
        apply_lifecycle(plan)
    assert [rule["ID"] for rule in server.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]] == ["tmp"]


def test_a_local_lake_and_wrong_settings_are_refused(tmp_path):
    lake = DeltaLakeManager(tmp_path / "lake", make_settings(tmp_path))
    with pytest.raises(ConfigError, match=r"is not in S3.*--lake s3://bucket/prefix"):
        lake.lifecycle()
    with pytest.raises(ValidationError, match="30 or more after"):
        LifecycleSettings(warm_after_days=80, cold_after_days=90)
    with pytest.raises(ValidationError, match="GLACIER_IR"):
        LifecycleSettings(cold_class="DEEP_ARCHIVE")
