"""How far the streams of a lake are behind their broker, whether or not they run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from prometheus_client.core import Metric

from pipelines.errors import LakehouseError
from pipelines.monitoring.parts.base import Look, gauge
from pipelines.streaming.clients import TopicNotFoundError, consumer, offsets
from pipelines.streaming.status import State, StatusBoard, lag


class Streams:
    """Of every topic that has been streamed into the lake, its state, and its lag if the broker answers."""

    name = "streams"

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of streams."""
        late = gauge(
            "pipeline_stream_lag_messages", "Messages at the broker that are not in the lake.", ["topic", "partition"]
        )
        state = gauge("pipeline_stream_state", "1 for the state that a stream says it is in.", ["topic", "state"])
        last = gauge("pipeline_stream_last_batch_timestamp_seconds", "When a stream's last batch ended.", ["topic"])
        records = StatusBoard(look.manager).read_all()
        for record in records:
            topic, status = record.status.topic, record.status
            last.add_metric([topic], status.finished_at.timestamp())
            for each in get_args(State):
                state.add_metric([topic, each], float(each == status.state))
        try:
            self._ask(look, {each.status.topic: dict(each.status.positions) for each in records}, late)
        except LakehouseError as error:
            # What the files tell does not depend on the broker.
            look.problem(look.settings.streaming.bootstrap_servers, error)
        return late, state, last

    def _ask(self, look: Look, positions: dict[str, dict[int, int]], late: Metric) -> None:
        if not positions:
            return
        with consumer(look.settings) as client:
            for topic, read in positions.items():
                try:
                    held = offsets(look.settings, topic, client)
                except TopicNotFoundError:
                    continue
                # What has expired cannot be read any more.
                next_ones = {each: max(first, read.get(each, 0)) for each, first in held.beginning.items()}
                for partition, messages in lag(next_ones, held.end).items():
                    late.add_sample(late.name, {"topic": topic, "partition": str(partition)}, messages)
