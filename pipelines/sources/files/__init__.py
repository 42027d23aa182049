"""The `files` provider: bars and records from local CSV, Parquet, JSON lines and JSON array files."""

from __future__ import annotations

from pipelines.sources.files.source import FilesSource, read, read_in_order
from pipelines.sources.files.spec import FileSpec

__all__ = ["FileSpec", "FilesSource", "read", "read_in_order"]
