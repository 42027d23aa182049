"""What a table of silver or gold was made from: written into the very commit that made it, read back from its log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Bronze table -> its id and version: a table that was made anew has another id.
Versions = Mapping[str, tuple[str, int]]
# Asset pair -> a digest of what the registry says of it.
Facts = Mapping[str, str]
NOT_THERE = ("", -1)


@dataclass(frozen=True, slots=True)
class Mark:
    """The definition of a model, as a digest, and the versions of bronze and the facts that its rows come from."""

    definition: str
    bronze: Versions
    facts: Facts = field(default_factory=dict)

    def text(self) -> str:
        """Return it as the commit carries it."""
        bronze = {table: list(version) for table, version in self.bronze.items()}
        said = {"definition": self.definition, "bronze": bronze, "facts": dict(self.facts)}
        return json.dumps({"lakehouse": said}, sort_keys=True)


def parse_mark(text: str | None) -> Mark | None:
    """Return what a commit says of itself; None if the commit was not made by the lakehouse."""
    try:
        found = json.loads(text or "")["lakehouse"]
        bronze = {str(table): (str(each[0]), int(each[1])) for table, each in found["bronze"].items()}
        facts = {str(asset): str(digest) for asset, digest in found["facts"].items()}
        return Mark(str(found["definition"]), bronze, facts)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def oldest(sources: Iterable[Versions | None]) -> Versions | None:
    """Return what something made of several sources has seen of bronze for sure: of each table the older version.

    A table that was not there has version -1. None if a source does not know, or if a table was made anew between two.
    """
    found: dict[str, tuple[str, int]] = {}
    for versions in sources:
        if versions is None:
            return None
        for table, (identity, version) in versions.items():
            known = found.setdefault(table, (identity, version))
            if known[0] != identity and NOT_THERE not in {known, (identity, version)}:
                return None
            found[table] = min(known, (identity, version), key=lambda each: each[1])
    return found
