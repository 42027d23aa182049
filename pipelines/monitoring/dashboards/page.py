"""The page of docs/ about the dashboards: every panel, its query in words, and what to do when it is red."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pipelines.markdown import codes
from pipelines.monitoring.dashboards.panels import Board, Limits, Panel

_METRIC = re.compile(r"\b(?:(?:pipeline|trading|airflow|kafka|external_api|api)_\w+|ALERTS|up)\b")
_LONG_SECONDS = 3600
_INTRODUCTION = """\
# Dashboards

Written by `python -m pipelines.monitoring.dashboards` from [its declarations](../pipelines/monitoring/dashboards), as
are the files in [monitoring/grafana](../monitoring/grafana) that Grafana reads; edit the declarations, not these.
What the panels show comes from Prometheus, which has it from `lakehouse exporter` (what is in the lake, the dead
letter queue and Airflow), from the Pushgateway (what a finished job alone knows) and from running streams.

## Provisioning

| folder here | where Grafana looks |
|---|---|
| `monitoring/grafana/provisioning` | `/etc/grafana/provisioning` |
| `monitoring/grafana` | `/etc/grafana/dashboards` |
| `docs` | `/usr/share/grafana/public/lakehouse-docs`, where links of panels lead to |

The data source has the fixed uid `prometheus`; its address is in
[datasources/prometheus.yml](../monitoring/grafana/provisioning/datasources/prometheus.yml). Grafana reads dashboards
anew every 30 seconds, and does not let them be changed in the browser: a change there would be lost with the next one
here. Without provisioning, *Dashboards > New > Import* takes the same files. They are made for Grafana 11.6 and its
schema; later versions bring them up to date as they load them.

## Variables

*Data source* is the Prometheus to ask. *Asset* and *Timeframe* narrow the panels that go by asset or timeframe; a
dataset without one, as news, is in them while they are at *All*. *Documentation* is the address of the folder `docs`,
should links of panels lead elsewhere.

## Checking

```bash
.venv/bin/python -m pipelines.monitoring.dashboards --check                         # are the files what the code says?
.venv/bin/python -m pipelines.monitoring.dashboards --probe http://localhost:9090   # what does each query return now?
make dashboards-check                                                               # types, by Grafana's own schema
```

The second asks a Prometheus what Grafana would, and prints a line per query: how many series there are, and what they
say. [A test](../tests/monitoring/test_dashboards.py) does so with a real Prometheus, exporter and Pushgateway over a
lake that a real run filled, and compares what panels count with the lake's own count. The third needs Node.js, and a
network the first time.

## Without Grafana

Prometheus' own page draws the query of any panel, and lists the alerts (Debian's package has that list at
`/classic/alerts`). Here is the ingestion rate while backfills of BTCUSD and ETHUSD land day after day, and the alerts
after a row was refused, with a DAG that has not run for long, old bars, and a disk nearly full:

![The ingestion rate on Prometheus' page](images/prometheus_ingestion_rate.png)

![The alerts on Prometheus' page](images/prometheus_alerts.png)
"""


def page(boards: Iterable[Board]) -> str:
    """Return the page, in Markdown."""
    return "\n".join([_INTRODUCTION, *(line for board in boards for line in _board(board))]).rstrip() + "\n"


def _board(board: Board) -> Iterator[str]:
    yield from (f"## {board.title}", "", f"{board.description} File: `monitoring/grafana/{board.file}`.", "")
    for row in board.rows:
        yield from (f"### {row.title}", "")
        for panel in row.panels:
            yield from _panel(panel)


def _panel(panel: Panel) -> Iterator[str]:
    yield from (f"#### {panel.title}", "", f"{panel.shows}.{_limits(panel)}", "")
    more = f" [The runbook goes on from there](operations.md#{panel.runbook})." if panel.runbook else ""
    yield from (f"{'When it is red' if panel.reddens else 'If it looks wrong'}: {panel.act}.{more}", "")
    yield from (f"Made of {codes(_metrics(panel))}.", "")


def _metrics(panel: Panel) -> list[str]:
    """Return the metrics of a panel's queries, in their order."""
    found = (name for query in panel.queries for name in _METRIC.findall(query.expr))
    return list(dict.fromkeys(found))


def _limits(panel: Panel) -> str:
    """Return from where on what is yellow and red, as a sentence after a blank."""
    found = [_limit("It", panel.limits, panel.unit)] if panel.limits and not panel.states else []
    found += [_limit(f"*{query.legend}*", query.limits, query.unit) for query in panel.queries if query.limits]
    texts = [f"{state.text} is {state.colour}" for state in panel.states.values()]
    if texts:
        found.append(f"{', '.join(texts).capitalize()}.")
    return "".join(f" {each}" for each in found)


def _limit(what: str, limits: Limits, unit: str) -> str:
    yellow, red = _in_words(limits.yellow, unit), _in_words(limits.red, unit)
    if limits.low_is_bad:
        return f"{what} is yellow below {yellow} and red below {red}."
    if limits.yellow == limits.red:
        return f"{what} is red from {red} on."
    return f"{what} is yellow from {yellow} and red from {red} on."


def _in_words(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:g} %"
    if unit == "s":
        return f"{value / 3600:g} hours" if value >= _LONG_SECONDS else f"{value:g} seconds"
    return f"{value:,g}"
