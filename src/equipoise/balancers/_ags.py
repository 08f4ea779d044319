"""Adaptive gradient scaling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from equipoise.core import ApplyTo, Balancer, FactorScaling, Modalities
from equipoise.functional.factors import Strategy, ags_factors, exceeds_others
from equipoise.functional.norms import gradient_norms


class AGS(Balancer):
    r"""Adaptive gradient scaling: the modality with the larger gradients learns more slowly, in its first epochs.

    From [Actual Cause Guided Adaptive Gradient Scaling for Balanced Multimodal Sentiment
    Analysis](https://doi.org/10.1145/3736415) (Chen et al., ACM TOMM 2025), Eqs. 20–26.

    $$
    grad_m = \sqrt{\tfrac{1}{n} \sum_{i=1}^{n} \lVert g_i^m \rVert_2^2}, \qquad
    \rho_m = \frac{grad_m}{\operatorname{mean}_{j \neq m} grad_j}, \qquad
    \lambda_m = 1 - \tanh\!\Big(\alpha \frac{\rho_m}{1 + \rho_m}\Big)
    $$

    - $g_i^m$: gradient of the i-th of the n parameter tensors of modality m.
    - $\lambda_m$: factor of a dominant modality; every other has factor 1. Dominant is, by ``strategy``, whose norm
      exceeds the mean of the others' (``"average"``, Eq. 22) or is the largest (``"max"``, Eqs. 21 and 23).
    - $\alpha$: strength; the paper's $\beta$ in a second stage.

    The paper's two stages are ``Chain(AGS(encoders, alpha=alpha), AGS(branches, alpha=beta, strategy="max"))``. Any
    number of modalities and of stages will do. Eq. 24 is misprinted; see `equipoise.functional.ags_factors` for what
    is computed.

    Where paper and released code disagree: both scale gradients, which Adam nearly cancels (Eq. 26 is written for
    SGD). That is ``apply_to="gradient"``, the default; ``apply_to="update"`` scales the step that the optimizer
    takes.

    Needs nothing but gradients: calling ``modulate()`` alone is enough. No host sync on a GPU.

    Args:
        modalities: encoders (stage 1) or fusion branches (stage 2).
        alpha: strength, non-negative; 0 changes nothing. The paper tries 0.001 to 0.1.
        strategy: ``"average"`` or ``"max"``.
        spared: modalities that are compared with the others and never scaled (the paper's ablations "w/o Grad").
        apply_to: ``"gradient"`` or ``"update"`` (the latter needs ``attach(optimizer)``).
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts (the paper's end epoch: 2 to 8); None for ever.

    Raises:
        ValueError: a parameter out of its range.
        RuntimeError: ``modulate()`` found no gradient in ``modalities``.

    Example:
        >>> import torch
        >>> from equipoise import AGS, Modalities
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> balancer = AGS(Modalities(text=text, audio=audio), alpha=1.0)
        >>> text.weight.grad, audio.weight.grad = torch.tensor([[3.0]]), torch.tensor([[1.0]])
        >>> balancer.modulate()
        >>> balancer.trace["factors"]
        tensor([0.3649, 1.0000])
        >>> text.weight.grad
        tensor([[1.0946]])
    """

    def __init__(
        self,
        modalities: Modalities,
        *,
        alpha: float = 0.05,
        strategy: Strategy = "average",
        spared: Sequence[str] = (),
        apply_to: ApplyTo = "gradient",
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if alpha < 0:
            raise ValueError(f"Parameter `alpha` should be non-negative. Found `alpha = {alpha}`.")
        if strategy not in ("average", "max"):
            raise ValueError(f'Parameter `strategy` should be "average" or "max". Found `strategy = {strategy!r}`.')
        for name in spared:
            if name not in modalities.names:
                known = ", ".join(modalities.names)
                raise ValueError(f"Parameter `spared` should name modalities of {known}. Found {name!r}.")
        self.alpha = alpha
        self.spared = tuple(spared)
        self.strategy: Strategy = strategy
        self.scaling = FactorScaling(modalities, apply_to)

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer; needed by ``apply_to="update"``."""
        self.scaling.attach(optimizer)

    def modulate(self) -> None:
        """Scale the gradients, or the coming step, of the dominant modalities."""
        super().modulate()
        self.trace = {}
        self.scaling.forget()
        if not self.window.active:
            return
        norms = gradient_norms(self.modalities)
        factors = ags_factors(norms, self.alpha, self.strategy)
        if self.spared:
            kept = [name in self.spared for name in self.modalities.names]
            factors = factors.masked_fill(torch.tensor(kept, device=factors.device), 1.0)
        self.scaling(factors)
        dominant = exceeds_others(norms) if self.strategy == "average" else norms == norms.max()
        self.trace = {"norms": norms, "factors": factors, "dominant": dominant}
