"""What the steps share: their result, their error, their lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.config import Settings
from pipelines.errors import LakehouseError

if TYPE_CHECKING:
    from pipelines.cli.lakes import ChosenLake

Result = dict[str, Any]
MOST_NAMED = 3


class StepFailedError(LakehouseError):
    """A step did not do all it should; says what to look at. `retryable` says whether another try could help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


def writing(settings: Settings) -> Settings:
    """Return settings with the engine of scheduled runs."""
    storage = settings.storage.model_copy(update={"engine": settings.orchestration.engine})
    return settings.model_copy(update={"storage": storage})


def existing_lake(settings: Settings, *, sample: bool) -> ChosenLake:
    """Return the lake of that kind; unlike on the command line, nothing stands in for one that is not there."""
    # Slow to import, and DAGs import this module.
    from pipelines.cli.lakes import HOW_TO_MAKE_ONE, NoLakeError, is_synthetic, lake_for_writing  # noqa: PLC0415

    chosen = lake_for_writing(settings, None, synthetic=sample)
    if is_synthetic(chosen.manager) is None:
        raise NoLakeError(f"no lake yet at {chosen.address}; {HOW_TO_MAKE_ONE}")
    return chosen
