"""PromQL that several panels are made of, and what they say without data."""

from __future__ import annotations

BARS = 'asset_pair=~"$asset",timeframe=~"$timeframe"'
LOOK = "pipeline_exporter_last_look_timestamp_seconds"
# What panels say that have no data.
NO_EXPORTER = "no data: is lakehouse exporter running?"
NO_PUSH = "no job has pushed yet: see monitoring.pushgateway"


def rise(series: str, window: str) -> str:
    """Return by how much each counter that is read off the lake rose within a window, exactly.

    `increase` would extrapolate, take a table that was restored to fewer rows for a counter that began again, and miss
    the first value of a new series.
    """
    return f"({_new(series, window)}) or ({series} - min_over_time({series}[{window}]))"


def growth(series: str, window: str) -> str:
    """Return by how much each gauge changed within a window."""
    return f"({_new(series, window)}) or delta({series}[{window}])"


def _new(series: str, window: str) -> str:
    """Return the series that came within the window, for all that they are, if the exporter was looking before it."""
    return f"({series} unless {series} offset {window}) and on (job, instance) {LOOK} offset {window}"


def quantile(share: float, histogram: str, selector: str = "", by: str = "") -> str:
    """Return a quantile of histograms as they are: those of a finished job hold that one run."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({histogram}_bucket{{{selector}}}))"
