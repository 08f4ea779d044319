from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from equipoise.functional.statistics import (
    bootstrap_interval,
    holm,
    mean_std,
    paired_bootstrap,
    paired_permutation,
    percentile_interval,
    resample_rows,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def mean_of(scores: Any) -> Any:
    tensor = torch.as_tensor(scores)
    return lambda rows: tensor[rows].mean(1)


def test_mean_std_is_the_sample_deviation(rng: np.random.Generator) -> None:
    values = rng.normal(3, 2, 7)
    assert mean_std(values.tolist()) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert mean_std(torch.tensor([2.0, 4.0])) == pytest.approx((3.0, math.sqrt(2)))


def test_one_seed_has_no_spread() -> None:
    mean, std = mean_std([0.8])
    assert mean == 0.8
    assert math.isnan(std)


def test_resamples_come_in_blocks_of_all_rows_drawn_alike() -> None:
    blocks = list(resample_rows(5, 40_000 * 10, seed=1))
    assert len(blocks) == 2  # memory stays flat
    rows = torch.cat(blocks)
    assert rows.shape == (400_000, 5)
    assert torch.bincount(rows.flatten()).div(2_000_000) == pytest.approx([0.2] * 5, abs=0.002)


def test_percentile_interval_is_numpys_and_leaves_nan_out(rng: np.random.Generator) -> None:
    values = rng.normal(0, 1, 501)
    holed = torch.tensor([*values, math.nan, math.nan], dtype=torch.float64)
    assert percentile_interval(holed, 0.9) == pytest.approx(tuple(np.percentile(values, [5, 95])))
    assert all(math.isnan(end) for end in percentile_interval(torch.tensor([math.nan])))


@pytest.mark.parametrize(("numpy_statistic", "statistic"), [(np.mean, torch.mean), (np.std, torch.std)])
def test_bootstrap_agrees_with_scipy(numpy_statistic: Any, statistic: Any, rng: np.random.Generator) -> None:
    values = rng.exponential(1, 60)
    tensor = torch.tensor(values)
    extra = {"correction": 0} if statistic is torch.std else {}
    found = bootstrap_interval(lambda rows: statistic(tensor[rows], dim=1, **extra), 60, resamples=20_000)
    oracle = stats.bootstrap((values,), numpy_statistic, method="percentile", n_resamples=20_000, rng=rng)
    assert found == pytest.approx(tuple(oracle.confidence_interval), abs=0.02)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).normal(0, 1, (300, 50))
    intervals = [bootstrap_interval(mean_of(row), 50, resamples=400, level=0.8) for row in samples]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.72 < covered < 0.86


def test_draws_are_seeded_and_leave_the_global_generator_alone(rng: np.random.Generator) -> None:
    scores = mean_of(rng.normal(0, 1, 30))
    state = torch.random.get_rng_state()
    assert bootstrap_interval(scores, 30, seed=1) == bootstrap_interval(scores, 30, seed=1)
    assert bootstrap_interval(scores, 30, seed=1) != bootstrap_interval(scores, 30, seed=2)
    a, b = rng.normal(0, 1, (2, 40)).tolist()
    assert paired_permutation(a, b, seed=1) == paired_permutation(a, b, seed=1)
    assert paired_permutation(a, b, seed=1) != paired_permutation(a, b, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_paired_bootstrap_sees_the_same_rows_twice(rng: np.random.Generator) -> None:
    hard = rng.normal(0, 10, 100)  # what both models share cancels
    found = paired_bootstrap(mean_of(hard + 1.0), mean_of(hard), 100, resamples=500)
    assert found.difference == pytest.approx(1.0)
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))
    assert found.p == pytest.approx(2 / 501)


def test_paired_bootstrap_interval_agrees_with_scipy_and_its_p_with_the_interval(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.25, 1, 80), rng.normal(0, 1, 80)
    found = paired_bootstrap(mean_of(a), mean_of(b), 80, resamples=20_000)
    oracle = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval), abs=0.02)
    at_p = percentile_interval(
        torch.cat([mean_of(a - b)(rows) for rows in resample_rows(80, 20_000)]), level=1 - found.p
    )
    assert min(abs(at_p[0]), abs(at_p[1])) < 0.01  # the interval at level 1 − p just touches 0


