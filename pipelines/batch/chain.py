"""Which providers a job may ask, in order, and why others are left out. One open source per provider and run."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.batch.jobs import Job
from pipelines.config import Settings
from pipelines.sources.base import Source
from pipelines.sources.registry import SOURCES, Skipped, open_source, source_class, why_not


@dataclass(slots=True)
class ProviderChain:
    """Opens each source once, so that rate limits and circuit breakers are shared by all jobs of a run."""

    settings: Settings
    _open: dict[str, Source] = field(default_factory=dict)

    def source(self, name: str) -> Source:
        """Return the run's source of that name.

        Raises:
            ConfigError: there is no such provider.
        """
        if name not in self._open:
            self._open[name] = open_source(name, self.settings)
        return self._open[name]

    def candidates(self, job: Job) -> list[Source | Skipped]:
        """Return the job's providers in order; one that cannot serve it comes with the reason."""
        names = [job.provider] if job.provider else self._names(job)
        found: list[Source | Skipped] = []
        for name in names:
            source = self.source(name)
            reason = why_not(source, self.settings, job.dataset, job.instrument, job.timeframe)
            found.append(source if reason is None else Skipped(name, reason))
        return found

    def is_synthetic(self, job: Job) -> bool:
        """Say whether the job's pinned provider makes its data up."""
        return bool(job.provider) and self.source(str(job.provider)).capabilities.synthetic

    async def aclose(self) -> None:
        """Close every open source."""
        for source in self._open.values():
            await source.aclose()
        self._open.clear()

    def _names(self, job: Job) -> list[str]:
        """Return the chain, or for a dataset that none of it serves, every real source that does."""
        chain = self.settings.providers.chain
        if any(job.dataset in source_class(name).capabilities.datasets for name in chain):
            return chain
        return [name for name in SOURCES if _serves(name, job.dataset)]


def _serves(name: str, dataset: str) -> bool:
    can = source_class(name).capabilities
    return dataset in can.datasets and not can.synthetic and name != "files"
