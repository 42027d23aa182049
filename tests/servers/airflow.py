"""A real Airflow on loopback: scheduler, DAG processor, web server, and a home of its own that goes when it stops."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from pipelines.config import PROJECT_ROOT
from pipelines.streaming.ports import reserved_port

AIRFLOW = Path(sys.executable).parent / "airflow"
DAGS = PROJECT_ROOT / "airflow" / "dags"
DONE = {"success", "failed"}
_UP_WITHIN_SECONDS = 240.0
_TOLD = 4000
_TASKS_TOLD = 4
_TRIES = 5
_LOCAL_FOLDER = "airflow.dag_processing.bundles.local.LocalDagBundle"


class Airflow:
    """Use it as a context manager. It serves the project's DAGs, and those of further folders.

    Args:
        environment: on top of this process's, for all of Airflow and its tasks.
        folders: with further DAGs.
        database: an SQLAlchemy address; SQLite in its home by default.
    """

    def __init__(
        self, environment: Mapping[str, str] = {}, folders: Sequence[Path] = (), database: str | None = None
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="lakehouse-airflow-"))
        self.port = reserved_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, **self._settings(folders, database), **environment}
        self._files = [path for folder in (DAGS, *folders) for path in folder.glob("*.py")]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._groups: list[int] = []
        self._client = httpx.Client(base_url=self.url, timeout=30)

    def __enter__(self) -> Self:
        # Else a reader that takes its time keeps everybody from writing.
        with closing(sqlite3.connect(self.home / "airflow.db")) as made:
            made.execute("PRAGMA journal_mode=WAL")
        try:
            self.run("db", "migrate")
            for name in ("api-server", "scheduler", "dag-processor"):
                self.start(name)
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        for name in list(self._processes):
            self.kill(name)
        for group in self._groups:
            # Workers of a scheduler that was killed go on without it.
            for left in [*_group(group), *_sessions(self.home)]:
                left.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *arguments: str) -> str:
        """Run a command of Airflow's to its end, and return what it printed."""
        done = subprocess.run(
            [str(AIRFLOW), *arguments],
            env=self._environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"airflow {' '.join(arguments)}: {done.stdout[-_TOLD:]}{done.stderr[-_TOLD:]}"
        return done.stdout

    def start(self, name: str) -> None:
        """Start a component: scheduler, dag-processor or api-server."""
        # The scheduler would serve logs on all of this machine's addresses.
        served = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        more = {"scheduler": ["--skip-serve-logs"], "api-server": served}.get(name, [])
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(AIRFLOW), name, *more], env=self._environment, cwd=self.home,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._processes[name] = process
        self._groups.append(process.pid)

    def kill(self, name: str) -> None:
        """Kill a component's own process, as the system would; its children are left to themselves."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def trigger(self, dag_id: str, **conf: object) -> str:
        """Start a run by hand with these parameters; returns its id."""
        answer = self._call("POST", f"/dags/{dag_id}/dagRuns", {"conf": conf, "logical_date": None})
        return str(answer["dag_run_id"])

    def trigger_for(self, dag_id: str, logical_date: datetime, **conf: object) -> str:
        """Start a run for a logical date, as the schedule does."""
        asked = {"conf": conf, "logical_date": logical_date.isoformat()}
        return str(self._call("POST", f"/dags/{dag_id}/dagRuns", asked)["dag_run_id"])

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run; what its schedule makes up for at once, one run, is ended."""
        before = self.runs(dag_id)
        self._call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
        if self.get(f"/dags/{dag_id}")["timetable_summary"]:
            (made,) = self.until(lambda: self.runs(dag_id) - before, 30, f"no run of {dag_id}")
            self._call("PATCH", f"/dags/{dag_id}/dagRuns/{made}", {"state": "failed"})

    def runs(self, dag_id: str) -> set[str]:
        """Return the ids of a DAG's runs."""
        return {each["dag_run_id"] for each in self.get(f"/dags/{dag_id}/dagRuns")["dag_runs"]}

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer of the REST API, as of /dags."""
        return self._call("GET", path)

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run by their ids."""
        found = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each for each in found}

    def result(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what a task has returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value?deserialize=true"
        value = self.get(path)["value"]
        return dict(json.loads(value) if isinstance(value, str) else value)

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return the log of all tries of a task."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("**/*.log")))

    def wait_for(self, dag_id: str, run_id: str, seconds: float = 600) -> str:
        """Wait until a run is done; returns its state."""
        return self.until(lambda: state if (state := self.state(dag_id, run_id)) in DONE else "", seconds, run_id)

    def until(self, look: Any, seconds: float, what: str) -> Any:
        """Look again and again until there is something to see, and return it."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s\n{self.told()}"
            time.sleep(0.2)
        return found

    def told(self) -> str:
        """Return the last that the components have logged, and the tasks that logged last."""
        tasks = sorted(self.home.glob("logs/dag_id=*/**/*.log"), key=lambda log: log.stat().st_mtime)
        logs = [*self.home.glob("*.log"), *tasks[-_TASKS_TOLD:]]
        return "\n".join(f"{log}: {log.read_text(errors='replace')[-_TOLD:]}" for log in logs)

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        for _ in range(_TRIES):
            answer = self._client.request(method, f"/api/v2{path}", json=body, headers=self._token())
            # SQLite has one writer at a time; what failed so is rolled back.
            if "Database error" not in answer.text:
                break
            time.sleep(1)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:_TOLD]}"
        return dict(answer.json())

    def _token(self) -> dict[str, str]:
        if not hasattr(self, "_bearer"):
            self._bearer = self._client.get("/auth/token").raise_for_status().json()["access_token"]
        return {"Authorization": f"Bearer {self._bearer}"}

    def _wait(self) -> None:
        def up() -> bool:
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} has ended\n{self.told()}"
            try:
                known = {each["dag_id"] for each in self.get("/dags?limit=100")["dags"]}
            except httpx.HTTPError:
                return False
            # Each file has one DAG, and those of the project are called like their files.
            return {path.stem for path in DAGS.glob("*.py")} <= known and len(known) >= len(self._files)

        self.until(up, _UP_WITHIN_SECONDS, "Airflow did not come up")

    def _settings(self, folders: Sequence[Path], database: str | None) -> dict[str, str]:
        bundles = [
            {"name": f"folder-{number}", "classpath": _LOCAL_FOLDER, "kwargs": {"path": str(folder)}}
            for number, folder in enumerate([DAGS, *folders])
        ]
        sections = {
            "core": {
                "parallelism": 2, "load_examples": False, "dags_folder": DAGS, "simple_auth_manager_all_admins": True,
                "execution_api_server_url": f"{self.url}/execution/",
            },
            "database": {"sql_alchemy_conn": database or f"sqlite:///{self.home}/airflow.db?timeout=20"},
            "api": {"secret_key": secrets.token_hex(16)},
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            "dag_processor": {
                "dag_bundle_config_list": json.dumps(bundles), "refresh_interval": 5, "parsing_processes": 1,
                "min_file_process_interval": 600,
            },
            "scheduler": {
                "scheduler_heartbeat_sec": 1, "scheduler_idle_sleep_time": 0.2, "task_instance_heartbeat_sec": 1,
                "task_instance_heartbeat_timeout": 30, "task_instance_heartbeat_timeout_detection_interval": 2,
                "scheduler_health_check_threshold": 10, "orphaned_tasks_check_interval": 3,
            },
            "usage_data_collection": {"enabled": False},
        }  # fmt: skip
        found = {
            f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
            for section, values in sections.items()
            for name, value in values.items()
        }
        # What a test leaves in the checkout counts as a defect.
        return {**found, "AIRFLOW_HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}


def kill_task(pid: int) -> None:
    """Kill the process of a task, as the system does when memory runs out."""
    os.kill(pid, signal.SIGKILL)


def _group(leader: int) -> list[psutil.Process]:
    """Return what is left of a process group, and what its members have started."""
    found = list[psutil.Process]()
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader or os.getsid(process.pid) == leader:
                found.append(process)
        except ProcessLookupError:
            continue
    return [*found, *(child for each in found for child in _children(each))]


def _sessions(home: Path) -> list[psutil.Process]:
    """Return what holds a Spark session for the tasks of an Airflow: it outlives them for a while."""
    found = list[psutil.Process]()
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
