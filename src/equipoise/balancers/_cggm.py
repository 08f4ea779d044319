"""Classifier-guided gradient modulation."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from equipoise.balancers._heads import Heads, outputs_in
from equipoise.balancers._per_modality import features_of, outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import ApplyTo, Balancer, FactorScaling, Modalities, Step
from equipoise.functional.guidance import cggm_shares, output_residuals, row_cosines
from equipoise.functional.modulation import agrees

Source = Literal["auto", "unimodal", "heads"]
RegressionScore = Literal["absolute_error", "sign"]


class CGGM(Balancer):
    r"""CGGM: the modality that improves fastest learns more slowly, and each is to learn what it would learn alone.

    From [Classifier-guided Gradient Modulation for Enhanced Multimodal Learning](https://arxiv.org/abs/2411.01409) (Guo
    et al., NeurIPS 2024); its equations are known to us from the abstract and the authors' code.

    $$
    \Delta_m = s_m^t - s_m^{t-1}, \quad
    B_m = \frac{\sum_{k \neq m} \Delta_k}{\sum_k \Delta_k}, \quad
    g^m \leftarrow \rho B_m g^m, \quad
    L + \lambda L_{gm}, \quad
    L_{gm} = \frac{1}{K} \sum_m |B_m| - B_m \cos(g_{fused}, g_m)
    $$

    - $s_m^t$: accuracy of modality m alone in step t: by ``Step.unimodal``, or by a linear head of the balancer's own.
    - $B_m$: share of the others in what all have improved; $\rho$: scale of the factors.
    - $L_{gm}$: how far the fused model's gradient points away from what modality m alone would do; $\lambda$
      (``lambda_gm``): its weight. The $B_m$ in it are those of the step before.

    **Bounded, which is ours.** An accuracy that falls makes $B_m$ negative (the encoder then climbs the loss) or, where
    improvements cancel, huge; the authors' code divides by $\sum_k \Delta_k + 10^{-8}$. Here a fall counts as no
    improvement, $\Delta_m^+ = \max(\Delta_m, 0)$, and where nobody has improved, as in the first step, shares are even:
    factors lie in $[0, \rho]$ and their mean is always $\rho (K - 1) / K$ (`equipoise.functional.cggm_shares`). So
    equal modalities are not left alone, but for $\rho = K / (K - 1)$. Accuracies of single batches are noisy, and so
    are the factors.

    **Which gradients, which is ours.** The paper compares gradients of the classifiers' last layers; the code compares
    those layers' *weights*. A fusion that is not built like the classifiers has no such layer, so we compare, for each
    sample, the gradients of ``Step.loss`` and of modality m's own loss (cross-entropy, squared error) at its feature
    $f_m$ (``Step.features``), and average the cosines over the batch. Only the fused side is trained by it, twice
    differentiated: what lies between features and loss must allow that, which cuDNN's recurrent layers and fused
    attention do not. ``lambda_gm=0`` turns it off, and then nothing but the scores is needed.

    For regression $s_m$ is minus the mean absolute error, or the share of right signs, as in the authors' code. Any
    number of modalities. Own heads are trained by Adam on detached features, before ``from_epoch`` too. Micro-batches
    and ranks add up until ``modulate()``. Multiply what the balancer returns, not what you give it: $L_{gm}$ does not
    follow a factor in the loss. No host sync on a GPU.

    Args:
        modalities: encoders.
        rho: scale of the factors, positive; 1.3 in the authors' code.
        lambda_gm: weight of the direction, non-negative; 0.2 in the authors' code. 0 for magnitudes alone.
        source: ``"unimodal"`` reads ``Step.unimodal``, for the direction not from detached features; ``"heads"`` reads
            ``Step.features`` and, for classes, the width of ``Step.logits``; ``"auto"`` takes the first that there is.
        regression: score for a floating-point target, ``"absolute_error"`` or ``"sign"``.
        head_lr: Adam's learning rate for the balancer's own heads.
        apply_to: ``"gradient"`` or ``"update"`` (the latter needs ``attach(optimizer)``); of the factors.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without what the parameters ask for; ``features`` that
            ``loss`` or, with a direction, ``unimodal`` was not computed from.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import CGGM, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = CGGM(Modalities(text=text, audio=audio), rho=1.0, lambda_gm=0.0)
        >>> x, y = torch.ones(1, 1), torch.zeros(1)
        >>> for text_error, audio_error in [(4.0, 4.0), (1.0, 3.0)]:  # improved by 3 and 1
        ...     own = {"text": y + text_error, "audio": y + audio_error}
        ...     balancer(Step((text(x) + audio(x)).sum(), target=y, unimodal=own)).backward()
        ...     balancer.modulate()
        >>> balancer.trace["factors"]
        tensor([0.2500, 0.7500])
    """

    previous: Tensor
    shares: Tensor
    steps: Tensor

    needs = frozenset({"features", "target"})  # of the defaults
    records = ("scores", "improvements", "factors", "cosines")

    def __init__(
        self,
        modalities: Modalities,
        *,
        rho: float = 1.3,
        lambda_gm: float = 0.2,
        source: Source = "auto",
        regression: RegressionScore = "absolute_error",
        head_lr: float = 1e-3,
        apply_to: ApplyTo = "gradient",
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if rho <= 0:
            raise ValueError(f"Parameter `rho` should be positive. Found `rho = {rho}`.")
        if lambda_gm < 0:
            raise ValueError(f"Parameter `lambda_gm` should be non-negative. Found `lambda_gm = {lambda_gm}`.")
        if source not in get_args(Source):
            raise ValueError(
                f'Parameter `source` should be "auto", "unimodal" or "heads". Found `source = {source!r}`.'
            )
        if regression not in get_args(RegressionScore):
            raise ValueError(
                f'Parameter `regression` should be "absolute_error" or "sign". Found `regression = {regression!r}`.'
            )
        if head_lr <= 0:
            raise ValueError(f"Parameter `head_lr` should be positive. Found `head_lr = {head_lr}`.")
        self.rho = rho
        self.lambda_gm = lambda_gm
        self.source: Source = source
        self.regression: RegressionScore = regression
        read = {"target"} | ({"unimodal"} if source == "unimodal" else set())
        self.needs = frozenset(read | ({"features"} if lambda_gm or source == "heads" else set()))
        self.scaling = FactorScaling(modalities, apply_to)
        self.heads = Heads(len(modalities), lr=head_lr)
        count = len(modalities)
        self.register_buffer("previous", torch.zeros(count))
        self.register_buffer("shares", torch.full((count,), (count - 1) / count))
        self.register_buffer("steps", torch.zeros(()))
        self._sums: Tensor | None = None
        self._cosines: Tensor | None = None

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer; needed by ``apply_to="update"``."""
        self.scaling.attach(optimizer)

    def forward(self, step: Step) -> Tensor:
        """Add one micro-batch to the scores; the loss ``[]``, with the direction added."""
        loss = super().forward(step)
        if self.window.over:
            return loss
        target = cast(Tensor, step.target)
        given = self.source != "heads" and step.unimodal is not None
        outputs = self._given(step) if given else self._own(step)
        scores = torch.stack([self._score(output.detach().float(), target) for output in outputs])
        sums = torch.cat([scores, scores.new_full((1,), len(target))])
        self._sums = sums if self._sums is None else self._sums + sums
        if self.previous.device != sums.device:
            self.to(sums.device)
        if not (self.lambda_gm and self.window.active and loss.requires_grad):
            return loss
        return loss + self.lambda_gm * self._direction(step, outputs, given).to(loss.dtype)

    def modulate(self) -> None:
        """Compare with the step before and scale the gradients, or the coming step; train the own heads."""
        super().modulate()
        sums, cosines = self._sums, self._cosines
        self._sums = self._cosines = None
        self.trace = {}
        self.scaling.forget()
        self.heads.learn()
        if sums is None:
            return
        sums = sum_over_ranks(sums)
        scores = sums[:-1] / sums[-1]
        # A step that overflowed is skipped by a gradient scaler; here it must not spoil the next comparison.
        finite = torch.isfinite(scores).all()
        improvements = torch.where(finite & (self.steps > 0), scores - self.previous, torch.zeros_like(scores))
        self.previous.copy_(torch.where(finite, scores, self.previous))
        self.steps.add_(finite)
        self.shares.copy_(cggm_shares(improvements))
        if not self.window.active:
            return
        factors = self.rho * self.shares
        self.scaling(factors)
        self.trace = {"scores": scores, "improvements": improvements, "factors": factors}
        if cosines is not None:
            self.trace["cosines"] = cosines

    def _given(self, step: Step) -> list[Tensor]:
        outputs = outputs_of(self, step)
        return [outputs[name] for name in self.modalities]

    def _own(self, step: Step) -> list[Tensor]:
        if step.features is None:
            raise ValueError(
                "CGGM needs `unimodal` or `features` in the `Step`. Found neither. Pass `unimodal=...`, what each "
                "modality alone says, or `features=...`, for heads of its own."
            )
        said: list[Tensor] = self.heads(features_of(self, step), cast(Tensor, step.target), outputs_in(self, step))
        return said

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        rows = len(target)
        if target.is_floating_point():
            output = output.reshape(target.shape)
            if self.regression == "absolute_error":
                return -(output - target).float().abs().reshape(rows, -1).mean(dim=1).sum()
        return agrees(output, target).float().reshape(rows, -1).mean(dim=1).sum()

    def _direction(self, step: Step, outputs: list[Tensor], given: bool) -> Tensor:
        features = features_of(self, step)
        fused = _slopes(step.loss, [x for x in features if x.requires_grad], len(features[0]))
        cosines, remaining = [], iter(fused)
        for i, (x, output) in enumerate(zip(features, outputs, strict=True)):
            if not x.requires_grad:
                cosines.append(torch.zeros_like(_wide(x[0, 0])))
                continue
            residual = output_residuals(_wide(output.detach()), cast(Tensor, step.target))
            own = self._alone(i, x, output, residual) if given else self._toward(i, residual)
            cosines.append(row_cosines(_wide(next(remaining)), own).mean())
        means = torch.stack(cosines)
        self._cosines = means.detach()
        return (self.shares * (1 - means)).mean()

    def _alone(self, i: int, feature: Tensor, output: Tensor, residual: Tensor) -> Tensor:
        slope = None
        if output.requires_grad:
            (slope,) = torch.autograd.grad(output, feature, residual.to(output), retain_graph=True, allow_unused=True)
        if slope is None:
            raise ValueError(
                "CGGM compares the direction in which each modality would go alone. Found `Step.unimodal` of "
                f"`{self.modalities.names[i]}` not computed from its `Step.features`, or from detached ones. "
                'Set `source="heads"`, for heads of the balancer\'s own, or `lambda_gm=0`.'
            )
        return _wide(slope.detach())

    def _toward(self, i: int, residual: Tensor) -> Tensor:
        weight = cast(Tensor, self.heads.heads[i].weight)[:, :-1]
        return (residual[:, :, None] * weight).sum(dim=1)  # no matrix product: autocast would round it


def _slopes(loss: Tensor, features: list[Tensor], rows: int) -> tuple[Tensor, ...]:
    # Times the rows: a mean's slopes shrink with them, and half precision has little to lose.
    weight = torch.full_like(loss, rows)
    found = torch.autograd.grad(loss, features, weight, create_graph=True, allow_unused=True) if features else ()
    if not found or any(slope is None for slope in found):
        raise ValueError(
            "`Step.features` should be the very tensors that `Step.loss` was computed from. Found others, or detached "
            "ones."
        )
    return found


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
