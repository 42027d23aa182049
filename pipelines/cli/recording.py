"""Keeping what a command found out in the lake's log of quality results."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.cli.render import say
from pipelines.errors import StorageError

if TYPE_CHECKING:
    from pipelines.cli.lakes import ChosenLake
    from pipelines.storage import QualityResult


def keep_results(chosen: ChosenLake, results: Sequence[QualityResult], run_id: str | None = None) -> None:
    """Record results; a lake that may only be read is told of all the same, with a remark on stderr."""
    try:
        chosen.manager.quality.record(results, run_id or uuid.uuid4().hex, synthetic=chosen.synthetic)
    except (StorageError, OSError) as error:
        say(f"not kept in quality_results: {error}", "yellow", stderr=True)
