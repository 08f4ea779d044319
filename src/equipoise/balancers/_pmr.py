"""Prototypical modal rebalance."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from equipoise.balancers._heads import outputs_in
from equipoise.balancers._per_modality import features_of
from equipoise.balancers._ranks import several_ranks, sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.prototypes import pmr_coefficients, prototype_log_probabilities, quantile_edges


class PMR(Balancer):
    r"""PMR: the modality whose features gather least around their classes is drawn to the classes' mean features.

    From [PMR: Prototypical Modal Rebalance for Multimodal Learning](https://arxiv.org/abs/2211.07089) (Fan et al., CVPR
    2023); its equations are known to us from the abstract, the authors' code and a re-implementation.

    $$
    L + \alpha \sum_m \beta_m\, \overline{-\log p^m(y)} - \mu \sum_m \gamma_m\, \overline{H(p^m)}, \qquad
    p^m(c) \propto \exp(-\lVert z^m - \mu_c^m \rVert_2), \qquad
    s_m = \sum_i p_i^m(y_i)
    $$

    - $z^m$: modality m's representation of a sample (``Step.features``); bars are means over the batch.
    - $\mu_c^m$: prototype of class c, the mean of $z^m$ over the class in the training data, taken at the end of each
      epoch and smoothed, $\mu \leftarrow (1 - \epsilon)\, \text{mean} + \epsilon \mu$ with $\epsilon$ the ``momentum``.
    - $\beta_m, \gamma_m \in [0, 1]$: how far $s_m$ lies below, or above, the mean of the others'
      (`equipoise.functional.pmr_coefficients`): the slow modality's cross-entropy (PCE) is added, and the dominant one
      is kept from deciding early by the entropy H of its predictions (PER), in the first ``entropy_epochs``.
    - $\alpha, \mu$: strengths.

    **Before there are prototypes it does nothing**, so in the first epoch. The authors start from those of the
    untrained model: ``balancer.refresh(steps)`` before the first epoch does that. Their code has prototypes from a
    tenth of the training batches, on two data sets from validation and test data, divides by zero for a class without a
    sample, puts 1 where the paper has $\beta_m$, and lacks PER; the re-implementation applies OGM-GE to more than two
    modalities, takes the entropy with another modality's prototypes, and sums it over the batch. Here a class never
    seen has no prototype: its samples are passed over until it has one.

    Any number of modalities. For regression, which the paper lacks, classes are ``bins`` of the target: of equal counts
    in the first pass over the training data (which holds all features until it knows them), and then kept; or between
    edges that you give.

    Multiply what the balancer returns, not what you give it: the terms do not follow a factor in the loss. Scores are
    summed over ranks, and over the micro-batches seen so far in the step, since the later ones are not known yet; so
    micro-batches differ from the full batch. Each epoch costs a pass over ``train``. No host sync in a step.

    Args:
        modalities: encoders with their representations in ``Step.features``.
        alpha: strength of the cross-entropy, non-negative (1 in the authors' code).
        mu: strength of the entropy, non-negative. The paper's value is not known to us.
        entropy_epochs: how many epochs from ``from_epoch`` have the entropy, non-negative; 0 for none.
        momentum: share of the old prototypes in the new, in [0, 1) (0.2 in the authors' code).
        bins: for a floating-point target, how many classes to make of it, at least 2, or the edges between them.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``features`` or ``target``, for classes without
            ``logits``, with detached features, or with others than before; ``end_epoch`` without training steps.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Warns:
        UserWarning: neither of the two terms is on.

    Example:
        >>> import torch
        >>> from equipoise import PMR, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = PMR(Modalities(text=text, audio=audio), mu=0.0)
        >>> y = torch.tensor([0, 1])
        >>> z = {"text": torch.tensor([[0.0], [4.0]]), "audio": torch.tensor([[0.0], [0.5]])}
        >>> plain = torch.zeros((), requires_grad=True)
        >>> balancer.end_epoch(train=[Step(plain, logits=torch.zeros(2, 2), target=y, features=z)])
        >>> z = {name: x.requires_grad_() for name, x in z.items()}
        >>> loss = balancer(Step(plain, logits=torch.zeros(2, 2), target=y, features=z))
        >>> balancer.trace["helped"]
        tensor([0.0000, 0.5776])
    """

    needs = frozenset({"features", "target"})
    records = ("scores", "helped", "restrained", "cross_entropy", "entropy")
    seen: Tensor
    edges: Tensor

    def __init__(
        self,
        modalities: Modalities,
        *,
        alpha: float = 1.0,
        mu: float = 0.01,
        entropy_epochs: int = 10,
        momentum: float = 0.2,
        bins: int | Sequence[float] = 5,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        for name, value in (("alpha", alpha), ("mu", mu), ("entropy_epochs", entropy_epochs)):
            if value < 0:
                raise ValueError(f"Parameter `{name}` should be non-negative. Found `{name} = {value}`.")
        if not 0 <= momentum < 1:
            raise ValueError(f"Parameter `momentum` should lie in [0, 1). Found `momentum = {momentum}`.")
        edges = [] if isinstance(bins, int) else [float(edge) for edge in bins]
        if (isinstance(bins, int) and bins < 2) or (not isinstance(bins, int) and not edges) or edges != sorted(edges):
            raise ValueError(
                "Parameter `bins` should be a number of at least 2, or edges between classes in rising order. "
                f"Found `bins = {bins}`."
            )
        if alpha == 0 and (mu == 0 or entropy_epochs == 0):
            warnings.warn("PMR does nothing with `alpha = 0` and no entropy.", stacklevel=2)
        self.alpha = alpha
        self.mu = mu
        self.entropy_epochs = entropy_epochs
        self.momentum = momentum
        self.bins = bins if isinstance(bins, int) else len(edges) + 1
        # Sized by the first training data; which classes have a prototype; edges between the bins of a target.
        self._sized = ["seen", "edges", *(_key(name) for name in modalities)]
        self.register_buffer("seen", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("edges", torch.tensor(edges))
        for name in modalities:
            self.register_buffer(_key(name), torch.zeros(0, 0))
        self._scores: Tensor | None = None

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]``, with the slow modalities' cross-entropy added and the dominant ones' entropy taken off."""
        loss = super().forward(step)
        features = features_of(self, step)
        self.trace = {}
        if not (self.window.active and len(self.seen) and loss.requires_grad):
            return loss
        if not any(x.requires_grad for x in features):
            raise ValueError(
                "PMR adds a loss on `Step.features`, which should be in the graph of `Step.loss`. Found them detached."
            )
        wide = [_wide(x) for x in features]
        self._move(wide[0].device)
        outputs = self._outputs(step)
        self._check(outputs, [x.shape[1] for x in wide])
        true = self._one_hot(cast(Tensor, step.target), outputs) & self.seen
        found = [self._read(x, self._prototypes(i), true) for i, x in enumerate(wide)]
        scores, losses, entropies = (torch.stack(part) for part in zip(*found, strict=True))
        self._scores = scores.detach() if self._scores is None else self._scores + scores.detach()
        helped, restrained = pmr_coefficients(sum_over_ranks(self._scores))
        early = self.window.epoch < self.window.from_epoch + self.entropy_epochs
        restrained = restrained if early else torch.zeros_like(restrained)
        self.trace = {
            "scores": scores.detach(),
            "helped": helped,
            "restrained": restrained,
            "cross_entropy": losses.detach(),
            "entropy": entropies.detach(),
        }
        added = self.alpha * (helped * losses).sum() - self.mu * (restrained * entropies).sum()
        return loss + added.to(loss.dtype)

    def modulate(self) -> None:
        """Close the step; the gradients are what they are."""
        super().modulate()
        self._scores = None
        if not self.window.active:
            self.trace = {}

    def end_epoch(self, *, train: Iterable[Step] = (), val: Iterable[Step] = ()) -> None:
        """Take the prototypes that the next epoch needs from ``train``."""
        if self.window.covers(self.window.epoch + 1):
            self.refresh(train)
        self.window.advance()

    @torch.no_grad()
    def refresh(self, train: Iterable[Step]) -> None:
        """Take the prototypes from these steps now; ``end_epoch`` does it with its ``train``.

        Raises:
            ValueError: no steps.
        """
        totals: list[Tensor] | None = None
        waiting: list[tuple[list[Tensor], Tensor]] = []
        outputs = 0
        for step in train:
            Balancer.forward(self, step)
            features = [_wide(x.detach()) for x in features_of(self, step)]
            target, outputs = cast(Tensor, step.target), self._outputs(step)
            self._move(target.device)
            if target.is_floating_point() and not len(self.edges):
                waiting.append((features, target))
            else:
                totals = self._add(totals, features, target, outputs)
        self._observed = False
        if totals is None and not waiting:
            raise ValueError("PMR needs the training steps. Found none. Call `balancer.end_epoch(train=steps)`.")
        if waiting:
            values = _everywhere(torch.cat([_values(target) for _, target in waiting]))
            self.edges = quantile_edges(values, self.bins)
            for features, target in waiting:
                totals = self._add(totals, features, target, outputs)
        assert totals is not None
        self._take([sum_over_ranks(total) for total in totals])

    def _add(self, totals: list[Tensor] | None, features: list[Tensor], target: Tensor, outputs: int) -> list[Tensor]:
        true = self._one_hot(target, outputs)
        # Each class's count rides along as a feature that is always one. No matrix product: autocast would round it.
        rows = [torch.cat([x, torch.ones_like(x[:, :1])], dim=1) for x in features]
        sums = [(true[:, :, None] * x[:, None]).sum(dim=0) for x in rows]
        return sums if totals is None else [a + b for a, b in zip(totals, sums, strict=True)]

    def _take(self, totals: list[Tensor]) -> None:
        counts = totals[0][:, -1:]
        now = counts > 0
        if len(self.seen):
            self._check(len(counts), [total.shape[1] - 1 for total in totals])
            before = self.seen[:, None]
        else:
            before = torch.zeros_like(now)
        for i, (name, total) in enumerate(zip(self.modalities, totals, strict=True)):
            mean = total[:, :-1] / counts.clamp_min(1)
            old = self._prototypes(i).to(mean) if len(self.seen) else mean
            new = torch.where(before, mean.lerp(old, self.momentum), mean)
            setattr(self, _key(name), torch.where(now, new, old))
        self.seen = (before | now)[:, 0]

    def _read(self, features: Tensor, prototypes: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, mean cross-entropy and mean entropy of one modality's predictions."""
        logs = prototype_log_probabilities(features, prototypes.to(features), self.seen)
        logs = logs.masked_fill(~self.seen, 0.0)
        probabilities = logs.exp() * self.seen
        rows = max(1, len(features))
        return (probabilities * true).sum(), -(logs * true).sum() / rows, -(logs * probabilities).sum() / rows

    def _outputs(self, step: Step) -> int:
        return self.bins if cast(Tensor, step.target).is_floating_point() else outputs_in(self, step)

    def _one_hot(self, target: Tensor, outputs: int) -> Tensor:
        if target.is_floating_point():
            target = (_values(target)[:, None] > self.edges.to(target)).sum(dim=1)
        return target.reshape(-1, 1) == torch.arange(outputs, device=target.device)

    def _prototypes(self, i: int) -> Tensor:
        return cast(Tensor, getattr(self, _key(self.modalities.names[i])))

    def _check(self, outputs: int, widths: list[int]) -> None:
        shapes = [tuple(self._prototypes(i).shape) for i in range(len(self.modalities))]
        found = [(outputs, width) for width in widths]
        if found != shapes:
            raise ValueError(
                "PMR should get as many classes, and features as wide, as its prototypes were taken from. "
                f"Found [classes, width] of {dict(zip(self.modalities, found, strict=True))}, after "
                f"{dict(zip(self.modalities, shapes, strict=True))}."
            )

    def _move(self, device: torch.device) -> None:
        if self.edges.device != device or self.seen.device != device:
            self.to(device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in self._sized:
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.zeros_like(saved, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _key(name: str) -> str:
    return f"prototypes_{name}"


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _values(target: Tensor) -> Tensor:
    if target.numel() != len(target):
        raise ValueError(
            "PMR makes classes of one value a sample. "
            f"Found a target of shape {tuple(target.shape)}. Give it one value of them, in a `Step` of its own."
        )
    return target.reshape(-1)


def _everywhere(values: Tensor) -> Tensor:
    """The values of all ranks."""
    if not several_ranks():
        return values
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, values.cpu())  # each rank has another number of them
    return torch.cat(parts).to(values.device)
