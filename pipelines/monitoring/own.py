"""What a process knows of itself: its own metrics without those that the exporter reads off the lake for all."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from typing_extensions import override

from pipelines.monitoring import metrics

# Nobody shows what another one shows, or sums would count it twice.
OF_THE_EXPORTER = frozenset(
    {
        "pipeline_ingestion_records",
        "pipeline_data_quality_checks",
        "pipeline_delta_table_size_bytes",
        "pipeline_stream_lag_messages",
    }
)
_OURS = frozenset(
    family.name for each in vars(metrics).values() if isinstance(each, MetricWrapperBase) for family in each.describe()
)


class OwnMetrics(Collector):
    """The pipeline's metrics of this process that have samples."""

    @override
    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        for family in REGISTRY.collect():
            if family.name in _OURS - OF_THE_EXPORTER and family.samples:
                yield family
