"""Batch ingestion: what is covered, what is missing, and how it gets into bronze."""

from pipelines.batch.batch_ingestion import BatchDataIngester
from pipelines.batch.results import BackfillResult, FailedWindow, IngestResult

__all__ = ["BackfillResult", "BatchDataIngester", "FailedWindow", "IngestResult"]
