"""Highest close so far and the drawdown from it, against the maximum of all closes before."""

from __future__ import annotations

import math

from tests.transform.indicators.series import assert_agree, made, on_every_series, series


@on_every_series
def test_is_the_loss_since_the_highest_close(name: str) -> None:
    found = series(name)
    high, highs, losses = -math.inf, [], []
    for close in found.frame["close"]:
        high = max(high, close)
        highs.append(high)
        losses.append((close - high) / high)
    assert_agree(found.values("running_max"), highs)
    assert_agree(found.values("drawdown"), losses)
    assert found.values("drawdown").max() == 0


def test_is_null_unless_the_highest_close_is_above_zero() -> None:
    found = made([-2.0, -1.0, 0.0, 4.0, 1.0, -1.0])
    assert_agree(found.values("running_max"), [-2.0, -1.0, 0.0, 4.0, 4.0, 4.0])
    assert_agree(found.values("drawdown"), [math.nan] * 3 + [0.0, -0.75, -1.25])


def test_one_bar() -> None:
    assert_agree(made([2.0]).values("drawdown"), [0.0])
