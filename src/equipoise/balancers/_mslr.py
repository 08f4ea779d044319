"""Modality-specific learning rates."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, FactorScaling, Modalities, Step
from equipoise.functional.rates import rate_changes, smooth_rates

RateStrategy = Literal["keep", "smooth", "dynamic"]


class MSLR(Balancer):
    r"""Modality-specific learning rates: each encoder has its own, fixed or following its validation score.

    From [Modality-specific Learning Rates for Effective Multimodal Additive
    Late-fusion](https://aclanthology.org/2022.findings-acl.143) (Yao and Mihalcea, Findings of ACL 2022), read at
    second hand: its abstract, and code written after it.

    $$
    \eta_m = \lambda_m \eta, \qquad
    \lambda_m \leftarrow \lambda_m \frac{A_m}{\operatorname{mean} \text{ of the last } N \text{ of } A_m}
    \quad \text{every } N \text{ epochs}
    $$

    - $\eta$: the optimizer's learning rate, whatever its groups and schedulers make of it; $\lambda_m$: ``rates``.
    - ``"keep"``: the rates stay as given: those at which each modality alone trained best.
    - ``"smooth"``: they are drawn half way to their geometric mean (`equipoise.functional.smooth_rates`), and stay. The
      strategy is the paper's, this form of it ours.
    - ``"dynamic"``: the second equation. $A_m$ is the validation accuracy of what modality m alone says; for
      regression, which is ours, the inverse of its mean absolute error. A modality that goes on improving speeds up,
      one that has begun to overfit slows down.

    A learning rate has to survive the optimizer, and a factor on the gradient does not: Adam divides it out again. The
    *step* that the optimizer takes is scaled instead, $\theta \leftarrow \theta + \lambda_m (\theta' - \theta)$. For
    every optimizer whose step is proportional to its learning rate (SGD with momentum, Adam, AdamW and its decay, ...)
    this is the learning rate $\lambda_m \eta$ to the letter, and unlike parameter groups it does not depend on how the
    optimizer was built, nor can a scheduler undo it. So there is no ``apply_to``, and ``attach(optimizer)`` is needed.
    For half precision let the largest rate be 1: a step made ten times as large has ten times its rounding error.

    Args:
        modalities: encoders; for ``"dynamic"`` with an output of their own in ``Step.unimodal``.
        rates: multiples of the optimizer's learning rate by modality, positive; None for 1 each, with which
            ``"keep"`` and ``"smooth"`` do nothing, and say so once.
        strategy: ``"keep"``, ``"smooth"`` or ``"dynamic"``.
        history: N, the epochs between two changes and of the mean (``"dynamic"``), at least 2.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; for ``"dynamic"`` a `Step` without ``unimodal`` or ``target``, or
            ``end_epoch`` without validation steps.
        RuntimeError: no optimizer attached, ``modulate()`` before ``forward`` (``"dynamic"``), or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import MSLR, Modalities
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.Adam([text.weight, audio.weight], lr=0.1)
        >>> balancer = MSLR(Modalities(text=text, audio=audio), rates={"text": 0.01, "audio": 1.0}, strategy="keep")
        >>> balancer.attach(optimizer)
        >>> before = torch.stack([text.weight.detach(), audio.weight.detach()])
        >>> (text.weight + audio.weight).sum().backward()
        >>> balancer.modulate()
        >>> optimizer.step()
        >>> (torch.stack([text.weight.detach(), audio.weight.detach()]) - before).flatten()
        tensor([-0.0010, -0.1000])
    """

    needs = frozenset({"unimodal", "target"})  # of the defaults
    records = ("factors",)

    def __init__(
        self,
        modalities: Modalities,
        *,
        rates: Mapping[str, float] | None = None,
        strategy: RateStrategy = "dynamic",
        history: int = 5,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if strategy not in get_args(RateStrategy):
            raise ValueError(
                f'Parameter `strategy` should be "keep", "smooth" or "dynamic". Found `strategy = {strategy!r}`.'
            )
        if history < 2:
            raise ValueError(f"Parameter `history` should be at least 2. Found `history = {history}`.")
        self.strategy: RateStrategy = strategy
        self.history = history
        self.scaling = FactorScaling(modalities, "update")
        self._rates = _checked(rates, modalities)
        self._scores: list[Tensor] = []
        if strategy == "smooth":
            self._rates = smooth_rates(self._rates)
        if strategy == "dynamic":
            return
        self.needs = frozenset()
        if bool((self._rates == 1).all()):
            warnings.warn(
                f'MSLR(strategy="{strategy}") with all `rates` 1 does nothing. Give each modality a rate of its own, '
                'or choose strategy="dynamic".',
                stacklevel=2,
            )

    @property
    def rates(self) -> dict[str, float]:
        """Each modality's learning rate now, as a multiple of the optimizer's."""
        return dict(zip(self.modalities, self._rates.tolist(), strict=True))

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer whose steps are scaled."""
        self.scaling.attach(optimizer)

    def forward(self, step: Step) -> Tensor:
        """Check the step; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        if self.strategy == "dynamic":
            outputs_of(self, step)
        return loss

    def modulate(self) -> None:
        """Scale the coming step of each modality."""
        super().modulate()
        self.trace = {}
        self.scaling.forget()
        if not self.window.active:
            return
        self.scaling(self._rates)
        self.trace = {"factors": self._rates}

    @torch.no_grad()
    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Score each modality on validation data and, every ``history`` epochs, change the rates (``"dynamic"``)."""
        if self.window.active and self.strategy == "dynamic":
            self._scores.append(self._score(val))
            if len(self._scores) == self.history:
                self._rates = self._rates * rate_changes(torch.stack(self._scores))
                self._scores = []
        self.window.advance()

    def _score(self, val: Iterable[Step]) -> Tensor:
        """Accuracy, or inverse of the mean absolute error, of each modality alone, ``[K]``."""
        sums: Tensor | None = None
        classes = True
        for step in val:
            Balancer.forward(self, step)
            target, outputs = cast(Tensor, step.target), outputs_of(self, step)
            classes = not target.is_floating_point()
            hits = [_hits(outputs[name], target) for name in self.modalities]
            part = torch.stack([*hits, torch.full_like(hits[0], len(target))])
            sums = part if sums is None else sums + part
        if sums is None:
            raise ValueError(
                'MSLR(strategy="dynamic") needs the validation steps. Found none. Call `balancer.end_epoch(val=steps)`.'
            )
        self._observed = False
        sums = sum_over_ranks(sums).cpu().double()
        means = sums[:-1] / sums[-1]
        return means if classes else 1 / means.clamp_min(torch.finfo(torch.float32).tiny)

    def get_extra_state(self) -> Tensor:
        """Rates, and the scores since they last changed, ``[1 + epochs, K]``."""
        return torch.stack([self._rates, *self._scores])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore them."""
        self._rates, *self._scores = state.cpu().unbind()


def _hits(output: Tensor, target: Tensor) -> Tensor:
    """Samples that are right, or the sum of their absolute errors."""
    if not target.is_floating_point():
        return (output.argmax(dim=-1) == target).float().sum()
    error = (output.float() - target.reshape(output.shape)).abs()
    return error.reshape(len(target), -1).mean(dim=1).sum()


def _checked(rates: Mapping[str, float] | None, modalities: Modalities) -> Tensor:
    if rates is None:
        return torch.ones(len(modalities), dtype=torch.float64)
    if set(rates) != set(modalities):
        raise ValueError(f"Parameter `rates` should have one for each of {list(modalities)}. Found {list(rates)}.")
    if not all(rate > 0 for rate in rates.values()):
        raise ValueError(f"Parameter `rates` should be positive. Found {dict(rates)}.")
    return torch.tensor([rates[name] for name in modalities], dtype=torch.float64)
