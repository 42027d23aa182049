"""What a write did: an append row by row, a rewrite of files in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# One code for each row of a batch, in its order.
Kinds = NDArray[np.int8]
REPEATED, NEW, RESTATED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What rewriting data files did; `version` is the table's version after it."""

    version: int
    partitions: int = 0
    files_added: int = 0
    files_removed: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0


@dataclass(frozen=True, slots=True)
class Merged:
    """What merging rows in place did; `version` is the table's version after it."""

    version: int
    updated: int
    inserted: int


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What an append did; `version` is the table's version with it, `kinds` has a code for each row given."""

    table: str
    version: int
    kinds: Kinds

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self.new + self.restated

    @property
    def new(self) -> int:
        """How many keys the table did not have."""
        return int(np.count_nonzero(self.kinds == NEW))

    @property
    def restated(self) -> int:
        """How many keys got a new version."""
        return int(np.count_nonzero(self.kinds == RESTATED))

    @property
    def repeated(self) -> int:
        """How many rows the table, or a later row of the same batch, had already."""
        return int(np.count_nonzero(self.kinds == REPEATED))

    def part(self, start: int, count: int) -> AppendResult:
        """Return what happened to `count` rows of the batch from row `start`."""
        return AppendResult(self.table, self.version, self.kinds[start : start + count])
