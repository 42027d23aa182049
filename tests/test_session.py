"""The session: one per process, quiet, and errors that name the fix."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipelines.config import Settings, SparkSettings
from pipelines.jars import DEFAULT_DIR
from pipelines.jvm import java_version
from pipelines.session import SparkUnavailableError, get_spark
from tests.conftest import make_settings

CODE = """
import os, signal, sys
before = signal.getsignal(signal.SIGINT)
from pipelines.session import get_spark, stop_spark
spark = get_spark()
assert get_spark() is spark and spark.range(3).count() == 3
assert signal.getsignal(signal.SIGINT) is before
print(spark.conf.get("spark.local.dir"), os.getpid(), flush=True)
"""


@pytest.mark.spark
def test_one_session_in_utc_without_ui(spark):
    assert get_spark() is spark
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.sparkContext.uiWebUrl is None
    assert spark.sql("select timestamp '2025-12-07 00:00:00' t").collect()[0].t.isoformat() == "2025-12-07T00:00:00"


@pytest.mark.spark(alone=True)
def test_a_process_is_quiet_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr == ""
    scratch, _ = done.stdout.split()
    assert not Path(scratch).exists()
    assert list(tmp_path.iterdir()) == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if scratch in " ".join(p.info["cmdline"] or [])]


def test_missing_jars_and_java_name_the_fix(tmp_path, monkeypatch):
    from pipelines import session

    monkeypatch.setattr(session, "_running", None)
    with pytest.raises(SparkUnavailableError, match="make setup"):
        get_spark(Settings(spark=SparkSettings(jars_dir=str(tmp_path))))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SparkUnavailableError, match="install Java 17"):
        get_spark(Settings())


@pytest.mark.spark
def test_a_lake_in_s3_without_its_jars_names_the_command(spark, tmp_path, monkeypatch):
    from pipelines import session
    from pipelines.storage import DeltaLakeManager

    lake = DeltaLakeManager("s3://some-bucket/lake", make_settings(tmp_path))
    command = r"`python -m pipelines.jars --conf s3`"
    with monkeypatch.context() as started_without:
        started_without.setattr(session, "_running", replace(session._running, jar_sets=frozenset({"delta"})))
        with pytest.raises(SparkUnavailableError, match=rf"without the s3 jars; .*{command}"):
            lake.warm_up()
        assert DeltaLakeManager(tmp_path, make_settings(tmp_path)).spark() is spark
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "delta").symlink_to(DEFAULT_DIR / "delta")
    settings = make_settings(tmp_path, {"spark": {"jars_dir": str(tmp_path / "jars")}})
    monkeypatch.setattr(session, "_running", None)
    with pytest.raises(SparkUnavailableError, match=rf"the s3 jars are not in .*; run {command}"):
        DeltaLakeManager("s3://some-bucket/lake", settings).warm_up()


@pytest.mark.spark
def test_s3_is_set_up_from_the_environment_and_keys_are_in_no_setting(spark):
    conf = dict(spark.sparkContext.getConf().getAll())
    assert conf["spark.hadoop.fs.s3a.endpoint"] == os.environ["AWS_ENDPOINT_URL"]
    assert conf["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert conf["spark.delta.logStore.s3a.impl"] == "lakehouse.ConditionalPutLogStore"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(conf)


def test_an_old_java_is_named(tmp_path, monkeypatch):
    from pipelines import session

    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(session, "_running", None)
    assert java_version() == 11
    with pytest.raises(SparkUnavailableError, match="Java 17 or later and found 11"):
        get_spark(Settings())
