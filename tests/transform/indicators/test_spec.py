"""The list of columns: what docs, SQL and Arrow derive from it."""

from __future__ import annotations

from pipelines.transform.indicators import COLUMNS, STATE_BARS, arrow_schema, ddl
from tests.transform.indicators.series import series


def test_every_column_is_named_once_and_explained() -> None:
    names = [column.name for column in COLUMNS]
    assert len({*names}) == len(names)
    assert all(column.description.endswith(".") for column in COLUMNS)
    assert all(column.is_state == column.name.startswith("state_") for column in COLUMNS)


def test_ddl_and_arrow_say_what_is_computed() -> None:
    computed = series("sample btc 1h").computed
    assert computed.select([column.name for column in COLUMNS]).schema == arrow_schema()
    types = {"double": "double", "string": "string"}
    spelled = [f"{field.name} {types[str(field.type)]}" for field in arrow_schema()]
    assert ddl() == ", ".join(spelled)


def test_stored_rows_reach_back_past_every_warm_up() -> None:
    assert max(column.warm_up for column in COLUMNS) <= STATE_BARS
