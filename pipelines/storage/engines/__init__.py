"""The engines behind storage: Spark, which scales past a machine, and an embedded one on delta-rs, without a JVM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.storage.engines.base import Engine

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.storage.lake import Lake

__all__ = ["Engine", "engine_for"]


def engine_for(lake: Lake, settings: Settings) -> Engine:
    """Return the engine that `storage.engine` names."""
    if settings.storage.engine == "embedded":
        from pipelines.storage.engines.embedded import EmbeddedEngine  # noqa: PLC0415 - only the one that is used

        return EmbeddedEngine(lake, settings)
    from pipelines.storage.engines.spark import SparkEngine  # noqa: PLC0415 - only the one that is used

    return SparkEngine(lake, settings)
