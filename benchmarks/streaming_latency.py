"""From an event to its row being there for a reader: watches a table's versions by delta-rs, and reckons per row."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
from deltalake import DeltaTable

from pipelines.storage.writing.marks import mark_of

_LOOK_SECONDS = 0.1
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Watcher:
    """Looks at a table of ticks ten times a second and notes when which commit was first seen; a context manager.

    Each commit of a stream carries the `ingested_at` of its rows as a mark, later than that of the one before.
    """

    def __init__(self, table: Path, topic: str) -> None:
        self._table = table
        self._stamp = mark_of(topic, "stamp")
        self._ended = threading.Event()
        self._there = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._seen: list[tuple[int, float]] = []
        self._files: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def there(self, seconds: float) -> bool:
        """Wait until the stream has made its table, and say whether it has."""
        return self._there.wait(seconds)

    @property
    def files(self) -> tuple[int, int]:
        """The files of the partition that had most: the most there were, and how many the last compaction left."""
        pairs = zip(self._files, self._files[1:], strict=False)
        left = [after for before, after in pairs if after < before]
        return max(self._files), left[-1] if left else self._files[-1]

    def latencies(self) -> tuple[Floats, Floats]:
        """Return the event time (epoch) of every row and the seconds from there until a reader could see it."""
        files = DeltaTable(str(self._table)).file_uris()
        query = "SELECT epoch_us(timestamp) AS event, epoch_us(ingested_at) AS stamp FROM read_parquet($1)"
        found = duckdb.execute(query, [files]).fetchnumpy()
        events = np.asarray(found["event"], np.float64) / 1e6
        stamps, moments = (np.array(column) for column in zip(*self._seen, strict=True))
        # The first commit seen that is not before the row's own: two may come between two looks.
        return events, moments[np.searchsorted(stamps, found["stamp"])] - events

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS) and not DeltaTable.is_deltatable(str(self._table)):
            pass
        if self._ended.is_set():
            return
        table = DeltaTable(str(self._table))
        self._there.set()
        while True:
            # One look more than until the end: it may have come since the last.
            last = self._ended.is_set()
            version = table.version()
            table.update_incremental()
            if table.version() != version:
                self._files.append(_most_files(table))
            stamp = table.transaction_version(self._stamp)
            if stamp is not None and (not self._seen or stamp > self._seen[-1][0]):
                self._seen.append((stamp, time.time()))
            if last:
                return
            self._ended.wait(_LOOK_SECONDS)


def _most_files(table: DeltaTable) -> int:
    """Return the files of the partition that has most."""
    return max(Counter(str(Path(uri).parent) for uri in table.file_uris()).values(), default=0)
