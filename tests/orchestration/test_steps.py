"""The steps and what surrounds them, without Airflow's processes: ranges, retries, results, what a failure says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipelines import tasks
from pipelines.cli.lakes import NoLakeError
from pipelines.config import OrchestrationSettings, Settings
from pipelines.errors import ConfigError, InvalidRangeError
from pipelines.orchestration.grafana import annotate
from pipelines.orchestration.retrying import delay_before
from pipelines.orchestration.span import span_of
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.ports import reserved_port
from pipelines.streaming.status import BatchStatus, StatusBoard
from pipelines.timeframes import utc_now
from tests.batch.exchange import Exchange, exchange_settings
from tests.servers.alpha_vantage import AlphaVantageServer
from tests.servers.base import status

NIGHT = datetime(2025, 12, 8, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("params", "logical_date", "start", "end"),
    [
        # A scheduled run is about the days before its logical date, whenever it runs.
        ({"days": 1}, NIGHT, "2025-12-07", "2025-12-08"),
        ({"days": 3}, NIGHT, "2025-12-05", "2025-12-08"),
        ({"days": 3}, None, "2026-02-25", "2026-02-28"),
        ({"days": 3, "start": "2025-12-01", "end": None}, NIGHT, "2025-12-01", "2025-12-08"),
        ({"days": 3, "start": "2025-12-01T06:00", "end": "2025-12-02"}, NIGHT, "2025-12-01T06:00", "2025-12-02"),
        ({"days": 2, "end": "2025-12-02"}, NIGHT, "2025-11-30", "2025-12-02"),
    ],
)
def test_the_range_of_a_run(params: dict[str, Any], logical_date: datetime | None, start: str, end: str) -> None:
    found = span_of(params, logical_date, datetime(2026, 2, 28, 17, 5, tzinfo=UTC))
    assert found.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert found.end == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_a_range_that_is_none(settings: Settings) -> None:
    with pytest.raises(InvalidRangeError, match="empty or inverted"):
        span_of({"days": 1, "start": "2025-12-08", "end": "2025-12-07"}, NIGHT, NIGHT)


def real_settings(folder: Path, exchange: Exchange, down: AlphaVantageServer, *chain: str) -> Settings:
    """An exchange that serves, behind a provider that does not."""
    fast = {"base_url": down.url, "api_key": "made-up", "requests_per_minute": 600_000, "burst": 1000, "max_retries": 0}
    return exchange_settings(folder, exchange, {"providers": {"chain": list(chain), "alpha_vantage": fast}})


def test_ingest_says_who_served_and_who_did_not(tmp_path: Path, exchange: Exchange) -> None:
    with AlphaVantageServer() as down:
        down.always(status(503))
        settings = real_settings(tmp_path, exchange, down, "oanda", "alpha_vantage", "coinbase")
        asked = {"timeframes": ["1h"], "settings": settings}
        first = tasks.ingest(["BTCUSD"], "2025-12-07", "2025-12-08", **asked)
        again = tasks.ingest(["BTCUSD"], "2025-12-07", "2025-12-08", **asked)
    assert (first["new"], first["providers"]) == (24, {"coinbase": 24})
    # Oanda has no token, which is nobody's trouble.
    assert first["gave_up"].keys() == {"alpha_vantage"}
    assert (again["new"], again["requests"], again["gave_up"]) == (0, 0, {})
    assert json.loads(json.dumps(first)) == first
    assert 0 <= first["import_seconds"] <= first["seconds"]
    assert first["jvm_seconds"] == 0


def test_ingest_that_nobody_serves_fails_with_a_hint(tmp_path: Path, exchange: Exchange) -> None:
    exchange.always(status(503))
    settings = exchange_settings(tmp_path, exchange, {"providers": {"coinbase": {"max_retries": 0}}})
    with pytest.raises(
        tasks.StepFailedError, match=r"1 window failed: BTCUSD coinbase: .*503.*lakehouse doctor"
    ) as error:
        tasks.ingest(["BTCUSD"], "2025-12-07", "2025-12-08", timeframes=["1h"], settings=settings)
    assert error.value.retryable


def test_nothing_stands_in_for_a_lake_that_is_not_there(settings: Settings) -> None:
    for step in (tasks.optimize, tasks.transform_silver):
        with pytest.raises(NoLakeError, match="lakehouse backfill"):
            step(settings=settings)


@pytest.mark.soak
def test_a_model_that_there_is_not(embedded_lake: DeltaLakeManager, tmp_path: Path) -> None:
    embedded_lake.ensure_table("raw_market_data_1h")
    transform = embedded_lake.settings.transform.model_copy(update={"path": str(tmp_path / "transform")})
    settings = embedded_lake.settings.model_copy(update={"transform": transform})
    with pytest.raises(ConfigError, match="no table of silver or gold is mart_of_nothing; `lakehouse dbt ls`"):
        tasks.check_transform(["mart_of_nothing"], settings=settings)


def test_optimize_compacts_once(tmp_path: Path, exchange: Exchange) -> None:
    settings = exchange_settings(tmp_path, exchange, {"ingest": {"chunk_rows": 6}})
    for hour in range(0, 24, 4):
        tasks.ingest(
            ["BTCUSD"], f"2025-12-07T{hour:02}:00", f"2025-12-07T{hour + 3:02}:59", timeframes=["1h"], settings=settings
        )
    first, second = (tasks.optimize(settings=settings) for _ in range(2))
    assert first["compacted_partitions"] >= 1
    assert second["compacted_partitions"] == 0


# ---- retries


def test_delays_double_and_what_cannot_help_is_not_tried() -> None:
    first = timedelta(minutes=Settings().orchestration.retry_minutes)
    for error in (OSError("disk full"), tasks.StepFailedError("windows failed")):
        delays = [delay_before(error, number, first) for number in (1, 2, 3)]
        assert delays == [timedelta(minutes=minutes) for minutes in (5, 10, 20)]
    for hopeless in (tasks.StepFailedError("tests failed", retryable=False), ConfigError("no such provider")):
        assert delay_before(hopeless, 1, first) is None


# ---- Grafana


class Grafana:
    """A server that takes annotations with a token, as Grafana's HTTP API does."""

    TOKEN = "made-up-token"

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                known = self.headers.get("Authorization") == f"Bearer {grafana.TOKEN}"
                right = self.path == "/api/annotations" and isinstance(body["text"], str)
                if known and right:
                    grafana.taken.append(body)
                self.send_response(200 if known and right else 401 if not known else 404)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    server = Grafana()
    yield server
    server.close()


