"""One Spark session for tasks of several processes, and what becomes of it when one of them ends before its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from deltalake import DeltaTable

from pipelines import tasks
from pipelines.cli.lakes import NoLakeError
from pipelines.config import load_settings
from pipelines.errors import ConfigError
from pipelines.orchestration import shared_session
from pipelines.orchestration.common import StepFailedError
from pipelines.orchestration.shared_session import in_shared_session
from pipelines.session import INTERPRETED
from tests.cli.shell import environment

ONE = ["market_data_enriched"]
TASK = """
import logging
from pipelines.orchestration.shared_session import in_shared_session
logging.basicConfig(level="INFO")
in_shared_session("transform_silver", [], sample=True)
"""


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = environment(
        tmp_path,
        LAKEHOUSE__TRANSFORM__PATH=str(tmp_path / "transform"),
        LAKEHOUSE__STORAGE__ENGINE="embedded",
        LAKEHOUSE__SPARK__EXTRA_CONF=json.dumps(INTERPRETED),
        LAKEHOUSE__ORCHESTRATION__SESSION_IDLE_SECONDS="4",
    )
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def until(there: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def land(day: int) -> None:
    tasks.ingest(["BTCUSD"], f"2025-12-0{day}", f"2025-12-0{day + 1}", timeframes=["1h", "1d"], sample=True)


def hosts() -> list[psutil.Process]:
    """The processes that hold a session for this test."""
    mine = str(os.environ["LAKEHOUSE__TRANSFORM__PATH"])
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        # A zombie has no arguments.
        if "pipelines.orchestration.session_host" in (each.info["cmdline"] or [])
        and each.environ().get("LAKEHOUSE__TRANSFORM__PATH") == mine
    ]


def ended(process: psutil.Process) -> bool:
    # Those that this process has started remain until it asks for them.
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def spark_at_work() -> psutil.Process | None:
    """The process that holds the session, once it has a JVM."""
    return next((host for host in hosts() if any(each.name() == "java" for each in host.children())), None)


@pytest.mark.spark(alone=True)
def test_tasks_share_a_session_and_one_that_is_killed_takes_it_along(variables: dict[str, str]) -> None:
    land(1)
    first = in_shared_session("transform_silver", ONE, sample=True)
    land(2)
    second = in_shared_session("transform_silver", ONE, sample=True)
    assert (first["built"], second["built"]) == (1, 1)
    assert first["session_process"] == second["session_process"] not in {None, os.getpid()}
    assert first["jvm_seconds"] > 0
    assert second["jvm_seconds"] == 0
    assert second["import_seconds"] < first["import_seconds"] <= first["seconds"]
    # What a task has asked for ends with it, and so does the JVM.
    land(3)
    (host,) = hosts()
    java = next(each for each in host.children() if each.name() == "java")
    with subprocess.Popen([sys.executable, "-c", TASK], stderr=subprocess.PIPE, text=True) as task:
        assert task.stderr is not None
        assert f"in the session of process {host.pid}" in next(line for line in task.stderr if "session" in line)
        time.sleep(1)
        task.kill()
    until(lambda: ended(host) and ended(java), "what nobody waits for any more has not ended")


@pytest.mark.spark(alone=True)
@pytest.mark.soak
def test_a_task_whose_session_is_killed_fails_and_the_next_one_gets_another(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    land(1)
    failed = list[Exception]()

    def fails() -> None:
        try:
            in_shared_session("transform_silver", [], sample=True)
        except StepFailedError as error:
            failed.append(error)

    waiting = threading.Thread(target=fails)
    waiting.start()
    until(spark_at_work, "no session was started").kill()
    waiting.join(60)
    assert "ended without a word" in str(failed[0])
    assert in_shared_session("transform_silver", ONE, sample=True)["built"] <= 1
    made = DeltaTable(tmp_path / "sample" / "silver" / "market_data_enriched").to_pandas()
    assert made.groupby("timeframe").size().to_dict() == {"1h": 24, "1d": 1}
    until(lambda: all(map(ended, hosts())), "one that nobody asks has not ended")


def test_an_error_is_told_as_it_is_and_the_process_ends_by_itself(variables: dict[str, str]) -> None:
    with pytest.raises(StepFailedError, match=r"no lake yet at .*lakehouse backfill"):
        in_shared_session("transform_silver", ONE, sample=True)
    land(1)
    with pytest.raises(StepFailedError, match="no table of silver or gold is mart_of_nothing") as error:
        in_shared_session("check_transform", ["mart_of_nothing"], sample=True)
    assert not error.value.retryable
    (host,) = hosts()
    until(lambda: ended(host), "one that nobody asks has not ended")
    assert not list(shared_session._folder().glob(f"{shared_session._digest(load_settings())}.sock"))


def test_with_no_time_to_be_idle_it_is_done_here(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE__ORCHESTRATION__SESSION_IDLE_SECONDS", "0")
    with pytest.raises(NoLakeError):
        in_shared_session("transform_silver", ONE, sample=True)
    land(1)
    with pytest.raises(ConfigError):
        in_shared_session("check_transform", ["mart_of_nothing"], sample=True)
    assert not hosts()


def test_one_that_cannot_start_says_why(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StepFailedError, match="did not start"):
        in_shared_session("transform_silver", ONE, sample=True)


def test_other_settings_and_other_keys_are_another_session(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {shared_session._digest(load_settings())}
    for name, value in (("LAKEHOUSE__SPARK__DRIVER_MEMORY", "3g"), ("AWS_SECRET_ACCESS_KEY", "made-up")):
        monkeypatch.setenv(name, value)
        found.add(shared_session._digest(load_settings()))
    assert len(found) == 3


def test_a_folder_that_others_could_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_session.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = shared_session._folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    with pytest.raises(StepFailedError, match="not this user's alone") as error:
        shared_session._folder()
    assert not error.value.retryable
