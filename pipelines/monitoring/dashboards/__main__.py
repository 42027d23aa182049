"""`python -m pipelines.monitoring.dashboards`: writes the files, compares them, or asks a Prometheus every query."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.config import PROJECT_ROOT
from pipelines.generated import write_or_check
from pipelines.monitoring.dashboards import probe
from pipelines.monitoring.dashboards.drawing import PAGE, as_json
from pipelines.monitoring.dashboards.page import page
from pipelines.monitoring.dashboards.pipeline_health import PIPELINE_HEALTH
from pipelines.monitoring.dashboards.trading_performance import TRADING_PERFORMANCE

MODULE = "pipelines.monitoring.dashboards"
BOARDS = (PIPELINE_HEALTH, TRADING_PERFORMANCE)


def files(root: Path = PROJECT_ROOT) -> Mapping[Path, str]:
    """Return every generated file, by its path below the project's root."""
    found = {root / "monitoring" / "grafana" / board.file: as_json(board) for board in BOARDS}
    return found | {root / "docs" / PAGE: page(BOARDS)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, compare them with --check, or with --probe ask a Prometheus; returns the exit code.

    It is 1 if a file is stale, or if a query could not be answered.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description="Grafana dashboards, their page and a probe."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    what.add_argument("--probe", metavar="URL", help="print what every query returns from this Prometheus")
    parser.add_argument("--root", type=Path, default=PROJECT_ROOT, help="the folder that holds monitoring and docs")
    given = parser.parse_args(arguments)
    if given.probe:
        answers = probe.ask(BOARDS, given.probe)
        sys.stdout.write("\n".join(probe.report(answers)) + "\n")
        return 1 if any(answer.error for answer in answers) else 0
    return write_or_check(files(given.root), MODULE, check=given.check)


if __name__ == "__main__":
    sys.exit(main())
