"""What a dashboard is made of, declared: each panel with its queries, in words too, and what to do when it is red."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "table", "piechart", "bargauge", "states"]

# As Grafana replaces them where a panel is drawn; `.*` is what a variable stands for while it is at "All".
ALL = ".*"


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a value is yellow, and red; with a red limit below the yellow one, down to where."""

    yellow: float
    red: float

    @property
    def low_is_bad(self) -> bool:
        """Whether a value below the red limit is a red one."""
        return self.red < self.yellow


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL, with Grafana's variables in it.
        legend: what a series is called, with `{{label}}` for its labels; in a table, the column of its values.
        unit: in a table, the unit of the column, if it is not the panel's.
        limits: in a table, those of the column.
    """

    expr: str
    legend: str
    unit: str = ""
    limits: Limits | None = None

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the PromQL that Grafana would send; a variable without a value stands for all."""
        return re.sub(r"\$(\w+)", lambda name: values.get(name[1], ALL), self.expr)


@dataclass(frozen=True, slots=True)
class State:
    """A value that stands for a state: what to write instead of it, and in which colour."""

    text: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel.

    Attributes:
        title: its name.
        kind: how it is drawn.
        queries: what it asks Prometheus; those of a table, pie, bar or state panel for one instant.
        shows: the query in words, without a full stop.
        empty: what it says without data.
        unit: Grafana's id of the unit of the values.
        limits: where they are yellow and red.
        act: what to do then, without a full stop; without limits, what to do if it looks wrong.
        runbook: the heading of docs/operations.md that goes on from there, as an anchor.
        states: what values stand for.
        columns: of a table, what labels are called; labels that are not named are left out.
        decimals: digits after the point.
        stacked: whether series add up to something.
        width: columns of Grafana's 24.
        height: rows of 30 pixels.
    """

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    shows: str
    act: str
    empty: str
    unit: str = "short"
    limits: Limits | None = None
    runbook: str = ""
    states: Mapping[float, State] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    decimals: int | None = None
    stacked: bool = False
    width: int = 12
    height: int = 8

    @property
    def reddens(self) -> bool:
        """Whether anything of it may be red."""
        return bool(self.limits or self.states or any(query.limits for query in self.queries))


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable that a user picks values of.

    Attributes:
        name: as in queries.
        label: as it is shown.
        metric: whose label has the values.
        key: that label.
    """

    name: str
    label: str
    metric: str
    key: str


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; `uid` names it in addresses and its file, `hours` is how far it looks back."""

    uid: str
    title: str
    description: str
    hours: int
    choices: tuple[Choice, ...]
    rows: tuple[Row, ...]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.uid.replace('-', '_')}.json"

    def panels(self) -> Iterator[Panel]:
        """Yield its panels in their order."""
        for row in self.rows:
            yield from row.panels


def anchor(title: str) -> str:
    """Return the anchor of a heading of a Markdown page, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
