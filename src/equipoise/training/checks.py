"""What would fail after an epoch of training, found before it."""

from __future__ import annotations

import warnings

from equipoise.core import Step
from equipoise.data import Split
from equipoise.metrics import evaluate_metrics


def check_splits(train: Split, valid: Split) -> None:
    """Refuse a test split, and one without samples.

    Raises:
        ValueError: either.
    """
    for split in (train, valid):
        if split.name == "test":
            raise ValueError("`fit` should never see the split 'test'. Train on 'train' and choose on 'valid'.")
        if len(split) == 0:
            raise ValueError(f"Split {split.name!r} should hold samples. Found none.")


def check_step(step: Step, split: Split, *, select: str) -> None:
    """Check on a few samples that the model's output can be scored, and by the metric that is to choose.

    Raises:
        ValueError: logits of another shape than the targets ask for, or a metric that this data does not have.
    """
    assert step.logits is not None
    assert step.target is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        known = evaluate_metrics(split.manifest.task, step.logits, step.target, scale=split.manifest.labels.scale)
    if select not in {*known, "last"}:
        raise ValueError(
            f"Parameter `select` should be one of {', '.join(known)}, last for this data. Found `select = {select!r}`."
        )
