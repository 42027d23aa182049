"""The notebooks run headless, draw their figures, print what is so, and leave the lake as they found it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import papermill
import pytest

from pipelines.batch import BatchDataIngester
from pipelines.config import PROJECT_ROOT
from pipelines.storage import DeltaLakeManager
from tests.conftest import make_settings

NOTEBOOKS = PROJECT_ROOT / "notebooks"
TABLE = "raw_market_data_1h"
ASSET = "BTCUSD"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A lake with three days of sample bars of two assets, one of which was restated."""
    where = tmp_path_factory.mktemp("notebooks")
    settings = make_settings(where, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    ingester = BatchDataIngester(lake, settings)
    for asset in (ASSET, "ETHUSD"):
        done = asyncio.run(ingester.ingest_historical_data(asset, "1h", "2025-12-07", "2025-12-10", provider="sample"))
        assert done.new == 72
    bar = lake.read_table(TABLE, "2025-12-08", "2025-12-08T01:00", ASSET)[["asset_pair", "timestamp", "high"]]
    assert lake.merge_upsert(bar.assign(high=bar["high"] + 5000), TABLE, ["asset_pair", "timestamp"]).updated == 1
    return where / "lake"


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def executed(name: str, lake: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Run a notebook; return what it printed and how many figures it drew."""
    monkeypatch.delenv("MPLBACKEND", raising=False)
    before, done = contents(lake), folder / f"{name}.ipynb"
    # From another folder than its own: where a notebook is opened must not matter.
    monkeypatch.chdir(folder)
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", done, {"lake_path": str(lake)}, kernel_name="python3", progress_bar=False
    )
    assert contents(lake) == before
    cells = json.loads(done.read_text(encoding="utf-8"))["cells"]
    outputs: list[dict[str, Any]] = [output for cell in cells for output in cell.get("outputs", [])]
    printed = [output for output in outputs if output["output_type"] == "stream"]
    assert {output["name"] for output in printed} == {"stdout"}
    figures = [base64.b64decode(data) for each in outputs if (data := each.get("data", {}).get("image/png"))]
    assert all(figure.startswith(PNG) and len(figure) > 5_000 for figure in figures)
    return "".join("".join(output["text"]) for output in printed), len(figures)


def bars(lake: Path, newest: bool = True) -> pd.DataFrame:
    """Return the asset's bars from the files themselves: each one's newest or oldest version."""
    order = "desc" if newest else "asc"
    rows = duckdb.sql(
        f"""select timestamp, high, close, volume from read_parquet('{lake}/{TABLE}/**/*.parquet')
            where asset_pair = '{ASSET}'
            qualify row_number() over (partition by timestamp order by ingested_at {order}) = 1 order by timestamp"""
    )
    return rows.df()


def test_explore(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, figures = executed("explore", folder, tmp_path, monkeypatch)
    found = bars(folder)
    returns = np.diff(np.log(found["close"]))
    volatility = np.std(returns, ddof=1) * np.sqrt(365 * 24)
    assert figures == 4
    assert (
        f"{ASSET} 1h: 72 bars, last close {found['close'].iloc[-1]:.2f}, volume {found['volume'].sum():.1f}" in printed
    )
    assert f"volatility {volatility:.2%} a year" in printed
    assert found["high"].max() > bars(folder, newest=False)["high"].max() + 3000
    assert f"highest price of {ASSET}: {found['high'].max():.2f}\n" in printed
    assert "restated bars: 1\n" in printed


def test_time_travel(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, figures = executed("time_travel", folder, tmp_path, monkeypatch)
    assert figures == 1
    # Versions: the table, its constraints, two appends, the restated bar; then the notebook's own correction.
    assert f"snapshot research: {TABLE} at version 4\n" in printed
    assert "restated 6, new 0, now version 5\n" in printed
    assert re.findall(r": (\d+) rows\n", printed) == ["151", "145", "145", "145"]
    assert "added 0, restated 6, removed 0;" in printed
    assert "back to version 4: 6 rows would go, 0 would come back\nstill at version 5\n" in printed

    then = bars(folder)["close"].to_numpy()
    now = then.copy()
    now[36:42] = np.round(now[36:42] * 0.985, 2)
    for name, close in (("then", then), ("now", now)):
        assert f"as known {name}: {equity(close):.6f}\n" in printed
    assert equity(then) != equity(now)


def equity(close: np.ndarray) -> float:
    """Return what is left of 1 when held wherever a close was above the mean of the 12 closes up to it."""
    value = 1.0
    for place in range(11, len(close) - 1):
        if close[place] > close[place - 11 : place + 1].mean():
            value *= close[place + 1] / close[place]
    return value


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_clean(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(len(cell["source"]) <= 20 for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert 'lake_path = "data/sample_lake"\n' in tagged[0]["source"]
