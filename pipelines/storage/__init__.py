"""Storage: the only code that touches Delta. `DeltaLakeManager` is its door."""

from pipelines.storage.coverage import CoverageEntry, CoverageLog
from pipelines.storage.delta_lake_manager import DeltaLakeManager
from pipelines.storage.quality_log import QualityLog, QualityResult
from pipelines.storage.results import AppendResult
from pipelines.storage.travel.history import TableInfo

__all__ = [
    "AppendResult",
    "CoverageEntry",
    "CoverageLog",
    "DeltaLakeManager",
    "QualityLog",
    "QualityResult",
    "TableInfo",
]
