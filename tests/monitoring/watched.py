"""A lake that real runs fill while a real Prometheus watches: exporter, Pushgateway, a stream's metrics and Airflow's.

Prometheus is given a past as well: what the exporter showed before the last run, once every five minutes of a day.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from deltalake import write_deltalake
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from typing_extensions import override

from pipelines.config import Settings, load_settings
from pipelines.monitoring.own import OwnMetrics
from pipelines.monitoring.serving import served
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.clients import offsets
from pipelines.streaming.creation import create_topics
from pipelines.streaming.ports import reserved_port, reserved_ports
from pipelines.streaming.status import BatchStatus, StatusBoard
from tests.batch.exchange import Exchange
from tests.cli.shell import run, spawn
from tests.monitoring.mart_tables import mart_tables
from tests.monitoring.oracle import records
from tests.monitoring.panels import table_bytes
from tests.monitoring.scrape import Samples
from tests.servers.base import ProviderServer, Reply, Request, json_reply
from tests.servers.kafka import Broker
from tests.servers.prometheus import Prometheus, Pushgateway, program

DAG = "daily_market_data_pipeline"
# What Airflow is made to say.
RUN = {
    "dag_run_id": "scheduled__2025-12-04", "dag_id": DAG, "state": "success", "run_type": "scheduled",
    "run_after": "2025-12-04T01:00:00Z", "start_date": "2025-12-04T01:00:01.5Z", "end_date": "2025-12-04T01:04:01.5Z",
    "duration": 240.0, "logical_date": "2025-12-04T01:00:00Z",
}  # fmt: skip
TASKS = {"ingest": 61.5, "validate": 48.25, "transform": 122.0}
Ends = tuple[dict[int, int], dict[int, int]]
_PAST, _EVERY = timedelta(hours=25), 300
_SEEN_WITHIN_SECONDS, _DONE_WITHIN_SECONDS = 60.0, 1200.0


class Airflow(ProviderServer):
    """Answers what the exporter asks, in the format of Airflow's REST API."""

    @override
    def answer(self, request: Request, distort: str) -> Reply:
        where = request.path.removeprefix("/api/v2").strip("/").split("/")
        match where:
            case ["auth", "token"]:
                return json_reply({"access_token": "a.b.c"}, 201)
            case ["dags"]:
                return json_reply({"dags": [{"dag_id": DAG, "is_paused": False}], "total_entries": 1})
            case ["dags", _, "dagRuns"]:
                runs = [RUN] if request.query.get("state", RUN["state"]) == RUN["state"] else []
                return json_reply({"dag_runs": runs, "total_entries": len(runs)})
            case ["dags", _, "dagRuns", _, "taskInstances"]:
                tasks = [
                    {"task_id": name, "state": "success", "duration": seconds, "map_index": -1, "try_number": 1}
                    for name, seconds in TASKS.items()
                ]
                return json_reply({"task_instances": tasks, "total_entries": len(tasks)})
        return json_reply({"detail": "Not Found"}, 404)


class _OfStreams(OwnMetrics):
    """What this process knows of streams; what other tests have left in it is not of this run."""

    @override
    def collect(self) -> Iterable[Metric]:
        return [family for family in super().collect() if family.name.startswith(("kafka_", "pipeline_stream_"))]


@dataclass(frozen=True, slots=True)
class Watched:
    """What was watched.

    Attributes:
        folder: where everything is.
        settings: those of all commands.
        prometheus: the server that has seen it.
        pushgateway: where jobs left what they know.
        before: rows of bronze before the last run, by asset pair, timeframe and provider.
        sizes: bytes of each table before it.
        requests: how many the provider got in it.
        topic: the stream's topic.
        positions: the offsets that its last batch ended at, by partition.
        ends: those that the topic ended at.
    """

    folder: Path
    settings: Settings
    prometheus: Prometheus
    pushgateway: Pushgateway
    before: dict[tuple[str, str, str], int]
    sizes: dict[str, int]
    requests: int
    topic: str
    positions: dict[int, int]
    ends: dict[int, int]

    @property
    def lake(self) -> Path:
        """The folder of the lake."""
        return self.folder / "real"


