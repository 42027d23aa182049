"""Draws declared dashboards with Grafana's own Foundation SDK: the JSON that Grafana reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    piechart,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import piechart as pies
from grafana_foundation_sdk.models import prometheus as prom

from pipelines.monitoring.dashboards.panels import ALL, Board, Choice, Limits, Panel, Query, State, anchor

PAGE = "dashboards.md"
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_GREEN, _YELLOW, _RED = "green", "yellow", "red"

Drawn = (
    timeseries.Panel | stat.Panel | table.Panel | piechart.Panel | bargauge.Panel | statetimeline.Panel
)  # fmt: skip
AnyPanel = TypeVar(
    "AnyPanel", timeseries.Panel, stat.Panel, table.Panel, piechart.Panel, bargauge.Panel, statetimeline.Panel
)


def as_json(board: Board) -> str:
    """Return the file that Grafana provisions the dashboard from."""
    return json.dumps(draw(board), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def draw(board: Board) -> models.Dashboard:
    """Return the dashboard as the SDK has it."""
    found = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["lakehouse"])
        .timezone("utc")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(f"now-{board.hours}h", "now")
        .refresh("30s")
        .readonly()
        .variables([_sources(), *map(_choice, board.choices), _documentation()])
        .link(_boards())
        .annotation(_runs())
    )
    number = 0
    for row in board.rows:
        number += 1
        found = found.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            found = found.with_panel(_panel(panel, number))
    drawn = found.build()
    # The SDK gives every variable what only those of intervals have.
    for variable in drawn.templating.list_val or ():
        variable.auto = variable.auto_min = variable.auto_count = None
    return drawn


def _sources() -> dashboard.DatasourceVariable:
    chosen = models.VariableOption(text="Prometheus", value="prometheus", selected=True)
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").current(chosen)


def _choice(choice: Choice) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(choice.name)
        .label(choice.label)
        .datasource(_SOURCE)
        .query(f"label_values({choice.metric}, {choice.key})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(models.VariableOption(text=["All"], value=["$__all"], selected=True))
    )


def _documentation() -> dashboard.TextBoxVariable:
    return (
        dashboard.TextBoxVariable("docs")
        .label("Documentation")
        .description("The address that the folder docs is served at; links of panels begin with it.")
        .default_value("/public/lakehouse-docs")
    )


def _boards() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Lakehouse")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["lakehouse"])
        .include_vars(True)
        .keep_time(True)
    )


def _runs() -> dashboard.AnnotationQuery:
    """Mark when the daily run told Grafana that data is new."""
    return (
        dashboard.AnnotationQuery()
        .name("Runs")
        .datasource(models.DataSourceRef(type_val="grafana", uid="-- Grafana --"))
        .enable(True)
        .icon_color("blue")
        .target(dashboard.AnnotationTarget().type("tags").tags(["lakehouse"]).limit(100).match_any(False))
    )


def _panel(panel: Panel, number: int) -> Drawn:
    match panel.kind:
        case "timeseries":
            return _common(_lines(panel), panel, number)
        case "stat":
            return _common(_figures(panel), panel, number)
        case "table":
            return _common(_cells(panel), panel, number)
        case "piechart":
            return _common(_slices(), panel, number)
        case "bargauge":
            return _common(_bars(), panel, number)
        case "states":
            return _common(_states(), panel, number)


def _common(drawn: AnyPanel, panel: Panel, number: int) -> AnyPanel:
    link = dashboard.DashboardLink("What to do").url(f"${{docs}}/{PAGE}#{anchor(panel.title)}").target_blank(True)
    found = (
        drawn.id(number)
        .title(panel.title)
        .description(describe(panel))
        .datasource(_SOURCE)
        .span(panel.width)
        .height(panel.height)
        .unit(panel.unit)
        .no_value(panel.empty)
        .links([link])
        .thresholds(_thresholds(panel.limits))
        .targets([_target(query, index, panel) for index, query in enumerate(panel.queries)])
    )
    if panel.states:
        found = found.mappings([models.ValueMap(options=_texts(panel.states))])
    if panel.decimals is not None:
        found = found.decimals(panel.decimals)
    return found


def describe(panel: Panel) -> str:
    """Return what the panel says about itself, in Markdown."""
    when = "When it is red" if panel.reddens else "If it looks wrong"
    return f"{panel.shows}.\n\n**{when}:** {panel.act}."


def _target(query: Query, index: int, panel: Panel) -> prometheus.Dataquery:
    found = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + index))
    found = found.datasource(_SOURCE).editor_mode(prom.QueryEditorMode.CODE)
    if panel.kind in ("timeseries", "states"):
        return found.range()
    return found.instant().format(
        prom.PromQueryFormat.TABLE if panel.kind == "table" else prom.PromQueryFormat.TIME_SERIES
    )


def _thresholds(limits: Limits | None) -> dashboard.ThresholdsConfig:
    steps: list[tuple[float | None, str]]
    if limits is None:
        steps = [(None, _GREEN)]
    elif limits.low_is_bad:
        steps = [(None, _RED), (limits.red, _YELLOW), (limits.yellow, _GREEN)]
    else:
        steps = [(None, _GREEN), (limits.yellow, _YELLOW), (limits.red, _RED)]
    made = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def _texts(states: Mapping[float, State]) -> dict[str, models.ValueMappingResult]:
    return {
        f"{value:g}": models.ValueMappingResult(text=state.text, color=state.colour, index=index)
        for index, (value, state) in enumerate(states.items())
    }


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.TABLE)
    legend = legend.placement(looks.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    found = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(looks.VisibilityMode.AUTO)
        .stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL if panel.stacked else looks.StackingMode.NONE))
    )
    shown = looks.GraphThresholdsStyleMode.DASHED if panel.limits else looks.GraphThresholdsStyleMode.OFF
    return found.thresholds_style(common.GraphThresholdsStyleConfig().mode(shown))


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _figures(panel: Panel) -> stat.Panel:
    mode = looks.BigValueColorMode.BACKGROUND if panel.limits else looks.BigValueColorMode.VALUE
    found = stat.Panel().reduce_options(_newest()).color_mode(mode).graph_mode(looks.BigValueGraphMode.NONE)
    return found.text_mode(
        looks.BigValueTextMode.VALUE_AND_NAME if len(panel.queries) > 1 else looks.BigValueTextMode.AUTO
    )


def _slices() -> piechart.Panel:
    legend = piechart.PieChartLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.TABLE)
    legend = legend.placement(looks.LegendPlacement.RIGHT)
    legend = legend.values([pies.PieChartLegendValues.VALUE, pies.PieChartLegendValues.PERCENT])
    return piechart.Panel().pie_type(pies.PieChartType.DONUT).reduce_options(_newest()).legend(legend)


def _bars() -> bargauge.Panel:
    found = bargauge.Panel().reduce_options(_newest()).orientation(looks.VizOrientation.HORIZONTAL).show_unfilled(True)
    return found.display_mode(looks.BarGaugeDisplayMode.BASIC).min(0)


def _states() -> statetimeline.Panel:
    legend = common.VizLegendOptions().show_legend(False).display_mode(looks.LegendDisplayMode.LIST)
    legend = legend.placement(looks.LegendPlacement.BOTTOM).calcs([])
    return statetimeline.Panel().show_value(looks.VisibilityMode.AUTO).merge_values(True).legend(legend)


def _cells(panel: Panel) -> table.Panel:
    """Draw one line per combination of the labels that have a column, with the value of each query."""
    names = {f"Value #{chr(ord('A') + index)}": query.legend for index, query in enumerate(panel.queries)}
    if len(panel.queries) == 1:
        names = {"Value": panel.queries[0].legend}
    kept = {**panel.columns, **names}
    shown = {"include": {"names": list(kept)}}
    renamed = {"renameByName": kept, "indexByName": {name: at for at, name in enumerate(kept)}, "excludeByName": {}}
    found = table.Panel()
    for query in panel.queries:
        if properties := _column(query):
            found = found.override_by_name(query.legend, properties)
    return found.cell_height(looks.TableCellHeight.SM).transformations(
        [
            models.DataTransformerConfig(id_val="merge", options={}),
            models.DataTransformerConfig(id_val="filterFieldsByName", options=shown),
            models.DataTransformerConfig(id_val="organize", options=renamed),
        ]
    )


def _column(query: Query) -> list[models.DynamicConfigValue]:
    found = []
    if query.unit:
        found.append(models.DynamicConfigValue(id_val="unit", value=query.unit))
    if query.limits:
        coloured = {"type": "color-background", "mode": "basic"}
        found.append(models.DynamicConfigValue(id_val="custom.cellOptions", value=coloured))
        found.append(models.DynamicConfigValue(id_val="thresholds", value=_thresholds(query.limits).build()))
    return found
