"""Linear predictors whose penalty other data choose, and what their score is worth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from equipoise.diagnostics.estimates import plain
from equipoise.diagnostics.scores import Metric, points

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[Any]
Predict = Callable[[Floats], Floats]

PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
_BLOCK = 2**16  # samples looked at together, so that memory stays flat
_IMPOSSIBLE = -30.0  # the logit of a class without a sample to learn from, below any other


@dataclass(frozen=True)
class Score:
    """A score with its error, and what chance reaches.

    Attributes:
        metric: whose mean it is (:func:`equipoise.diagnostics.scores.points`); higher is better.
        value: of all samples.
        low, high: 95 % percentile bootstrap interval over samples, or over groups where these are known.
        chance: its mean over permutations of the targets.
        p: how often a permutation scores as high, the observed one counted too.
        samples: how many were scored.
        groups: in how many groups (videos, speakers) they came; None where that is not known.
        points: ``[N]``, whose mean it is, in the order of the samples. Neither shown nor written.
    """

    metric: Metric
    value: float
    low: float
    high: float
    chance: float
    p: float
    samples: int
    groups: int | None
    points: Floats | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = plain(self)
        return found


def score(
    metric: Metric,
    outputs: Floats,
    target: Targets,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    permutations: int = 999,
    seed: int = 0,
) -> Score:
    """The score of outputs ``[N(, C)]`` on targets ``[N(, R)]`` that they were not fitted to.

    Clips of one video are alike, in features and labels, so that any feature of the video seems to tell something of
    the label. With ``groups`` whole groups are resampled, and a permutation lays the targets group by group, in random
    order, against the outputs group by group: what is alike inside a group stays so on both sides. Without them samples
    are taken for exchangeable.
    """
    each = points(metric, outputs, target)
    random = np.random.default_rng(seed)
    n = len(each)
    member = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    sums, counts = np.bincount(member, weights=each), np.bincount(member)
    even = np.full(len(counts), 1 / len(counts))
    block = max(1, _BLOCK // n)
    drawn = np.empty(resamples)
    for start in range(0, resamples, block):
        times = random.multinomial(len(counts), even, size=min(block, resamples - start))
        drawn[start : start + block] = times @ sums / (times @ counts)
    low, high = np.quantile(drawn, [0.025, 0.975])
    by_chance = np.empty(permutations)
    for start in range(0, permutations, block):
        pairs = [_pairing(member, groups is None, random) for _ in range(min(block, permutations - start))]
        ours, theirs = (np.concatenate(each) for each in zip(*pairs, strict=True))
        each_time = points(metric, outputs[ours], target, theirs).reshape(len(pairs), n)
        by_chance[start : start + block] = each_time.mean(axis=1)
    value = float(each.mean())
    p = float((1 + (by_chance >= value - 1e-12).sum()) / (1 + permutations))
    known = None if groups is None else len(counts)
    return Score(metric, value, float(low), float(high), float(by_chance.mean()), p, n, known, each)


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: the same digits whatever the cores, and matrices this small are no slower."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def standardised(parts: Sequence[Floats], *, together: bool = False) -> list[Floats]:
    """Features of several splits in units of the first one's deviation, around its mean; constant ones left out.

    Args:
        parts: ``[n, d]`` each.
        together: one deviation for all features, the root of their mean variance: of words, rare ones stay small.
    """
    mean, std = parts[0].mean(axis=0), parts[0].std(axis=0)
    kept = std > 1e-9 * np.abs(mean)
    unit = np.sqrt(np.square(std[kept]).mean()) if together and kept.any() else std[kept]
    return [(part[:, kept] - mean[kept]) / unit for part in parts]


def _pairing(
    member: npt.NDArray[Any], exchangeable: bool, random: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whose outputs are laid against whose targets, by chance."""
    n = len(member)
    if exchangeable:
        return np.arange(n), random.permutation(n)
    return _by_group(member, random), np.roll(_by_group(member, random), random.integers(n))


