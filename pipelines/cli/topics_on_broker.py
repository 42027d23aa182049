"""The topics of the settings beside what the broker has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pipelines.cli.render import Heading, count, say, show_json, show_table
from pipelines.config import Settings, load_settings
from pipelines.streaming.clients import consumer, offsets
from pipelines.streaming.creation import TopicState, create_topics
from pipelines.streaming.topics import topics


def create_and_show(names: tuple[str, ...], *, dry_run: bool, config_file: Path | None, as_json: bool) -> None:
    """Create topics, by default all, and print what became of each."""
    settings = load_settings(config_file)
    states = create_topics(settings, names or None, dry_run=dry_run)
    if as_json:
        show_json({**_broker(settings), "dry_run": dry_run, "topics": [asdict(each) for each in states]})
        return
    _say_broker(settings)
    headings = [Heading("topic"), Heading("partitions", number=True), Heading("state")]
    show_table(headings, [[each.name, count(each.partitions), each.state] for each in states])
    _say_differences(states)
    if dry_run:
        say("\nNothing was created or changed.", "yellow")


def show_topics(config_file: Path | None, *, as_json: bool) -> None:
    """Print the topics of the settings, and how many messages the broker holds of each."""
    settings = load_settings(config_file)
    states = create_topics(settings, dry_run=True)
    messages = _messages(settings, [each.name for each in states if each.state != "would create"])
    rows = [_row(settings, each, messages.get(each.name)) for each in states]
    if as_json:
        show_json({**_broker(settings), "topics": rows})
        return
    _say_broker(settings)
    headings = [
        Heading("topic"), Heading("dataset"), Heading("format"), Heading("partitions", number=True),
        Heading("retention", number=True), Heading("messages", number=True), Heading("on the broker"),
    ]  # fmt: skip
    show_table(headings, [_cells(row, state) for row, state in zip(rows, states, strict=True)])
    _say_differences(states)
    if len(messages) < len(states):
        say("\nMissing topics are created by `lakehouse topics create`.", "yellow")


def _messages(settings: Settings, names: Iterable[str]) -> dict[str, int]:
    with consumer(settings) as client:
        return {name: offsets(settings, name, client).held for name in names}


def _row(settings: Settings, state: TopicState, messages: int | None) -> dict[str, object]:
    topic = topics(settings).get(state.name)
    return {
        "name": state.name,
        "dataset": topic.contract.id if topic else None,
        "format": topic.format if topic else None,
        "partitions": state.partitions,
        "retention_hours": topic.retention_hours if topic else None,
        "on_broker": messages is not None,
        "messages": messages,
        "differences": state.differences,
    }


def _cells(row: dict[str, object], state: TopicState) -> list[str]:
    hours, messages = row["retention_hours"], row["messages"]
    return [
        state.name,
        str(row["dataset"] or "(dead letters)"),
        str(row["format"] or "-"),
        count(state.partitions),
        f"{hours:g} h" if isinstance(hours, float) else "-",
        count(messages) if isinstance(messages, int) else "-",
        {"would create": "no", "would grow": "too few partitions", "differs": "differs"}.get(state.state, "yes"),
    ]


def _broker(settings: Settings) -> dict[str, object]:
    return {"bootstrap_servers": settings.streaming.bootstrap_servers}


def _say_broker(settings: Settings) -> None:
    say(f"Kafka at {settings.streaming.bootstrap_servers}\n")


def _say_differences(states: Iterable[TopicState]) -> None:
    for each in states:
        if each.differences:
            say(f"{each.name} is not as the settings say: {'; '.join(each.differences)}", "yellow")
