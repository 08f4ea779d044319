"""Information acquisition regulation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.fisher import Ahead, info_reg_coefficients, performance_gaps
from equipoise.functional.norms import gradient_norms


class InfoReg(Balancer):
    r"""InfoReg: while an encoder that is ahead gathers information fast, it is held near its weights of an epoch ago.

    From [Adaptive Unimodal Regulation for Balanced Multimodal Information
    Acquisition](https://arxiv.org/abs/2503.18595) (Huang et al., CVPR 2025), Eqs. 7–16 and Algorithm 1.

    $$
    g^m \leftarrow g^m + \alpha_m (w_m - w_m^{t-1}), \qquad
    \alpha_m = e^{\beta \tanh \Delta_m} \ \text{ if } \Delta_m > 0 \text{ and }
    \frac{\operatorname{Tr} F_m^{t-1} - \operatorname{Tr} F_m^{t-2}}{\operatorname{Tr} F_m^{t-1}} > K, \ \text{ else } 0
    $$

    - $w_m^{t-1}$: weights of encoder m at the end of the epoch before; the gradient of
      $\tfrac{\alpha_m}{2} \lVert w_m - w_m^{t-1} \rVert^2$ is added.
    - $\operatorname{Tr} F_m^t$: trace of the Fisher information, the mean over epoch t's steps of
      $\lVert g^m \rVert^2$, before anything is added to $g^m$. While it grows by more than the share $K$, the encoder
      is in its prime learning window. Two epochs are measured before the first can act.
    - $\Delta_m$: by how much the batch's score $s_m$, the mean of $\log \operatorname{softmax}(\hat y^m)_y$, lies above
      those of the modalities below it, on average (`equipoise.functional.performance_gaps`). With three or more, all
      but the weakest are ahead of some, by however little, and $\alpha_m \ge 1$ at once: two weak modalities then hold
      each other back by turns. ``ahead="average"``, ours, leaves them alone; for two modalities it is the same.

    Eq. 8 has $s_m$ as $-\log$, by which the weaker modality would be held back; text and code mean the stronger. The
    authors' code differs from the paper: sums of probabilities for $s_m$; $0.95\, e^{\tanh \Delta}$ for $\alpha$;
    the gradients of the traces with the added term; audio alone is ever regulated. It divides the last epochs' traces
    by ten though they are fewer, which opens the window in the first ten epochs whatever they are. The paper's rule,
    which is ours, leaves it shut where gradients shrink from the start, and then does nothing: look at ``information``.
    For regression, which the paper lacks, $s_m$ is the mean of $-|\hat y^m - y|$.

    The pull is that of a weight decay: a factor in the loss does not change it, and the learning rate of SGD times
    $\alpha_m \in [1, e^\beta]$ should stay below 2. Micro-batches add up until ``modulate()``, ranks too. Costs a copy
    of the encoders, which is part of the ``state_dict``. No host sync.

    Attributes:
        information: ``[2, K]``, the traces of the last but one and of the last epoch; infinite before there are any.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``.
        beta: how fast the pull grows with the gap, non-negative. The paper tries 0.1 to 1.
        threshold: the paper's $K$, non-negative. It tries 0.01 to 0.1.
        ahead: ``"any"``, the paper's; or ``"average"``, by which only those above the mean of the others are ahead.
        from_epoch: first epoch that is measured.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal`` or ``target``, or without a modality
            in it.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import InfoReg, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> balancer = InfoReg(Modalities(text=text, audio=audio))
        >>> x, y = torch.ones(1, 1), torch.zeros(1, 1)
        >>> for size in (1.0, 2.0):
        ...     text.weight.grad, audio.weight.grad = torch.tensor([[size]]), torch.tensor([[1.0]])
        ...     _ = balancer(Step(y.sum(), target=y, unimodal={"text": text(x), "audio": audio(x)}))
        ...     balancer.modulate()
        ...     balancer.end_epoch()
        >>> balancer.information
        tensor([[1., 1.],
                [4., 1.]])
    """

    needs = frozenset({"unimodal", "target"})
    records = ("scores", "gaps", "information", "pull")
    information: Tensor
    squares: Tensor
    steps: Tensor

    def __init__(
        self,
        modalities: Modalities,
        *,
        beta: float = 0.9,
        threshold: float = 0.04,
        ahead: Ahead = "any",
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if beta < 0:
            raise ValueError(f"Parameter `beta` should be non-negative. Found `beta = {beta}`.")
        if threshold < 0:
            raise ValueError(f"Parameter `threshold` should be non-negative. Found `threshold = {threshold}`.")
        if ahead not in get_args(Ahead):
            raise ValueError(f'Parameter `ahead` should be "any" or "average". Found `ahead = {ahead!r}`.')
        self.beta = beta
        self.threshold = threshold
        self.ahead: Ahead = ahead
        # Traces of the last two epochs; before them, infinity, from which nothing grows.
        self.register_buffer("information", torch.full((2, len(modalities)), torch.inf))
        self.register_buffer("squares", torch.zeros(len(modalities)))
        self.register_buffer("steps", torch.zeros(()))
        for name in modalities:
            for i, parameter in enumerate(modalities.parameters(name)):
                self.register_buffer(_key(name, i), parameter.detach().clone())
        self._scores: Tensor | None = None

    def forward(self, step: Step) -> Tensor:
        """Add one micro-batch to the scores; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        unimodal, target = outputs_of(self, step), cast(Tensor, step.target)
        scores = [_score(unimodal[name].detach(), target) for name in self.modalities]
        sums = torch.stack([*scores, torch.full_like(scores[0], len(target))])
        self._scores = sums if self._scores is None else self._scores + sums
        return loss

    @torch.no_grad()
    def modulate(self) -> None:
        """Measure the step's information, and pull the encoders that are ahead in their prime learning window."""
        super().modulate()
        sums, self._scores = cast(Tensor, self._scores), None
        self.trace = {}
        if not self.window.active:
            return
        sums = sum_over_ranks(sums)
        scores = sums[:-1] / sums[-1]
        if self.squares.device != sums.device:
            self.information, self.squares, self.steps = (
                x.to(sums.device) for x in (self.information, self.squares, self.steps)
            )
        norms = gradient_norms(self.modalities)
        counts = [len(self.modalities.gradients(name)) for name in self.modalities]
        information = (norms.square() * norms.new_tensor(counts)).to(self.squares)
        # A step that overflowed is skipped by a gradient scaler; here it must not spoil the epoch's mean.
        finite = torch.isfinite(information).all()
        self.squares.add_(information.where(finite, torch.zeros_like(information)))
        self.steps.add_(finite)
        gaps = performance_gaps(scores, self.ahead)
        pull = info_reg_coefficients(gaps, self.information.to(gaps), self.beta, self.threshold)
        for i, name in enumerate(self.modalities):
            self._pull_back(name, pull[i])
        self.trace = {"scores": scores, "gaps": gaps, "information": information, "pull": pull}

    @torch.no_grad()
    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Close the epoch's measure and remember the weights."""
        if self.window.active:
            trace = self.squares / self.steps.clamp_min(1)
            self.information.copy_(torch.stack([self.information[1], trace]))
            self.squares.zero_()
            self.steps.zero_()
            for name in self.modalities:
                for i, parameter in enumerate(self.modalities.parameters(name)):
                    setattr(self, _key(name, i), parameter.detach().clone())
        self.window.advance()

    def _pull_back(self, name: str, pull: Tensor) -> None:
        if pull.device.type == "cpu" and not pull:  # on a device the question would wait for it
            return
        for i, parameter in enumerate(self.modalities.parameters(name)):
            if parameter.grad is None:
                continue
            before = cast(Tensor, getattr(self, _key(name, i)))
            if before.device != parameter.device:
                before = before.to(parameter.device)
                setattr(self, _key(name, i), before)
            parameter.grad.add_((parameter - before) * pull.to(parameter))


def _key(name: str, i: int) -> str:
    return f"before_{name}_{i}"


def _score(output: Tensor, target: Tensor) -> Tensor:
    output = output.float()
    if not target.is_floating_point():
        return -F.cross_entropy(output, target, reduction="sum")
    error = (output - target.reshape(output.shape)).abs()
    return -error.reshape(len(target), -1).mean(dim=1).sum()
