"""Which alerts were sent when, shared by all processes of a machine: what limits their rate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines.lock_file import held

_NAME = "alerts.json"
_HOUR = 3600.0
# A pause that Slack asks for is kept, but not for ever.
_LONGEST_PAUSE = _HOUR


@dataclass(slots=True)
class AlertLog:
    """When messages were sent (Unix seconds, by name), how many were not since, and until when none shall be."""

    sent_at: dict[str, float] = field(default_factory=dict)
    left_out: int = 0
    paused_until: float = 0.0

    def take(self, severity: str, key: str, per_hour: int) -> int | None:
        """Take one's turn to send; returns how many messages were left out before, None if it is not one's turn.

        It is if none of its severity and key was sent in the last hour, and fewer than `per_hour` of its severity:
        many of one severity never keep one of another back.
        """
        now = time.time()
        # One from the future is of a clock that went back.
        self.sent_at = {name: at for name, at in self.sent_at.items() if now - _HOUR < at <= now}
        paused = now < self.paused_until <= now + _LONGEST_PAUSE
        total = sum(name.startswith(f"{severity}:") for name in self.sent_at)
        if f"{severity}:{key}" in self.sent_at or total >= per_hour or paused:
            self.left_out += 1
            return None
        self.sent_at[f"{severity}:{key}"] = now
        before, self.left_out = self.left_out, 0
        return before

    def give_back(self, severity: str, key: str, before: int, pause_seconds: float) -> None:
        """Note that a message was not sent after all, and admit none for a while."""
        self.sent_at.pop(f"{severity}:{key}", None)
        self.left_out += before + 1
        self.paused_until = time.time() + min(max(0.0, pause_seconds), _LONGEST_PAUSE)


@contextmanager
def alert_log(folder: str | Path) -> Iterator[AlertLog]:
    """Yield the log kept in a folder, to oneself, and keep what is done to it.

    Raises:
        OSError: it cannot be kept.
    """
    place = Path(folder)
    with held(place / f"{_NAME}.lock"):
        log = _read(place / _NAME)
        yield log
        partial = place / f".{_NAME}.partial"
        partial.write_text(json.dumps(asdict(log)), encoding="utf-8")
        partial.replace(place / _NAME)


def _read(path: Path) -> AlertLog:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        times = {str(name): float(at) for name, at in found["sent_at"].items()}
        return AlertLog(times, int(found["left_out"]), float(found["paused_until"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        # Damaged, or not there yet: at worst a message is sent once more.
        return AlertLog()
