"""Shapley values of arrays over subsets of modalities: all subsets of a few, orders drawn at random of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from equipoise.diagnostics.subject import Progress
from equipoise.functional.shapley import shapley_responses

Floats = npt.NDArray[np.float64]
EXACT_UP_TO = 6  # modalities: 63 subsets
PERMUTATIONS = 200
GROUPS = 20  # of permutations, for the jackknife


@dataclass(frozen=True)
class Shapley:
    """Shapley values.

    Attributes:
        values: ``{m: like a subset's value}``.
        groups: ``{m: [G, ...]}``, means over groups of the orders drawn, whose mean is the value; None where exact.
        permutations: orders drawn; 0 where exact.
    """

    values: dict[str, Floats]
    groups: dict[str, Floats] | None
    permutations: int

    def errors(self, name: str) -> Floats:
        """Standard error of each number of one modality's value, from the spread of the groups; 0 where exact."""
        if self.groups is None:
            return np.zeros_like(self.values[name])
        groups = self.groups[name]
        found: Floats = groups.std(axis=0, ddof=1) / np.sqrt(len(groups))
        return found


def shapley_values(
    value: Callable[[frozenset[str]], Floats],
    modalities: tuple[str, ...],
    *,
    exact_up_to: int = EXACT_UP_TO,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shapley:
    r"""Shapley value of each modality, with the empty set worth 0, so that they add up to the value of all.

    Beyond ``exact_up_to`` modalities, from orders $\pi$ drawn at random (Castro, Gómez and Tejada, Polynomial
    calculation of the Shapley value based on sampling, 2009):

    $$
    \phi^m \approx \frac 1P \sum_\pi \big(v(\pi_{<m} \cup m) - v(\pi_{<m})\big)
    $$

    which is unbiased, and adds up to the value of all in every order.

    Args:
        value: of a subset that is not empty, an array of one shape.
        modalities: one or more.
        exact_up_to: the most modalities for which every subset is asked.
        permutations: orders drawn beyond that; rounded up to a multiple of 20.
        seed: of the orders.
        progress: told of the subsets asked (or the orders walked), and how many there are.

    Raises:
        ValueError: ``permutations`` below 1.
    """
    if permutations < 1:
        raise ValueError(f"Parameter `permutations` should be 1 or more. Found `permutations = {permutations}`.")
    if len(modalities) == 1:
        return Shapley({modalities[0]: value(frozenset(modalities))}, None, 0)
    if len(modalities) > exact_up_to:
        return _drawn(value, modalities, -(-permutations // GROUPS), seed, progress)
    subsets = subsets_of(modalities)[1:]
    known = {}
    for number, kept in enumerate(subsets):
        known[kept] = torch.from_numpy(np.ascontiguousarray(value(kept)))
        if progress is not None:
            progress(number + 1, len(subsets))
    found = shapley_responses(known.__getitem__, modalities)
    return Shapley({name: found[name].numpy() for name in modalities}, None, 0)


def subsets_of(names: tuple[str, ...]) -> list[frozenset[str]]:
    """Every subset, the empty one first."""
    return [frozenset(kept) for size in range(len(names) + 1) for kept in combinations(names, size)]


def _drawn(
    value: Callable[[frozenset[str]], Floats],
    modalities: tuple[str, ...],
    each: int,
    seed: int,
    progress: Progress | None,
) -> Shapley:
    random = np.random.default_rng(seed)
    full = value(frozenset(modalities))
    groups = {name: np.zeros((GROUPS, *full.shape)) for name in modalities}
    for number in range(GROUPS * each):
        kept, before = frozenset[str](), np.zeros_like(full)
        for name in random.permutation(modalities).tolist():
            kept = kept | {name}
            after = value(kept)
            groups[name][number // each] += (after - before) / each
            before = after
        if progress is not None:
            progress(number + 1, GROUPS * each)
    return Shapley({name: part.mean(axis=0) for name, part in groups.items()}, groups, GROUPS * each)
