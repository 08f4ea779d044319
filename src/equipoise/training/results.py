"""What a finished run leaves to read: `test.json`, `predictions.csv`, `summary.json`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import Tensor

from equipoise.data import Dataset, Split, load
from equipoise.metrics import better, implausible, metric_intervals
from equipoise.training.evaluate import Evaluation, Predictions
from equipoise.training.files import plain, replace_file


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one move; numbers that JSON lacks (NaN, infinity) become null."""
    replace_file(path, (json.dumps(plain(content), indent=1, allow_nan=False) + "\n").encode())


def test_report(found: Evaluation, split: Split) -> dict[str, Any]:
    """Metrics of the test split, each with the 95 % bootstrap interval over its samples."""
    manifest, predictions = split.manifest, found.predictions
    absent = [name for name in found.modalities if not split.lengths(name).any()]
    intervals = metric_intervals(manifest.task, predictions.logits, predictions.target, scale=manifest.labels.scale)
    return {
        "metrics": found.metrics,
        "interval": {name: list(bounds) for name, bounds in intervals.items()},
        "modalities": found.modalities,
        "own": found.own,
        "loss": found.loss,
        "warnings": [
            *implausible(found.metrics, manifest.name),
            *(f"no sample of the split has {name}, so its own figures are those of a constant." for name in absent),
        ],
    }


def dataset_report(dataset: Dataset) -> dict[str, Any]:
    """Name, source, whether it is made up, and what its splits share: the marks that go wherever a figure is shown."""
    manifest = dataset.manifest
    leaks, messages = _leakage(str(dataset.path.resolve()), manifest.files.get("samples.csv", ""))
    return {
        "name": manifest.name,
        "source": manifest.source,
        "synthetic": manifest.synthetic,
        "path": str(dataset.path),
        "leaks": leaks,
        "leakage": list(messages),
    }


def best_on_test(epochs: Mapping[str, Mapping[str, Any]], select: str, honest: Mapping[str, float]) -> dict[str, Any]:
    """The ``paper`` protocol's figure: the epoch that looks best on the test split, and its gap to the honest one.

    Args:
        epochs: ``{epoch: {"loss", "metrics", "modalities"}}`` on the test split.
        select: the metric that chooses; the lower loss breaks ties.
        honest: metrics of the epoch that validation chose.
    """
    sign = -1.0 if better(select) == "min" else 1.0

    def rank(epoch: str) -> tuple[float, float]:
        value = epochs[epoch]["metrics"][select]
        return (-math.inf if value is None or math.isnan(value) else sign * value, -epochs[epoch]["loss"])

    best = max(sorted(epochs, key=int), key=rank)
    metrics = epochs[best]["metrics"]
    gap = {name: metrics[name] - value for name, value in honest.items() if metrics.get(name) is not None}
    return {"epoch": int(best), "metrics": metrics, "modalities": epochs[best]["modalities"], "gap": gap}


def write_predictions(path: Path, split: Split, predictions: Predictions) -> None:
    """One row a sample: id, target, the fused prediction (and probabilities), each modality's own, what was missing."""
    labels = split.manifest.labels
    outputs = [""] if predictions.target.ndim == 1 else [f"/{name}" for name in labels.targets or range(labels.outputs)]
    columns: dict[str, list[Any]] = {"id": split.ids()}
    columns |= _columns("target", outputs, predictions.target)
    classify = split.manifest.task == "classification"
    columns |= _columns("prediction", outputs, _decided(predictions.logits, classify))
    if classify:
        names = [f"/{name}" for name in labels.classes or range(labels.outputs)]
        columns |= _columns("probability", names, predictions.logits.softmax(dim=-1))
    for modality, logits in predictions.unimodal.items():
        columns |= _columns(f"prediction/{modality}", outputs, _decided(logits, classify))
    absent = {modality: split.lengths(modality) == 0 for modality in predictions.unimodal}
    columns["missing"] = ["+".join(m for m, rows in absent.items() if rows[i]) for i in range(len(split))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    replace_file(path, text.getvalue().encode())


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every metric (null for a single seed, or where one is undefined)."""
    first = results[0]
    summary: dict[str, Any] = {"seeds": [result["seed"] for result in results], "protocol": first["protocol"]}
    summary["metrics"] = _spread([result["metrics"] for result in results])
    summary["modalities"] = {
        name: _spread([result["modalities"][name] for result in results]) for name in first["modalities"]
    }
    if "test_selected" in first:
        summary["test_selected"] = _spread([result["test_selected"]["metrics"] for result in results])
        summary["gap"] = _spread([result["test_selected"]["gap"] for result in results])
    return summary | {key: first[key] for key in ("own", "select", "model", "balancer", "dataset", "parameters")}


def _spread(rows: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    spread: dict[str, dict[str, float | None]] = {}
    for name in rows[0]:
        values = [math.nan if (value := row.get(name)) is None else value for row in rows]
        defined = not any(math.isnan(value) for value in values)
        spread[name] = {
            "mean": fmean(values) if defined else None,
            "sd": stdev(values) if defined and len(values) > 1 else None,
        }
    return spread


def _decided(logits: Tensor, classify: bool) -> Tensor:
    return logits.argmax(dim=-1) if classify else logits


def _columns(name: str, suffixes: Sequence[str], values: Tensor) -> dict[str, list[Any]]:
    if values.ndim == 1:
        return {name: values.tolist()}
    return {f"{name}{suffix}": values[:, i].tolist() for i, suffix in enumerate(suffixes)}


@lru_cache(maxsize=8)
def _leakage(path: str, samples: str) -> tuple[bool, tuple[str, ...]]:
    # Of the dataset as imported: what an encoder derives from equal texts is no further finding.
    from equipoise.data.leakage import check_leakage

    found = check_leakage(load(path))
    return found.leaks, found.messages
