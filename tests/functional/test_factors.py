"""Numbers worked by hand: 1 - tanh(x) = 2 / (exp(2x) + 1), which is 2/5 at x = ln 2 and 2/(2^n + 1) at x = n/2 ln 2."""

from __future__ import annotations

from collections.abc import Callable
from math import e, exp, log, sqrt
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from equipoise.functional import agm_coefficients, ags_factors, exceeds_others, mean_of_others, ogm_factors

LN2 = log(2)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_mean_of_others() -> None:
    assert_close(mean_of_others(vector(1, 2, 6)), vector(4, 3.5, 1.5))
    assert_close(mean_of_others(vector(1, 5)), vector(5, 1))
    assert_close(mean_of_others(torch.tensor([1e8, 1.0, 1.0]))[0], torch.tensor(1.0))  # small beside large is not lost


@given(st.floats(2**-20, 2**20, width=32), st.integers(2, 9))
def test_among_equals_nobody_exceeds_the_others(value: float, count: int) -> None:
    assert not exceeds_others(torch.full((count,), value)).any()


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6))
def test_exceeding_the_others_is_exceeding_their_mean(values: list[int]) -> None:
    expected = [v * (len(values) - 1) > sum(values) - v for v in values]
    assert exceeds_others(torch.tensor(values, dtype=torch.float64)).tolist() == expected


@pytest.mark.parametrize(
    ("norms", "strategy", "alpha", "expected"),
    [
        # others' mean of 6: 3, ρ = 2, ρ/(1+ρ) = 2/3, α · 2/3 = ln 2. Of 4: 4, not exceeded. Of 2: 5.
        (vector(6, 4, 2), "average", 1.5 * LN2, vector(2 / 5, 1, 1)),
        # 5 against 2: ρ = 5/2, share 5/7; 4 against 5/2: ρ = 8/5, share 8/13; both are dominant.
        (vector(5, 4, 0), "average", 7 * 13 * LN2 / 2, vector(2 / (2 ** (5 * 13) + 1), 2 / (2 ** (8 * 7) + 1), 1)),
        (vector(5, 4, 0), "max", 7 / 5 * LN2, vector(2 / 5, 1, 1)),
        # K = 2: ρ = 3, share 3/4, α · 3/4 = ln 2
        (vector(1, 3), "average", 4 / 3 * LN2, vector(1, 2 / 5)),
        (vector(1, 3), "max", 4 / 3 * LN2, vector(1, 2 / 5)),
        # K = 4: others' mean of 6 is 2, ρ = 3
        (vector(2, 2, 6, 2), "average", 4 / 3 * LN2, vector(1, 1, 2 / 5, 1)),
        # equals: nobody is above the others, but both are the largest; share 1/2, α/2 = ln 2
        (vector(3, 3), "average", 2 * LN2, vector(1, 1)),
        (vector(3, 3), "max", 2 * LN2, vector(2 / 5, 2 / 5)),
        # the others are zero: ρ is infinite, ρ/(1+ρ) is 1
        (vector(7, 0, 0), "average", LN2, vector(2 / 5, 1, 1)),
        (vector(0, 0, 0), "average", 1.0, vector(1, 1, 1)),
        (vector(0, 0, 0), "max", 1.0, vector(1, 1, 1)),
        (vector(6, 4, 2), "average", 0.0, vector(1, 1, 1)),
    ],
)
def test_ags_factors(norms: Tensor, strategy: Literal["average", "max"], alpha: float, expected: Tensor) -> None:
    assert_close(ags_factors(norms, alpha, strategy), expected)


def test_ags_factors_read_as_the_text_and_not_as_the_misprinted_equation() -> None:
    # Eq. 24 as printed would have ρ = 2 · 6 / (4 · 2) = 1.5 and a factor of 1 - tanh(α · 0.6).
    found = float(ags_factors(vector(6, 4, 2), 1.0)[0])
    assert found == pytest.approx(2 / (exp(4 / 3) + 1))
    assert found != pytest.approx(2 / (exp(1.2) + 1), rel=0.01)


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ValueError, match="Found `strategy = 'mean'`"):
        ags_factors(vector(1, 2), 1.0, "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "alpha", "expected"),
    [
        (vector(3, 1), LN2 / 3, vector(2 / 5, 1)),  # ρ = 3, αρ = ln 2
        (vector(1, 3), LN2 / 3, vector(1, 2 / 5)),
        (vector(6, 2, 4), LN2 / 2, vector(2 / 5, 1, 1)),  # 6 against 3: ρ = 2; 4 against 4: not greater
        (vector(6, 5, 1), LN2, vector(2 / (2**4 + 1), 2 / (2 ** (20 / 7) + 1), 1)),  # ρ = 6/3 and 5/3.5
        (vector(8, 2, 2, 2), LN2 / 4, vector(2 / 5, 1, 1, 1)),  # ρ = 4
        (vector(2, 2), 1.0, vector(1, 1)),
        (vector(2, 0), 1.0, vector(0, 1)),  # ρ is infinite
        (vector(0, 0), 1.0, vector(1, 1)),
        (vector(3, 1), 0.0, vector(1, 1)),
    ],
)
def test_ogm_factors(scores: Tensor, alpha: float, expected: Tensor) -> None:
    assert_close(ogm_factors(scores, alpha), expected)


