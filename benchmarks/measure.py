"""Runs a contestant in a process of its own and watches the time and memory of it and of its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv/bin/python"
REFERENCE_PYTHON = ROOT / ".venv-bench/bin/python"
_SAMPLE_SECONDS = 0.2
_TIMEOUT_SECONDS = 3_600


class BenchmarkError(RuntimeError):
    """A contestant failed or landed something else than it should."""


@dataclass(slots=True)
class Usage:
    """What one process tree used: peak resident bytes by kind of process, and seconds of CPU."""

    peaks: dict[int, int] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)
    is_jvm: dict[int, bool] = field(default_factory=dict)

    def look(self, root: psutil.Process) -> None:
        """Take a sample."""
        for process in (root, *root.children(recursive=True)):
            try:
                # The program, not the name: a JVM's thread gives its own to the child it is about to start.
                self.is_jvm[process.pid] = Path(process.exe()).name == "java"
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), _peak_resident(process))
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
            except psutil.Error:
                continue

    @property
    def python_peak(self) -> int:
        """Bytes: the peaks of all processes but JVMs, added up; never less than the true peak."""
        return sum(size for pid, size in self.peaks.items() if not self.is_jvm[pid])

    @property
    def jvm_peak(self) -> int:
        """Bytes: the peak of the largest JVM; a child it is about to start shares its memory and would count twice."""
        return max((size for pid, size in self.peaks.items() if self.is_jvm[pid]), default=0)

    @property
    def cpu_seconds(self) -> float:
        """Seconds of CPU, as last seen."""
        return sum(self.cpu.values())


@dataclass(frozen=True, slots=True)
class Run:
    """A finished contestant: the JSON it printed; whole wall time; what it used."""

    answer: dict[str, Any]
    wall_seconds: float
    usage: Usage


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None, *, answers: bool = True) -> Run:
    """Run a command in the project's folder until it ends.

    Args:
        command: the program and its arguments.
        env: set on top of the environment.
        answers: whether its output, or the last line of it, is a JSON object.

    Raises:
        BenchmarkError: it failed or took over an hour; holds the end of its output.
    """
    usage, ended = Usage(), threading.Event()
    began = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watcher = threading.Thread(target=_watch, args=(process.pid, usage, ended), daemon=True)
        watcher.start()
        try:
            output, errors = process.communicate(timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BenchmarkError(f"{_shown(command)} did not end within {_TIMEOUT_SECONDS} s") from None
        wall = time.perf_counter() - began
        ended.set()
        watcher.join()
    if process.returncode:
        raise BenchmarkError(f"{_shown(command)} ended with {process.returncode}:\n{output[-1000:]}{errors[-3000:]}")
    return Run(_answer(output) if answers else {}, wall, usage)


@contextmanager
def candle_server(days: int) -> Iterator[str]:
    """Serve a history of so many days in a process of its own and yield the address."""
    command = [PYTHON, "-m", "benchmarks.candle_server", "--days", str(days)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError("the candle server has no pipes")
        address = process.stdout.readline().strip()
        if not address:
            raise BenchmarkError("the candle server did not start")
        try:
            yield address
        finally:
            process.stdin.close()
            process.wait(10)


def say(text: str) -> None:
    """Tell the person who waits what goes on."""
    print(text, file=sys.stderr, flush=True)


def _answer(output: str) -> dict[str, Any]:
    text = output.strip()
    answer = json.loads(text if text.startswith("{") else text.splitlines()[-1])
    return dict(answer)


def _watch(pid: int, usage: Usage, ended: threading.Event) -> None:
    try:
        root = psutil.Process(pid)
        while not ended.wait(_SAMPLE_SECONDS):
            usage.look(root)
    except psutil.NoSuchProcess:
        return


def _peak_resident(process: psutil.Process) -> int:
    """Return the kernel's own high-water mark, which no sampling misses; the present size where there is none."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def _shown(command: Sequence[str | Path]) -> str:
    return " ".join(str(part) for part in command)
