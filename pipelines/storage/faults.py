"""Turns what Spark and Java throw into one plain line: the cause and what to do about it."""

from __future__ import annotations

import re

_NO_ROOM = ("No space left on device", "ENOSPC", "Disk quota exceeded")
_CONCURRENT = (
    "ConcurrentTransactionException",
    "ConcurrentAppendException",
    "DELTA_CONCURRENT",
    "MetadataChangedException",
)


def is_concurrent(error: BaseException) -> bool:
    """Say whether a write lost a race that a new attempt may win."""
    text = f"{type(error).__name__} {error}"
    return any(name in text for name in _CONCURRENT)


def explain(error: BaseException, doing: str) -> str:
    """Return one line: what failed, why, and the fix where one is known."""
    text = str(error)
    if any(sign in text for sign in _NO_ROOM):
        return f"{doing}: the disk is full; free some room and run it again, nothing was committed"
    if "Permission denied" in text or "AccessDenied" in text:
        return f"{doing}: permission denied; make the lake's folder writable for this user"
    if "DELTA_VIOLATE_CONSTRAINT" in text or "DELTA_NOT_NULL_CONSTRAINT" in text:
        found = re.search(r"(CHECK constraint \w+|NOT NULL constraint violated for column: \S+)", text)
        return f"{doing}: a row breaks the table's {found[1] if found else 'constraints'}; nothing was committed"
    if "failed validation check" in text:
        return f"{doing}: rows break the table's constraints; nothing was committed"
    if "OutOfMemoryError" in text:
        return f"{doing}: Spark ran out of memory; raise spark.driver_memory"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{doing}: {lines[0] if lines else type(error).__name__}"


def spark_errors() -> tuple[type[Exception], ...]:
    """Return what Spark throws: its own errors and the JVM's."""
    from py4j.protocol import Py4JError  # noqa: PLC0415 - loaded by Spark by now
    from pyspark.errors import PySparkException  # noqa: PLC0415

    return (PySparkException, Py4JError)
