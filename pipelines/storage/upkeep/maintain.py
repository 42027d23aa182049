"""Maintenance that finds its own work: compaction where small files pile up, then vacuum and log clean-up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pipelines.storage.files import DataFile, Partition, live_files
from pipelines.storage.log_table import RECORDED
from pipelines.storage.stores.locks import turn
from pipelines.storage.travel.snapshots import Snapshots
from pipelines.storage.upkeep.log_cleanup import clean_log
from pipelines.storage.upkeep.optimize import rewrite
from pipelines.storage.upkeep.vacuum import vacuum

if TYPE_CHECKING:
    from pipelines.config import MaintenanceSettings
    from pipelines.storage.engines import Engine
    from pipelines.storage.lake import Lake

_HOURS = 24
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Census:
    """A table's data files: how many, their bytes, and the most in one partition."""

    files: int
    bytes: int
    most_in_partition: int


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to a table, or would be by a dry run; `in_need` counts the partitions that were compacted."""

    table: str
    before: Census
    after: Census
    in_need: int
    vacuumed_files: int
    vacuumed_bytes: int
    log_files: int
    dry_run: bool

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.in_need or self.vacuumed_files or self.log_files)

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return asdict(self)


def maintain(
    lake: Lake,
    engine: Engine,
    settings: MaintenanceSettings,
    table_names: Iterable[str],
    *,
    dry_run: bool = False,
    on_table: Callable[[str], None] = lambda _: None,
) -> list[Maintained]:
    """Compact the partitions in need, remove files that no kept version needs, and clean the log; then nothing is left.

    Versions that snapshots of the lake pin are kept whole.

    Args:
        lake: the lake.
        engine: compacts.
        settings: what counts as small, and how long versions are kept.
        table_names: what to maintain.
        dry_run: only say what would be done.
        on_table: told of each table before it is begun.

    Raises:
        TableNotFoundError: a table is not there; nothing was done.
        ConcurrentWriteError: another writer changed the same files; run it again.
        StorageError: a table cannot be read or written; the tables before it are done.
    """
    done, names = [], list(table_names)
    for table_name in names:
        if not lake.exists(table_name):
            # Raises, with the nearest name, before anything is done.
            lake.open(table_name)
    for table_name in names:
        on_table(table_name)
        done.append(_maintain(lake, engine, settings, table_name, dry_run=dry_run))
    return done


def _maintain(
    lake: Lake, engine: Engine, settings: MaintenanceSettings, table_name: str, *, dry_run: bool
) -> Maintained:
    with turn(lake.root, table_name):
        files = live_files(lake.open(table_name))
        before, chosen = census(files), in_need(files, settings)
        if chosen and not dry_run and table_name in RECORDED:
            _compact_log(lake, table_name, settings, chosen)
        elif chosen and not dry_run:
            rewrite(lake, engine, table_name, chosen)
    removed = vacuum(lake, table_name, settings.keep_days * _HOURS, dry_run=dry_run)
    pinned = Snapshots(lake).pinned(table_name)
    cleaned = clean_log(lake, table_name, settings.keep_days, pinned, dry_run=dry_run)
    return Maintained(
        table=table_name,
        before=before,
        after=before if dry_run else census(live_files(lake.open(table_name))),
        in_need=len(chosen),
        vacuumed_files=removed.count,
        vacuumed_bytes=removed.bytes,
        log_files=cleaned.count,
        dry_run=dry_run,
    )


def _compact_log(lake: Lake, name: str, settings: MaintenanceSettings, chosen: frozenset[Partition]) -> None:
    """Compact a log, which is small and written by delta-rs in any case: no JVM is started for it."""
    from pipelines.storage.upkeep.compaction import Layout, compact  # noqa: PLC0415 - slow to import

    compact(lake, name, chosen, Layout(settings.target_file_mib * _MIB, (RECORDED[name],)))


def census(files: Sequence[DataFile]) -> Census:
    """Count the live files of a table."""
    per_partition: dict[Partition, int] = defaultdict(int)
    for file in files:
        per_partition[file.partition] += 1
    return Census(len(files), sum(file.size for file in files), max(per_partition.values(), default=0))


def in_need(files: Sequence[DataFile], settings: MaintenanceSettings) -> frozenset[Partition]:
    """Return the partitions with so many small files that reading them costs more than compacting them once."""
    small: dict[Partition, int] = defaultdict(int)
    for file in files:
        small[file.partition] += file.size < settings.small_file_mib * _MIB
    return frozenset(partition for partition, count in small.items() if count >= settings.small_files)