def _by_group(member: npt.NDArray[Any], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """All samples, group by group, groups and samples inside them in random order."""
    return np.lexsort((random.random(len(member)), random.random(member.max() + 1)[member]))


def fit_linear(
    task: str, x: Floats, y: Targets, x_valid: Floats, y_valid: Targets, *, classes: int = 0
) -> tuple[Predict, float]:
    r"""Ridge regression, or logistic regression with an L2 penalty.

    Both minimise a mean over samples, $\frac{1}{n}\sum_i \ell_i + \frac{\lambda}{2} \lVert W \rVert^2$, with
    $\ell = \frac12 \lVert y - \hat y \rVert^2$ or the cross-entropy and a free intercept. Of `PENALTIES`, λ is the one
    with the least $\ell$ on the validation data, the larger of equals. Wide features are first rotated into the space
    that ``x`` spans, which changes no prediction.

    Args:
        task: ``"regression"`` or ``"classification"``.
        x: ``[n, d]``, as `standardised` gives them.
        y: ``[n]`` or ``[n, R]`` values, or ``[n]`` class numbers.
        x_valid: ``[v, d]``.
        y_valid: as ``y``.
        classes: how many there are in all.

    Returns:
        ``x`` to values as ``y``, or to logits ``[n, classes]``; and λ.
    """
    with one_thread():
        rotation = _span(x)
        reduced = x if rotation is None else x @ rotation
        fits = _logistic(reduced, y, classes) if task == "classification" else _ridge(reduced, y)
        valid = x_valid if rotation is None else x_valid @ rotation
        losses = [_loss(task, predict(valid), y_valid) for predict in fits]
    best = int(np.argmin(np.round(losses, 12)))
    return lambda values: fits[best](values if rotation is None else values @ rotation), PENALTIES[best]


def _span(x: Floats) -> Floats | None:
    """``[d, r]``, orthonormal directions outside which the rows of x are zero; None where d is small."""
    n, d = x.shape
    if d <= n:
        return None
    values, vectors = np.linalg.eigh(x @ x.T)
    real = values > values[-1:].clip(min=0) * n * np.finfo(np.float64).eps
    return cast(Floats, x.T @ (vectors[:, real] / np.sqrt(values[real])))


def _ridge(x: Floats, y: Targets) -> list[Predict]:
    offset = y.mean(axis=0)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    told = left.T @ (y - offset).reshape(len(y), -1)
    fits: list[Predict] = []
    for penalty in PENALTIES:
        shrunk = right.T @ ((singular / (np.square(singular) + penalty * len(x)))[:, None] * told)
        fits.append(lambda v, w=shrunk: cast(Floats, (v @ w).reshape(len(v), *y.shape[1:]) + offset))  # type: ignore[misc]
    return fits


def _logistic(x: Floats, y: Targets, classes: int) -> list[Predict]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(y)
    fits: list[Predict] = []
    if len(seen) < 2 or not x.shape[1]:
        rates = np.log(np.bincount(y, minlength=classes).clip(min=1e-12) / len(y))
        return [lambda v: np.tile(rates, (len(v), 1))] * len(PENALTIES)
    model = LogisticRegression(max_iter=300, tol=1e-4, warm_start=True)
    for penalty in PENALTIES:
        model.set_params(C=1 / (penalty * len(x)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that isn't at its end is judged like any other
            model.fit(x, y)
        weights, bias = model.coef_.copy(), model.intercept_.copy()
        if len(seen) == 2:
            weights, bias = np.vstack([0 * weights, weights]), np.append(0.0, bias)

        def predict(v: Floats, w: Floats = weights, b: Floats = bias) -> Floats:
            logits = np.full((len(v), classes), _IMPOSSIBLE)
            logits[:, seen] = np.maximum(v @ w.T + b, _IMPOSSIBLE)
            return logits

        fits.append(predict)
    return fits


def _loss(task: str, outputs: Floats, target: Targets) -> float:
    if task == "classification":
        return -float(points("log_likelihood", outputs, target).mean())
    return float(np.square(outputs - target).mean())
