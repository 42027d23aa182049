"""Airflow's DAGs as metrics, asked of a server that answers as Airflow 3.3's does, and only to who has a token."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from pipelines.monitoring.exporter import Exporter
from pipelines.monitoring.parts.dags import Dags
from pipelines.storage import DeltaLakeManager
from tests.conftest import make_settings
from tests.monitoring.scrape import shown

USER, PASSWORD, TOKEN = "watcher", "not-to-be-shown", "a-token"
NOW = datetime(2025, 12, 4, 3, 30, tzinfo=UTC)


def run(run_id: str, state: str, start: str | None, end: str | None) -> dict[str, Any]:
    return {"dag_run_id": run_id, "state": state, "start_date": start, "end_date": end, "run_after": start or "9"}


def task(name: str, state: str, duration: float | None, map_index: int = -1) -> dict[str, Any]:
    return {"task_id": name, "state": state, "duration": duration, "map_index": map_index}


class FakeAirflow:
    """Knows runs by DAG, newest first, and tasks by run."""

    def __init__(self) -> None:
        self.open = True
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/auth/token":
                    fake.reply(self, (201, {"access_token": TOKEN}) if fake.open else (401, {}))
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    fake.reply(self, (401, {}))
                else:
                    fake.reply(self, fake.answer(parts.path.split("/")[1:], dict(parse_qsl(parts.query))))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                known = self.path == "/auth/token" and body == {"username": USER, "password": PASSWORD}
                fake.reply(self, (201, {"access_token": TOKEN}) if known else (401, {}))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def answer(self, path: list[str], query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        match [unquote(part) for part in path]:
            case ["api", "v2", "dags"]:
                return 200, {"dags": [{"dag_id": name} for name in sorted(self.runs)], "total_entries": len(self.runs)}
            case ["api", "v2", "dags", dag_id, "dagRuns"]:
                assert query["order_by"] == "-run_after"
                found = [each for each in self.runs[dag_id] if query.get("state") in (None, each["state"])]
                return 200, {"dag_runs": found[: int(query["limit"])], "total_entries": len(found)}
            case ["api", "v2", "dags", _, "dagRuns", run_id, "taskInstances"]:
                return 200, {"task_instances": self.tasks.get(run_id, []), "total_entries": 0}
        return 404, {}

    def reply(self, handler: BaseHTTPRequestHandler, found: tuple[int, dict[str, Any]]) -> None:
        body = json.dumps(found[1]).encode()
        handler.send_response(found[0])
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def airflow():
    with FakeAirflow() as fake:
        fake.runs = {
            "daily": [
                run("manual__2025-12-04T03:00:00+00:00", "queued", None, None),
                run("a", "running", "2025-12-04T01:00:00Z", None),
                run("b", "success", "2025-12-03T01:00:00Z", "2025-12-03T01:20:00.5Z"),
            ],
            "hourly marts": [run("c", "failed", "2025-12-04T02:00:00Z", "2025-12-04T02:01:00Z")],
            "never": [],
        }
        fake.tasks = {
            "a": [task("ingest", "success", 61.5), task("validate", "running", None)],
            "c": [task("marts", "failed", 2.0, 0), task("marts", "success", 3.0, 1)],
        }
        yield fake


def exporter(tmp_path, airflow: FakeAirflow | None, **monitoring: object) -> Exporter:
    url = airflow.url if airflow else None
    settings = make_settings(tmp_path, {"monitoring": {"airflow_url": url, **monitoring}})
    return Exporter(DeltaLakeManager(settings.delta_lake.storage_path, settings), [Dags()], clock=lambda: NOW)


def test_runs_and_tasks_of_every_dag(tmp_path, airflow):
    looking = exporter(tmp_path, airflow)
    assert looking.look()
    found = shown(looking)
    assert found.by("airflow_dag_running", "dag_id") == {"daily": 1, "hourly marts": 0, "never": 0}
    states = found.by("airflow_dag_last_run_state", "dag_id", "state")
    assert {key for key, value in states.items() if value} == {("daily", "running"), ("hourly marts", "failed")}
    assert len(states) == 8
    assert found.by("airflow_dag_last_run_seconds", "dag_id") == {"daily": 2.5 * 3600, "hourly marts": 60}
    success = datetime(2025, 12, 3, 1, 20, 0, 500_000, tzinfo=UTC).timestamp()
    assert found.by("airflow_dag_last_success_timestamp_seconds", "dag_id") == {"daily": success}
    tasks = {("daily", "ingest"): 61.5, ("hourly marts", "marts"): 2.0}
    assert found.by("airflow_task_seconds", "dag_id", "task_id") == tasks


def test_a_password_is_sent_for_a_token_and_never_told(tmp_path, airflow, caplog):
    airflow.open = False
    assert exporter(tmp_path, airflow, airflow_username=USER, airflow_password=PASSWORD).look()
    assert not exporter(tmp_path, airflow, airflow_username="other", airflow_password=PASSWORD).look()
    assert "answered 401 to /auth/token; set monitoring.airflow_username" in caplog.text
    assert PASSWORD not in caplog.text


def test_without_an_address_nobody_is_asked_and_a_dead_one_is_counted(tmp_path, airflow, caplog):
    assert exporter(tmp_path, None).look()
    gone = FakeAirflow()
    gone._http.server_close()
    looking = exporter(tmp_path, gone)
    assert not looking.look()
    assert shown(looking).value("pipeline_exporter_errors_total", part="airflow") == 1
    assert "check monitoring.airflow_url" in caplog.text
