from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from equipoise.experiments.effects import hedges_g, superiority

DRAWS = np.random.default_rng(4)


def test_g_by_the_t_statistic() -> None:
    first, second = DRAWS.normal(1, 2, 5).tolist(), DRAWS.normal(0, 1, 7).tolist()
    t = stats.ttest_ind(first, second).statistic
    exact = math.gamma(5) / (math.sqrt(5) * math.gamma(4.5))  # Hedges' J of 10 degrees of freedom
    assert hedges_g(first, second) == pytest.approx(t * math.sqrt(1 / 5 + 1 / 7) * exact, rel=2e-3)


def test_g_without_spread() -> None:
    assert hedges_g([2.0, 2.0], [1.0, 1.0]) == math.inf
    assert hedges_g([1.0, 1.0], [2.0, 2.0]) == -math.inf
    assert hedges_g([1.0, 1.0], [1.0, 1.0]) == 0
    assert math.isnan(hedges_g([1.0], [1.0, 2.0]))


def test_superiority_is_the_u_statistic() -> None:
    first, second = DRAWS.integers(0, 6, 5).tolist(), DRAWS.integers(0, 6, 6).tolist()
    assert superiority(first, second) == pytest.approx(stats.mannwhitneyu(first, second).statistic / 30)
    with pytest.raises(ValueError, match="Found none"):
        superiority([], [1.0])
