"""ReconBoost."""

from __future__ import annotations

from typing import cast, get_args

import torch
from torch import Tensor

from equipoise.balancers._idle import linked
from equipoise.balancers._per_modality import outputs_of
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.boosting import Reconcilement, boosting_loss, memory_loss


class ReconBoost(Balancer):
    r"""ReconBoost: modalities take turns, and each corrects what the frozen others get wrong, as in gradient boosting.

    From [ReconBoost: Boosting Can Achieve Modality Reconcilement](https://arxiv.org/abs/2405.09321) (Hua et al., ICML
    2024), read from its abstract, summaries and the authors' code.

    Stage s belongs to modality $k = s \bmod K$. For ``epochs`` epochs it alone learns,

    $$
    L_k = -\log p^k_y - \lambda\, KL(q \,\Vert\, p^k) + \mu \lVert p^k - p^{k-1} \rVert^2, \qquad
    q = \operatorname{softmax}\Big(\sum_{j \neq k} \phi_j\Big)
    $$

    and then for ``rectify`` epochs all learn together, from ``Step.loss``.

    - $\phi_j, p^j$: what modality j alone says (``Step.unimodal``), and its softmax. The prediction is their sum, so
      ``Step.logits`` should be too: a late fusion whose terms they are.
    - $-\lambda\, KL$: reconcilement. Modality k is driven away from what the others agree on already, and its gradient
      is that of the residual $y - \lambda q$ (`equipoise.functional.boosting_loss`).
    - $\mu \lVert \cdot \rVert^2$: memory consolidation, a mean over samples and classes against the modality of the
      stage before, held fixed; none in the first stage.
    - the epochs together: global rectification.

    The authors' code has $-(1 - \lambda q_y) \log p^k_y$, which weights the samples but never pulls at a wrong class
    (``reconcilement="true_class"``), and weights of 5 and 1, whose ratio is our $\lambda$; its learning rate then means
    another thing. Both sides of its memory term are detached, so that it teaches nothing: ``memory=0`` is that code.
    It leaves modalities out of the sum until their first turn, which the rectification of the first stage ends anyway.

    For regression, which the paper lacks, modality k fits the residual $y - \sum_{j \neq k} \phi_j$ by squared error,
    whatever ``Step.loss`` is, with neither $\lambda$ nor $\mu$. Any number of modalities, in the order given; one
    whose parameters are all frozen is passed over.

    While a modality has its turn the gradients of the others are None, not zero, and a fusion that its output does not
    pass through gets none either. The optimizer's averages of them stay as they are. On several ranks, too:
    DistributedDataParallel waits for every parameter, so there the loss holds 0 times ``Step.loss`` and ``modulate()``
    drops the gradients of zero. Multiply what the balancer returns, not what you give it. Stages follow the count of
    epochs, which is all there is in the ``state_dict``; K (``epochs`` + ``rectify``) epochs are one round. No host
    sync. The trace has ``trained`` (1 for those that learn) and ``losses`` ($L_k$, 0 for the others).

    Args:
        modalities: encoders, in the order of their turns.
        epochs: of a modality's turn, at least 1. The authors' code has 4.
        rectify: epochs together after each turn, non-negative. The authors' code has 4.
        strength: the paper's $\lambda$, in [0, 1); from 1 on the loss has no lower bound.
        memory: weight $\mu$ of the memory consolidation, non-negative.
        reconcilement: ``"kl"``, or ``"true_class"`` as in the authors' code.
        from_epoch: first epoch, in which the first modality's turn starts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without ``unimodal`` or ``target``, or without a modality
            in it; an output that nothing can learn from.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found, as when a modality's output does not
            depend on its encoder.

    Example:
        >>> import torch
        >>> from equipoise import Modalities, ReconBoost, Step
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> text.weight.data, audio.weight.data = torch.tensor([[2.0]]), torch.tensor([[3.0]])
        >>> balancer = ReconBoost(Modalities(text=text, audio=audio), epochs=1, rectify=0)
        >>> x, y = torch.ones(1, 1), torch.tensor([[6.0]])
        >>> for _ in range(2):
        ...     text.weight.grad = audio.weight.grad = None
        ...     own = {"text": text(x), "audio": audio(x)}
        ...     loss = balancer(Step((sum(own.values()) - y).abs().mean(), target=y, unimodal=own))
        ...     loss.backward()
        ...     balancer.modulate()
        ...     print(balancer.turn, loss.item(), text.weight.grad, audio.weight.grad)
        ...     balancer.end_epoch()
        text 1.0 tensor([[-2.]]) None
        audio 1.0 None tensor([[-2.]])
    """

    needs = frozenset({"unimodal", "target"})
    records = ("trained", "losses")
    replaces_loss = True

    def __init__(
        self,
        modalities: Modalities,
        *,
        epochs: int = 4,
        rectify: int = 4,
        strength: float = 0.2,
        memory: float = 0.5,
        reconcilement: Reconcilement = "kl",
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if epochs < 1:
            raise ValueError(f"Parameter `epochs` should be at least 1. Found `epochs = {epochs}`.")
        if rectify < 0:
            raise ValueError(f"Parameter `rectify` should be non-negative. Found `rectify = {rectify}`.")
        if not 0 <= strength < 1:
            raise ValueError(f"Parameter `strength` should lie in [0, 1). Found `strength = {strength}`.")
        if memory < 0:
            raise ValueError(f"Parameter `memory` should be non-negative. Found `memory = {memory}`.")
        if reconcilement not in get_args(Reconcilement):
            raise ValueError(
                f'Parameter `reconcilement` should be "kl" or "true_class". Found `reconcilement = {reconcilement!r}`.'
            )
        self.epochs = epochs
        self.rectify = rectify
        self.strength = strength
        self.memory = memory
        self.reconcilement: Reconcilement = reconcilement
        self._idle: list[Tensor] = []

    @property
    def stage(self) -> int:
        """How many turns came before this epoch's."""
        return (self.window.epoch - self.window.from_epoch) // (self.epochs + self.rectify)

    @property
    def turn(self) -> str | None:
        """The modality that learns alone in this epoch; None where all do."""
        position = (self.window.epoch - self.window.from_epoch) % (self.epochs + self.rectify)
        if not self.window.active or position >= self.epochs:
            return None
        return self._turn_of(self.stage)

    def _turn_of(self, stage: int) -> str:
        trainable = [name for name in self.modalities if any(p.requires_grad for p in self.modalities.parameters(name))]
        names = trainable or self.modalities.names
        return names[stage % len(names)]

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]`` of the modality whose turn it is, or ``step.loss`` where all learn."""
        loss = super().forward(step)
        outputs = outputs_of(self, step)
        self.trace = {}
        self._idle = []
        if not self.window.active or not loss.requires_grad:
            return loss
        name = self.turn
        trained = torch.tensor([name in (None, other) for other in self.modalities], device=loss.device).to(loss.dtype)
        self.trace = {"trained": trained}
        if name is None:
            return loss
        if not outputs[name].requires_grad:
            raise ValueError(
                f"ReconBoost trains `{name}` by its own output. Found `Step.unimodal` detached. "
                "Compute it from the encoder, with gradients."
            )
        own = self._loss(name, outputs, cast(Tensor, step.target)).to(loss.dtype)
        self.trace["losses"] = own.detach() * trained
        own, self._idle = linked(own, [loss])
        return own

    def modulate(self) -> None:
        """Drop the gradients of those that wait for their turn."""
        super().modulate()
        idle, self._idle = self._idle, []
        name = self.turn
        if name is None:
            return
        others = [p for other in self.modalities if other != name for p in self.modalities.parameters(other)]
        for parameter in [*others, *idle]:
            parameter.grad = None

    def _loss(self, name: str, outputs: dict[str, Tensor], target: Tensor) -> Tensor:
        wide = {
            other: outputs[other].to(torch.promote_types(outputs[other].dtype, torch.float32))
            for other in self.modalities
        }
        others = torch.stack([output.detach() for other, output in wide.items() if other != name]).sum(dim=0)
        loss = boosting_loss(wide[name], others, target, self.strength, self.reconcilement)
        if self.memory and self.stage > 0 and not target.is_floating_point():
            before = wide[self._turn_of(self.stage - 1)]
            loss = loss + self.memory * memory_loss(wide[name], before)
        return loss
