from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from equipoise.experiments.ranks import rank_methods

DRAWS = np.random.default_rng(6)


def table(values: np.ndarray) -> dict[str, dict[str, float]]:
    return {f"d{i}": {f"m{j}": float(value) for j, value in enumerate(row)} for i, row in enumerate(values)}


def test_ranks_and_friedman_with_ties() -> None:
    values = DRAWS.integers(0, 4, (9, 5)).astype(float)
    found = rank_methods(table(values))
    expected = stats.rankdata(-values, axis=1).mean(axis=0)
    assert found.ranks == pytest.approx({f"m{j}": expected[j] for j in range(5)})
    assert list(found.ranks.values()) == sorted(expected)
    assert (found.statistic, found.p) == pytest.approx(tuple(stats.friedmanchisquare(*values.T)))


def test_friedmans_statistic_by_its_formula() -> None:
    values = np.argsort(DRAWS.uniform(size=(7, 4)), axis=1).astype(float)
    found = rank_methods(table(values))
    squares = sum((rank - 2.5) ** 2 for rank in found.ranks.values())
    assert found.statistic == pytest.approx(12 * 7 / (4 * 5) * squares)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (4, 2.569), (10, 3.164)])
def test_critical_difference_of_the_published_table(methods: int, q: float) -> None:
    """q at 0.05 as every table of Nemenyi's test prints it, to three digits."""
    found = rank_methods(table(DRAWS.uniform(size=(6, methods))))
    assert found.difference == pytest.approx(q * math.sqrt(methods * (methods + 1) / 36), rel=3e-4)


def test_the_largest_groups_that_are_not_told_apart() -> None:
    # Ranks 1, 2, 3, 4 on every dataset; CD = 2.569·√(20/(6·8)) = 1.66 for eight: neighbours only.
    found = rank_methods(table(np.tile([4.0, 3.0, 2.0, 1.0], (8, 1))))
    assert found.groups == (("m0", "m1"), ("m1", "m2"), ("m2", "m3"))
    # CD = 0.57 for 68 datasets: all are told apart.
    assert rank_methods(table(np.tile([4.0, 3.0, 2.0, 1.0], (68, 1)))).groups == ()
    # CD = 3.3 for two: one group holds all.
    assert rank_methods(table(np.tile([4.0, 3.0, 2.0, 1.0], (2, 1)))).groups == (("m0", "m1", "m2", "m3"),)


def test_all_tied_and_two_methods_have_no_friedman() -> None:
    tied = rank_methods(table(np.ones((3, 3))))
    assert math.isnan(tied.p)
    assert set(tied.ranks.values()) == {2.0}
    assert math.isnan(rank_methods(table(DRAWS.uniform(size=(3, 2)))).p)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "Found 0 datasets, 0 methods"),
        ({"a": {"x": 1.0, "y": 2.0}}, "Found 1 datasets, 2 methods"),
        ({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 1.0}}, "on 'b'"),
        ({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 1.0, "y": math.nan}}, "on 'b'"),
    ],
)
def test_refuses(scores: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_methods(scores)
