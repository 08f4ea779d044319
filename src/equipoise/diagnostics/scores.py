"""Scores that are means over samples, higher is better: what each sample adds can be paired, resampled and divided."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Metric = Literal["accuracy", "log_likelihood", "r2", "neg_mae", "acc2_nn"]

_OF_TASK = {"classification": ("accuracy", "log_likelihood"), "regression": ("r2", "neg_mae", "acc2_nn")}


def check_metric(metric: str | None, task: str) -> Metric:
    """The metric, or the task's own: ``accuracy`` or ``r2``.

    Raises:
        ValueError: an unknown task, or a metric of the other one.
    """
    if task not in _OF_TASK:
        raise ValueError(f"Parameter `task` should be 'regression' or 'classification'. Found `task = {task!r}`.")
    name = _OF_TASK[task][0] if metric is None else metric
    if name not in _OF_TASK[task]:
        raise ValueError(
            f"Parameter `metric` should be one of {', '.join(_OF_TASK[task])} for {task}. Found `metric = {metric!r}`."
        )
    return next(each for each in get_args(Metric) if each == name)


def points(
    metric: Metric, outputs: Floats, target: npt.NDArray[Any], rows: npt.NDArray[np.int64] | None = None
) -> Floats:
    r"""What each sample adds to a score: ``[n]``, whose mean is the score.

    - ``accuracy``: 1 where the largest logit is the class's.
    - ``log_likelihood``: the log-probability of the class, in nats; minus the cross-entropy.
    - ``r2``: $1 - (y - \hat y)^2 / \mathrm{Var}(y)$, with the variance over the whole target, not over the rows or a
      resample of them; a mean over outputs where there are several.
    - ``neg_mae``: minus the absolute error, in the target's unit; a mean over outputs.
    - ``acc2_nn``: 1 where prediction and target are both negative, or both not (accuracy of negative against
      non-negative sentiment).

    Args:
        metric: one of these.
        outputs: ``[n]`` or ``[n, R]`` values, or ``[n, C]`` logits.
        target: ``[N]`` or ``[N, R]`` values, or ``[N]`` class numbers, of all samples.
        rows: ``[n]``, the samples that the outputs are of; None for all in order.

    Raises:
        ValueError: outputs of another shape than the target, or an ``r2`` of a constant target.

    >>> points("neg_mae", np.array([1.0, 2.0]), np.array([1.5, 4.0]))
    array([-0.5, -2. ])
    """
    labels = target if rows is None else target[rows]
    expected = labels.shape if metric in _OF_TASK["regression"] else (len(labels), *outputs.shape[1:2])
    if outputs.shape != expected or (metric in _OF_TASK["classification"] and outputs.ndim != 2):
        raise ValueError(f"Parameter `outputs` should fit targets {list(labels.shape)}. Found {list(outputs.shape)}.")
    if metric == "accuracy":
        return _over_outputs(outputs.argmax(axis=1) == labels)
    if metric == "log_likelihood":
        largest = outputs.max(axis=1)
        total = np.log(np.exp(outputs - largest[:, None]).sum(axis=1)) + largest
        likely: Floats = outputs[np.arange(len(labels)), labels] - total
        return likely
    if metric == "acc2_nn":
        return _over_outputs((outputs >= 0) == (labels >= 0))
    if metric == "neg_mae":
        return _over_outputs(-np.abs(outputs - labels))
    variance = target.astype(np.float64).var(axis=0)
    if not np.all(variance > 0):
        raise ValueError("Parameter `target` should vary for `metric = 'r2'`. Found a constant: use 'neg_mae'.")
    return _over_outputs(1 - np.square(outputs - labels) / variance)


def _over_outputs(values: npt.NDArray[Any]) -> Floats:
    flat: Floats = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return flat
