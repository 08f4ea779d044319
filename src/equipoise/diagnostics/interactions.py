"""Interactions between two modalities: what they say only together, and what they say twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from equipoise.diagnostics.estimates import Estimate, Floats, estimate, plain
from equipoise.diagnostics.shapley import EXACT_UP_TO, subsets_of
from equipoise.diagnostics.subject import Progress, Subject

DRAWS = 64


@dataclass(frozen=True)
class Interaction:
    """One pair of modalities, in units of the score.

    Attributes:
        index: Shapley interaction index of the score, ``synergy - redundancy``: above 0 the two are worth more together
            than apart.
        synergy: what it is worth that the output for both is not the sum of what each adds to it. Below 0 the model
            would do better without that interaction.
        redundancy: how much less the two are worth, where their parts are just added up, than the sum of their worths:
            what they say in common. Below 0, one makes room for the other (it cancels its noise, say).
        strength: how far the output for both is from that sum (root mean square over samples), over the standard
            deviation of the model's output; logits have their mean over classes taken off. NaN for a constant output.
    """

    index: Estimate
    synergy: Estimate
    redundancy: Estimate
    strength: float


@dataclass(frozen=True)
class Interactions:
    """All pairs of modalities.

    Attributes:
        metric: of the score.
        pairs: ``{(m, n): interaction}``, each pair once, in the subject's order.
        draws: subsets of the other modalities drawn for each pair; 0 where all were asked.
        samples: ``{(m, n): {"index", "synergy" or "redundancy": [N]}}``, what each sample adds to the mean.
    """

    metric: str
    pairs: dict[tuple[str, str], Interaction]
    draws: int
    samples: dict[tuple[str, str], dict[str, Floats]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts; a pair is called ``m + n``."""
        named = {
            "metric": self.metric,
            "pairs": {" + ".join(pair): each for pair, each in self.pairs.items()},
            "draws": self.draws,
            "samples": {" + ".join(pair): each for pair, each in self.samples.items()},
        }
        found: dict[str, Any] = plain(named)
        return found


