"""What can be read off a representation with a line, and how it looks in two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.diagnostics._linear import Score, fit_linear, one_thread, score, standardised
from equipoise.diagnostics.scores import Metric, check_metric, points

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

LEAST = 40


@dataclass(frozen=True)
class Probe:
    """A linear probe of one representation.

    Attributes:
        score: out of fold, over all samples.
        by_fold: the score of each fold.
        width: of the representation.
        penalties: λ of each fold.
    """

    score: Score
    by_fold: tuple[float, ...]
    width: int
    penalties: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **self.score.to_dict(),
            "by_fold": list(self.by_fold),
            "width": self.width,
            "penalties": list(self.penalties),
        }


@dataclass(frozen=True)
class Map:
    """Samples in the plane.

    Attributes:
        points: ``[n, 2]``; only who is near whom means something.
        rows: ``[n]`` sample numbers, ascending.
        perplexity: as used.
    """

    points: Floats
    rows: npt.NDArray[np.int64]
    perplexity: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"points": self.points.tolist(), "rows": self.rows.tolist(), "perplexity": self.perplexity}


def linear_probe(
    x: Floats,
    target: npt.NDArray[Any],
    task: str,
    *,
    metric: Metric | None = None,
    groups: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Probe:
    """How well a linear predictor does on held-out samples of a representation.

    Each fold is predicted by a ridge or logistic regression (:func:`equipoise.diagnostics._linear.fit_linear`) on the
    others, the next of which chooses the penalty. Folds are alike in their targets. With ``groups`` each group is in
    one fold: else a representation gains from telling speakers apart.

    Args:
        x: ``[N, d]``, of data that the model was not trained on.
        target: ``[N]`` or ``[N, R]`` values, or ``[N]`` class numbers.
        task: ``"regression"`` or ``"classification"``.
        metric: of the score; None for ``r2`` or ``accuracy``.
        groups: ``[N]``, the video or speaker of each sample, where that is known.
        folds: 3 to N, or to the number of groups.
        seed: of folds and resamples.

    Raises:
        ValueError: shapes or a number of folds that do not fit, or values that are not finite.
    """
    name = check_metric(metric, task)
    if x.ndim != 2 or len(x) != len(target):
        raise ValueError(f"Parameter `x` should be [{len(target)}, d], as the targets. Found {list(x.shape)}.")
    units = np.arange(len(x)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if len(units) != len(x) or not 3 <= folds <= units.max() + 1:
        found = f"`folds = {folds}` for {len(x)} samples and {units.max() + 1} groups of {len(units)}"
        raise ValueError(f"Parameter `folds` should be 3 or more, and at most one a group of samples. Found {found}.")
    if not np.isfinite(x).all():
        raise ValueError("Parameter `x` should be finite. Found NaN or infinity: the model's outputs have diverged.")
    x = x.astype(np.float64)
    fold = _folds(target, units, folds, seed)
    classes = int(target.max()) + 1 if task == "classification" else 0
    outputs = np.zeros((len(x), classes) if task == "classification" else target.shape)
    penalties = []
    for number in range(folds):
        held, choosing = fold == number, fold == (number + 1) % folds
        rest = ~held & ~choosing
        known, chosen, unseen = standardised([x[rest], x[choosing], x[held]])
        predict, penalty = fit_linear(task, known, target[rest], chosen, target[choosing], classes=classes)
        outputs[held] = predict(unseen)
        penalties.append(penalty)
    whole = score(name, outputs, target, groups=groups, seed=seed)
    each = points(name, outputs, target)
    by_fold = tuple(float(each[fold == number].mean()) for number in range(folds))
    return Probe(whole, by_fold, x.shape[1], tuple(penalties))


def enough_to_probe(samples: int, groups: Sequence[str] | None, *, folds: int = 5) -> bool:
    """Whether a probe can be expected to say something: 40 samples, and a group of them for each fold."""
    return samples >= LEAST and (groups is None or len(set(groups)) >= folds)


def linear_probes(
    found: Mapping[str, Floats],
    target: npt.NDArray[Any],
    task: str,
    *,
    metric: Metric | None = None,
    groups: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Probe]:
    """:func:`linear_probe` of each representation by name, on the same folds: their order can be compared.

    Args:
        found: as :func:`equipoise.diagnostics.latents.representations` gives them; the rest as `linear_probe`.
        target: of the samples.
        task: ``"regression"`` or ``"classification"``.
        metric: of the score.
        groups: ``[N]``, where they are known.
        folds: 3 to N.
        seed: of folds and resamples.
        progress: told of representations done, and of how many there are.
    """
    probes = {}
    for done, (name, x) in enumerate(found.items(), start=1):
        probes[name] = linear_probe(x, target, task, metric=metric, groups=groups, folds=folds, seed=seed)
        if progress is not None:
            progress(done, len(found))
    return probes


def tsne(x: Floats, *, perplexity: float = 30.0, most: int = 1000, seed: int = 0) -> Map:
    """t-SNE of a representation (van der Maaten and Hinton, 2008), as scikit-learn computes it.

    It starts from the first two principal components, so a seed gives one picture (on one kind of machine) and two
    models' pictures begin alike. Of more than ``most`` samples that many are drawn; the same ones for every
    representation of as many samples.

    Args:
        x: ``[N, d]``, at least 4 rows.
        perplexity: neighbours that count, about; at most a third of the samples.
        most: samples in the picture.
        seed: of the draw and of t-SNE.

    Raises:
        ValueError: fewer than 4 rows, or values that are not finite.
    """
    if x.ndim != 2 or len(x) < 4 or not np.isfinite(x).all():
        raise ValueError(f"Parameter `x` should be finite, [N, d] with N of at least 4. Found {list(x.shape)}.")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.arange(len(x))
    if len(x) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(x), most, replace=False))
    chosen = x[rows].astype(np.float64)
    near = min(perplexity, (len(rows) - 1) / 3)
    centred = chosen - chosen.mean(axis=0)
    if np.abs(centred).max() <= 1e-12 * max(1.0, np.abs(chosen).max()):
        return Map(np.zeros((len(rows), 2)), rows, near)  # a dead representation: all samples are one point
    if x.shape[1] == 1:
        chosen = np.hstack([chosen, np.zeros_like(chosen)])
    with one_thread():
        if min(chosen.shape) > 50:
            chosen = PCA(50, svd_solver="full").fit_transform(chosen)
        drawn = TSNE(perplexity=near, init="pca", random_state=seed, n_jobs=1).fit_transform(chosen)
    return Map(drawn.astype(np.float64), rows, near)


def _folds(target: npt.NDArray[Any], units: npt.NDArray[Any], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each sample: units are dealt out in the order of their mean (first) target, ties at random."""
    first = target.reshape(len(target), -1)[:, 0]
    mean = np.bincount(units, weights=first) / np.bincount(units)
    ties = np.random.default_rng(seed).permutation(len(mean))
    fold = np.empty(len(mean), dtype=np.int64)
    fold[np.lexsort((ties, mean))] = np.arange(len(mean)) % folds
    dealt: npt.NDArray[np.int64] = fold[units]
    return dealt
