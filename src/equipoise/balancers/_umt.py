"""Uni-modal teachers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import isfinite
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from equipoise.balancers._per_modality import features_of
from equipoise.core import Balancer, Modalities, Step


class UMT(Balancer):
    r"""Uni-modal teacher: each encoder also imitates a frozen one that was trained on its modality alone.

    From [On Uni-Modal Feature Learning in Supervised Multi-Modal Learning](https://arxiv.org/abs/2305.01233) (Du et
    al., ICML 2023), read from its abstract and code written after it.

    $$
    L = \text{loss} + \sum_m w_m \operatorname{mean}_{i,k} \big(f^m_{ik} - t^m_{ik}\big)^2
    $$

    - $f^m$: features of modality m (``Step.features``); $t^m$: what its teacher makes of the same samples
      (``Step.teacher``), a constant.
    - $w_m$: ``weight``, one for all or one a modality; 0 leaves that modality without a teacher, which then need not
      be in ``Step.teacher``.

    A jointly trained encoder stops learning once the fusion is right, often by another modality; the teacher holds all
    that the modality can learn alone. Features of a teacher have no canonical scale, rotation or order: its encoder
    has to be built as the student's is, best from the same initial weights, and features are compared as they
    are, neither standardised nor projected. Nothing else is the method's own: any number of modalities, classes or
    regression, any fusion. Released code adds the distances in place to the loss, for every modality with one weight.

    The teachers are yours: put them in evaluation mode, compute under ``torch.no_grad()``, and leave them out of the
    optimizer; in a config ``teachers`` names their run directories. The mean is over rows and features, so
    micro-batches and ranks add up to the full batch. Multiply what the balancer returns, not what you give it. The
    trace has the last micro-batch's ``"distances"``. No host sync.

    Args:
        modalities: encoders.
        weight: of the distances, non-negative: a number, or one by modality. The default is ours.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``features`` or ``teacher``, without a modality in
            it, or with a teacher of another shape than the student.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import UMT, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 2), torch.nn.Linear(1, 2)
        >>> balancer = UMT(Modalities(text=text, audio=audio), weight={"text": 1.0, "audio": 10.0})
        >>> features = {"text": text(torch.ones(4, 1)), "audio": audio(torch.ones(4, 1))}
        >>> teacher = {name: x.detach() + 0.5 for name, x in features.items()}
        >>> loss = balancer(Step(torch.tensor(1.0), features=features, teacher=teacher))
        >>> round(loss.item(), 4)  # 1 + 1 · 0.25 + 10 · 0.25
        3.75
    """

    needs = frozenset({"features", "teacher"})
    records = ("distances",)

    def __init__(
        self,
        modalities: Modalities,
        *,
        weight: float | dict[str, float] = 1.0,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        weights = dict(weight) if isinstance(weight, Mapping) else dict.fromkeys(modalities, weight)
        if set(weights) != set(modalities):
            raise ValueError(
                f"Parameter `weight` should be a number or have one for each of {list(modalities)}. "
                f"Found `weight = {weight!r}`."
            )
        if not all(isfinite(value) and value >= 0 for value in weights.values()):
            raise ValueError(f"Parameter `weight` should be non-negative. Found `weight = {weight!r}`.")
        if not any(weights.values()):
            warnings.warn("UMT with `weight = 0` listens to no teacher: training goes on as without it.", stacklevel=2)
        self.weights = {name: float(weights[name]) for name in modalities}

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]`` with the distances added; multiply what this returns, not what you give it."""
        loss = super().forward(step)
        students = dict(zip(self.modalities, features_of(self, step), strict=True))
        teachers = cast(Mapping[str, Tensor], step.teacher)
        self.trace = {}
        if not self.window.active:
            return loss
        distances = [
            _distance(name, student, teachers) if self.weights[name] else torch.zeros_like(loss).detach()
            for name, student in students.items()
        ]
        self.trace = {"distances": torch.stack([distance.detach().to(loss) for distance in distances])}
        for weight, distance in zip(self.weights.values(), distances, strict=True):
            if weight:
                loss = loss + weight * distance
        return loss


def _distance(name: str, student: Tensor, teachers: Mapping[str, Tensor]) -> Tensor:
    if name not in teachers:
        raise ValueError(
            f"UMT needs the features of each modality's teacher in `Step.teacher`. Found {sorted(teachers)}, "
            f"missing {[name]}. Add it, or give it `weight` 0."
        )
    teacher = teachers[name].detach()
    if teacher.shape != student.shape:
        raise ValueError(
            f"The teacher of `{name}` should make features of shape {list(student.shape)}, as the student does. "
            f"Found {list(teacher.shape)}. Build both encoders alike, and give both the same samples."
        )
    wide = torch.promote_types(student.dtype, torch.float32)  # squares overflow in float16
    return F.mse_loss(student.to(wide), teacher.to(device=student.device, dtype=wide))
