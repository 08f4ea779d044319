from __future__ import annotations

from math import exp, sqrt

import numpy as np
import pytest
import torch

from equipoise.functional import prior_mmd


def _codes(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_and_two_codes_by_hand() -> None:
    # s = 2, d = 1: E k(y, y') = 3 ** -0.5, E k(z, y) = 2 ** -0.5 * exp(-z ** 2 / 4), k(0, 2) = exp(-2).
    one = 1 / sqrt(3) + 1 - 2 / sqrt(2) * exp(-1)
    assert float(prior_mmd(torch.tensor([[2.0]]).double(), 2.0)) == pytest.approx(one, rel=1e-12)
    two = 1 / sqrt(3) + (2 + 2 * exp(-2)) / 4 - (1 + exp(-1)) / sqrt(2)
    assert float(prior_mmd(torch.tensor([[0.0], [2.0]]).double(), 2.0)) == pytest.approx(two, rel=1e-12)


def test_expectations_against_quadrature() -> None:
    z, s = 0.7, 1.7
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    across = weights @ np.exp(-((z - nodes) ** 2) / s)
    among = weights @ np.exp(-((nodes[:, None] - nodes) ** 2) / s) @ weights
    found = float(prior_mmd(torch.tensor([[z]]).double(), s))
    assert found == pytest.approx(1 + among - 2 * across, abs=1e-7)


def test_it_is_what_drawing_from_the_prior_gives_on_average() -> None:
    z, s, draws = _codes(6, 3) * 0.5 + 1, 9.0, 40_000

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(x - y).square().sum(dim=-1) / s)

    x, y = _codes(draws, 3, 1), _codes(draws, 3, 2)
    expected = kernel(x, y).mean() + kernel(z[None], z[:, None]).mean() - 2 * kernel(z[:, None], x[None]).mean()
    assert float(prior_mmd(z)) == pytest.approx(float(expected), abs=2e-3)


def test_normal_codes_are_near_and_others_are_not() -> None:
    near = float(prior_mmd(_codes(1500, 4), 4.0))
    assert 0 < near < 2e-3
    for other in (_codes(500, 4) + 1, _codes(500, 4) * 2, torch.zeros(5, 4).double()):
        assert float(prior_mmd(other, 4.0)) > 0.02


def test_single_precision_keeps_its_digits_at_wide_codes() -> None:
    z = _codes(8, 80)
    assert float(prior_mmd(z.float())) == pytest.approx(float(prior_mmd(z)), rel=1e-3)
    assert prior_mmd(z.bfloat16()).dtype == torch.float32


def test_its_gradient_is_the_derivative() -> None:
    z = _codes(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(prior_mmd, (z,))
    zero = torch.zeros(3, 2, requires_grad=True)
    torch.autograd.backward(prior_mmd(zero))
    assert zero.grad is not None
    assert zero.grad.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("z", "bandwidth", "message"),
    [
        (torch.zeros(2, 3, 4), None, r"codes of shape \[B, d\]. Found shape \(2, 3, 4\)"),
        (torch.zeros(0, 3), None, r"Found shape \(0, 3\)"),
        (torch.zeros(2, 3), 0.0, "`bandwidth` should be positive. Found `bandwidth = 0.0`"),
    ],
)
def test_what_does_not_fit_is_refused(z: torch.Tensor, bandwidth: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior_mmd(z, bandwidth)
