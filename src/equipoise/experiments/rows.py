"""One finished training as a row of a comparison: what the statistics read, and nothing else."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Role = Literal["method", "plain", "multi_loss", "alone", "ensemble"]

SIMS_CUTS = {"acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}


@dataclass(frozen=True, slots=True)
class Row:
    """A cell of the grid: one dataset, model, method and seed.

    Attributes:
        dataset: its name.
        model: its name.
        method: what is compared; the name stands in every table.
        seed: of the training.
        role: a ``"method"``, or one of the controls: ``"plain"`` (no balancing), ``"multi_loss"`` (plain, with every
            modality's own loss added), ``"alone"`` (one modality), ``"ensemble"`` (of the modalities alone).
        metrics: figures of the test split; NaN where one is undefined.
        scores: ``{metric: one value a sample}`` for those metrics that are means over samples; NaN where a sample does
            not count (a label of 0 under ``acc2_pn``).
        samples: ids in the order of the scores.
        path: the run directory, for whoever wants to trace a figure.
        trials: settings tried on validation data before this one, itself included; None where not known.
        marks: what must stand beside every figure: ``"synthetic data"``, ``"splits leak"``.
        against: methods (of role ``"plain"`` and ``"multi_loss"``) that it is judged by; none named: of each role the
            one called after it, ``"plain (METHOD)"``, or else the first.
    """

    dataset: str
    model: str
    method: str
    seed: int
    role: Role = "method"
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    path: str | None = None
    trials: int | None = None
    marks: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


def read_row(
    path: str | Path,
    *,
    method: str | None = None,
    role: Role = "method",
    dataset: str | None = None,
    model: str | None = None,
    trials: int | None = None,
    against: tuple[str, ...] = (),
) -> Row:
    """The row of a finished run directory (``test.json`` and ``predictions.csv``).

    Args:
        path: what ``equipoise train`` wrote for one seed.
        method: its name in the tables; None for its balancers, joined by " + ", or "plain".
        role: as in `Row`.
        dataset: its name in the tables; None for the dataset's own.
        model: likewise.
        trials: as in `Row`.
        against: likewise.

    Raises:
        FileNotFoundError: no such file: the run has not finished.
        ValueError: the predictions don't give the figures of ``test.json``.
    """
    folder = Path(path)
    test = json.loads((folder / "test.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    metrics = {name: math.nan if value is None else float(value) for name, value in test["metrics"].items()}
    scores = sample_scores(_column(table, "prediction"), _column(table, "target"), metrics)
    for name, values in scores.items():
        found = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        if not math.isclose(found, metrics[name], rel_tol=1e-5, abs_tol=1e-6) and not math.isnan(metrics[name]):
            raise ValueError(
                f"{folder}: the predictions give {name} {found:.6f}, `test.json` says {metrics[name]:.6f}. "
                "They are not of one run: train it again."
            )
    return Row(
        dataset=dataset or test["dataset"]["name"],
        model=model or test["model"],
        method=method or " + ".join(test["balancer"]) or "plain",
        seed=test["seed"],
        role=role,
        metrics=metrics,
        scores={name: tuple(values.tolist()) for name, values in scores.items()},
        samples=tuple(row["id"] for row in table),
        path=str(folder),
        trials=trials,
        marks=_marks(test["dataset"]),
        against=against,
    )


def sample_scores(prediction: Floats, target: Floats, metrics: Mapping[str, Any]) -> dict[str, Floats]:
    """What each sample adds to those of the named metrics that are means over samples, ``[n]`` each.

    Correlation, F1, the calibration error and (from printed probabilities) the likelihood are none.

    Args:
        prediction: ``[n, R]`` values, or ``[n, 1]`` class numbers.
        target: likewise.
        metrics: the names in it say the task and the scale: only CH-SIMS' has ``acc2``, only MOSI's ``acc7``.

    >>> sample_scores(np.array([[0.5], [2.0]]), np.array([[-1.0], [2.0]]), {"mae": 0.75, "corr": 1.0})
    {'mae': array([1.5, 0. ])}
    """
    if "accuracy" in metrics:
        return {"accuracy": (prediction == target).all(axis=1).astype(np.float64)}
    if "acc7" not in metrics and "acc3" in metrics:
        prediction, target = prediction.clip(-1, 1), target.clip(-1, 1)
    found = {"mae": np.abs(prediction - target).mean(axis=1)}
    guess, label = prediction[:, 0], target[:, 0]
    if "acc7" in metrics:
        for limit in (3, 2, 1):
            same = np.rint(guess.clip(-limit, limit)) == np.rint(label.clip(-limit, limit))
            found[f"acc{2 * limit + 1}"] = same.astype(np.float64)
    elif "acc3" in metrics:
        for name, cuts in SIMS_CUTS.items():
            found[name] = (_bin(guess, cuts) == _bin(label, cuts)).astype(np.float64)
    if "acc2" in metrics:
        found["acc2"] = ((guess > 0) == (label > 0)).astype(np.float64)
    if "acc2_nn" in metrics:
        found["acc2_nn"] = ((guess >= 0) == (label >= 0)).astype(np.float64)
        found["acc2_pn"] = np.where(label != 0, (guess > 0) == (label > 0), np.nan)
    return found


def _bin(values: Floats, cuts: tuple[float, ...]) -> npt.NDArray[np.int64]:
    # The files hold float32 numbers: a label of 0.1 belongs with the cut at 0.1, not above it.
    return np.searchsorted(np.array(cuts, dtype=np.float32), values.astype(np.float32), side="left")


def _column(table: list[dict[str, str]], name: str) -> Floats:
    names = [column for column in table[0] if column == name] or [
        column for column in table[0] if column.startswith(f"{name}/")
    ]
    # `prediction/<modality>/<output>` follows `prediction/<output>`: the target tells how many outputs there are
    outputs = sum(column == "target" or column.startswith("target/") for column in table[0])
    return np.array([[float(row[column]) for column in names[:outputs]] for row in table])


def _marks(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(mark for mark, key in (("synthetic data", "synthetic"), ("splits leak", "leaks")) if dataset.get(key))
