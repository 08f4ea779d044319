"""The rules for labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipoise.data.errors import DataError
from equipoise.data.manifest import SCALE_RANGES, LabelInfo, Scale, Task
from equipoise.data.ragged import Array


def describe_labels(
    labels: Array,
    task: Task,
    *,
    label_range: tuple[float, float] | None,
    classes: Sequence[str] | None,
    scale: Scale | None,
    targets: Sequence[str] | None,
) -> LabelInfo:
    """The manifest's entry; a scale declares its range, and classes without names are numbered."""
    if task not in ("regression", "classification"):
        raise DataError(f"Parameter `task` should be regression or classification. Found {task!r}.")
    if scale is not None and scale not in SCALE_RANGES:
        raise DataError(f"Parameter `scale` should be mosi, sims or None. Found {scale!r}.")
    if not len(labels):
        raise DataError("Parameter `labels` should have at least one entry. Found none.")
    if task == "classification":
        if label_range is not None or scale is not None or targets is not None:
            raise DataError("Parameters `label_range`, `scale` and `target_names` are for regression. Leave them out.")
        names = tuple(classes) if classes is not None else None
        if names is None:
            check_integers(labels, "labels")
            names = tuple(map(str, range(int(labels.max()) + 1)))
        return LabelInfo("classification", len(names), classes=names)
    if classes is not None:
        raise DataError("Parameter `classes` is for classification. Leave it out.")
    outputs = labels.shape[1] if labels.ndim == 2 else 1
    if targets is not None and len(targets) != outputs:
        raise DataError(f"Parameter `target_names` should have {outputs} entries, one a target. Found {len(targets)}.")
    if label_range is None and scale is not None:
        label_range = SCALE_RANGES[scale]
    bounds = None if label_range is None else (float(label_range[0]), float(label_range[1]))
    return LabelInfo(
        "regression", outputs, range=bounds, scale=scale, targets=None if targets is None else tuple(targets)
    )


def check_labels(labels: Array, info: LabelInfo, samples: int, what: str = "labels") -> Array:
    """Labels as they are stored, ``float32`` or ``int64``; a `DataError` where they break a rule of ``info``.

    One target a sample is stored as ``[N]`` even if given as ``[N, 1]``: against predictions ``[N]``, a loss would
    broadcast that to ``[N, N]``.
    """
    shapes = "[N] or [N, R]" if info.kind == "regression" else "[N]"
    if labels.ndim not in ((1, 2) if info.kind == "regression" else (1,)) or labels.dtype.kind not in "fiub":
        raise DataError(f"Parameter `{what}` should hold numbers {shapes}. Found {labels.dtype} {list(labels.shape)}.")
    if len(labels) != samples:
        raise DataError(f"Parameter `{what}` should have {samples} entries, one a sample. Found {len(labels)}.")
    if info.kind == "classification":
        check_integers(labels, what)
        _check_range(labels, 0, info.outputs - 1, what)
        return labels.astype("<i8")
    finite = np.isfinite(labels).reshape(samples, -1).all(1)
    if not finite.all():
        raise DataError(f"Parameter `{what}` should be finite. Found {labels[~finite][0]} in row {np.argmin(finite)}.")
    if info.range is not None:
        _check_range(labels, *info.range, what)
    targets = labels.shape[1] if labels.ndim == 2 else 1
    if targets != info.outputs:
        raise DataError(f"Parameter `{what}` should have {info.outputs} targets a sample. Found {targets}.")
    return (labels.reshape(-1) if targets == 1 else labels).astype("<f4")


def check_integers(labels: Array, what: str) -> None:
    """Class indices are integers from 0."""
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"Parameter `{what}` should hold class indices (integers from 0). Found {labels.dtype} from {labels.min()}."
        )


def _check_range(labels: Array, low: float, high: float, what: str) -> None:
    outside = ((labels < low) | (labels > high)).reshape(len(labels), -1).any(1)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"Parameter `{what}` should lie in [{low:g}, {high:g}]. "
            f"Found {int(outside.sum())} outside, the first {labels[row]} in row {row}."
        )
