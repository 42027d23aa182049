"""Compacts the partitions that streams are writing to, while they write."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from pipelines.contracts import contract_for
from pipelines.monitoring import metrics
from pipelines.storage.files import DataFile, Partition, live_files
from pipelines.storage.lake import Lake
from pipelines.storage.names import lake_root
from pipelines.storage.upkeep.compaction import Layout, compact
from pipelines.storage.upkeep.maintain import in_need

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.storage import DeltaLakeManager

logger = logging.getLogger(__name__)

_MIB = 1 << 20
# Read, sorted and written within a second or two: who stops a stream does not wait longer.
_CHEAP_BYTES = 16 * _MIB


class Compactor:
    """Keeps files few where streams commit every few seconds. Methods may be called from several threads.

    Every `streaming.compact_minutes` the partitions written to since are looked at, and those with at least
    `storage.maintenance.small_files` files under `small_file_mib` are compacted, into files of up to about that size:
    little is in memory, and daily maintenance makes large ones of them. Of n times that a partition is compacted a row
    sees about log2(n), and as many files are left. Appends go on meanwhile, and none fails for it.
    """

    def __init__(self, manager: DeltaLakeManager, settings: Settings) -> None:
        self._lake = Lake(lake_root(manager.storage_path))
        self._settings = settings.storage.maintenance
        self._seconds = settings.streaming.compact_minutes * 60
        self._target_bytes = round(self._settings.small_file_mib * _MIB)
        self._touched: dict[str, set[Partition]] = defaultdict(set)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stream-compaction", daemon=True)

    def start(self) -> None:
        """Begin; returns at once. Does nothing where `streaming.compact_minutes` is 0."""
        if self._seconds:
            self._thread.start()

    def touched(self, table_name: str, partitions: Iterable[Partition]) -> None:
        """Take note that partitions of a table have new files.

        Args:
            table_name: a table that a contract declares.
            partitions: values of its partition columns as its log spells them, as ("2025-12-07", "BTCUSD").
        """
        if self._seconds:
            with self._lock:
                self._touched[table_name].update(partitions)

    def stop(self) -> None:
        """End it: a compaction under way is finished, and what is left is compacted where that takes a moment only."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._compact_all(_CHEAP_BYTES)

    def _work(self) -> None:
        while not self._ending.wait(self._seconds):
            self._compact_all()

    def _compact_all(self, most_bytes: int | None = None) -> None:
        with self._lock:
            found, self._touched = self._touched, defaultdict(set)
        for table_name, partitions in found.items():
            try:
                self._compact(table_name, partitions, most_bytes)
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on, and there is a next time
                metrics.ingestion_errors_total.labels(error_type=type(error).__name__).inc()
                logger.warning("%s is not compacted: %s", table_name, error)
                self.touched(table_name, partitions)

    def _compact(self, table_name: str, partitions: Collection[Partition], most_bytes: int | None) -> None:
        files = [file for file in live_files(self._lake.open(table_name)) if file.partition in partitions]
        chosen = in_need(files, self._settings)
        if not chosen or (most_bytes is not None and self._to_rewrite(files, chosen) > most_bytes):
            return
        event_time = contract_for(table_name).event_time
        layout = Layout(self._target_bytes, (event_time,) if event_time else (), sparing=True)
        done = compact(self._lake, table_name, chosen, layout, beside_writers=True)
        if done.files_removed:
            logger.info("%s: %d files compacted to %d", table_name, done.files_removed, done.files_added)

    def _to_rewrite(self, files: Iterable[DataFile], chosen: Collection[Partition]) -> int:
        return sum(file.size for file in files if file.partition in chosen and file.size < self._target_bytes)
