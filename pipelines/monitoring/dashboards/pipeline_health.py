"""The dashboard of the pipeline itself."""

from __future__ import annotations

from pipelines.monitoring.dashboards.health_of_lake import FIVE, LAKE
from pipelines.monitoring.dashboards.health_of_work import AIRFLOW, PROVIDERS, STREAMS, WATCHING
from pipelines.monitoring.dashboards.panels import Board, Choice, Row

PIPELINE_HEALTH = Board(
    uid="pipeline-health",
    title="Pipeline health",
    description="How the lakehouse's pipeline is: what came in, how good it is, how late, and what keeps it from it.",
    hours=24,
    choices=(
        Choice("asset", "Asset", "pipeline_ingestion_records_total", "asset_pair"),
        Choice("timeframe", "Timeframe", "pipeline_ingestion_records_total", "timeframe"),
    ),
    rows=(
        Row("Ingestion", FIVE),
        Row("Lake", LAKE),
        Row("Streams", STREAMS),
        Row("Providers and jobs", PROVIDERS),
        Row("Airflow", AIRFLOW),
        Row("Watching", WATCHING),
    ),
)
