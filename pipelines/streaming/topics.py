"""The topics that the lake knows: which dataset a topic's messages are of, and how they are written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipelines.config import Settings, TopicSettings
from pipelines.contracts import Contract, load_contracts
from pipelines.errors import ConfigError

TICKS = "raw_market_ticks"
_LEGAL = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the settings; `format` is how its messages are written."""

    name: str
    contract: Contract
    format: Literal["json", "avro"]
    partitions: int
    retention_hours: float

    @property
    def is_ticks(self) -> bool:
        """Whether bars are built from the topic's messages."""
        return self.contract.id == TICKS


def topics(settings: Settings) -> Mapping[str, Topic]:
    """Return the topics of the settings, by name.

    Raises:
        ConfigError: Kafka would not take a name, two names clash, or a dataset is unknown.
    """
    streaming = settings.streaming
    _check_names(streaming.topics, streaming.dlq_topic)
    return {name: _topic(name, wanted) for name, wanted in streaming.topics.items()}


def topic_named(settings: Settings, name: str) -> Topic:
    """Return one topic of the settings.

    Raises:
        ConfigError: the settings have no such topic, or are wrong.
    """
    known = topics(settings)
    if name not in known:
        raise ConfigError(f"no topic {name!r} in streaming.topics{_nearest(name, known)}")
    return known[name]


def _topic(name: str, wanted: TopicSettings) -> Topic:
    contracts = load_contracts()
    if wanted.dataset not in contracts:
        nearest = _nearest(wanted.dataset, contracts)
        raise ConfigError(f"streaming.topics: {name}: no contract declares a dataset {wanted.dataset!r}{nearest}")
    return Topic(name, contracts[wanted.dataset], wanted.format, wanted.partitions, wanted.retention_hours)


def _check_names(names: Iterable[str], dlq_topic: str | None) -> None:
    """Refuse what a broker would refuse."""
    seen: dict[str, str] = {}
    for name in [*names, *([dlq_topic] if dlq_topic is not None else [])]:
        if not _LEGAL.fullmatch(name):
            raise ConfigError(f"streaming: {name!r} cannot be a topic's name; use up to 249 of A-Z a-z 0-9 . _ -")
        # To a broker a dot and an underscore are the same.
        alike = name.replace(".", "_")
        if seen.get(alike) == name:
            raise ConfigError(f"streaming: {name} is a topic of messages; it cannot be the dlq_topic too")
        if alike in seen:
            raise ConfigError(f"streaming: a broker takes {seen[alike]} and {name} for one; rename one of them")
        seen[alike] = name


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(sorted(known))}"
