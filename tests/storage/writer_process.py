"""A writer to race with or to kill: says `ready`, then obeys one command a line: `append DAYS` or `race ROUNDS`."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bars import DAY0, bars

from pipelines.session import get_spark
from pipelines.storage import DeltaLakeManager
from pipelines.storage.writing import append as appending


def say(text: str) -> None:
    """Tell the parent."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve commands until the input ends."""
    lake = DeltaLakeManager(sys.argv[1])
    signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
    get_spark()
    lake.append("raw_market_data_4h", bars("4h"), "warm-up")
    say("ready")
    for line in sys.stdin:
        command, number = line.split()
        if command == "append":
            worker = threading.Thread(target=append, args=(lake, int(number)))
            worker.start()
            worker.join()
        else:
            race(lake, int(number))


def append(lake: DeltaLakeManager, days: int) -> None:
    """Append days of minutes."""
    say("appending")
    result = lake.append("raw_market_data_1m", bars("1m", count=1440 * days), "victim")
    say(f"appended {result.rows}")


def race(lake: DeltaLakeManager, rounds: int) -> None:
    """Append rounds of one day without waiting for a turn, so that only the log decides."""
    appending.turn = lambda *_: contextlib.nullcontext()
    written = 0
    for index in range(rounds):
        written += lake.append("raw_market_data_1h", bars(start=DAY0 + timedelta(days=index), count=24), "race").new
    say(f"raced {written}")


if __name__ == "__main__":
    main()
