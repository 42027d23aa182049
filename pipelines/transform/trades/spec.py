"""What the table functions of trades take and give: columns, types and what they mean."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts import arrow_type

_NAMES = {pa.string(): "string", pa.float64(): "double", pa.date32(): "date", pa.bool_(): "boolean"}


def columns(*described: tuple[str, str, str]) -> pa.Schema:
    """Return a schema from (name, Spark DDL type, description) triples; a field's metadata has its description."""
    return pa.schema(
        [pa.field(name, arrow_type(kind), metadata={"description": text}) for name, kind, text in described]
    )


def ddl(schema: pa.Schema) -> str:
    """Return a schema as Spark DDL, as a table function declares what it returns."""
    return ", ".join(f"{field.name} {_NAMES.get(field.type, 'timestamp')}" for field in schema)


EXECUTIONS = columns(
    ("execution_id", "string", "Identity of the fill; once in a book."),
    ("order_id", "string", "Order the fill belongs to."),
    ("decision_id", "string", "Decision that caused it; null for none."),
    ("provider", "string", "Where the record came from: the book. The same on all rows."),
    ("asset_pair", "string", "Instrument traded. The same on all rows."),
    ("timestamp", "timestamp", "When the fill happened, UTC."),
    ("side", "string", "BUY or SELL."),
    ("quantity", "double", "Filled amount in base units, above 0; read as a decimal number of 15 digits."),
    ("price", "double", "Fill price in quote currency."),
    ("fee", "double", "Fee paid, in fee_currency; null counts as none."),
    ("fee_currency", "string", "Currency of the fee; null is the quote currency."),
    ("mark", "double", "Last close known at the as-of instant; null where no bar is known. The same on all rows."),
    ("mark_at", "timestamp", "When the bar of the mark closed, UTC. The same on all rows."),
)

LOTS = columns(
    ("lot_id", "string", "Identity within book and asset_pair: entry execution and exit execution, or open."),
    ("book", "string", "Where the executions were recorded. Lots of different books never match."),
    ("asset_pair", "string", "Instrument traded."),
    ("quote_currency", "string", "Currency of prices, fees and P&L."),
    ("side", "string", "LONG, opened by a BUY, or SHORT, opened by a SELL."),
    ("status", "string", "closed or open."),
    ("trade_id", "string", "Round trip: entry order, exit order and day of exit (UTC). Null while open."),
    ("decision_id", "string", "Decision of the entry; null for none."),
    ("exit_decision_id", "string", "Decision of the exit; null for none and while open."),
    ("entry_execution_id", "string", "Fill that opened the lot."),
    ("entry_order_id", "string", "Order of the entry."),
    ("exit_execution_id", "string", "Fill that closed this part of the lot; null while open."),
    ("exit_order_id", "string", "Order of the exit; null while open."),
    ("opened_at", "timestamp", "When the lot was opened, UTC."),
    ("closed_at", "timestamp", "When this part of it was closed, UTC; null while open."),
    ("quantity", "double", "Base units of this part, above 0."),
    ("entry_price", "double", "Price of the entry, in quote currency."),
    ("exit_price", "double", "Price of the exit; null while open."),
    ("entry_fee", "double", "Share of the entry's fee, by quantity; null if paid in a third currency."),
    ("exit_fee", "double", "Share of the exit's fee, by quantity; null while open or if paid in a third currency."),
    ("gross_pnl", "double", "Quantity x (exit - entry) for a LONG, (entry - exit) for a SHORT; null while open."),
    ("net_pnl", "double", "gross_pnl - entry_fee - exit_fee; null while open or if a fee is."),
    ("net_return", "double", "net_pnl / (quantity x entry_price), a fraction; null where net_pnl is."),
    ("holding_seconds", "double", "From opened_at to closed_at; null while open."),
    ("mark", "double", "Close that an open lot is valued at; null once closed or if no bar is known."),
    ("mark_at", "timestamp", "When the bar of the mark closed, UTC; null where mark is."),
    ("open_gross_pnl", "double", "As gross_pnl, with the mark for an exit; null where mark is."),
    ("open_pnl", "double", "open_gross_pnl - entry_fee; null where one of them is."),
)  # fmt: skip

EXPOSURE = columns(
    ("opened_at", "timestamp", "When a lot was opened, UTC."),
    ("closed_at", "timestamp", "When it was closed, or until when it is known to be open, UTC."),
)

EXPOSED = columns(
    ("day", "date", "Day, UTC."),
    ("exposed_seconds", "double", "Time of the day with at least one open lot, above 0."),
)