@contextmanager
def watched(folder: Path, broker: Broker) -> Iterator[Watched]:
    """Start everything, run what there is to watch, and wait until Prometheus has seen it."""
    with ExitStack() as stack:
        exchange, airflow = stack.enter_context(Exchange()), stack.enter_context(Airflow())
        gateway = stack.enter_context(Pushgateway())
        topic, ports = f"ticks_{folder.name}", reserved_ports(2)
        config = _config(
            folder,
            gateway,
            providers={"coinbase": {"base_url": exchange.url, "requests_per_minute": 600_000, "burst": 1000}},
            monitoring={"airflow_url": airflow.url},
            streaming={
                "bootstrap_servers": broker.bootstrap,
                "topics": {topic: {"dataset": "raw_market_ticks", "partitions": 2}},
            },
        )
        job = _Job(folder, config)
        job.here("backfill", *_bars("BTCUSD", "2025-12-01", "2025-12-02"))
        before, sizes, shown = records(folder / "real"), table_bytes(folder / "real"), job.here("exporter", "--once")
        prometheus = stack.enter_context(_prometheus(folder, gateway, shown, exporter=ports[0], stream=ports[1]))
        stack.enter_context(_exporter(job, ports[0]))
        asked = len(exchange.log)
        exchange.edit = _Spoiled()
        job("backfill", *_bars("BTCUSD,ETHUSD", "2025-12-02", "2025-12-03"))
        asked = len(exchange.log) - asked
        job.here("gaps", "--assets", "BTCUSD,ETHUSD", "--start", "2025-12-01", "--end", "2025-12-04", fails=True)
        for name, rows in mart_tables().items():
            write_deltalake(str(folder / "real" / "gold" / name), rows)
        positions, ends = stack.enter_context(_streamed(job, topic, ports[1], prometheus))
        _wait(prometheus, f"min(pipeline_exporter_last_look_timestamp_seconds) > {time.time()}")
        yield Watched(folder, job.settings, prometheus, gateway, before, sizes, asked, topic, positions, ends)


@contextmanager
def traded(folder: Path) -> Iterator[tuple[Path, Prometheus]]:
    """Make gold of a week of sample data, trades included, with Spark; yields the lake and what has watched it."""
    with Pushgateway() as gateway:
        job, port = _Job(folder, _config(folder, gateway)), reserved_port()
        week = ["backfill", "--provider", "sample", "--assets", "BTCUSD,ETHUSD", "--days", "7"]
        job(*week, "--timeframes", "1h,4h,1d")
        job(*week, "--dataset", "raw_ai_decisions")
        job(*week, "--dataset", "raw_trade_executions")
        job("transform", "--sample")
        with _prometheus(folder, gateway, exporter=port) as prometheus, _exporter(job, port, "--sample"):
            _wait(prometheus, "pipeline_exporter_last_look_timestamp_seconds")
            yield folder / "sample", prometheus


@dataclass(frozen=True, slots=True)
class _Job:
    """Runs commands with a settings file; in a process of its own one pushes what is of it alone."""

    folder: Path
    config: Path

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    def __call__(self, *arguments: str) -> None:
        with spawn(self.folder, *arguments, "--config", str(self.config)) as process:
            out, error = process.communicate(timeout=_DONE_WITHIN_SECONDS)
        assert process.returncode == 0, error + out

    def here(self, *arguments: str, fails: bool = False) -> str:
        done = run(self.folder, *arguments, "--config", str(self.config))
        assert done.exit_code == fails, done.output
        return done.stdout


