"""Runs `lakehouse` as a user would: in a process of its own, or inside the test where no process is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from pipelines.cli import main

LAKEHOUSE = [sys.executable, "-m", "pipelines.cli"]
ROOT = Path(__file__).resolve().parents[2]
SAMPLE_WEEK = ["backfill", "--provider", "sample", "--assets", "BTCUSD,ETHUSD", "--days", "7"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return variables that put lakes and dead letters into a folder."""
    return {
        "LAKEHOUSE__DELTA_LAKE__STORAGE_PATH": str(folder / "real"),
        "LAKEHOUSE__DELTA_LAKE__SAMPLE_STORAGE_PATH": str(folder / "sample"),
        "LAKEHOUSE__DLQ__PATH": str(folder / "dlq"),
        "LAKEHOUSE__QUALITY__PATH": str(folder / "quality"),
        **more,
    }


def run(folder: Path, *arguments: str, **more: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, list(arguments), env=environment(folder, **more), prog_name="lakehouse")


def spawn(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [*LAKEHOUSE, *arguments],
        env={**os.environ, **environment(folder, **more)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def shell(folder: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Run a command in a process of its own; returns exit code, stdout and stderr."""
    with spawn(folder, *arguments, **more) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err
