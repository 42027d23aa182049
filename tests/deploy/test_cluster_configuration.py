"""What a session on a cluster is told, and what is sent to its executors."""

from __future__ import annotations

import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from pipelines import cluster, session
from pipelines.config import PROJECT_ROOT, Settings
from pipelines.streaming.ports import reserved_port

LOCAL = {
    "spark.master": "spark://master:7077",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.hadoop.fs.s3a.buffer.dir": "/tmp/scratch/s3a",
    "spark.sql.session.timeZone": "UTC",
}
SPARK = {
    "master": "spark://master:7077",
    "driver_host": "driver.example",
    "executor_memory": "3g",
    "executor_cores": 2,
    "archives": ["s3://bucket/env.tar.gz#env"],
}


def configured(folder: Path, **spark: object) -> dict[str, str]:
    settings = Settings.model_validate({"spark": SPARK | spark})
    return cluster.cluster_configuration(settings, [Path("/jars/a.jar"), Path("/jars/b.jar")], folder, LOCAL)


def test_executors_reach_the_driver_and_get_what_was_asked_for(tmp_path: Path) -> None:
    found = configured(tmp_path)
    assert found["spark.driver.host"] == "driver.example"
    assert found["spark.executor.memory"] == "3g"
    assert found["spark.executor.cores"] == "2"
    assert found["spark.jars"] == "/jars/a.jar,/jars/b.jar"
    assert found["spark.archives"] == f"{tmp_path}/lakehouse.zip#lakehouse,s3://bucket/env.tar.gz#env"
    assert found["spark.sql.session.timeZone"] == "UTC"
    # These are of this machine, and of no use on another.
    assert not {"spark.driver.bindAddress", "spark.hadoop.fs.s3a.buffer.dir"} & found.keys()


def test_what_is_not_said_is_left_to_spark(tmp_path: Path) -> None:
    found = configured(tmp_path, driver_host=None, executor_cores=None)
    assert not {"spark.driver.host", "spark.executor.cores"} & found.keys()


@pytest.mark.parametrize(
    ("master", "expected"),
    [("local", False), ("local[*]", False), ("local[2]", False), ("spark://a:7077", True), ("yarn", True),
     ("k8s://https://a:6443", True)],
)  # fmt: skip
def test_which_masters_are_clusters(master: str, expected: bool) -> None:
    assert cluster.is_cluster(master) is expected


def test_executors_get_the_package_and_its_declarations_and_no_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pipelines", "config"):
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "config" / "config.local.yaml").write_text("streaming: {sasl_password: sesame}\n", encoding="utf-8")
    monkeypatch.setattr(cluster, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(cluster, "CONFIG_DIR", tmp_path / "config")
    configured(tmp_path)
    with zipfile.ZipFile(tmp_path / "lakehouse.zip") as packed:
        names = set(packed.namelist())
    assert {"pipelines/transform/functions.py", "config/assets.yaml", "config/config.yaml"} <= names
    assert "config/contracts/raw_market_data.yaml" in names
    assert not [name for name in names if "local" in Path(name).name or "__pycache__" in name]


def test_a_master_that_does_not_answer_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_running", None)
    master = f"spark://127.0.0.1:{reserved_port()}"
    with pytest.raises(session.SparkUnavailableError, match=f"no Spark master answers at {master}; .*spark.master"):
        session.get_spark(Settings.model_validate({"spark": {"master": master}}))


def test_one_master_of_several_that_answers_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        assert cluster.unreachable(f"spark://{there}") is None
        assert cluster.unreachable(f"spark://127.0.0.1:{reserved_port()},{there}") is None
    # These are not asked by address.
    assert [cluster.unreachable(master) for master in ("local[*]", "yarn", "k8s://https://nowhere:1")] == [None] * 3
