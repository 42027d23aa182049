"""What a run found at the edge, for the log of quality results."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipelines.contracts import load_contracts
from pipelines.errors import LakehouseError
from pipelines.storage.quality_log import QualityResult

if TYPE_CHECKING:
    from pipelines.batch.results import IngestResult
    from pipelines.storage import DeltaLakeManager

logger = logging.getLogger(__name__)

WHOLE_CONTRACT = "contract"


def record_edge(
    manager: DeltaLakeManager, series: Iterable[IngestResult], run_id: str, *, synthetic: bool = False
) -> None:
    """Record what was checked on its way in; what cannot be recorded is warned of, for the rows themselves landed."""
    try:
        manager.quality.record([found for each in series for found in edge_results(each)], run_id, synthetic=synthetic)
    except (LakehouseError, OSError) as error:
        logger.warning("the results of the checks were not recorded: %s", error)


def edge_results(result: IngestResult) -> Iterator[QualityResult]:
    """Yield one result for a series' whole contract, and one for each reason that rows were refused for."""
    if not result.fetched:
        return
    landed = {name: getattr(result, name) for name in ("new", "restated", "repeated")}
    for reason, failed in ((WHOLE_CONTRACT, result.rejected), *sorted(result.reasons.items())):
        yield QualityResult(
            kind="edge",
            dataset=result.dataset,
            check_name=reason,
            severity="critical",
            success=not failed,
            rows_checked=max(result.fetched, failed),
            rows_failed=failed,
            table_name=load_contracts()[result.dataset].table_for(result.timeframe),
            asset_pair=result.subject,
            timeframe=result.timeframe.value if result.timeframe else None,
            provider=next(iter(result.served)) if len(result.served) == 1 else None,
            details=json.dumps(landed) if reason == WHOLE_CONTRACT else None,
        )
