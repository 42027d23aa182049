"""The `sample` provider: deterministic, offline, plausible data of every dataset, always labelled synthetic."""

from __future__ import annotations

from pipelines.sources.sample.source import SampleSource

__all__ = ["SampleSource"]
