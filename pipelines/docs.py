"""Writes the pages of docs/ that derive from declarations: `python -m pipelines.docs`; `--check` compares.

The dictionary of bronze comes from the contracts, that of silver and gold, with their lineage, from the dbt project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.config import PROJECT_ROOT, DeltaLakeSettings
from pipelines.contracts import Column, Contract, RowRule, load_contracts
from pipelines.generated import write_or_check
from pipelines.markdown import code, codes, table

DOCS = PROJECT_ROOT / "docs"
DICTIONARY = DOCS / "data_dictionary.md"
MODELS_DICTIONARY = DOCS / "data_dictionary_silver_gold.md"
_INTRODUCTION = """\
# Data dictionary

Written by `python -m pipelines.docs` from [config/contracts](../config/contracts); edit the contracts, not this page.
Times are UTC. A column is filled by the *source* (what the provider or file said), by the *edge* (what is known of the
whole batch, added while it is validated) or by *storage* (when it is written). A row that breaks a rule of severity
`error` goes to the dead letter queue with the rule's name as its reason. A rule that is also a *table constraint* is
enforced by Delta itself, whoever writes. In rules, `price_min` and `price_max` are the instrument's bounds,
`closes_at` is the bar's close and `now` the moment of the check. A rule of severity `warning` refuses nothing; it is
reported by suites and may read `spike_score`, the robust score of a bar whose price leaves its neighbours and comes
back, and `flat_run`, how many bars in a row stand still at one price. Both are null below the limits of the settings
`quality.spike_score` and `quality.flat_run_bars`.
"""


def data_dictionary(contracts: Iterable[Contract]) -> str:
    """Return the page, in Markdown, for contracts in the given order."""
    listed = list(contracts)
    overview = table(
        ("dataset", "what", "tables", "identity of a row"),
        ((f"[{c.id}](#{c.id})", c.description, str(len(c.tables)), codes(c.keys) or "none: a log") for c in listed),
    )
    return "\n".join([_INTRODUCTION, *overview, *(line for contract in listed for line in _section(contract))]) + "\n"


def pages() -> Mapping[str, str]:
    """Return every generated page, by the name of its file.

    Raises:
        TransformError: dbt cannot read its project.
    """
    from pipelines.transform.dictionary import models_page, read_project  # noqa: PLC0415 - dbt is slow to import

    return {
        DICTIONARY.name: data_dictionary(load_contracts().values()),
        MODELS_DICTIONARY.name: models_page(read_project()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check compare them; returns 1 if one is stale."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.docs", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where the pages are")
    given = parser.parse_args(arguments)
    found = {given.folder / name: page for name, page in pages().items()}
    return write_or_check(found, "pipelines.docs", check=given.check)


def _section(contract: Contract) -> Iterator[str]:
    yield from ("", f"## {contract.id}", "", contract.description, "")
    yield from _facts(contract)
    yield from ("", "### Columns", "")
    header = ("column", "type", "null", "filled by", "meaning")
    yield from table(header, (_column_row(column, contract) for column in contract.columns))
    yield from ("", "### Rules", "")
    yield from table(
        ("reason", "true for a good row", "severity", "table constraint"), map(_rule_row, contract.row_rules)
    )


def _facts(contract: Contract) -> Iterator[str]:
    yield f"- Contract version {contract.version}"
    yield f"- Tables: {codes(contract.tables)}"
    if contract.keys:
        yield f"- A row is identified by {codes(contract.keys)}"
        yield f"- A new version of a row is one that differs in {codes(contract.value_columns)}"
    if contract.event_time:
        yield f"- Event time: `{contract.event_time}`"
    yield f"- Partitions: {_partitions(contract)}"
    if contract.freshness_minutes is not None:
        yield f"- Expected freshness: {_duration(contract.freshness_minutes)}"


def _partitions(contract: Contract) -> str:
    if not contract.partition_columns:
        return "none"
    cuts = {table: contract.granularity(table, DeltaLakeSettings()) for table in contract.tables}
    if len(cuts) == 1:
        how = f"the {cuts[contract.tables[0]]}"
    else:
        of_each = (f"the {cut} for {table.removeprefix(f'{contract.id}_')}" for table, cut in cuts.items())
        how = f"{', '.join(of_each)} (setting `delta_lake.partition_granularity`)"
    return f"{codes(contract.partition_columns)}; the date is {how}"


def _duration(minutes: float) -> str:
    for unit, length in (("day", 1440), ("hour", 60)):
        if minutes >= length and minutes % length == 0:
            return f"{minutes / length:g} {unit}{'s' if minutes > length else ''}"
    return f"{minutes:g} minutes"


def _column_row(column: Column, contract: Contract) -> tuple[str, ...]:
    remarks = [column.description]
    if column.name in contract.keys:
        remarks.append("Part of the identity.")
    if column.allowed:
        remarks.append(f"One of {codes(column.allowed)}.")
    null = "no" if column.required else "yes"
    return f"`{column.name}`", f"`{column.type}`", null, column.provided, " ".join(remarks)


def _rule_row(rule: RowRule) -> tuple[str, ...]:
    return rule.reason, code(rule.expression), rule.severity, "yes" if rule.check_constraint else "no"


if __name__ == "__main__":
    sys.exit(main())
