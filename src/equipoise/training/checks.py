"""What would fail after an epoch of training, found before it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import nn

from equipoise.core import Balancer, Chain, Step
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


def check_rates(
    drop_modalities: float | Mapping[str, float], drop_frames: float | Mapping[str, float], names: Sequence[str]
) -> None:
    """Refuse rates of modalities that the data lack, and those outside [0, 1).

    Raises:
        ValueError: there is one.
    """
    for key, given in (("drop_modalities", drop_modalities), ("drop_frames", drop_frames)):
        rates = given if isinstance(given, Mapping) else dict.fromkeys(names, given)
        if unknown := [name for name in rates if name not in names]:
            raise ValueError(
                f"Parameter `{key}` should name modalities of the data ({', '.join(names)}). "
                f"Found {', '.join(unknown)}."
            )
        if not all(0 <= rate < 1 for rate in rates.values()):
            raise ValueError(f"Parameter `{key}` should be at least 0 and below 1. Found `{key} = {given}`.")


def check_step(step: Step, split: Split, *, select: str, model: nn.Module, balancer: Balancer | None) -> None:
    """Check on a few samples that the balancer gets what it reads, and that the metric that is to choose has a value.

    Raises:
        ValueError: logits of another shape than the targets ask for, a metric that this data does not have, or a model
            that does not give what the balancer needs.
    """
    parts = balancer if isinstance(balancer, Chain) else [] if balancer is None else [balancer]
    for part in parts:
        if missing := sorted(field for field in part.needs if getattr(step, field) is None):
            raise ValueError(
                f"{type(part).__name__} needs {', '.join(f'`{field}`' for field in missing)}, which this "
                f"{type(model).__name__} does not give. Choose another balancer or model (`equipoise list`)."
            )
    assert step.logits is not None
    assert step.target is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        known = evaluate_metrics(split.manifest.task, step.logits, step.target, scale=split.manifest.labels.scale)
    if select not in {*known, "last"}:
        raise ValueError(
            f"Parameter `select` should be one of {', '.join(known)}, last for this data. Found `select = {select!r}`."
        )
