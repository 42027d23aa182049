"""The exact indicators of silver bars, for one series at a time, on Arrow."""

from pipelines.transform.indicators.full import compute
from pipelines.transform.indicators.incremental import resume
from pipelines.transform.indicators.series import SeriesContext
from pipelines.transform.indicators.spec import COLUMNS, STATE_BARS, IndicatorColumn, arrow_schema, ddl

__all__ = ["COLUMNS", "STATE_BARS", "IndicatorColumn", "SeriesContext", "arrow_schema", "compute", "ddl", "resume"]
