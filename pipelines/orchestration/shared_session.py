"""Steps of a run that share one Spark session, though each task of Airflow's is a process of its own."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedRWPair
from pathlib import Path

from pipelines.config import PROJECT_ROOT, Settings, load_settings
from pipelines.lock_file import held
from pipelines.orchestration.common import Result, StepFailedError

_log = logging.getLogger(__name__)
# What a session, or what is done in it, depends on beside the settings.
_VARIABLES = ("AWS_", "JAVA", "LAKEHOUSE", "PATH", "PYTHON", "PYSPARK", "SPARK")
_CODE = ("pipelines/**/*.py", "dbt/**/*.sql", "dbt/**/*.yml", "config/**/*.*")
_PAUSE_SECONDS = 0.05
_TOLD = 2000
_TRIES = 5


def in_shared_session(step: str, models: Sequence[str], *, sample: bool) -> Result:
    """Do a step in the process that holds the session, which is started if there is none.

    With `orchestration.session_idle_seconds` at 0 it is done here.

    Args:
        step: a function of `pipelines.tasks` by name: transform_silver, transform_marts or check_transform.
        models: of silver and gold, as the step takes them.
        sample: the lake of synthetic data.

    Returns:
        What the step returns; what of its time was not the step's own work counts as loading code.

    Raises:
        StepFailedError: the step failed, or the process ended; says what to look at.
    """
    began, settings = time.monotonic(), load_settings()
    if not settings.orchestration.session_idle_seconds:
        from pipelines import tasks  # noqa: PLC0415 - slow to import, and done elsewhere otherwise

        return getattr(tasks, step)(models, sample=sample)  # type: ignore[no-any-return]
    log = Path(settings.resolve(settings.transform.path)) / "logs" / "session.log"
    with _greeted(settings, log) as (stream, process):
        _log.info("%s in the session of process %s; its log: %s", step, process, log)
        with suppress(ConnectionError):
            stream.write(json.dumps({"step": step, "models": list(models), "sample": sample}).encode() + b"\n")
            stream.flush()
        answer = _line(stream)
    if not answer:
        raise StepFailedError(
            f"process {process}, which held Spark's session, ended without a word, as one does that the system killed "
            f"for want of memory; its log: {log}"
        )
    found = json.loads(answer)
    if "error" in found:
        raise StepFailedError(found["error"], retryable=found["retryable"])
    result: Result = found["result"]
    seconds = time.monotonic() - began
    waited = seconds - result["seconds"]
    return result | {
        "seconds": round(seconds, 3),
        "import_seconds": round(result["import_seconds"] + waited, 3),
        "session_process": process,
    }


@contextmanager
def _greeted(settings: Settings, log: Path) -> Iterator[tuple[BufferedRWPair, int]]:
    """Connect to the process, started if need be: yields the stream and the process's id."""
    address = _folder() / f"{_digest(settings)}.sock"
    for _ in range(_TRIES):
        with _connect(settings, address, log) as connection, connection.makefile("rwb") as stream:
            # One that ends just now does not greet; one that is busy does so when it is done.
            if greeting := _line(stream):
                yield stream, json.loads(greeting)["process"]
                return
    raise StepFailedError(f"the process for Spark's session ends as soon as it is asked; its log: {log}")


def _line(stream: BufferedRWPair) -> bytes:
    """Return the next line; nothing if the other end is gone."""
    with suppress(ConnectionError):
        return stream.readline()
    return b""


def _connect(settings: Settings, address: Path, log: Path) -> socket.socket:
    # Of two who find nobody there one starts it.
    with held(address.with_name(".lock")):
        try:
            return _connection(address)
        except OSError:
            address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pipelines.orchestration.session_host", str(address)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as said:
            # Not of the task's group, with which it would end. Our own command.
            process = subprocess.Popen(  # noqa: S603
                [*command, str(settings.orchestration.session_idle_seconds)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=PROJECT_ROOT, start_new_session=True,
            )  # fmt: skip
        while True:
            with suppress(OSError):
                return _connection(address)
            if process.poll() is not None:
                why = log.read_text(errors="replace")[-_TOLD:]
                raise StepFailedError(f"the process for Spark's session did not start: {why}")
            time.sleep(_PAUSE_SECONDS)


def _connection(address: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(str(address))
    except OSError:
        made.close()
        raise
    return made


def _folder() -> Path:
    """Return the folder of sockets, whose paths have to be short: of this user, and closed to others."""
    folder = Path(tempfile.gettempdir()) / f"lakehouse-sessions-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise StepFailedError(f"{folder} is not this user's alone: remove it", retryable=False)
    return folder


def _digest(settings: Settings) -> str:
    """Return what differs as soon as a session, or what is done in it, would."""
    code = max(path.stat().st_mtime_ns for pattern in _CODE for path in PROJECT_ROOT.glob(pattern))
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    told = json.dumps([str(PROJECT_ROOT), code, settings.model_dump(mode="json"), variables])
    return hashlib.sha256(told.encode()).hexdigest()[:24]
