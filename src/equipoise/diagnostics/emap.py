"""EMAP: how a model scores without its interactions between modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.diagnostics.estimates import Estimate, Floats, estimate, plain, spread_of_jackknife
from equipoise.diagnostics.subject import Ints, Progress, Subject

BUDGET = 30_000  # mixes asked
_PIECE = 8192  # mixes asked between two reports of progress
_GROUPS = 10  # of rounds, for the jackknife
_SWEEPS = 200
_LEAST = 16  # rounds


@dataclass(frozen=True)
class EMAP:
    """A model against its additive projection.

    Attributes:
        metric: of the scores.
        score: of the model.
        additive: of the projection, which has no interactions between modalities.
        gain: score of the model less that of its projection: what the interactions give. Below 0 they hurt.
        interaction_share: part of the variance of the output, over mixes of modalities, that no sum of functions of one
            modality each explains; summed over outputs. NaN where the output is constant.
        mixes: asked for.
        exact: whether these were all mixes that the samples allow.
        samples: ``[N]``, ``[N, R]`` or ``[N, C]``, the projection's outputs.
    """

    metric: str
    score: Estimate
    additive: Estimate
    gain: Estimate
    interaction_share: float
    mixes: int
    exact: bool
    samples: Floats

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        found: dict[str, Any] = plain(self)
        return found


def measure_emap(subject: Subject, *, budget: int = BUDGET, seed: int = 0, progress: Progress | None = None) -> EMAP:
    r"""Empirical multimodally-additive projection of a model's outputs.

    From [Does my multimodal model learn cross-modal interactions?](https://aclanthology.org/2020.emnlp-main.62)
    (Hessel and Lee, EMNLP 2020). The projection is the sum of functions of one modality each that is nearest to the
    model, in mean square over all mixes of the samples' modalities. With two modalities of N samples

    $$
    \hat f_i = \frac 1N \sum_j f(a_i, b_j) + \frac 1N \sum_j f(a_j, b_i) - \frac 1{N^2} \sum_{jk} f(a_j, b_k)
    $$

    and with K, $\hat f_i = \mu + \sum_m \big(E[f \mid x_m = x_m^i] - \mu\big)$. (The paper's abstract was read; this
    follows from least squares, and the paper has two modalities.)

    Up to ``budget`` mixes, all $N^K$ are asked. Beyond, R = budget / N rounds (an even number, 16 at
    least) each take every modality in a random order of the samples, so every one of them is met R times in company
    drawn at random, and the projection is fitted to these by least squares. An additive model is its own projection
    then too; of others, what interactions make of the company drawn is left as noise. That costs the projection some
    score, in proportion to 1/R: what half of the rounds lose more than all of them is added again. What is left open
    is in ``additive.error`` and ``gain.error`` (jackknife over ten groups of rounds).

    Args:
        subject: the model on its samples.
        budget: the most mixes asked, where N allows it.
        seed: of the mixes and resamples.
        progress: told of mixes asked and in all.

    Raises:
        ValueError: fewer than two modalities, or a budget below 1.
    """
    names, count = subject.modalities, len(subject)
    if len(names) < 2 or budget < 1:
        found = f"{', '.join(names)} and `budget = {budget}`"
        raise ValueError(f"EMAP needs two modalities or more, and a `budget` of 1 or more. Found {found}.")
    exact, rounds = count ** len(names) <= budget, 2 * max(_LEAST // 2, budget // count // 2)
    if exact:
        rows = np.stack(np.unravel_index(np.arange(count ** len(names)), (count,) * len(names)))
    else:
        random = np.random.default_rng(seed)
        rows = np.stack([np.concatenate([random.permutation(count) for _ in range(rounds)]) for _ in names])
    outputs = _asked(subject, rows, progress)
    flat = outputs.reshape(len(outputs), -1)
    fitted, effects = _additive(flat, rows, count)
    projected = _of_samples(fitted, effects, outputs.shape)
    points, additive, error = subject.points(), subject.points_of(projected), 0.0
    if not exact:
        additive, error = _corrected(subject, additive, flat, rows, outputs.shape)
    whole = float(np.square(flat - flat.mean(axis=0)).sum())
    left = float(np.square(flat - fitted - sum(effect[row] for effect, row in zip(effects, rows, strict=True))).sum())
    if not exact:  # what a fit of that many effects takes away of noise
        left *= len(flat) / max(1, len(flat) - len(names) * (count - 1) - 1)
    assert subject.metric is not None
    return EMAP(
        metric=subject.metric,
        score=estimate(points, test=False, seed=seed),
        additive=estimate(additive, test=False, error=error, seed=seed),
        gain=estimate(points - additive, error=error, seed=seed),
        interaction_share=left / whole if whole > 1e-24 * float(np.square(flat).sum()) else float("nan"),
        mixes=len(flat),
        exact=exact,
        samples=projected,
    )


def _asked(subject: Subject, rows: Ints, progress: Progress | None) -> Floats:
    found = []
    for start in range(0, rows.shape[1], _PIECE):
        piece = rows[:, start : start + _PIECE]
        found.append(subject.mixed(dict(zip(subject.modalities, piece, strict=True))))
        if progress is not None:
            progress(start + piece.shape[1], rows.shape[1])
    return np.concatenate(found)


def _additive(outputs: Floats, rows: Ints, count: int) -> tuple[Floats, list[Floats]]:
    """Mean ``[D]`` and effects ``[N, D]`` of each modality, by least squares: each in turn, until none moves.

    Every sample of a modality has to be met equally often. With all mixes one sweep is enough.
    """
    mean = outputs.mean(axis=0)
    left = outputs - mean
    effects = [np.zeros((count, outputs.shape[1])) for _ in rows]
    least = 1e-12 * float(np.abs(left).max(initial=0.0))
    for _ in range(_SWEEPS):
        moved = 0.0
        for effect, row in zip(effects, rows, strict=True):
            change = _means(left, row, count)
            effect += change
            left -= change[row]
            moved = max(moved, float(np.abs(change).max()))
        if moved <= least:
            break
    return mean, effects


def _means(values: Floats, row: Ints, count: int) -> Floats:
    """Mean ``[N, D]`` of the values ``[R, D]`` that each sample was met in."""
    width = values.shape[1]
    where = (row[:, None] * width + np.arange(width)).ravel()
    totals = np.bincount(where, values.ravel(), minlength=count * width).reshape(count, width)
    return np.asarray(totals * (count / len(values)), dtype=np.float64)


def _of_samples(mean: Floats, effects: list[Floats], shape: tuple[int, ...]) -> Floats:
    total: Floats = (mean + sum(effects)).reshape(-1, *shape[1:])
    return total


def _corrected(
    subject: Subject, whole: Floats, outputs: Floats, rows: Ints, shape: tuple[int, ...]
) -> tuple[Floats, float]:
    """Points without the loss that comes from the mixes drawn, and the standard error of their mean."""
    count = len(subject)
    rounds = rows.shape[1] // count
    number, groups = np.repeat(np.arange(rounds), count), min(_GROUPS, rounds)

    def points_from(kept: npt.NDArray[np.bool_]) -> Floats:
        part = _additive(outputs[kept], rows[:, kept], count)
        return subject.points_of(_of_samples(*part, shape))

    left_out = [float(points_from(number * groups // rounds != group).mean()) for group in range(groups)]
    halves = points_from(number % 2 == 0) + points_from(number % 2 == 1)
    return 2 * whole - halves / 2, spread_of_jackknife(left_out)
