"""The Great Expectations project of the lakehouse: stored suites, checkpoints, their results and Data Docs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import great_expectations as gx
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.exceptions.exceptions import GreatExpectationsError

from pipelines.data_quality.checkpoints import PARTS, CheckedPart, PartedValidation, identity
from pipelines.data_quality.expectations import build_suite
from pipelines.data_quality.stored_suites import by_hand
from pipelines.errors import ConfigError
from pipelines.lock_file import held
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.data_context.data_context.file_data_context import FileDataContext
    from great_expectations.data_context.types.resource_identifiers import ValidationResultIdentifier
    from great_expectations.datasource.fluent.pandas_datasource import PandasDatasource

    from pipelines.contracts import Contract

GX = "gx"
DOCS = "data_docs"
_LAKE = "lake"
_ROWS = "rows"
_SITE = "lakehouse"
_PAGES = "pipelines.data_quality.docs_pages"
# Nothing is sent anywhere, and nothing is shown but what the command itself shows.
_CONFIG = f"""\
# Written by `lakehouse validate`. The suites in expectations/ come from config/contracts; what is added to them by hand
# is kept.
config_version: 4
analytics_enabled: false
progress_bars: {{globally: false, metric_calculations: false}}
stores:
  expectations_store:
    class_name: ExpectationsStore
    store_backend: {{class_name: TupleFilesystemStoreBackend, base_directory: expectations/}}
  validation_results_store:
    class_name: ValidationResultsStore
    store_backend: {{class_name: TupleFilesystemStoreBackend, base_directory: validations/}}
  checkpoint_store:
    class_name: CheckpointStore
    store_backend:
      {{class_name: TupleFilesystemStoreBackend, suppress_store_backend_id: true, base_directory: checkpoints/}}
  validation_definition_store:
    class_name: ValidationDefinitionStore
    store_backend: {{class_name: TupleFilesystemStoreBackend, base_directory: validation_definitions/}}
expectations_store_name: expectations_store
validation_results_store_name: validation_results_store
checkpoint_store_name: checkpoint_store
data_docs_sites:
  {_SITE}:
    class_name: SiteBuilder
    show_how_to_buttons: false
    store_backend: {{class_name: TupleFilesystemStoreBackend, base_directory: ../{DOCS}/}}
    site_index_builder:
      class_name: DefaultSiteIndexBuilder
      view: {{module_name: {_PAGES}, class_name: DocsPage}}
    site_section_builders:
      expectations:
        class_name: DefaultSiteSectionBuilder
        view: {{module_name: {_PAGES}, class_name: DocsPage}}
      validations:
        class_name: DefaultSiteSectionBuilder
        view: {{module_name: {_PAGES}, class_name: DocsPage}}
      profiling: none