class _Spoiled:
    """Makes of one bar, of the first that are asked for, none."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self, rows: list[Any]) -> list[Any]:
        if self._done or len(rows) < 100:
            return rows
        self._done = True
        opened, low, high, *rest = rows[50]
        return [*rows[:50], [opened, high + 1, low, *rest], *rows[51:]]


def _bars(assets: str, start: str, end: str) -> list[str]:
    return ["--provider", "coinbase", "--assets", assets, "--start", start, "--end", end, "--quiet"]


def _config(folder: Path, gateway: Pushgateway, **sections: dict[str, Any]) -> Path:
    monitoring = {"refresh_seconds": 1.0, "pushgateway": gateway.url} | sections.pop("monitoring", {})
    made = {"storage": {"engine": "embedded"}, "transform": {"path": str(folder / "transform")}}
    values = made | {"monitoring": monitoring} | sections
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@contextmanager
def _prometheus(folder: Path, gateway: Pushgateway, shown: str = "", **ports: int) -> Iterator[Prometheus]:
    """Start a Prometheus that watches ports, with a past: what the exporter shows, once every five minutes of a day."""
    targets = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    jobs: list[dict[str, Any]] = [
        {"job_name": "pushgateway", "honor_labels": True, "static_configs": [{"targets": [gateway.address]}]},
        *({"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in targets.items()),
    ]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "500ms"}, "scrape_configs": jobs}), "utf-8")
    server = Prometheus(config)
    if shown:
        past, data = folder / "past.txt", server.folder / "data"
        labels = {"job": "exporter", "instance": targets["exporter"]}
        past.write_text("\n".join([*_past(Samples(shown), labels), "# EOF", ""]), encoding="utf-8")
        command = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(past), str(data)]
        subprocess.run(command, check=True, capture_output=True)
    with server:
        yield server


def _past(shown: Samples, labels: dict[str, str]) -> Iterator[str]:
    """Yield samples in OpenMetrics, each metric's in the order of time."""
    end = time.time() - 60
    instants = [end - age for age in range(int(_PAST.total_seconds()), -1, -_EVERY)]
    for family in shown.families.values():
        for sample in family.samples:
            named = ",".join(f'{name}="{value}"' for name, value in (sample.labels | labels).items())
            for instant in instants:
                yield f"{sample.name}{{{named}}} {sample.value} {instant:.3f}"


@contextmanager
def _exporter(job: _Job, port: int, *options: str) -> Iterator[None]:
    with spawn(job.folder, "exporter", "--port", str(port), "--config", str(job.config), *options) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def _streamed(job: _Job, topic: str, port: int, prometheus: Prometheus) -> Iterator[Ends]:
    """Send messages, and say that batches have landed all but ten of each partition; yields where both ended."""
    settings = job.settings
    create_topics(settings, [topic])
    registry = CollectorRegistry()
    registry.register(_OfStreams())
    board = StatusBoard(DeltaLakeManager(str(job.folder / "real"), settings))
    with served(registry, "127.0.0.1", port, "the test"):
        for batch in range(2):
            job.here(
                "stream", "produce", "--topic", topic, "--source", "sample", "--assets", "BTCUSD,ETHUSD",
                "--speed", "max", "--limit", "200", "--quiet",
            )  # fmt: skip
            ends = offsets(settings, topic).end
            positions = {partition: max(0, end - 10) for partition, end in ends.items()}
            board.write(_status(topic, batch, positions, ends))
            _wait(prometheus, f'kafka_messages_produced_total{{topic="{topic}"}} >= {200 * (batch + 1)}')
        yield positions, dict(ends)


def _status(topic: str, batch: int, positions: dict[int, int], ends: Mapping[int, int]) -> BatchStatus:
    now = datetime.now(UTC)
    return BatchStatus(
        topic=topic, batch_id=batch, run_id="run", finished_at=now, seconds=1.25, rows=180, landed=177, refused=3,
        late=0, bars=4, watermark=now - timedelta(seconds=8), positions=positions, ends=ends,
    )  # fmt: skip


def _wait(prometheus: Prometheus, expression: str) -> None:
    deadline = time.monotonic() + _SEEN_WITHIN_SECONDS
    while not prometheus.query(expression):
        assert time.monotonic() < deadline, f"Prometheus never saw {expression}"
        time.sleep(0.1)
