"""The runbook is right: a fault is made on a real lake, its commands are run as printed, and all is well again."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable

from pipelines.config import PROJECT_ROOT
from pipelines.timeframes import Timeframe
from tests.batch.exchange import BAR, Exchange, stored, truth
from tests.cli.shell import run, spawn

sys.path.insert(0, str(Path(__file__).parent / "storage"))
from damage import commit_file, cut, cut_between_lines, data_file, folder, lose_table, newest

PAGE = (PROJECT_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
START, END = "2025-12-07", "2025-12-10"
H1, H4 = "raw_market_data_1h", "raw_market_data_4h"
BACKFILL = ["backfill", "--assets", "BTCUSD,ETHUSD", "--start", START, "--end", END, "--timeframes", "1h,4h"]

Fault = Callable[["Lake"], None]


class Lake:
    """A lake in a folder of its own, fed by a local exchange, and used through its commands only."""

    def __init__(self, place: Path, exchange: Exchange) -> None:
        self.place = place
        self.path = str(place / "real")
        self.exchange = exchange
        prefix = "LAKEHOUSE__PROVIDERS__"
        self.environment = {
            "LAKEHOUSE__STORAGE__ENGINE": "embedded",
            f"{prefix}CHAIN": '["coinbase"]',
            f"{prefix}COINBASE__BASE_URL": exchange.url,
            f"{prefix}COINBASE__REQUESTS_PER_MINUTE": "600000",
            f"{prefix}COINBASE__BURST": "1000",
        }

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command; returns its exit code and all it printed."""
        done = run(self.place, *arguments, **self.environment)
        return done.exit_code, done.output