def test_alpha_of_zero_changes_nothing_even_beside_a_score_of_zero() -> None:
    assert_close(ogm_factors(torch.tensor([8.0, 0.0]), 0.0), torch.ones(2))


@pytest.mark.parametrize(
    ("scores", "running", "alpha", "expected"),
    [
        # r = exp(2 (1.25 - .5)) = e^1.5 and e^-1.5, τ = 1: the one with the lower cross-entropy is held back.
        (vector(0.5, 2), vector(0, 0), 1.0, vector(exp(1 - e**1.5), exp(1 - e**-1.5))),  # .0308 and 2.1747
        # r = 2 and 1/2, α = ln 2: 2^-(2 - 1) and 2^-(1/2 - 1)
        (vector(0, LN2), vector(0, 0), LN2, vector(1 / 2, sqrt(2))),
        # K = 3: 3/2 · (mean - s) = ln 2, 0, -ln 2
        (vector(0, LN2 * 2 / 3, LN2 * 4 / 3), vector(9, 9, 9), LN2, vector(1 / 2, 1, sqrt(2))),
        # K = 4: 4/3 · (mean - s) = ln 4 · (1, -1/3, -1/3, -1/3)
        (vector(0, LN2 * 2, LN2 * 2, LN2 * 2), vector(0, 0, 0, 0), 1.0, vector(exp(-3), *[exp(1 - 4 ** (-1 / 3))] * 3)),
        # as strong as on the average: r = τ
        (vector(0.5, 2), vector(1.5, 3), 1.0, vector(1, 1)),
        # τ = 1 and r = 2 in the first, τ = 4 and r = 2 below: weaker than it was, so helped
        (vector(0, LN2), vector(0, 2 * LN2), LN2, vector(2 ** (4 - 2), 2 ** (1 / 4 - 1 / 2))),
        # τ - r = e^4 - 1 is capped at 7
        (vector(1, 1), vector(0, 4), LN2 / 7, vector(2, 2 ** ((exp(-4) - 1) / 7))),
        (vector(0, 1e6), vector(0, 0), 1.0, vector(0, e)),  # far apart, and still finite
        (vector(0.5, 2), vector(0, 0), 0.0, vector(1, 1)),
    ],
)
def test_agm_coefficients(scores: Tensor, running: Tensor, alpha: float, expected: Tensor) -> None:
    assert_close(agm_coefficients(scores, running, alpha), expected)


def test_agm_has_the_sign_of_its_text() -> None:
    dominant, weak = agm_coefficients(torch.tensor([0.5, 2.0]), torch.zeros(2), 1.0).tolist()
    assert (round(dominant, 3), round(weak, 3)) == (0.031, 2.175)


vectors = st.lists(st.floats(0, 100, width=32), min_size=2, max_size=5)


@given(vectors, st.floats(0, 5, width=32), st.integers(0, 100))
def test_factors_go_with_their_modality_and_hold_back_only(values: list[float], alpha: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order, running = torch.randperm(len(values), generator=generator), torch.rand(len(values), generator=generator)
    integers = torch.tensor(values, dtype=torch.float64).round()  # sums are exact, whatever the order
    methods: list[Callable[[Tensor], Tensor]] = [
        lambda x: ags_factors(x, alpha),
        lambda x: ags_factors(x, alpha, "max"),
        lambda x: ogm_factors(x, alpha),
    ]
    for factors in methods:
        found = factors(integers)
        assert_close(factors(integers[order]), found[order])
        assert ((found >= 0) & (found <= 1)).all()
    found = agm_coefficients(integers, running.double(), alpha)
    assert_close(agm_coefficients(integers[order], running.double()[order], alpha), found[order])
    assert torch.isfinite(found).all()
