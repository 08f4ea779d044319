from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error

from equipoise.metrics import interval_coverage, multi_regression


@pytest.mark.parametrize("seed", range(3))
def test_every_output_agrees_with_scikit_learn_and_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 7, (40, 17))
    preds = target + rng.normal(0, 2, (40, 17))
    found = multi_regression(preds, target)
    r = [pearsonr(preds[:, i], target[:, i])[0] for i in range(17)]
    assert found["mae"] == pytest.approx(mean_absolute_error(target, preds))
    assert found["corr"] == pytest.approx(np.mean(r))
    assert found["corr_per_output"] == pytest.approx(r)
    assert found["mae_per_output"] == pytest.approx(mean_absolute_error(target, preds, multioutput="raw_values"))


def test_one_dead_output_shows() -> None:
    target = np.array([[1.0, 1.0, 2.0], [2.0, 3.0, 1.0], [3.0, 2.0, 5.0]])
    preds = target.copy()
    preds[:, 1] = 0.3
    with pytest.warns(UserWarning, match="of output 1 are all the same"):
        found = multi_regression(preds, target)
    assert math.isnan(found["corr"])
    assert found["corr_per_output"] == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert found["mae"] == pytest.approx((0.7 + 2.7 + 1.7) / 9)


@pytest.mark.parametrize(
    ("preds", "target"), [([1.0, 2.0], [1.0, 2.0]), ([[1.0, 2.0]], [[1.0], [2.0]]), ([[1.0, 2.0]], [[1.0, 2.0, 3.0]])]
)
def test_shapes_that_differ_are_an_error(preds: Any, target: Any) -> None:
    with pytest.raises(ValueError, match=r"should have one shape \[N, R\]. Found"):
        multi_regression(preds, target)


def test_coverage_counts_the_ends_in() -> None:
    found = interval_coverage([0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 4.0], [0.0, 1.0, 1.1, 2.0])
    assert found == pytest.approx({"coverage": 0.75, "width": 1.5})


def test_calibrated_intervals_cover_their_level() -> None:
    target = np.random.default_rng(0).normal(0, 1, 20_000)
    found = interval_coverage(np.full(20_000, -1.6448536), np.full(20_000, 1.6448536), target)
    assert found["coverage"] == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("lower", "upper", "target", "message"),
    [
        ([0.0, 2.0], [1.0, 1.0], [0.0, 0.0], "`lower` should not be above `upper`. Found 1 of 2"),
        ([0.0], [1.0, 1.0], [0.0, 0.0], r"should have one shape. Found \[1\], \[2\] and \[2\]"),
        ([0.0], [math.inf], [0.0], "`upper` should be finite"),
    ],
)
def test_bad_intervals_are_errors(lower: Any, upper: Any, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval_coverage(lower, upper, target)
