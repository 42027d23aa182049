"""Ticks in JSON: a backlog at a broker, or so many a second; as a program it is the latter and prints one JSON line."""

from __future__ import annotations

import argparse
import json
import random
import time
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from benchmarks.bars import ASSETS
from benchmarks.measure import BenchmarkError

_START = datetime(2025, 12, 7, 8, tzinfo=UTC)
# A market as busy as this has left the backlog behind.
_BACKLOG_A_SECOND = 200
_PULSE_SECONDS = 0.01
_FLUSH_SECONDS = 60.0
# More may be on their way to the broker than are handed over between two looks.
_LOOK_EVERY = 10_000
_BUFFERED = 1_000_000
# Of syslog.
_ERRORS = 3


class Feed:
    """Sends ticks of ten assets in turn to a topic, keyed by asset."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        # What a producer of many small messages sets; a live tick waits five milliseconds for others, as by default.
        options = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "lz4"}
        # A broker that has just started makes it ask again for its identity, of which it would warn.
        self._producer = Producer({**options, "queue.buffering.max.messages": _BUFFERED, "log_level": _ERRORS})
        self._topic = topic
        self._random = random.Random(0)
        self._prices = dict.fromkeys(ASSETS, 100.0)
        self._failed: list[str] = []
        self.sent = 0

    def send(self, at: datetime) -> None:
        """Hand over the next tick with an event time."""
        asset = ASSETS[self.sent % len(ASSETS)]
        price = self._prices[asset] = round(self._prices[asset] + self._random.uniform(-0.01, 0.01), 4)
        value = (
            f'{{"asset_pair":"{asset}","timestamp":"{at:%Y-%m-%dT%H:%M:%S.%f}Z","price":{price},'
            f'"volume":{self._random.randrange(1, 10_000) / 10_000},"bid":{price - 0.01:.4f},"ask":{price + 0.01:.4f},'
            f'"side":"{"buy" if self.sent % 3 else "sell"}","tick_id":"{asset}-{self.sent}","provider":"coinbase"}}'
        )
        self._producer.produce(self._topic, value, asset, on_delivery=self._note)
        self.sent += 1

    def look(self) -> None:
        """Let what was delivered be told."""
        self._producer.poll(0)

    def end(self) -> None:
        """Wait until the broker has all.

        Raises:
            BenchmarkError: it does not.
        """
        left = self._producer.flush(_FLUSH_SECONDS)
        if left or self._failed:
            raise BenchmarkError(f"{left + len(self._failed)} messages were not delivered: {self._failed[:1]}")

    def _note(self, error: object, _: object) -> None:
        if error is not None:
            self._failed.append(str(error))


def backlog(bootstrap: str, topic: str, messages: int) -> None:
    """Produce so many ticks as fast as the broker takes them.

    Raises:
        BenchmarkError: not all of them were delivered.
    """
    feed, step = Feed(bootstrap, topic), timedelta(seconds=1) / _BACKLOG_A_SECOND
    while feed.sent < messages:
        for _ in range(min(_LOOK_EVERY, messages - feed.sent)):
            feed.send(_START + feed.sent * step)
        feed.look()
    feed.end()


def live(bootstrap: str, topic: str, rate: int, seconds: int) -> dict[str, float]:
    """Produce so many ticks a second, each with the present as its time; returns when it began and ended (epoch)."""
    feed, began = Feed(bootstrap, topic), time.time()
    while feed.sent < rate * seconds:
        # As many as are due by now: a late pulse sends more.
        due = min(int((time.time() - began + _PULSE_SECONDS) * rate), rate * seconds)
        while feed.sent < due:
            feed.send(datetime.now(UTC))
        feed.look()
        time.sleep(_PULSE_SECONDS)
    ended = time.time()
    feed.end()
    return {"messages": feed.sent, "began": began, "ended": ended}


def main() -> None:
    """Read the arguments, feed, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(live(given.bootstrap, given.topic, given.rate, given.seconds)))


if __name__ == "__main__":
    main()
