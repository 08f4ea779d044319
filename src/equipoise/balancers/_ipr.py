"""Invariant-feature parameter reset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import torch
from torch import Tensor

from equipoise.balancers._initial import Initial
from equipoise.balancers._per_modality import features_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.modulation import Direction, cosine_distances, ipr_resets, mean_distances


class IPR(Balancer):
    r"""Invariant-feature parameter reset: each epoch's end takes parameters back to their start, by feature distance.

    From [Feature Decoupling with Modality Modulation for Multimodal Sentiment
    Analysis](https://scholar.google.com/scholar?q=MMAFNet) (Wang et al., MMAFNet; the link is a search, for we know of
    no address of its own), Eqs. 11–15.

    $$
    D_m = \operatorname{mean}_{j \neq m} \big( 1 - \cos(Z_m^c, Z_j^c) \big), \quad
    \phi_m = \max(\tanh(D_m), \delta), \quad
    \theta_m \leftarrow \phi_m \theta_m^{init} + (1 - \phi_m) \theta_m
    $$

    - $Z_m^c$: modality m's representation in a space that all share (``Step.features``, all of one width).
    - $D_m$: between 0 and 2; the paper takes modalities that are close to have learnt well.
    - $\theta_m$: parameters of m, in the paper the self-attention behind the shared encoder; $\theta_m^{init}$: as the
      first `Step` found them.
    - $\delta$: the least share that is reset.

    Text and equation disagree. The equation resets the most *distant* modality most; the text has the stronger ones
    reset more, and those are to it the close ones. ``direction="paper"`` is the equation; ``"stronger"`` is the text's
    reading, whose formula is ours: distances are mirrored, $\min_j D_j + \max_j D_j - D_m$. Of two modalities one is as
    far as the other, so that both are reset alike in either direction; it takes three to tell them apart. Equal
    modalities are reset too, by $\delta$.

    The paper does not say on what $D_m$ is measured: here on all samples of the epoch, as training saw them, so that it
    costs no pass of its own. Features should be drawn together, as the paper's $L_{sim}$ does: else
    $D_m \approx 1$ (behind a ReLU less), and more than half of what was learnt is lost in every epoch.

    It acts in ``end_epoch()``, so what is measured after it is the model as reset: let ``until_epoch`` be well below
    the number of epochs. Optimizer state (momentum, Adam's averages) and what modules keep beside their parameters
    (batch norm's statistics) are left alone. It costs a copy of the parameters, also in the ``state_dict``. Ranks are
    averaged and reset alike. Any number of modalities and any task; the target is not read.

    Args:
        modalities: what makes the shared representation of each modality.
        delta: the least reset, in [0, 1].
        direction: ``"paper"`` or ``"stronger"``.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts (the paper's is the 25th of 50); None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``features``, without a modality in it, or of several
            widths.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found; ``end_epoch()`` after an epoch without
            steps.

    Example:
        >>> import torch
        >>> from equipoise import IPR, Modalities, Step
        >>> text, audio = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
        >>> _ = torch.nn.init.ones_(text.weight)
        >>> balancer = IPR(Modalities(text=text, audio=audio))
        >>> x = {"text": torch.tensor([[1.0, 0.0]]), "audio": torch.tensor([[0.0, 1.0]])}  # D = 1, tanh(1) = 0.7616
        >>> balancer(Step(text(x["text"]).sum() + audio(x["audio"]).sum(), features=x)).backward()
        >>> balancer.modulate()
        >>> _ = torch.nn.init.zeros_(text.weight)  # what it would have learnt
        >>> balancer.end_epoch()
        >>> torch.equal(text.weight[0, 0], balancer.trace["resets"].max())
        True
    """

    needs = frozenset({"features"})
    records = ("distances",)
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        modalities: Modalities,
        *,
        delta: float = 0.1,
        direction: Direction = "paper",
        from_epoch: int = 0,
        until_epoch: int | None = 25,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if not 0 <= delta <= 1:
            raise ValueError(f"Parameter `delta` should lie in [0, 1]. Found `delta = {delta}`.")
        if direction not in get_args(Direction):
            raise ValueError(
                f'Parameter `direction` should be "paper" or "stronger". Found `direction = {direction!r}`.'
            )
        self.delta = delta
        self.direction: Direction = direction
        self.register_buffer("sums", torch.zeros(len(modalities), len(modalities)))
        self.register_buffer("counts", torch.zeros(len(modalities), len(modalities)))
        self.initial = Initial(modalities)
        self._batch: Tensor | None = None

    def forward(self, step: Step) -> Tensor:
        """Measure one micro-batch; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        # Not in the constructor: ranks have not met there, and weights may yet be loaded.
        self.initial.take()
        if self.window.active:
            features = [x.detach() for x in features_of(self, step)]
            widths = {name: x.shape[1] for name, x in zip(self.modalities, features, strict=True)}
            if len(set(widths.values())) > 1:
                raise ValueError(
                    "IPR compares representations of one width in `Step.features`. "
                    f"Found {widths}. Project them to one."
                )
            batch = torch.stack(cosine_distances(features))
            self._batch = batch if self._batch is None else self._batch + batch
        return loss

    def modulate(self) -> None:
        """Add the step to the epoch's distances; gradients stay as they are."""
        super().modulate()
        batch, self._batch = self._batch, None
        self.trace = {}
        if not self.window.active or batch is None:
            return
        batch = sum_over_ranks(batch)
        if self.sums.device != batch.device:
            self.sums, self.counts = self.sums.to(batch.device), self.counts.to(batch.device)
        # A step that overflowed is skipped by a gradient scaler; here it must not spoil the epoch.
        batch = torch.where(torch.isfinite(batch).all(), batch, torch.zeros_like(batch))
        self.sums += batch[0]
        self.counts += batch[1]
        self.trace = {"distances": mean_distances(self.sums, self.counts)}

    @torch.no_grad()
    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Take the parameters back towards their start."""
        if self.window.active:
            if not bool(self.counts.any()):
                raise RuntimeError(
                    "IPR.end_epoch() found no features in this epoch. Call `loss = balancer(step)` and "
                    "`balancer.modulate()` in every optimizer step."
                )
            distances = mean_distances(self.sums, self.counts)
            resets = ipr_resets(distances, self.delta, self.direction)
            self.initial.restore(resets)
            self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)
            self.trace = {"distances": distances, "resets": resets}
        super().end_epoch(train=train, val=val)
