from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

from equipoise.diagnostics.estimates import Estimate, estimate, jackknife_error, paired, plain


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


def test_pairs_share_what_samples_have_in_common() -> None:
    """Two scores of the same hard and easy samples: each is uncertain, their difference is not."""
    random = np.random.default_rng(0)
    hard = random.normal(0, 1, size=300)
    first, second = hard + random.normal(0.1, 0.2, size=300), hard
    found = paired(first, second, resamples=5000)
    error = (first - second).std(ddof=1) / 300**0.5
    assert found.value == pytest.approx((first - second).mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * error, found.value + 1.96 * error), abs=0.15 * error
    )
    assert estimate(first).low < estimate(second).high, "unpaired intervals meet"
    kept = estimate(first).points
    assert kept is not None
    assert np.array_equal(kept, first)
    with pytest.raises(ValueError, match=r"should be of the same samples. Found 300 and 299"):
        paired(first, second[1:])


def test_of_groups_whole_ones_are_resampled() -> None:
    """Of samples that are alike in groups of 25, the interval is that of 40 means; of groups of one, of samples."""
    random = np.random.default_rng(1)
    level = np.repeat(random.normal(size=40), 25)
    names = [str(each) for each in np.repeat(np.arange(40), 25)]
    found = paired(level, np.zeros(1000), groups=names, resamples=5000)
    error = level[::25].std(ddof=1) / 40**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    each = paired(level, np.zeros(1000), groups=[str(i) for i in range(1000)])
    assert each.high - each.low == pytest.approx((found.high - found.low) / 5, rel=0.15)


def test_what_is_kept_of_samples_is_not_written() -> None:
    found = estimate(np.arange(4.0))
    assert set(found.to_dict()) == {"value", "low", "high", "p", "error"}
    assert found == Estimate(found.value, found.low, found.high, found.p, found.error)
    assert found.reversed().reversed() == found
    assert (found.reversed().low, found.reversed().high) == (-found.high, -found.low)


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
        kept: int = field(default=3, repr=False)

    found = plain({"a": (Inner(np.arange(3.0)), np.float64(2)), "b": [None, "x", True]})
    assert json.loads(json.dumps(found)) == {"a": [{"array": [0.0, 1.0, 2.0]}, 2.0], "b": [None, "x", True]}
