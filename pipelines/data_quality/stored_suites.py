"""Writes config/expectations/*.json, the suites of the contracts: `python -m pipelines.data_quality.stored_suites`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import CONFIG_DIR
from pipelines.contracts import Contract, load_contracts
from pipelines.data_quality.checks import checks_for
from pipelines.data_quality.expectations import added_by_hand, build_suite
from pipelines.data_quality.expectations_suite import suite_name

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.expectations.expectation import Expectation

SUITES = CONFIG_DIR / "expectations"
_MODULE = "python -m pipelines.data_quality.stored_suites"
# Made anew each time, or different with the version of the library: they say nothing of what is expected.
_PASSING = ("id", "great_expectations_version")


def stored_suite(path: Path, name: str) -> Path:
    """Return the file of a suite in the Great Expectations project of the folder `quality.path`."""
    return path / "gx" / "expectations" / f"{name}.json"


def by_hand(path: Path, contract_id: str) -> list[Expectation]:
    """Return what a user added by hand to a contract's stored suite; it counts in the live suite as well.

    Args:
        path: the folder `quality.path` of the settings.
        contract_id: the contract.

    Raises:
        ContractError: the stored suite cannot be read.
    """
    return added_by_hand(stored_suite(path, suite_name(contract_id)))


def contract_suites(contract: Contract) -> Iterator[ExpectationSuite]:
    """Yield a contract's suite, and its live suite if that expects more."""
    for live in (False, True):
        if not live or checks_for(contract, live=True) != checks_for(contract):
            yield build_suite(contract, suite_name(contract.id, live=live), live=live)


def suite_text(suite: ExpectationSuite) -> str:
    """Return a suite as JSON to read and compare: always the same for the same contract."""
    return json.dumps(_lasting(suite.to_json_dict()), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check compare them; returns 1 if one is stale, lacks or is not of a contract."""
    parser = argparse.ArgumentParser(prog=_MODULE, description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    parser.add_argument("--path", type=Path, default=SUITES, help="where the files are")
    given = parser.parse_args(arguments)
    folder: Path = given.path
    texts = {
        f"{suite.name}.json": suite_text(suite) for each in load_contracts().values() for suite in contract_suites(each)
    }
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    if given.check:
        stale = sorted(name for name in texts.keys() | present.keys() if texts.get(name) != present.get(name))
        sys.stderr.writelines(f"{folder / name} is stale; run {_MODULE}\n" for name in stale)
        return 1 if stale else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - texts.keys():
        (folder / name).unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


def _lasting(value: object) -> object:
    if isinstance(value, dict):
        return {name: _lasting(part) for name, part in value.items() if name not in _PASSING}
    if isinstance(value, list):
        return [_lasting(part) for part in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