def sections() -> dict[str, list[list[str]]]:
    """Return the commands of each fault, as argument lists, by heading."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        blocks = re.findall(r"```bash\n(.*?)```", part, re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines() if line.strip()]
        assert all(line.startswith("lakehouse ") for line in lines)
        found[part.splitlines()[0]] = [shlex.split(line)[1:] for line in lines]
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Exchange() as exchange:
        found = Lake(tmp_path, exchange)
        code, out = found.run(*BACKFILL)
        assert code == 0, out
        yield found


def assert_whole(lake: Lake) -> None:
    """Assert that the tables hold what the exchange has, each bar once, and that all of it counts as covered."""
    for asset in ("BTCUSD", "ETHUSD"):
        for frame in (Timeframe.H1, Timeframe.H4):
            expected = truth(lake.exchange, f"{asset[:3]}-{asset[3:]}", frame, START, END)
            rows = stored(lake.path, f"raw_market_data_{frame}", asset)
            # The newest version of a restated bar is what counts.
            found = rows.sort_values("ingested_at", kind="stable")
            found = found[~found.index.duplicated(keep="last")].sort_index()
            pd.testing.assert_frame_equal(
                found[BAR], expected[BAR], check_freq=False, check_index_type=False, rtol=1e-12, check_names=False
            )
    lake.exchange.log.clear()
    code, out = lake.run(*BACKFILL)
    assert (code, lake.exchange.log) == (0, []), out
    assert "Nothing was missing" in out
    code, out = lake.run("fsck", "--deep")
    assert code == 0, out


def deleted_file(lake: Lake) -> None:
    data_file(lake.path, H1, "ETHUSD").unlink()


def damaged_file(lake: Lake) -> None:
    path = data_file(lake.path, H1)
    path.write_bytes(b"x" * path.stat().st_size)


def cut_off_commit(lake: Lake) -> None:
    cut(commit_file(lake.path, H1, newest(lake.path, H1)))


def commit_cut_between_lines(lake: Lake) -> None:
    cut_between_lines(commit_file(lake.path, H1, newest(lake.path, H1)))


def broken_older_commit(lake: Lake) -> None:
    cut(commit_file(lake.path, H1, newest(lake.path, H1) - 1))


def removed_older_commit(lake: Lake) -> None:
    commit_file(lake.path, H1, 0).unlink()


def lost_checkpoint(lake: Lake) -> None:
    DeltaTable(str(folder(lake.path, H1))).create_checkpoint()
    for path in (folder(lake.path, H1) / "_delta_log").glob("*.checkpoint.parquet"):
        path.unlink()


def broken_checkpoint(lake: Lake) -> None:
    DeltaTable(str(folder(lake.path, H1))).create_checkpoint()
    for path in (folder(lake.path, H1) / "_delta_log").glob("*.checkpoint.parquet"):
        cut(path)


def lost_table(lake: Lake) -> None:
    lose_table(lake.path, H4)


def lost_log_of_a_table(lake: Lake) -> None:
    lose_table(lake.path, f"{H4}/_delta_log")


def lost_coverage(lake: Lake) -> None:
    lose_table(lake.path, "ingest_coverage")


def bad_load(lake: Lake) -> None:
    """Load bars of a hundredfold price; and restate good ones by a provider on a bad day."""
    rows = [f"2025-12-0{day}T0{hour}:00:00Z,1,2,1,2,5" for day in (7, 8) for hour in range(9)]
    path = lake.place / "bad.csv"
    path.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]))
    code, out = lake.run("load", str(path), "--asset", "BTCUSD", "--timeframe", "1h")
    assert code == 0, out
    lake.exchange.edit = lambda rows: [[row[0], row[1], row[2] + 500, *row[3:]] for row in rows]
    assert lake.run(*BACKFILL, "--force")[0] == 0
    lake.exchange.edit = lambda rows: rows
    with pytest.raises((AssertionError, ValueError)):
        assert_whole(lake)


def full_disk(lake: Lake) -> None:
    """Fill the disk that the lake is on, fail on it, and make room again."""
    lose_table(lake.path, "")
    disk = Path(lake.path)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    code, out = lake.run(*BACKFILL)
    assert code == 1
    assert "disk is full" in out
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)


def two_writers(lake: Lake) -> None:
    lose_table(lake.path, "")
    running = [spawn(lake.place, *BACKFILL, "--json", **lake.environment) for _ in range(2)]
    answers = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    new = [json.loads(out)["new"] for out, _ in answers]
    assert sum(new) == 2 * 3 * (24 + 6)


def nothing(_: Lake) -> None:
    """All is well: what is done day by day leaves it so."""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
FAULTS: list[tuple[str, Fault]] = [
    ("Upkeep", nothing),
    ("What it costs", nothing),
    ("A data file was deleted", deleted_file),
    ("A data file is damaged", damaged_file),
    ("The newest log entry is cut off", cut_off_commit),
    ("The newest log entry is cut off", commit_cut_between_lines),
    ("An older log entry is broken", broken_older_commit),
    ("An older log entry is broken", removed_older_commit),
    ("A checkpoint is missing or broken", lost_checkpoint),
    ("A checkpoint is missing or broken", broken_checkpoint),
    ("A table is gone", lost_table),
    ("A table is gone", lost_log_of_a_table),
    ("The coverage log is gone", lost_coverage),
    ("A bad load has to be undone", bad_load),
    ("Two writers at once", two_writers),
]
# Nothing is wrong with the lake itself after these.
HARMLESS = (nothing, full_disk, two_writers, bad_load)


def follow(lake: Lake, heading: str, fault: Fault) -> None:
    """Make a fault, run the commands of its section, and compare the lake with the truth."""
    fault(lake)
    # The first look finds what is wrong; all that follows does its work.
    expected = 0 if fault in HARMLESS else 1
    for command in sections()[heading]:
        code, out = lake.run(*command)
        assert code == expected, (command, out)
        if "--dry-run" not in command:
            expected = 0
    assert_whole(lake)


@pytest.mark.parametrize(("heading", "fault"), FAULTS, ids=[f"{heading}-{fault.__name__}" for heading, fault in FAULTS])
def test_the_commands_of_the_runbook_mend_the_fault(lake: Lake, heading: str, fault: Fault) -> None:
    follow(lake, heading, fault)


@needs_root
def test_a_full_disk_needs_room_and_the_same_command(lake: Lake) -> None:
    try:
        follow(lake, "The disk is full", full_disk)
    finally:
        subprocess.run(["umount", "-l", lake.path], check=True)


def test_the_commands_of_the_readme_work_on_a_sound_lake(lake: Lake) -> None:
    part = README.split("\n## Time travel, maintenance, recovery\n")[1].split("\n## ")[0]
    block = part.split("```bash\n")[1].split("```")[0]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert len(commands) == 8
    for command in commands:
        code, out = lake.run(*command)
        assert code == 0, (command, out)
    assert_whole(lake)


def test_every_section_is_tried() -> None:
    assert {heading for heading, commands in sections().items() if commands} == {
        *(heading for heading, _ in FAULTS),
        "The disk is full",
    }
