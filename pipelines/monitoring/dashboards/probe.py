"""Asks a Prometheus what Grafana would: every query of every panel, for this instant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from pipelines.monitoring.dashboards.panels import Board, Panel, Query

_WITHIN_SECONDS = 30.0
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query returned.

    Attributes:
        board: title of the dashboard.
        panel: of the panel.
        query: what was asked.
        values: the value of each series, by its labels as `name=value` in order; none if there is no data.
        error: what Prometheus said instead; empty if it answered.
    """

    board: str
    panel: str
    query: Query
    values: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    error: str = ""


def ask(boards: Iterable[Board], url: str, values: Mapping[str, str] | None = None) -> list[Answer]:
    """Ask every query of every panel, with values of the variables; those not given stand for all.

    Raises:
        httpx.HTTPError: there is no Prometheus at `url`.
    """
    with httpx.Client(base_url=url, timeout=_WITHIN_SECONDS) as client:
        return [
            _ask(client, board, panel, query, values or {})
            for board in boards
            for panel in board.panels()
            for query in panel.queries
        ]


def report(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield the lines of a table: panel, query, how many series, and the first of them."""
    titles = [f"{each.board} / {each.panel}" for each in answers]
    wide, legends = max(map(len, titles)), max(len(each.query.legend) for each in answers)
    for title, each in zip(titles, answers, strict=True):
        yield f"{title:{wide}}  {each.query.legend:{legends}}  {each.error or _summary(each)}"
    empty = sum(not each.values for each in answers)
    yield f"{len(answers)} queries of {len(set(titles))} panels, {empty} without data"


def _ask(client: httpx.Client, board: Board, panel: Panel, query: Query, values: Mapping[str, str]) -> Answer:
    reply = client.post("/api/v1/query", data={"query": query.filled(values)}).json()
    if reply["status"] != "success":
        return Answer(board.title, panel.title, query, error=str(reply["error"]))
    found = {_labels(each["metric"]): float(each["value"][1]) for each in reply["data"]["result"]}
    return Answer(board.title, panel.title, query, found)


def _labels(metric: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in sorted(metric.items()))


def _summary(answer: Answer) -> str:
    if not answer.values:
        return "no data"
    shown = [f"{{{', '.join(labels)}}} {value:g}" for labels, value in list(answer.values.items())[:_SHOWN]]
    more = f" and {len(answer.values) - _SHOWN} more" if len(answer.values) > _SHOWN else ""
    return f"{len(answer.values)} series: {'; '.join(shown)}{more}"
