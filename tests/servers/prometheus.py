"""Prometheus, its Pushgateway and its Alertmanager, from Debian's packages, each as one process on loopback."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from typing_extensions import override

from tests.servers.process import OneProcess
from tests.servers.s3 import free_ports


def program(name: str) -> str:
    """Return the path of a program; a test that needs one that is not there is skipped."""
    found = shutil.which(name)
    if found is None:
        package = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}.get(name, name)
        pytest.skip(f"no {name}: install Debian's package {package}")
    return found


class Server(OneProcess):
    """One of the three; use it as a context manager."""

    up_within_seconds = 30.0
    not_up = (httpx.HTTPError,)

    def __init__(self, name: str, *options: str) -> None:
        self._program = program(name)
        super().__init__(name)
        (self.port,) = free_ports(1)
        self._options = options

    @property
    def address(self) -> str:
        """As host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As an address."""
        return f"http://{self.address}"

    def get(self, path: str, **parameters: str) -> Any:
        """Return what is under `data` of an answer of its API."""
        answer = httpx.get(f"{self.url}{path}", params=parameters, timeout=10, trust_env=False)
        answer.raise_for_status()
        return answer.json()["data"]

    @override
    def command(self) -> list[str]:
        return [self._program, f"--web.listen-address={self.address}", *self._options]

    @override
    def look(self) -> None:
        httpx.get(f"{self.url}/-/ready", timeout=2, trust_env=False).raise_for_status()


class Pushgateway(Server):
    """A Pushgateway that forgets all when it ends."""

    def __init__(self) -> None:
        super().__init__("prometheus-pushgateway", "--persistence.file=")

    def metrics(self) -> str:
        """Return what a scrape of it shows."""
        return httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text


class Alertmanager(Server):
    """An Alertmanager with a configuration file, on its own."""

    def __init__(self, config: Path) -> None:
        super().__init__("prometheus-alertmanager", f"--config.file={config}", "--cluster.listen-address=")
        self._options += (f"--storage.path={self.folder}",)


class Prometheus(Server):
    """A Prometheus with a configuration file and a database of its own."""

    def __init__(self, config: Path) -> None:
        super().__init__("prometheus", f"--config.file={config}")
        self._options += (f"--storage.tsdb.path={self.folder / 'data'}", "--web.enable-lifecycle")

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values of an instant query's result."""
        found = self.get("/api/v1/query", query=expression)
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]
