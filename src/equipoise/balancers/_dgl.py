"""Disentangled gradient learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._routing import lead, leaves, slopes_at
from equipoise.core import Balancer, Modalities, Step


class DGL(Balancer):
    r"""Disentangled gradient learning: encoders learn from unimodal losses alone, the fusion from the multimodal alone.

    From [Boosting Multimodal Learning via Disentangled Gradient Learning](https://arxiv.org/abs/2507.10213)
    (Wei et al., ICCV 2025), read from its abstract, summaries and the authors' code.

    $$
    \Delta \theta^m \propto -\alpha \frac{\partial}{\partial \theta^m} \sum_j L(\hat y^j, y), \qquad
    \Delta \theta^{fusion} \propto -\frac{\partial L^{mm}}{\partial \theta^{fusion}}
    $$

    - $\theta^m$: encoder m, all that lies behind ``Step.features``; fusion: all else that ``Step.loss``, $L^{mm}$,
      reaches.
    - $\hat y^m$: what modality m alone says (``Step.unimodal``), computed from its features; $L$: ``Step.criterion``.
    - $\alpha$: weight of the unimodal losses. It sets the encoders' rate against the fusion's; Adam cancels it.

    The paper holds that fusing shrinks the gradient that reaches an encoder, the dominant one's too. It takes
    $\hat y^m$ from the fusion itself with the other modalities zeroed, so that no parameter is added; any output that
    depends on the features will do here, such as a late fusion's term. Heads that only the unimodal losses reach learn
    from these, with the weight $\alpha$; the paper has none. Predictions are made by the fusion, as ever.

    No hooks: the loss returned has the value of ``step.loss``, and terms of value 0 cancel its gradient at the features
    and put that of the unimodal losses there. That costs one more backward pass through fusion and heads, none through
    encoders, and holds for micro-batches, ranks and a gradient scaler alike. No host sync. The trace holds the last
    micro-batch's unimodal losses and the norms of what was cut from, and led to, each modality's features.

    Args:
        modalities: encoders; ``Step.features`` is all that the fusion sees of them.
        alpha: weight of the unimodal losses, positive. The authors' code has 4, and 2 to 5 by data set.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal``, ``features``, ``target`` or
            ``criterion``, or without a modality in it; losses that do not depend on ``features``; a ``loss`` that
            reaches an encoder past its features.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import DGL, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> text.weight.data, audio.weight.data = torch.tensor([[1.0]]), torch.tensor([[3.0]])
        >>> balancer = DGL(Modalities(text=text, audio=audio), alpha=1.0)
        >>> x, y = torch.ones(1, 1), torch.zeros(1, 1)
        >>> features = {"text": text(x), "audio": audio(x)}
        >>> criterion = torch.nn.functional.mse_loss
        >>> plain = criterion(features["text"] + features["audio"], y)
        >>> step = Step(plain, target=y, unimodal=features, features=features, criterion=criterion)
        >>> loss = balancer(step)
        >>> loss.backward()
        >>> loss.item(), text.weight.grad.item(), audio.weight.grad.item()
        (16.0, 2.0, 6.0)
    """

    needs = frozenset({"unimodal", "features", "target", "criterion"})
    records = ("losses", "cut", "led")
    replaces_loss = True

    def __init__(
        self, modalities: Modalities, *, alpha: float = 4.0, from_epoch: int = 0, until_epoch: int | None = None
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if alpha <= 0:
            raise ValueError(
                f"Parameter `alpha` should be positive: the encoders learn from nothing else. Found `alpha = {alpha}`."
            )
        self.alpha = alpha

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]`` with its gradients led around; multiply what this returns, not what you give it."""
        loss = super().forward(step)
        self.trace = {}
        outputs, features = outputs_of(self, step), cast(Mapping[str, Tensor], step.features)
        missing = [name for name in self.modalities if name not in features]
        if missing:
            raise ValueError(
                "DGL needs the features of each modality in `Step.features`. "
                f"Found {sorted(features)}, missing {missing}."
            )
        points = [features[name] for name in self.modalities if features[name].requires_grad]
        if not self.window.active or not loss.requires_grad or not points:
            return loss
        criterion = cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        losses = torch.stack([criterion(outputs[name], cast(Tensor, step.target)) for name in self.modalities])
        own = self.alpha * losses.sum()
        fusion = leaves(loss, points)
        self._check_cut(fusion)
        heads = [leaf for key, leaf in (leaves(own, points) if own.requires_grad else {}).items() if key not in fusion]
        cut, led = slopes_at(loss, points), slopes_at(own, [*points, *heads])
        if all(slope is None for slope in cut):
            raise ValueError(
                "`Step.features` should be the very tensors that `Step.loss` was computed from. Found others."
            )
        if all(slope is None for slope in led[: len(points)]):
            raise ValueError(
                "DGL needs unimodal outputs that depend on `Step.features`, or the encoders would learn nothing. "
                "Found none. Compute `Step.unimodal` from these very tensors, not detached."
            )
        targets = [*points, *heads]
        cut += [None] * len(heads)
        steer = [_or_zero(b, x) - _or_zero(a, x) for a, b, x in zip(cut, led, targets, strict=True)]
        self.trace = {"losses": losses.detach()} | {
            key: torch.stack([_norm(slopes, points, features[name]) for name in self.modalities])
            for key, slopes in (("cut", cut), ("led", led))
        }
        return loss + lead(targets, steer)

    def _check_cut(self, fusion: Mapping[int, Tensor]) -> None:
        for name in self.modalities:
            if any(id(parameter) in fusion for parameter in self.modalities.parameters(name)):
                raise ValueError(
                    f"DGL cuts what `Step.loss` teaches an encoder, at `Step.features`. Found a way from the loss to "
                    f"parameters of `{name}` past these features. Give as features all that the fusion sees of an "
                    "encoder, and leave the fusion's own parameters out of `Modalities`."
                )


def _or_zero(slope: Tensor | None, point: Tensor) -> Tensor:
    return torch.zeros_like(point) if slope is None else slope


def _norm(slopes: list[Tensor | None], points: list[Tensor], feature: Tensor) -> Tensor:
    for slope, point in zip(slopes, points, strict=False):
        if point is feature and slope is not None:
            return cast(Tensor, torch.linalg.vector_norm(slope))
    return torch.zeros((), device=feature.device)
