"""Files that are written by programs: written anew where they are stale, or only compared."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(pages: Mapping[Path, str], module: str, *, check: bool) -> int:
    """Write the files that differ from their text; with `check` only name them on stderr.

    Args:
        pages: the text of each file, by its path.
        module: what writes them, as `python -m` takes it.
        check: write nothing.

    Returns:
        The exit code: 1 if a file that was only looked at is stale.
    """
    stale = [(path, page) for path, page in pages.items() if not path.is_file() or path.read_text("utf-8") != page]
    for path, page in stale:
        if check:
            sys.stderr.write(f"{path} is stale; run python -m {module}\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page, encoding="utf-8")
    return 1 if check and stale else 0
