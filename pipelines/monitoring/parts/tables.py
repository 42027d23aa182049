"""Size, rows, files and version of every table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import Metric

from pipelines.monitoring.lake_tables import LookedAt
from pipelines.monitoring.parts.base import Look, gauge


class Tables:
    """One sample a table, silver and gold included."""

    name = "tables"

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of table sizes."""
        families = {
            "size": gauge("pipeline_delta_table_size_bytes", "Bytes of the live data files of a table.", ["table"]),
            "rows": gauge("pipeline_delta_table_rows", "Rows of a table, by its log.", ["table"]),
            "files": gauge("pipeline_delta_table_files", "Live data files of a table.", ["table"]),
            "version": gauge("pipeline_delta_table_version", "Newest version of a table.", ["table"]),
            "most": gauge("pipeline_partition_files_max", "Files of the partition that has most of them.", ["table"]),
        }
        for table in look.tables.all:
            for name, value in _numbers(table).items():
                families[name].add_metric([table.name], value)
        return families.values()


def _numbers(table: LookedAt) -> dict[str, float]:
    most = Counter(file.partition for file in table.files).most_common(1)
    return {
        "size": table.total("size_bytes"),
        "rows": table.total("num_records"),
        "files": len(table.files),
        "version": table.version,
        "most": most[0][1] if most else 0,
    }
