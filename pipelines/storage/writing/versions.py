"""The newest stored versions of some keys, read as an append reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.contracts import contract_for
from pipelines.storage.creation import GRANULARITY, property_of
from pipelines.storage.scan import INGESTED_AT
from pipelines.storage.writing.dedupe import PREVIOUS, newest_stored

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake


def newest_versions(lake: Lake, table_name: str, rows: pa.Table) -> pa.Table | None:
    """Return the newest stored version of the keys of some rows; see `DeltaLakeManager.newest_versions`."""
    contract = contract_for(table_name)
    if not rows.num_rows or not contract.keys or not lake.exists(table_name):
        return None
    table = lake.open(table_name)
    keys = pl.DataFrame(rows.select(list(contract.keys)))
    found = newest_stored(table, contract, keys, property_of(table, GRANULARITY))
    return None if found is None else found.rename({PREVIOUS: INGESTED_AT}).to_arrow()
