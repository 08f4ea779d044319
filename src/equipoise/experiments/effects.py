"""How large a difference is, beside the spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance


def hedges_g(first: Sequence[float], second: Sequence[float]) -> float:
    r"""Standardised difference of two means, corrected for few values (Hedges, 1981, read at second hand).

    $$
    g = \left(1 - \frac{3}{4 \nu - 1}\right) \frac{\bar a - \bar b}{s}, \quad
    s^2 = \frac{(n_a - 1) s_a^2 + (n_b - 1) s_b^2}{\nu}, \quad \nu = n_a + n_b - 2
    $$

    Infinite where neither varies and the means differ, 0 where they don't; NaN for fewer than two values on a side.

    >>> round(hedges_g([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]), 3)
    0.8
    """
    if min(len(first), len(second)) < 2:
        return math.nan
    freedom = len(first) + len(second) - 2
    pooled = ((len(first) - 1) * variance(first) + (len(second) - 1) * variance(second)) / freedom
    difference = fmean(first) - fmean(second)
    if pooled == 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return (1 - 3 / (4 * freedom - 1)) * difference / math.sqrt(pooled)


def superiority(first: Sequence[float], second: Sequence[float]) -> float:
    """Chance that a value of the first is above one of the second, ties half: 0.5 where neither leads.

    Raises:
        ValueError: a side without values.

    >>> superiority([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    if not first or not second:
        raise ValueError("Parameters `first` and `second` should hold values. Found none.")
    above = sum((a > b) + (a == b) / 2 for a in first for b in second)
    return above / (len(first) * len(second))
