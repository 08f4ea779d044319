"""How far a batch of codes is from the prior that they should follow."""

from __future__ import annotations

from math import expm1, log1p

import torch
from torch import Tensor


def prior_mmd(z: Tensor, bandwidth: float | None = None) -> Tensor:
    r"""Squared maximum mean discrepancy between codes and the standard normal distribution, ``[B, d] → []``.

    As in the [Wasserstein autoencoder](https://arxiv.org/abs/1711.01558) (Tolstikhin et al., ICLR 2018) and in MFM:

    $$
    \mathrm{MMD}^2 = \mathbb{E}\, k(y, y') + \tfrac{1}{B^2} \sum_{ij} k(z_i, z_j)
    - \tfrac{2}{B} \sum_i \mathbb{E}\, k(z_i, y), \qquad
    k(x, y) = e^{-\lVert x - y \rVert^2 / s}, \quad y, y' \sim N(0, I)
    $$

    MFM's released code draws as many y as there are codes. A Gaussian kernel needs no draws: the expectations are
    $(1 + 4/s)^{-d/2}$ and $(1 + 2/s)^{-d/2} e^{-\lVert z \rVert^2 / (s + 2)}$. This is what the code computes on
    average, but for a constant, without its noise. It is never negative, and does for one code too.

    Args:
        z: codes.
        bandwidth: s; None for $d^2$, the released code's. Distances are near $2 d$, so at wide codes the kernel is
            almost a parabola there, and sees little but the mean and the variances.

    Raises:
        ValueError: another shape, no code, or a bandwidth that is not positive.

    >>> prior_mmd(torch.zeros(1, 1), bandwidth=1.0)  # 1 + 1 / sqrt(5) - 2 / sqrt(3)
    tensor(0.2925)
    """
    if z.dim() != 2 or not z.numel():
        raise ValueError(f"Parameter `z` should be codes of shape [B, d]. Found shape {tuple(z.shape)}.")
    width = z.shape[1]
    s = float(width**2) if bandwidth is None else bandwidth
    if s <= 0:
        raise ValueError(f"Parameter `bandwidth` should be positive. Found `bandwidth = {bandwidth}`.")
    z = z if z.dtype in (torch.float32, torch.float64) else z.float()
    distances = (z.unsqueeze(0) - z.unsqueeze(1)).square().sum(dim=-1)
    # Each term less one: the three constants cancel, and differences of numbers near 1 would lose their digits.
    among = torch.expm1(-distances / s).mean()
    across = torch.expm1(-width / 2 * log1p(2 / s) - z.square().sum(dim=-1) / (s + 2)).mean()
    return among - 2 * across + expm1(-width / 2 * log1p(4 / s))
