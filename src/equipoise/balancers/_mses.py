"""Modality-specific early stopping."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import torch
from torch import Tensor

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step


class MSES(Balancer):
    r"""Modality-specific early stopping: an encoder stops learning when its own validation loss stops falling.

    From [Modality-Specific Learning Rate Control for Multimodal
    Classification](https://doi.org/10.1007/978-3-030-41299-9_33) (Fujimori et al., ACPR 2019).

    After each epoch, with $L_m$ the validation loss of what modality m alone says: unless $L_m$ has fallen by more
    than ``min_delta`` below its best within the last ``patience`` epochs, modality m is stopped for good. The
    gradients of a stopped modality are set to None in every step: a gradient of zero would still let AdamW decay the
    weights.

    The published method sets the modality's learning rate to zero, which is the same for the weights and needs the
    optimizer's parameter groups. Weights stay as they are at the stop; the best epoch's are not restored.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``.
        patience: epochs without improvement before a modality is stopped, at least 1.
        min_delta: by how much the loss must fall to count, non-negative.
        from_epoch: first epoch after which validation losses count.
        until_epoch: first epoch from which on nothing is held still any more; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal``, ``target`` or ``criterion``;
            ``end_epoch`` without validation steps.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import MSES, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = MSES(Modalities(text=text, audio=audio), patience=1)
        >>> criterion, y = torch.nn.functional.l1_loss, torch.zeros(2)
        >>> for text_error, audio_error in [(1.0, 1.0), (2.0, 0.5)]:
        ...     own = {"text": y + text_error, "audio": y + audio_error}
        ...     balancer.end_epoch(val=[Step(y.sum(), target=y, unimodal=own, criterion=criterion)])
        >>> balancer.stopped
        ('text',)
    """

    needs = frozenset({"unimodal", "target", "criterion"})
    records = ("stopped",)

    def __init__(
        self,
        modalities: Modalities,
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if patience < 1:
            raise ValueError(f"Parameter `patience` should be at least 1. Found `patience = {patience}`.")
        if min_delta < 0:
            raise ValueError(f"Parameter `min_delta` should be non-negative. Found `min_delta = {min_delta}`.")
        self.patience = patience
        self.min_delta = min_delta
        self._best = [inf] * len(modalities)
        self._waited = [0] * len(modalities)

    @property
    def stopped(self) -> tuple[str, ...]:
        """The modalities that no longer learn."""
        return tuple(
            name for name, waited in zip(self.modalities, self._waited, strict=True) if waited >= self.patience
        )

    def forward(self, step: Step) -> Tensor:
        """Check the step; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        outputs_of(self, step)
        return loss

    def modulate(self) -> None:
        """Drop the gradients of the stopped modalities."""
        super().modulate()
        self.trace = {}
        if not self.window.active:
            return
        for name in self.stopped:
            for parameter in self.modalities.parameters(name):
                parameter.grad = None
        self.trace = {"stopped": torch.tensor([name in self.stopped for name in self.modalities])}

    @torch.no_grad()
    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Read each modality's validation loss and decide who stops."""
        if self.window.active:
            self._judge(self._losses(val))
        self.window.advance()

    def _losses(self, val: Iterable[Step]) -> list[float]:
        sums: Tensor | None = None
        for step in val:
            Balancer.forward(self, step)
            assert step.criterion is not None
            assert step.target is not None
            rows = len(step.target)
            outputs = outputs_of(self, step)
            losses = [step.criterion(outputs[name], step.target).detach().float() * rows for name in self.modalities]
            part = torch.stack([*losses, torch.full_like(losses[0], rows)])
            sums = part if sums is None else sums + part
        if sums is None:
            raise ValueError("MSES needs the validation steps. Found none. Call `balancer.end_epoch(val=steps)`.")
        self._observed = False
        sums = sum_over_ranks(sums)
        losses_by_modality: list[float] = (sums[:-1] / sums[-1]).tolist()
        return losses_by_modality

    def _judge(self, losses: list[float]) -> None:
        for i, loss in enumerate(losses):
            if self._waited[i] >= self.patience:
                continue
            if loss < self._best[i] - self.min_delta:
                self._best[i], self._waited[i] = loss, 0
            else:
                self._waited[i] += 1

    def get_extra_state(self) -> Tensor:
        """Best losses and epochs waited, ``[2, K]``."""
        return torch.tensor([self._best, [float(waited) for waited in self._waited]], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore them."""
        self._best = state[0].tolist()
        self._waited = [int(waited) for waited in state[1].tolist()]
