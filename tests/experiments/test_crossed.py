from __future__ import annotations

import math
from typing import Any

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


def test_it_is_the_three_way_analysis_of_two_methods_by_readers_and_cases() -> None:
    """Dorfman, Berbaum and Metz: mean squares of the whole table ``[2, S, N]``, of which ours sees differences."""
    scores = DRAWS.normal(0, 1, (2, 4, 9)) + DRAWS.normal(0, 1, (2, 1, 9)) + DRAWS.normal(0, 0.5, (2, 4, 1))
    _, seeds, samples = scores.shape

    def part(*axes: int) -> Any:
        others = tuple(axis for axis in range(3) if axis not in axes)
        return scores.mean(axis=others, keepdims=True)

    tr = part(0, 1) - part(0) - part(1) + part()
    tc = part(0, 2) - part(0) - part(2) + part()
    trc = scores - part(0, 1) - part(0, 2) - part(1, 2) + part(0) + part(1) + part(2) - part()
    ms_tr = samples * (tr**2).sum() / (seeds - 1)
    ms_tc = seeds * (tc**2).sum() / (samples - 1)
    ms_trc = (trc**2).sum() / ((seeds - 1) * (samples - 1))
    assert ms_tc > ms_trc  # so that the samples count
    denominator = ms_tr + ms_tc - ms_trc
    f = seeds * samples * ((part(0) - part()) ** 2).sum() / denominator
    freedom = (seeds - 1) * denominator**2 / ms_tr**2
    found = crossed_test(scores[0] - scores[1])
    assert found.freedom == pytest.approx(freedom)
    assert (found.difference / found.error) ** 2 == pytest.approx(f)
    assert found.p == pytest.approx(stats.f.sf(f, 1, freedom))


def test_it_is_the_analysis_of_readers_means_and_their_covariance_over_cases() -> None:
    """Obuchowski and Rockette with Hillis' degrees of freedom: no table of samples, only covariances of means."""
    scores = DRAWS.normal(0, 1, (2, 5, 40)) + DRAWS.normal(0, 1, (2, 1, 40)) + DRAWS.normal(0, 0.2, (2, 5, 1))
    means = scores.mean(axis=2)
    of_means = np.cov(scores.reshape(10, 40)) / 40
    same = np.arange(10) // 5 == (np.arange(10) // 5)[:, None]
    reader = np.arange(10) % 5 == (np.arange(10) % 5)[:, None]
    cov2, cov3 = of_means[same & ~reader].mean(), of_means[~same & ~reader].mean()
    assert cov2 > cov3
    rest = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    ms_tr = (rest**2).sum() / 4
    denominator = ms_tr + 5 * (cov2 - cov3)
    freedom = 4 * denominator**2 / ms_tr**2
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(2 / 5 * denominator)
    found = crossed_test(scores[0] - scores[1])
    difference = means[0].mean() - means[1].mean()
    assert found.freedom == pytest.approx(freedom)
    assert (found.low, found.high) == pytest.approx((difference - reach, difference + reach))


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
