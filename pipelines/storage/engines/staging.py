"""Hands rows to the JVM as files: cheaper than a socket, and the driver never holds them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipelines.contracts import Contract

# Below it, a second task costs more than it saves.
_ROWS_PER_TASK = 20_000


def stage(rows: pa.Table, contract: Contract, folder: Path, tasks: int) -> None:
    """Write rows as one Parquet file per task, grouped by partition and in order of event time.

    No partition is in two files, so each gets one new data file, and nothing has to be shuffled.

    Raises:
        OSError: the folder cannot be written.
    """
    rows, codes = _grouped(rows, contract)
    borders = _borders(codes, min(tasks, max(1, rows.num_rows // _ROWS_PER_TASK)))

    def write(number: int, start: int, end: int) -> None:
        # Spark cuts a file between row groups only.
        file = folder / f"{number:03}.parquet"
        pq.write_table(rows.slice(start, end - start), file, compression="NONE", row_group_size=end - start)

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(write, number, *ends) for number, ends in enumerate(pairwise(borders))]:
            done.result()


def _grouped(rows: pa.Table, contract: Contract) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the rows ordered by partition and event time, and a number for each row's partition."""
    codes = np.zeros(rows.num_rows, np.int64)
    for name in contract.partition_columns:
        values = rows[name].combine_chunks().dictionary_encode()
        codes = codes * (len(values.dictionary) + 1) + values.indices.fill_null(len(values.dictionary)).to_numpy()
    # What a source answers is in order of time, so a stable sort of small numbers is all there is to do.
    order = np.argsort(_small(codes), kind="stable")
    codes = codes[order]
    times = None if contract.event_time is None else rows[contract.event_time].cast(pa.int64()).to_numpy()[order]
    if times is not None and np.any((np.diff(times) < 0) & (np.diff(codes) == 0)):
        again = np.lexsort((times, codes))
        order, codes = order[again], codes[again]
    return rows.take(pa.array(order)), codes


def _small(codes: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.uint16]:
    """Return codes as 16-bit numbers where they fit: numpy sorts those by radix."""
    return codes.astype(np.uint16) if codes.size and codes.max() <= np.iinfo(np.uint16).max else codes


def _borders(codes: NDArray[np.int64], tasks: int) -> list[int]:
    """Return where to cut rows into about equal parts, between partitions."""
    count = len(codes)
    starts = np.flatnonzero(np.diff(codes)) + 1
    wanted = [count * task // tasks for task in range(1, tasks)]
    cuts = {int(starts[np.searchsorted(starts, want)]) for want in wanted if starts.size and want <= starts[-1]}
    return [0, *sorted(cuts), count]
