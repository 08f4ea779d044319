"""What each modality contributes to a trained model's score on a split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.data import Split
from equipoise.functional.shapley import shapley_responses
from equipoise.metrics import better, evaluate_metrics
from equipoise.report.results import over_seeds
from equipoise.report.tables import Table
from equipoise.training.evaluate import predict


@dataclass(frozen=True, slots=True)
class Contributions:
    """Scores of one model with some of its modalities.

    Attributes:
        metric: what is scored: ``accuracy``, or ``mae`` of a regression.
        constant: the score of the best constant by the training labels, their median or their most frequent class.
        subsets: ``{kept modalities: score}``, every subset but the empty one.
        shapley: ``{m: how much better the score is by m}``, its Shapley value; the values add up to the way from the
            constant to the score with all modalities. Positive is better, whichever way the metric points.
    """

    metric: str
    constant: float
    subsets: dict[frozenset[str], float]
    shapley: dict[str, float]

    @property
    def full(self) -> float:
        """The score with all modalities."""
        return self.subsets[frozenset(self.shapley)]

    def loss_without(self, name: str) -> float:
        """How much worse the score is without a modality; NaN where there is no other."""
        rest = self.subsets.get(frozenset(self.shapley) - {name}, float("nan"))
        return (rest - self.full) * (1 if better(self.metric) == "min" else -1)


def contributions(model: nn.Module, split: Split, names: Sequence[str], train: Split) -> Contributions:
    """Score a model with each subset of its modalities.

    What is left out is absent from the input, as in a sample that lacks it; the model is not trained again.

    Args:
        model: reads ``names``.
        split: what to score, once for each of the ``2^K - 1`` subsets.
        names: the K modalities.
        train: whose labels give the constant that stands for no modality at all.
    """
    metric = "accuracy" if split.manifest.task == "classification" else "mae"
    kept = [frozenset(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]
    subsets: dict[frozenset[str], float] = {}
    for subset in kept:
        found = predict(model, split, modalities=[name for name in names if name in subset])
        subsets[subset] = _score(split, metric, found.logits, found.target)
    constant = _score(split, metric, *_constant(split, train))
    sign = -1.0 if better(metric) == "min" else 1.0

    def gain(subset: frozenset[str]) -> Tensor:
        return torch.tensor(sign * (subsets[subset] - constant), dtype=torch.float64)

    if len(names) == 1:  # the whole way is its own
        return Contributions(metric, constant, subsets, {names[0]: gain(kept[0]).item()})
    shares = {name: value.item() for name, value in shapley_responses(gain, names).items()}
    return Contributions(metric, constant, subsets, shares)


def contribution_table(found: Sequence[Contributions]) -> Table:
    """One row a modality: alone, what is lost without it, its Shapley value; mean ± standard deviation over seeds."""
    first = found[0]
    names = list(first.shapley)
    columns = {
        f"{first.metric} alone": [{name: each.subsets[frozenset({name})] for name in names} for each in found],
        "worse without it": [{name: each.loss_without(name) for name in names} for each in found],
        "Shapley value": [each.shapley for each in found],
    }
    cells = [over_seeds(rows, names) for rows in columns.values()]
    rows = tuple((name, *row) for name, *row in zip(names, *cells, strict=True))
    return Table(f"What each modality contributes ({first.metric})", ("modality", *columns), rows)


def _score(split: Split, metric: str, logits: Tensor, target: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a constant has no correlation, and none is asked for
        return evaluate_metrics(split.manifest.task, logits, target)[metric]


def _constant(split: Split, train: Split) -> tuple[Tensor, Tensor]:
    target, seen = torch.from_numpy(np.array(split.targets)), np.asarray(train.targets)
    if split.manifest.task == "classification":
        counts = torch.bincount(torch.from_numpy(np.array(seen)), minlength=split.manifest.labels.outputs)
        return counts.double().expand(len(target), -1), target
    median = torch.from_numpy(np.median(seen, axis=0, keepdims=True))
    return median.expand(target.shape), target
