"""Uni-modal ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from equipoise.balancers._idle import linked
from equipoise.balancers._per_modality import outputs_of
from equipoise.core import Balancer, Modalities, Step


class UME(Balancer):
    r"""Uni-modal ensemble: each encoder and its head learn from their own loss alone, and their outputs are averaged.

    From [On Uni-Modal Feature Learning in Supervised Multi-Modal Learning](https://arxiv.org/abs/2305.01233) (Du et
    al., ICML 2023), read from its abstract and summaries.

    $$
    L = \sum_m \ell(\hat y^m, y), \qquad \hat y = \sum_m w_m \hat y^m
    $$

    - $\hat y^m$: what modality m alone says (``Step.unimodal``); $\ell$: ``Step.criterion``.
    - $\hat y$: the prediction, by `equipoise.functional.ensemble`: a mean of logits, of probabilities, or of a
      regression's values, weighted or not. $w_m$ sum to 1.

    There is no joint training left, so none of its competition, and none of what only joint training can learn: the
    paper takes it where modalities hold little that is paired. It trains the models separately; in one run, with one
    optimizer, the sum of losses does the same, since no encoder sees another's loss (a global clipping norm, a common
    learning rate and a common choice of the best epoch are what they still share).

    ``Step.loss`` is replaced: neither its value nor its gradient is used. Parameters that only it reaches, those of the
    fusion, get no gradient: it stays None (where the loop zeroes gradients, use ``set_to_none``, or decay moves them),
    and ``Step.logits`` of an untrained fusion mean nothing. Predict by the ensemble. A late fusion's sum of terms is
    the ensemble's mean times K: the same class, but K times a regression's value (`LateFusion` has ``combine="mean"``
    for that). Where a parameter is shared by several outputs, it learns from the sum.

    Several ranks: DistributedDataParallel waits for every parameter that its forward used, so there ``Step.loss`` is
    added with factor 0, and the zeros that the fusion gets are dropped by ``modulate()``; neither
    ``find_unused_parameters`` nor ``static_graph`` is needed. The trace has the last micro-batch's ``"losses"``.
    Multiply what the balancer returns, not what you give it. No host sync.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``, from features that are not detached.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal``, ``target`` or ``criterion``, or
            without a modality in it.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import UME, Modalities, Step
        >>> from equipoise.functional import ensemble
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> text.weight.data, audio.weight.data = torch.tensor([[1.0]]), torch.tensor([[3.0]])
        >>> x, y, criterion = torch.ones(2, 1), torch.zeros(2, 1), torch.nn.functional.mse_loss
        >>> own = {"text": text(x), "audio": audio(x)}
        >>> plain = criterion(own["text"] + own["audio"], y)
        >>> balancer = UME(Modalities(text=text, audio=audio))
        >>> loss = balancer(Step(plain, target=y, unimodal=own, criterion=criterion))
        >>> loss.backward()
        >>> plain.item(), loss.item(), text.weight.grad.item(), audio.weight.grad.item()
        (16.0, 10.0, 2.0, 6.0)
        >>> ensemble(own).flatten()
        tensor([2., 2.], grad_fn=...)
    """

    needs = frozenset({"unimodal", "target", "criterion"})
    records = ("losses",)
    replaces_loss = True

    def __init__(self, modalities: Modalities, *, from_epoch: int = 0, until_epoch: int | None = None) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        self._idle: list[Tensor] = []

    def forward(self, step: Step) -> Tensor:
        """The sum of the unimodal losses, ``[]``; multiply what this returns, not what you give it."""
        loss = super().forward(step)
        outputs, criterion = outputs_of(self, step), cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        self.trace = {}
        self._idle = []
        if not self.window.active:
            return loss
        losses = torch.stack([criterion(outputs[name], cast(Tensor, step.target)) for name in self.modalities])
        self.trace = {"losses": losses.detach()}
        own, self._idle = linked(losses.sum(), [loss])
        return own

    def modulate(self) -> None:
        """Drop what several ranks' zeros have made of the fusion's gradients."""
        super().modulate()
        idle, self._idle = self._idle, []
        for parameter in idle:
            parameter.grad = None