def test_grafana_is_told_and_its_faults_fail_nobody(grafana: Grafana, settings: Settings) -> None:
    known = OrchestrationSettings(grafana_url=f"{grafana.url}/", grafana_token=SecretStr(Grafana.TOKEN))
    assert annotate("the daily run is done", known) == "annotated"
    assert [(each["text"], each["tags"]) for each in grafana.taken] == [("the daily run is done", ["lakehouse"])]
    stranger = OrchestrationSettings(grafana_url=grafana.url, grafana_token=SecretStr("wrong-secret"))
    refused = annotate("hello", stranger)
    assert refused.startswith("not told: HTTP 401")
    nobody = f"http://user:password@127.0.0.1:{reserved_port()}"
    down = annotate("hello", OrchestrationSettings(grafana_url=nobody))
    assert down.startswith("not told: ConnectError")
    assert "wrong-secret" not in refused
    assert "password" not in down
    assert tasks.refresh_dashboards("hello", settings=settings)["grafana"] == "not configured"


# ---- streams


def stream_status(topic: str = "crypto_ticks", age: timedelta = timedelta(), **changes: Any) -> BatchStatus:
    """A stream of two partitions that has read all there is."""
    found = {
        "batch_id": 3, "run_id": "run", "finished_at": utc_now() - age, "seconds": 2.0, "rows": 8, "landed": 8,
        "refused": 0, "late": 0, "bars": 0, "watermark": None, "positions": {0: 5, 1: 3}, "ends": {0: 5, 1: 3},
    }  # fmt: skip
    return BatchStatus(topic=topic, **(found | changes))


def test_streams_that_are_not_well_are_named(embedded_lake: DeltaLakeManager) -> None:
    settings = embedded_lake.settings
    streaming = settings.streaming.model_copy(update={"bootstrap_servers": f"127.0.0.1:{reserved_port()}"})
    settings = settings.model_copy(
        update={"streaming": streaming, "orchestration": OrchestrationSettings(stream_lag_messages=10)}
    )
    assert tasks.check_streams(settings=settings)["streams"] == {}
    embedded_lake.ensure_table("raw_market_ticks")
    board = StatusBoard(embedded_lake)
    board.write(stream_status(state="stopped"))
    well = tasks.check_streams(settings=settings)
    assert well["streams"] == {"crypto_ticks": {"state": "stopped", "lag": 0}}
    board.write(stream_status(state="failed", error="disk full", ends={0: 25, 1: 3}, lost=((0, 3, 7),)))
    board.write(stream_status("bonds_data", state="running", age=timedelta(hours=1), ends={0: 6, 1: 3}))
    with pytest.raises(tasks.StepFailedError) as error:
        tasks.check_streams(settings=settings)
    for said in (
        "crypto_ticks has failed: disk full",
        "crypto_ticks is 20 messages behind, and 10 messages are allowed",
        "crypto_ticks has lost 4 messages",
        "bonds_data is stale",
        "lakehouse stream status",
    ):
        assert said in str(error.value)
