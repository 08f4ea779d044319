"""How strongly each modality is to be held back: one pure function a method."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Strategy = Literal["average", "max"]

# exp(50) is finite in float32, and its square is too large to matter in exp(-x).
_LARGEST_EXPONENT = 50.0


def mean_of_others(values: Tensor) -> Tensor:
    """Mean of all entries but one's own, ``[K] → [K]``.

    >>> mean_of_others(torch.tensor([1.0, 2.0, 6.0]))
    tensor([4.0000, 3.5000, 1.5000])
    """
    others = ~torch.eye(len(values), dtype=torch.bool, device=values.device)
    return (values * others).sum(dim=1) / (len(values) - 1)


def exceeds_others(values: Tensor) -> Tensor:
    """Where an entry is greater than the mean of all others, ``[K] → [K]`` bool; nowhere if all are equal.

    Each entry is compared with each other one: with a mean, rounding would raise one of four equal entries above it.

    >>> exceeds_others(torch.tensor([1.0, 4.0, 6.0]))
    tensor([False,  True,  True])
    """
    return (values[:, None] - values).sum(dim=1) > 0


def ags_factors(norms: Tensor, alpha: float, strategy: Strategy = "average") -> Tensor:
    r"""Gradient factors of adaptive gradient scaling, ``[K] → [K]`` (AGS-SMoE, Eqs. 21–25).

    $$
    \rho_m = \frac{grad_m}{\operatorname{mean}_{j \neq m} grad_j}, \qquad
    \lambda_m = 1 - \tanh\!\Big(\alpha \frac{\rho_m}{1 + \rho_m}\Big)
    $$

    for a dominant modality, 1 for every other. ``"average"``: dominant when its norm exceeds the mean of the others';
    ``"max"``: when it is the largest. $\rho/(1+\rho)$ is computed as $grad_m/(grad_m + \text{mean})$, which
    is finite where the others are zero.

    Eq. 24 is misprinted (a product of the others' norms where their sum belongs, and a maximum of one product); this is
    what the text says and the released code computes.

    >>> ags_factors(torch.tensor([3.0, 1.0, 1.0]), alpha=1.0)
    tensor([0.3649, 1.0000, 1.0000])
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f'Parameter `strategy` should be "average" or "max". Found `strategy = {strategy!r}`.')
    others = mean_of_others(norms)
    dominant = exceeds_others(norms) if strategy == "average" else norms == norms.max()
    total = norms + others
    share = torch.where(total > 0, norms / total.where(total > 0, torch.ones_like(total)), torch.zeros_like(total))
    return torch.where(dominant, 1 - torch.tanh(alpha * share), torch.ones_like(norms))


def ogm_factors(scores: Tensor, alpha: float) -> Tensor:
    r"""Gradient factors of on-the-fly gradient modulation, ``[K] → [K]`` (OGM-GE, Eqs. 8–10).

    $$
    \rho_m = \frac{s_m}{\operatorname{mean}_{j \neq m} s_j}, \qquad
    k_m = 1 - \tanh(\alpha \rho_m) \text{ if } \rho_m > 1, \text{ else } 1
    $$

    where $s_m$ sums the probability that modality $m$ alone gives to the true class. The paper has two
    modalities; for more we compare with the mean of the others.

    >>> ogm_factors(torch.tensor([2.0, 1.0]), alpha=0.5)
    tensor([0.2384, 1.0000])
    """
    others = mean_of_others(scores)
    limits = torch.finfo(scores.dtype)
    ratio = (scores / others.clamp_min(limits.tiny)).clamp_max(limits.max)  # finite, for 0 · inf is NaN
    return torch.where(exceeds_others(scores), 1 - torch.tanh(alpha * ratio), torch.ones_like(scores))


def agm_coefficients(scores: Tensor, running: Tensor, alpha: float) -> Tensor:
    r"""Coefficients of adaptive gradient modulation, ``[K] → [K]`` (AGM, Algorithm 1).

    $$
    r^m = \exp\!\Big(\frac{K}{K-1}(\bar s - s^m)\Big), \quad
    \tau^m = \exp\!\Big(\frac{K}{K-1}(\bar{\hat s} - \hat s^m)\Big), \quad
    \kappa^m = \exp(-\alpha (r^m - \tau^m))
    $$

    with $s^m$ the mean cross-entropy of modality $m$'s response (``scores``; lower is stronger) and
    $\hat s^m$ its running average (``running``). Eqs. 4, 7 and 8 as printed would *amplify* the stronger
    modality; the text, Algorithm 1 (which works with $+\log p$) and the authors' code hold it back, and so does
    this. As in the authors' code $\tau - r$ is capped at 7.

    >>> agm_coefficients(torch.tensor([0.5, 2.0]), torch.zeros(2), alpha=1.0)
    tensor([0.0308, 2.1747])
    """
    gap = (_strength(running) - _strength(scores)).clamp_max(7.0)
    return torch.exp(alpha * gap)


def _strength(scores: Tensor) -> Tensor:
    exponent = (scores.mean() - scores) * (len(scores) / (len(scores) - 1))
    return torch.exp(exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT))
