"""Who wants to know how a run goes."""

from __future__ import annotations


class Progress:
    """Hears of every step of a run; this one shows nothing. Called from the event loop and from landing threads."""

    def planned(self, windows: int) -> None:
        """More windows will be asked for."""

    def fetched(self, rows: int) -> None:
        """A window was answered with so many rows."""

    def failed(self) -> None:
        """A window was given up."""

    def landed(self, rows: int) -> None:
        """So many rows were committed."""