def test_paired_bootstrap_turns_round_with_its_arguments_and_knows_a_tie(rng: np.random.Generator) -> None:
    a, b = mean_of(rng.normal(0, 1, 50)), mean_of(rng.normal(0, 1, 50))
    forth, back = paired_bootstrap(a, b, 50), paired_bootstrap(b, a, 50)
    assert forth.p == back.p
    assert (forth.difference, forth.low, forth.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert paired_bootstrap(a, a, 50) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("n", [2, 5, 6, 12])
def test_exact_permutation_agrees_with_scipy(n: int, rng: np.random.Generator) -> None:
    a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, n)
    found = paired_permutation(a.tolist(), b.tolist())
    oracle = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    assert found.exact
    assert found.permutations == 2**n
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(oracle.pvalue)


def test_exact_permutation_counts_ties_that_differ_in_the_last_digit() -> None:
    # differences .1, .2, .3: |sum| ≥ .6 for + + + and − − − only, whatever order the floats are added in
    assert paired_permutation([0.1, 0.2, 0.3], [0.0, 0.0, 0.0]).p == 0.25
    differences = [0.3, 0.1, 0.2, -0.1, 0.7]
    brute = [
        abs(round(10 * sum(s * d for s, d in zip(signs, differences, strict=True))))
        for signs in itertools.product([-1, 1], repeat=5)
    ]
    assert paired_permutation(differences, [0.0] * 5).p == sum(value >= 12 for value in brute) / 32


def test_sampled_permutation_agrees_with_scipy_within_its_error(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.25, 1, 60), rng.normal(0, 1, 60)
    found = paired_permutation(a.tolist(), b.tolist(), permutations=50_000)
    oracle = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=50_000, rng=rng
    )
    assert not found.exact
    assert found.permutations == 50_000
    assert found.p == pytest.approx(oracle.pvalue, abs=0.01)


def test_sampled_p_is_never_zero() -> None:
    assert paired_permutation([1.0] * 40, [0.0] * 40, permutations=99).p == pytest.approx(1 / 100)


def test_five_seeds_cannot_reach_five_percent_and_six_can() -> None:
    assert paired_permutation([1.0] * 5, [0.0] * 5).p == 0.0625
    assert paired_permutation([1.0] * 6, [0.0] * 6).p == 0.03125


def test_no_difference_is_no_evidence() -> None:
    assert paired_permutation([0.3] * 4, [0.3] * 4) == (0.0, 1.0, 16, True)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 × 4 3 2 1 = .02 .03 .06 .04, then never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06, 0.06, 0.06])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_std([]), r"`values` should be a vector of one or more. Found shape \[0\]"),
        (lambda: holm([0.1, 1.2]), r"`pvalues` should lie in \[0, 1\]"),
        (lambda: holm([math.nan]), r"`pvalues` should lie in \[0, 1\]"),
        (lambda: paired_permutation([1.0], [1.0, 2.0]), "should be paired. Found 1 and 2 scores"),
        (lambda: paired_permutation([math.nan], [1.0]), "should be finite. Found 1 bad pairs"),
        (lambda: paired_permutation([1.0], [1.0], permutations=0), "`permutations` should be 1 or more"),
        (lambda: bootstrap_interval(lambda rows: rows.double(), 3), r"Found \[2000, 3\] → \[2000, 3\]"),
        (lambda: bootstrap_interval(mean_of([1.0]), 0), "`n` should be 1 or more. Found `n = 0`"),
        (lambda: bootstrap_interval(mean_of([1.0]), 1, resamples=0), "`resamples` should be 1 or more"),
        (
            lambda: bootstrap_interval(mean_of([1.0]), 1, level=95),
            "`level` should be between 0 and 1. Found `level = 95`",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
