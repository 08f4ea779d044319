"""Who had the larger gradients, and by how much: over some steps, one number a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from equipoise.functional.conflict import conflict_degrees, dominance_ratios
from equipoise.functional.factors import exceeds_others

Floats = npt.NDArray[np.float64]

TOLERANCE = 0.1  # as `CP` has it


@dataclass(frozen=True)
class Shares:
    r"""Gradient norms over some steps, of groups that are balanced with each other.

    With $\rho_m = g_m / \operatorname{mean}_{j \neq m} g_j$ and $c_m = \max(0, \rho_m - 1 - \tau)$, as
    :class:`equipoise.CP` defines them. Medians over steps, for a ratio of norms has no upper end.

    Attributes:
        steps: how many have finite norms.
        norm: geometric mean of the norms above 0; NaN where there are none.
        largest: share of steps in which a group's norm is the largest (rule MAX of AGS).
        above: share of steps in which it exceeds the mean of the others' (rule AVERAGE).
        conflict_rate: share of steps with a conflict, some $c_m > 0$.
        in_conflict: share of steps with $c_m > 0$.
        strength: median of $c_m$ over these; 0 where there are none.
        ratio: median of $\rho_m$.
        traced: steps whose norms are known after the balancer too.
        dominance_before: median over these of the largest $\rho_m$; None without any.
        dominance_after: the same of the norms that the balancer left; None without any.
    """

    steps: int
    norm: dict[str, float]
    largest: dict[str, float]
    above: dict[str, float]
    conflict_rate: float
    in_conflict: dict[str, float]
    strength: dict[str, float]
    ratio: dict[str, float]
    traced: int
    dominance_before: float | None
    dominance_after: float | None


def shares_of(norms: Floats, after: Floats, names: Sequence[str], *, tolerance: float = TOLERANCE) -> Shares:
    """What norms say of dominance. Steps with a norm that is not finite are passed over, as after an overflow.

    Args:
        norms: ``[S, K]`` before the balancer.
        after: ``[S, K]`` after it; NaN where that is not known.
        names: of the K groups, two or more.
        tolerance: $\\tau$, by which share a norm may exceed the others' mean before it is a conflict.
    """
    fine = np.isfinite(norms).all(axis=1)
    norms, after = norms[fine], after[fine]
    if not len(norms):
        nothing = dict.fromkeys(names, float("nan"))
        return Shares(0, nothing, nothing, nothing, float("nan"), nothing, nothing, nothing, 0, None, None)
    rows = torch.from_numpy(norms)
    ratios = torch.vmap(dominance_ratios)(rows).numpy()
    degrees = torch.vmap(lambda row: conflict_degrees(row, tolerance))(rows).numpy()
    above = torch.vmap(exceeds_others)(rows).numpy()
    largest = norms == norms.max(axis=1, keepdims=True)
    traced = np.isfinite(after).all(axis=1)
    before_ratio = after_ratio = None
    if traced.any():
        left = torch.vmap(dominance_ratios)(torch.from_numpy(after[traced])).numpy()
        before_ratio, after_ratio = _median(ratios[traced].max(axis=1)), _median(left.max(axis=1))

    def named(values: Floats | npt.NDArray[np.bool_]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    return Shares(
        steps=len(norms),
        norm=named(np.array([_geometric_mean(column) for column in norms.T])),
        largest=named(largest.mean(axis=0)),
        above=named(above.mean(axis=0)),
        conflict_rate=float((degrees > 0).any(axis=1).mean()),
        in_conflict=named((degrees > 0).mean(axis=0)),
        strength=named(np.array([_median(column[column > 0]) if column.any() else 0.0 for column in degrees.T])),
        ratio=named(np.array([_median(column) for column in ratios.T])),
        traced=int(traced.sum()),
        dominance_before=before_ratio,
        dominance_after=after_ratio,
    )


def _geometric_mean(values: Floats) -> float:
    above = values[values > 0]
    return float(np.exp(np.log(above).mean())) if len(above) else float("nan")


def _median(values: Floats) -> float:
    """The lower of the two in the middle, where there are two: between a number and infinity there is no mean."""
    return float(np.sort(values)[(len(values) - 1) // 2])
