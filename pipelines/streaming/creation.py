"""Makes the topics of the settings on the broker; safe to run again, and nothing that a topic holds is ever deleted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import NoError, TopicAlreadyExistsError, for_code

from pipelines.config import Settings
from pipelines.streaming.clients import BrokerError, admin
from pipelines.streaming.topics import topic_named, topics

State = Literal["created", "would create", "grown", "would grow", "exists", "differs"]

_MS_PER_HOUR = 3_600_000
_MIB = 1 << 20
_SEEN_WITHIN_SECONDS = 10
_DLQ_HOURS = 168.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic on the broker: what became of it, its partitions, and where it is not as the settings say."""

    name: str
    state: State
    partitions: int
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    partitions: int
    configs: Mapping[str, str]


def create_topics(settings: Settings, names: Iterable[str] | None = None, *, dry_run: bool = False) -> list[TopicState]:
    """Create the topics that are missing, by default all of the settings, and the one for dead letters.

    A topic with fewer partitions than the settings say gets more. Nothing else of an existing topic is changed: what
    differs is only told, as it may be so on purpose.

    Raises:
        ConfigError: the settings have no such topic, or are wrong.
        BrokerError: no broker answers within seconds, or one refuses to create a topic.
    """
    wanted = _wanted(settings, names)
    with admin(settings) as client:
        before = _partitions(client, wanted)
        states = {each.name: _state(each, before.get(each.name), dry_run=dry_run) for each in wanted}
        if not dry_run:
            _create(client, [each for each in wanted if states[each.name] == "created"])
            _grow(client, [each for each in wanted if states[each.name] == "grown"])
        now = before if dry_run else _seen(client, wanted)
        differences = _differences(client, [each for each in wanted if each.name in now], now)
    return [_told(each, states[each.name], now, differences.get(each.name, ())) for each in wanted]


def _wanted(settings: Settings, names: Iterable[str] | None) -> list[_Wanted]:
    known = topics(settings)
    chosen = known.values() if names is None else [topic_named(settings, name) for name in dict.fromkeys(names)]
    # What is too large for the lake must still fit, to become a dead letter instead of an error at its producer.
    room = 3 * max(_MIB, settings.streaming.max_message_bytes)
    found = [_Wanted(each.name, each.partitions, _configs(each.retention_hours, room)) for each in chosen]
    if settings.streaming.dlq_topic is not None:
        # Kept as long as any message, in one partition; a dead letter holds its message, encoded, and more.
        hours = max((each.retention_hours for each in known.values()), default=_DLQ_HOURS)
        found.append(_Wanted(settings.streaming.dlq_topic, 1, _configs(hours, 2 * room)))
    return found


def _configs(retention_hours: float, room: int) -> dict[str, str]:
    retention = str(round(retention_hours * _MS_PER_HOUR))
    return {"retention.ms": retention, "max.message.bytes": str(room), "cleanup.policy": "delete"}


def _state(wanted: _Wanted, partitions: int | None, *, dry_run: bool) -> State:
    if partitions is None:
        return "would create" if dry_run else "created"
    if partitions < wanted.partitions:
        return "would grow" if dry_run else "grown"
    return "exists"


def _told(wanted: _Wanted, state: State, now: Mapping[str, int], differences: tuple[str, ...]) -> TopicState:
    if state == "exists" and differences:
        state = "differs"
    return TopicState(wanted.name, state, now.get(wanted.name, wanted.partitions), differences)


def _partitions(client: KafkaAdminClient, wanted: Iterable[_Wanted]) -> dict[str, int]:
    """Return how many partitions each topic has, of those that are there."""
    described = client.describe_topics([each.name for each in wanted])
    return {each["name"]: len(each["partitions"]) for each in described if not each["error_code"]}


def _create(client: KafkaAdminClient, missing: list[_Wanted]) -> None:
    if not missing:
        return
    wanted = {each.name: {"num_partitions": each.partitions, "configs": dict(each.configs)} for each in missing}
    answer = client.create_topics(wanted, raise_errors=False)
    for each in answer["topics"]:
        # Somebody else may just have made it.
        _refused(each["name"], each["error_code"], each["error_message"], unless=TopicAlreadyExistsError)


def _grow(client: KafkaAdminClient, small: list[_Wanted]) -> None:
    if not small:
        return
    answer = client.create_partitions({each.name: each.partitions for each in small}, raise_errors=False)
    for each in answer.results:
        _refused(each.name, each.error_code, each.error_message)


def _refused(topic: str, code: int, message: str | None, unless: type[Exception] | None = None) -> None:
    kind = for_code(code)
    if kind is not NoError and kind is not unless:
        raise BrokerError(f"the broker does not make topic {topic}: {message or kind.__name__}")


def _seen(client: KafkaAdminClient, wanted: list[_Wanted]) -> dict[str, int]:
    """Return the partitions once all that was asked for can be seen; brokers learn of it a little later."""
    deadline = time.monotonic() + _SEEN_WITHIN_SECONDS
    while True:
        now = _partitions(client, wanted)
        missing = [each.name for each in wanted if now.get(each.name, 0) < each.partitions]
        if not missing:
            return now
        if time.monotonic() > deadline:
            raise BrokerError(f"the broker took the request but does not show {', '.join(missing)}; run it again")
        time.sleep(0.05)


def _differences(
    client: KafkaAdminClient, present: list[_Wanted], now: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Return, for each topic, where the broker has something else than the settings ask for."""
    if not present:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, each.name, dict(each.configs)) for each in present]
    answers = client.describe_configs(asked, config_filter="all")["topic"]
    return {each.name: _of_one(each, now[each.name], answers.get(each.name, {})) for each in present}


def _of_one(wanted: _Wanted, partitions: int, there: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    pairs = [("partitions", str(partitions), str(wanted.partitions))] if partitions > wanted.partitions else []
    # A broker keeps to itself what we may not see.
    pairs += [(name, there[name]["value"], value) for name, value in wanted.configs.items() if name in there]
    return tuple(f"{name} is {now}, the settings ask for {asked}" for name, now, asked in pairs if now != asked)
