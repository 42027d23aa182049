"""When a failed task is tried again: after growing delays, and not at all where that cannot help."""

from __future__ import annotations

from datetime import timedelta

from pipelines.errors import (
    ConfigError,
    InvalidRangeError,
    MixedOriginError,
    SnapshotError,
    UnknownAssetError,
)

# Somebody has to change something first.
_FOR_A_PERSON = (ConfigError, InvalidRangeError, MixedOriginError, SnapshotError, UnknownAssetError)


def delay_before(error: BaseException, try_number: int, first: timedelta) -> timedelta | None:
    """Return how long to wait before trying again: each time twice as long; None for not at all.

    Args:
        error: what the task has raised.
        try_number: of the try that has failed, from 1.
        first: the delay before the second try.
    """
    if isinstance(error, _FOR_A_PERSON) or not getattr(error, "retryable", True):
        return None
    return first * (1 << (try_number - 1))
