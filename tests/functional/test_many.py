from __future__ import annotations

import math

import pytest
import torch

from equipoise.functional.many import mean_intervals, sign_flip_p
from equipoise.functional.statistics import bootstrap_interval, paired_permutation


@pytest.mark.parametrize("n", [1, 3, 40, 900])
def test_many_intervals_are_those_of_each_alone(n: int) -> None:
    scores = torch.randn(5, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    found = mean_intervals(scores, resamples=300, seed=4)
    for row, interval in zip(scores, found, strict=True):
        alone = bootstrap_interval(lambda rows: row[rows].mean(1), n, resamples=300, seed=4)  # noqa: B023
        assert interval == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("n", [1, 5, 12, 17, 300])
def test_many_tests_are_those_of_each_alone(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    first = torch.randn(6, n, generator=generator, dtype=torch.float64)
    second = torch.randn(6, n, generator=generator, dtype=torch.float64) + 0.1
    first[5] = second[5]  # no difference at all
    alone = [paired_permutation(a, b, permutations=700, seed=2).p for a, b in zip(first, second, strict=True)]
    assert sign_flip_p(first - second, permutations=700, seed=2) == alone
    assert alone[5] == 1.0


def test_an_interval_of_halves_is_the_binomials() -> None:
    """The mean of 100 draws from as many zeros as ones is a binomial share: quantiles .40 and .60."""
    scores = torch.tensor([[0.0, 1.0] * 50, [1.0, 3.0] * 50])
    (low, high), (low2, high2) = mean_intervals(scores, resamples=20_000)
    assert [low, high] == pytest.approx([0.40, 0.60], abs=0.011)
    assert [low2, high2] == pytest.approx([1 + 2 * low, 1 + 2 * high])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (torch.zeros(3), r"should be \[F, n\], neither of them 0\. Found shape \[3\]"),
        (torch.zeros(2, 0), r"Found shape \[2, 0\]"),
    ],
)
def test_other_shapes_are_refused(values: torch.Tensor, line: str) -> None:
    for made in (mean_intervals, sign_flip_p):
        with pytest.raises(ValueError, match=line):
            made(values)


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"should be finite\. Found 1 that are not"):
        sign_flip_p(torch.tensor([[1.0, math.nan]]))
