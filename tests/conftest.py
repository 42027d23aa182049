"""What all tests share: one SparkSession a run, settings and lakes in temporary folders, no user settings."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from pipelines.config import Settings
from pipelines.storage import DeltaLakeManager
from tests.servers import s3
from tests.sharing import (  # noqa: F401 - hooks
    pytest_collection_modifyitems,
    pytest_configure_node,
    pytest_xdist_make_scheduler,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.batch.deliveries import Delivery
    from pipelines.batch.results import IngestResult
    from tests.batch.exchange import Exchange
    from tests.servers.kafka import Broker

# No deadline: the machine may be busy. No database: a run leaves nothing in the checkout.
hypothesis_settings.register_profile("lakehouse", deadline=None, database=None, derandomize="CI" in os.environ)
hypothesis_settings.load_profile("lakehouse")

_PRIVATE = ("LAKEHOUSE__", "ALPHA_VANTAGE", "ALPHAVANTAGE", "OANDA_", "FRED_", "AWS_")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI a skip is a failure: what a test needs must be there. A user's laptop may lack it, and is told."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True, scope="session")
def _no_user_environment() -> Iterator[socket.socket]:
    """Keep a user's own keys and settings out of the tests; returns what holds the port of the S3 server."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_PRIVATE)}
    # Set before any JVM starts, which inherits it; the server itself comes up when a test first asks for it.
    with s3.held_port() as port:
        made_up = s3.environment(port.getsockname()[1])
        os.environ.update(made_up)
        yield port
    for name in made_up:
        os.environ.pop(name, None)
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def _every_row_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every run of the suite to it: rows in = rows landed + rows known already + rows in the dead letter queue."""
    from pipelines.batch.landing import Landing

    def ends(results: Iterable[IngestResult]) -> int:
        return sum(each.new + each.restated + each.repeated + each.rejected for each in results)

    def landed(self: Landing, table: str, deliveries: list[Delivery]) -> None:
        results = {id(each.work): each.work.result for each in deliveries}.values()
        before = ends(results)
        land(self, table, deliveries)
        if not any("not landed" in window.error for each in results for window in each.failed):
            assert ends(results) - before == sum(each.page.table.num_rows for each in deliveries), table

    land = Landing._land
    monkeypatch.setattr(Landing, "_land", landed)


@pytest.fixture(scope="session")
def s3_server(_no_user_environment: socket.socket) -> Iterator[s3.S3Server]:
    """The one S3 server of the run, with a bucket; the environment of the run leads to it."""
    _no_user_environment.close()
    with s3.S3Server(s3.port_of(os.environ["AWS_ENDPOINT_URL"])) as server:
        yield server


@pytest.fixture
def s3_lake_path(s3_server: s3.S3Server) -> str:
    """The address of a fresh lake in S3."""
    return f"s3://{s3.BUCKET}/{uuid.uuid4().hex}"


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge nested settings, later ones over earlier ones."""
    found: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


def make_settings(folder: Path, *overrides: dict[str, Any]) -> Settings:
    """Return default settings whose lake and dead letter queue are in `folder`, with overrides."""
    here = {"delta_lake": {"storage_path": str(folder / "lake")}, "dlq": {"path": str(folder / "dlq")},
            "quality": {"path": str(folder / "quality")}}  # fmt: skip
    return Settings.model_validate(merged(here, *overrides))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def lake(settings: Settings) -> DeltaLakeManager:
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)


@pytest.fixture
def embedded_lake(tmp_path: Path) -> DeltaLakeManager:
    """A lake that is written without a JVM."""
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """A server that speaks Coinbase's format, strictly."""
    from tests.batch.exchange import Exchange

    with Exchange() as server:
        yield server


def make_kafka_settings(
    folder: Path, broker: Broker, *overrides: dict[str, Any], topics: dict[str, dict[str, Any]] | None = None
) -> Settings:
    """Return settings of an embedded lake in `folder` that is fed by a broker.

    Its topics, by default one of ticks in JSON with two partitions, and the one of dead letters get names that nobody
    else has: what is given, an underscore and a suffix.
    """
    suffix = uuid.uuid4().hex[:12]
    wanted = topics or {"ticks": {"dataset": "raw_market_ticks", "partitions": 2}}
    streaming = {
        "bootstrap_servers": broker.bootstrap,
        "dlq_topic": f"dead_{suffix}",
        "topics": {f"{name}_{suffix}": each for name, each in wanted.items()},
    }
    return make_settings(folder, {"storage": {"engine": "embedded"}, "streaming": streaming}, *overrides)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """The one broker of the process; a test of it that needs no Spark is marked `kafka`."""
    from pipelines.jars import JarsError
    from tests.servers.kafka import Broker

    try:
        broker = Broker(secured=True)
    except JarsError as error:
        pytest.skip(f"no Kafka broker to start, run make kafka: {error}")
    with broker:
        yield broker


@pytest.fixture
def kafka_settings(tmp_path: Path, kafka: Broker) -> Settings:
    """Settings of a lake that is fed by the run's broker, with one topic of ticks in JSON; nothing is created yet."""
    return make_kafka_settings(tmp_path, kafka)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one session of the process."""
    from pipelines.session import INTERPRETED, get_spark, stop_spark

    yield get_spark(Settings.model_validate({"spark": {"extra_conf": INTERPRETED}}))
    stop_spark()
