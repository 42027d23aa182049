"""The steps after the data is there: tables kept small and fast, dashboards told."""

from __future__ import annotations

from pipelines.config import Settings, load_settings
from pipelines.orchestration.common import Result, existing_lake, writing
from pipelines.orchestration.cost import Stopwatch


def optimize(*, sample: bool = False, settings: Settings | None = None) -> Result:
    """Compact partitions in which small files pile up, remove what has expired, and shorten logs.

    Returns:
        Tables looked at, partitions compacted, files and bytes removed, log files removed.

    Raises:
        NoLakeError: there is no lake yet.
        ConcurrentWriteError: another writer changed the same files; another try helps.
        StorageError: a table cannot be read or written.
    """
    watch, settings = Stopwatch(), writing(settings or load_settings())
    chosen = existing_lake(settings, sample=sample)
    watch.ready()
    done = chosen.manager.maintain(None)
    return {
        **chosen.as_dict(),
        "tables": len(done),
        "compacted_partitions": sum(each.in_need for each in done),
        "vacuumed_files": sum(each.vacuumed_files for each in done),
        "vacuumed_bytes": sum(each.vacuumed_bytes for each in done),
        "log_files": sum(each.log_files for each in done),
        **watch.cost(),
    }


def refresh_dashboards(text: str, *, settings: Settings | None = None) -> Result:
    """Leave an annotation in Grafana, so that its panels show when data became new.

    Data on the panels needs no refresh: they read Prometheus, and the exporter looks at the lake by itself. A Grafana
    that is down or refuses fails nobody.

    Args:
        text: what the annotation says.
        settings: those of the project otherwise.

    Returns:
        `grafana`: `annotated`, `not configured`, or why it could not be told.
    """
    watch, settings = Stopwatch(), settings or load_settings()
    from pipelines.orchestration.grafana import annotate  # noqa: PLC0415 - an HTTP client

    watch.ready()
    return {"grafana": annotate(text, settings.orchestration), **watch.cost()}
