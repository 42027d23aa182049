"""Validates a lake's tables in one run of the quality project, Data Docs included."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data_quality.lake_validation import (
    TableValidation,
    quality_results,
    tables_to_validate,
    validate_table,
)
from pipelines.wording import count

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager, QualityResult
    from pipelines.storage.scan import Selection


@dataclass(frozen=True, slots=True)
class LakeValidation:
    """What a run found; `data_docs` is the index of its pages, None if none were built."""

    run_id: str
    wanted: Selection
    tables: tuple[TableValidation, ...]
    data_docs: Path | None

    @property
    def failed(self) -> list[TableValidation]:
        """The tables in which an error check failed."""
        return [each for each in self.tables if not each.ok]

    @property
    def results(self) -> list[QualityResult]:
        """How each check ended, for the log of quality results."""
        return [result for each in self.tables for result in quality_results(each, self.wanted)]


def validate_lake(
    manager: DeltaLakeManager,
    names: Sequence[str],
    wanted: Selection,
    *,
    synthetic: bool,
    live: bool = False,
    docs: bool = True,
    on_step: Callable[[str], None] = lambda _text: None,
) -> LakeValidation:
    """Validate tables; failed rows go to the dead letter queue, results to the project and its pages.

    Args:
        manager: the lake.
        names: tables; all that can be selected from if there are none.
        wanted: assets and range.
        synthetic: whether the lake's data is made up.
        live: whether the newest rows have to be there.
        docs: whether to build Data Docs.
        on_step: is told in a few words what is being done.

    Raises:
        TableNotFoundError: a named table is not in the lake; names the nearest.
        ContractError: no contract declares a named table, or a check cannot be run.
        StorageError: a table cannot be selected from so, or cannot be read.
        ConfigError: the project cannot be read.
        OSError: the project or the dead letter queue cannot be written.
    """
    settings, run_id = manager.settings, uuid.uuid4().hex
    tables = tables_to_validate(manager, names, wanted)
    from pipelines.data_quality.quality_project import QualityProject  # noqa: PLC0415 - imports Great Expectations

    project = QualityProject(settings.resolve(settings.quality.path), settings.quality.keep_runs)
    # One folder may hold the results of several lakes. As much of the id as tells runs apart leaves room on the page.
    run_name = f"{'synthetic' if synthetic else 'real'}-{run_id[:12]}"
    found: list[TableValidation] = []
    with project.alone():
        for name, version in tables:

            def on_part(done: int, of: int, name: str = name) -> None:
                on_step(f"{name}: {count(done)} of {count(of)} rows …")

            on_step(f"{name} …")
            found.append(validate_table(manager, project, name, version, wanted, run_name, live=live, on_part=on_part))
        on_step("Data Docs …")
        project.forget_old()
        index = project.build_docs() if docs and found else None
    return LakeValidation(run_id, wanted, tuple(found), index)
