"""A replay in a process of its own, to be killed: `python -m tests.data_quality.replay_worker FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.batch.progress import Progress
from pipelines.data_quality import DeadLetterQueue
from pipelines.data_quality.replay import Replay
from pipelines.storage import DeltaLakeManager
from tests.conftest import make_settings


class Told(Progress):
    """Says on standard output when rows have landed."""

    def landed(self, rows: int) -> None:
        print(f"landed {rows}", flush=True)  # noqa: T201


def main(folder: str) -> int:
    """Replay the queue in many small chunks, so that a kill has much to hit."""
    settings = make_settings(Path(folder), {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    queue = DeadLetterQueue(settings.dlq.path)
    result = Replay(queue, settings, lambda _: lake, Told(), chunk_rows=100).run(queue.files())
    print("done", result.ok, flush=True)  # noqa: T201
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