"""


class QualityProject:
    """A folder with a Great Expectations project in `gx` and its Data Docs in `data_docs`."""

    def __init__(self, path: Path | str, keep_runs: int) -> None:
        """Set up; nothing is written before the first use.

        Args:
            path: the folder.
            keep_runs: of how many runs results are kept and shown in Data Docs.
        """
        self.path = Path(path)
        self._keep_runs = keep_runs

    @cached_property
    def context(self) -> FileDataContext:
        """The project, made if need be.

        Raises:
            ConfigError: it cannot be read; says what to do.
            OSError: the folder cannot be written.
        """
        folder = self.path / GX
        settings = folder / "great_expectations.yml"
        if not settings.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            settings.write_text(_CONFIG, encoding="utf-8")
        with self._read():
            return gx.get_context(mode="file", context_root_dir=folder)

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Explain what cannot be read: Great Expectations writes in place, so that a kill may leave half a file."""
        try:
            yield
        except (GreatExpectationsError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"the Great Expectations project in {self.path / GX} cannot be read ({reason}); remove it, all but the "
                "folder expectations if you added any to a suite by hand: the rest is made anew"
            ) from error

    def alone(self) -> AbstractContextManager[None]:
        """Hold the project, whose files Great Expectations rewrites in place; waits for whoever has it."""
        return held(self.path / ".lock")

    def check(
        self,
        table_name: str,
        contract: Contract,
        suite_name: str,
        parts: Iterator[CheckedPart],
        run_name: str,
        *,
        live: bool = False,
    ) -> ExpectationSuiteValidationResult:
        """Bring the stored suite up to date, run the table's checkpoint over its parts, and store the result.

        Args:
            table_name: the table, which the data asset is named after.
            contract: the table's contract.
            suite_name: the suite.
            parts: are validated one by one, as they are asked for.
            run_name: the run's name in the results.
            live: whether it is the live suite.

        Raises:
            ConfigError: the project cannot be read; says what to do.
            ContractError: the stored suite cannot be read, or what a part raises.
            OSError: the project cannot be written.
        """
        suite = build_suite(contract, suite_name, live=live, by_hand=by_hand(self.path, contract.id))
        with self._read():
            self._keep_ids(suite)
        name = f"{table_name}.{suite.name}"
        with self._read():
            whole = gx.ValidationDefinition(name=name, data=self._rows_of(table_name), suite=suite)
            stored = self.context.checkpoints.add_or_update(gx.Checkpoint(name=name, validation_definitions=[whole]))
        (kept,) = stored.validation_definitions
        # The same definition by name and id, but one that takes parts.
        parted = PartedValidation(name=name, data=kept.data, suite=kept.suite, id=kept.id)
        checkpoint = gx.Checkpoint(name=name, validation_definitions=[parted], id=stored.id)
        run = RunIdentifier(run_name=run_name, run_time=utc_now())
        done = checkpoint.run(batch_parameters={PARTS: parts}, run_id=run)
        (result,) = done.run_results.values()
        return result

    def forget_old(self) -> None:
        """Drop the results of runs that are no longer kept; their pages go when Data Docs are next built."""
        store, keys = self.context.validation_results_store, self._results()
        runs = list(dict.fromkeys(key.run_id.run_name for key in keys))
        dropped = set(runs[: -self._keep_runs])
        for key in keys:
            if key.run_id.run_name in dropped:
                store.remove_key(key)  # type: ignore[no-untyped-call]

    def build_docs(self) -> Path:
        """Build the pages of suites and of new results, drop those without a result, and return the index page.

        Raises:
            ConfigError: the project cannot be read; says what to do.
            OSError: the pages cannot be written.
        """
        docs = self.path / DOCS
        new = [key for key in self._results() if not (docs / "validations" / _page(key)).is_file()]
        suites = self.context.expectations_store.list_keys()
        pages = cast("list[ValidationResultIdentifier]", [*suites, *new])
        with self._read():
            self.context.build_data_docs(site_names=[_SITE], resource_identifiers=pages)
        # Scripts, fonts and pictures that our pages do without.
        shutil.rmtree(docs / "static", ignore_errors=True)
        return docs / "index.html"

    def _keep_ids(self, suite: gx.ExpectationSuite) -> None:
        """Give expectations that are stored already the ids they have, which others may refer to."""
        stored = next((each for each in self.context.suites.all() if each.name == suite.name), None)
        ids = {identity(each.configuration): each.id for each in stored.expectations} if stored else {}
        for each in suite.expectations:
            each.id = ids.pop(identity(each.configuration), None)

    def _results(self) -> list[ValidationResultIdentifier]:
        """Return the keys of all results, oldest first."""
        keys = cast("list[ValidationResultIdentifier]", self.context.validation_results_store.list_keys())
        return sorted(keys, key=lambda key: key.run_id.run_time)

    def _rows_of(self, table_name: str) -> BatchDefinition[Any]:
        """Return the batch definition of a table, made if need be."""
        sources = self.context.data_sources
        source = cast("PandasDatasource", sources.all()[_LAKE]) if _LAKE in sources.all() else sources.add_pandas(_LAKE)
        if table_name in source.get_asset_names():
            definition: BatchDefinition[Any] = source.get_asset(table_name).get_batch_definition(_ROWS)
            return definition
        return source.add_dataframe_asset(table_name).add_batch_definition_whole_dataframe(_ROWS)


def _page(key: ValidationResultIdentifier) -> Path:
    """Return where the page of a result is."""
    *folders, name = key.to_tuple()  # type: ignore[no-untyped-call]
    return Path(*folders) / f"{name}.html"
