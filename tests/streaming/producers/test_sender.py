"""Every message that is taken gets an answer: delivered once, or counted as failed. The broker is a real one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pipelines.config import Settings
from pipelines.streaming.clients import BrokerError, TopicNotFoundError
from pipelines.streaming.creation import create_topics
from pipelines.streaming.ports import reserved_port
from pipelines.streaming.producers.confluent import FastSender
from pipelines.streaming.producers.plain import PlainSender
from pipelines.streaming.producers.sender import Sender
from tests.conftest import make_settings
from tests.servers.kafka import Broker
from tests.streaming.producers.reading import messages

pytestmark = pytest.mark.kafka
ASSETS = [f"ASSET{number}" for number in range(20)]
KINDS = (FastSender, PlainSender)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[Sender]:
    found: type[Sender] = request.param
    return found


@pytest.fixture
def topic(kafka_settings: Settings) -> str:
    create_topics(kafka_settings)
    return next(iter(kafka_settings.streaming.topics))


def produced(topic: str) -> float:
    return REGISTRY.get_sample_value("kafka_messages_produced_total", {"topic": topic}) or 0.0


class Answers:
    """What senders say of numbered messages, from whichever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.delivered: Counter[int] = Counter()
        self.failed: dict[int, str] = {}

    def send(self, sender: Sender, number: int) -> bool:
        def report(failure: str | None) -> None:
            with self._lock:
                if failure is None:
                    self.delivered[number] += 1
                else:
                    self.failed[number] = failure

        return sender.send(b"BTCUSD", str(number).encode(), report)


def test_what_is_sent_is_there_once_in_order_and_counted(
    kind: type[Sender], kafka_settings: Settings, topic: str
) -> None:
    with kind(kafka_settings, topic) as sender:
        for number in range(5_000):
            assert sender.send(ASSETS[number % 20].encode(), str(number).encode())
    found = messages(kafka_settings, topic)
    for asset in range(20):
        here = [each for each in found if each.key == ASSETS[asset].encode()]
        assert [int(each.value) for each in here] == list(range(asset, 5_000, 20))
        assert len({each.partition for each in here}) == 1
    assert len({each.partition for each in found}) == 2
    counts = sender.deliveries()
    assert (counts.taken, counts.delivered, counts.failed, counts.waiting) == (5_000, 5_000, {}, 0)
    assert produced(topic) == 5_000


def test_both_senders_send_a_key_to_the_same_partition(kafka_settings: Settings, topic: str) -> None:
    for kind in (FastSender, PlainSender):
        with kind(kafka_settings, topic) as sender:
            for asset in ASSETS:
                sender.send(asset.encode(), kind.__name__.encode())
    where = {(each.key, each.value): each.partition for each in messages(kafka_settings, topic)}
    assert len(where) == 40
    for asset in ASSETS:
        assert where[asset.encode(), b"FastSender"] == where[asset.encode(), b"PlainSender"]


def test_a_message_that_no_topic_takes_has_failed_and_the_others_have_not(
    kind: type[Sender], kafka_settings: Settings, topic: str
) -> None:
    reasons: list[str | None] = []
    with kind(kafka_settings, topic) as sender:
        assert sender.send(b"BTCUSD", b"before")
        assert sender.send(b"BTCUSD", b"x" * 2_500_000)
        assert sender.send(b"BTCUSD", b"x" * 5_000_000, reasons.append)
        assert sender.send(b"BTCUSD", b"after")
    assert [len(each.value) for each in messages(kafka_settings, topic)] == [6, 2_500_000, 5]
    counts = sender.deliveries()
    assert (counts.taken, counts.delivered, counts.lost) == (4, 3, 1)
    assert list(counts.failed) == reasons
    assert "large" in str(reasons[0]).lower()


def test_without_the_topic_or_the_broker_nothing_starts(kafka_settings: Settings, tmp_path: Path) -> None:
    name = next(iter(kafka_settings.streaming.topics))
    with pytest.raises(TopicNotFoundError, match="lakehouse topics create"), PlainSender(kafka_settings, name):
        pass
    nowhere = make_settings(tmp_path, {"streaming": {"bootstrap_servers": f"127.0.0.1:{reserved_port()}"}})
    started = time.monotonic()
    with pytest.raises(BrokerError, match=r"streaming\.bootstrap_servers"), FastSender(nowhere, name):
        pass
    assert time.monotonic() - started < 20


def test_a_broker_killed_in_mid_production_loses_and_repeats_nothing(
    kafka_settings: Settings, topic: str, kafka: Broker
) -> None:
    total, senders, answers = 10_000, [kind(kafka_settings, topic) for kind in KINDS], [Answers(), Answers()]
    before = []

    def produce(place: int) -> None:
        with senders[place] as sender:
            for number in range(place * total, (place + 1) * total):
                assert answers[place].send(sender, number)
                if not number % 50:
                    sender.wait(0.02)

    with ThreadPoolExecutor() as pool:
        producing = [pool.submit(produce, place) for place in range(len(KINDS))]
        deadline = time.monotonic() + 60
        while min(sender.deliveries().delivered for sender in senders) < 1_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kafka.kill()
        before = [sender.deliveries().taken for sender in senders]
        kafka.restart()
        for each in producing:
            each.result()
    assert max(before) < total, "the kill came too late to be in mid-production"
    there = Counter(int(each.value) for each in messages(kafka_settings, topic))
    assert set(there.values()) == {1}
    for place, (sender, answer) in enumerate(zip(senders, answers, strict=True)):
        counts, numbers = sender.deliveries(), set(range(place * total, (place + 1) * total))
        assert counts.taken == counts.delivered + counts.lost == total
        assert len(answer.delivered) == counts.delivered
        assert len(answer.failed) == counts.lost
        assert set(answer.delivered.values()) == {1}
        assert set(answer.delivered) | set(answer.failed) == numbers
        assert set(answer.delivered) <= set(there), "what was acknowledged is there"
        # The broker was back in time.
        assert not answer.failed


def test_without_a_broker_a_full_buffer_holds_back_a_stop_ends_that_and_all_is_counted(
    kafka_settings: Settings, topic: str, kafka: Broker
) -> None:
    large = b"x" * 900_000
    reports: list[list[str | None]] = [[] for _ in KINDS]
    senders = [kind(kafka_settings, topic, delivery_seconds=2) for kind in KINDS]

    def fill(sender: Sender, told: list[str | None]) -> int:
        count = 0
        while sender.send(b"BTCUSD", large, told.append):
            count += 1
        return count

    try:
        with ThreadPoolExecutor() as pool, ExitStack() as opened:
            for sender in senders:
                opened.enter_context(sender)
                assert sender.send(b"BTCUSD", b"first")
            for sender in senders:
                # Answers of the fast one come in while its caller waits.
                sender.wait(1)
                assert sender.deliveries().delivered == 1
            kafka.kill()
            filling = [pool.submit(fill, *each) for each in zip(senders, reports, strict=True)]
            time.sleep(1.5)
            assert not any(each.done() for each in filling)
            for sender, each in zip(senders, filling, strict=True):
                held = sender.deliveries().taken - 1
                assert 60 <= held <= 80, "64 MiB take about 74 of these"
                sender.stop()
                assert each.result(1) == held
            left = time.monotonic()
        took = time.monotonic() - left
    finally:
        kafka.restart()
    assert took < 2 * (2 + 3) + 1
    for sender, told in zip(senders, reports, strict=True):
        counts = sender.deliveries()
        assert (counts.delivered, counts.lost, counts.waiting) == (1, len(told), 0)
        assert len(told) == counts.taken - 1
        assert None not in told
