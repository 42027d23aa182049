"""The only place that builds a SparkSession: `get_spark()`, one per process."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipelines.cluster import cluster_configuration, is_cluster, unreachable
from pipelines.config import Settings, load_settings
from pipelines.errors import LakehouseError
from pipelines.jars import JarsError, jar_paths, java_command
from pipelines.jvm import ON_OUT_OF_MEMORY, end, why_it_did_not_start, why_it_ended

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark.sql import SparkSession

# For queries of a few rows, of which compiling them is most of the work: interpreted, they take half the CPU.
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
_JAVA_OPTIONS = f"-XX:+UseParallelGC -XX:-UsePerfData {ON_OUT_OF_MEMORY}"
_LOG_CONFIG = """\
rootLogger.level = {level}
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{{HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""


class SparkUnavailableError(LakehouseError):
    """Spark cannot start; the message names the fix."""


@dataclass(slots=True)
class _Running:
    session: SparkSession
    scratch: Path
    stderr: IO[bytes]
    process: subprocess.Popen[bytes] | None
    jar_sets: frozenset[str]
    start_seconds: float
    memory: str

    @property
    def ended(self) -> bool:
        """Whether the session is stopped, or its JVM is gone."""
        stopped = self.session.sparkContext._jsc is None  # noqa: SLF001 - how Spark itself tells
        return stopped or (self.process is not None and self.process.poll() is not None)


# Used where they have been retrieved; a Kafka broker's own jars have no business in a Spark driver.
_OPTIONAL_JARS = ("kafka", "s3", "postgres")

_lock = threading.Lock()
_running: _Running | None = None


def get_spark(settings: Settings | None = None, needs: Sequence[str] = ()) -> SparkSession:
    """Return this process's SparkSession, starting it (5-7 s) on the first call; later settings change nothing.

    One whose JVM has ended is replaced by a new one.

    Args:
        settings: by default those of config/ and the environment.
        needs: optional jar sets that the caller cannot do without, as `s3`.

    Raises:
        SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
    """
    global _running  # noqa: PLW0603 - one JVM per process is what Spark allows
    with _lock:
        if _running is None or _running.ended:
            gone, _running = _running, None
            if gone is not None:
                _stop(gone)
            _running = _start(settings or load_settings(), needs)
            atexit.register(stop_spark)
        missing = sorted(set(needs) - _running.jar_sets)
        if missing:
            raise SparkUnavailableError(
                f"this process started Spark without the {', '.join(missing)} jars; get them with "
                f"`python -m pipelines.jars --conf {' '.join(missing)}` and run it again"
            )
        return _running.session


def start_seconds() -> float:
    """Return how long this process's session took to start, JVM and imports included; 0 without one."""
    with _lock:
        return _running.start_seconds if _running else 0.0


def jvm_fault(within: float = 0.0) -> str:
    """Say why the JVM of this process's session has ended; nothing if it runs, or if there is none.

    Args:
        within: seconds to wait for its end, which is noticed sooner by who talks to it than by the system.
    """
    # Without the lock: a start may be under way elsewhere, and waits for nothing that is asked here.
    running = _running
    if running is None or running.process is None:
        return ""
    try:
        code = running.process.wait(within)
    except subprocess.TimeoutExpired:
        return ""
    return why_it_ended(code, running.stderr, running.memory)


def stop_spark() -> None:
    """Stop the session and its JVM and remove its temporary files; without a session it does nothing."""
    global _running
    with _lock:
        running, _running = _running, None
        if running is not None:
            atexit.unregister(stop_spark)
            _stop(running)


def _stop(running: _Running) -> None:
    from py4j.protocol import Py4JError  # noqa: PLC0415 - already loaded by now
    from pyspark import SparkContext  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    # A JVM that is gone cannot be told.
    with suppress(Py4JError, OSError):
        if not running.ended:
            running.session.stop()
    SparkSession._instantiatedSession = SparkSession._activeSession = None  # noqa: SLF001 - what is known of it here
    gateway = SparkContext._gateway  # noqa: SLF001 - Spark offers no public way to end its JVM
    if gateway is not None:
        _end_gateway(gateway)
    end(running.process)
    running.stderr.close()
    shutil.rmtree(running.scratch, ignore_errors=True)


def _end_gateway(gateway: JavaGateway) -> None:
    from pyspark import SparkContext  # noqa: PLC0415 - already loaded by now

    gateway.shutdown()
    # Else the next session would be asked of the JVM that is gone, or refused because of a context that never worked.
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None  # noqa: SLF001


def _start(settings: Settings, needs: Sequence[str]) -> _Running:
    began = time.monotonic()
    from py4j.protocol import Py4JError  # noqa: PLC0415 - comes with Spark
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415 - slow to import, and most commands need no Spark
    from pyspark.errors import PySparkRuntimeError  # noqa: PLC0415
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    jars, jar_sets = _jars(settings, needs)
    if problem := unreachable(settings.spark.master):
        raise SparkUnavailableError(problem)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    scratch = Path(tempfile.mkdtemp(prefix="lakehouse-spark-"))
    conf = SparkConf(loadDefaults=False)
    conf.setAll(list(_configuration(settings, jars, jar_sets, scratch).items()))
    stderr = (scratch / "jvm.log").open("w+b")
    # The JVM gets a process group of its own: a Ctrl-C in the terminal must not reach it in mid-write.
    popen: dict[str, object] = {"start_new_session": True}
    if "spark.log.level" not in settings.spark.extra_conf:
        popen |= {"stdout": stderr, "stderr": stderr}
    gateway: JavaGateway | None = None
    try:
        with _own_interrupt_handler():
            gateway = launch_gateway(conf, popen)  # type: ignore[no-untyped-call]
            context = SparkContext(conf=conf, gateway=gateway)
        context.pythonExec = settings.spark.executor_python or context.pythonExec
        session = SparkSession(context)
    except (PySparkRuntimeError, Py4JError, OSError) as error:
        if gateway is not None:
            _end_gateway(gateway)
            end(gateway.proc)
        message = why_it_did_not_start(stderr, settings.spark.master)
        stderr.close()
        shutil.rmtree(scratch, ignore_errors=True)
        raise SparkUnavailableError(message) from error
    seconds = time.monotonic() - began
    return _Running(session, scratch, stderr, gateway.proc, jar_sets, seconds, settings.spark.driver_memory)


def _jars(settings: Settings, needs: Sequence[str]) -> tuple[list[Path], frozenset[str]]:
    """Return the jars, and the sets that they are from."""
    directory = Path(settings.resolve(settings.spark.jars_dir))
    try:
        java_command()
        jars = {jar.name: jar for jar in jar_paths(["delta", *needs], directory)}
    except JarsError as error:
        raise SparkUnavailableError(f"{error}. Writing needs neither with --engine embedded") from None
    sets = {"delta"}
    for conf in _OPTIONAL_JARS:
        with suppress(JarsError):
            jars = {jar.name: jar for jar in jar_paths([conf], directory)} | jars
            sets.add(conf)
    return list(jars.values()), frozenset(sets)


def _configuration(settings: Settings, jars: list[Path], jar_sets: frozenset[str], scratch: Path) -> dict[str, str]:
    spark = settings.spark
    log_config = scratch / "log4j2.properties"
    level = spark.extra_conf.get("spark.log.level", "WARN")
    log_config.write_text(_LOG_CONFIG.format(level=level), encoding="utf-8")
    java_options = f"-Dlog4j2.configurationFile={log_config.as_uri()} {_JAVA_OPTIONS} {spark.java_options}"
    values = {
        "spark.app.name": "lakehouse",
        "spark.master": spark.master,
        # On the class path, not in spark.jars: a local driver would copy each of those at every start.
        "spark.driver.extraClassPath": os.pathsep.join(map(str, jars)),
        "spark.driver.memory": spark.driver_memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": java_options.strip(),
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.artifact.isolation.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(spark.shuffle_partitions),
        "spark.sql.parquet.compression.codec": settings.delta_lake.compression,
        # Spark's own default is INT96, which has no statistics and no time zone.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.databricks.delta.snapshotPartitions": "2",
        # Set small, it makes VACUUM list ten times faster on one machine.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
        # Half of a write's time went into Hadoop's file system forking chmod. Commits do not go through this class.
        "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if "s3" in jar_sets:
        from pipelines.storage.stores.s3 import spark_configuration  # noqa: PLC0415 - storage is slow to import

        values |= spark_configuration(str(scratch / "s3a"))
    if is_cluster(spark.master):
        values = cluster_configuration(settings, jars, scratch, values)
    return values | spark.extra_conf


@contextmanager
def _own_interrupt_handler() -> Iterator[None]:
    """Keep our Ctrl-C handler: Spark installs one that cancels the jobs in hand, in mid-write."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
