"""Spark runs out of memory, or is killed for want of it: the run ends and says so, the next one goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.session import INTERPRETED
from tests.cli.shell import environment, run, shell
from tests.servers.prometheus import Pushgateway

pytestmark = pytest.mark.spark(alone=True)
# Spark itself refuses a heap as small as that, unless it is told not to look.
TOO_SMALL = {
    "LAKEHOUSE__SPARK__DRIVER_MEMORY": "60m",
    "LAKEHOUSE__SPARK__EXTRA_CONF": json.dumps(
        {**INTERPRETED, "spark.testing.reservedMemory": "0", "spark.testing.memory": "50000000"}
    ),
}
KILLED = """
import os, signal
from pipelines.session import get_spark, jvm_fault
from pipelines.storage.faults import explain, spark_errors

spark = get_spark()
pid = spark._jvm.java.lang.ProcessHandle.current().pid()
assert jvm_fault() == ""
os.kill(pid, signal.SIGKILL)
try:
    spark.range(3).count()
except spark_errors() as error:
    print(explain(error, "counting"))
print(get_spark().range(3).count(), get_spark() is spark, repr(jvm_fault()))
"""


def test_a_transform_without_the_memory_it_needs(tmp_path: Path) -> None:
    with Pushgateway() as gateway:
        usual = {
            "LAKEHOUSE__TRANSFORM__PATH": str(tmp_path / "transform"),
            "LAKEHOUSE__MONITORING__PUSHGATEWAY": gateway.address,
            "LAKEHOUSE__SPARK__EXTRA_CONF": json.dumps(INTERPRETED),
        }
        span = ["--start", "2025-12-01", "--end", "2025-12-08", "--timeframes", "1h,1d", "--engine", "embedded"]
        made = run(tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", *span, "--quiet", **usual)
        assert made.exit_code == 0, made.output
        transform = ["transform", "--sample", "--select", "market_data_enriched"]
        code, _, said = shell(tmp_path, *transform, **(usual | TOO_SMALL))
        assert code == 1, said
        assert "Spark ran out of memory with spark.driver_memory at 60m; raise it" in said
        assert "Traceback" not in said
        assert _succeeded(gateway) == 0
        code, out, said = shell(tmp_path, *transform, **usual)
        assert code == 0, out + said
        assert _succeeded(gateway) == 1
    silver = DeltaTable(tmp_path / "sample" / "silver" / "market_data_enriched").to_pandas()
    assert silver.groupby("timeframe").size().to_dict() == {"1h": 168, "1d": 7}
    assert not silver.duplicated(["asset_pair", "timeframe", "timestamp"]).any()


def _succeeded(gateway: Pushgateway) -> float:
    (line,) = [
        each
        for each in gateway.metrics().splitlines()
        if 'job="transform"' in each and each.startswith("pipeline_job_ok")
    ]
    return float(line.rpartition(" ")[2])


def test_a_jvm_that_is_killed_is_named_and_replaced(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        capture_output=True, text=True, check=False, env=os.environ | environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, after = done.stdout.splitlines()
    assert told.startswith("counting: Spark's JVM was killed, as the system does when the machine's memory runs out")
    assert "lower spark.driver_memory, 2g now" in told
    assert after == "3 False ''"
