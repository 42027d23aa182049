"""The bill of a lake, for people and for programs."""

from __future__ import annotations

from pathlib import Path

from pipelines.cli.lakes import ChosenLake, lake_for_reading
from pipelines.cli.render import Heading, count, say, show_json, show_table, size
from pipelines.config import load_settings
from pipelines.storage.stores.cost import GIB, REFERENCE_TOTAL, CostReport, LayerSize, Line

_CENT = 0.01
_NONE = "-"


def show_costs(lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Print the bill, line by line beside the reference, and what a year takes in each layer."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    report = chosen.manager.costs()
    if as_json:
        show_json({**chosen.as_dict(), **report.as_dict()})
        return
    chosen.show()
    say()
    _show_bill(report)
    say()
    _show_layers(report)
    say()
    for remark in _remarks(chosen, report):
        say(remark)


def _show_bill(report: CostReport) -> None:
    headings = [
        Heading("service"),
        Heading("usage"),
        Heading("USD/month", number=True),
        Heading("reference usage"),
        Heading("reference USD", number=True),
    ]
    total = ["total", "", _dollars(report.total), "10 assets, 6 timeframes", f"{REFERENCE_TOTAL:,.0f}"]
    show_table(headings, [_line(line) for line in report.lines], total)


def _line(line: Line) -> list[str]:
    usage = f"{size(round(line.quantity * GIB))} ({line.usage})" if line.measured else line.usage
    reference = [line.reference.usage, _dollars(line.reference.cost)] if line.reference else [_NONE, _NONE]
    return [line.service, usage, _dollars(line.cost), *reference]


def _dollars(amount: float) -> str:
    """Return dollars and cents; what is not nothing is not shown as nothing."""
    return "<0.01" if 0 < amount < _CENT else f"{amount:,.2f}"


def _show_layers(report: CostReport) -> None:
    numbers = ("tables", "rows", "size", "bytes/row", "a year of 10 assets", "reference")
    headings = [Heading("layer"), *(Heading(name, number=True) for name in numbers)]
    show_table(headings, [_layer(layer) for layer in report.layers])


def _layer(layer: LayerSize) -> list[str]:
    reference = f"{layer.reference_gb:g} GB" if layer.reference_gb else _NONE
    if not layer.tables:
        return [layer.layer, *[_NONE] * 5, reference]
    each = f"{layer.bytes / layer.rows:.1f}" if layer.rows else _NONE
    year = _NONE if layer.year is None else size(layer.year)
    return [layer.layer, count(layer.tables), count(layer.rows), size(layer.bytes), each, year, reference]


def _remarks(chosen: ChosenLake, report: CostReport) -> list[str]:
    prices, held = report.settings.prices, report.footprint
    valid = f"AWS list prices of {prices.region}, {prices.as_of}, before tax, discounts and requests"
    spare = f"Logs take {size(held.logs)}, files that no newest version needs {size(held.unreferenced)}"
    remarks = [
        f"{valid}; set costs.prices and costs.usage to yours.",
        f"Cold is {report.lifecycle.cold_class}: cheaper to keep, dearer to read, and read at once.",
        f"{spare}: `lakehouse maintain` removes the expired ones.",
        "A year is reckoned from the files as they are: small ones take more per row than compacted ones.",
    ]
    if held.ages.stuck:
        remarks.append(
            f"{size(held.ages.stuck)} of warm and cold data is in files under 128 KiB, which S3 leaves in Standard."
        )
    if "://" not in chosen.address:
        remarks.append("This lake is on a disk: the S3 lines are what it would cost there.")
    return remarks
