"""Trimodal utterances whose truth is known, made in a moment: the embedded default dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from statistics import NormalDist
from typing import TypeVar

import numpy as np

from equipoise.data.dataset import Dataset
from equipoise.data.errors import DataError
from equipoise.data.manifest import SCALE_RANGES, SPLITS, Scale, Task
from equipoise.data.truth import bayes_r2
from equipoise.data.utterances import bumps, sequences, transcripts
from equipoise.data.writer import write_dataset

# Text is strong and fast, audio and vision are informative and slow. Other names get the last entry.
ALONE = {"text": 0.35, "audio": 0.15, "vision": 0.15, "": 0.15}
SPEED = {"text": 1.0, "audio": 0.15, "vision": 0.12, "": 0.15}
FEATURE_NOISE = {"text": 0.5, "audio": 0.2, "vision": 0.2, "": 0.2}
DIMS = {"text": 32, "audio": 16, "vision": 16, "": 16}
LENGTHS = {"text": (5, 25), "audio": (15, 50), "vision": (10, 40), "": (10, 40)}

SPREAD = 1.2  # standard deviation of a regression label: 1.2 % of them are cut at -3 or 3
LEAST_DIM = 4  # three directions of latents and a nuisance

Value = TypeVar("Value")


def synthetic(
    path: str | PathLike[str],
    *,
    n: int = 1200,
    splits: tuple[int, int, int] | None = None,
    seed: int = 0,
    modalities: Sequence[str] = ("text", "audio", "vision"),
    task: Task = "regression",
    scale: Scale = "mosi",
    alone: Mapping[str, float] | None = None,
    shared: float = 0.15,
    synergy: float = 0.05,
    noise: float = 0.15,
    speed: Mapping[str, float] | None = None,
    feature_noise: Mapping[str, float] | None = None,
    dims: Mapping[str, int] | None = None,
    lengths: Mapping[str, tuple[int, int]] | None = None,
    aligned: bool = False,
    classes: int = 3,
    text: bool = False,
    dataset_name: str = "synthetic",
    overwrite: bool = False,
) -> Dataset:
    r"""Generate a dataset of utterances and write it to ``path``.

    Every utterance draws independent latents of unit variance, and its label follows

    .. math::
        z = \sum_m \sqrt{\alpha_m}\, a_m + \sqrt{\beta}\, s + \sqrt{\gamma}\, q_1 q_2 + \sqrt{\nu}\, e

    - :math:`a_m`, normal: in modality m only; :math:`\alpha_m` is ``alone[m]``
    - :math:`s`, normal: in every modality; :math:`\beta` is ``shared``
    - :math:`q_m`, a random sign in modality m: the product of those of the first two modalities has the share
      :math:`\gamma`, ``synergy``; one sign alone is independent of the label
    - :math:`e`, normal: in no modality; :math:`\nu` is ``noise``

    The shares are divided by their sum, so each is its part of the variance of z. A regression label is 1.2 z, cut to
    [-3, 3], or a third of that; a class is the interval that z falls into, of intervals equally probable under the
    normal distribution.

    Frame t of modality m is

    .. math::
        x_t = g_t\, v_m\, (a_m w_1 + s w_2 + q_m w_3) + \sum_{j \le 8} n_j u_j + \sigma_m \varepsilon_t

    with orthonormal directions w and u, fixed for a dataset and oblique to the features (so that standardising these
    doesn't undo what follows), a wave :math:`g_t` of mean 1, normal nuisances :math:`n_j` constant over an utterance,
    and white noise :math:`\varepsilon`.

    - :math:`v_m`, ``speed[m]``: how large the latents show beside nuisances of size 1. Gradient descent learns along a
      direction at a rate that grows with the variance in it (in proportion, for a linear model), so a modality of speed
      .3 is learned about ten times slower than one of speed 1, though as much is in it.
    - :math:`\sigma_m`, ``feature_noise[m]``: what hides the latents. ``manifest.extra["truth"]["bayes_r2"]`` holds the
      best R² on z that any model can reach from each subset of the modalities.

    Args:
        path: the directory to make.
        n: utterances, at least 10: 70 % train, 10 % valid, 20 % test.
        splits: utterances of each split, each at least 1, instead of ``n``.
        seed: equal seeds give equal bytes.
        modalities: their names. What ``alone``, ``speed``, ``feature_noise``, ``dims`` or ``lengths`` leave out has its
            default.
        task: ``regression`` or ``classification``.
        scale: of regression labels, ``mosi`` in [-3, 3] or ``sims`` in [-1, 1].
        dims: features a frame, at least 4.
        lengths: least and greatest number of frames; drawn evenly.
        aligned: all modalities of an utterance have the frames of the first one's.
        classes: number of classes.
        text: also write transcripts that tell the latents of the first modality, in words.
        dataset_name: its name in tables, where it is called synthetic as well.
        overwrite: replace a dataset that is there.

    Returns:
        The dataset. ``array("latents")`` is ``[N, 2 K + 3]``; ``manifest.extra["truth"]`` names its columns.

    Raises:
        DataError: a setting is out of its range.
    """
    names = tuple(modalities)
    n = n if splits is None else sum(splits)
    least = 10 if splits is None else 3
    splits = splits or (round(0.7 * n), round(0.1 * n), n - round(0.7 * n) - round(0.1 * n))
    if min(splits) < 1 and n >= least:
        raise DataError(f"Parameter `splits` should hold numbers of at least 1. Found {splits}.")
    if n < least or seed < 0 or classes < 2 or not names or len(set(names)) < len(names):
        raise DataError(
            f"Parameters `n`, `seed`, `classes` should be at least {least}, 0 and 2, and `modalities` distinct. "
            f"Found {n}, {seed}, {classes} and {', '.join(names) or 'none'}."
        )
    weights = _complete("alone", alone, ALONE, names)
    speeds = _complete("speed", speed, SPEED, names)
    noises = _complete("feature_noise", feature_noise, FEATURE_NOISE, names)
    widths = _complete("dims", dims, DIMS, names)
    spans = _complete("lengths", lengths, LENGTHS, names)
    shares = {f"alone_{name}": weights[name] for name in names} | {"shared": shared, "synergy": synergy, "noise": noise}
    _check_shares(shares, names)
    for name in names:
        if widths[name] < LEAST_DIM or not 1 <= spans[name][0] <= spans[name][1]:
            raise DataError(
                f"Modality `{name}` should have `dims` of at least {LEAST_DIM} and `lengths` that rise from 1 on. "
                f"Found {widths[name]} and {spans[name]}."
            )
        if speeds[name] < 0 or noises[name] <= 0:
            raise DataError(
                f"Modality `{name}` should have a non-negative `speed` and a positive `feature_noise`. "
                f"Found {speeds[name]} and {noises[name]}."
            )
    total = sum(shares.values())
    shares = {key: share / total for key, share in shares.items()}

    random = np.random.default_rng([seed, 0])
    columns = [*(f"alone_{name}" for name in names), "shared", "noise", *(f"sign_{name}" for name in names), "score"]
    latents = random.standard_normal((n, len(columns)))
    z = dict(zip(columns, latents.T, strict=True))  # views
    for name in names:
        np.copysign(1.0, z[f"sign_{name}"], out=z[f"sign_{name}"])
    synergies = z[f"sign_{names[0]}"] * z[f"sign_{names[1]}"] if len(names) > 1 else np.zeros(n)
    z["score"][:] = sum(np.sqrt(part) * (synergies if key == "synergy" else z[key]) for key, part in shares.items())

    frames, precisions, texts, first = {}, {}, None, np.zeros(0, dtype=np.int64)
    for k, name in enumerate(names, start=1):
        own = np.random.default_rng(
            [seed, k]
        )  # one each, so that a setting of one modality leaves the others as they are
        counts = own.integers(spans[name][0], spans[name][1], endpoint=True, size=n)
        first = counts if k == 1 else first
        counts = first if aligned else counts
        waves = bumps(own, counts)
        signals = np.stack([z[f"alone_{name}"], z["shared"], z[f"sign_{name}"]], axis=1)
        if text and k == 1:
            told = z[f"alone_{name}"], z["shared"], z[f"sign_{name}"]
            texts = transcripts(np.random.default_rng([seed, 0, 0]), *told, counts)
        frames[name] = sequences(own, signals * speeds[name], counts, waves, widths[name], noises[name])
        energy = np.add.reduceat(np.square(waves, dtype=np.float64), np.cumsum(counts) - counts)
        precisions[name] = energy * (speeds[name] / noises[name]) ** 2

    cuts = [NormalDist().inv_cdf(i / classes) for i in range(1, classes)]
    values = np.clip(SPREAD * z["score"], -3, 3) * (SCALE_RANGES[scale][1] / 3)
    labels = values if task == "regression" else np.searchsorted(cuts, z["score"])
    truth = {
        "shares": shares,
        "columns": columns,
        "synergy_of": list(names[:2]) if len(names) > 1 else [],
        "bayes_r2": bayes_r2(shares, names[:2], precisions),
        "speed": speeds,
        "feature_noise": noises,
        "seed": seed,
    }
    return write_dataset(
        path,
        name=dataset_name,
        source="synthetic",
        synthetic=True,
        task=task,
        modalities=frames,
        labels=labels,
        classes=None if task == "regression" else [f"class {i}" for i in range(classes)],
        scale=scale if task == "regression" else None,
        ids=[f"utterance {i:06d}" for i in range(n)],
        splits=[split for split, count in zip(SPLITS, splits, strict=True) for _ in range(count)],
        texts=texts,
        extractor=dict.fromkeys(names, "synthetic"),
        extra={"truth": truth},
        arrays={"latents": latents},
        overwrite=overwrite,
    )


def _complete(
    what: str, given: Mapping[str, Value] | None, defaults: Mapping[str, Value], names: Sequence[str]
) -> dict[str, Value]:
    unknown = sorted(set(given or {}) - set(names))
    if unknown:
        raise DataError(f"Parameter `{what}` should name modalities ({', '.join(names)}). Found {', '.join(unknown)}.")
    return {name: (given or {}).get(name, defaults.get(name, defaults[""])) for name in names}


def _check_shares(shares: Mapping[str, float], names: Sequence[str]) -> None:
    for key, share in shares.items():
        if not 0 <= share < float("inf"):
            raise DataError(f"Share `{key}` should be non-negative and finite. Found {share}.")
    if sum(shares.values()) == 0:
        raise DataError("The shares of the label should not all be 0. Give `alone`, `shared`, `synergy` or `noise`.")
    if shares["synergy"] and len(names) < 2:
        raise DataError("Parameter `synergy` should be 0 with a single modality: it needs a combination of two.")
