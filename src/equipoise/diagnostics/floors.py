"""What the data tell before any training: leaks, labels, and how far a line gets with each modality."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from equipoise.data import DataError, Dataset
from equipoise.data.leakage import Leakage, check_leakage
from equipoise.diagnostics._linear import Score, fit_linear, score, standardised
from equipoise.diagnostics._pooling import pooled, words_of
from equipoise.diagnostics.scores import Metric, check_metric
from equipoise.metrics import evaluate_metrics

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Balance:
    """The labels of one split.

    Attributes:
        samples: in it.
        classes: ``[C]`` counts; None for regression.
        largest: share of the most frequent class, which a constant answer gets right; None for regression.
        mean, std: of the labels, a number for each target; None for classification.
        shift: how far it is from the training split: half the summed difference of the shares of classes (0 to 1), or
            the difference of means in training deviations, the largest over targets. 0 for training itself.
    """

    samples: int
    classes: list[int] | None
    largest: float | None
    mean: list[float] | None
    std: list[float] | None
    shift: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Floor:
    """How far a linear predictor gets with pooled features: fitted on train, chosen on valid, scored on another split.

    Attributes:
        score: on the scored split, against chance.
        metrics: of the task there, as for any model.
        penalty: λ, chosen on the validation split, or on a fifth of train where that is scored or missing.
        width: pooled features.
        trained_on: samples.
    """

    score: Score
    metrics: dict[str, float]
    penalty: float
    width: int
    trained_on: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        metrics = {name: None if value != value else value for name, value in self.metrics.items()}
        return {
            **self.score.to_dict(),
            "metrics": metrics,
            "penalty": self.penalty,
            "width": self.width,
            "trained_on": self.trained_on,
        }


@dataclass(frozen=True)
class DataReport:
    """What the data tell before any training.

    Attributes:
        leakage: what splits share; None where it was not looked for.
        balance: ``{split: Balance}``.
        floors: by modality, and of all joined by ``+``.
        constant: the task's metrics of a constant answer on the scored split: the mean label, or the shares of the
            classes, in training.
    """

    leakage: Leakage | None
    balance: dict[str, Balance]
    floors: dict[str, Floor]
    constant: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "leakage": None if self.leakage is None else self.leakage.to_json(),
            "balance": {name: each.to_dict() for name, each in self.balance.items()},
            "floors": {name: each.to_dict() for name, each in self.floors.items()},
            "constant": {name: None if value != value else value for name, value in self.constant.items()},
        }


def data_report(
    dataset: Dataset,
    modalities: Sequence[str] | None = None,
    *,
    split: str = "test",
    metric: Metric | None = None,
    leakage: bool = True,
    most: int = 5000,
    seed: int = 0,
    progress: Progress | None = None,
) -> DataReport:
    """Leaks, balance of labels, and a linear floor for each modality and for all together.

    A modality is pooled: the means of four equal parts of each sequence and the deviation over all of it. Text without
    features is a bag of words. A ridge or logistic regression learns from the training split; the validation split
    chooses its penalty, or a fifth of the training split that is then not learned from, where there is no validation
    split or where it is the one to score. What is scored is read once. A floor near chance doesn't prove that nothing
    is there: order within a sequence, and all that takes more than a line to see, is beyond it.

    Args:
        dataset: with a training split.
        modalities: those to look at; None for all, with the transcripts where there are any.
        split: to score them on, not the one they are learned from.
        metric: of the score; None for ``r2`` or ``accuracy``.
        leakage: look for it, which reads all features once more.
        most: training samples to learn from; of more, so many are drawn.
        seed: of draws, resamples and permutations.
        progress: told of steps done (the leakage check and each floor), and of how many there are.

    Raises:
        DataError: no such split, an unknown modality, or floors asked for on the training split.
    """
    name = check_metric(metric, dataset.manifest.task)
    if not {"train", split} <= set(dataset.splits):
        raise DataError(f"The dataset should have a train and a {split} split. Found {', '.join(dataset.splits)}.")
    words = _word_names(dataset)
    names = list(dict.fromkeys([*words, *dataset.modalities]) if modalities is None else modalities)
    if unknown := [each for each in names if each not in {*words, *dataset.modalities}]:
        raise DataError(f"The dataset has no modality {unknown[0]!r}. It has: {', '.join(dataset.modalities)}.")
    if names and split == "train":
        raise DataError("A floor is learned on the training split. Score it on another, or ask for no modality.")
    joined = ["+".join(names)] if len(names) > 1 else []
    steps = int(leakage) + len(names) + len(joined)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    leaks = check_leakage(dataset) if leakage else None
    if leakage:
        step()
    train, valid, scored = _rows(dataset, split, most, seed)
    features: dict[str, list[Floats]] = {}
    floors: dict[str, Floor] = {}
    for each in [*names, *joined]:
        if each in joined:
            x = [np.hstack(parts) for parts in zip(*features.values(), strict=True)]
        elif each in words:
            x = standardised(words_of(dataset, [train, valid, scored]), together=True)
        else:
            x = standardised([pooled(dataset, each, rows) for rows in (train, valid, scored)])
        features[each] = x
        floors[each] = _floor(dataset, name, x, [train, valid, scored], seed)
        step()
    return DataReport(leaks, label_balance(dataset), floors, _constant(dataset, dataset.rows("train"), scored))


def label_balance(dataset: Dataset) -> dict[str, Balance]:
    """The labels of each split, and how far they are from those of training."""
    rows = {name: dataset.labels[dataset.rows(name)] for name in dataset.splits}
    if dataset.manifest.task == "classification":
        counts = {name: np.bincount(y, minlength=dataset.manifest.labels.outputs) for name, y in rows.items()}
        shares = {name: count / count.sum() for name, count in counts.items()}
        return {
            name: Balance(
                len(y),
                counts[name].tolist(),
                float(shares[name].max()),
                None,
                None,
                float(np.abs(shares[name] - shares["train"]).sum() / 2),
            )
            for name, y in rows.items()
        }
    values = {name: y.reshape(len(y), -1).astype(np.float64) for name, y in rows.items()}
    mean, std = values["train"].mean(axis=0), values["train"].std(axis=0)
    unit = np.where(std > 0, std, 1.0)
    return {
        name: Balance(
            len(y),
            None,
            None,
            y.mean(axis=0).tolist(),
            y.std(axis=0).tolist(),
            float(np.abs((y.mean(axis=0) - mean) / unit).max()),
        )
        for name, y in values.items()
    }


def _word_names(dataset: Dataset) -> list[str]:
    """``["text"]`` where transcripts are all that the dataset has of text, or nearly (token ids)."""
    if dataset.texts is None:
        return []
    info = dataset.manifest.modalities.get("text")
    return ["text"] if info is None or info.dim == 0 else []


def _rows(dataset: Dataset, split: str, most: int, seed: int) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(seed)
    train = dataset.rows("train")
    if len(train) > most:
        train = np.sort(random.choice(train, most, replace=False))
    if "valid" in dataset.splits and split != "valid":
        return train, dataset.rows("valid"), dataset.rows(split)
    order = random.permutation(train)
    return np.sort(order[len(train) // 5 :]), np.sort(order[: len(train) // 5]), dataset.rows(split)


def groups_of(dataset: Dataset, rows: Array) -> list[str] | None:
    """The video of each row, or else the speaker; a row of which neither is known is a group by itself.

    Args:
        dataset: that knows them, or not: then None.
        rows: ``[n]`` row numbers.
    """
    names = dataset.groups or dataset.speakers
    return None if names is None else [names[row] or f"\0{row}" for row in rows]


def _floor(dataset: Dataset, metric: Metric, x: Sequence[Floats], rows: Sequence[Array], seed: int) -> Floor:
    task, info = dataset.manifest.task, dataset.manifest.labels
    y = [dataset.labels[each] for each in rows]
    classes = info.outputs if task == "classification" else 0
    predict, penalty = fit_linear(task, x[0], y[0], x[1], y[1], classes=classes)
    outputs = predict(x[2])
    groups = groups_of(dataset, rows[2])
    found = score(metric, outputs, y[2], groups=groups, seed=seed)
    return Floor(found, _metrics(dataset, outputs, y[2]), penalty, x[0].shape[1], len(x[0]))


def _constant(dataset: Dataset, train: Array, test: Array) -> dict[str, float]:
    y, target = dataset.labels[train], dataset.labels[test]
    if dataset.manifest.task == "classification":
        counts = np.bincount(y, minlength=dataset.manifest.labels.outputs)
        answer = np.log(counts.clip(min=1e-12) / len(y))
    else:
        answer = y.mean(axis=0)
    return _metrics(dataset, np.broadcast_to(answer, (len(target), *np.shape(answer))), target)


def _metrics(dataset: Dataset, outputs: Floats, target: Array) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a metric may be undefined here, and is NaN then
        return evaluate_metrics(
            dataset.manifest.task,
            torch.from_numpy(np.array(outputs)),
            torch.from_numpy(np.array(target)),
            scale=dataset.manifest.labels.scale,
        )
