"""Data quality: suites over the contracts, and the dead letter queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.data_quality.dlq import DeadLetterQueue

if TYPE_CHECKING:
    from pipelines.data_quality.expectations_suite import DataQualityFramework

__all__ = ["DataQualityFramework", "DeadLetterQueue"]


def __getattr__(name: str) -> object:
    """Import the framework when it is asked for: the dead letter queue alone needs neither pandas nor polars."""
    if name == "DataQualityFramework":
        from pipelines.data_quality.expectations_suite import DataQualityFramework  # noqa: PLC0415

        return DataQualityFramework
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
