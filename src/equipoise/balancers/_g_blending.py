"""Gradient blending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.blending import blending_weights

JOINT = "joint"


class GBlending(Balancer):
    r"""Gradient blending: each modality's own loss and the joint one are summed, weighted by how well each generalises.

    From [What Makes Training Multi-Modal Classification Networks Hard?](https://arxiv.org/abs/1905.12681) (Wang et al.,
    CVPR 2020), read at second hand: its abstract, and code written after it.

    $$
    L = \sum_{k=1}^{K+1} w_k L_k, \qquad w_k \propto \frac{G_k}{O_k^2}, \qquad \sum_k w_k = 1
    $$

    - $L_k$: loss of the k-th head: what each modality alone says (``Step.unimodal``), and the joint ``Step.logits``.
    - $G_k$: by how much the validation loss of head k fell over ``super_epoch`` epochs.
    - $O_k$: by how much the gap between its validation and its training loss grew meanwhile.

    Weights are estimated at the ends of epochs, from ``end_epoch(train=..., val=...)``: the first active epoch's end is
    the first point of comparison, and every ``super_epoch`` epochs later the weights change. Until then all are equal.
    The paper trains a copy of the model on each head's loss alone to find $G$ and $O$; here they come from the one
    run itself, which costs no training. Two rules follow, ours like that: a ratio is taken over the signs and zeros
    that a run brings (`equipoise.functional.blending_weights`; where no validation loss fell the weights stay), and
    ``uniform`` of the total is shared out equally, since a head without any weight would not learn and so never get
    some back. ``weights`` sets constant ones instead (the paper's offline form), and no loss is ever read.

    Any number of modalities, classes or regression: ``Step.criterion`` gives all losses. ``Step.loss`` may hold more
    than the joint loss, which is then left as it is: what is returned is
    $\text{loss} + (w_{K+1} - 1) L_{K+1} + \sum_{k \le K} w_k L_k$. Multiply what the balancer returns, not what you
    give it. The trace has the modalities' ``"weights"``, and the joint loss's as ``"joint"``, K times.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``.
        super_epoch: epochs between two estimates, at least 1.
        weights: constant weights by modality, with one for ``"joint"``, as they are; None to estimate them.
        floor: least overfitting that counts, as a share of the largest gain; positive.
        uniform: share of the weights that is spread equally, from 0 to 1.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``logits``, ``unimodal``, ``target`` or
            ``criterion``; ``end_epoch`` without training or validation steps when weights are due.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import GBlending, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = GBlending(Modalities(text=text, audio=audio), super_epoch=1, uniform=0.0)
        >>> y = torch.zeros(2)
        >>> def steps(*errors):  # of text, audio and both
        ...     own = {"text": y + errors[0], "audio": y + errors[1]}
        ...     yield Step(y.sum(), y + errors[2], y, own, criterion=torch.nn.functional.l1_loss)
        >>> balancer.end_epoch(train=steps(1.0, 1.0, 1.0), val=steps(1.0, 1.0, 1.0))
        >>> balancer.end_epoch(train=steps(0.4, 0.0, 0.5), val=steps(0.6, 0.6, 1.0))
        >>> {head: round(weight, 2) for head, weight in balancer.weights.items()}
        {'text': 0.9, 'audio': 0.1, 'joint': 0.0}
    """

    needs = frozenset({"logits", "unimodal", "target", "criterion"})
    records = ("weights", "joint")
    replaces_loss = True

    def __init__(
        self,
        modalities: Modalities,
        *,
        super_epoch: int = 5,
        weights: Mapping[str, float] | None = None,
        floor: float = 0.1,
        uniform: float = 0.1,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if JOINT in modalities:
            raise ValueError(f"GBlending calls the loss of all modalities `{JOINT}`. Found a modality of that name.")
        if super_epoch < 1:
            raise ValueError(f"Parameter `super_epoch` should be at least 1. Found `super_epoch = {super_epoch}`.")
        if not floor > 0:
            raise ValueError(f"Parameter `floor` should be positive. Found `floor = {floor}`.")
        if not 0 <= uniform <= 1:
            raise ValueError(f"Parameter `uniform` should be between 0 and 1. Found `uniform = {uniform}`.")
        self.super_epoch = super_epoch
        self.floor = floor
        self.uniform = uniform
        self.estimates = weights is None
        heads = (*modalities.names, JOINT)
        self._weights = [1 / len(heads)] * len(heads) if weights is None else _checked(weights, heads)
        self._before: Tensor | None = None
        self._epochs = 0

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each modality's loss and of the joint one."""
        return dict(zip((*self.modalities.names, JOINT), self._weights, strict=True))

    def forward(self, step: Step) -> Tensor:
        """The weighted sum of all losses, ``[]``."""
        loss = super().forward(step)
        *own, joint = self._losses(step)
        self.trace = {}
        if not self.window.active:
            return loss
        *weights, of_joint = self._weights
        self.trace = {"weights": torch.tensor(weights), "joint": torch.full((len(own),), of_joint)}
        return loss + (of_joint - 1) * joint + sum(w * part for w, part in zip(weights, own, strict=True))

    @torch.no_grad()
    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Read each head's losses, when it is time, and set the weights anew."""
        if self.window.active and self.estimates:
            self._epochs += 1
            if self._before is None or self._epochs == self.super_epoch:
                self._estimate(torch.stack([self._mean_losses(train, "train"), self._mean_losses(val, "val")]))
        self.window.advance()

    def _estimate(self, losses: Tensor) -> None:
        before, self._before, self._epochs = self._before, losses, 0
        if before is None:
            return
        weights = blending_weights(before, losses, self.floor)
        # Where nothing generalised, or a loss was not finite, there is nothing to learn from.
        if bool(weights.sum() > 0):
            self._weights = torch.lerp(weights, torch.full_like(weights, 1 / len(weights)), self.uniform).tolist()

    def _losses(self, step: Step) -> list[Tensor]:
        criterion = cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        target, outputs = cast(Tensor, step.target), outputs_of(self, step)
        return [criterion(outputs[name], target) for name in self.modalities] + [
            criterion(cast(Tensor, step.logits), target)
        ]

    def _mean_losses(self, steps: Iterable[Step], split: str) -> Tensor:
        """Of each head over a split, ``[K + 1]``."""
        sums: Tensor | None = None
        for step in steps:
            Balancer.forward(self, step)
            rows = len(cast(Tensor, step.target))
            losses = torch.stack(self._losses(step)).detach()
            losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
            part = torch.cat([losses * rows, losses.new_tensor([rows])])
            sums = part if sums is None else sums + part
        if sums is None:
            raise ValueError(
                f"GBlending needs the steps of both splits. Found none in `{split}`. "
                "Call `balancer.end_epoch(train=steps, val=steps)`."
            )
        self._observed = False
        sums = sum_over_ranks(sums)
        return (sums[:-1] / sums[-1]).cpu().double()

    def get_extra_state(self) -> Tensor:
        """Weights, epochs since the last estimate, and the losses at that time, ``[K + 2]`` or ``[3K + 4]``."""
        before = torch.empty(0) if self._before is None else self._before.flatten()
        return torch.cat([torch.tensor([*self._weights, self._epochs], dtype=torch.float64), before.double()])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore them."""
        heads = len(self.modalities) + 1
        self._weights, self._epochs = state[:heads].tolist(), int(state[heads])
        rest = state[heads + 1 :].cpu()
        self._before = rest.view(2, heads) if len(rest) else None


def _checked(weights: Mapping[str, float], heads: tuple[str, ...]) -> list[float]:
    if set(weights) != set(heads):
        raise ValueError(f"Parameter `weights` should have one for each of {list(heads)}. Found {list(weights)}.")
    if min(weights.values()) < 0 or not any(weights.values()):
        raise ValueError(f"Parameter `weights` should be non-negative and not all 0. Found {dict(weights)}.")
    return [float(weights[head]) for head in heads]
