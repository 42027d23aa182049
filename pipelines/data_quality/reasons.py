"""Why rows are refused, as kinds that can be counted: without the figures and texts that only one row has."""

from __future__ import annotations

import re

WHOLE_BATCH = "batch refused"
MALFORMED = "malformed line"
_BETWEEN = "; "
_LINE = re.compile(r"(line \d+|the line) has \d+ fields")
# A quoted value of the row, which may hold anything.
_QUOTED = re.compile(r":?\s*(['\"]).*\1", re.DOTALL)


def kinds_of(reason: str) -> list[str]:
    """Return the kinds of a row's reason, of which it may have several, parted by semicolons."""
    if _LINE.match(reason):
        return [MALFORMED]
    parts = _QUOTED.sub("", reason).split(_BETWEEN)
    return [WHOLE_BATCH if part.startswith(WHOLE_BATCH) else part for part in parts]
