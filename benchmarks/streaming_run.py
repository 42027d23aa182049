"""Ours: StreamIngester on a backlog or on a live topic, its Spark session up before; prints one JSON line."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipelines.config import Settings, load_settings
from pipelines.session import get_spark
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.status import BatchStatus
from pipelines.streaming.streaming_ingestion import Mode, StreamIngester
from pipelines.streaming.topics import topic_named

_SAMPLE_SECONDS = 1.0


def settings_of(lake: Path, bootstrap: str, batch: int | None = None) -> Settings:
    """Return the usual settings, of a lake of its own; providers are not asked for what the stream cannot have seen."""
    streaming = {"bootstrap_servers": bootstrap, "heal_hours": 0}
    return load_settings(
        overrides={
            "delta_lake": {"storage_path": str(lake)},
            "dlq": {"path": str(lake / "dlq")},
            "streaming": streaming | ({} if batch is None else {"max_messages_per_batch": batch}),
        }
    )


def stream(given: argparse.Namespace) -> dict[str, Any]:
    """Read so many messages and return what was measured.

    Returns:
        `batches`: when each was done (epoch), its seconds, its messages; `ended`; `memory`: moments (epoch) with
        the bytes resident of Python and of the JVM.
    """
    settings = settings_of(given.lake, given.bootstrap, given.batch)
    get_spark(settings, needs=["kafka"]).range(10).count()
    lake, topic = DeltaLakeManager(given.lake, settings), topic_named(settings, given.topic)
    batches: list[tuple[float, float, int]] = []
    stop = threading.Event()
    # Else a live stream whose feed has failed would wait for ever.
    late = threading.Timer(given.within, stop.set)

    def note(status: BatchStatus) -> None:
        if status.state != "running" or not status.rows:
            return
        batches.append((time.time(), status.seconds, status.rows))
        if given.task == "live" and sum(rows for _, _, rows in batches) >= given.messages:
            stop.set()

    mode = Mode.CONTINUOUS if given.task == "live" else Mode.AVAILABLE_NOW
    late.start()
    with _sampled() as memory:
        (result,) = StreamIngester(lake, settings, [topic]).run(mode, stop, note)
        ended = time.time()
    late.cancel()
    if result.error or result.landed != given.messages:
        raise SystemExit(f"{result}, not {given.messages:,} messages")
    return {"batches": batches, "ended": ended, "bars": result.bars, "memory": memory}


@contextmanager
def _sampled() -> Iterator[list[tuple[float, int, int]]]:
    """Look at the memory of this process and of its JVM once a second."""
    samples: list[tuple[float, int, int]] = []
    ended = threading.Event()
    here = psutil.Process()
    jvm = next(child for child in here.children(recursive=True) if Path(child.exe()).name == "java")

    def look() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append((time.time(), here.memory_info().rss, jvm.memory_info().rss))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """Read the arguments, stream, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("drain", "live"))
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--within", type=int, default=3_000, help="seconds after which it is stopped")
    parser.add_argument("--batch", type=int, help="messages a batch takes at most; by default as the settings say")
    print(json.dumps(stream(parser.parse_args())))


if __name__ == "__main__":
    main()
