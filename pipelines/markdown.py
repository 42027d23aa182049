"""Markdown that is written by programs: tables and code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield _line(header)
    yield _line(["---"] * len(header))
    for row in rows:
        yield _line(row)


def codes(names: Iterable[str]) -> str:
    """Return names as code, with commas between them."""
    return ", ".join(map(code, names))


def code(text: str) -> str:
    """Return text as code, also if there are backquotes in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
