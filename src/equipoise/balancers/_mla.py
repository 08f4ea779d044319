"""Alternating unimodal adaptation."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import cast

import torch
from torch import Tensor, nn

from equipoise.balancers._idle import linked
from equipoise.balancers._per_modality import features_of, outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.projection import damp_direction


class MLA(Balancer):
    r"""Alternating unimodal adaptation: modalities take turns to learn alone, and a shared head forgets none of them.

    From [Multimodal Representation Learning by Alternating Unimodal Adaptation](https://arxiv.org/abs/2311.10707)
    (Zhang et al., CVPR 2024), read from its abstract and the authors' code.

    $$
    L_t = \ell(\hat y^{m_t}, y), \qquad G_t \leftarrow G_t P_t, \qquad
    P_{t+1} \propto P_t - \frac{P_t r_t r_t^\top P_t}{\alpha + r_t^\top P_t r_t}, \qquad P_0 = I
    $$

    - $m_t$: whose turn step t is, round robin in the order of ``modalities``; $\hat y^m$: what modality m alone says
      (``Step.unimodal``); $\ell$: ``Step.criterion``.
    - $G_t$: gradient of the shared ``head``'s weight ``[C, d]``. $P_t$ turns it away from the features of the turns
      before, so that what the head says of those hardly changes (`equipoise.functional.damp_direction`).
    - $r_t$: mean over the step's samples of the features of $m_t$ ``[d]``, of all micro-batches and ranks;
      $\alpha$: how strict.

    A step is all micro-batches up to ``modulate()``: one turn. The paper gives every batch K optimizer steps, one a
    modality; a balancer does not own the loop, so here each optimizer step trains one modality, and **each sees one
    batch in K**: for as many steps a modality as before, train K times as many epochs. All other modalities are frozen:
    their gradients are None, so that no decay or momentum moves them. A modality without trainable parameters has no
    turn. ``Step.loss`` is replaced, and parameters that only it reaches, a fusion's, get no gradient (as in `UME`).
    For prediction join the modalities' outputs: `equipoise.functional.uncertainty_ensemble` weighs them for each sample
    by their entropy, as the paper does at test time; for regression, which it lacks, `ensemble` takes the mean.

    ``head`` is one `nn.Linear` that reads every modality's ``Step.features``, all as wide as its input. With None,
    modalities with heads of their own (or a late fusion's terms), there is nothing to project, and MLA is the
    alternation alone. A bias is not projected.

    Where the authors' code differs: it updates P with the features of the *present* modality before it projects, so
    each also shuns itself; it divides elementwise by the outer product $\alpha + k r$ where the scalar $\alpha + r k$
    belongs; P's Frobenius norm becomes 1, which shrinks the head's steps by $\sqrt d$, where here it becomes $\sqrt d$,
    the identity's; it lowers $\alpha$ from 0.1 to 0.01 over each epoch, whose length no balancer knows; and it finds
    the head by a name that exists only under DataParallel. Another version adds the projected gradient to the plain
    one, which projects nothing.

    Several ranks: as for `UME`, ``Step.loss`` and the waiting modalities' losses are added with factor 0, and the zeros
    dropped: DistributedDataParallel needs no ``find_unused_parameters``. P and the turn are in the ``state_dict``.
    The trace has ``"trained"`` and the last micro-batch's ``"losses"``. Multiply what the balancer returns, not what
    you give it. No host sync.

    Args:
        modalities: encoders (with their own heads, where they have some), with an output in ``Step.unimodal``.
        head: the shared linear head, outside of ``modalities``; None for no projection.
        alpha: what is left of a direction, positive; small is strict.
        normalise: keep P at the identity's norm; False lets the head's steps fade as features fill its directions.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal``, ``target`` or ``criterion`` (with a
            head ``features`` too), or without a modality in it; features of another width than the head's.
        RuntimeError: ``modulate()`` before ``forward``; no gradient found, or none of the head in a whole round.

    Example:
        >>> import torch
        >>> from equipoise import MLA, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(1, 2, bias=False)
        >>> text.weight.data, audio.weight.data = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [1.0]])
        >>> head = torch.nn.Linear(2, 1, bias=False)
        >>> balancer = MLA(Modalities(text=text, audio=audio), head=head, alpha=1.0, normalise=False)
        >>> x, y = torch.ones(4, 1), torch.zeros(4, 1)
        >>> for _ in range(2):
        ...     text.weight.grad = audio.weight.grad = head.weight.grad = None
        ...     features = {"text": text(x), "audio": audio(x)}
        ...     own = {name: head(feature) for name, feature in features.items()}
        ...     balancer(Step(y.sum(), None, y, own, features, criterion=lambda x, _: x.mean())).backward()
        ...     balancer.modulate()
        ...     print(balancer.trace["trained"].tolist(), head.weight.grad)
        [True, False] tensor([[2., 0.]])
        [False, True] tensor([[0.2000, 1.0000]])
    """

    needs = frozenset({"unimodal", "target", "criterion"})
    records = ("trained", "losses")
    replaces_loss = True
    projection: Tensor | None

    def __init__(
        self,
        modalities: Modalities,
        *,
        head: nn.Module | None = None,
        alpha: float = 0.1,
        normalise: bool = True,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if not (isfinite(alpha) and alpha > 0):
            raise ValueError(f"Parameter `alpha` should be positive. Found `alpha = {alpha}`.")
        self.alpha = alpha
        self.normalise = normalise
        self._weight: list[Tensor] = []  # in a list, so that no weight of the model enters the state_dict
        projection = None
        if head is not None:
            weight = _weight_of(head, modalities)
            self._weight = [weight]
            self.needs = self.needs | {"features"}
            wide = torch.promote_types(weight.dtype, torch.float32)
            projection = torch.eye(weight.shape[1], dtype=wide, device=weight.device)
        self.register_buffer("projection", projection)
        self._turn = 0
        self._without_head = 0
        self._idle: list[Tensor] = []
        self._sums: Tensor | None = None

    @property
    def turn(self) -> str | None:
        """The modality that learns in this step; None outside of the epochs in which MLA acts."""
        names = self._trainable()
        return names[self._turn % len(names)] if names and self.window.active else None

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]`` of the modality whose turn it is; multiply what this returns, not what you give it."""
        loss = super().forward(step)
        outputs, criterion = outputs_of(self, step), cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        features = self._features(step)
        self.trace = {}
        self._idle = []
        if (name := self.turn) is None:
            return loss
        target = cast(Tensor, step.target)
        losses = {other: criterion(outputs[other], target) for other in self.modalities}
        trained = torch.tensor([other == name for other in self.modalities])
        self.trace = {"trained": trained, "losses": torch.stack([each.detach() for each in losses.values()])}
        if name in features:
            rows = features[name].detach().to(cast(Tensor, self.projection).dtype)
            sums = torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])])
            self._sums = sums if self._sums is None else self._sums + sums
        own = losses.pop(name)
        linked_loss, self._idle = linked(own, [loss, *losses.values()])
        return linked_loss

    def modulate(self) -> None:
        """Freeze the others, project the head's gradient, and give the turn to the next."""
        super().modulate()
        idle, self._idle = self._idle, []
        sums, self._sums = self._sums, None
        if (name := self.turn) is None:
            return
        others = [p for other in self.modalities if other != name for p in self.modalities.parameters(other)]
        for parameter in [*others, *idle]:
            parameter.grad = None
        if not self.modalities.gradients(name):
            raise RuntimeError(
                f"MLA found no gradient in `{name}`, whose turn it is. Compute `Step.unimodal` from its encoder, not "
                "detached, and backpropagate the loss that the balancer returned."
            )
        self._turn += 1
        if sums is not None:
            self._project(sum_over_ranks(sums))

    @torch.no_grad()
    def _project(self, sums: Tensor) -> None:
        projection, gradient = cast(Tensor, self.projection).to(sums.device), self._weight[0].grad
        self._without_head = 0 if gradient is not None else self._without_head + 1
        if self._without_head >= len(self._trainable()):
            raise RuntimeError(
                "MLA found no gradient of `head` in a whole round of turns. "
                "Give the head that every modality's output in `Step.unimodal` comes from, or None."
            )
        if gradient is not None:
            gradient.copy_(gradient.to(projection.dtype) @ projection)
        self.projection = damp_direction(projection, sums[:-1] / sums[-1], self.alpha, normalise=self.normalise)

    def _features(self, step: Step) -> dict[str, Tensor]:
        if not self._weight:
            return {}
        features = dict(zip(self.modalities, features_of(self, step), strict=True))
        width = self._weight[0].shape[1]
        if any(x.shape[1] != width for x in features.values()):
            widths = {name: x.shape[1] for name, x in features.items()}
            raise ValueError(
                f"MLA's shared `head` reads features {width} wide. Found {widths} in `Step.features`. "
                "Bring all modalities to that width, or leave `head` out where each has its own."
            )
        return features

    def _trainable(self) -> list[str]:
        return [name for name in self.modalities if any(p.requires_grad for p in self.modalities.parameters(name))]

    def get_extra_state(self) -> Tensor:
        """Turns so far."""
        return torch.tensor([self._turn])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore them."""
        self._turn = int(state[0])


def _weight_of(head: nn.Module, modalities: Modalities) -> nn.Parameter:
    weight = getattr(head, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.dim() != 2:
        raise ValueError(f"Parameter `head` should be one linear layer, with a weight [C, d]. Found {head!r}.")
    for name in modalities:
        if any(parameter is weight for parameter in modalities.parameters(name)):
            raise ValueError(
                f"Parameter `head` should lie outside of `modalities`: it would rest in the others' turns. "
                f"Found it in `{name}`."
            )
    return weight
