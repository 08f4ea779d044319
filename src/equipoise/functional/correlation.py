"""Canonical correlations of two batches of features."""

from __future__ import annotations

import torch
from torch import Tensor


def canonical_correlations(x: Tensor, y: Tensor, ridge: float = 1e-4) -> Tensor:
    r"""How strongly linear combinations of the one can go with linear combinations of the other, strongest first.

    From [Deep Canonical Correlation Analysis](https://proceedings.mlr.press/v28/andrew13.html) (Andrew et al., ICML
    2013): the singular values of

    $$
    T = \Sigma_{xx}^{-1/2} \Sigma_{xy} \Sigma_{yy}^{-1/2}, \qquad
    \Sigma_{xx} = \tfrac{1}{B - 1} \bar X^\top \bar X + r I, \qquad
    \Sigma_{xy} = \tfrac{1}{B - 1} \bar X^\top \bar Y
    $$

    They are computed as those of $L_x^{-1} \Sigma_{xy} L_y^{-\top}$ with the Cholesky factors
    $\Sigma_{xx} = L_x L_x^\top$, which differs from T by two rotations only. No eigenvalues are told apart on the way,
    so the gradient is finite where two are equal; that of a square root by eigenvectors is not. In float64, whatever
    the input.

    With the rows no more than the widths together, $B - 1 < d_x + d_y$, some correlations are 1 whatever the features
    are, but for r: that is a property of so small a sample, and teaches nothing.

    Args:
        x: ``[B, d_x]``, at least two rows.
        y: ``[B, d_y]``, of the same samples.
        ridge: r, a variance added to each feature. Features of a spread near its square root seem uncorrelated.

    Returns:
        ``[min(d_x, d_y)]``, float64, from 0 to 1.

    Raises:
        ValueError: other shapes, fewer than two rows, or a ridge that is not positive.

    >>> x = torch.tensor([[1.0], [2.0], [3.0]])
    >>> canonical_correlations(x, torch.tensor([[1.0], [3.0], [2.0]]), ridge=1e-12)
    tensor([0.5000], dtype=torch.float64)
    """
    _check(x, y, ridge)
    if len(x) < 2:
        raise ValueError(f"Parameters `x` and `y` should have at least two rows. Found {len(x)}.")
    x, y = (each.double() - each.double().mean(dim=0) for each in (x, y))
    lower_x, lower_y = (torch.linalg.cholesky(_covariance(each, each) + ridge * _identity(each)) for each in (x, y))
    half = torch.linalg.solve_triangular(lower_x, _covariance(x, y), upper=False)
    both = torch.linalg.solve_triangular(lower_y.T, half, upper=True, left=False)
    correlations: Tensor = torch.linalg.svdvals(both)
    return correlations


def cca_loss(x: Tensor, y: Tensor, *, ridge: float = 1e-4, components: int | None = None) -> Tensor:
    r"""Minus the sum of the canonical correlations, ``[B, d_x], [B, d_y] → []``: the loss of deep CCA.

    $$L_{CCA} = - \sum_{i=1}^{k} \rho_i(x, y)$$

    with $\rho$ of `canonical_correlations`, strongest first. It lies between -k and 0. Fewer than two samples have no
    correlation: their loss is 0, with a gradient of zeros.

    A statistic of a batch: its mean over micro-batches is not the loss of the whole batch, and it needs batches of more
    samples than the two widths together.

    Args:
        x: ``[B, d_x]``.
        y: ``[B, d_y]``, of the same samples.
        ridge: see `canonical_correlations`.
        components: k; None for all, ``min(d_x, d_y)``.

    Raises:
        ValueError: other shapes, a ridge that is not positive, or a number of components that there is not.

    >>> x = torch.tensor([[1.0], [2.0], [3.0]])
    >>> cca_loss(x, torch.tensor([[1.0], [3.0], [2.0]]))
    tensor(-0.4999)
    >>> cca_loss(x[:1], x[:1])
    tensor(0.)
    """
    _check(x, y, ridge)
    most = min(x.shape[1], y.shape[1])
    k = most if components is None else components
    if not 1 <= k <= most:
        raise ValueError(f"Parameter `components` should be in 1 to {most}. Found `components = {components}`.")
    kind = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    if len(x) < 2:
        return 0 * (x.sum() + y.sum()).to(kind)
    return -canonical_correlations(x, y, ridge)[:k].sum().to(kind)


def _covariance(x: Tensor, y: Tensor) -> Tensor:
    return x.T @ y / (len(x) - 1)


def _identity(x: Tensor) -> Tensor:
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)


def _check(x: Tensor, y: Tensor, ridge: float) -> None:
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or not x.shape[1] or not y.shape[1]:
        raise ValueError(
            "Parameters `x` and `y` should be features of the same samples, [B, d]. "
            f"Found shapes {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if ridge <= 0:
        raise ValueError(f"Parameter `ridge` should be positive. Found `ridge = {ridge}`.")
