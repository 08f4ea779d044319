from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.cross_decomposition import CCA
from torch import Tensor

from equipoise.functional import canonical_correlations, cca_loss


def _pair(rows: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views, 4 and 3 wide, with something in common."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    y[:, 0] += 2 * x[:, 1] - x[:, 3]
    y[:, 1] += 0.5 * x[:, 0]
    return x * torch.tensor([1.0, 5.0, 0.2, 1.0]) + 3, y


def test_against_scikit_learn() -> None:
    x, y = _pair()
    oracle = CCA(n_components=3, max_iter=5000, tol=1e-12).fit(x.numpy(), y.numpy())
    scores = oracle.transform(x.numpy(), y.numpy())
    expected = [np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(canonical_correlations(x, y, 1e-12).numpy(), expected, atol=1e-6)


def test_against_the_angles_of_the_subspaces() -> None:
    x, y = _pair(25, 3)
    angles = scipy.linalg.subspace_angles((x - x.mean(dim=0)).numpy(), (y - y.mean(dim=0)).numpy())
    np.testing.assert_allclose(canonical_correlations(x, y, 1e-12).numpy(), np.sort(np.cos(angles))[::-1], atol=1e-9)


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 3.0])
def test_with_a_ridge_against_the_generalised_eigenproblem(ridge: float) -> None:
    x, y = _pair()
    joint = np.cov(torch.cat([x, y], dim=1).numpy(), rowvar=False)
    across = np.zeros_like(joint)
    across[:4, 4:], across[4:, :4] = joint[:4, 4:], joint[4:, :4]
    own = scipy.linalg.block_diag(joint[:4, :4], joint[4:, 4:]) + ridge * np.eye(7)
    expected = scipy.linalg.eigh(across, own, eigvals_only=True)[::-1]
    np.testing.assert_allclose(canonical_correlations(x, y, ridge).numpy(), expected[:3], atol=1e-10)
    assert float(cca_loss(x, y, ridge=ridge)) == pytest.approx(-expected[:3].sum(), abs=1e-10)
    assert float(cca_loss(y, x, ridge=ridge, components=2)) == pytest.approx(-expected[:2].sum(), abs=1e-10)


def test_by_hand() -> None:
    # Variances 1 and 4, covariance 1: rho = 1 / sqrt((1 + r)(4 + r)).
    x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [6.0], [4.0]])
    assert canonical_correlations(x, y, 1e-12).item() == pytest.approx(0.5)
    assert cca_loss(x, y, ridge=5.0).item() == pytest.approx(-1 / np.sqrt(6 * 9), rel=1e-6)


def test_linear_maps_and_the_order_of_samples_change_nothing() -> None:
    x, y = _pair()
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(x), generator=generator)
    mixed = x @ torch.randn(4, 4, generator=generator, dtype=torch.float64) - 7
    expected = canonical_correlations(x, y, 1e-12)
    torch.testing.assert_close(canonical_correlations(mixed[order], y[order], 1e-12), expected, atol=1e-8, rtol=0)


def test_its_gradient_is_the_derivative() -> None:
    x, y = (each.requires_grad_() for each in _pair(9))
    assert torch.autograd.gradcheck(lambda a, b: cca_loss(a, b, ridge=1e-3), (x, y))
    assert torch.autograd.gradcheck(lambda a, b: cca_loss(a, b, ridge=1e-3, components=2), (x, y))


HARD: dict[str, tuple[Any, Any]] = {
    "all correlations are equal": (_pair()[0], _pair()[0]),
    "no variance": (torch.ones(6, 3), torch.zeros(6, 2)),
    "one feature twice": (_pair()[0][:, [0, 0, 1]], _pair()[1]),
    "fewer samples than features": (_pair()[0][:3], _pair()[1][:3]),
    "two samples": (_pair()[0][:2], _pair()[1][:2]),
    "large": (_pair()[0].float() * 1e4, _pair()[1].float() * 1e-4),
    "one sample": (_pair()[0][:1], _pair()[1][:1]),
    "no sample": (_pair()[0][:0], _pair()[1][:0]),
}


@pytest.mark.parametrize(("x", "y"), HARD.values(), ids=HARD)
def test_values_and_gradients_are_finite(x: Tensor, y: Tensor) -> None:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    loss = cca_loss(x, y)
    assert -min(x.shape[1], y.shape[1]) - 1e-6 <= loss.item() <= 0
    if len(x) < 2:
        assert loss.item() == 0
    torch.autograd.backward(loss)
    for each in (x, y):
        assert each.grad is not None
        assert bool(each.grad.isfinite().all())


def test_so_few_samples_that_all_correlate() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    # B - 1 = 5 and 3 + 3 features: one direction at least is in both spans.
    assert canonical_correlations(x, y, 1e-12)[0].item() == pytest.approx(1)


def test_descent_makes_two_views_correlate() -> None:
    x, y = _pair(60, 5)
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(4, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    best = canonical_correlations(x, y)[0].item()
    assert -cca_loss(x @ weight, y).item() < 0.8 * best
    for _ in range(200):
        (gradient,) = torch.autograd.grad(cca_loss(x @ weight, y), weight)
        weight = (weight - 0.3 * gradient).detach().requires_grad_()
    assert -cca_loss(x @ weight, y).item() == pytest.approx(best, abs=5e-3)


def test_it_computes_in_double_precision_also_under_autocast() -> None:
    x, y = (each.float() for each in _pair())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cca_loss(x, y)
    assert torch.equal(inside, cca_loss(x, y))
    assert inside.dtype == torch.float32
    assert cca_loss(x.bfloat16(), y.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "y", "given", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), {}, r"same samples, \[B, d\]. Found shapes \(3, 2\) and \(4, 2\)"),
        (torch.zeros(3, 2, 1), torch.zeros(3, 2), {}, r"Found shapes \(3, 2, 1\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2), {"ridge": 0.0}, "`ridge` should be positive. Found `ridge = 0.0`"),
        (torch.zeros(3, 2), torch.zeros(3, 5), {"components": 3}, "`components` should be in 1 to 2. Found `compon"),
    ],
)
def test_what_does_not_fit_is_refused(x: Tensor, y: Tensor, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cca_loss(x, y, **given)


def test_correlations_need_two_samples() -> None:
    with pytest.raises(ValueError, match=r"at least two rows. Found 1"):
        canonical_correlations(torch.zeros(1, 2), torch.zeros(1, 2))
