"""Asymmetric representation learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import ApplyTo, Balancer, FactorScaling, Modalities, Step
from equipoise.functional.asymmetry import arl_weights


class ARL(Balancer):
    r"""Asymmetric representation learning: a modality that is surer than the model's use of it shows learns faster.

    From [Improving Multimodal Learning via Imbalanced Learning](https://arxiv.org/abs/2507.10203) (Wei et al., ICCV
    2025), read from its abstract, the captions of its figures and the authors' code, whose equations these are.

    $$
    g^m \leftarrow (1 + w_m)\, g^m, \qquad
    w = \operatorname{softmax}_m(T q_m \operatorname{mean}_{j \neq m} d_j), \qquad
    L + \gamma \sum_m L(\hat y^m, y)
    $$

    - $q_m$: share of modality m in the inverses of the variances $v_m$; $v_m$ is the mean entropy of
      $\operatorname{softmax}(\hat y^m)$, as a share of the sum and at least 0.3 (for K modalities, 0.6 / K).
    - $d_m$: dependence on modality m, the mean over samples of $\sum_c \lvert \hat y^m_c \rvert$, as a share.
    - $\hat y^m$: what modality m alone says (``Step.unimodal``); $L$: ``Step.criterion``.
    - $T$: ``temperature``; $\gamma$: ``gamma``, weight of the unimodal bias regularisation.

    The paper argues that a model errs least if it depends on modalities in inverse proportion to their variances. It
    wants $d_m$ to follow $q_m$: so the weight is large where the others are depended on instead. It takes $\hat y^m$
    from the fusion with the other modalities zeroed, so that no parameter is added; a late fusion's terms are that.
    Entropy is lack of confidence and no variance over training sets: an encoder that has memorised is sure.

    As in the authors' code the first ``warmup`` epochs have unimodal losses of weight 1 at most, and factors of 1; and
    factors are above 1, so balanced modalities get $1 + 1/K$. It scales at the encoder's output, which is the same.
    It has two modalities; for K, $q$ and the mean are multiplied by K/2 each, or T would fade (ours;
    `equipoise.functional.arl_weights`). For regression (ours) $v_m$ is the variance of the error $\hat y^m - y$.

    Factors follow the sums over micro-batches and ranks until ``modulate()``. Multiply what the balancer returns, not
    what you give it: a factor in the loss does not reach the unimodal losses. No host sync.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``.
        gamma: weight of the unimodal losses, non-negative; the paper has 4. With 0 ``criterion`` is not read.
        temperature: the paper's $T$, non-negative; it has 8 or 4, by data set. 0 gives equal factors.
        warmup: epochs before the factors, non-negative.
        apply_to: ``"gradient"`` or ``"update"`` (factors only).
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without a field that is read, or without a modality in it.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import ARL, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 2), torch.nn.Linear(1, 2)
        >>> balancer = ARL(Modalities(text=text, audio=audio), gamma=0.0, warmup=0)
        >>> x, y = torch.ones(4, 1), torch.tensor([0, 1, 0, 1])
        >>> own = {"text": 0 * text(x), "audio": 0 * audio(x) + 1}  # both unsure, and used 0 : 1
        >>> balancer(Step(sum(own.values()).mean(), target=y, unimodal=own)).backward()
        >>> balancer.modulate()
        >>> balancer.trace["factors"]  # 1 + softmax(8 · 0.5 · 1, 0)
        tensor([1.9820, 1.0180])
    """

    needs = frozenset({"unimodal", "target", "criterion"})  # of the defaults
    records = ("variances", "dependences", "factors")

    def __init__(
        self,
        modalities: Modalities,
        *,
        gamma: float = 4.0,
        temperature: float = 8.0,
        warmup: int = 6,
        apply_to: ApplyTo = "gradient",
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        for name, value in (("gamma", gamma), ("temperature", temperature), ("warmup", warmup)):
            if value < 0:
                raise ValueError(f"Parameter `{name}` should be non-negative. Found `{name} = {value}`.")
        self.gamma = gamma
        self.temperature = temperature
        self.warmup = warmup
        self.scaling = FactorScaling(modalities, apply_to)
        self.needs = frozenset({"unimodal", "target"} | ({"criterion"} if gamma else set()))
        self._sums: Tensor | None = None
        self._rows = 0

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer; needed by ``apply_to="update"``."""
        self.scaling.attach(optimizer)

    def forward(self, step: Step) -> Tensor:
        """Add one micro-batch to the sums; the loss ``[]`` with the unimodal losses added."""
        loss = super().forward(step)
        if not self.window.active or not loss.requires_grad:
            return loss
        outputs, target = outputs_of(self, step), cast(Tensor, step.target)
        sums = torch.stack([_sums(outputs[name].detach(), target) for name in self.modalities])
        self._sums = sums if self._sums is None else self._sums + sums
        self._rows += len(target)
        if not self.gamma:
            return loss
        criterion = cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        own = torch.stack([criterion(outputs[name], target) for name in self.modalities])
        return loss + (min(self.gamma, 1.0) if self._warms_up() else self.gamma) * own.sum()

    def modulate(self) -> None:
        """Scale the gradients, or the coming step."""
        super().modulate()
        sums, rows, self._sums, self._rows = self._sums, self._rows, None, 0
        self.trace = {}
        self.scaling.forget()
        if not self.window.active or sums is None:
            return
        whole = sum_over_ranks(torch.cat([sums.flatten(), sums.new_tensor([float(rows)])]))
        means = whole[:-1].view(sums.shape) / whole[-1]
        variances = (means[:, 1] - means[:, 0].square()).clamp_min(0).mean(dim=1)
        dependences = means[:, 2].sum(dim=1)
        if self._warms_up():
            factors = torch.ones_like(variances)
        else:
            factors = 1 + arl_weights(variances, dependences, self.temperature)
        self.scaling(factors)
        self.trace = {"variances": variances, "dependences": dependences, "factors": factors}

    def _warms_up(self) -> bool:
        return self.window.epoch - self.window.from_epoch < self.warmup


def _sums(output: Tensor, target: Tensor) -> Tensor:
    """Sums over samples, ``[3, R]``: errors, their squares, sizes; for classes 0, entropies and sizes, ``[3, 1]``."""
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if target.is_floating_point():
        error = (output - target.reshape(output.shape)).reshape(len(target), -1)
        return torch.stack([error.sum(dim=0), error.square().sum(dim=0), output.abs().reshape(error.shape).sum(dim=0)])
    entropy = -torch.xlogy(output.softmax(dim=-1), output.softmax(dim=-1)).sum()
    return torch.stack([torch.zeros_like(entropy), entropy, output.abs().sum()])[:, None]
