"""The step that fetches what the lake lacks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.cli.lakes import lake_for_writing
from pipelines.config import Settings, load_settings
from pipelines.orchestration.common import MOST_NAMED, Result, StepFailedError, writing
from pipelines.orchestration.cost import Stopwatch
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import utc_now
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.batch.jobs import Job
    from pipelines.batch.results import BackfillResult


def ingest(
    assets: Sequence[str],
    start: datetime | str,
    end: datetime | str,
    *,
    timeframes: Sequence[str] = (),
    datasets: Sequence[str] = (MARKET_DATA,),
    provider: str | None = None,
    force: bool = False,
    sample: bool = False,
    settings: Settings | None = None,
) -> Result:
    """Fetch what the lake lacks of [start, end) and land it.

    Args:
        assets: asset pairs; for datasets that are not bars, their subjects.
        start: the first bar open; a zoneless time is UTC.
        end: the end, exclusive; a zoneless time is UTC.
        timeframes: of bars; all six if none.
        datasets: contract ids.
        provider: ask only this one; the chain of the settings otherwise.
        force: fetch the whole range again; changed bars land as restatements.
        sample: made-up data, into the lake of synthetic data.
        settings: those of the project otherwise.

    Returns:
        Rows fetched, new, restated, repeated and rejected, in all and by provider; `gave_up` has the error of each
        provider that was asked in vain, though another one may have served.

    Raises:
        StepFailedError: windows failed; all others are landed.
        ConfigError: no such provider or dataset.
        InvalidRangeError: an unknown timeframe, or a range that is empty or in the future.
        UnknownAssetError: there is no such asset.
        MixedOriginError: the lake holds the other kind of data.
    """
    watch, settings = Stopwatch(), writing(settings or load_settings())
    from pipelines.batch.engine import Backfill  # noqa: PLC0415 - loaded late, so that its seconds are told apart

    chosen = lake_for_writing(settings, None, synthetic=sample)
    jobs = _jobs(assets, start, end, timeframes, datasets, "sample" if sample else provider, force=force)
    watch.ready()
    # Jobs of one run are of one kind: bars, or one dataset each.
    done = [asyncio.run(Backfill(chosen.manager, settings).run(each)) for each in jobs]
    failed = [(result, window) for run in done for result in run.series for window in result.failed]
    if failed:
        named = "; ".join(
            f"{result.subject} {window.provider}: {window.error}" for result, window in failed[:MOST_NAMED]
        )
        raise StepFailedError(
            f"{counted(len(failed), 'windows')} failed: {named}. All others are landed; the same range asks again for "
            "what failed, `lakehouse doctor` checks the providers"
        )
    return {**chosen.as_dict(), **_ingested(done), "gave_up": _gave_up(done, jobs, settings), **watch.cost()}


def _jobs(
    assets: Sequence[str],
    start: datetime | str,
    end: datetime | str,
    timeframes: Sequence[str],
    datasets: Sequence[str],
    provider: str | None,
    *,
    force: bool,
) -> list[list[Job]]:
    """Return the jobs of each dataset."""
    from pipelines.cli.request import Request  # noqa: PLC0415

    now, ends = utc_now(), [each if isinstance(each, str) else each.isoformat() for each in (start, end)]
    return [
        Request(
            tuple(assets),
            tuple(timeframes) if each == MARKET_DATA else (),
            None,
            ends[0],
            ends[1],
            provider,
            each,
            force,
        ).jobs(now)
        for each in datasets
    ]


def _ingested(done: Sequence[BackfillResult]) -> Result:
    served: Counter[str] = Counter()
    for run in done:
        for result in run.series:
            served.update(result.served)
    counts = ("fetched", "new", "restated", "repeated", "rejected")
    return {
        "series": sum(len(run.series) for run in done),
        "requests": sum(run.requests for run in done),
        **{name: sum(run.total(name) for run in done) for name in counts},
        "providers": dict(sorted(served.items())),
    }


def _gave_up(done: Sequence[BackfillResult], jobs: Sequence[Sequence[Job]], settings: Settings) -> dict[str, str]:
    """Return the first error of each provider that was asked; one that cannot be asked, for want of a key, is none."""
    from pipelines.batch.chain import ProviderChain  # noqa: PLC0415
    from pipelines.sources.registry import Skipped  # noqa: PLC0415

    chain, found = ProviderChain(settings), dict[str, str]()
    for run, asked in zip(done, jobs, strict=True):
        for result, job in zip(run.series, asked, strict=True):
            standing = (
                {each.name for each in chain.candidates(job) if isinstance(each, Skipped)} if result.skipped else set()
            )
            for name, reason in result.skipped.items():
                if name not in standing:
                    found.setdefault(name, reason)
    asyncio.run(chain.aclose())
    return found
