"""Many methods over many datasets: average ranks, and how far apart they must lie (Demšar, 2006)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Ranking:
    """Average ranks of methods over datasets, 1 the best.

    Attributes:
        ranks: ``{method: average rank}``, the best first.
        datasets: those that were ranked.
        statistic: Friedman's χ², corrected for ties.
        p: of it; NaN for two methods or where all are tied everywhere.
        difference: Nemenyi's critical difference: ranks that lie closer are not told apart.
        groups: largest groups of methods that are not told apart, each from the best.
    """

    ranks: dict[str, float]
    datasets: tuple[str, ...]
    statistic: float
    p: float
    difference: float
    groups: tuple[tuple[str, ...], ...]


def rank_methods(scores: Mapping[str, Mapping[str, float]], *, level: float = 0.05) -> Ranking:
    r"""Rank methods on every dataset, average, and test (Friedman; Nemenyi's critical difference).

    $$
    CD = q_\alpha \sqrt{\frac{k (k + 1)}{6 N}}
    $$

    with $k$ methods, $N$ datasets, and $q_\alpha$ the quantile of the studentized range of $k$ and infinite degrees of
    freedom over $\sqrt 2$. Ties share their mean rank. Friedman's p leans on χ², which is rough below ten datasets.

    Args:
        scores: ``{dataset: {method: score}}``, higher is better, the same methods on each.
        level: $\alpha$ of the critical difference.

    Raises:
        ValueError: fewer than two datasets or methods, methods that differ between datasets, or a NaN.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    datasets = tuple(scores)
    methods = list(next(iter(scores.values()))) if scores else []
    if len(datasets) < 2 or len(methods) < 2:
        raise ValueError(
            "Parameter `scores` should hold two or more datasets and methods. "
            f"Found {len(datasets)} datasets, {len(methods)} methods."
        )
    for name, row in scores.items():
        if set(row) != set(methods) or not all(math.isfinite(value) for value in row.values()):
            raise ValueError(
                f"Parameter `scores` should hold a number for each of {', '.join(methods)}. Found {dict(row)} "
                f"on {name!r}."
            )
    table = np.array([[row[method] for method in methods] for row in scores.values()])
    average = rankdata(-table, axis=1).mean(axis=0)
    statistic, p = math.nan, math.nan
    if len(methods) > 2 and (table != table[:, :1]).any():
        statistic, p = (float(value) for value in friedmanchisquare(*table.T))
    quantile = float(studentized_range.ppf(1 - level, len(methods), np.inf)) / math.sqrt(2)
    difference = quantile * math.sqrt(len(methods) * (len(methods) + 1) / (6 * len(datasets)))
    ranks = {methods[i]: float(average[i]) for i in np.argsort(average, kind="stable")}
    return Ranking(ranks, datasets, statistic, p, difference, _groups(ranks, difference))


def _groups(ranks: Mapping[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    names = list(ranks)
    found: list[tuple[str, ...]] = []
    last = 0
    for start, best in enumerate(names):
        end = max(i for i, name in enumerate(names) if ranks[name] - ranks[best] < difference) + 1
        if end - start > 1 and end > last:
            found.append(tuple(names[start:end]))
        last = max(last, end)
    return tuple(found)
