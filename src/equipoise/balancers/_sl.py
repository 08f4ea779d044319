"""Statistical loss."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import Tensor

from equipoise.balancers._per_modality import features_of
from equipoise.balancers._ranks import sum_with_gradient
from equipoise.core import Balancer, Modalities, Step
from equipoise.functional.losses import covariances, statistics_loss


class SL(Balancer):
    r"""Statistical loss: a batch's predictions are to be distributed as its targets are, and modalities as each other.

    After [A Conflict-Aware Penalty and Statistical Loss Framework for Balancing Modalities and Enhancing Stability in
    Multimodal Sentiment Analysis](https://arxiv.org/abs/2605.28575) (2026), Eq. 4. **The formula is ours:** we know the
    paper by its abstract, fragments and a review; it "aligns predicted distribution statistics with empirical input
    statistics" and cites Deep CORAL. Built is

    $$
    L + \lambda_{stat} L_{stat} + \lambda_{cov} \operatorname{mean}_{i < j}
    \frac{1}{4 d^2} \lVert C_i - C_j \rVert_F^2, \qquad
    L_{stat} = \frac{1}{C} \sum_{c=1}^{C} (\bar p_c - \bar y_c)^2 + (\sigma(p_c) - \sigma(y_c))^2
    $$

    - $p_c, y_c$: for regression the predictions and the targets (C outputs); for classification the predicted
      probabilities and the one-hot labels of C classes, so that $\bar y_c$ is the frequency of class c and
      $\sigma(y_c) = \sqrt{\bar y_c (1 - \bar y_c)}$. See `equipoise.functional.statistics_loss`.
    - $\bar{\;\cdot\;}, \sigma$: mean and standard deviation over the batch.
    - $C_m$: covariance of modality m's representation (``Step.features``) over the batch, as in Deep CORAL
      (`equipoise.functional.coral_loss`). All representations are of one width d.
    - $\lambda_{stat}, \lambda_{cov}$: weights; the paper's values are not known to us.

    By itself it balances nothing: it keeps predictions from shrinking to their mean, as a fused model does that learns
    from one modality only. The paper puts it beside `CP`: ``Chain(SL(encoders), CP(encoders))``.

    Multiply what the balancer returns, not what you give it: a factor in the loss does not reach the statistics.
    They are statistics of a batch, so micro-batches differ from the full batch, and small batches are noisy. Ranks are
    summed up with a gradient, and equal one. ``trace`` holds ``distribution`` ($L_{stat}$, the same for all) and
    ``covariance`` (a modality's mean distance to the others), of the last micro-batch. No host sync on a GPU.

    Args:
        modalities: encoders; for the covariances their representations are in ``Step.features``.
        lambda_stat: weight of the predictions' statistics, non-negative; with 0 ``logits`` and ``target`` are not read.
        lambda_cov: weight of the representations' covariances, non-negative; with 0 ``features`` are not read.
        from_epoch: first epoch in which it acts.
        until_epoch: first epoch in which it no longer acts; None for ever.

    Raises:
        ValueError: a parameter out of its range; a `Step` without a field that is read; features of several widths.
        RuntimeError: ``modulate()`` before ``forward``, or no gradient found.

    Warns:
        UserWarning: both weights are 0.

    Example:
        >>> import torch
        >>> from equipoise import SL, Modalities, Step
        >>> text, audio = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> balancer = SL(Modalities(text=text, audio=audio), lambda_stat=0.5, lambda_cov=0.0)
        >>> logits, y = torch.tensor([0.0, 2.0], requires_grad=True), torch.tensor([0.0, 6.0])
        >>> plain = torch.nn.functional.l1_loss(logits, y)
        >>> loss = balancer(Step(plain, logits=logits, target=y))
        >>> loss.item() - plain.item()  # means 1 and 3, deviations 1 and 3
        4.0
    """

    needs = frozenset({"logits", "target", "features"})  # of the defaults
    records = ("distribution", "covariance")

    def __init__(
        self,
        modalities: Modalities,
        *,
        lambda_stat: float = 0.1,
        lambda_cov: float = 0.1,
        from_epoch: int = 0,
        until_epoch: int | None = None,
    ) -> None:
        super().__init__(modalities, from_epoch=from_epoch, until_epoch=until_epoch)
        for name, value in (("lambda_stat", lambda_stat), ("lambda_cov", lambda_cov)):
            if value < 0:
                raise ValueError(f"Parameter `{name}` should be non-negative. Found `{name} = {value}`.")
        if not lambda_stat and not lambda_cov:
            warnings.warn("SL does nothing with `lambda_stat = 0` and `lambda_cov = 0`.", stacklevel=2)
        self.lambda_stat = lambda_stat
        self.lambda_cov = lambda_cov
        self.needs = frozenset(
            ({"logits", "target"} if lambda_stat else set()) | ({"features"} if lambda_cov else set())
        )

    def forward(self, step: Step) -> Tensor:
        """The loss ``[]`` with the statistics' distances added."""
        loss = super().forward(step)
        self.trace = {}
        if not self.window.active or not loss.requires_grad:
            return loss
        if self.lambda_stat:
            distance = statistics_loss(cast(Tensor, step.logits), cast(Tensor, step.target), sum_with_gradient)
            loss = loss + self.lambda_stat * distance.to(loss.dtype)
            self.trace["distribution"] = distance.detach().expand(len(self.modalities))
        if self.lambda_cov:
            distances = self._distances(step)  # each pair is in it twice
            count = len(self.modalities)
            loss = loss + self.lambda_cov * (distances.sum() / (count * (count - 1))).to(loss.dtype)
            self.trace["covariance"] = distances.detach().sum(dim=1) / (count - 1)
        return loss

    def _distances(self, step: Step) -> Tensor:
        features = features_of(self, step)
        widths = {name: x.shape[1] for name, x in zip(self.modalities, features, strict=True)}
        width = features[0].shape[1]
        if set(widths.values()) != {width}:
            raise ValueError(
                f"SL compares covariances of representations of one width. Found {widths}. "
                "Project them to one, or set `lambda_cov=0`."
            )
        found = covariances(torch.stack(features), sum_with_gradient)
        return (found[:, None] - found).square().sum(dim=(2, 3)) / (4 * width**2)
