"""Figures as people read them, the same on a terminal and on a page."""

from __future__ import annotations

SYNTHETIC = "SYNTHETIC data, made up by the sample provider"


def count(number: int) -> str:
    """Return 25970 as 25,970."""
    return f"{number:,}"


def counted(number: int, unit: str) -> str:
    """Return "1 file" or "2 files", given the plural; "series" is its own singular, and 1 of "batches" is a batch."""
    if number != 1 or unit == "series":
        return f"{count(number)} {unit}"
    return f"1 {unit.removesuffix('es') if unit.endswith('ches') else unit.removesuffix('s')}"
