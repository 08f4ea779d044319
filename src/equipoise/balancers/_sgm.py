"""Specific-feature gradient modulation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from equipoise.balancers._heads import Heads, outputs_in
from equipoise.balancers._per_modality import features_of, outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import ApplyTo, Balancer, FactorScaling, Modalities, Step
from equipoise.functional.modulation import agrees, sgm_factors

Correct = Callable[[Tensor, Tensor], Tensor]
Source = Literal["auto", "unimodal", "heads"]


class SGM(Balancer):
    r"""Specific-feature gradient modulation: the modality that is right most often by itself learns more slowly.

    From [Feature Decoupling with Modality Modulation for Multimodal Sentiment
    Analysis](https://scholar.google.com/scholar?q=MMAFNet) (Wang et al., MMAFNet; the link is a search, for we know of
    no address of its own), Eqs. 4–10.

    $$
    \rho_m = \frac{1}{N} \sum_{i} \mathbb I(f_m(x_i^m) = y_i), \quad
    \omega_m = \frac{\rho_m}{\sum_j \rho_j}, \quad
    \varphi_m = 1 - \tanh(\alpha \omega_m) \text{ if } \omega_m = \max_j \omega_j, \text{ else } 1, \quad
    \theta_m \leftarrow \theta_m - \eta \varphi_m \nabla L
    $$

    - $f_m$: what modality m alone says: ``Step.unimodal``, or a linear head on its ``Step.features``.
    - $\rho_m$: accuracy in the step; $\omega_m$: its share of all modalities' accuracies.
    - $\varphi_m$: factor; $\alpha$: strength.

    The paper puts a linear layer on each encoder and does not say how it is trained. Where ``Step.unimodal`` holds
    outputs they are read; else the balancer trains linear heads of its own, by Adam, on the detached features: the
    model never feels them, and they are part of the ``state_dict``. They learn before ``from_epoch`` too. In the first
    step they know nothing, are right equally often, and nobody is held back.

    The paper predicts sentiment, a value, and does not say when one is right: here, when prediction and truth are both
    negative or both not, unless ``correct`` says otherwise. Any number of modalities. Several that share the highest
    accuracy are all held back, as Eq. 9 has it; if all do, nobody is, for there is nobody to protect. As
    $\omega_m \leq 1$ no factor is below $1 - \tanh \alpha$, which is 0.71 at the paper's $\alpha$. Micro-batches and
    ranks add up until ``modulate()``.

    Args:
        modalities: the encoders of modality-specific features.
        alpha: strength, non-negative; 0 changes nothing.
        source: ``"unimodal"`` reads ``Step.unimodal``; ``"heads"`` reads ``Step.features`` and, for classes, the width
            of ``Step.logits``; ``"auto"`` takes the first that there is.
        correct: maps ``(output, target)`` to whether each sample is right ``[B]``; None for the rule above.
        head_lr: Adam's learning rate for the balancer's own heads.
        apply_to: ``"gradient"`` or ``"update"`` (the latter needs ``attach(optimizer)``).
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts (the paper's is the 25th of 50); None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``target``, or with neither outputs nor features of
            each modality.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Warns:
        UserWarning: ``alpha`` is 0.

    Example:
        >>> import torch
        >>> from equipoise import SGM, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = SGM(Modalities(text=text, audio=audio), alpha=1.0)
        >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, -1.0])
        >>> loss = (text(x) + audio(x)).sum()
        >>> own = {"text": torch.tensor([0.5, -0.5]), "audio": torch.tensor([0.5, 0.5])}  # 2 and 1 signs right
        >>> balancer(Step(loss, target=y, unimodal=own)).backward()
        >>> balancer.modulate()
        >>> balancer.trace["factors"]
        tensor([0.4172, 1.0000])
    """

    needs = frozenset({"target"})  # of the defaults
    records = ("factors", "dominant", "accuracies")

    def __init__(
        self,
        modalities: Modalities,
        *,
        alpha: float = 0.3,
        source: Source = "auto",
        correct: Correct | None = None,
        head_lr: float = 1e-3,
        apply_to: ApplyTo = "gradient",
        from_epoch: int = 0,
        until_epoch: int | None = 25,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if alpha < 0:
            raise ValueError(f"Parameter `alpha` should be non-negative. Found `alpha = {alpha}`.")
        if source not in get_args(Source):
            raise ValueError(
                f'Parameter `source` should be "auto", "unimodal" or "heads". Found `source = {source!r}`.'
            )
        if head_lr <= 0:
            raise ValueError(f"Parameter `head_lr` should be positive. Found `head_lr = {head_lr}`.")
        if alpha == 0:
            warnings.warn("SGM does nothing with `alpha = 0`.", stacklevel=2)
        self.alpha = alpha
        self.source: Source = source
        self.correct = agrees if correct is None else correct
        self.needs = frozenset({"target"} | {"auto": set(), "unimodal": {"unimodal"}, "heads": {"features"}}[source])
        self.scaling = FactorScaling(modalities, apply_to)
        self.heads = Heads(len(modalities), lr=head_lr)
        self._counts: Tensor | None = None

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer; needed by ``apply_to="update"``."""
        self.scaling.attach(optimizer)

    def forward(self, step: Step) -> Tensor:
        """Count who is right in one micro-batch; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        if self.window.over:
            return loss
        target = cast(Tensor, step.target)
        counts = torch.stack([self._right(output, target) for output in self._outputs(step)])
        counts = torch.cat([counts, counts.new_full((1,), len(target))])
        self._counts = counts if self._counts is None else self._counts + counts
        return loss

    def modulate(self) -> None:
        """Scale the gradients, or the coming step, of the modality that is right most often; train the own heads."""
        super().modulate()
        counts, self._counts = self._counts, None
        self.trace = {}
        self.scaling.forget()
        self.heads.learn()
        if not self.window.active or counts is None:
            return
        counts = sum_over_ranks(counts)
        factors = sgm_factors(counts[:-1], self.alpha)
        self.scaling(factors)
        self.trace = {"accuracies": counts[:-1] / counts[-1], "factors": factors, "dominant": factors < 1}

    def _outputs(self, step: Step) -> list[Tensor]:
        if self.source != "heads" and step.unimodal is not None:
            outputs = outputs_of(self, step)
            return [outputs[name].detach() for name in self.modalities]
        if step.features is None:
            raise ValueError(
                "SGM needs `unimodal` or `features` in the `Step`. Found neither. Pass `unimodal=...`, what each "
                "modality alone says, or `features=...`, for heads of its own."
            )
        return self.heads(features_of(self, step), cast(Tensor, step.target), outputs_in(self, step))  # type: ignore[no-any-return]

    def _right(self, output: Tensor, target: Tensor) -> Tensor:
        right = self.correct(output.reshape(target.shape) if target.is_floating_point() else output, target)
        if right.dtype != torch.bool or len(right) != len(target):
            raise ValueError(
                "Parameter `correct` should map (output, target) to a bool a sample. "
                f"Found {right.dtype} of shape {tuple(right.shape)} for {len(target)} samples."
            )
        return right.reshape(len(target), -1).float().mean(dim=1).sum()
