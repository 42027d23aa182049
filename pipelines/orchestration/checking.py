"""The steps that look whether all is well: tables against their contracts, streams against their broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.cli.lakes import is_synthetic, lake_for_writing
from pipelines.config import Settings, load_settings
from pipelines.orchestration.common import MOST_NAMED, Result, StepFailedError, existing_lake
from pipelines.orchestration.cost import Stopwatch
from pipelines.timeframes import utc_now
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.cli.stream_states import TopicState
    from pipelines.data_quality.validating import LakeValidation


def validate(
    assets: Sequence[str],
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    *,
    sample: bool = False,
    settings: Settings | None = None,
) -> Result:
    """Check all tables that hold these assets against their contracts, over [start, end), and build Data Docs.

    Returns:
        Tables, rows, checks, warnings and the address of the pages.

    Raises:
        StepFailedError: an error check failed; names the pages and the dead letters. Trying again does not help.
        NoLakeError: there is no lake yet.
    """
    watch, settings = Stopwatch(), settings or load_settings()
    from pipelines.data_quality.quality_project import QualityProject  # noqa: F401, PLC0415 - seconds to load
    from pipelines.data_quality.validating import validate_lake  # noqa: PLC0415
    from pipelines.instruments import load_registry  # noqa: PLC0415
    from pipelines.storage.scan import selection  # noqa: PLC0415

    chosen, registry = existing_lake(settings, sample=sample), load_registry()
    pairs = list(dict.fromkeys(registry.resolve(name).pair for name in assets))
    wanted = selection(start, end, pairs or None, None)
    watch.ready()
    found = validate_lake(chosen.manager, (), wanted, synthetic=chosen.synthetic)
    chosen.manager.quality.record(found.results, found.run_id, synthetic=chosen.synthetic)
    if found.failed:
        raise StepFailedError(_what_failed(found), retryable=False)
    checks = [check for each in found.tables for check in each.checks]
    return {
        **chosen.as_dict(),
        "tables": len(found.tables),
        "rows": sum(each.rows for each in found.tables),
        "checks": len(checks),
        "warnings": sum(not check.success for check in checks),
        "data_docs": str(found.data_docs or ""),
        **watch.cost(),
    }


def check_streams(*, sample: bool = False, settings: Settings | None = None) -> Result:
    """Hold every stream of the lake to it: it has not failed, lost messages, gone stale or fallen far behind.

    Returns:
        The streams with their states and lag, in messages.

    Raises:
        StepFailedError: one of them is not well; says which and why.
    """
    watch, settings = Stopwatch(), settings or load_settings()
    from pipelines.cli.stream_states import streams_of  # noqa: PLC0415 - Kafka's client

    watch.ready()
    chosen = lake_for_writing(settings, None, synthetic=sample)
    if is_synthetic(chosen.manager) is None:
        return {**chosen.as_dict(), "streams": {}, **watch.cost()}
    found = streams_of(chosen, settings, (), utc_now())
    wrong = [text for each in found.states for text in _problems(each, settings.orchestration.stream_lag_messages)]
    if found.unreachable and any(each.state == "running" for each in found.states):
        wrong.append(found.unreachable)
    if wrong:
        option = " --sample" if sample else ""
        raise StepFailedError(f"{'; '.join(wrong)}. Look at `lakehouse stream status{option}` and docs/streaming.md")
    states = {each.name: {"state": each.state, "lag": sum(each.lag.values())} for each in found.states}
    return {**chosen.as_dict(), "streams": states, **watch.cost()}


def _what_failed(found: LakeValidation) -> str:
    named = [
        f"{each.table}: {check.reason} in {counted(check.failed_rows, 'rows')}"
        for each in found.failed
        for check in each.checks
        if not check.success and check.severity == "critical"
    ]
    tables = ", ".join(each.table for each in found.failed)
    return (
        f"error checks failed in {tables} ({'; '.join(named[:MOST_NAMED])}). The rows are copied to the dead letters, "
        f"`lakehouse dlq list` shows them with their reasons; Data Docs: {found.data_docs}"
    )


def _problems(stream: TopicState, most: int) -> Iterator[str]:
    """Say what is wrong with a stream that may be so many messages behind."""
    if stream.state == "failed":
        yield f"{stream.name} has failed: {stream.record.status.error or 'it did not say why'}"
    if stream.state == "stale":
        yield f"{stream.name} is stale: there is more to read, and its last batch ended {stream.since} ago"
    if stream.lost:
        yield f"{stream.name} has lost {counted(sum(lost.messages for lost in stream.lost), 'messages')}"
    if (lag := sum(stream.lag.values())) > most:
        yield f"{stream.name} is {counted(lag, 'messages')} behind, and {counted(most, 'messages')} are allowed"
