"""What dbt knows of the project's models: what they are made from, and what they are as a digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.transform.functions import FUNCTIONS

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.contracts.graph.nodes import GenericTestNode, ModelNode, SingularTestNode

    TestNode = GenericTestNode | SingularTestNode

_VARIABLE = re.compile(r"""\bvar\(\s*['"](\w+)['"]""")
# What of a model's configuration says how its rows lie and which of them are made anew.
_CONFIGURED = ("materialized", "unique_key", "partition_by", "tblproperties", "meta")


class Project:
    """The parsed project."""

    def __init__(self, manifest: Manifest, variables: Mapping[str, Any]) -> None:
        """Look at a project.

        Args:
            manifest: what dbt has parsed.
            variables: the value of each variable, whether given or by default.
        """
        self.manifest = manifest
        self._variables = variables

    def model(self, unique_id: str) -> ModelNode | None:
        """Return a model; None if it is something else."""
        from dbt.contracts.graph.nodes import ModelNode  # noqa: PLC0415 - dbt is slow to import

        node = self.manifest.nodes.get(unique_id)
        return node if isinstance(node, ModelNode) else None

    def models(self) -> list[ModelNode]:
        """Return every model, each after those it is made from."""
        found: dict[str, ModelNode] = {}

        def visit(node: ModelNode) -> None:
            if node.unique_id not in found:
                for parent in self.parents(node):
                    visit(parent)
                found[node.unique_id] = node

        for unique_id in sorted(self.manifest.nodes):
            if node := self.model(unique_id):
                visit(node)
        return list(found.values())

    def parents(self, node: ModelNode | TestNode) -> list[ModelNode]:
        """Return the models that a model or test reads."""
        return [model for unique_id in node.depends_on.nodes if (model := self.model(unique_id))]

    def tables_read(self, node: ModelNode | TestNode) -> list[ModelNode]:
        """Return the tables that a model or test reads, by itself or through views."""
        found = {
            table.unique_id: table
            for parent in self.parents(node)
            for table in (self.tables_read(parent) if is_view(parent) else [parent])
        }
        return list(found.values())

    def bronze_read(self, node: ModelNode | TestNode) -> set[str]:
        """Return the bronze tables that a model or test reads, by itself or through views."""
        sources = (self.manifest.sources.get(unique_id) for unique_id in node.depends_on.nodes)
        found = {source.identifier for source in sources if source}
        return found.union(*(self.bronze_read(parent) for parent in self.parents(node) if is_view(parent)))

    def bronze_of(self, node: ModelNode) -> set[str]:
        """Return the bronze tables that a model is made from, by whatever way."""
        return self.bronze_read(node).union(*(self.bronze_of(table) for table in self.tables_read(node)))

    def definition(self, node: ModelNode, of_table: Callable[[ModelNode], str | None]) -> str | None:
        """Return a digest of all that says what a model's rows are: of itself and of the tables it reads.

        Args:
            node: the model.
            of_table: tells the digest of a table that the model reads; None if nobody knows.

        Returns:
            The digest; None if that of a table it reads is not known.
        """
        digests = [of_table(table) for table in self.tables_read(node)]
        if None in digests:
            return None
        texts = sorted({*self._texts(node), *(digest for digest in digests if digest)})
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def expected(self, node: ModelNode) -> str:
        """Return the digest of a model that is made anew together with all that it is made from."""
        return self.definition(node, self.expected) or ""

    def test(self, unique_id: str) -> TestNode | None:
        """Return a test of tables or views; None if it is something else."""
        return self._tests.get(unique_id)

    def tested_by(self, unique_id: str) -> ModelNode | None:
        """Return the model that a test is about; None if it is about several, or if the node is no test."""
        test = self._tests.get(unique_id)
        about = [] if test is None else [model for name in test.depends_on.nodes if (model := self.model(name))]
        return about[0] if len(about) == 1 else None

    def tests_of(self, node: ModelNode) -> list[TestNode]:
        """Return the tests that are about a model, by itself or with others."""
        return [test for test in self._tests.values() if node.unique_id in test.depends_on.nodes]

    @cached_property
    def _tests(self) -> dict[str, TestNode]:
        """Every test of tables and views, by its id."""
        from dbt.contracts.graph.nodes import GenericTestNode, SingularTestNode  # noqa: PLC0415 - dbt is slow to import

        return {
            unique_id: node
            for unique_id, node in self.manifest.nodes.items()
            if isinstance(node, GenericTestNode | SingularTestNode)
        }

    def _texts(self, node: ModelNode) -> Iterator[str]:
        """Return what a model consists of, with the views that it reads."""
        texts = [node.raw_code, *self._macros(node.depends_on.macros)]
        yield from texts
        yield json.dumps({name: node.config.get(name) for name in _CONFIGURED}, sort_keys=True, default=str)
        for name in {name for text in texts for name in _VARIABLE.findall(text)}:
            yield json.dumps([name, self._variables.get(name)], sort_keys=True, default=str)
        for name, function in FUNCTIONS.items():
            if name in node.raw_code:
                yield function.digest()
        for parent in self.parents(node):
            if is_view(parent):
                yield from self._texts(parent)

    def _macros(self, unique_ids: list[str]) -> Iterator[str]:
        """Return the text of the project's own macros, with those that they call."""
        for unique_id in unique_ids:
            macro = self.manifest.macros[unique_id]
            if macro.package_name == self.manifest.metadata.project_name:
                yield macro.macro_sql
                yield from self._macros(macro.depends_on.macros)


def is_view(node: ModelNode) -> bool:
    """Say whether a model is no table of the lake: a view, or only a part of other models' SQL."""
    return node.config.materialized in {"view", "ephemeral"}
