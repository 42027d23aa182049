"""How two processes share the run (`--numprocesses 2`): one runs dbt, the other all else that needs Spark or Kafka.

So there is one session in each, one broker, and of tests that start a JVM of their own one at a time. All other tests
go, one by one, to whoever has nothing else to do. Only the workers collect tests and know their marks; they tell the
scheduler through a file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

_DBT = Path(__file__).parent / "transform"
_FOLDER = pytest.StashKey[Path]()


def share(item: pytest.Item) -> str | None:
    """Return the name of what a test must be run together with, if anything."""
    if item.get_closest_marker("kafka") is not None:
        return "session"
    mark = item.get_closest_marker("spark")
    if mark is None:
        return None
    if mark.kwargs.get("alone"):
        return "own JVM"
    return "dbt" if item.path.is_relative_to(_DBT) else "session"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, write down which tests belong together."""
    told = getattr(config, "workerinput", None)
    if told is not None:
        shares = {item.nodeid: name for item in items if (name := share(item))}
        Path(told["shares"]).write_text(json.dumps(shares), encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker where to write."""
    stash = node.config.stash
    if _FOLDER not in stash:
        stash[_FOLDER] = Path(tempfile.mkdtemp(prefix="lakehouse-tests-"))
        node.config.add_cleanup(partial(shutil.rmtree, stash[_FOLDER], ignore_errors=True))
    node.workerinput["shares"] = str(stash[_FOLDER] / f"{node.gateway.id}.json")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shares:
    """Hand tests out by share."""
    return Shares(config, log)


class Shares(LoadScopeScheduling):
    """Gives each share to one worker, the largest first, and the tests without one in their order."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._share: dict[str, str] = {}

    def schedule(self) -> None:
        for path in self.config.stash[_FOLDER].glob("*.json"):
            self._share |= json.loads(path.read_text(encoding="utf-8"))
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._share.get(nodeid, nodeid)
