"""The only place that builds a SparkSession: `get_spark()`, one per process."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipelines.config import Settings, load_settings
from pipelines.errors import LakehouseError
from pipelines.jars import JarsError, jar_paths, java_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MINIMUM_JAVA = 17
# For queries of a few rows, of which compiling them is most of the work: interpreted, they take half the CPU.
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
_JAVA_OPTIONS = "-XX:+UseParallelGC -XX:-UsePerfData"
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


# Used where they have been retrieved; a Kafka broker's own jars have no business in a Spark driver.
_OPTIONAL_JARS = ("kafka", "s3", "postgres")

_lock = threading.Lock()
_running: _Running | None = None


def get_spark(settings: Settings | None = None, needs: Sequence[str] = ()) -> SparkSession:
    """Return this process's SparkSession, starting it (5-7 s) on the first call; later settings change nothing.

    Args:
        settings: by default those of config/ and the environment.
        needs: optional jar sets that the caller cannot do without, as `s3`.

    Raises:
        SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
    """
    global _running  # noqa: PLW0603 - one JVM per process is what Spark allows
    with _lock:
        if _running is None or _running.session.sparkContext._jsc is None:  # noqa: SLF001 - how Spark itself tells
            _running = _start(settings or load_settings(), needs)
            atexit.register(stop_spark)
        missing = sorted(set(needs) - _running.jar_sets)
        if missing:
            raise SparkUnavailableError(
                f"this process started Spark without the {', '.join(missing)} jars; get them with "
                f"`python -m pipelines.jars --conf {' '.join(missing)}` and run it again"
            )
        return _running.session


def stop_spark() -> None:
    """Stop the session and its JVM and remove its temporary files; without a session it does nothing."""
    global _running
    with _lock:
        running, _running = _running, None
        if running is None:
            return
        atexit.unregister(stop_spark)
        from pyspark import SparkContext  # noqa: PLC0415 - already loaded by now

        running.session.stop()
        gateway = SparkContext._gateway  # noqa: SLF001 - Spark offers no public way to end its JVM
        if gateway is not None:
            gateway.shutdown()
            SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001
        _end(running.process)
        running.stderr.close()
        shutil.rmtree(running.scratch, ignore_errors=True)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Let the JVM end by itself, which it does when its standard input closes, or end it."""
    if process is None:
        return
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _start(settings: Settings, needs: Sequence[str]) -> _Running:
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415 - slow to import, and most commands need no Spark
    from pyspark.errors import PySparkRuntimeError  # noqa: PLC0415
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    jars, jar_sets = _jars(settings, needs)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    scratch = Path(tempfile.mkdtemp(prefix="lakehouse-spark-"))
    conf = SparkConf(loadDefaults=False)
    conf.setAll(list(_configuration(settings, jars, jar_sets, scratch).items()))
    stderr = (scratch / "jvm.log").open("w+b")
    # The JVM gets a process group of its own: a Ctrl-C in the terminal must not reach it in mid-write.
    popen: dict[str, object] = {"start_new_session": True}
    if "spark.log.level" not in settings.spark.extra_conf:
        popen |= {"stdout": stderr, "stderr": stderr}
    try:
        with _own_interrupt_handler():
            gateway = launch_gateway(conf, popen)  # type: ignore[no-untyped-call]
            context = SparkContext(conf=conf, gateway=gateway)
    except (PySparkRuntimeError, OSError) as error:
        message = _why_not(stderr)
        stderr.close()
        shutil.rmtree(scratch, ignore_errors=True)
        raise SparkUnavailableError(message) from error
    return _Running(SparkSession(context), scratch, stderr, gateway.proc, jar_sets)


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
    if not spark.master.startswith("local"):
        values["spark.jars"] = ",".join(map(str, jars))
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


def _why_not(stderr: IO[bytes]) -> str:
    """Explain a JVM that did not come up: too old, or its own last words."""
    version = java_version()
    if version is not None and version < MINIMUM_JAVA:
        return f"Spark needs Java {MINIMUM_JAVA} or later and found {version}; install one or point JAVA_HOME to it"
    stderr.flush()
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    problem = next(
        (line for line in lines if "rror" in line or "xception" in line), lines[-1] if lines else "no output"
    )
    return f"Spark's JVM did not start: {problem}; check spark.driver_memory, JAVA_HOME and `lakehouse doctor`"


def java_version() -> int | None:
    """Return the major version of the Java that Spark would use, or None if it does not say.

    Raises:
        JarsError: there is no Java.
    """
    # The command is what shutil.which found.
    done = subprocess.run([java_command(), "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else None
