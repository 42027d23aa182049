"""The JVM under a session: which Java it is, how it is ended, and why it ended or did not start."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import IO

from pipelines.cluster import is_cluster
from pipelines.jars import java_command

MINIMUM_JAVA = 17
# A JVM that has run out of memory somewhere may go on with half of its threads: it ends, and says so by its exit code.
ON_OUT_OF_MEMORY = "-XX:+ExitOnOutOfMemoryError"
# By that option, and by Spark itself.
_OUT_OF_MEMORY_CODES = {3, 52}


def java_version() -> int | None:
    """Return the major version of the Java that Spark would use, or None if it does not say.

    Raises:
        JarsError: there is no Java.
    """
    # The command is what shutil.which found.
    done = subprocess.run([java_command(), "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else None


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Let a JVM end by itself, which it does when its standard input closes, or end it."""
    if process is None:
        return
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def why_it_did_not_start(log: IO[bytes], master: str) -> str:
    """Explain a JVM that did not come up, or got no cluster: too old, or its own last words."""
    version = java_version()
    if version is not None and version < MINIMUM_JAVA:
        return f"Spark needs Java {MINIMUM_JAVA} or later and found {version}; install one or point JAVA_HOME to it"
    problem = _problem(log)
    if is_cluster(master):
        return f"no session on {master}: {problem}; check spark.master, spark.driver_host and spark.executor_memory"
    return f"Spark's JVM did not start: {problem}; check spark.driver_memory, JAVA_HOME and `lakehouse doctor`"


def why_it_ended(code: int, log: IO[bytes], memory: str) -> str:
    """Explain a JVM that ended by itself, or was killed.

    Args:
        code: how its process ended, as `subprocess` has it.
        log: what it has printed.
        memory: the heap it was given, `spark.driver_memory`.
    """
    if code in _OUT_OF_MEMORY_CODES:
        return f"Spark ran out of memory with spark.driver_memory at {memory}; raise it"
    if code == -signal.SIGKILL:
        return (
            "Spark's JVM was killed, as the system does when the machine's memory runs out; end other programs, or "
            f"lower spark.driver_memory, {memory} now"
        )
    return f"Spark's JVM ended, with exit code {code}: {_problem(log)}"


def _problem(log: IO[bytes]) -> str:
    log.flush()
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "rror" in line or "xception" in line), lines[-1] if lines else "no output")
