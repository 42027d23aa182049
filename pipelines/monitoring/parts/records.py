"""Rows of bronze by asset pair, length of bar and provider: the lake's own counts, whoever landed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric

from pipelines.contracts import Contract, load_contracts
from pipelines.errors import LakehouseError
from pipelines.monitoring.file_counts import FileCounts
from pipelines.monitoring.labels import Bounded
from pipelines.monitoring.parts.base import Look

_MOST_SUBJECTS, _MOST_PROVIDERS = 1000, 50
_LABELS = ("asset_pair", "timeframe", "provider")


class Records:
    """Counts rows, every version of a restated one."""

    name = "records"

    def __init__(self) -> None:
        self._counts: dict[str, FileCounts] = {}
        self._subject, self._provider = Bounded(_MOST_SUBJECTS), Bounded(_MOST_PROVIDERS)

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return one family."""
        found: Counter[tuple[str, ...]] = Counter()
        for contract, name in _data_tables():
            table = look.tables.get(name)
            if table is None:
                continue
            counts = self._counts.setdefault(table.name, FileCounts([_subject_of(contract), "provider"]))
            try:
                rows = counts.of(table)
            except LakehouseError as error:
                look.problem(table.name, error)
                continue
            counts.forget_others([table])
            timeframe = contract.timeframe_of(name)
            length = timeframe.value if timeframe else ""
            for (subject, provider), number in sorted(rows.items(), key=lambda item: tuple(map(str, item[0]))):
                found[self._subject(subject), length, self._provider(provider)] += number
        family = CounterMetricFamily("pipeline_ingestion_records", "Rows of bronze.", labels=_LABELS)
        for labels, number in found.items():
            family.add_metric(labels, number)
        return [family]


def _data_tables() -> list[tuple[Contract, str]]:
    """Return the tables that rows of providers land in, each with its contract."""
    found = [each for each in load_contracts().values() if not each.is_log and "provider" in each.arrow_schema.names]
    return [(contract, table) for contract in found for table in contract.tables]


def _subject_of(contract: Contract) -> str:
    return "asset_pair" if "asset_pair" in contract.arrow_schema.names else contract.keys[0]
