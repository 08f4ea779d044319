"""Diagnosing and re-learning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from equipoise.balancers._initial import Initial
from equipoise.balancers._per_modality import features_of
from equipoise.balancers._ranks import rows_of_all_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.clustering import kmeans, purity, relearning_strengths


class Relearning(Balancer):
    r"""Diagnosing and re-learning: now and then every encoder goes back to its start, as far as it has overfitted.

    From [Diagnosing and Re-learning for Balanced Multimodal Learning](https://arxiv.org/abs/2407.09705) (Wei et al.,
    ECCV 2024), read from its abstract, a summary and the authors' code.

    $$
    a_m = \tanh(\lambda \lvert P_m^{train} - P_m^{val} \rvert), \qquad
    \theta_m \leftarrow (1 - a_m)\, \theta_m + a_m\, \theta_m^{init}
    $$

    - $P_m$: purity of the clusters that k-means finds in modality m's representations (``Step.features``), as many as
      there are classes: the share of samples that belong to their cluster's commonest class. Every dimension is scaled
      to [-1, 1] first, training and validation data apart.
    - $\theta_m, \theta_m^{init}$: parameters of encoder m at the end of an epoch, and when the first step was seen.
    - $\lambda$: ``strength``.

    An encoder that separates classes in training data alone has memorised, and starts over; one that has learnt little,
    or what holds for validation data too, goes on. Equal modalities go back alike: it does not compare them.

    As in the authors' code only parameters go back: running statistics of batch norm stay, and so does what the
    optimizer remembers. That code acts after 21, 41 and 61 of 90 epochs, this after 20, 40 and 60: choose ``every`` so
    that the last reset leaves time to learn. It matches parameters by parts of their names, and puts new tensors in
    their place; we have `Modalities`, and change parameters where they are.

    For regression, which the paper lacks, the classes are ``bins`` of equally many training targets (of several targets
    a sample, their mean). The k-means is our own: k-means++, the best of ten starts, the same on all ranks, whose rows
    are put together. It reads the features of both splits as whole matrices, at the epochs that it acts in, and waits
    for the device there; steps cost nothing. It costs a copy of the encoders, which is part of the ``state_dict``.

    ``trace`` keeps ``strengths`` ($a_m$), ``train_purity`` and ``val_purity`` of the last diagnosis, and 0 before.

    Args:
        modalities: encoders with a representation in ``Step.features``.
        strength: the paper's $\lambda$, positive.
        every: epochs between two resets, at least 1.
        times: resets in all, at least 1; None for no limit.
        bins: classes made of floating-point targets, at least 2.
        seed: of the k-means.
        from_epoch: first epoch that counts.
        until_epoch: first epoch after which nothing is reset any more; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``features`` or ``target``, or without a modality
            in it; ``end_epoch`` without training or validation steps when a reset is due.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found; a reset before any step.

    Example:
        >>> import torch
        >>> from equipoise import Modalities, Relearning, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = Relearning(Modalities(text=text, audio=audio), strength=1.0, every=1)
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> def step(*audio):
        ...     features = {"text": torch.tensor([[0.0], [0.0], [1.0], [1.0]]), "audio": torch.tensor([audio]).T}
        ...     return Step(torch.zeros(()), target=y, features=features)
        >>> _ = balancer(step(0.0, 0.0, 1.0, 1.0))
        >>> balancer.end_epoch(train=[step(0.0, 0.0, 1.0, 1.0)], val=[step(0.0, 1.0, 0.0, 1.0)])
        >>> balancer.trace["val_purity"], balancer.trace["strengths"]  # tanh(1 - 1), tanh(1 - 0.5)
        (tensor([1.0000, 0.5000]), tensor([0.0000, 0.4621]))
    """

    needs = frozenset({"features", "target"})
    records = ("strengths", "train_purity", "val_purity")
    diagnosis: Tensor

    def __init__(
        self,
        modalities: Modalities,
        *,
        strength: float = 3.0,
        every: int = 20,
        times: int | None = 3,
        bins: int = 3,
        seed: int = 0,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if strength <= 0:
            raise ValueError(
                f"Parameter `strength` should be positive, or no encoder goes back. Found `strength = {strength}`."
            )
        if every < 1:
            raise ValueError(f"Parameter `every` should be at least 1. Found `every = {every}`.")
        if times is not None and times < 1:
            raise ValueError(f"Parameter `times` should be at least 1, or None for no limit. Found `times = {times}`.")
        if bins < 2:
            raise ValueError(f"Parameter `bins` should be at least 2. Found `bins = {bins}`.")
        self.strength = strength
        self.every = every
        self.times = times
        self.bins = bins
        self.seed = seed
        self.initial = Initial(modalities)
        self.register_buffer("diagnosis", torch.zeros(3, len(modalities)))

    def forward(self, step: Step) -> Tensor:
        """Note where the encoders start; the loss ``[]`` is returned as it is."""
        loss = super().forward(step)
        features_of(self, step)
        # Not in the constructor: ranks have not met there, and weights may yet be loaded.
        self.initial.take()
        return loss

    def modulate(self) -> None:
        """Gradients stay as they are."""
        super().modulate()
        self.trace = self._traced() if self.window.active else {}

    @torch.no_grad()
    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Diagnose the encoders and take them back, in the epochs that it is due; the steps are read only then."""
        if self.window.active and self._due():
            if not bool(self.initial.get_extra_state()):
                raise RuntimeError(
                    "Relearning.end_epoch() knows no start to go back to. Call `loss = balancer(step)` in every step."
                )
            purities = self._purities(self._read("train", train), self._read("val", val))
            strengths = relearning_strengths(purities[0], purities[1], self.strength)
            self.initial.restore(strengths)
            self.diagnosis = torch.cat([strengths[None], purities])
            self.trace = self._traced()
        self.window.advance()

    def _traced(self) -> dict[str, Tensor]:
        return dict(zip(("strengths", "train_purity", "val_purity"), self.diagnosis, strict=True))

    def _due(self) -> bool:
        done = self.window.epoch + 1 - self.window.from_epoch
        return done % self.every == 0 and (self.times is None or done // self.every <= self.times)

    def _read(self, split: str, steps: Iterable[Step]) -> tuple[list[Tensor], Tensor]:
        """Features ``[N, d_m]`` of each modality, and targets ``[N]``, of a whole split."""
        features: list[list[Tensor]] = []
        targets: list[Tensor] = []
        for step in steps:
            Balancer.forward(self, step)
            features.append([x.detach() for x in features_of(self, step)])
            target = cast(Tensor, step.target).detach()
            targets.append(target.reshape(len(target), -1).mean(dim=1) if target.is_floating_point() else target)
        self._observed = False
        if not targets:
            raise ValueError(
                f"Relearning needs the steps of both splits. Found none in `{split}`. "
                "Call `balancer.end_epoch(train=steps, val=steps)`."
            )
        whole = [rows_of_all_ranks(torch.cat(list(parts))) for parts in zip(*features, strict=True)]
        return whole, rows_of_all_ranks(torch.cat(targets).flatten())

    def _purities(self, train: tuple[list[Tensor], Tensor], val: tuple[list[Tensor], Tensor]) -> Tensor:
        classes = [train[1], val[1]]
        if classes[0].is_floating_point():
            shares = torch.linspace(0, 1, self.bins + 1, dtype=classes[0].dtype, device=classes[0].device)[1:-1]
            edges = torch.quantile(classes[0], shares)
            classes = [torch.bucketize(values, edges) for values in classes]
        count = len(torch.unique(classes[0]))
        found = [
            torch.stack([purity(kmeans(_scaled(x), count, seed=self.seed), own) for x in features])
            for (features, _), own in zip((train, val), classes, strict=True)
        ]
        return torch.stack(found)


def _scaled(x: Tensor) -> Tensor:
    """Every column to [-1, 1]; one of equal values to 0."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    low, high = x.amin(dim=0), x.amax(dim=0)
    return torch.where(high > low, (2 * x - low - high) / (high - low).clamp_min(torch.finfo(x.dtype).tiny), 0.0)
