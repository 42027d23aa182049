"""A real standalone Spark cluster on loopback: one master and some workers, each a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

import pyspark

from pipelines.streaming.ports import reserved_ports

_HOME = Path(pyspark.__file__).parent
_UP_WITHIN_SECONDS = 60
_DEPLOY = "org.apache.spark.deploy"


class SparkCluster:
    """A master and workers of one core each, with a folder of their own that goes when they stop."""

    def __init__(self, workers: int = 2, worker_memory: str = "640m") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lakehouse-cluster-"))
        self._memory = worker_memory
        self._port, self._page, *self._worker_pages = reserved_ports(2 + workers)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def master(self) -> str:
        """The address for `spark.master`."""
        return f"spark://127.0.0.1:{self._port}"

    def python(self) -> Path:
        """Make a Python for the executors that has the packages of this environment and not the project itself.

        Folders of PYTHONPATH are searched, but the links in them that an editable install leaves are not followed.
        """
        base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        path = self.folder / "python"
        packages = sysconfig.get_path("purelib")
        path.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}" exec {base} "$@"\n', encoding="utf-8")
        path.chmod(0o755)
        return path

    def state(self) -> dict[str, Any]:
        """Return what the master's page tells as JSON: workers, running and completed applications."""
        return _json(self._page)

    def finished_tasks(self, application: str) -> list[int]:
        """Return how many tasks of an application each worker has finished, by the logs of its executors."""
        return [
            sum(
                log.read_text(encoding="utf-8", errors="replace").count("Finished task ")
                for log in (self.folder / f"worker{number}" / application).glob("*/stderr")
            )
            for number in range(len(self._worker_pages))
        ]

    def __enter__(self) -> Self:
        try:
            self._run("master", "master.Master", "--port", self._port, "--webui-port", self._page)
            for number, page in enumerate(self._worker_pages):
                work = ["--work-dir", self.folder / f"worker{number}", "--webui-port", page]
                self._run(
                    f"worker{number}", "worker.Worker", "--cores", 1, "--memory", self._memory, *work, self.master
                )
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Workers first, asked to end: they take their executors with them.
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, kind: str, *arguments: object) -> None:
        command = [str(_HOME / "bin" / "spark-class"), f"{_DEPLOY}.{kind}", "--host", "127.0.0.1", *map(str, arguments)]
        environment = {
            **os.environ,
            "SPARK_HOME": str(_HOME),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "192m",
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment))

    def _wait(self) -> None:
        """Wait until every worker has made itself known to the master."""
        deadline = time.monotonic() + _UP_WITHIN_SECONDS
        while True:
            try:
                if len([each for each in self.state()["workers"] if each["state"] == "ALIVE"]) == len(
                    self._worker_pages
                ):
                    return
            except (URLError, OSError):
                pass
            if time.monotonic() > deadline or any(each.poll() is not None for each in self._processes):
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))
                raise RuntimeError(f"no Spark cluster on {self.master}: {logs}")
            time.sleep(0.2)


def _json(port: int) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/json/", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
