"""Turns what Spark and Java throw into one plain line: the cause and what to do about it."""

from __future__ import annotations

import re
import sys

# Until the end of a process is seen whose connections are cut already.
_ENDED_WITHIN_SECONDS = 5.0
# By what a text has in it.
_KNOWN = (
    (
        ("No space left on device", "ENOSPC", "Disk quota exceeded"),
        "the disk is full; free some room and run it again, nothing was committed",
    ),
    (("Permission denied", "AccessDenied"), "permission denied; make the lake's folder writable for this user"),
    (("failed validation check",), "rows break the table's constraints; nothing was committed"),
    (("OutOfMemoryError",), "Spark ran out of memory; raise spark.driver_memory"),
)
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
    if fault := _jvm_fault(error):
        return f"{doing}: {fault}"
    if "DELTA_VIOLATE_CONSTRAINT" in text or "DELTA_NOT_NULL_CONSTRAINT" in text:
        found = re.search(r"(CHECK constraint \w+|NOT NULL constraint violated for column: \S+)", text)
        return f"{doing}: a row breaks the table's {found[1] if found else 'constraints'}; nothing was committed"
    if known := next((plain for signs, plain in _KNOWN if any(sign in text for sign in signs)), ""):
        return f"{doing}: {known}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{doing}: {lines[0] if lines else type(error).__name__}"


def spark_errors() -> tuple[type[Exception], ...]:
    """Return what Spark throws: its own errors, the JVM's, and those of a connection to a JVM that is gone."""
    from py4j.protocol import Py4JError  # noqa: PLC0415 - loaded by Spark by now
    from pyspark.errors import PySparkException  # noqa: PLC0415

    return (PySparkException, Py4JError, ConnectionError)


def _jvm_fault(error: BaseException) -> str:
    """Say why the JVM is gone, if that is what is behind an error."""
    if "pyspark" not in sys.modules:
        return ""
    from py4j.protocol import Py4JError, Py4JJavaError  # noqa: PLC0415 - loaded by Spark by now

    from pipelines.session import jvm_fault  # noqa: PLC0415

    cut_off = isinstance(error, ConnectionError | Py4JError) and not isinstance(error, Py4JJavaError)
    return jvm_fault(_ENDED_WITHIN_SECONDS if cut_off else 0.0)
