from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from equipoise.experiments.crossed import crossed_test

DRAWS = np.random.default_rng(2)


def test_where_samples_do_not_vary_it_is_the_paired_t_test_over_seeds() -> None:
    by_seed = DRAWS.normal(0.4, 1, 5)
    found = crossed_test(np.repeat(by_seed[:, None], 30, axis=1))
    expected = stats.ttest_1samp(by_seed, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(4)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_where_seeds_agree_it_is_a_normal_test_over_samples() -> None:
    scores = DRAWS.normal(0.1, 1, 80)
    found = crossed_test(np.repeat(scores[None], 4, axis=0))
    z = scores.mean() / (scores.std(ddof=1) / math.sqrt(80))
    assert found.freedom == math.inf
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_mean_squares_are_those_of_a_two_way_table() -> None:
    # By hand: rows (1, 3), (5, 3), grand mean 3. Rows' means 2, 4: MS_S = 2·(1 + 1)/1 = 4. Columns' means 3, 3:
    # MS_N = 0. Residuals ±1: MS_SN = 4. E = 4 + max(0 − 4, 0) = 4; error² = 4/4; ν = 1·4²/4² = 1.
    found = crossed_test([[1, 3], [5, 3]])
    assert (found.difference, found.error, found.freedom) == pytest.approx((3, 1, 1))
    assert found.p == pytest.approx(2 * (0.5 - math.atan(3) / math.pi))  # Student's t with ν = 1 is Cauchy


def test_it_errs_about_as_often_as_it_says_where_a_test_over_samples_errs_far_more() -> None:
    """Two methods that differ in nothing but the luck of their seeds and samples."""
    draws = np.random.default_rng(8)
    rounds = 300
    tables = draws.normal(0, 0.3, (rounds, 5, 1)) + draws.normal(0, 1, (rounds, 1, 60))
    tables += draws.normal(0, 1, (rounds, 5, 60))
    wrong = np.mean([crossed_test(d).p < 0.05 for d in tables])
    wrong_over_samples = np.mean(stats.ttest_1samp(tables.mean(axis=1), 0, axis=1).pvalue < 0.05)
    assert 0.02 < wrong < 0.085
    assert wrong_over_samples > 0.15


def test_nothing_and_everything() -> None:
    assert crossed_test(np.zeros((3, 4))).p == 1
    assert crossed_test(np.full((3, 7), 0.1)).p == 0


@pytest.mark.parametrize(
    ("differences", "level", "message"),
    [
        ([[1.0, 2.0]], 0.95, r"Found shape \[1, 2\]"),
        ([[1.0], [2.0]], 0.95, r"Found shape \[2, 1\]"),
        ([[1.0, math.nan], [2.0, 3.0]], 0.95, "Found 1 that are not"),
        ([[1.0, 2.0], [2.0, 3.0]], 1.0, "`level = 1.0`"),
    ],
)
def test_refuses(differences: list[list[float]], level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossed_test(differences, level=level)
