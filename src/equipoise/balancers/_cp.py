"""Conflict-aware penalty."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from equipoise.balancers._per_modality import features_of
from equipoise.balancers._ranks import several_ranks, sum_with_gradient
from equipoise.core import ApplyTo, Balancer, FactorScaling, Modalities, Step
from equipoise.functional.conflict import conflict_degrees, cp_factors, dominance_ratios, norm_conflicts
from equipoise.functional.losses import root
from equipoise.functional.norms import gradient_norms

Mode = Literal["gradient", "loss"]


class CP(Balancer):
    r"""Conflict-aware penalty: a modality whose gradients are too large for the others' is held back by as much.

    After [A Conflict-Aware Penalty and Statistical Loss Framework for Balancing Modalities and Enhancing Stability in
    Multimodal Sentiment Analysis](https://arxiv.org/abs/2605.28575) (2026). **The formulas are ours.** We know the
    paper by its abstract, fragments and a review, which says that no equation of the penalty is given: it "detects and
    penalizes gradient norm conflicts at each training step". Two readings are built. With ``mode="gradient"``

    $$
    \rho_m = \frac{g_m}{\operatorname{mean}_{j \neq m} g_j}, \qquad
    c_m = \max(0, \rho_m - 1 - \tau), \qquad
    \lambda_m = \frac{1}{1 + \lambda c_m}
    $$

    - $g_m$: norm of modality m's gradients, as `equipoise.functional.gradient_norms` takes it.
    - $c_m$: degree of the conflict; one exists where any is positive. Of three modalities two may be in conflict with
      the third; a modality beside zeros alone is in conflict with nobody.
    - $\lambda_m$: the factor on its gradients, 1 for everyone who is in no conflict.
    - $\lambda$ (``lambda_cp``): strength. With 1 and $\tau = 0$ a norm that is too large becomes the others' mean.
    - $\tau$ (``tolerance``): by which share a norm may exceed the others' mean.

    and with ``mode="loss"`` a penalty is added to the loss, and changes what all parameters learn that it depends on:

    $$
    L + \lambda P, \qquad
    P = \sum_{i < j} \Big( \frac{g_i - g_j}{g_i + g_j} \Big)^2, \qquad
    g_m = \Big\lVert \frac{\partial L}{\partial f_m} \Big\rVert_F
    $$

    - $f_m$: the encoder's output on the whole batch (``Step.features``).
    - $P$: between 0 and one a pair, whatever the scale of $L$; it needs no $\tau$.

    The latter goes backwards twice through what lies between features and loss, which must allow that: cuDNN's
    recurrent layers and fused attention do not. Multiply what the balancer returns, not what you give it: $P$ does not
    follow a factor in the loss. $g_m$ is a statistic of the batch, so micro-batches differ from the full batch; ranks
    are summed up with a gradient and equal one, each weighted by its rows, as long as every rank's loss is a mean.

    Any number of modalities and any loss, regression too. ``trace`` holds what the paper's reviewers missed: ``norms``,
    ``conflict`` ($c_m$), ``exists`` (a conflict, the same for all), ``dominance`` ($\rho_m$), and as the mode has it
    ``factors`` and ``dominance_after`` (of the norms times the factors), or ``penalty`` (each modality's share of $P$;
    of the last micro-batch, as the rest then). No host sync on a GPU.

    Args:
        modalities: encoders or fusion branches; for ``"loss"`` with their representations in ``Step.features``.
        mode: ``"gradient"`` (needs nothing but gradients) or ``"loss"``.
        lambda_cp: strength, non-negative; 0 changes nothing and only measures.
        tolerance: non-negative; for ``"loss"`` it tells what is reported as a conflict, no more.
        apply_to: ``"gradient"`` or ``"update"`` (the latter needs ``attach(optimizer)``), for ``mode="gradient"``.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; for ``"loss"`` a `Step` without ``features``, or with others than
            those that ``loss`` was computed from.
        RuntimeError: ``modulate()`` found no gradient in ``modalities``.

    Example:
        >>> import torch
        >>> from equipoise import CP, Modalities
        >>> text, audio = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        >>> balancer = CP(Modalities(text=text, audio=audio), lambda_cp=1.0, tolerance=0.5)
        >>> text.weight.grad, audio.weight.grad = torch.tensor([[5.0]]), torch.tensor([[2.0]])
        >>> balancer.modulate()
        >>> balancer.trace["conflict"], balancer.trace["factors"]
        (tensor([1., 0.]), tensor([0.5000, 1.0000]))
    """

    records = ("conflict", "exists", "dominance", "factors", "dominance_after", "penalty")

    def __init__(
        self,
        modalities: Modalities,
        *,
        mode: Mode = "gradient",
        lambda_cp: float = 1.0,
        tolerance: float = 0.1,
        apply_to: ApplyTo = "gradient",
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        if mode not in get_args(Mode):
            raise ValueError(f'Parameter `mode` should be "gradient" or "loss". Found `mode = {mode!r}`.')
        for name, value in (("lambda_cp", lambda_cp), ("tolerance", tolerance)):
            if value < 0:
                raise ValueError(f"Parameter `{name}` should be non-negative. Found `{name} = {value}`.")
        if mode == "loss" and apply_to != "gradient":
            raise ValueError(
                'Parameter `apply_to` is for `mode="gradient"`: a loss is not applied to a step. '
                f'Found `apply_to = {apply_to!r}` with `mode = "loss"`. Leave it out.'
            )
        self.mode: Mode = mode
        self.lambda_cp = lambda_cp
        self.tolerance = tolerance
        self.needs = frozenset({"features"}) if mode == "loss" else frozenset()
        self.scaling = FactorScaling(modalities, apply_to)

    def attach(self, optimizer: Optimizer) -> None:
        """Meet the optimizer; needed by ``apply_to="update"``."""
        self.scaling.attach(optimizer)

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]``, with the penalty added where that is the mode."""
        loss = super().forward(step)
        if self.mode == "gradient":
            return loss
        self.trace = {}
        if not self.window.active or not loss.requires_grad:
            return loss
        norms = self._feature_norms(step)
        shares = norm_conflicts(norms)
        self.trace = self._conflict(norms.detach()) | {"penalty": shares.detach()}
        return loss + self.lambda_cp * shares.sum().to(loss.dtype)

    def modulate(self) -> None:
        """Scale the gradients, or the coming step, of the modalities in conflict; in ``mode="loss"`` do nothing."""
        super().modulate()
        if self.mode == "loss":
            return
        self.trace = {}
        self.scaling.forget()
        if not self.window.active:
            return
        norms = gradient_norms(self.modalities)
        factors = cp_factors(norms, self.lambda_cp, self.tolerance)
        self.scaling(factors)
        after = dominance_ratios(norms * factors)
        self.trace = self._conflict(norms) | {"factors": factors, "dominance_after": after}

    def _conflict(self, norms: Tensor) -> dict[str, Tensor]:
        degrees = conflict_degrees(norms, self.tolerance)
        exists = (degrees > 0).any().expand(len(norms))
        return {"norms": norms, "conflict": degrees, "exists": exists, "dominance": dominance_ratios(norms)}

    def _feature_norms(self, step: Step) -> Tensor:
        features = features_of(self, step)
        learning = [x for x in features if x.requires_grad]
        rows = torch.full_like(step.loss, len(features[0]))
        # Times the rows: ranks with more of them count for more, and half precision has less to lose.
        found = torch.autograd.grad(step.loss, learning, rows, create_graph=True, allow_unused=True) if learning else ()
        if not found or any(gradient is None for gradient in found):
            raise ValueError(
                "`Step.features` should be the very tensors that `Step.loss` was computed from. Found others, or "
                "detached ones."
            )
        gradients = iter(found)
        norms = torch.stack([_norm(next(gradients) if x.requires_grad else torch.zeros_like(x)) for x in features])
        return root(sum_with_gradient(norms.square())) if several_ranks() else norms


def _norm(gradient: Tensor) -> Tensor:
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
    return norm
