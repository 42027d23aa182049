"""The silver table `trade_lifecycle`: executions of one instrument in one book, matched into lots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ContractError
from pipelines.instruments import Instrument, load_registry
from pipelines.transform.trades.fifo import Part, match, to_ticks
from pipelines.transform.trades.spec import EXECUTIONS, LOTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SECOND = 1_000_000.0


def marked(executions: pa.Table, marks: pa.Table) -> pa.Table:
    """Add the columns mark and mark_at to the executions of one instrument.

    Args:
        executions: `EXECUTIONS` without those two.
        marks: asset_pair, close, closed_at (UTC): closes known at the as-of instant, of which the newest counts.
    """
    known = marks.filter(pc.is_in(marks["asset_pair"], value_set=executions["asset_pair"].unique()))
    newest = known.sort_by([("closed_at", "descending")]).slice(0, 1)
    for name, source in (("mark", "close"), ("mark_at", "closed_at")):
        kind = EXECUTIONS.field(name).type
        value = newest[source][0].as_py() if newest.num_rows else None
        executions = executions.append_column(name, pa.repeat(pa.scalar(value, kind), executions.num_rows))
    return executions


def trade_lots(executions: pa.Table) -> pa.Table:
    """Match the executions of one instrument in one book into lots, first in, first out.

    Executions count in the order of timestamp, then of execution_id, whatever order they come in. The position alone
    decides what opens and what closes: a fill that closes it and goes on is an exit in one row and an entry in another.
    Fees are shared by quantity; one paid in the base currency is worth its amount at the fill's own price.

    Args:
        executions: `EXECUTIONS`, the newest version of each.

    Returns:
        `LOTS`, by entry, then by exit.

    Raises:
        ContractError: an execution occurs twice, or there are several instruments or books.
        UnknownAssetError: the instrument is not known.
    """
    if not executions.num_rows:
        return LOTS.empty_table()
    _check(executions)
    fills = executions.select(EXECUTIONS.names).cast(EXECUTIONS)
    fills = fills.sort_by([("timestamp", "ascending"), ("execution_id", "ascending")])
    instrument = load_registry().resolve(fills["asset_pair"][0].as_py())
    ticks, unit = to_ticks(fills["quantity"].to_pylist())
    buys = pc.equal(fills["side"], "BUY").to_pylist()
    parts = match([size if buy else -size for size, buy in zip(ticks, buys, strict=True)])
    return _rows(_Sides.of(fills, parts), parts, ticks, unit, quote_fees(fills, instrument), instrument.quote)


def quote_fees(fills: pa.Table, instrument: Instrument) -> Floats:
    """Return each fill's fee in quote currency; NaN for one paid in a third currency."""
    currency = pc.utf8_upper(pc.fill_null(fills["fee_currency"], instrument.quote))
    fee = _floats(pc.fill_null(fills["fee"], 0.0))
    quote = _flags(pc.equal(currency, instrument.quote))
    base = _flags(pc.equal(currency, instrument.base))
    converted = np.where(quote, fee, np.where(base, fee * _floats(fills["price"]), np.nan))
    return np.where(fee == 0.0, 0.0, converted)


@dataclass(frozen=True, slots=True)
class _Sides:
    """The fills at both ends of each part; an open one has nulls for its exit."""

    entry: pa.Table
    exit: pa.Table

    @classmethod
    def of(cls, fills: pa.Table, parts: list[Part]) -> _Sides:
        return cls(
            fills.take(pa.array([part.entry for part in parts], pa.int64())),
            fills.take(pa.array([part.exit for part in parts], pa.int64())),
        )


def _rows(sides: _Sides, parts: list[Part], ticks: list[int], unit: int, fees: Floats, quote: str) -> pa.Table:
    entry, exit_ = sides.entry, sides.exit
    is_open = _flags(pc.is_null(exit_["execution_id"]))
    # Whole numbers divide to the double nearest to the exact quotient.
    quantity = np.array([part.ticks / unit for part in parts])
    entry_fee = np.array([fees[p.entry] * (p.ticks / ticks[p.entry]) for p in parts])
    exit_fee = np.array([np.nan if p.exit is None else fees[p.exit] * (p.ticks / ticks[p.exit]) for p in parts])
    long = _flags(pc.equal(entry["side"], "BUY"))
    held = np.where(long, quantity, -quantity)
    bought, sold = _floats(entry["price"]), _floats(exit_["price"])
    gross = held * (sold - bought)
    net = gross - entry_fee - exit_fee
    mark = np.where(is_open, _floats(entry["mark"]), np.nan)
    open_gross = held * (mark - bought)
    texts = _identity(sides)
    made: dict[str, Any] = {
        "book": entry["provider"],
        "asset_pair": entry["asset_pair"],
        "quote_currency": [quote] * len(parts),
        "side": np.where(long, "LONG", "SHORT"),
        "status": np.where(is_open, "open", "closed"),
        "decision_id": entry["decision_id"],
        "exit_decision_id": exit_["decision_id"],
        "entry_execution_id": entry["execution_id"],
        "entry_order_id": entry["order_id"],
        "exit_execution_id": exit_["execution_id"],
        "exit_order_id": exit_["order_id"],
        "opened_at": entry["timestamp"],
        "closed_at": exit_["timestamp"],
        "quantity": quantity,
        "entry_price": bought,
        "exit_price": sold,
        "entry_fee": entry_fee,
        "exit_fee": exit_fee,
        "gross_pnl": gross,
        "net_pnl": net,
        "net_return": net / (quantity * bought),
        "holding_seconds": _floats(pc.subtract(_micros(exit_), _micros(entry))) / _SECOND,
        "mark": mark,
        "mark_at": pc.if_else(pa.array(np.isnan(mark)), None, entry["mark_at"].combine_chunks()),
        "open_gross_pnl": open_gross,
        "open_pnl": open_gross - entry_fee,
    }
    return pa.table([_column(field, (texts | made)[field.name]) for field in LOTS], schema=LOTS)


def _identity(sides: _Sides) -> dict[str, pa.ChunkedArray]:
    entry, exit_ = sides.entry, sides.exit
    day = pc.strftime(exit_["timestamp"], "%Y-%m-%d")
    return {
        "lot_id": pc.binary_join_element_wise(
            entry["execution_id"], pc.fill_null(exit_["execution_id"], "open"), " > "
        ),
        "trade_id": pc.binary_join_element_wise(
            pc.binary_join_element_wise(entry["order_id"], exit_["order_id"], " > "), day, " @ "
        ),
    }


def _check(executions: pa.Table) -> None:
    for name in ("provider", "asset_pair"):
        if len(several := executions[name].unique().to_pylist()) > 1:
            raise ContractError(
                f"lots are matched within one {name}, not across {', '.join(several[:3])}: partition by it"
            )
    if pc.count_distinct(executions["execution_id"]).as_py() < executions.num_rows:
        counts = executions["execution_id"].value_counts().to_pylist()
        twice = next(count["values"] for count in counts if count["counts"] > 1)
        raise ContractError(f"execution {twice} occurs more than once: pass only the newest version of each")


def _column(field: pa.Field, values: Any) -> pa.Array:  # noqa: ANN401 - an array, a list or chunks
    if isinstance(values, np.ndarray):
        return pa.array(values, type=field.type, from_pandas=True)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values, type=field.type)


def _micros(fills: pa.Table) -> pa.ChunkedArray:
    return fills["timestamp"].cast(pa.int64())


def _floats(values: pa.ChunkedArray) -> Floats:
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _flags(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(values.to_numpy(), dtype=np.bool_)
