"""What each modality adds to a model's score: by its removal, by exchanging it among samples, and shared out fairly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from equipoise.diagnostics.estimates import Estimate, Floats, estimate, jackknife_error, plain
from equipoise.diagnostics.shapley import EXACT_UP_TO, PERMUTATIONS, shapley_values
from equipoise.diagnostics.subject import Ints, Progress, Subject

REPEATS = 5


@dataclass(frozen=True)
class Contribution:
    """What one modality adds; higher is more.

    Attributes:
        removal: score of the model less its score with the modality muted, the others there.
        exchange: score of the model less its score with the modality taken from other samples, a mean over repeats;
            its ``error`` is their standard deviation over the square root of their number.
        spread: standard deviation of that difference over repeats.
        shapley: the modality's Shapley value of the score. Over all modalities these add up to the score of the model
            less that of the model with all of them muted.
    """

    removal: Estimate
    exchange: Estimate
    spread: float
    shapley: Estimate


@dataclass(frozen=True)
class Contributions:
    """What every modality adds to a model's score on a set.

    Attributes:
        metric: the score's name; higher is better.
        score: of the model.
        alone: ``{m: score with this modality alone}``, the others muted.
        nothing: score with all modalities muted.
        constant: score of the best constant that the set allows: the commonest class, the class frequencies, the mean
            or median target. What is no better tells nothing.
        modalities: ``{m: contribution}``.
        repeats: of the exchange.
        permutations: orders drawn for the Shapley values; 0 where all subsets were asked.
        samples: ``{"removal", "exchange" or "shapley": {m: [N]}}``, what each sample adds to the mean.
    """

    metric: str
    score: Estimate
    alone: dict[str, Estimate]
    nothing: float
    constant: float
    modalities: dict[str, Contribution]
    repeats: int
    permutations: int
    samples: dict[str, dict[str, Floats]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        found: dict[str, Any] = plain(self)
        return found


def measure_contributions(
    subject: Subject,
    *,
    repeats: int = REPEATS,
    exact_up_to: int = EXACT_UP_TO,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Contributions:
    r"""What each modality adds to the score, in three ways that fail differently.

    - Removal asks what the others can't replace: of two modalities that say the same, neither adds anything. It shows
      the model an input that it may never have met (one neutral frame).
    - Exchange (permutation importance: Breiman, Random Forests, 2001; Fisher, Rudin and Dominici, 2019) keeps the
      inputs real and makes them contradict each other: it tells what the model relies on, useful or not. No sample
      keeps its own.
    - Shapley values of the score share out what modalities have in common evenly, and interactions too:
      $\phi^m = \sum_S \frac{|S|! (K - |S| - 1)!}{K!} \big(v(S \cup m) - v(S)\big)$ with $v(\emptyset)$ the score of
      the model with everything muted. (SHAPE, IJCAI 2022, does this for accuracy; its abstract was read.)

    All are means over samples, so intervals and tests pair each sample with itself.

    Args:
        subject: the model on its samples.
        repeats: exchanges of each modality.
        exact_up_to: the most modalities for which all subsets are asked.
        permutations: orders of modalities drawn beyond that.
        seed: of everything drawn.
        progress: told of exchanges and subsets done, and of how many there are.

    Raises:
        ValueError: ``repeats`` below 1, or a single sample, which has nothing to exchange with.
    """
    if repeats < 1 or len(subject) < 2:
        found = f"`repeats = {repeats}` and {len(subject)} samples"
        raise ValueError(f"Parameters `repeats` and `subject` should be 1 or more, and hold 2 or more. Found {found}.")
    names, random = subject.modalities, np.random.default_rng(seed)
    everything, nothing = subject.points(), subject.points([])
    drops: dict[str, Floats] = {}
    for number, name in enumerate(names):
        drops[name] = np.empty((repeats, len(subject)))
        for repeat in range(repeats):
            exchanged = subject.points_of(subject.mixed(_exchanged(names, name, len(subject), random)))
            drops[name][repeat] = everything - exchanged
            if progress is not None:
                progress(number * repeats + repeat + 1, (len(names) + 1) * repeats)
    fair = shapley_values(
        lambda kept: subject.points(kept) - nothing,
        names,
        exact_up_to=exact_up_to,
        permutations=permutations,
        seed=seed,
    )
    if progress is not None:
        progress((len(names) + 1) * repeats, (len(names) + 1) * repeats)
    removed = {name: everything - subject.points(set(names) - {name}) for name in names}
    modalities = {}
    for name in names:
        means = drops[name].mean(axis=1)
        spread = float(means.std(ddof=1)) if repeats > 1 else float("nan")
        drawn = 0.0 if fair.groups is None else jackknife_error(lambda each: float(each.mean()), fair.groups[name])
        modalities[name] = Contribution(
            removal=estimate(removed[name], seed=seed),
            exchange=estimate(drops[name].mean(axis=0), error=spread / repeats**0.5, seed=seed),
            spread=spread,
            shapley=estimate(fair.values[name], error=drawn, seed=seed),
        )
    assert subject.metric is not None
    return Contributions(
        metric=subject.metric,
        score=estimate(everything, test=False, seed=seed),
        alone={name: estimate(subject.points([name]), test=False, seed=seed) for name in names},
        nothing=float(nothing.mean()),
        constant=constant_score(subject),
        modalities=modalities,
        repeats=repeats,
        permutations=fair.permutations,
        samples={
            "removal": removed,
            "exchange": {name: drop.mean(axis=0) for name, drop in drops.items()},
            "shapley": fair.values,
        },
    )


def constant_score(subject: Subject) -> float:
    """Score of the best constant prediction, chosen with the targets of this very set."""
    target, count = subject.target, len(subject)
    if subject.task == "classification":
        often = np.bincount(target.astype(np.int64), minlength=subject.predictions().shape[1])
        constants = [np.log(np.maximum(often / count, 1e-300))]
    else:
        # Of these the mean is best for r2, the median for neg_mae, one end or the other for acc2_nn.
        constants = [np.asarray(of(target.astype(np.float64), axis=0)) for of in (np.mean, np.median, np.min, np.max)]
    scores = [subject.points_of(np.broadcast_to(each, (count, *each.shape))).mean() for each in constants]
    return float(max(scores))


def _exchanged(names: tuple[str, ...], which: str, count: int, random: np.random.Generator) -> dict[str, Ints]:
    """Every modality in place but one, which each sample has from the next in a random round of all."""
    order = random.permutation(count)
    taken = np.empty(count, dtype=np.int64)
    taken[order] = np.roll(order, 1)
    return {name: taken if name == which else np.arange(count) for name in names}
