"""First in, first out, in whole ticks: exact at any size."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

# Every decimal number of this many digits survives the way into a double and back (C's DBL_DIG).
_DIGITS = 15


class Part(NamedTuple):
    """A part of an entry's quantity: where its entry and exit are in the sequence (None: open), and its ticks."""

    entry: int
    exit: int | None
    ticks: int


def to_ticks(quantities: Sequence[float]) -> tuple[list[int], int]:
    """Return quantities as whole ticks, and how many ticks are one unit.

    A quantity is read as the decimal number of 15 digits nearest to it, which is what its source wrote: buys of 0.1 and
    0.2 are closed to nothing by a sell of 0.3, and by one of 0.1 + 0.2 = 0.30000000000000004 too.
    """
    exact = [Decimal(f"{quantity:.{_DIGITS}g}") for quantity in quantities]
    digits = max((-int(number.as_tuple().exponent) for number in exact), default=0)
    digits = max(digits, 0)
    return [int(number.scaleb(digits)) for number in exact], 10**digits


def match(signed: Sequence[int]) -> list[Part]:
    """Match fills first in, first out.

    A fill against the open position closes its oldest lots first; what is left of it then opens a lot the other way.

    Args:
        signed: ticks of each fill in order of time, above 0 for a buy and below 0 for a sell.

    Returns:
        One part per pair of fills that met, and per lot still open; by entry, then by exit, open last. The parts of an
        entry, and those of an exit together with what it opened, add up to its ticks.
    """
    parts: list[Part] = []
    lots: deque[tuple[int, int]] = deque()
    long = True
    for index, quantity in enumerate(signed):
        left = abs(quantity)
        while left and lots and long is (quantity < 0):
            entry, held = lots.popleft()
            met = min(left, held)
            parts.append(Part(entry, index, met))
            left -= met
            if held > met:
                lots.appendleft((entry, held - met))
        if left:
            long = quantity > 0
            lots.append((index, left))
    parts += [Part(entry, None, held) for entry, held in lots]
    return sorted(parts, key=lambda part: (part.entry, len(signed) if part.exit is None else part.exit))