def measure_interactions(
    subject: Subject,
    *,
    exact_up_to: int = EXACT_UP_TO,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Interactions:
    r"""Synergy and redundancy of each pair of modalities in a model's score.

    With $v(S)$ the score of the model with the modalities S, others muted, the index of a pair is (Grabisch and
    Roubens, An axiomatic approach to the concept of interaction among players in cooperative games, 1999)

    $$
    I_{mn} = \sum_{S \subseteq \mathcal M \setminus \{m, n\}} \frac{|S|!\,(K - |S| - 2)!}{(K - 1)!}
    \big(v(S \cup mn) - v(S \cup m) - v(S \cup n) + v(S)\big)
    $$

    It says only whether synergy or redundancy prevails. Here it is split by the score $w(S)$ of an output that has no
    interaction between the two, $f_S^+ = f(S \cup m) + f(S \cup n) - f(S)$:

    $$
    \mathrm{synergy} = \sum_S c_S \big(v(S \cup mn) - w(S)\big), \qquad
    \mathrm{redundancy} = \sum_S c_S \big(v(S \cup m) + v(S \cup n) - v(S) - w(S)\big)
    $$

    so that $I = \mathrm{synergy} - \mathrm{redundancy}$. The split is this project's own, and no partial information
    decomposition: it is about what this model makes of the modalities, not about what is in them. For R² and a model
    that is a sum over modalities, $f = \sum_m g_m(x_m)$, synergy is 0 and redundancy is twice the mean product of $g_m$
    and $g_n$ (less what they are when muted) over the target's variance: none where they are independent with mean 0,
    positive where they say the same. A product of two signs is synergy alone. With accuracy, that no answer can be more
    than right counts as redundancy as well: R² and log-likelihood tell more.

    Args:
        subject: the model on its samples.
        exact_up_to: the most modalities for which all subsets are asked.
        draws: subsets of the others drawn for each pair beyond that, at least 2.
        seed: of subsets and resamples.
        progress: told of pairs done and in all.

    Raises:
        ValueError: fewer than two modalities, or ``draws`` below 2.
    """
    names = subject.modalities
    if len(names) < 2 or draws < 2:
        raise ValueError(
            f"Interactions need two modalities or more, and `draws` of 2 or more. "
            f"Found {', '.join(names)} and `draws = {draws}`."
        )
    exact, random = len(names) <= exact_up_to, np.random.default_rng(seed)
    every = list(combinations(names, 2))
    pairs, samples = {}, {}
    for number, pair in enumerate(every):
        others = tuple(name for name in names if name not in pair)
        companies = list(_all(others)) if exact else list(_drawn(others, draws, random))
        terms = [_terms(subject, pair, kept) for kept, _ in companies]
        weights = np.array([weight for _, weight in companies])
        synergies, redundancies = (np.stack([term[part] for term in terms]) for part in (0, 1))
        synergy, redundancy = weights @ synergies, weights @ redundancies
        index, twice, only = (
            estimate(weights @ parts, error=0.0 if exact else _drawn_error(parts), seed=seed)
            for parts in (synergies - redundancies, redundancies, synergies)
        )
        pairs[pair] = Interaction(index, only, twice, _strength(subject, [term[2] for term in terms], weights))
        samples[pair] = {"index": synergy - redundancy, "synergy": synergy, "redundancy": redundancy}
        if progress is not None:
            progress(number + 1, len(every))
    assert subject.metric is not None
    return Interactions(subject.metric, pairs, 0 if exact else draws, samples)


def _all(others: tuple[str, ...]) -> Iterator[tuple[frozenset[str], float]]:
    for kept in subsets_of(others):
        # |S|!(K-|S|-2)!/(K-1)! is 1 / ((K-1) · C(K-2, |S|)): each size counts as much.
        yield kept, 1 / ((len(others) + 1) * comb(len(others), len(kept)))


def _drawn(others: tuple[str, ...], draws: int, random: np.random.Generator) -> Iterator[tuple[frozenset[str], float]]:
    for _ in range(draws):
        size = int(random.integers(len(others), endpoint=True))
        yield frozenset(random.permutation(others)[:size].tolist()), 1 / draws


def _terms(subject: Subject, pair: tuple[str, str], kept: frozenset[str]) -> tuple[Floats, Floats, Floats]:
    """Synergy and redundancy of each sample in one company, and the output's interaction."""
    one, other = kept | {pair[0]}, kept | {pair[1]}
    together, without = subject.predictions(one | other), subject.predictions(kept)
    added = subject.predictions(one) + subject.predictions(other) - without
    plainly = subject.points_of(added)
    synergy = subject.points(one | other) - plainly
    redundancy = subject.points(one) + subject.points(other) - subject.points(kept) - plainly
    return synergy, redundancy, together - added


def _drawn_error(parts: Floats) -> float:
    """Standard error of the mean over companies drawn, of a mean over samples: ``[draws, N]``."""
    means = parts.mean(axis=1)
    return float(means.std(ddof=1) / len(means) ** 0.5)


def _strength(subject: Subject, differences: list[Floats], weights: Floats) -> float:
    outputs = _centred(subject, subject.predictions())
    spread = float(np.square(outputs - outputs.mean(axis=0)).sum(axis=1).mean())
    squares = sum(
        weight * float(np.square(_centred(subject, each)).sum(axis=1).mean())
        for weight, each in zip(weights, differences, strict=True)
    )
    return (squares / spread) ** 0.5 if spread > 1e-24 * float(np.square(outputs).mean()) else float("nan")


def _centred(subject: Subject, outputs: Floats) -> Floats:
    flat: Floats = outputs.reshape(len(outputs), -1)
    return flat - flat.mean(axis=1, keepdims=True) if subject.task == "classification" else flat
