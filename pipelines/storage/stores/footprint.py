"""What a lake takes up: by table and layer, by the age of its files, and beside its data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from pipelines.errors import StorageError
from pipelines.storage.files import whole_store
from pipelines.storage.log_table import RECORDED
from pipelines.storage.recovery.held_files import LOG_FOLDER, HeldFile, held_files, total_rows
from pipelines.storage.undeclared import contract_of, is_declared

if TYPE_CHECKING:
    from pipelines.config import LifecycleSettings
    from pipelines.storage.lake import Lake

LAYERS = ("bronze", "silver", "gold")
OTHER = "other"
# What a year is reckoned for.
ASSETS = 10
_YEAR = timedelta(days=365)
# S3 moves no smaller object to a cheaper class.
SMALLEST_MOVED = 128 << 10


@dataclass(frozen=True, slots=True)
class Ages:
    """Bytes of data files by age; `stuck` are those among the warm and cold ones in files too small to be moved."""

    hot: int = 0
    warm: int = 0
    cold: int = 0
    stuck: int = 0

    @property
    def total(self) -> int:
        """All of them; `stuck` is counted once."""
        return self.hot + self.warm + self.cold


@dataclass(frozen=True, slots=True)
class TableFootprint:
    """One table's newest version; `year` is what one year of ten assets would take, None if no time span is known."""

    name: str
    layer: str
    rows: int
    files: int
    bytes: int
    year: int | None


@dataclass(frozen=True, slots=True)
class Footprint:
    """A lake in bytes.

    Attributes:
        tables: the tables with data, without the log of coverage.
        ages: their data files by age.
        logs: the tables' logs and the log of coverage.
        unreferenced: all other files: of old versions, of writes that never committed, and what was set aside.
    """

    tables: tuple[TableFootprint, ...]
    ages: Ages
    logs: int
    unreferenced: int


def footprint(lake: Lake, ages: LifecycleSettings, now: datetime) -> Footprint:
    """Measure a lake, from the tables' logs and one listing of all its files; opens no data file. No JVM.

    Args:
        lake: the lake.
        ages: by which age, in days, files are warm and cold.
        now: aware UTC.

    Raises:
        StorageError: the lake cannot be listed, or a log cannot be read.
    """
    # Listed first: what is committed in between is in the logs then, and counted once.
    stored = _stored(lake)
    held: dict[str, list[HeldFile]] = {}
    tables = []
    for name in lake.names():
        table = lake.open(name)
        contract = contract_of(table, name)
        held[name] = list(held_files(table, contract).values())
        frame = contract.timeframe_of(name)
        tables.append(_table(name, held[name], frame.step if frame else timedelta(0)))
    live = {f"{name}/{file.path}" for name, files in held.items() for file in files}
    logs = sum(size for path, size in stored.items() if path.split("/")[1:2] == [LOG_FOLDER])
    beside = sum(size for path, size in stored.items() if path not in live)
    return Footprint(
        tables=tuple(table for table in tables if table.name not in RECORDED),
        ages=_ages((file for name, files in held.items() if name not in RECORDED for file in files), ages, now),
        logs=logs + sum(file.bytes for name in RECORDED for file in held.get(name, ())),
        unreferenced=beside - logs,
    )


def layer_of(table_name: str) -> str:
    """Return the layer of a table: bronze if a contract declares it, else what its name begins with, else "other"."""
    if is_declared(table_name):
        return LAYERS[0]
    prefix = table_name.partition("_")[0]
    return prefix if prefix in LAYERS else OTHER


def _stored(lake: Lake) -> dict[str, int]:
    """Return the bytes of every file under the lake's root, by path."""
    try:
        found = whole_store(lake.root).get_file_info(pafs.FileSelector("", allow_not_found=True, recursive=True))
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot list {lake.root.address}: {error}") from error
    return {info.path: info.size or 0 for info in found if info.type == pafs.FileType.File}


def _table(name: str, files: Sequence[HeldFile], step: timedelta) -> TableFootprint:
    size = sum(file.bytes for file in files)
    return TableFootprint(name, layer_of(name), total_rows(files), len(files), size, _year(files, step))


def _year(files: Iterable[HeldFile], step: timedelta) -> int | None:
    """Return the bytes of a year of ten assets, each asset of the table taken over the time span it has itself.

    Rows that belong to no asset are scaled to a year alone.
    """
    by_subject: dict[str | None, list[HeldFile]] = defaultdict(list)
    for file in files:
        by_subject[file.subject].append(file)
    years = {subject: _one_year(held, step) for subject, held in by_subject.items()}
    shared = years.pop(None, None)
    each = [year for year in years.values() if year is not None]
    if not each and shared is None:
        return None
    return round((sum(each) / len(each) * ASSETS if each else 0.0) + (shared or 0.0))


def _one_year(files: Sequence[HeldFile], step: timedelta) -> float | None:
    spans = [file.span for file in files if file.span]
    if not spans:
        return None
    # The last bar lasts until its close.
    length = max(span.end for span in spans) - min(span.start for span in spans) + step
    # A few rows of one moment say nothing of a year.
    if length < timedelta(hours=1):
        return None
    return sum(file.bytes for file in files) * (_YEAR / length)


def _ages(files: Iterable[HeldFile], settings: LifecycleSettings, now: datetime) -> Ages:
    sizes = {"hot": 0, "warm": 0, "cold": 0, "stuck": 0}
    warm, cold = timedelta(days=settings.warm_after_days), timedelta(days=settings.cold_after_days)
    for file in files:
        age = now - file.modified
        kind = "hot" if age < warm else "warm" if age < cold else "cold"
        sizes[kind] += file.bytes
        if kind != "hot" and file.bytes < SMALLEST_MOVED:
            sizes["stuck"] += file.bytes
    return Ages(**sizes)
