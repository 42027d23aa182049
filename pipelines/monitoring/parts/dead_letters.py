"""How deep the dead letter queue is, by reason; each of its files, which never change, is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric

from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.data_quality.dlq_reading import read_file
from pipelines.errors import DeadLetterError
from pipelines.monitoring.labels import Bounded
from pipelines.monitoring.parts.base import Look, gauge

_MOST_REASONS = 50
# What tells a file from another one in its place.
_Print = tuple[str, int, int]


class DeadLetters:
    """Counts rows; one with several reasons counts for each."""

    name = "dlq"

    def __init__(self) -> None:
        self._known: dict[_Print, Counter[str]] = {}
        self._reason = Bounded(_MOST_REASONS)

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of the queue."""
        queue = DeadLetterQueue(look.settings.resolve(look.settings.dlq.path))
        known: dict[_Print, Counter[str]] = {}
        size, files = 0, 0
        for path in queue.files():
            try:
                stat = path.stat()
            except FileNotFoundError:
                # Replayed just now.
                continue
            size, files = size + stat.st_size, files + 1
            mark = (path.name, stat.st_mtime_ns, stat.st_size)
            try:
                known[mark] = self._known[mark] if mark in self._known else _reasons(path)
            except DeadLetterError as error:
                look.problem(path.name, error)
        self._known = known
        rows: Counter[str] = Counter()
        for reasons in known.values():
            for reason, number in sorted(reasons.items()):
                rows[self._reason(reason)] += number
        depth = gauge("pipeline_dlq_records", "Rows in the dead letter queue, by reason.", ["reason"])
        for reason, number in sorted(rows.items()):
            depth.add_metric([reason], number)
        total = gauge("pipeline_dlq_bytes", "Bytes of the files in the dead letter queue.")
        total.add_metric([], size)
        count = gauge("pipeline_dlq_files", "Files in the dead letter queue.")
        count.add_metric([], files)
        return depth, total, count


def _reasons(path: Path) -> Counter[str]:
    return Counter(dict(read_file(path).reasons))
