"""What has to be taken back of the coverage log, worked out from its rows; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.replay import Answers, Claim, before, claim_of, replayed, span_of


@dataclass(frozen=True, slots=True)
class Retraction:
    """What a provider no longer vouches for of a series.

    All of `hull` is taken back, `kept` is recorded again; `lost` is what counted as answered before and does not now.
    """

    claim: Claim
    hull: Interval
    kept: Answers
    lost: IntervalSet

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        (dataset, subject, timeframe), provider = self.claim
        lost = [{"start": part.start.isoformat(), "end": part.end.isoformat()} for part in self.lost]
        return {"dataset": dataset, "asset_pair": subject, "timeframe": timeframe, "provider": provider, "lost": lost}


def since(log: pa.Table, instant: datetime, *, anew: bool = False) -> list[Retraction]:
    """Return what taking back everything recorded at or after an instant (aware UTC) amounts to.

    Args:
        log: rows of the coverage log.
        instant: from when on.
        anew: take back what earlier rows say of the same time, too.
    """
    now, then = replayed(log), {} if anew else replayed(before(log, instant))
    later: dict[Claim, list[Interval]] = {}
    for row in log.to_pylist():
        if row["recorded_at"] >= instant:
            later.setdefault(claim_of(row), []).append(span_of(row))
    found = []
    for claim, parts in later.items():
        hull = Interval(min(part.start for part in parts), max(part.end for part in parts))
        # What was taken back since, as with a lost file, is not claimed again.
        kept = _inside(then.get(claim, Answers()), now[claim].done & IntervalSet([hull]))
        found.append(Retraction(claim, hull, kept, now[claim].done & IntervalSet([hull]) - kept.done))
    return found


def inside(log: pa.Table, spans: Mapping[str, IntervalSet] | None) -> list[Retraction]:
    """Return what taking back all of some time amounts to: by subject, or with None all time of all subjects."""
    return list(_inside_of(log, spans))


def _inside_of(log: pa.Table, spans: Mapping[str, IntervalSet] | None) -> Iterator[Retraction]:
    for claim, answers in replayed(log).items():
        (_, subject, _), _ = claim
        lost = answers.done if spans is None else answers.done & spans.get(subject, IntervalSet())
        for part in lost:
            yield Retraction(claim, part, Answers(), IntervalSet([part]))


def _inside(answers: Answers, limits: IntervalSet) -> Answers:
    return Answers(list(IntervalSet(answers.covered) & limits), list(IntervalSet(answers.rejected) & limits))
