from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from equipoise.diagnostics.estimates import estimate, jackknife_error, plain


def test_interval_and_test_agree_with_the_normal_theory_of_a_mean() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0.15, 1, size=400)
    found = estimate(values, resamples=5000, permutations=20_000)
    error = values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error
    )
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.005)
    assert estimate(values, test=False).p is None


def test_no_difference_is_no_evidence_and_a_constant_one_is() -> None:
    assert estimate(np.zeros(30)).p == 1.0
    assert estimate(np.full(30, 0.1)).p == pytest.approx(1 / 2001)
    assert estimate(np.full(3, 0.1)).p == 0.25  # of 8 patterns of signs 2 are as extreme


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    random = np.random.default_rng(0)
    groups = random.normal(size=(12, 5))
    assert jackknife_error(lambda each: float(each[2]), groups) == pytest.approx(stats.sem(groups[:, 2]))
    # Of a function that is not linear: as first-order error propagation has it.
    many = 10 + random.normal(size=(400, 1))
    assert jackknife_error(lambda each: float(each[0] ** 2), many) == pytest.approx(
        2 * many.mean() * stats.sem(many[:, 0]), rel=1e-2
    )


def test_plain_values_are_json() -> None:
    @dataclass(frozen=True)
    class Inner:
        array: object
        _hidden: int = 3

    found = plain({"a": (Inner(np.arange(3.0)), np.float64(2)), "b": [None, "x", True]})
    assert json.loads(json.dumps(found)) == {"a": [{"array": [0.0, 1.0, 2.0]}, 2.0], "b": [None, "x", True]}
