"""What a step costs: how much of its time was start, and how much was work."""

from __future__ import annotations

import time

from pipelines.session import start_seconds


class Stopwatch:
    """Runs from its making; `ready` says that all code is loaded and work begins."""

    def __init__(self) -> None:
        self._began = self._ready = time.monotonic()
        self._spark_before = start_seconds()

    def ready(self) -> None:
        """Note that what comes now is work."""
        self._ready = time.monotonic()

    def cost(self) -> dict[str, float]:
        """Return seconds in all, and of them those of loading code and of starting Spark, which is 0 if it was up."""
        spark = start_seconds()
        return {
            "seconds": round(time.monotonic() - self._began, 3),
            "import_seconds": round(self._ready - self._began, 3),
            "jvm_seconds": round(spark if spark != self._spark_before else 0.0, 3),
        }
