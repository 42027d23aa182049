"""What a Spark cluster needs and one machine does not: a driver that can be reached, jars, Python, this package."""

from __future__ import annotations

import re
import socket
import zipfile
from contextlib import suppress
from pathlib import Path

from pipelines.config import CONFIG_DIR, PROJECT_ROOT, Settings

# The folder in an executor's working directory that the package is unpacked into, beside the config/ it reads.
_SHIPPED = "lakehouse"
_CONNECT_SECONDS = 5.0
# The address that nobody else can reach, and a folder that other machines lack.
_LOCAL_ONLY = {"spark.driver.bindAddress", "spark.driver.host", "spark.hadoop.fs.s3a.buffer.dir"}


def is_cluster(master: str | None) -> bool:
    """Say whether executors are processes of their own, maybe on other machines, and not threads of the driver."""
    return master is not None and not master.startswith("local")


def unreachable(master: str) -> str | None:
    """Say that no standalone master answers, where that is what to connect to: Spark itself would try for a minute."""
    hosts = re.findall(r"([^,/]+):(\d+)", master.removeprefix("spark://")) if master.startswith("spark://") else []
    for host, port in hosts:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
            return None
    return f"no Spark master answers at {master}; start it, or mend spark.master" if hosts else None


def cluster_configuration(settings: Settings, jars: list[Path], scratch: Path, local: dict[str, str]) -> dict[str, str]:
    """Return the configuration for a cluster, made from the one for this machine.

    Functions in Python are sent to the executors by name. So that they find the very code that the driver runs, it is
    packed into an archive, with the declarations it reads and without `config.local.yaml`.

    Args:
        settings: where the master is, and what an executor gets.
        jars: what the executors fetch from the driver.
        scratch: where to pack the archive; it has to stay as long as the session.
        local: the configuration of a session on this machine alone.
    """
    spark = settings.spark
    archive = scratch / f"{_SHIPPED}.zip"
    _pack(archive)
    values = {key: value for key, value in local.items() if key not in _LOCAL_ONLY} | {
        "spark.jars": ",".join(map(str, jars)),
        "spark.archives": ",".join([f"{archive}#{_SHIPPED}", *spark.archives]),
        "spark.executorEnv.PYTHONPATH": _SHIPPED,
        "spark.executor.memory": spark.executor_memory,
        "spark.executor.extraJavaOptions": spark.java_options,
    }
    if spark.driver_host is not None:
        values["spark.driver.host"] = spark.driver_host
    if spark.executor_cores is not None:
        values["spark.executor.cores"] = str(spark.executor_cores)
    return values


def _pack(archive: Path) -> None:
    """Put the package and its declarations into an archive, which Spark unpacks into a folder."""
    package = (path for path in (PROJECT_ROOT / "pipelines").rglob("*") if "__pycache__" not in path.parts)
    declared = (path for path in CONFIG_DIR.rglob("*") if path.name != "config.local.yaml")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted([*package, *declared]):
            if path.is_file():
                packed.write(path, path.relative_to(PROJECT_ROOT))
