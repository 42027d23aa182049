"""Room on the disk of the lake, or of the dead letter queue where the lake is in an object store."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric

from pipelines.monitoring.parts.base import Look, gauge


class Disk:
    """Two samples."""

    name = "disk"

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of the disk."""
        address = look.manager.storage_path
        place = Path(look.settings.resolve(look.settings.dlq.path) if "://" in address else address).absolute()
        # What is not there yet will be made on the disk of the nearest folder that is.
        usage = shutil.disk_usage(next(each for each in (place, *place.parents) if each.exists()))
        free = gauge("pipeline_disk_free_bytes", "Bytes that may still be written.")
        free.add_metric([], usage.free)
        size = gauge("pipeline_disk_size_bytes", "Bytes of the whole disk.")
        size.add_metric([], usage.total)
        return free, size
