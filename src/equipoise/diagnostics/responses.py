"""Mono-modal responses: what each modality says within a model's output."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from equipoise.diagnostics.estimates import Estimate, Floats, estimate, jackknife_error, plain
from equipoise.diagnostics.shapley import EXACT_UP_TO, PERMUTATIONS, shapley_values
from equipoise.diagnostics.subject import Progress, Subject
from equipoise.functional.statistics import percentile_interval, resample_rows


@dataclass(frozen=True)
class Response:
    r"""One modality's response.

    Attributes:
        score: of the response, taken for a prediction (AGM's Acc_m for ``accuracy``).
        alone: score of the model with this modality alone, the others muted.
        share: $\mathrm{Cov}(\phi^m, f) / \mathrm{Var}(f)$ over samples, the part of the output's variance that comes
            with the response; over all modalities these add up to 1. Logits have their mean over classes taken off, and
            variances of several outputs are added. NaN for a constant output.
        share_low, share_high: its 95 % bootstrap interval.
        deviation: how far the response is from its own mean over samples (root mean square), in the output's unit.
        error: standard error of a response, of one sample, that comes from drawing orders; a mean over samples. 0 where
            all subsets are asked.
    """

    score: Estimate
    alone: Estimate
    share: float
    share_low: float
    share_high: float
    deviation: float
    error: float


@dataclass(frozen=True)
class Responses:
    """Mono-modal responses of a model over a set.

    Attributes:
        metric: of the scores.
        score: of the whole output.
        modalities: ``{m: response}``.
        differences: ``{"m - n": score of m's response minus that of n's}``, each pair once.
        permutations: orders drawn; 0 where all subsets were asked.
        samples: ``{m: [N], [N, R] or [N, C]}``, the responses; their sum is the output.
    """

    metric: str
    score: Estimate
    modalities: dict[str, Response]
    differences: dict[str, Estimate]
    permutations: int
    samples: dict[str, Floats]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        found: dict[str, Any] = plain(self)
        return found


def measure_responses(
    subject: Subject,
    *,
    exact_up_to: int = EXACT_UP_TO,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Responses:
    r"""Each modality's response by its Shapley value for the output (AGM, ICCV 2023, Eqs. 1-3).

    $$
    \phi^m = \sum_{S \subseteq \mathcal M \setminus m} \frac{|S|!\,(K - |S| - 1)!}{K!}
    \big(\phi(S \cup m) - \phi(S)\big), \qquad \phi(\emptyset) := 0, \qquad \sum_m \phi^m = \phi(\mathcal M)
    $$

    with absent modalities muted. As the empty set counts for 0, what the model says of nothing (a bias, say) is divided
    evenly among the responses. The paper scores classes; here the response of a regression is scored in the same way,
    as if it were the prediction, which it is only a part of: look at ``share`` and ``alone`` too.

    Args:
        subject: the model on its samples.
        exact_up_to: the most modalities for which all subsets are asked.
        permutations: orders of modalities drawn beyond that.
        seed: of orders and resamples.
        progress: told of subsets (or orders) asked and in all.
    """
    found = shapley_values(
        subject.predictions,
        subject.modalities,
        exact_up_to=exact_up_to,
        permutations=permutations,
        seed=seed,
        progress=progress,
    )
    responses = found.values
    points = {name: subject.points_of(response) for name, response in responses.items()}
    modalities = {}
    for name, response in responses.items():
        groups = None if found.groups is None else found.groups[name]
        drawn = 0.0 if groups is None else jackknife_error(lambda each: float(subject.points_of(each).mean()), groups)
        share, low, high = _share(response, subject.predictions(), subject.task, seed)
        modalities[name] = Response(
            score=estimate(points[name], test=False, error=drawn, seed=seed),
            alone=estimate(subject.points([name]), test=False, seed=seed),
            share=share,
            share_low=low,
            share_high=high,
            deviation=float(np.sqrt(np.square(response - response.mean(axis=0)).mean())),
            error=float(found.errors(name).mean()),
        )
    differences = {}
    for one, other in combinations(responses, 2):
        drawn = 0.0
        if found.groups is not None:
            pair = np.stack([found.groups[one], found.groups[other]], axis=1)
            drawn = jackknife_error(
                lambda each: float((subject.points_of(each[0]) - subject.points_of(each[1])).mean()), pair
            )
        differences[f"{one} - {other}"] = estimate(points[one] - points[other], error=drawn, seed=seed)
    assert subject.metric is not None
    whole = estimate(subject.points(), test=False, seed=seed)
    return Responses(subject.metric, whole, modalities, differences, found.permutations, responses)


def _share(response: Floats, outputs: Floats, task: str, seed: int) -> tuple[float, float, float]:
    """Cov(response, outputs) / Var(outputs) and its interval, from sums so that resamples are quick."""
    part, whole = response.reshape(len(response), -1), outputs.reshape(len(outputs), -1)
    if task == "classification":
        part, whole = (each - each.mean(axis=1, keepdims=True) for each in (part, whole))
    part, whole = part - part.mean(axis=0), whole - whole.mean(axis=0)
    width, scale = part.shape[1], float(np.square(outputs).mean()) or 1.0
    sums = [part, whole, (part * whole).sum(axis=1, keepdims=True), np.square(whole).sum(axis=1, keepdims=True)]
    columns = torch.from_numpy(np.concatenate(sums, axis=1))

    def ratio(rows: torch.Tensor) -> torch.Tensor:
        often = torch.zeros(rows.shape, dtype=torch.float64).scatter_add_(1, rows, torch.ones(rows.shape).double())
        means = often @ columns / len(columns)
        covariance = means[:, -2] - (means[:, :width] * means[:, width:-2]).sum(dim=1)
        variance = means[:, -1] - means[:, width:-2].square().sum(dim=1)
        return torch.where(variance > 1e-12 * scale, covariance / variance, torch.nan)

    low, high = percentile_interval(torch.cat([ratio(rows) for rows in resample_rows(len(part), 1000, seed)]))
    return float(ratio(torch.arange(len(part))[None])), low, high
