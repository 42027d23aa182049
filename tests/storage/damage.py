"""What can happen to a table on disk: each function does one harm to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from deltalake import DeltaTable


def folder(lake: str, table: str) -> Path:
    return Path(lake) / table


def commit_file(lake: str, table: str, version: int) -> Path:
    return folder(lake, table) / "_delta_log" / f"{version:020d}.json"


def newest(lake: str, table: str) -> int:
    return max(int(path.stem) for path in (folder(lake, table) / "_delta_log").glob("*.json"))


def data_file(lake: str, table: str, asset: str = "BTCUSD") -> Path:
    """Return a live data file of an asset."""
    return Path(next(path for path in sorted(DeltaTable(str(folder(lake, table))).file_uris()) if asset in path))


def cut(path: Path, share: float = 0.5) -> None:
    """Cut a file off, at a share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def cut_between_lines(path: Path) -> None:
    """Leave only the first line of a file."""
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def lose_table(lake: str, table: str) -> None:
    shutil.rmtree(folder(lake, table))
