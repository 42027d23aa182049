"""What a scheduler calls: the functions behind `lakehouse backfill|validate|transform|maintain`, step by step.

Each function does one step on one lake, returns a small result of plain JSON values and raises a `StepFailedError` that
says where to look. A step may be killed and run again at any time. In a result `seconds` is all of the step's wall
time, of which `import_seconds` went into loading code and `jvm_seconds` into starting Spark.
"""

from __future__ import annotations

from pipelines.orchestration.checking import check_streams, validate
from pipelines.orchestration.common import Result, StepFailedError
from pipelines.orchestration.fetching import ingest
from pipelines.orchestration.transforming import check_transform, transform_marts, transform_silver
from pipelines.orchestration.upkeep import optimize, refresh_dashboards

__all__ = [
    "Result",
    "StepFailedError",
    "check_streams",
    "check_transform",
    "ingest",
    "optimize",
    "refresh_dashboards",
    "transform_marts",
    "transform_silver",
    "validate",
]
