"""What a lake and the platform around it cost a month on AWS: measured bytes and configured usage, times prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pipelines.storage.stores.footprint import ASSETS, LAYERS, OTHER, Footprint, TableFootprint, footprint
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.config import CostSettings, LifecycleSettings, Settings
    from pipelines.storage.lake import Lake

# S3 and data transfer are billed by 2^30 bytes.
GIB = 1 << 30
# AWS' own month: 365 days / 12.
HOURS_A_MONTH = 730
_DAYS_A_MONTH = HOURS_A_MONTH / 24
_CLASSES = {
    "STANDARD": "Standard",
    "STANDARD_IA": "Standard-IA",
    "ONEZONE_IA": "One Zone-IA",
    "INTELLIGENT_TIERING": "Intelligent-Tiering",
    "GLACIER_IR": "Glacier Instant Retrieval",
}
_REFERENCE_YEAR_GB = dict(zip(LAYERS, (12.0, 15.0, 2.0), strict=True))
REFERENCE_TOTAL = 614.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What the same line is reckoned at for a platform of ten assets in six timeframes; dollars a month."""

    usage: str
    cost: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the bill.

    Attributes:
        service: what is paid for.
        usage: in words.
        quantity: how many units a month.
        unit: GiB or hour.
        price: dollars per unit.
        measured: whether the quantity was measured in the lake; else it is configured.
        reference: None where it has no such line.
    """

    service: str
    usage: str
    quantity: float
    unit: str
    price: float
    measured: bool
    reference: Reference | None

    @property
    def cost(self) -> float:
        """Dollars a month, not rounded."""
        return self.quantity * self.price


@dataclass(frozen=True, slots=True)
class LayerSize:
    """A layer as it is, and what a year of ten assets would take there, in bytes; beside a reference in GB a year."""

    layer: str
    tables: int
    rows: int
    bytes: int
    year: int | None
    reference_gb: float | None


@dataclass(frozen=True, slots=True)
class CostReport:
    """A month's bill and the size of each layer."""

    lines: tuple[Line, ...]
    layers: tuple[LayerSize, ...]
    footprint: Footprint
    settings: CostSettings
    lifecycle: LifecycleSettings

    @property
    def total(self) -> float:
        """Dollars a month, not rounded."""
        return sum(line.cost for line in self.lines)

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON has it: bytes whole, dollars to a millionth."""
        return {
            "lines": [asdict(line) | {"cost": round(line.cost, 6)} for line in self.lines],
            "total": round(self.total, 6),
            "reference_total": REFERENCE_TOTAL,
            "layers": [asdict(layer) for layer in self.layers],
            "assets_in_a_year": ASSETS,
            "footprint": asdict(self.footprint),
            "lifecycle": self.lifecycle.model_dump(),
            "settings": self.settings.model_dump(),
        }


def reckon(lake: Lake, settings: Settings) -> CostReport:
    """Reckon the month's bill of a lake; what is on a disk is priced as if it were in S3.

    Raises:
        StorageError: the lake cannot be listed, or a log cannot be read.
    """
    lifecycle = settings.storage.lifecycle
    measured = footprint(lake, lifecycle, utc_now())
    lines = (*_storage_lines(measured, settings), *_usage_lines(settings.costs))
    return CostReport(lines, tuple(_layers(measured.tables)), measured, settings.costs, lifecycle)


def _storage_lines(measured: Footprint, settings: Settings) -> Iterable[Line]:
    ages, days = measured.ages, settings.storage.lifecycle
    prices: dict[str, float] = settings.costs.prices.model_dump()

    def line(name: str, storage_class: str, size: int, what: str, reference: Reference | None) -> Line:
        service, price = f"S3 {_CLASSES[storage_class]} ({name})", prices[storage_class.lower()]
        return Line(service, what, size / GIB, "GiB", price, measured=True, reference=reference)

    hot, warm, cold = (
        f"last {days.warm_after_days} days",
        f"{days.warm_after_days}-{days.cold_after_days} days",
        f"{days.cold_after_days}+ days",
    )
    yield line("hot", "STANDARD", ages.hot, hot, Reference("100 GB (last 30 days)", 2.3))
    yield line("warm", days.warm_class, ages.warm, warm, Reference("400 GB (30-90 days)", 5.2))
    yield line("cold", days.cold_class, ages.cold, cold, Reference("500 GB (90+ days)", 2.0))
    beside = measured.logs + measured.unreferenced
    yield line("logs, old versions", "STANDARD", beside, "any age", None)


def _usage_lines(costs: CostSettings) -> Iterable[Line]:
    use, price = costs.usage, costs.prices

    def line(service: str, what: str, quantity: float, unit: str, each: float, reference: Reference) -> Line:
        return Line(service, what, quantity, unit, each, measured=False, reference=reference)

    batch = f"{use.batch_hours_per_day:g} hrs/day batch jobs"
    hours = use.batch_hours_per_day * _DAYS_A_MONTH
    yield line("EMR Spark (spot)", batch, hours, "hour", price.batch_hour, Reference("10 hrs/day batch jobs", 150.0))
    brokers = f"{use.kafka_brokers} brokers ({use.kafka_broker_type})"
    hours = float(use.kafka_brokers * HOURS_A_MONTH)
    yield line("MSK Kafka", brokers, hours, "hour", price.kafka_broker_hour, Reference("2 brokers (m5.large)", 150.0))
    airflow = f"{use.airflow_environment} environment"
    hours = float(HOURS_A_MONTH)
    yield line("MWAA Airflow", airflow, hours, "hour", price.airflow_hour, Reference("small environment", 300.0))
    out, gib = f"{use.transfer_out_gb:g} GB out/month", use.transfer_out_gb
    yield line("Data transfer", out, gib, "GiB", price.transfer_out_gb, Reference("50 GB out/month", 4.5))


def _layers(tables: Iterable[TableFootprint]) -> Iterable[LayerSize]:
    found = list(tables)
    for layer in (*LAYERS, OTHER):
        held = [table for table in found if table.layer == layer]
        if layer == OTHER and not held:
            continue
        years = [table.year for table in held if table.year is not None]
        yield LayerSize(
            layer=layer,
            tables=len(held),
            rows=sum(table.rows for table in held),
            bytes=sum(table.bytes for table in held),
            year=sum(years) if years else None,
            reference_gb=_REFERENCE_YEAR_GB.get(layer),
        )
