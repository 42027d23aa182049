"""Label values that come from data, bounded: a flood of new ones must not flood Prometheus."""

from __future__ import annotations

OTHER = "other"


class Bounded:
    """Hands out the first `most` values that it is given as they are, and calls all further ones `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: object) -> str:
        """Return the label for a value; null is the empty label."""
        text = "" if value is None else str(value)
        if text in self._known:
            return text
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(text)
        return text
