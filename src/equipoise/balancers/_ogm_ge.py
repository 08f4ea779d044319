"""On-the-fly gradient modulation with generalisation enhancement."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from equipoise.balancers._noise import Noise
from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import ApplyTo, Balancer, FactorScaling, Modalities, Step
from equipoise.functional.factors import ogm_factors


class OGMGE(Balancer):
    r"""OGM-GE: the modality that predicts better by itself learns more slowly, and noise restores the lost variance.

    From [Balanced Multimodal Learning via On-the-fly Gradient Modulation](https://arxiv.org/abs/2203.15332)
    (Peng et al., CVPR 2022), Eqs. 8–12.

    $$
    s_m = \sum_{i} \operatorname{softmax}(\hat y_i^m)_{y_i}, \quad
    \rho_m = \frac{s_m}{\operatorname{mean}_{j \neq m} s_j}, \quad
    k_m = 1 - \tanh(\alpha \rho_m) \text{ if } \rho_m > 1, \text{ else } 1, \quad
    g^m \leftarrow k_m g^m + \mathcal N(0, \operatorname{std}(g^m))
    $$

    - $\hat y_i^m$: what modality m alone says of sample i (``Step.unimodal``).
    - $k_m$: factor; $\alpha$: strength.
    - the noise (GE) is drawn for every gradient tensor of every modality, whatever its factor.

    The paper has two modalities; we compare with the mean of the others. It has classes only; for regression we put
    $s_m = \sum_i \exp(-|\hat y_i^m - y_i|)$, a Laplace likelihood, which lies in (0, 1] as a probability does. The
    authors' code scales convolution kernels only (4-D gradients), and so does nothing to a transformer; we take every
    gradient. Micro-batches add up until ``modulate()``, ranks too, and all ranks draw the same noise. On a CPU the
    drawing takes time in proportion to the parameters: about 4 ns each.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``.
        alpha: strength, non-negative; 0 changes nothing but for the noise.
        noise: whether to add the noise (GE); False is plain OGM.
        apply_to: ``"gradient"`` or ``"update"`` (factors only; the noise is always added to the gradients).
        seed: of the noise.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal`` or ``target``, or without a modality
            in it.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import OGMGE, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 2), torch.nn.Linear(1, 2)
        >>> balancer = OGMGE(Modalities(text=text, audio=audio), alpha=0.5, noise=False)
        >>> x, y = torch.ones(4, 1), torch.tensor([0, 1, 0, 1])
        >>> own = {"text": text(x), "audio": audio(x)}
        >>> loss = balancer(Step(torch.nn.functional.cross_entropy(sum(own.values()), y), target=y, unimodal=own))
        >>> loss.backward()
        >>> balancer.modulate()
        >>> sorted(balancer.trace)
        ['factors', 'scores']
    """

    needs = frozenset({"unimodal", "target"})
    records = ("factors", "scores")

    def __init__(
        self,
        modalities: Modalities,
        *,
        alpha: float = 0.5,
        noise: bool = True,
        apply_to: ApplyTo = "gradient",
        seed: int = 0,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if alpha < 0:
            raise ValueError(f"Parameter `alpha` should be non-negative. Found `alpha = {alpha}`.")
        self.alpha = alpha
        self.scaling = FactorScaling(modalities, apply_to)
        self.noise = Noise(seed) if noise else None
        self._scores: Tensor | None = None

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer; needed by ``apply_to="update"``."""
        self.scaling.attach(optimizer)

    def forward(self, step: Step) -> Tensor:
        """Add one micro-batch to the scores; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        unimodal, target = outputs_of(self, step), cast(Tensor, step.target)
        scores = torch.stack([_score(unimodal[name].detach(), target) for name in self.modalities])
        self._scores = scores if self._scores is None else self._scores + scores
        return loss

    def modulate(self) -> None:
        """Scale the gradients, or the coming step, and add the noise."""
        super().modulate()
        scores, self._scores = cast(Tensor, self._scores), None
        self.trace = {}
        self.scaling.forget()
        if not self.window.active:
            return
        scores = sum_over_ranks(scores)
        factors = ogm_factors(scores, self.alpha)
        gradients = [gradient for name in self.modalities for gradient in self.modalities.gradients(name)]
        spreads = [] if self.noise is None else [_spread(gradient) for gradient in gradients]
        self.scaling(factors)
        if self.noise is not None:
            for gradient, spread in zip(gradients, spreads, strict=True):
                self.noise.add_to(gradient, spread)
        self.trace = {"scores": scores, "factors": factors}


def _spread(gradient: Tensor) -> Tensor:
    """Standard deviation; that of a single number is 0. The 1e-8 is the authors'."""
    return gradient.std(correction=min(1, gradient.numel() - 1)) + 1e-8


def _score(output: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        return torch.exp(-(output.float() - target.reshape(output.shape)).abs()).sum()
    return output.float().softmax(dim=-1).gather(-1, target.reshape(-1, 1)).sum()
