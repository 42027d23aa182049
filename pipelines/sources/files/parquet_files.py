"""Parquet, batch by batch; the footer at its end proves that the file was written to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import SourceError
from pipelines.sources.files.columns import Columns

BATCH_ROWS = 250_000


def read_parquet(path: Path, columns: Columns) -> Iterator[pa.Table]:
    """Yield a Parquet file's wanted columns as they are typed in it.

    Raises:
        SourceError: the file is cut, damaged or no Parquet, or lacks a column.
    """
    rows = 0
    try:
        with pq.ParquetFile(path) as file:
            found = columns.find(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(found.values())):
                table = pa.Table.from_batches([batch])
                yield pa.table({name: table[column] for name, column in found.items()})
                rows += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = f"damaged after row {rows}" if rows else "not a complete Parquet file"
        raise SourceError(f"{path}: {where}: {str(error).splitlines()[0]}") from None
