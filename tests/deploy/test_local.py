"""What `make local` starts runs here, with the repository's own configuration, and ends when it is told to."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest
import yaml

from pipelines.config import PROJECT_ROOT
from pipelines.streaming.ports import reserved_ports
from tests.cli.shell import environment

LOCAL = PROJECT_ROOT / "deploy" / "local.py"
HONCHO = Path(sys.executable).parent / "honcho"
SERVICES = dict(re.findall(r"^(\w+): (.+)$", (PROJECT_ROOT / "Procfile").read_text(encoding="utf-8"), re.MULTILINE))
QUICK = ["alertmanager", "exporter", "prometheus", "pushgateway"]
WEBHOOK = "https://hooks.slack.example/services/T0/B0/sesame"
_UP_WITHIN_SECONDS = 90

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("prometheus-alertmanager") is None,
    reason="not installed: prometheus prometheus-alertmanager prometheus-pushgateway",
)


def prepared(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, LOCAL, "prepare"],
        env={**os.environ, "LOCAL_FOLDER": str(folder / "local"), **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def asked(url: str) -> Any:
    with urlopen(url, timeout=5) as answer:
        return json.load(answer)


def until(found: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _UP_WITHIN_SECONDS
    while True:
        try:
            if found():
                return
        except URLError:
            pass
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-4000:]
        time.sleep(0.3)


@contextmanager
def started(folder: Path, names: list[str], variables: dict[str, str]) -> Iterator[Path]:
    """Run services of the Procfile as `make local` does; gives their log."""
    log = folder / "log"
    with log.open("w") as to:
        running = subprocess.Popen(
            [HONCHO, "start", *names], cwd=PROJECT_ROOT, env={**os.environ, **variables}, stdout=to, stderr=to
        )
    try:
        yield log
    finally:
        children = psutil.Process(running.pid).children(recursive=True)
        running.terminate()
        try:
            running.wait(timeout=30)
            _, alive = psutil.wait_procs(children, timeout=20)
        finally:
            for child in children:
                if child.is_running():
                    child.kill()
    assert not alive


def test_each_service_is_one_of_the_program() -> None:
    assert {name: f".venv/bin/python deploy/local.py {name}" for name in [*QUICK, "airflow"]} == SERVICES
    done = subprocess.run([sys.executable, LOCAL, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(name in done.stderr for name in SERVICES)


def test_prometheus_finds_everybody_and_all_of_it_ends(tmp_path: Path) -> None:
    if not (PROJECT_ROOT / ".venv").exists():
        pytest.skip("the Procfile is for the environment that make setup makes")
    ports = dict(zip(QUICK, map(str, reserved_ports(len(QUICK))), strict=True))
    variables = environment(tmp_path, LOCAL_FOLDER=str(tmp_path / "local"))
    variables |= {f"{name.upper()}_PORT": port for name, port in ports.items()}
    done = prepared(tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "local" / "prometheus.yml"
    path.write_text(path.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s"), encoding="utf-8")
    at = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}

    def targets() -> dict[str, str]:
        active = asked(f"{at['prometheus']}/api/v1/targets")["data"]["activeTargets"]
        return {each["labels"]["job"]: each["health"] for each in active}

    def alertmanagers() -> list[str]:
        return [
            each["url"] for each in asked(f"{at['prometheus']}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        ]

    with started(tmp_path, QUICK, variables) as log:
        until(lambda: set(targets().values()) == {"up"}, log)
        assert targets().keys() == {"exporter", "prometheus", "pushgateway"}
        until(lambda: alertmanagers() == [f"{at['alertmanager']}/api/v2/alerts"], log)
        until(lambda: asked(f"{at['alertmanager']}/api/v2/status")["cluster"]["status"] == "disabled", log)
        assert len(asked(f"{at['prometheus']}/api/v1/rules")["data"]["groups"]) > 3


def test_the_webhook_is_in_a_file_of_its_own_that_nobody_else_may_read(tmp_path: Path) -> None:
    done = prepared(tmp_path, LAKEHOUSE__MONITORING__SLACK_WEBHOOK=WEBHOOK)
    assert done.returncode == 0, done.stderr
    assert "sesame" not in done.stdout + done.stderr
    path = tmp_path / "local" / "slack_webhook"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (WEBHOOK, 0o600)
    found = read(tmp_path / "local" / "alertmanager.yml")
    assert found["global"]["slack_api_url_file"] == str(path)
    original = read(PROJECT_ROOT / "monitoring" / "alertmanager" / "alertmanager.yml")
    assert (found["route"], found["receivers"]) == (original["route"], original["receivers"])


def test_without_a_webhook_nobody_is_written_to(tmp_path: Path) -> None:
    assert prepared(tmp_path).returncode == 0
    assert all(each.keys() == {"name"} for each in read(tmp_path / "local" / "alertmanager.yml")["receivers"])


def test_the_password_of_airflow_is_made_once_and_only_said_where_it_is(tmp_path: Path) -> None:
    assert prepared(tmp_path).returncode == 0
    path = tmp_path / "airflow" / "simple_auth_manager_passwords.json.generated"
    first = json.loads(path.read_text())
    assert len(first["admin"]) >= 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = prepared(tmp_path)
    assert json.loads(path.read_text()) == first
    assert str(path) in again.stdout
    assert first["admin"] not in again.stdout


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    done = prepared(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install prometheus-alertmanager prometheus prometheus-pushgateway" in done.stderr
    assert list(tmp_path.iterdir()) == []
