"""MMPareto: unimodal losses whose gradients do not fight the multimodal one."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from equipoise.balancers._per_modality import outputs_of
from equipoise.balancers._ranks import sum_over_ranks
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.pareto import mm_pareto_weights

Pair = tuple[Tensor, Tensor]


class MMPareto(Balancer):
    r"""MMPareto: each encoder also learns from its modality's own loss, in a direction that serves both losses.

    From [MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance](https://arxiv.org/abs/2405.17730)
    (Wei and Hu, ICML 2024), read from its abstract and the authors' code.

    $$
    h^m = \gamma \lambda^m \, (2 \alpha^m_{mm} g^m_{mm} + 2 \alpha^m_u g^m_u), \qquad
    \lambda^m = \max\!\Big(1, \frac{\lVert g^m_{mm} + g^m_u \rVert}
    {\lVert 2 \alpha^m_{mm} g^m_{mm} + 2 \alpha^m_u g^m_u \rVert}\Big)
    $$

    - $g^m_{mm}$: gradient of ``Step.loss`` in encoder m; $g^m_u$: of the unimodal losses, ``Step.criterion`` of
      ``Step.unimodal``, of which an encoder that reads its own modality alone sees its own.
    - $\alpha^m$: 1/2 each where the two agree ($g^m_{mm} \cdot g^m_u \ge 0$); where they conflict, the weights of their
      shortest convex combination, a direction that lowers both losses (`equipoise.functional.pareto_share`).
    - $\lambda^m$: gives the joined gradient the length of the plain sum, which conflict would shorten;
      $\gamma$: lengthens it further. Both enhance the noise of SGD. Adam cancels a constant $\gamma$.

    Everything else, heads and fusion, learns from the sum of all losses, which is what is returned. Keep unimodal
    losses out of ``Step.loss``: there they would count as multimodal.

    The authors' code enlarges each parameter tensor on its own, which turns the direction away from the one just
    found; we enlarge the encoder as a whole. It also counts a right angle as a conflict.

    Both gradients are taken during ``loss.backward()``, with the weight that the loop, or a gradient scaler, gave to
    the loss: micro-batches and ranks add up to the full batch, and ``modulate()`` reads from ``p.grad`` what was
    unscaled since. That costs two more backward passes through the encoders (the authors' code takes three more) and
    two copies of their gradients. What is backpropagated beside the returned loss is not seen. No host sync.

    Args:
        modalities: encoders with an output of their own in ``Step.unimodal``, from features that are not detached.
        gamma: enlargement, positive. The authors' code has 1.5.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal``, ``target`` or ``criterion``, or without
            a modality in it; unimodal losses that reach no encoder.
        RuntimeError: ``modulate()`` before ``forward`` or without a backward of what it returned, or no gradient found.

    Example:
        >>> import torch
        >>> from equipoise import MMPareto, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> text.weight.data, audio.weight.data = torch.tensor([[1.0]]), torch.tensor([[-3.0]])
        >>> balancer = MMPareto(Modalities(text=text, audio=audio), gamma=1.0)
        >>> x, y = torch.ones(1, 1), torch.zeros(1, 1)
        >>> own = {"text": text(x), "audio": audio(x)}
        >>> criterion = torch.nn.functional.mse_loss
        >>> plain = criterion(own["text"] + own["audio"], y)
        >>> loss = balancer(Step(plain, target=y, unimodal=own, criterion=criterion))
        >>> loss.backward()
        >>> balancer.modulate()
        >>> balancer.trace["cosines"]
        tensor([-1.,  1.])
    """

    needs = frozenset({"unimodal", "target", "criterion"})
    records = ("cosines", "conflicts", "multimodal", "unimodal")
    replaces_loss = True

    def __init__(
        self, modalities: Modalities, *, gamma: float = 1.5, from_epoch: int = 0, until_epoch: int | None = None
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if gamma <= 0:
            raise ValueError(f"Parameter `gamma` should be positive. Found `gamma = {gamma}`.")
        self.gamma = gamma
        self._sums: dict[nn.Parameter, Pair] | None = None

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]`` with the unimodal losses added; multiply what this returns, not what you give it."""
        loss = super().forward(step)
        if not self.window.active or not loss.requires_grad:
            return loss
        outputs, criterion = outputs_of(self, step), cast(Callable[[Tensor, Tensor], Tensor], step.criterion)
        own = torch.stack([criterion(outputs[name], cast(Tensor, step.target)) for name in self.modalities]).sum()
        total = loss + own
        total.register_hook(lambda weight: self._measure(loss, own, weight))  # type: ignore[no-untyped-call]
        return total

    def modulate(self) -> None:
        """Join the two gradients of each encoder."""
        super().modulate()
        sums, self._sums = self._sums, None
        self.trace = {}
        if not self.window.active:
            return
        if sums is None:
            raise RuntimeError(
                "MMPareto.modulate() found no backward of the loss that it returned. "
                "Call `loss = balancer(step)` and then `loss.backward()` on that very loss."
            )
        groups = [[(p, *sums[p]) for p in self.modalities.parameters(name) if p in sums] for name in self.modalities]
        # Every rank goes through the same parameters in the same order, whether or not it has a gradient of them.
        groups = [[(p, sum_over_ranks(a), sum_over_ranks(b)) for p, a, b in group] for group in groups]
        moving = [[(p.grad, a, b) for p, a, b in group if p.grad is not None] for group in groups]
        device = next(gradient.device for group in moving for gradient, _, _ in group)
        products = torch.stack([_products(group).to(device) for group in moving], dim=1)
        multimodal, unimodal, product, squares, scaled = products
        # p.grad is the sum of both, in the unit to which it was unscaled and averaged since.
        unit = torch.where(squares > 0, scaled / squares.where(squares > 0, torch.ones_like(squares)), 0.0)
        first, second = mm_pareto_weights(multimodal, unimodal, product, self.gamma)
        for group, of_sum, of_multimodal in zip(moving, second, unit * (first - second), strict=True):
            for gradient, a, _ in group:
                gradient.mul_(of_sum.to(gradient)).add_(a * of_multimodal.to(a))
        self.trace = _trace(multimodal, unimodal, product, unit) | {"multimodal": first, "unimodal": second}

    def _measure(self, loss: Tensor, own: Tensor, weight: Tensor) -> None:
        parameters = [p for name in self.modalities for p in self.modalities.parameters(name) if p.requires_grad]
        if not parameters:
            return
        found = [
            torch.autograd.grad(each, parameters, weight, retain_graph=True, allow_unused=True)
            if each.requires_grad
            else (None,) * len(parameters)
            for each in (loss, own)
        ]
        if all(gradient is None for gradient in found[1]):
            raise ValueError(
                f"MMPareto found no gradient of the unimodal losses in {self.modalities!r}. "
                "Compute `Step.unimodal` from the encoders' features as they are, not detached."
            )
        sums = {} if self._sums is None else self._sums
        for parameter, *pair in zip(parameters, *found, strict=True):
            a, b = (torch.zeros_like(parameter) if gradient is None else gradient for gradient in pair)
            before = sums.get(parameter)
            sums[parameter] = (a, b) if before is None else (before[0] + a, before[1] + b)
        self._sums = sums


def _products(group: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Over one encoder: both gradients' squares and their product, the square of their sum, its product with p.grad."""
    rows = [torch.zeros(5)]
    for triple in group:
        wide = torch.promote_types(triple[0].dtype, torch.float32)
        gradient, a, b = (x.to(wide).flatten() for x in triple)
        both = a + b
        pairs = ((a, a), (b, b), (a, b), (both, both), (gradient, both))
        rows.append(torch.stack([torch.dot(x, y) for x, y in pairs]))
    return torch.stack([row.to(rows[-1]) for row in rows]).sum(dim=0)


def _trace(multimodal: Tensor, unimodal: Tensor, product: Tensor, unit: Tensor) -> dict[str, Tensor]:
    lengths = (multimodal * unimodal).sqrt()
    cosines = (product / lengths.where(lengths > 0, torch.ones_like(lengths))).clamp(-1, 1)
    return {
        "cosines": cosines,
        "conflicts": product < 0,
        "multimodal_norms": multimodal.sqrt() * unit,
        "unimodal_norms": unimodal.sqrt() * unit,
    }
