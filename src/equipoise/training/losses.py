"""The task's loss, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Criterion = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Criterion] = {"l1": F.l1_loss, "mse": F.mse_loss, "cross_entropy": F.cross_entropy}


def loss_for(task: str, name: str | None = None) -> str:
    """The loss to use: the one named, else mean absolute error for regression and cross-entropy for classification.

    Raises:
        ValueError: the named loss is of the other task.
    """
    default = "cross_entropy" if task == "classification" else "l1"
    if name is None:
        return default
    if name not in LOSSES or (name == "cross_entropy") != (task == "classification"):
        valid = ["cross_entropy"] if task == "classification" else ["l1", "mse"]
        raise ValueError(f"Parameter `loss` should be one of {valid} for {task}. Found `loss = {name!r}`.")
    return name
