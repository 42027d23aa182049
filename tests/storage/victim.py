"""A process that rewrites a table over and over, to be killed or raced with: says `ready`, waits for a line, begins.

Tasks: `rewrite` rewrites every file and, at the same time, moves all closes of the quotes by one; `append N` appends N
batches, each of an hour of its own; every finished round is said.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).parent))

from bars import DAY0, bars

from pipelines.config import Settings
from pipelines.storage import DeltaLakeManager
from pipelines.storage.writing import append as appending

TABLE = "raw_market_data_1h"
QUOTES = "quotes"


def say(text: str) -> None:
    """Tell the parent."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do the task until killed, or so many times."""
    address, engine, task, number = sys.argv[1:]
    lake = DeltaLakeManager(address, Settings.model_validate({"storage": {"engine": engine}}))
    lake.warm_up()
    say("ready")
    sys.stdin.readline()
    if task == "append":
        append(lake, int(number))
        return
    threading.Thread(target=over_and_over, args=(optimize, lake), daemon=True).start()
    over_and_over(merge, lake)


def over_and_over(rewrite: Callable[[DeltaLakeManager], None], lake: DeltaLakeManager) -> None:
    """Do it until killed; if it fails, nothing goes on."""
    try:
        while True:
            rewrite(lake)
            say(rewrite.__name__)
    except BaseException:  # noqa: BLE001 - whatever it was, the parent hears no more
        traceback.print_exc()
        os._exit(1)


def optimize(lake: DeltaLakeManager) -> None:
    """Rewrite every file."""
    lake.optimize_table(TABLE, zorder_columns=["timestamp"])


def merge(lake: DeltaLakeManager) -> None:
    """Raise every close by one."""
    rows = lake.read_arrow(QUOTES, columns=["asset_pair", "timestamp", "close"])
    raised: pa.Table = rows.set_column(2, "close", pc.add(rows["close"], 1.0))
    lake.merge_upsert(raised, QUOTES, ["asset_pair", "timestamp"], ["close"])


def append(lake: DeltaLakeManager, batches: int) -> None:
    """Append batches that nobody else appends, without waiting for a turn: the parent gives each writer a provider."""
    appending.turn = lambda *_: contextlib.nullcontext()
    provider = sys.stdin.readline().strip()
    for index in range(batches):
        rows = bars(start=DAY0 + timedelta(hours=index), count=1, provider=provider)
        say(f"landed {lake.append(TABLE, rows, provider).new}")


if __name__ == "__main__":
    main()
