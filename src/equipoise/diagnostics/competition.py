"""Competition strength: how far a modality is, inside a joint model, from what it is when it learns alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from equipoise.data import Split
from equipoise.diagnostics._linear import one_thread
from equipoise.diagnostics.latents import FUSED, representations
from equipoise.functional.statistics import percentile_interval

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Form = Literal["residual", "whitened"]

RELEASED_RIDGE = 120.0
_GRID = np.logspace(-6, 3, 19)  # in units of the mean square of a latent's feature


@dataclass(frozen=True)
class Competition:
    r"""The competition strength of one modality.

    Attributes:
        strength: $d^m$, the mean over half-splits: 0 where the latent tells the concept, 1 where it tells nothing of
            it, a little above 1 where the probe errs more than the mean does. NaN for a concept that never changes.
        low, high: 95 % interval over half-splits and over the samples of the half that is scored. The probe's half is
            not drawn again: with few samples its errors raise the strength (by .09 for 60 samples where two features
            explain half of the concept, by .02 for 400). Nor is anything trained again: a concept from another seed
            may lie outside.
        spread: standard deviation over half-splits.
        form: ``"residual"`` or ``"whitened"``.
        penalty: of the ridge regression, as given; the median over half-splits where it was chosen.
        samples: N, half of which fit the probe.
        width: of the latent.
    """

    strength: float
    low: float
    high: float
    spread: float
    form: Form
    penalty: float
    samples: int
    width: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN is None."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def competition_strength(
    latent: Floats,
    concept: Floats,
    *,
    form: Form = "residual",
    penalty: float | None = None,
    splits: int = 20,
    resamples: int = 1000,
    seed: int = 0,
) -> Competition:
    r"""How much of a mono-modal concept cannot be read off the joint model's last latent with a line.

    From [Boosting Multi-modal Model Performance with Adaptive Gradient Modulation](https://arxiv.org/abs/2308.07686)
    (Li et al., ICCV 2023), Eqs. 11 to 13:

    $$
    f^m(z) = W z + b, \qquad
    (W, b) = \arg\min \sum_i \lVert f^m(z_i) - C^m_i \rVert^2 + \lambda \lVert W \rVert^2, \qquad
    d^m = \frac{\sum_j \lVert C^m_j - f^m(z_j) \rVert^2}{\sum_j \lVert C^m_j - \bar C^m \rVert^2}
    $$

    - $i$ runs over one half of the samples, $j$ over the other; the paper has two hold-out sets.
    - λ: the paper names no value, prints norms that are not squared, and penalises b as well. Here b is free, and λ is
      chosen on the first half alone, by leave-one-out error.
    - ``form="whitened"`` is what the released code is said to compute (read at second hand: its own file was not to be
      had), $\mathrm{tr}(E S^{+} E^\top) / r$ with λ = 120, where the rows of E are the residuals, S is the scatter
      matrix of the concept and r its rank. Directions of the concept then count alike, however small. For one
      output it is Eq. 13.

    A strength near 1 says that the latent lacks the concept, not that this is a loss: a concept that knows nothing of
    the target is noise, and nobody should carry it. Look at the concept's own score beside it.

    Args:
        latent: z, ``[N, d]``, of samples that neither model was trained on.
        concept: what the model of the modality alone says of the same samples, ``[N]`` or ``[N, C]``.
        form: ``"residual"`` (Eq. 13) or ``"whitened"``.
        penalty: λ; None to choose it, or for ``"whitened"`` 120.
        splits: how often the samples are halved at random.
        resamples: of the interval.
        seed: of halves and resamples.

    Raises:
        ValueError: shapes that do not fit, fewer than 8 samples, values that are not finite, an unknown form, a
            negative penalty, or no splits.
    """
    x, y = _checked(latent, concept, form, penalty, splits, resamples)
    if form == "whitened" and penalty is None:
        penalty = RELEASED_RIDGE
    random = np.random.default_rng(seed)
    each, penalties, drawn = np.empty(splits), np.empty(splits), []
    with one_thread():
        for number in range(splits):
            order = random.permutation(len(x))
            fitted, scored = order[: len(x) // 2], order[len(x) // 2 :]
            residual, penalties[number] = _residual(x[fitted], y[fitted], x[scored], y[scored], penalty)
            n, times = len(scored), len(range(number, resamples, splits))
            each[number] = _ratios(residual, y[scored], form, np.ones((1, n)))[0]
            counts = random.multinomial(n, np.full(n, 1 / n), size=times)
            drawn.append(_ratios(residual, y[scored], form, counts))
    low, high = percentile_interval(torch.from_numpy(np.concatenate(drawn)))
    return Competition(
        float(each.mean()),
        low,
        high,
        float(each.std(ddof=1)) if splits > 1 else math.nan,
        form,
        float(np.median(penalties)),
        len(x),
        x.shape[1],
    )


def competition_by_epoch(
    model: nn.Module,
    states: Iterable[Mapping[str, Tensor]],
    split: Split,
    concepts: Mapping[str, Floats],
    *,
    at: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[dict[str, Competition]]:
    """The competition strength of every modality at each state of the joint model (AGM, Fig. 2).

    All states share concepts, halves and resamples, so that what differs is the latent.

    Args:
        model: of the states; it is left as it was.
        states: ``state_dict``s in order, read one at a time; ``[model.state_dict()]`` for a trained model.
        split: the samples of ``concepts``.
        concepts: ``{m: [N] or [N, C]}``, as :func:`equipoise.diagnostics.concepts.mono_modal_concepts` gives them.
        at: the name of the submodule whose input is the last latent, instead of the rule of
            :func:`equipoise.diagnostics.latents.last_latent`.
        progress: told of states done, and of how many there are where that is known, else 0.
        options: of :func:`competition_strength`.

    Raises:
        ValueError: as `competition_strength`.
    """
    net = deepcopy(model)
    total = len(states) if isinstance(states, Sequence) else 0
    found = []
    for done, state in enumerate(states, start=1):
        net.load_state_dict(state)
        where = None if at is None else net.get_submodule(at)
        z = representations(net, split, pairs=False, at=where)[FUSED]
        found.append({name: competition_strength(z, concept, **options) for name, concept in concepts.items()})
        if progress is not None:
            progress(done, total)
    return found


def _residual(x: Floats, y: Floats, x_scored: Floats, y_scored: Floats, penalty: float | None) -> tuple[Floats, float]:
    """What ridge regression on the one half leaves of the other ``[n, C]``, and its λ."""
    mean, offset = x.mean(axis=0), y.mean(axis=0)
    left, singular, right = np.linalg.svd(x - mean, full_matrices=False)
    told, power = left.T @ (y - offset), np.square(singular)
    if penalty is None:
        scale = max(power.sum() / x.shape[1], np.finfo(np.float64).tiny)
        errors = []
        for share in _GRID:
            kept = power / (power + share * scale)
            leverage = np.square(left) @ kept + 1 / len(x)
            missed = (y - offset - left @ (kept[:, None] * told)) / (1 - leverage).clip(min=1e-12)[:, None]
            errors.append(np.square(missed).sum())
        penalty = float(_GRID[int(np.argmin(errors))] * scale)
    if penalty == 0:
        inverse = np.where(singular > singular[:1] * max(x.shape) * np.finfo(np.float64).eps, 1 / singular, 0.0)
    else:
        inverse = singular / (power + penalty)
    weights = right.T @ (inverse[:, None] * told)
    return cast(Floats, y_scored - offset - (x_scored - mean) @ weights), penalty


def _ratios(residual: Floats, said: Floats, form: Form, counts: npt.NDArray[Any]) -> Floats:
    """``[R]``: the strength where sample i counts ``counts[r, i]`` times."""
    around = said - said.mean(axis=0)
    if not np.abs(around).max() > 1e-12 * np.abs(said).max():
        return np.full(len(counts), np.nan)
    if form == "whitened":
        # Once for all resamples: where rows repeat and outputs are many, the inverse of their scatter is far too large.
        values, vectors = np.linalg.eigh(around.T @ around)
        real = values > values[-1] * len(values) * np.finfo(np.float64).eps
        white = vectors[:, real] / np.sqrt(values[real])
        around, residual = around @ white, residual @ white
    mean = counts @ around / counts.sum(axis=1, keepdims=True)
    total = counts @ np.square(around).sum(axis=1) - counts.sum(axis=1) * np.square(mean).sum(axis=1)
    left = counts @ np.square(residual).sum(axis=1)
    return cast(Floats, np.where(total > 0, left / np.where(total > 0, total, 1), np.nan))


def _checked(
    latent: Floats, concept: Floats, form: str, penalty: float | None, splits: int, resamples: int
) -> tuple[Floats, Floats]:
    x, y = np.asarray(latent, np.float64), np.asarray(concept, np.float64)
    if x.ndim != 2 or len(x) != len(y) or len(x) < 8 or y.ndim > 2:
        raise ValueError(
            "Parameters `latent` and `concept` should be [N, d] and [N] or [N, C], with N of at least 8. "
            f"Found {list(x.shape)} and {list(y.shape)}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Parameters `latent` and `concept` should be finite. Found NaN or infinity.")
    if form not in ("residual", "whitened"):
        raise ValueError(f'Parameter `form` should be "residual" or "whitened". Found `form = {form!r}`.')
    if penalty is not None and not penalty >= 0:
        raise ValueError(f"Parameter `penalty` should be non-negative. Found `penalty = {penalty}`.")
    if splits < 1 or resamples < 1:
        raise ValueError(
            "Parameters `splits` and `resamples` should be 1 or more. "
            f"Found `splits = {splits}`, `resamples = {resamples}`."
        )
    return x, y.reshape(len(y), -1)
