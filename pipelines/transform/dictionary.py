"""The page about the tables of silver and gold: lineage and data dictionary, from what dbt knows of its project."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.markdown import codes, table
from pipelines.storage.layers import LAYERS
from pipelines.transform.indicators import COLUMNS
from pipelines.transform.plan import ENRICHED
from pipelines.transform.project import Project, is_view
from pipelines.transform.runner import dbt_environment, parsed

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.contracts.graph.nodes import Exposure, ModelNode

    from pipelines.transform.project import TestNode

_INTRODUCTION = """\
# Data dictionary: silver and gold

Written by `python -m pipelines.docs` from the [dbt project](../dbt/models); edit its files, not this page. How the
tables are made is in [transform.md](transform.md), every rule of the marts in [marts.md](marts.md), bronze in
[data_dictionary.md](data_dictionary.md). Times are UTC. Any column can be null unless it is part of the identity, or
its description or a check says otherwise. Tables `int_*` are steps to the marts and may change.
"""
_LINEAGE = """\
## Lineage

Tables and what reads them; the staging views, which choose one version of each bronze row, are left out.
"""
_BARS = "raw_market_data_"
_INTERMEDIATE = "int_"


def read_project() -> Project:
    """Return dbt's project as it is in the checkout.

    Raises:
        TransformError: it cannot be parsed.
    """
    with tempfile.TemporaryDirectory() as folder, dbt_environment(Path(folder)):
        return Project(parsed([]), {})


def models_page(project: Project) -> str:
    """Return the page, in Markdown."""
    tables = [node for node in project.models() if not is_view(node)]
    listed = sorted(tables, key=lambda node: (_is_step(node.name), LAYERS.index(node.schema), node.name))
    overview = table(
        ("table", "layer", "identity of a row", "what"),
        ((f"[{n.name}](#{n.name})", n.schema, codes(_key(n)), _sentence(n.description)) for n in listed),
    )
    sections = (line for node in listed for line in _section(project, node))
    return "\n".join([_INTRODUCTION, _LINEAGE, *_picture(project, tables), "", *overview, *sections]) + "\n"


def _picture(project: Project, tables: list[ModelNode]) -> Iterator[str]:
    """Yield the lines of the diagram: a box for each layer, an arrow for each table read."""
    exposures = sorted(project.manifest.exposures.values(), key=lambda exposure: exposure.name)
    edges = sorted(
        {(_bronze(name), node.name) for node in tables for name in project.bronze_read(node)}
        | {(parent.name, node.name) for node in tables for parent in project.tables_read(node)}
        | {(read, exposure.name) for exposure in exposures for read in _read_by(project.manifest, exposure)}
    )
    steps = [node.name for node in tables if _is_step(node.name)]
    made = {schema: [n.name for n in tables if n.schema == schema and n.name not in steps] for schema in LAYERS}
    boxes = {
        "bronze": sorted({_bronze(name) for node in tables for name in project.bronze_read(node)}),
        "silver": sorted(made["silver"]),
        "steps": sorted(steps),
        "gold": sorted(made["gold"]),
        "readers": [exposure.name for exposure in exposures],
    }
    yield from ("```mermaid", "flowchart LR")
    for box, names in boxes.items():
        yield from (f"    subgraph {box}", *(f"        {name}[{_label(name)}]" for name in names), "    end")
    yield from (f"    {start} --> {end}" for start, end in edges)
    yield "```"


def _section(project: Project, node: ModelNode) -> Iterator[str]:
    read = sorted({*project.bronze_read(node), *(parent.name for parent in project.tables_read(node))})
    yield from ("", f"## {node.name}", "", _flat(node.description), "")
    yield f"- A row is identified by {codes(_key(node))}"
    yield f"- Made from {codes(read)}"
    if cuts := node.config.get("partition_by"):
        yield f"- Partitions: {codes(cuts)}"
    yield f"- Checks: {', '.join(_checks(project, node))}"
    yield ""
    columns = list(node.columns.values())
    rows = [(f"`{column.name}`", f"`{column.data_type}`", _flat(column.description)) for column in columns]
    if node.name != ENRICHED:
        yield from table(("column", "type", "meaning"), rows)
        return
    warm_up = {column.name: str(column.warm_up) for column in COLUMNS}
    header = ("column", "type", "meaning", "warm-up: bars before the first that can have a value")
    yield from table(header, ([*row, warm_up.get(c.name, "")] for row, c in zip(rows, columns, strict=True)))


def _checks(project: Project, node: ModelNode) -> list[str]:
    """Return the tests of a model in words, sorted: what each is of, or the name of one that is by itself."""
    return sorted({_check(test) for test in project.tests_of(node)})


def _check(test: TestNode) -> str:
    from dbt.contracts.graph.nodes import SingularTestNode  # noqa: PLC0415 - dbt is slow to import

    if isinstance(test, SingularTestNode):
        return test.name.replace("_", " ")
    column = f" (`{test.column_name}`)" if test.column_name else ""
    return test.test_metadata.name.replace("_", " ") + column


def _read_by(manifest: Manifest, exposure: Exposure) -> list[str]:
    return [manifest.nodes[name].name for name in exposure.depends_on.nodes]


def _key(node: ModelNode) -> list[str]:
    key = node.config.get("unique_key")
    return [key] if isinstance(key, str) else list(key)


def _bronze(table_name: str) -> str:
    """Return what the diagram calls a bronze table: the six of bars are one."""
    return _BARS + "tf" if table_name.startswith(_BARS) else table_name


def _label(name: str) -> str:
    return f"{_BARS}1m … 1d" if name == _BARS + "tf" else name


def _is_step(name: str) -> bool:
    return name.startswith(_INTERMEDIATE)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _sentence(text: str) -> str:
    """Return the first sentence."""
    return _flat(text).partition(". ")[0].removesuffix(".") + "."
