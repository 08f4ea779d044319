"""Balanced multi-modal learning, against greed."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.speeds import effective_updates, speed_gaps

# Of the running average of what the other modalities contribute.
_DECAY = 0.9


class Greedy(Balancer):
    r"""Balanced multi-modal learning: when one modality lags in learning speed, some steps train that one alone.

    From [Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural
    Networks](https://arxiv.org/abs/2202.05306) (Wu et al., ICML 2022), read at second hand: its abstract, and the
    authors' code.

    $$
    \mu(\theta) = \frac{\lVert g \rVert^2}{\lVert \theta \rVert^2}, \quad
    v_m = \log_{10} \frac{\sum_t \mu(\theta_m)}{\sum_t \mu(\theta'_m)}, \quad
    d_m = \operatorname{mean}_{j \neq m} v_j - v_m, \quad
    L = \ell\big(\phi(\{m\}) + \bar c_m,\ y\big)
    $$

    - $\theta_m$: parameters of modality m; $\theta'_m$: those through which the others reach its branch (``fusion``).
      Where all branches share them, as in the authors' code the parts that are nobody's, they cancel out of $d_m$: so
      it is without ``fusion``. The sums run over regular steps.
    - $d_m$: how far modality m lags. For two modalities it is the difference of the two conditional learning speeds,
      ${-v_j}$ being that of the others given j. The mean over more than two is ours.
    - If the largest $d_m$ exceeds ``alpha``, the next ``steps`` steps re-balance m: its parameters and those outside
      ``modalities`` train on $L$, and the gradients of the other modalities are None, so that no decay or momentum
      moves them either. Then comes at least one regular step.
    - $\phi(\{m\})$: ``Step.predict`` with the others absent; $\bar c_m$: running average of what they contribute, the
      mean over samples of $\phi(x) - \phi(\{m\})$, over the re-balancing steps of m so far (at first 0).

    The authors put, within their own fusion module, the running average of a gate in place of what it says of the
    sample, and go on training all. The same idea for any model is to put the average contribution in place of the
    others': for an additive fusion that is the average of their terms; the form, and the freezing, are ours. As in
    their code the logarithm is to the base ten. There the average of the first modality's gates stands for the second's
    too, and no checkpoint has the sums and averages; here each modality has its own, and all is in the ``state_dict``.

    ``Step.loss`` may hold more than ``criterion(logits, target)``, which is then left as it is. Multiply what the
    balancer returns, not what you give it. The sums begin in the first epoch, before ``from_epoch`` too, as theirs do
    (they act from the third epoch on). After a regular step, ``forward`` waits for the device once, to learn whom to
    train; a re-balancing step costs one prediction more. The trace has ``"speeds"`` (without $\theta'$: logarithms of
    the sums) and ``"lagging"``, who is re-balanced in this step.

    Args:
        modalities: encoders; their names are those that ``Step.predict`` knows.
        alpha: by how much a modality may lag, positive. The authors' 0.01 is 2 percent, so nearly any difference.
        steps: re-balancing steps in a row, at least 1.
        fusion: $\theta'$, under the same names; None where all share it.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``logits``, ``target``, ``predict`` or
            ``criterion``.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import Greedy, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> torch.nn.init.ones_(text.weight), torch.nn.init.ones_(audio.weight)
        (...)
        >>> balancer = Greedy(Modalities(text=text, audio=audio))
        >>> def predict(kept):
        ...     return 3 * text(torch.ones(4, 1)) * ("text" in kept) + audio(torch.ones(4, 1)) * ("audio" in kept)
        >>> criterion, y = torch.nn.functional.mse_loss, torch.zeros(4, 1)
        >>> for _ in range(2):
        ...     text.weight.grad = audio.weight.grad = None
        ...     logits = predict({"text", "audio"})
        ...     balancer(Step(criterion(logits, y), logits, y, predict=predict, criterion=criterion)).backward()
        ...     balancer.modulate()
        ...     print(text.weight.grad, audio.weight.grad)
        tensor([[24.]]) tensor([[8.]])
        None tensor([[2.]])
    """

    needs = frozenset({"logits", "target", "predict", "criterion"})
    records = ("speeds", "lagging")
    replaces_loss = True

    def __init__(
        self,
        modalities: Modalities,
        *,
        alpha: float = 0.01,
        steps: int = 5,
        fusion: Modalities | None = None,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if not alpha > 0:
            raise ValueError(f"Parameter `alpha` should be positive. Found `alpha = {alpha}`.")
        if steps < 1:
            raise ValueError(f"Parameter `steps` should be at least 1. Found `steps = {steps}`.")
        if fusion is not None and fusion.names != modalities.names:
            raise ValueError(
                f"Parameter `fusion` should have the modalities' names, {list(modalities)}. Found {list(fusion)}."
            )
        self.alpha = alpha
        self.steps = steps
        self.fusion = fusion
        self._left = 0  # re-balancing steps that are still to come
        self._lagging = 0
        self._fresh = False  # whether a regular step has been taken since the last decision
        self._energies = torch.zeros(1 if fusion is None else 2, len(modalities))
        self._others = torch.zeros(len(modalities), 0)  # what the others contribute, [K, outputs]
        self._met = [False] * len(modalities)
        self._sums: Tensor | None = None

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]``: ``step.loss``, or in a re-balancing step that of the modality that lags."""
        loss = super().forward(step)
        if not self.window.active:
            self._left = 0
            return loss
        if self._fresh and not self._left:
            self._decide(loss.device)
        if not self._left:
            return loss
        logits, target = cast(Tensor, step.logits), cast(Tensor, step.target)
        criterion = cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        predict = cast(Callable[[frozenset[str]], Tensor], step.predict)
        alone = predict(frozenset({self.modalities.names[self._lagging]}))
        self._observe(logits.detach() - alone.detach())
        others = self._others[self._lagging].to(alone.dtype).view(alone.shape[1:])
        return loss - criterion(logits, target) + criterion(alone + others, target)

    def modulate(self) -> None:
        """Add a regular step to the speeds, or keep the others still in a re-balancing step."""
        super().modulate()
        self.trace = {}
        self._close()
        if self.window.over:
            return
        lagging = torch.zeros(len(self.modalities), dtype=torch.bool)
        if not self._left:
            self._accumulate()
        elif not self.modalities.gradients(self.modalities.names[self._lagging]):
            self._left = 0  # it has been frozen: nothing would learn
        else:
            lagging[self._lagging] = True
            self._left -= 1
            for i, name in enumerate(self.modalities):
                for parameter in self.modalities.parameters(name) if i != self._lagging else ():
                    parameter.grad = None
        self.trace = {"speeds": self._energies[0].log10(), "lagging": lagging}

    def _decide(self, device: torch.device) -> None:
        self._fresh = False
        self._energies = self._energies.to(device)
        gaps = speed_gaps(*self._energies)
        gap, lagging = torch.stack([gaps.max(), gaps.argmax().to(gaps.dtype)]).tolist()
        if gap > self.alpha:
            self._lagging, self._left = int(lagging), self.steps

    def _accumulate(self) -> None:
        energies = [effective_updates(group) for group in (self.modalities, self.fusion) if group is not None]
        now = torch.stack(energies).float()
        # A step that overflowed is skipped by a gradient scaler; here it must not spoil the sums for good.
        self._energies = self._energies.to(now) + torch.where(torch.isfinite(now).all(), now, 0.0)
        self._fresh = True

    def _observe(self, contribution: Tensor) -> None:
        """Add the rows of a micro-batch to what the others contribute in this step."""
        contribution = contribution.to(torch.promote_types(contribution.dtype, torch.float32))
        if not self._others.numel():
            self._others = contribution.new_zeros(len(self.modalities), contribution[0].numel())
        total = contribution.reshape(len(contribution), -1).sum(dim=0)
        sums = torch.cat([total, total.new_tensor([len(contribution)])])
        self._others = self._others.to(total)
        self._sums = sums if self._sums is None else self._sums + sums

    def _close(self) -> None:
        """Let this step's contributions enter the running average; later steps see them."""
        if self._sums is None:
            return
        sums, self._sums = sum_over_ranks(self._sums), None
        mean, before = sums[:-1] / sums[-1], self._others[self._lagging]
        mean = torch.lerp(mean, before, _DECAY) if self._met[self._lagging] else mean
        self._others[self._lagging] = torch.where(torch.isfinite(mean).all(), mean, before)
        self._met[self._lagging] = True

    def get_extra_state(self) -> Tensor:
        """Phase, speeds and contributions in one row."""
        phase = torch.tensor([self._left, self._lagging, self._fresh, *self._met], dtype=torch.float64)
        return torch.cat([phase, *(part.cpu().double().flatten() for part in (self._energies, self._others))])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore them."""
        count = len(self.modalities)
        left, lagging, fresh, *met = state[: 3 + count].tolist()
        self._left, self._lagging, self._fresh, self._met = int(left), int(lagging), bool(fresh), [bool(m) for m in met]
        energies, others = state[3 + count :].cpu().tensor_split([self._energies.numel()])
        self._energies = energies.view(-1, count).float()
        self._others = others.reshape(count, -1).clone()
