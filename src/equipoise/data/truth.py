"""What the best possible model could reach on generated data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def bayes_r2(shares: Mapping[str, float], pair: Sequence[str], precisions: Mapping[str, Floats]) -> dict[str, float]:
    r"""The greatest R² that a function of some modalities can reach on z, by subset (``text+audio``).

    With the directions known, a modality tells of a latent what one normal observation does, of precision
    :math:`p = v^2 \sum_t g_t^2 / \sigma^2`. Of a normal latent of unit variance, :math:`p / (1 + p)` can
    be told; precisions of several modalities that show it add up. Of a sign, :math:`E[\tanh^2(p + \sqrt{p}\,\xi)]`
    with :math:`\xi` normal, and of a product of two, the product of that. Latents are independent, so the parts add up.

    Args:
        shares: share of z of ``alone_m``, ``shared`` and ``synergy``.
        pair: the two modalities whose signs make the synergy.
        precisions: ``{m: [N]}``, one an utterance; the result is the mean over them.
    """
    result = {}
    for size in range(1, len(precisions) + 1):
        for kept in combinations(precisions, size):
            told = sum(shares[f"alone_{name}"] * _normal(precisions[name]) for name in kept)
            told = told + shares["shared"] * _normal(np.sum([precisions[name] for name in kept], axis=0))
            if len(pair) == 2 and set(pair) <= set(kept):
                told = told + shares["synergy"] * _sign(precisions[pair[0]]) * _sign(precisions[pair[1]])
            result["+".join(kept)] = float(np.mean(told))
    return result


def _normal(precision: Floats) -> Floats:
    told: Floats = precision / (1 + precision)
    return told


def _sign(precision: Floats) -> Floats:
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)  # weights of the normal density, times sqrt(2 pi)
    seen = precision[:, None] + np.sqrt(precision)[:, None] * nodes
    told: Floats = np.square(np.tanh(seen)) @ weights / np.sqrt(2 * np.pi)
    return told
