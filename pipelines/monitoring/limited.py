"""Telling somebody else without waiting for them: what does not end in time is left to itself."""

from __future__ import annotations

import threading
from collections.abc import Callable


def limited(tell: Callable[[], None], seconds: float) -> Exception | None:
    """Run something for so many seconds at most; returns what it raised, or TimeoutError."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - the caller is told, whatever it is
            raised.append(error)

    # Not waited for at the end of the process either.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return TimeoutError(f"no answer within {seconds:g} s")
    return raised[0] if raised else None
