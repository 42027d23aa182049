"""What a finished job leaves at a real Pushgateway, and that it never suffers from one that is not well."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import time

import httpx
import pytest
from prometheus_client import REGISTRY

from pipelines.monitoring import metrics
from pipelines.monitoring.own import OF_THE_EXPORTER
from pipelines.monitoring.push import job_pushed, push_job
from tests.cli.shell import run, spawn
from tests.cli.test_exporter import DAY, EMBEDDED
from tests.conftest import make_settings
from tests.monitoring.scrape import Samples, scraped
from tests.servers.base import hang, status
from tests.servers.prometheus import Pushgateway
from tests.servers.s3 import free_ports
from tests.servers.slack import SlackServer

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def gateway():
    with Pushgateway() as found:
        yield found


def monitoring(tmp_path, gateway: str | None):
    return make_settings(tmp_path, {"monitoring": {"pushgateway": gateway, "push_timeout_seconds": 1}}).monitoring


def backfill(folder, gateway: str, *arguments: str):
    more = EMBEDDED | {
        "LAKEHOUSE__MONITORING__PUSHGATEWAY": gateway,
        "LAKEHOUSE__MONITORING__PUSH_TIMEOUT_SECONDS": "1",
    }
    return spawn(folder, "backfill", "--provider", "sample", "--assets", "BTCUSD", *DAY, *arguments, **more)


def test_a_command_pushes_what_it_alone_knows(tmp_path, gateway):
    with backfill(tmp_path, gateway.address) as process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    found = Samples(gateway.metrics())
    labels = {"job": "backfill", "instance": HOST}
    assert found.value("pipeline_job_ok", **labels) == 1
    assert 0 < (found.value("pipeline_job_seconds", **labels) or 0) < 120
    count = "pipeline_ingestion_duration_seconds_count"
    assert found.value(count, asset_pair="BTCUSD", timeframe="1h", **labels) == 1
    assert (found.value("push_time_seconds", **labels) or 0) > time.time() - 60
    pushed = {name for name in found.names() if name.startswith(("pipeline", "external", "api", "kafka"))}
    assert not pushed & {f"{name}{suffix}" for name in OF_THE_EXPORTER for suffix in ("", "_total")}
    # Of Python itself nothing: it is not there any more.
    assert found.value("process_start_time_seconds", **labels) is None


def test_a_job_that_fails_says_so_and_replaces_what_was_there(tmp_path, gateway):
    settings, labels = monitoring(tmp_path, gateway.url), {"job": "transform", "instance": HOST}
    metrics.ingestion_errors_total.labels(error_type="for_the_test").inc(3)
    with job_pushed(settings, "transform"):
        pass
    assert Samples(gateway.metrics()).value("pipeline_job_ok", **labels) == 1
    errors = Samples(gateway.metrics()).value("pipeline_ingestion_errors_total", error_type="for_the_test", **labels)
    assert errors == REGISTRY.get_sample_value("pipeline_ingestion_errors_total", {"error_type": "for_the_test"})
    with pytest.raises(RuntimeError, match="its own"), job_pushed(settings, "transform"):
        raise RuntimeError("its own")
    assert Samples(gateway.metrics()).value("pipeline_job_ok", **labels) == 0
    with job_pushed(settings, "transform") as job:
        job.ok = False
    assert Samples(gateway.metrics()).value("pipeline_job_ok", **labels) == 0


def test_a_dry_run_or_no_gateway_pushes_nothing(tmp_path, gateway):
    before = pushed(gateway)
    assert not push_job(monitoring(tmp_path, None), "load", 1.0, ok=True)
    more = EMBEDDED | {"LAKEHOUSE__MONITORING__PUSHGATEWAY": gateway.address}
    done = run(tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", *DAY[:-1], "--dry-run", **more)
    assert done.exit_code == 0, done.output
    assert pushed(gateway) == before


def pushed(gateway):
    """What was pushed by whom; the gateway lists it in any order."""
    found = httpx.get(f"{gateway.url}/api/v1/metrics", trust_env=False).json()["data"]
    return sorted(found, key=lambda each: sorted(each["labels"].items()))


@pytest.mark.parametrize(("fault", "why"), [("down", "refused"), ("hanging", "no answer|timed out"), ("500", "500")])
def test_a_gateway_that_is_not_well_costs_a_warning_and_a_moment(tmp_path, caplog, fault, why):
    with SlackServer() as server:
        server.always(hang() if fault == "hanging" else status(500))
        port = free_ports(1)[0] if fault == "down" else server.port
        settings = monitoring(tmp_path, f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with caplog.at_level(logging.WARNING), job_pushed(settings, "load"):
            pass
        assert time.monotonic() - began < 5
        assert server.requests == (fault != "down")
    (message,) = caplog.messages
    assert re.search(f"were not pushed to 127.0.0.1:{port}: .*({why})", message)


def test_a_password_in_the_address_is_not_told(tmp_path, caplog):
    settings = monitoring(tmp_path, f"http://user:hidden@127.0.0.1:{free_ports(1)[0]}")
    assert not push_job(settings, "load", 1.0, ok=True)
    assert "were not pushed" in caplog.text
    assert "hidden" not in caplog.text


def test_a_command_goes_on_without_its_gateway_and_says_so_once(tmp_path, caplog):
    more = EMBEDDED | {"LAKEHOUSE__MONITORING__PUSHGATEWAY": f"127.0.0.1:{free_ports(1)[0]}"}
    done = run(tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", *DAY, **more)
    assert done.exit_code == 0, done.output
    assert "24 bars landed" in done.output
    assert caplog.text.count("metrics of backfill were not pushed") == 1


def test_a_stream_serves_its_own_metrics(tmp_path):
    (port,) = free_ports(1)
    code = (
        "import sys\n"
        "from pipelines.config import MonitoringSettings\n"
        "from pipelines.monitoring import metrics\n"
        "from pipelines.monitoring.serving import own_metrics_served\n"
        "metrics.kafka_messages_consumed_total.labels(topic='ticks').inc(7)\n"
        "metrics.stream_lag_messages.labels(topic='ticks', partition='0').set(7)\n"
        f"with own_metrics_served(MonitoringSettings(metrics_port={port})):\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        found = scraped(f"http://127.0.0.1:{port}/metrics")
        process.communicate(b"", timeout=20)
    assert process.returncode == 0
    assert found.value("kafka_messages_consumed_total", topic="ticks") == 7
    assert found.value("pipeline_stream_lag_messages", topic="ticks", partition="0") is None, "the exporter shows it"
    assert (found.value("process_resident_memory_bytes") or 0) > 0
