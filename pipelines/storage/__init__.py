"""Storage: the only code that touches Delta. `DeltaLakeManager` is its door."""

from pipelines.storage.coverage import CoverageEntry, CoverageLog
from pipelines.storage.delta_lake_manager import DeltaLakeManager
from pipelines.storage.history import TableInfo
from pipelines.storage.results import AppendResult

__all__ = ["AppendResult", "CoverageEntry", "CoverageLog", "DeltaLakeManager", "TableInfo"]
