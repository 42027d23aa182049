"""What the Procfile starts, with the repository's own configuration led to this machine: `python deploy/local.py NAME`.

Ports are variables: AIRFLOW_PORT, ALERTMANAGER_PORT, EXPORTER_PORT, PROMETHEUS_PORT, PUSHGATEWAY_PORT. What they leave
is in data/local, or where LOCAL_FOLDER says; Airflow's home is beside it, the one of `make airflow`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import yaml

_ROOT = Path(__file__).resolve().parent.parent
_PORTS = {"airflow": 8080, "alertmanager": 9093, "exporter": 9401, "prometheus": 9090, "pushgateway": 9091}
# Debian's names, and those of the projects' own archives.
_PROGRAMS = {
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "prometheus": ("prometheus",),
    "pushgateway": ("prometheus-pushgateway", "pushgateway"),
}
# The one that Airflow's simple login has by default.
_USER = "admin"


class Local:
    """The services of one machine, and the folder that they leave their data in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._folder = Path(environ.get("LOCAL_FOLDER") or _ROOT / "data" / "local").absolute()
        self._home = self._folder.parent / "airflow"
        self._ports = {name: int(environ.get(f"{name.upper()}_PORT") or port) for name, port in _PORTS.items()}

    def prepare(self) -> int:
        """Make what they read, and say where to look; returns 0, or 1 if a program is missing."""
        if missing := [names[0] for names in _PROGRAMS.values() if _found(names) is None]:
            sys.stderr.write(f"not installed: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})\n")
            return 1
        self._folder.mkdir(parents=True, exist_ok=True)
        self.database()
        if not self._logins.exists():
            self._write(self._logins, json.dumps({_USER: secrets.token_urlsafe(16)}))
        self._write(self._folder / "slack_webhook", self._webhook)
        self._write(self._folder / "alertmanager.yml", self._alertmanager_configuration())
        self._write(self._folder / "prometheus.yml", self._prometheus_configuration())
        shutil.copy(_ROOT / "monitoring" / "prometheus" / "rules.yml", self._folder)
        for name, port in sorted(self._ports.items()):
            sys.stdout.write(f"{name:<13} http://localhost:{port}\n")
        sys.stdout.write(f"Airflow's user is {_USER}; the password is in {self._logins}\n")
        return 0

    def database(self) -> int:
        """Make Airflow's home, and its SQLite one where readers and a writer do not wait for each other; returns 0."""
        self._home.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._home / "airflow.db")) as database:
            database.execute("PRAGMA journal_mode=WAL")
        return 0

    def prometheus(self) -> list[str]:
        """Return the command of Prometheus."""
        data, port = self._folder / "prometheus", self._ports["prometheus"]
        given = [f"--config.file={self._folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
        return [_program("prometheus"), *given, f"--web.listen-address=127.0.0.1:{port}"]

    def pushgateway(self) -> list[str]:
        """Return the command of the Pushgateway."""
        kept, port = self._folder / "pushgateway", self._ports["pushgateway"]
        return [_program("pushgateway"), f"--persistence.file={kept}", f"--web.listen-address=127.0.0.1:{port}"]

    def alertmanager(self) -> list[str]:
        """Return the command of Alertmanager, on its own: it talks to no other."""
        data, port = self._folder / "alertmanager", self._ports["alertmanager"]
        given = [f"--config.file={self._folder / 'alertmanager.yml'}", f"--storage.path={data}"]
        return [_program("alertmanager"), *given, f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]

    def exporter(self) -> list[str]:
        """Return the command of the exporter, for the sample lake."""
        return ["lakehouse", "exporter", "--sample", "--host", "127.0.0.1", "--port", str(self._ports["exporter"])]

    def airflow(self) -> list[str]:
        """Return the command of all of Airflow."""
        return ["airflow", "standalone"]

    def variables(self) -> dict[str, str]:
        """Return the environment of each of them."""
        address = f"http://127.0.0.1:{self._ports['airflow']}"
        return {
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__API__BASE_URL": address,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._ports["airflow"]),
            "AIRFLOW__CORE__DAGS_FOLDER": str(_ROOT / "airflow" / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "LAKEHOUSE__MONITORING__AIRFLOW_PASSWORD": json.loads(self._logins.read_text(encoding="utf-8"))[_USER],
            "LAKEHOUSE__MONITORING__AIRFLOW_URL": address,
            "LAKEHOUSE__MONITORING__AIRFLOW_USERNAME": _USER,
            "LAKEHOUSE__MONITORING__PUSHGATEWAY": f"127.0.0.1:{self._ports['pushgateway']}",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), self._environ.get("PATH", os.defpath)]),
        }

    @property
    def _logins(self) -> Path:
        return self._home / "simple_auth_manager_passwords.json.generated"

    @property
    def _webhook(self) -> str:
        return self._environ.get("LAKEHOUSE__MONITORING__SLACK_WEBHOOK", "")

    def _prometheus_configuration(self) -> str:
        """Return prometheus.yml with the services' names led here, and without those that do not run here."""
        text = (_ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
        names = "|".join(self._ports)
        found = yaml.safe_load(re.sub(rf"\b({names}):\d+", lambda at: f"127.0.0.1:{self._ports[at[1]]}", text))
        found["scrape_configs"] = [each for each in found["scrape_configs"] if each["job_name"] in self._ports]
        for each in found["scrape_configs"]:
            if each["job_name"] == "prometheus":
                each["static_configs"] = [{"targets": [f"127.0.0.1:{self._ports['prometheus']}"]}]
        return yaml.safe_dump(found, sort_keys=False)

    def _alertmanager_configuration(self) -> str:
        """Return alertmanager.yml with the webhook's file here; without a webhook alerts are only shown."""
        text = (_ROOT / "monitoring" / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
        found: dict[str, Any] = yaml.safe_load(text)
        found["global"]["slack_api_url_file"] = str(self._folder / "slack_webhook")
        if not self._webhook:
            found["receivers"] = [{"name": each["name"]} for each in found["receivers"]]
        return yaml.safe_dump(found, sort_keys=False)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Write a file that nobody else may read."""
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def _found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def _program(name: str) -> str:
    return _found(_PROGRAMS[name]) or _PROGRAMS[name][0]


def become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Run a command in the place of this process, so that signals reach it."""
    os.execvpe(command[0], command, environment)  # noqa: S606 - our own command, and no shell is wanted


def main(name: str) -> int:
    """Prepare all, or Airflow's database, or become the service of a name, from which it does not return."""
    local = Local(os.environ)
    if name in {"prepare", "database"}:
        return local.prepare() if name == "prepare" else local.database()
    commands: dict[str, Callable[[], list[str]]] = {service: getattr(local, service) for service in _PORTS}
    if name not in commands:
        sys.stderr.write(f"no service {name}; one of {', '.join(commands)}, prepare or database\n")
        return 2
    become(commands[name](), {**os.environ, **local.variables()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
