"""Mono-modal responses: what each modality contributes to a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb

from torch import Tensor


def shapley_responses(
    predict: Callable[[frozenset[str]], Tensor], modalities: Sequence[str], full: Tensor | None = None
) -> dict[str, Tensor]:
    r"""Shapley value of each modality for a model's output, ``{m: like the output}`` (AGM, Eqs. 1–3).

    $$
    \phi^m = \sum_{S \subseteq \mathcal M \setminus \{m\}} \frac{|S|!\,(K - |S| - 1)!}{K!}
    \big(\phi(S \cup \{m\}) - \phi(S)\big), \qquad \phi(\emptyset) := 0
    $$

    so that $\sum_m \phi^m = \phi(\mathcal M)$. Eq. 1 of the paper leaves out $S = \emptyset$ altogether,
    which breaks that sum; its Eq. 3 and the authors' code keep $\phi(\{m\})$ and drop only $\phi(\emptyset)$.

    Args:
        predict: maps kept modalities to an output; called for every non-empty subset, or once for all of them where it
            has a method ``batched`` (see `equipoise.core.SubsetPredict`).
        modalities: the ``K`` names, in any order.
        full: the output with all modalities, where it is known already; ``predict`` is then not asked for it.

    Raises:
        ValueError: fewer than two modalities.
    """
    names = tuple(modalities)
    if len(names) < 2:
        raise ValueError(f"Parameter `modalities` should hold at least two names. Found {names}.")
    subsets = [frozenset(s) for size in range(1, len(names) + 1) for s in combinations(names, size)]
    everything = frozenset(names)
    asked = subsets if full is None else [subset for subset in subsets if subset != everything]
    batched = getattr(predict, "batched", None)
    answers = batched(asked) if batched is not None else [predict(subset) for subset in asked]
    value = dict(zip(asked, answers, strict=True))
    if full is not None:
        value[everything] = full
    return {name: _response(name, value, len(names)) for name in names}


def _response(name: str, value: dict[frozenset[str], Tensor], count: int) -> Tensor:
    response: Tensor | None = None
    for subset, output in value.items():
        # |S|!(K-|S|-1)!/K! is 1 / (K · C(K-1, |S|)), with S the subset without m.
        others = len(subset - {name})
        weight = 1 / (count * comb(count - 1, others))
        term = output * (weight if name in subset else -weight)
        response = term if response is None else response + term
    assert response is not None
    return response
