"""Reads what an exporter shows, with Prometheus' own parser."""

from __future__ import annotations

import httpx
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Labels = frozenset[tuple[str, str]]


class Samples:
    """Samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._values: dict[tuple[str, Labels], float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self._values, f"{key} twice"
                self._values[key] = sample.value

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample; None if there is none."""
        return self._values.get((name, frozenset(labels.items())))

    def by(self, name: str, *labels: str) -> dict[object, float]:
        """Return all samples of a name, by the values of labels; a single label's value stands for itself."""
        found = {
            tuple(dict(key)[label] for label in labels): value
            for (sample, key), value in self._values.items()
            if sample == name
        }
        return {key[0] if len(labels) == 1 else key: value for key, value in found.items()}

    def names(self) -> set[str]:
        """Return the names that have a sample."""
        return {name for name, _ in self._values}


def shown(*collectors: Collector) -> Samples:
    """Render collectors as a scrape would."""
    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)
    return Samples(generate_latest(registry).decode())


def scraped(url: str) -> Samples:
    """Scrape an address."""
    answer = httpx.get(url, timeout=10, trust_env=False)
    answer.raise_for_status()
    return Samples(answer.text)
