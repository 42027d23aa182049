"""RSI 14 against Wilder's own steps ("New Concepts in Technical Trading Systems", 1978), and TA-Lib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import talib

from tests.transform.indicators.series import assert_agree, assert_first_at, made, on_every_series, series


def wilder(closes: Sequence[float]) -> list[float]:
    changes = [after - before for before, after in pairwise(closes)]
    gains, losses = [max(change, 0.0) for change in changes], [max(-change, 0.0) for change in changes]
    found = [math.nan] * min(14, len(closes))
    for place in range(13, len(changes)):
        if place == 13:
            gain, loss = math.fsum(gains[:14]) / 14, math.fsum(losses[:14]) / 14
        else:
            gain, loss = (13 * gain + gains[place]) / 14, (13 * loss + losses[place]) / 14
        if gain + loss == 0:
            found.append(math.nan)
        else:
            found.append(100.0 if loss == 0 else 100 - 100 / (1 + gain / loss))
    return found


@on_every_series
def test_is_wilders(name: str) -> None:
    found = series(name)
    assert_agree(found.values("rsi_14"), wilder(found.frame["close"].tolist()))


@on_every_series
def test_is_ta_libs(name: str) -> None:
    found = series(name)
    assert_agree(found.values("rsi_14"), talib.RSI(found.frame["close"].to_numpy(), 14))


def test_is_null_until_there_are_enough_bars() -> None:
    assert_first_at("sample btc 1h", "rsi_14", 14)


def test_is_null_where_nothing_ever_moved() -> None:
    flat = [5.0] * 40
    assert np.isnan(made(flat).values("rsi_14")).all()
    # TA-Lib calls it oversold.
    assert talib.RSI(np.array(flat), 14)[-1] == 0
    assert_agree(made([*flat, 6.0]).values("rsi_14")[-1:], [100.0])


def test_only_gains_are_100_and_only_losses_0() -> None:
    assert_agree(made(list(range(1, 17))).values("rsi_14")[14:], [100.0, 100.0])
    assert_agree(made(list(range(17, 1, -1))).values("rsi_14")[14:], [0.0, 0.0])


def test_keeps_its_value_through_a_long_pause_and_ends_null_rather_than_as_noise() -> None:
    rng = np.random.default_rng(3)
    active = (100 + np.cumsum(rng.normal(0, 1, 60))).tolist()
    rsi = made(active + [active[-1]] * 12_000).values("rsi_14")
    valid = rsi[~np.isnan(rsi)]
    assert_agree(valid[-5000:], [wilder(active)[-1]] * 5000)
    assert np.isnan(rsi[-1000:]).all()
    # TA-Lib's ends as a ratio of the smallest numbers there are.
    assert abs(talib.RSI(np.array(active + [active[-1]] * 12_000), 14)[-1] - wilder(active)[-1]) > 1e-3
